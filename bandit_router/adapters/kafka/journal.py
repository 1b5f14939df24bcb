"""The order journal: in which order an app's topics are learned from, written down before it is.

Three topics have no common order; whoever reads them chooses one, and another reader at another
time would choose another. So the choice is a record of its own, in the topic ``PREFIX.order``, and
everybody who learns follows it: a learner after a crash, another machine that takes over, a rebuild
years later. A record names a batch, per topic from which offset up to which; the order within a
batch is a function of its records.

The journal also says who may write it. A learner that takes a partition over appends a claim with
an epoch above all before. From then on the records of lower epochs are void: whoever wrote them had
been presumed dead. A learner reads what was written between its last record and the one it has just
appended before it touches a single event, and so finds out in time that it is the dead one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

import msgspec

from bandit_router.adapters.kafka.client import ORDER, Connection, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.outbox import Outgoing
from bandit_router.errors import TransportError

if TYPE_CHECKING:
    from kafka import KafkaConsumer

SCHEMA_VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the journal: a claim, or a batch.

    Attributes:
        epoch: which claim it is, or under which claim it was written, >= 1.
        claim: who claims; "" in a batch.
        topics: in a claim the ids of the topics that are read, by short name: a topic that was
            made anew has another one, and its old offsets mean nothing.
        start, upto: per topic the first offset of the batch, and that after its last.
        restart: a topic has lost what was read of it, and begins again below where it was.
    """

    epoch: int
    claim: str = ""
    topics: dict[str, str] = {}
    start: dict[str, int] = {}
    upto: dict[str, int] = {}
    restart: bool = False
    schema: int = SCHEMA_VERSION


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Chain:
    """Which records of a journal count: fold them in, in order.

    Attributes:
        epoch: of the claim in force; 0 before any.
        upto: per topic the offset after the last batch.
        topics: the topics' ids, as of that claim.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.topics: dict[str, str] = {}
        self.upto: dict[str, int] = {}

    def take(self, entry: Entry | None) -> bool:
        """Whether the record counts; None is one that could not be read, and does not.

        A claim counts when its epoch is above all before. A batch counts when its epoch is not
        below the claim in force, and it goes on where the last one ended or beyond: of two that
        begin at the same place, which one writer leaves that had no answer to the first, the first
        counts.
        """
        if entry is None or entry.epoch < max(self.epoch, 1):
            return False
        if entry.claim:
            counts = entry.epoch > self.epoch
            if counts:
                self.topics = dict(entry.topics)
        else:
            counts = entry.restart or _reaches(entry.start, self.upto)
            if counts:
                self.upto = dict(entry.upto)
        if counts:
            self.epoch = entry.epoch
        return counts


def _reaches(start: Mapping[str, int], end: Mapping[str, int]) -> bool:
    return all(start.get(topic, 0) >= offset for topic, offset in end.items())


class Journal:
    """Reads and writes the journals of all partitions. It belongs to one thread.

    Args:
        connection: the cluster.
        sender: sends the records.
        timeout_s: how long to wait for the brokers, seconds.
    """

    def __init__(self, connection: Connection, sender: Sender, *, timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._sender = sender
        self._timeout_s = timeout_s
        self._consumer: KafkaConsumer | None = None

    def append(self, partition: int, entry: Entry) -> int:
        """Write a record; returns its offset.

        Raises:
            TransportError: not acknowledged in time. It may have been written all the same.
        """
        record = Outgoing(ORDER, entry.claim, _encode(entry))
        return self._sender.send([record], partition=partition)[0]

    def read(
        self, partition: int, start: int, stop: int | None = None
    ) -> Iterator[tuple[int, Entry | None]]:
        """The records from ``start`` up to before ``stop``, or to where the journal ends now.

        A record that cannot be decoded is None. What Kafka no longer has is left out.

        Raises:
            TransportError: they did not come in time.
        """
        from kafka import TopicPartition

        place = TopicPartition(self._connection.topic(ORDER), partition)
        try:
            with translated("read the order journal", self._connection):
                consumer = self._open()
                consumer.unsubscribe()  # so that nothing is left of where the journal ended once
                consumer.assign([place])
                consumer.seek(place, start)
                yield from self._records(consumer, place, start, stop)
        except TransportError:
            self.close()
            raise

    def identity(self) -> str:
        """The id of the topic, another one when it was made anew; "" when the brokers tell none.

        Raises:
            TransportError: the cluster cannot be reached.
        """
        topic = self._connection.topic(ORDER)
        with translated("look at the order journal", self._connection):
            consumer = self._open()
            consumer.partitions_for_topic(topic)
            return topic_id(consumer, topic)

    def close(self) -> None:
        """Give the connections back."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _records(
        self, consumer: KafkaConsumer, place: object, start: int, stop: int | None
    ) -> Iterator[tuple[int, Entry | None]]:
        deadline = time.monotonic() + self._timeout_s
        at = start
        while stop is None or at < stop:
            for record in consumer.poll(100).get(place, ()):
                at = record.offset + 1
                if stop is not None and record.offset >= stop:
                    return
                deadline = time.monotonic() + self._timeout_s
                yield record.offset, _entry(record.value)
            # Where Kafka no longer has what was asked for, the position is moved to what it has.
            at = max(at, consumer.position(place, timeout_ms=0) or 0)
            end = consumer.highwater(place)
            if stop is None and end is not None and at >= end:
                return
            if time.monotonic() > deadline:
                raise TransportError(
                    f"the order journal {place} cannot be read beyond offset {at} "
                    f"within {self._timeout_s:g} s"
                )

    def _open(self) -> KafkaConsumer:
        from kafka import KafkaConsumer

        if self._consumer is None:
            options = self._connection.options(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=50,
            )
            self._consumer = open_client(KafkaConsumer, options)
        return self._consumer


def topic_id(consumer: KafkaConsumer, topic: str) -> str:
    """The id of a topic, as the last metadata told it; "" when they did not."""
    return str(consumer._cluster.topic_id(topic) or "")  # noqa: SLF001 - no public way leads there


def _entry(value: bytes | None) -> Entry | None:
    try:
        entry = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return entry if entry.schema == SCHEMA_VERSION else None
