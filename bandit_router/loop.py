"""The only loop: source to joiner to learner to sink. Live, replay and simulation all run it.

The law: everything that comes out is a function of the events and their order. After a crash,
load the last snapshot and read the events after its offset again; the same rows come out with the
same numbers, and a sink that has them already finds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from bandit_router.events import CATALOG_CHANGES, Change, Event, Row
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.types import Decision


class DeadLetter(msgspec.Struct, frozen=True, eq=False):
    """A record that is no event: kept, with its reason, so that the offset can advance."""

    reason: str
    data: bytes


class Rejected(msgspec.Struct, frozen=True, eq=False):
    """An event or row that is kept but not learned from. ``reason`` is a short token."""

    reason: str
    item: Event | Row | DeadLetter


class Source(Protocol):
    """Where events come from: one totally ordered log."""

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Event | DeadLetter]]:
        """Up to ``limit`` events with offsets above ``after``, ascending; empty: none now.

        Raises:
            StorageError: the log cannot be read.
        """
        ...


class Sink(Protocol):
    """Where results go. All that one event caused is one step; a step is stored whole or not."""

    def put(
        self,
        offset: int,
        event: Event | DeadLetter | None,
        first_seq: int,
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        """Take one step.

        Args:
            offset: of the event.
            event: itself, for a sink that keeps events; None for the end of a finite stream.
            first_seq: ``learn_seq`` of the first row.
            rows: training rows, numbered from ``first_seq``.
            rejected: what this event caused to be set aside, with reasons.
            changes: what learning its rows found out: drift alarms.

        Raises:
            StorageError: earlier steps could not be stored; this one has been taken.
        """
        ...

    def commit(self) -> None:
        """Make every step taken so far durable.

        Raises:
            StorageError: it failed; nothing is lost, and it may be called again.
        """
        ...


class SnapshotTaker(Protocol):
    """Decides when the state is worth keeping, and keeps it in the sink."""

    def after_event(self, offset: int) -> None:
        """Called after each event that added training rows."""
        ...


class MemorySink:
    """Keeps what it is given in lists; for replay, simulation and tests.

    Attributes:
        rows: training rows; row i has ``learn_seq`` i + 1 when the learner began empty.
        rejected: what was set aside.
        changes: drift alarms.
        offset: of the last event; -1 before the first.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.rejected: list[Rejected] = []
        self.changes: list[Change] = []
        self.offset = -1

    def put(
        self,
        offset: int,
        event: Event | DeadLetter | None,  # noqa: ARG002 - replay has the events already
        first_seq: int,  # noqa: ARG002 - the list's index says it
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        """Take one step."""
        self.offset = offset
        if rows:
            self.rows.extend(rows)
        if rejected:
            self.rejected.extend(rejected)
        if changes:
            self.changes.extend(changes)

    def commit(self) -> None:
        """Nothing to do: memory is as durable as it will get."""


class Loop:
    """Pushes events through the joiner and the learner into the sink.

    Args:
        joiner: turns events into interactions.
        learner: applies them.
        sink: stores what comes out.
        snapshots: told after each event that added rows; None takes no snapshots.
        offset: of the last event that the joiner and the learner have seen; -1 for none.

    Attributes:
        offset: of the last event fed.
    """

    def __init__(
        self,
        joiner: Joiner,
        learner: Learner,
        sink: Sink,
        *,
        snapshots: SnapshotTaker | None = None,
        offset: int = -1,
    ) -> None:
        self.joiner = joiner
        self.learner = learner
        self.sink = sink
        self.snapshots = snapshots
        self.offset = offset

    def feed(self, event: Event | DeadLetter, offset: int) -> None:
        """Push one event. ``offset`` must not be below the one before.

        Raises:
            StorageError: the sink could not store what it has. The event has been taken all the
                same: do not feed it again, call ``sink.commit()`` again.
        """
        kind = type(event)
        rejected: list[Rejected] = []
        rows: Sequence[Row]
        if kind is Decision:
            rows = self.joiner.decision(event)
        elif kind is Change:
            rows = (event,) if event.kind in CATALOG_CHANGES else ()
        elif kind is DeadLetter:
            rows = ()
            rejected.append(Rejected(event.reason, event))
        else:
            rows = self.joiner.outcome(event)
        self._step(event, offset, rows, rejected)

    def drain(self) -> None:
        """Close every open decision as if its window had ended: the end of a finite stream.

        Not for a log that goes on: what is closed here would have been joined later.
        """
        self._step(None, self.offset, self.joiner.drain(), [])

    def run(self, source: Source, *, batch: int = 512) -> int:
        """Push everything that the source has now; returns how many events that was.

        Each batch is committed before the next is read.
        """
        total = 0
        while events := source.read(self.offset, batch):
            for offset, event in events:
                self.feed(event, offset)
            self.sink.commit()
            total += len(events)
        return total

    def _step(
        self,
        event: Event | DeadLetter | None,
        offset: int,
        rows: Sequence[Row],
        rejected: list[Rejected],
    ) -> None:
        if self.joiner.discarded:
            rejected += [Rejected(d.reason, d.event) for d in self.joiner.discarded]
            self.joiner.discarded.clear()
        first_seq = self.learner.learn_seq + 1
        learned = self._learn(rows, rejected) if rows else rows
        self.offset = offset
        if learned and self.snapshots is not None:
            self.snapshots.after_event(offset)
        changes: Sequence[Change] = ()
        if self.learner.changes:
            changes, self.learner.changes = self.learner.changes, []
        self.sink.put(offset, event, first_seq, learned, rejected, changes)

    def _learn(self, rows: Sequence[Row], rejected: list[Rejected]) -> list[Row]:
        learned = []
        for row in rows:
            reason = self.learner.offer(row)
            if reason is None:
                learned.append(row)
            else:
                rejected.append(Rejected(reason, row))
        return learned
