"""Hold what learners stored against what was acknowledged, and against an undisturbed reader."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bench.chaos.acks import Acknowledged
from bandit_router.events import Completion, Feedback
from bandit_router.loop import MemorySink
from bandit_router.store_ops.rebuild import newest_snapshot, rebuild
from bandit_router.store_ops.resume import fresh_loop
from bandit_router.types import Decision


@dataclass
class Applied:
    """What stores hold.

    Attributes:
        decisions, completions, feedbacks: ids of the events in the logs.
        rows: per decision, how many training rows it gave.
        duplicates: events that came again and were set aside.
        rejected: what was set aside, by reason.
        gaps: stores whose ``learn_seq`` is not gapless.
    """

    decisions: set[str] = field(default_factory=set)
    completions: set[str] = field(default_factory=set)
    feedbacks: set[str] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    gaps: list[str] = field(default_factory=list)

    def lost(self, acknowledged: Acknowledged) -> int:
        """Acknowledged events that are in no log, and whole decisions without a row."""
        return (
            len(acknowledged.decisions - self.decisions)
            + len(acknowledged.completions - self.completions)
            + len(acknowledged.feedbacks - self.feedbacks)
            + len(acknowledged.whole - self.rows.keys())
        )

    @property
    def doubled(self) -> int:
        """Rows beyond the first of a decision."""
        return sum(count - 1 for count in self.rows.values())


def applied(stores: Iterable[Path]) -> Applied:
    """Read stores, of one machine: each app is in one of them."""
    found = Applied()
    for path in stores:
        with SqliteStore.open(path, create=False) as store:
            _read_events(store, found)
            _read_rows(store, found)
            found.rejected.update(store.rejected_counts())
    return found


def _read_events(store: SqliteStore, found: Applied) -> None:
    after = 0
    while page := store.read(after, 1000):
        for offset, event in page:
            after = offset
            if isinstance(event, Decision):
                found.decisions.add(event.event_id)
            elif isinstance(event, Completion):
                found.completions.add(event.event_id)
            elif isinstance(event, Feedback):
                found.feedbacks.add(event.event_id)


def _read_rows(store: SqliteStore, found: Applied) -> None:
    rows = store.database.query("SELECT learn_seq, event_id FROM training ORDER BY learn_seq")
    numbers = []
    for row in rows:
        numbers.append(row["learn_seq"])
        if row["event_id"] is not None:
            found.rows[row["event_id"]] += 1
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        found.gaps.append(store.path.name)


def progress(stores: Iterable[Path]) -> tuple[int, int]:
    """(events, training rows) that are stored now; works beside a learner that writes."""
    events = rows = 0
    for path in stores:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as found:
                events += found.execute("SELECT count(*) FROM events").fetchone()[0]
                rows += found.execute("SELECT count(*) FROM training").fetchone()[0]
        except sqlite3.OperationalError:
            continue  # its tables are being made
    return events, rows


def missing_rows(stores: Iterable[Path], wanted: set[str]) -> int:
    """How many of these decisions have no training row yet."""
    left = set(wanted)
    for path in stores:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as found:
                left.difference_update(
                    row[0] for row in found.execute("SELECT event_id FROM training")
                )
        except sqlite3.OperationalError:
            continue
    return len(left)


def differences(stores: Sequence[Path], reference: Mapping[str, Path]) -> list[str]:
    """Where learners' stores differ from themselves relearned, or from an undisturbed reader's.

    Args:
        stores: of learners that have stopped.
        reference: per file name the store of a reader that followed the topics from their start.
    """
    found = []
    for path in stores:
        with SqliteStore.open(path, create=False) as store:
            if not rebuild(store).identical:
                found.append(f"{path.name}: relearning its log gives something else")
            other = reference.get(path.name)
            if other is None:
                found.append(f"{path.name}: the undisturbed reader has no such app")
                continue
            with SqliteStore.open(other, create=False) as undisturbed:
                found += _compare(store, undisturbed)
    return found


def _compare(store: SqliteStore, undisturbed: SqliteStore) -> list[str]:
    """The log, the rows, and the state at the newest snapshot."""
    name, found = store.path.name, []
    for table, columns in (("events", "offset, payload"), ("training", "learn_seq, payload")):
        query = f"SELECT {columns} FROM {table}"  # noqa: S608 - constants above
        theirs = {tuple(row.values()) for row in undisturbed.database.query(query)}
        ours = [tuple(row.values()) for row in store.database.query(query)]
        if not theirs.issuperset(ours):
            found.append(f"{name}: {table} differ from the undisturbed reader's")
    snapshot = newest_snapshot(store)
    loop = fresh_loop(snapshot.manifest.recipe, MemorySink())
    last = snapshot.manifest.offsets["log"]
    while loop.offset < last and (page := undisturbed.read(max(loop.offset, 0), 512)):
        for offset, event in page:
            if offset <= last:
                loop.feed(event, offset)
        if page[-1][0] >= last:
            break
    if loop.learner.dump() != snapshot.learner or loop.joiner.dump() != snapshot.joiner:
        found.append(f"{name}: snapshot {snapshot.id} is not what the undisturbed reader learns")
    return found
