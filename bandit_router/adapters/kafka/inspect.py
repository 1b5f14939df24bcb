"""Reading topics to look at them: no group, no commits, bounded by what is there at the start."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from bandit_router.adapters.kafka.client import Connection, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.records import Record
from bandit_router.errors import TransportError

if TYPE_CHECKING:
    from kafka import TopicPartition

Span = tuple[int, int]
"""Offsets of a partition: from the first, up to but without the second."""

Keep = Callable[[Record], bool]

_POLL_MS = 100
_FIRST_STEP, _LARGEST_STEP = 200, 20_000


class Inspector:
    """Reads the topics of one installation. A context manager.

    Raises:
        TransportError: the cluster cannot be reached, or refuses.
        ConfigError: the connection's settings are wrong.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        with self._translated("connect"):
            from kafka import KafkaConsumer

            self._consumer = open_client(
                KafkaConsumer,
                connection.options(
                    group_id=None,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    fetch_max_wait_ms=_POLL_MS,
                ),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def spans(self, topics: Sequence[str]) -> dict[tuple[str, int], Span]:
        """What each partition of the topics (short names) has now.

        Raises:
            TransportError: a topic is missing, or the cluster does not answer.
        """
        with self._translated("read the topics' offsets"):
            parts = [part for topic in topics for part in self._partitions(topic)]
            first = self._consumer.beginning_offsets(parts)
            end = self._ends(parts)
        return {self._place(part): (first[part], end[part]) for part in parts}

    def read(self, spans: Mapping[tuple[str, int], Span]) -> Iterator[Record]:
        """The records within the spans, ordered within each partition.

        Raises:
            TransportError: the cluster stopped answering before the end.
        """
        wanted = {self._part(*place): end for place, (first, end) in spans.items() if first < end}
        with self._translated("read"):
            self._take({self._part(*place): first for place, (first, _) in spans.items()}, wanted)
            patience = _Patience(self._connection)
            while wanted:
                for part, found in self._consumer.poll(_POLL_MS).items():
                    end = wanted.get(part, 0)
                    yield from (self._record(raw) for raw in found if raw.offset < end)
                    patience.renew()
                done = [
                    part for part, end in wanted.items() if self._consumer.position(part) >= end
                ]
                if done:
                    wanted = {part: end for part, end in wanted.items() if part not in done}
                    self._consumer.assign(list(wanted))  # the others keep their positions
                patience.check(f"{len(wanted)} partitions are not read to their end")

    def last(
        self, spans: Mapping[tuple[str, int], Span], most: int, keep: Keep | None = None
    ) -> list[Record]:
        """The newest ``most`` records within the spans that are to be kept, oldest first.

        Reads backwards in growing steps, so that a long topic is not read whole.
        """
        found: list[Record] = []
        for place, span in spans.items():
            found += self._last_of(place, span, most, keep)
        return sorted(found, key=_age)[-most:] if most else []

    def follow(
        self, places: Mapping[tuple[str, int], int], keep: Keep | None = None
    ) -> Iterator[Record]:
        """Records from those offsets on, as they come; never ends. A broker that is away for a
        while is waited for.
        """
        with self._translated("follow"):
            starts = {self._part(*place): offset for place, offset in places.items()}
            self._take(starts, starts)
            while True:
                for found in self._consumer.poll(5 * _POLL_MS).values():
                    records = map(self._record, found)
                    yield from (r for r in records if keep is None or keep(r))

    def _last_of(
        self, place: tuple[str, int], span: Span, most: int, keep: Keep | None
    ) -> list[Record]:
        first, upto = span
        step = max(min(most, _LARGEST_STEP), _FIRST_STEP) if keep else most
        found: deque[Record] = deque()
        while upto > first and len(found) < most:
            start = max(first, upto - step)
            block = deque(
                (r for r in self.read({place: (start, upto)}) if keep is None or keep(r)),
                maxlen=most - len(found),
            )
            found.extendleft(reversed(block))
            upto, step = start, min(4 * step, _LARGEST_STEP)
        return list(found)

    def _partitions(self, topic: str) -> list[TopicPartition]:
        name = self._connection.topic(topic)
        numbers = self._consumer.partitions_for_topic(name)
        if not numbers:
            failure = TransportError(
                f"there is no topic {name} at {', '.join(self._connection.bootstrap_servers)}; "
                "bandit-router events init makes the topics"
            )
            failure.retriable = False
            raise failure
        return [self._part(topic, number) for number in sorted(numbers)]

    def _ends(self, parts: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each partition ends, as told with fetched records.

        Not every broker answers the direct question rightly: Tansu counts batches, not records.
        """
        self._take(self._consumer.end_offsets(parts), parts)
        patience = _Patience(self._connection)
        ends: dict[TopicPartition, int] = {}
        while len(ends) < len(parts):
            self._consumer.poll(_POLL_MS, max_records=1)
            for part in parts:
                end = self._consumer.highwater(part)
                if end is not None and part not in ends:
                    ends[part] = end
            patience.check("the ends of the topics are not known")
        return ends

    def _take(
        self, starts: Mapping[TopicPartition, int], wanted: Collection[TopicPartition]
    ) -> None:
        """Read the wanted partitions from now on, from those offsets.

        None is ever paused: kafka-python 3.0 may not go on with one that is resumed.
        """
        self._consumer.assign(list(wanted))
        for part in wanted:
            self._consumer.seek(part, starts[part])

    def _part(self, topic: str, number: int) -> TopicPartition:
        from kafka import TopicPartition

        return TopicPartition(self._connection.topic(topic), number)

    def _place(self, part: TopicPartition) -> tuple[str, int]:
        return part.topic.removeprefix(f"{self._connection.prefix}."), part.partition

    def _record(self, raw: Any) -> Record:
        return Record(
            topic=raw.topic.removeprefix(f"{self._connection.prefix}."),
            partition=raw.partition,
            offset=raw.offset,
            ts=raw.timestamp / 1000.0 if raw.timestamp is not None and raw.timestamp >= 0 else None,
            key=raw.key,
            value=raw.value,
            headers=tuple((name, content or b"") for name, content in raw.headers),
        )

    def _translated(self, what: str) -> Any:
        return translated(what, self._connection)


class _Patience:
    """Ends a reading that gets nowhere: kafka-python itself would wait for ever."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seconds = 2.0 * connection.timeout_s
        self.renew()

    def renew(self) -> None:
        """Something came."""
        self._deadline = time.monotonic() + self._seconds

    def check(self, what: str) -> None:
        """Raise TransportError when nothing has come for too long."""
        if time.monotonic() > self._deadline:
            raise TransportError(
                f"Kafka at {', '.join(self._connection.bootstrap_servers)}: no answer for "
                f"{self._seconds:g} s; {what}"
            )


def _age(record: Record) -> tuple[float, str, int, int]:
    return record.ts or 0.0, record.topic, record.partition or 0, record.offset
