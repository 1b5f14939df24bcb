"""Snapshots over Kafka: published on a compacted topic, followed without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Self

from bandit_router.adapters.kafka.assembly import (
    CONTAINER_HEADER,
    ID_HEADER,
    INDEX_HEADER,
    Announced,
    Assembly,
    Refused,
    chunk_key,
)
from bandit_router.adapters.kafka.client import SNAPSHOTS, Connection, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.producing import abandon, make_producer, never_taken
from bandit_router.errors import TransportError
from bandit_router.snapshot import Snapshot
from bandit_router.snapshot.announcement import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_PUBLISHED_BYTES,
    announce,
    encode,
)

if TYPE_CHECKING:
    from uuid import UUID

    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

_LEAST_CHUNK_BYTES = 16_384
_BATCH_BYTES = 65_536
_FETCH_WAIT_MS = 100
_POSITION_MS = 50
_FETCH_BYTES = 4 * 1024 * 1024


class SnapshotPublisher:
    """Puts snapshots on the topic. One thread at a time may use it.

    Args:
        connection: the cluster.
        key: signs the announcements; None leaves them unsigned.
        timeout_s: how long the brokers may take to acknowledge one snapshot, seconds.
        chunk_bytes: most of a container in one record; halved while the brokers find it too large.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        key: bytes | None = None,
        timeout_s: float = 10.0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._connection, self._key, self._timeout_s = connection, key, timeout_s
        self._chunk_bytes = min(chunk_bytes, CHUNK_BYTES)
        self._producer: KafkaProducer | None = None
        self._chunks: dict[tuple[str, int], int] = {}  # of an app under an epoch

    def publish(self, app: str, snapshot: Snapshot, *, epoch: int, learner: str) -> None:
        """Send a snapshot; when it returns, all in-sync replicas have it.

        Followers see the old snapshot or this one: the announcement goes last, and chunks that only
        a larger predecessor had are deleted after it.

        Args:
            app: owner of the policy.
            epoch: the claim under which it was learned.
            learner: who learned it, for people.

        Raises:
            SnapshotError: it is too large to be published.
            TransportError: it was not acknowledged; calling again sends all of it again.
        """
        while True:
            try:
                with translated(f"publish snapshot {snapshot.id}", self._connection):
                    self._publish(app, snapshot, epoch, learner)
            except TransportError as error:
                self.close()  # a producer is of no use after an error that it cannot retry
                if never_taken(error.__cause__ or error) != "oversize":
                    raise
                if self._chunk_bytes <= _LEAST_CHUNK_BYTES:
                    raise self._too_small(error) from error
                self._chunk_bytes //= 2
            else:
                return

    def close(self) -> None:
        """Give the connection back; the next :meth:`publish` makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon(producer)  # whatever was to be waited for has been

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _too_small(self, error: TransportError) -> TransportError:
        failure = TransportError(
            f"{error}: it refuses records of {self._chunk_bytes} bytes; raise max.message.bytes "
            f"of the topic {self._connection.topic(SNAPSHOTS)}"
        )
        failure.retriable = False
        return failure

    def _publish(self, app: str, snapshot: Snapshot, epoch: int, learner: str) -> None:
        announcement, pieces = announce(
            app,
            snapshot,
            epoch=epoch,
            learner=learner,
            key=self._key,
            chunk_bytes=self._chunk_bytes,
        )
        # How many chunks another publisher left is not known: then all that may be are deleted.
        there = self._chunks.get((app, epoch), MAX_CHUNKS)
        self._chunks[app, epoch] = max(announcement.chunks, there)
        name = snapshot.id.encode()
        whole = [(ID_HEADER, name)]
        if announcement.chunks:
            self._send(
                app,
                [
                    (chunk_key(app, i), piece, [(ID_HEADER, name), (INDEX_HEADER, b"%d" % i)])
                    for i, piece in enumerate(pieces)
                ],
            )
        else:
            whole.append((CONTAINER_HEADER, pieces[0]))
        self._send(app, [(app.encode(), encode(announcement), whole)])
        stale = range(announcement.chunks, there)
        self._send(app, [(chunk_key(app, i), None, []) for i in stale])
        self._chunks[app, epoch] = announcement.chunks

    def _send(
        self, app: str, records: list[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]
    ) -> None:
        """Send records to an app's partition and wait until all are acknowledged."""
        producer = self._producer = self._producer or make_producer(
            self._connection,
            linger_ms=0,
            batch_bytes=_BATCH_BYTES,
            request_timeout_s=self._timeout_s,
            delivery_timeout_s=self._timeout_s,
        )
        topic, partition = self._connection.topic(SNAPSHOTS), self._connection.partition_of(app)
        deadline = time.monotonic() + self._timeout_s
        pending = [
            producer.send(topic, key=key, value=value, headers=headers, partition=partition)
            for key, value, headers in records
        ]
        for future in pending:
            future.get(timeout=max(deadline - time.monotonic(), 0.001))


