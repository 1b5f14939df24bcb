"""The sink of the embedded log: rows, rejected items, alarms and snapshots, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import EventError
from bandit_router.events import Change, Event, Row, encode, encode_row
from bandit_router.loop import DeadLetter, Rejected
from bandit_router.snapshot import Snapshot
from bandit_router.types import Interaction


class SqliteSink:
    """Stores what the loop gives in a :class:`SqliteStore`: a :class:`~bandit_router.loop.Sink`.

    Args:
        store: must hold the events already; this sink does not store them again.
        max_steps: commits by itself after so many.
        keep_snapshots: so many of the newest, and the first, are kept; all with None.
    """

    def __init__(
        self, store: SqliteStore, *, max_steps: int = 256, keep_snapshots: int | None = None
    ) -> None:
        self._store = store
        self._keep = keep_snapshots
        self._max_steps = max_steps
        self._steps = 0
        self._rows: list[tuple[int, int, str | None, bytes]] = []
        self._rejected: list[tuple[int, int, str, bytes]] = []
        self._changes: list[tuple[int, int, str, float, bytes]] = []
        self._snapshots: list[Snapshot] = []

    def put(
        self,
        offset: int,
        event: Event | DeadLetter | None,  # noqa: ARG002 - it is in the store already
        first_seq: int,
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        """Take one step; see :class:`~bandit_router.loop.Sink`."""
        for learn_seq, row in enumerate(rows, start=first_seq):
            event_id = row.event_id if isinstance(row, Interaction) else None
            self._rows.append((learn_seq, offset, event_id, encode_row(row)))
        for n, item in enumerate(rejected):
            self._rejected.append((offset, n, item.reason, _payload(item)))
        for n, change in enumerate(changes):
            self._changes.append((offset, n, change.kind, change.ts, encode(change)))
        self._steps += 1
        if self._steps >= self._max_steps:
            self.commit()

    def save(self, snapshot: Snapshot) -> None:
        """Store a snapshot with the steps taken so far."""
        self._snapshots.append(snapshot)

    def commit(self) -> None:
        """Store everything taken since the last commit, in one transaction."""
        if self._rows or self._rejected or self._snapshots:
            self._store.commit_steps(
                self._rows,
                self._rejected,
                self._snapshots,
                self._changes,
                keep_snapshots=self._keep,
            )
            self._rows, self._rejected, self._snapshots, self._changes = [], [], [], []
        self._steps = 0


def _payload(item: Rejected) -> bytes:
    """What was set aside, as bytes; what has no wire form (a poisoned number) as its repr."""
    what = item.item
    if isinstance(what, DeadLetter):
        return what.data
    try:
        return encode_row(what) if isinstance(what, Interaction) else encode(what)
    except EventError:
        return repr(what).encode("utf-8", "backslashreplace")
