"""When a snapshot is taken, and how a learner and a joiner go on from one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from bandit_router.errors import ConfigError, SnapshotError
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.snapshot.container import Recipe, Snapshot, pack


class SnapshotStore(Protocol):
    """Keeps snapshots; a store of rows keeps them in the same transaction as the rows."""

    def save(self, snapshot: Snapshot) -> None:
        """Take a snapshot of the state after the last step taken."""
        ...


Sources = Callable[[int], Mapping[str, int]]
"""From the offset of an event to how far each foreign source had been read with it."""


def no_sources(_: int) -> Mapping[str, int]:
    """For a log that is its own only source."""
    return {}


class Snapshots:
    """Takes a snapshot whenever ``learn_seq`` passes a multiple of ``every``.

    The schedule hangs on ``learn_seq`` and on nothing else, so a run that was interrupted and
    resumed takes the very snapshots that an uninterrupted one does.

    Args:
        learner, joiner: whose state is kept.
        store: where it goes.
        recipe: what they were made from.
        every: training rows between snapshots, >= 1.
        key: signs the snapshots; None leaves them unsigned.
        sources: what the manifest says of foreign sources beside the log's offset.

    Raises:
        ConfigError: ``every`` is below 1.
    """

    def __init__(
        self,
        learner: Learner,
        joiner: Joiner,
        store: SnapshotStore,
        recipe: Recipe,
        *,
        every: int = 500,
        key: bytes | None = None,
        sources: Sources = no_sources,
    ) -> None:
        if every < 1:
            raise ConfigError(f"a snapshot every {every} rows: the number must be at least 1")
        self._learner = learner
        self._joiner = joiner
        self._store = store
        self._recipe = recipe
        self._every = every
        self._key = key
        self._sources = sources
        self._next = (learner.learn_seq // every + 1) * every

    def begin(self) -> None:
        """Keep the empty state, so that every decision has a snapshot to be explained from."""
        if self._learner.learn_seq == 0 and not self._learner.snapshot_id:
            self._learner.snapshot_id = self._take(-1, scheduled=True).id

    def after_event(self, offset: int) -> None:
        """Take a snapshot if one is due after the event at ``offset``."""
        if self._learner.learn_seq >= self._next:
            self._next = (self._learner.learn_seq // self._every + 1) * self._every
            self._learner.snapshot_id = self._take(offset, scheduled=True).id

    def take(self, offset: int) -> Snapshot:
        """Take one now, outside the schedule, of which no later one will know."""
        return self._take(offset, scheduled=False)

    def _take(self, offset: int, *, scheduled: bool) -> Snapshot:
        snapshot = state_of(
            self._learner,
            self._joiner,
            recipe=self._recipe,
            offset=offset,
            parent=self._learner.snapshot_id,
            scheduled=scheduled,
            key=self._key,
            sources=self._sources(offset),
        )
        self._store.save(snapshot)
        return snapshot


def state_of(
    learner: Learner,
    joiner: Joiner,
    *,
    recipe: Recipe,
    offset: int,
    parent: str,
    scheduled: bool = True,
    key: bytes | None = None,
    sources: Mapping[str, int] | None = None,
) -> Snapshot:
    """The state after the event at ``offset`` as a snapshot.

    Raises:
        SnapshotError: it is too large.
    """
    return pack(
        learn_seq=learner.learn_seq,
        created_ts=joiner.now if math.isfinite(joiner.now) else 0.0,
        parent=parent,
        scheduled=scheduled,
        offsets={"log": offset, **(sources or {})},
        recipe=recipe,
        catalog=tuple(learner.catalog),
        learner=learner.dump(),
        joiner=joiner.dump(),
        key=key,
    )


def restore(snapshot: Snapshot, recipe: Recipe, learner: Learner, joiner: Joiner) -> int:
    """Load a verified snapshot into a fresh learner and joiner; returns the offset to go on after.

    Raises:
        SnapshotError: the snapshot was made from another recipe, or its state does not load.
    """
    differing = snapshot.manifest.recipe.differences(recipe)
    if differing:
        raise SnapshotError(
            f"snapshot {snapshot.id} was made with another {', '.join(differing)}; "
            "put the old settings back, or start with a new database"
        )
    learner.load(snapshot.learner)
    if learner.learn_seq != snapshot.manifest.learn_seq:
        raise SnapshotError(f"snapshot {snapshot.id} holds the state of row {learner.learn_seq}")
    joiner.load(snapshot.joiner)
    # Otherwise the snapshots after a pause would differ from those of a run without one.
    learner.snapshot_id = snapshot.id if snapshot.manifest.scheduled else snapshot.manifest.parent
    return snapshot.manifest.offsets["log"]