class SnapshotReader:
    """Reads the newest snapshots of some apps from the start of the topic, then follows it.

    No consumer group: each reader sees everything. Brokers that have lost the topic, or a part of
    it, are read from the start again. One thread at a time may use it.

    Args:
        connection: the cluster.
        apps: whose snapshots.
        key: what announcements must be signed with; None takes unsigned ones too.
        max_bytes: of a container; larger ones are refused before anything of them is decoded.
        silent_s: after so many seconds without any answer the connection is made anew: kafka-python
            itself waits on in silence.

    ``counts`` are those of :class:`~bandit_router.adapters.kafka.assembly.Assembly`, and
    ``rewound``: how often a partition was read from the start again.
    """

    def __init__(
        self,
        connection: Connection,
        apps: Collection[str],
        *,
        key: bytes | None = None,
        max_bytes: int = MAX_PUBLISHED_BYTES,
        silent_s: float = 15.0,
    ) -> None:
        self._connection, self._silent_s = connection, silent_s
        self._assembly = Assembly(apps, key=key, max_bytes=max_bytes)
        self.counts = self._assembly.counts
        self._apps: dict[int, list[str]] = {}
        for app in apps:
            self._apps.setdefault(connection.partition_of(app), []).append(app)
        self._consumer: KafkaConsumer | None = None
        self._topic_id: UUID | None = None
        self._answered = 0.0

    def poll(self, timeout_s: float) -> list[Announced | Refused]:
        """What is new: of each app at most its newest whole snapshot, and every refusal.

        While there is more to read of a partition, its snapshots are held back for newer ones.

        Args:
            timeout_s: how long to wait when nothing is there, seconds.

        Raises:
            TransportError: the cluster cannot be reached or refuses; call again.
        """
        try:
            with translated("follow snapshots", self._connection):
                consumer = self._consumer = self._consumer or self._made()
                records = consumer.poll(timeout_ms=int(timeout_s * 1000))
                self._rewind(consumer)
                self._check_answers()
        except TransportError:
            self.close()
            raise
        found: list[Announced | Refused] = []
        for batch in records.values():
            for record in batch:
                refused = self._assembly.take(record.key, record.value, record.headers or ())
                if refused is not None:
                    found.append(refused)
        for partition in consumer.assignment():
            if self._has_read_all(consumer, partition) or partition not in records:
                newest = map(self._assembly.newest, self._apps[partition.partition])
                found += [one for one in newest if one is not None]
        return found

    @property
    def caught_up(self) -> bool:
        """Whether everything that the brokers were seen to have has been read."""
        consumer = self._consumer
        return consumer is not None and all(
            self._has_read_all(consumer, partition) for partition in consumer.assignment()
        )

    def close(self) -> None:
        """Give the connection back; the next :meth:`poll` makes another and reads from the start.

        What was read before is known again, and older than what was handed out: harmless.
        """
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _has_read_all(self, consumer: KafkaConsumer, partition: TopicPartition) -> bool:
        """Whether the log's end, as the last fetch told it, has been reached."""
        end = consumer.highwater(partition)
        return end is not None and end == consumer.position(partition, timeout_ms=_POSITION_MS)

    def _check_answers(self) -> None:
        silent_s = time.monotonic() - self._answered
        if silent_s > self._silent_s:
            raise TransportError(
                f"Kafka at {', '.join(self._connection.bootstrap_servers)}: no answer for "
                f"{silent_s:.0f} s"
            )

    def _hear(self, _: object) -> None:
        """The brokers have answered; called for each answer to the regular question for topics."""
        self._answered = time.monotonic()

    def _rewind(self, consumer: KafkaConsumer) -> None:
        """Start over where the brokers have another log than the one that was read.

        It has another id where the topic was made anew, and may have as many records as the lost
        one. Where it was cut, it ends before what was read.
        """
        topic_id = consumer._cluster.topic_id(  # noqa: SLF001 - no public way leads there
            self._connection.topic(SNAPSHOTS)
        )
        before, self._topic_id = self._topic_id, topic_id or self._topic_id
        for partition in consumer.assignment():
            end = consumer.highwater(partition)
            position = consumer.position(partition, timeout_ms=_POSITION_MS)
            shorter = None not in {end, position} and end < position
            if shorter or before not in {None, self._topic_id}:
                self.counts["rewound"] += 1
                consumer.seek(partition, 0)

    def _made(self) -> KafkaConsumer:
        from kafka import KafkaConsumer, TopicPartition

        options: dict[str, Any] = self._connection.options(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=4 * _FETCH_BYTES,
            metadata_max_age_ms=int(self._silent_s * 1000 / 3),
            request_timeout_ms=int(self._silent_s * 1000),
        )
        consumer = open_client(KafkaConsumer, options)
        self._hear(None)
        consumer._cluster.add_listener(self._hear)  # noqa: SLF001 - no public way leads there
        topic = self._connection.topic(SNAPSHOTS)
        partitions = [TopicPartition(topic, number) for number in self._apps]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        return consumer


def last_published(
    connection: Connection,
    apps: Collection[str],
    *,
    key: bytes | None = None,
    timeout_s: float = 30.0,
) -> Mapping[str, Announced]:
    """The newest whole snapshot of each app that has one, read from the whole topic.

    What was refused on the way is passed over; the containers are not verified beyond that.

    Raises:
        TransportError: the end of the topic was not reached in time.
    """
    newest: dict[str, Announced] = {}
    deadline = time.monotonic() + timeout_s
    with SnapshotReader(connection, apps, key=key) as reader:
        while not reader.caught_up:
            if time.monotonic() > deadline:
                raise TransportError(
                    f"the end of {connection.topic(SNAPSHOTS)} was not reached in {timeout_s:g} s"
                )
            for one in reader.poll(0.1):
                if isinstance(one, Announced):
                    newest[one.app] = one
    return newest
