"""The live loop over the embedded store, fed by the simulated world.

A step is one query: its decision, and every outcome that arrives before the next query. A step is
stored in one transaction before anything is learned from it, so after a crash the store ends with a
whole step, and the world can be told to go on after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.demo.world import APP, OnTheirWay, World
from bandit_router.errors import InputError
from bandit_router.events import Change, Event, Row
from bandit_router.features.featurizer import Featurizer
from bandit_router.loop import DeadLetter, Rejected, Sink
from bandit_router.replay import blurred_catalog
from bandit_router.router import Router
from bandit_router.snapshot import Recipe
from bandit_router.store_ops import SALT, resume
from bandit_router.types import Decision

SNAPSHOT_EVERY = 250
_PAGE = 1000


@dataclass
class Record:
    """What was decided so far: filled as the demo runs, or read from its store.

    Attributes:
        chosen: column of the model chosen, of the first ``done`` queries. All arrays: shape (n,).
        explored: whether the uniform share of the pmf drew it.
        propensities: with which probability it was drawn.
        offsets: of the decisions in the store.
        done: how many queries have been decided.
    """

    chosen: np.ndarray
    explored: np.ndarray
    propensities: np.ndarray
    offsets: np.ndarray
    done: int = 0

    @classmethod
    def empty(cls, n: int) -> Record:
        """Room for ``n`` queries."""
        return cls(np.zeros(n, np.int32), np.zeros(n, bool), np.zeros(n), np.zeros(n, np.int64))

    def add(self, world: World, decision: Decision, offset: int) -> None:
        """Take the next decision.

        Raises:
            InputError: it is not the next one of this world.
        """
        place = self.done
        if place >= len(world) or decision.event_id != world.event_id(place):
            raise InputError(f"decision {decision.event_id!r:.80} is not one of this demo's world")
        self.put(world, place, decision, offset)

    def put(self, world: World, place: int, decision: Decision, offset: int) -> None:
        """Take the decision of query ``place``, which had none."""
        self.chosen[place] = world.table.models.index(decision.action)
        self.explored[place] = decision.slice == "explore"
        self.propensities[place] = decision.propensity
        self.offsets[place] = offset
        self.done += 1

    def decided_by(self, offset: int) -> int:
        """How many queries had been decided when the event at ``offset`` was stored."""
        return int(np.searchsorted(self.offsets[: self.done], offset, side="right"))


def read_record(store: SqliteStore, world: World) -> tuple[Record, OnTheirWay]:
    """The steps in a store, and what was still on its way after the last of them.

    Raises:
        InputError: the store holds events of another world.
    """
    record, coming, offset = Record.empty(len(world)), OnTheirWay(), -1
    while page := store.read(offset, _PAGE):
        for offset, event in page:
            if isinstance(event, Decision):
                record.add(world, event, offset)
                coming.add(world.outcomes(record.done - 1, event))
    if record.done:
        coming.arrived(_next_ts(world, record.done))
    return record, coming


class LiveDemo:
    """Routes the world's queries, from where the store ends to the last.

    Args:
        store: of this demo and of nothing else; new or interrupted.
        world: its table must have embeddings.
        featurizer: makes the features of the embeddings and prompts.
        quality_value_usd: what a fully good answer is worth, USD, > 0.
        on_change: told of each drift alarm when it is raised.

    Attributes:
        record: what was decided.
        seconds: spent in :meth:`run`.

    Raises:
        InputError: the store holds events of another world.
        SnapshotError: the stored state was made in another way.
    """

    def __init__(
        self,
        store: SqliteStore,
        world: World,
        featurizer: Featurizer,
        *,
        quality_value_usd: float,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._store, self._world = store, world
        self.seconds = 0.0
        self.record, self._coming = read_record(store, world)
        salt = f"demo/{world.seed}"
        store.set_meta(SALT, salt)
        catalog = blurred_catalog(world.table, world.seed)
        recipe = Recipe(
            app=APP,
            policy="bandit",
            seed=world.seed,
            dimension=featurizer.dimension,
            featurizer_id=featurizer.featurizer_id,
            catalog=tuple(catalog),
            quality_value_usd=quality_value_usd,
        )
        self._loop = resume(store, recipe, snapshot_every=SNAPSHOT_EVERY)
        if on_change is not None:
            self._loop.sink = _Announcing(self._loop.sink, on_change)
        learner = self._loop.learner
        self._router = Router(
            learner.policy,
            featurizer,
            catalog,
            salt=salt,
            quality_value_usd=lambda: quality_value_usd,
            app=APP,
            state=learner,
        )

    def run(self, tick: Callable[[Record], None] | None = None) -> None:
        """Take every step that is left, and keep the final state.

        Args:
            tick: called after each step.

        Raises:
            StorageError: the store failed; the same call on a new object goes on.
        """
        start = time.perf_counter()
        while self.record.done < len(self._world):
            self._step()
            if tick is not None:
                tick(self.record)
        self._loop.snapshots.take(self._loop.offset)
        self._loop.sink.commit()
        self.seconds = time.perf_counter() - start

    def _step(self) -> None:
        query = self.record.done
        decision = self._router.decide(self._world.context(query))
        self._coming.add(self._world.outcomes(query, decision))
        arrived = self._coming.arrived(_next_ts(self._world, query + 1))
        events: list[Event] = [decision, *arrived]
        offsets = self._store.append(events)
        self.record.add(self._world, decision, offsets[0])
        for offset, event in zip(offsets, events, strict=True):
            self._loop.feed(event, offset)


def _next_ts(world: World, query: int) -> float:
    """When that query comes; after the last one everything that is on its way arrives."""
    return float(world.arrival_ts[query]) if query < len(world) else math.inf


class _Announcing:
    """A sink that tells of changes as they come, and passes everything on."""

    def __init__(self, sink: Sink, tell: Callable[[Change], None]) -> None:
        self._sink, self._tell = sink, tell
        self.commit = sink.commit

    def put(
        self,
        offset: int,
        event: Event | DeadLetter | None,
        first_seq: int,
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        """See :class:`~bandit_router.loop.Sink`."""
        self._sink.put(offset, event, first_seq, rows, rejected, changes)
        for change in changes:
            self._tell(change)
