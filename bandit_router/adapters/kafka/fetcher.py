"""Read the three topics of a learner's partitions into bounded buffers.

Positions come from the learner's stores, never from Kafka. A buffer that is full is not read into
until it has been emptied, so that memory is bounded however long the backlog is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Self

import msgspec

from bandit_router.adapters.kafka.client import SOURCES, Connection, translated
from bandit_router.adapters.kafka.journal import topic_id
from bandit_router.adapters.kafka.opening import open_client

if TYPE_CHECKING:
    from kafka import KafkaConsumer, TopicPartition

_SHRUNK_S = 3.0
"""For so long a topic must end before our position until we believe that it has lost records: the
end that a new leader tells may lag behind for a moment."""


class Record(msgspec.Struct, frozen=True, eq=False):
    """One record of a topic, as it came.

    Attributes:
        offset: in its partition.
        timestamp: Kafka's, ms since the Unix epoch.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Stretch:
    """What is known of one topic's partition.

    Attributes:
        buffer: records that were read and not yet taken, in order.
        position: where reading goes on; records before it are in the buffer or taken.
        end: the offset after the last record, as of the last answer; None before the first.
        missed: records that Kafka had removed before they were read.
        shrunk: where the topic ends now, when that is before the position; else None.
        needed: until here the buffer may grow, full or not.
        paused: whether the buffer is full, and not read into.
    """

    def __init__(self, position: int) -> None:
        self.buffer: deque[Record] = deque()
        self.position = position
        self.end: int | None = None
        self.missed = 0
        self.shrunk: int | None = None
        self.needed = 0
        self.paused = False
        self.suspected_at: float | None = None

    @property
    def more(self) -> bool:
        """Whether the topic is known, or must be feared, to have more than the buffer."""
        return self.end is None or self.end > self.position or self.paused

    def take(self, upto: int) -> list[Record]:
        """Remove and return the records before offset ``upto``."""
        taken = []
        while self.buffer and self.buffer[0].offset < upto:
            taken.append(self.buffer.popleft())
        return taken


