"""Relearn a stored log from nothing, and compare with what is stored."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import InputError
from bandit_router.events import Change, Row, encode, encode_row
from bandit_router.loop import Loop, MemorySink, Rejected, Sink
from bandit_router.snapshot import Recipe, Snapshot, restore, state_of
from bandit_router.store_ops.resume import (
    PolicyMaker,
    fresh_loop,
    policy_of,
    refused_rows,
    relearned,
)


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What a rebuild found.

    Attributes:
        snapshot_id: the stored snapshot that was compared with, the newest one.
        learn_seq: the last training row in it.
        offset: the last event in it.
        rows: training rows in the store.
        events: events in the store.
        policy_identical: relearning the stored rows gives the snapshot's learner, byte for byte.
        rows_identical: joining the stored events again gives the stored rows, byte for byte.
        first_different_row: ``learn_seq`` of the first that differs, or None.
        changes: drift alarms in the store.
        changes_identical: the rows raise the stored alarms again, byte for byte, and no others.
        snapshot_identical: joining and learning the stored events gives the whole snapshot.
    """

    snapshot_id: str
    learn_seq: int
    offset: int
    rows: int
    events: int
    policy_identical: bool
    rows_identical: bool
    first_different_row: int | None
    changes: int
    changes_identical: bool
    snapshot_identical: bool

    @property
    def identical(self) -> bool:
        """Everything is as it was."""
        return (
            self.policy_identical
            and self.rows_identical
            and self.changes_identical
            and self.snapshot_identical
        )


def rebuild(
    store: SqliteStore, *, key: bytes | None = None, make: PolicyMaker = policy_of
) -> Rebuilt:
    """Relearn the stored log from an empty policy, twice, and compare with the newest snapshot.

    Once from the training log, once from the raw events through the joiner. A store that goes on
    from a snapshot made elsewhere has no earlier log: it is relearned from that snapshot.

    Raises:
        InputError: the store has no snapshot to compare with.
        SnapshotError: the newest snapshot does not verify.
    """
    snapshot = newest_snapshot(store, key)
    learn_seq, offset = snapshot.manifest.learn_seq, snapshot.manifest.offsets["log"]
    recipe = snapshot.manifest.recipe
    seed = store.seed(key=key)
    learner = relearned(store, _begun(store, seed, recipe, MemorySink(), make).learner, learn_seq)
    comparison = _Comparison(store, 0 if seed is None else seed.manifest.learn_seq)
    loop = _begun(store, seed, recipe, comparison, make)
    events = _feed_until(loop, store, offset)
    again = state_of(
        loop.learner,
        loop.joiner,
        recipe=recipe,
        offset=loop.offset,
        parent=snapshot.manifest.parent,
        scheduled=snapshot.manifest.scheduled,
        sources=store.sources(loop.offset),
    )
    events += loop.run(store)
    comparison.finish()
    changes = [
        (at, change)
        for at, change in store.changes()
        if change.data["learn_seq"] <= comparison.rows
    ]
    return Rebuilt(
        snapshot_id=snapshot.id,
        learn_seq=learn_seq,
        offset=offset,
        rows=comparison.rows,
        events=events,
        policy_identical=learner.dump() == snapshot.learner,
        rows_identical=comparison.first_different is None,
        first_different_row=comparison.first_different,
        changes=len(changes),
        changes_identical=comparison.changes == [(at, encode(change)) for at, change in changes],
        snapshot_identical=(
            again.id == snapshot.id
            and again.learner == snapshot.learner
            and again.joiner == snapshot.joiner
        ),
    )


def newest_snapshot(store: SqliteStore, key: bytes | None = None) -> Snapshot:
    """The newest stored snapshot.

    Raises:
        InputError: there is none.
        SnapshotError: it does not verify.
    """
    ids = store.snapshot_ids()
    if not ids:
        raise InputError(f"{store.path} has no snapshot: nothing has been learned from it yet")
    return store.snapshot(ids[0], key=key)


def _begun(
    store: SqliteStore, seed: Snapshot | None, recipe: Recipe, sink: Sink, make: PolicyMaker
) -> Loop:
    """The loop before the first event of the store."""
    loop = fresh_loop(recipe, sink, make)
    loop.learner.refused = refused_rows(store)
    if seed is not None:
        loop.offset = restore(seed, recipe, loop.learner, loop.joiner)
    return loop


class _Comparison:
    """A sink that holds each row against the stored one instead of storing it."""

    def __init__(self, store: SqliteStore, after: int) -> None:
        self.rows = store.last_learn_seq()  # a learner may go on writing meanwhile
        self._stored = store.row_payloads(after, self.rows)
        self.first_different: int | None = None
        self.changes: list[tuple[int, bytes]] = []

    def put(
        self,
        offset: int,
        event: object,
        first_seq: int,
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        del event, rejected
        for learn_seq, row in enumerate(rows, start=first_seq):
            stored = next(self._stored, None)
            # Events that are stored but not learned yet give rows that the store cannot have.
            if stored is not None and stored != (learn_seq, encode_row(row)):
                self.first_different = self.first_different or learn_seq
        if first_seq <= self.rows:  # likewise: a step is stored with its rows, or not at all
            self.changes += [(offset, encode(change)) for change in changes]

    def commit(self) -> None:
        """Nothing was changed."""

    def finish(self) -> None:
        """A stored row that no event gives again is a difference too."""
        left = next(self._stored, None)
        if left is not None:
            self.first_different = self.first_different or left[0]


def _feed_until(loop: Loop, store: SqliteStore, last: int) -> int:
    """Feed the stored events up to ``last``; returns how many."""
    count = 0
    while loop.offset < last and (events := store.read(loop.offset, min(512, last - loop.offset))):
        for offset, event in events:
            if offset > last:
                return count
            loop.feed(event, offset)
            count += 1
    return count
