"""A record of a log or topic as it is, undecoded: what people look at when something is wrong."""

from __future__ import annotations

import msgspec

from bandit_router.events import Change, Event
from bandit_router.types import Decision


class Record(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One record.

    Attributes:
        topic: the short name: ``decisions``, ``outcomes``, ``changes``, ``dead_letters``...
        partition: of the topic; None in an embedded log, which has none.
        offset: of the record.
        ts: when it was appended, or happened, seconds since the Unix epoch; None when unknown.
        key / value / headers: as they stand there.
    """

    topic: str
    partition: int | None
    offset: int
    ts: float | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def topic_of(event: Event) -> str:
    """The short name of the topic that an event belongs to."""
    if isinstance(event, Decision):
        return "decisions"
    return "changes" if isinstance(event, Change) else "outcomes"