class Fetcher:
    """Reads with one consumer of no group. It belongs to one thread.

    Args:
        connection: the cluster.
        capacity: records of a topic's partition from which on a buffer counts as full, >= 1.
    """

    def __init__(self, connection: Connection, *, capacity: int = 2000) -> None:
        self._connection = connection
        self._capacity = capacity
        self._consumer: KafkaConsumer | None = None
        self._stretches: dict[int, dict[str, Stretch]] = {}
        self._seek: set[tuple[int, str]] = set()

    def add(self, partition: int, positions: Mapping[str, int]) -> dict[str, Stretch]:
        """Read the topics' partitions of this number from these offsets on; 0 where none is given.

        The result is kept up to date until the partition is dropped.
        """
        made = {topic: Stretch(positions.get(topic, 0)) for topic in SOURCES}
        self._stretches[partition] = made
        self._seek |= {(partition, topic) for topic in SOURCES}
        return made

    def drop(self, partition: int) -> None:
        """Read this partition no longer."""
        self._stretches.pop(partition, None)
        self._seek = {(number, topic) for number, topic in self._seek if number != partition}

    def poll(self, timeout_s: float) -> int:
        """Read what there is, waiting up to ``timeout_s`` for something; returns how many records.

        Raises:
            TransportError: the cluster refuses, or cannot be reached to begin with.
        """
        if not self._stretches:
            return 0
        from kafka.errors import OffsetOutOfRangeError

        with translated("read events", self._connection):
            consumer = self._ready()
            try:
                polled = consumer.poll(int(timeout_s * 1000), max_records=4 * self._capacity)
            except OffsetOutOfRangeError as error:
                self._relocate(consumer, error)
                return 0
            for place, records in polled.items():
                self._take(place, records)
            self._settle(consumer, polled)
        return sum(map(len, polled.values()))

    def identities(self) -> dict[str, str]:
        """The ids of the topics by short name, as far as the brokers tell them.

        Raises:
            TransportError: the cluster cannot be reached.
        """
        with translated("look at the topics", self._connection):
            consumer = self._ready()
            names = {topic: self._connection.topic(topic) for topic in SOURCES}
            for name in names.values():
                if not topic_id(consumer, name):
                    consumer.partitions_for_topic(name)
            return {topic: topic_id(consumer, name) for topic, name in names.items()}

    def close(self) -> None:
        """Give the connections back."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def restart(self, partition: int, topic: str) -> None:
        """Read a topic again from its beginning: what was read of it is gone."""
        self._stretches[partition][topic] = Stretch(0)
        self._seek.add((partition, topic))

    def _ready(self) -> KafkaConsumer:
        """The consumer, reading just what it should."""
        from kafka import KafkaConsumer, TopicPartition

        if self._consumer is None:
            options = self._connection.options(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=50,
                max_partition_fetch_bytes=2 * 1024 * 1024,
            )
            self._consumer = open_client(KafkaConsumer, options)
            self._seek = {(n, topic) for n, found in self._stretches.items() for topic in found}
        consumer = self._consumer
        wanted = {
            TopicPartition(self._connection.topic(topic), number): stretch
            for number, found in self._stretches.items()
            for topic, stretch in found.items()
        }
        if consumer.assignment() != set(wanted):
            consumer.assign(list(wanted))
        for number, topic in self._seek:
            place = TopicPartition(self._connection.topic(topic), number)
            consumer.seek(place, wanted[place].position)
        self._seek.clear()
        for place, stretch in wanted.items():
            full = len(stretch.buffer) >= self._capacity and stretch.position >= stretch.needed
            if full != (place in consumer.paused()):
                (consumer.pause if full else consumer.resume)(place)
            stretch.paused = full
        _unpark(consumer)
        return consumer

    def _stretch(self, place: TopicPartition) -> Stretch:
        topic = place.topic.removeprefix(self._connection.topic(""))
        return self._stretches[place.partition][topic]

    def _take(self, place: TopicPartition, records: list) -> None:
        stretch = self._stretch(place)
        stretch.buffer.extend([Record(r.offset, r.timestamp or 0, r.key, r.value) for r in records])
        stretch.position = records[-1].offset + 1

    def _settle(self, consumer: KafkaConsumer, polled: Container[TopicPartition]) -> None:
        """Learn where each topic ends, and step over offsets that hold no record."""
        now = time.monotonic()
        for place in consumer.assignment():
            stretch, end = self._stretch(place), consumer.highwater(place)
            if end is None:
                continue
            stretch.end = end
            if stretch.position < end and place not in polled and not stretch.paused:
                reached = consumer.position(place, timeout_ms=0)
                stretch.position = max(stretch.position, reached or 0)
            if stretch.position <= end:
                stretch.suspected_at = None
            elif stretch.suspected_at is None:
                stretch.suspected_at = now
            elif now - stretch.suspected_at > _SHRUNK_S:
                stretch.shrunk = end

    def _relocate(self, consumer: KafkaConsumer, error: Exception) -> None:
        """Go on where the topics begin, for those whose records were removed before we came."""
        for place, asked in error.args[0].items():
            stretch = self._stretch(place)
            first = consumer.beginning_offsets([place])[place]
            if first <= asked:  # beyond its end: it has lost records
                stretch.shrunk = first
                continue
            stretch.missed += first - asked
            stretch.position = first
            consumer.seek(place, first)


def _unpark(consumer: KafkaConsumer) -> None:
    """Let records out that were kept back while their partition was paused.

    kafka-python 3.0 takes them up again only when it has no other records at hand, and what is at
    hand stays there when it is used up: a partition once paused was not read any more.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - there is no other way
    if not getattr(fetcher, "_next_partition_records", None):
        fetcher._next_partition_records = None  # noqa: SLF001
