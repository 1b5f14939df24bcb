"""One order for three topics. Pure: the same records give the same order, whenever and by whom.

Laws:

* Each topic's own order is kept.
* The order of a batch is a function of its records; of a part from the front of each topic it is
  the same, cut off.
* In a backlog no topic runs ahead of another that is known to have more: what is taken is not later
  than the last that is known of that one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from bandit_router.adapters.kafka.client import SOURCES


class Stamped(Protocol):
    """A record with its offset and Kafka's timestamp, ms."""

    @property
    def offset(self) -> int:
        """In its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...


R = TypeVar("R", bound=Stamped)


def merge(batch: Mapping[str, Iterable[R]]) -> Iterator[tuple[str, R]]:
    """The records of a batch in order, each with its topic.

    By time, where a topic's time never runs backwards; at equal times changes come first, then
    decisions, then outcomes; at equal times in one topic, by offset.
    """
    ranked = [_ranked(rank, batch.get(topic, ())) for rank, topic in enumerate(SOURCES)]
    for _, rank, _, record in heapq.merge(*ranked, key=_place):
        yield SOURCES[rank], record


def cut(
    buffers: Mapping[str, Sequence[R]], unfinished: Iterable[str], limit: int
) -> dict[str, int]:
    """How much of what has been read makes up the next batch: records per topic.

    Args:
        buffers: per topic what has been read and not yet taken.
        unfinished: the topics that are known to have more.
        limit: at most so many records altogether, >= 1.
    """
    horizon = min((_last_time(buffers.get(topic, ())) for topic in unfinished), default=math.inf)
    ranked = [_ranked(rank, buffers.get(topic, ())) for rank, topic in enumerate(SOURCES)]
    counts = dict.fromkeys(SOURCES, 0)
    for time, rank, _, _ in itertools.islice(heapq.merge(*ranked, key=_place), limit):
        if time > horizon:
            break
        counts[SOURCES[rank]] += 1
    return counts


def _ranked(rank: int, records: Iterable[R]) -> Iterator[tuple[int, int, int, R]]:
    latest = 0
    for record in records:
        latest = max(latest, record.timestamp)
        yield latest, rank, record.offset, record


def _place(item: tuple[int, int, int, object]) -> tuple[int, int, int]:
    return item[:3]


def _last_time(records: Iterable[Stamped]) -> float:
    return max((record.timestamp for record in records), default=-math.inf)
