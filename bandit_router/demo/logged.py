"""The demo's joined interactions, as its store has them: all that an estimate may be made of."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.demo.world import World
from bandit_router.errors import InputError
from bandit_router.ope.regret_rows import choices_of, usable
from bandit_router.report.regret_curve import Observed
from bandit_router.types import Interaction


def read_observed(store: SqliteStore, world: World) -> Observed:
    """Every interaction with its outcome, in the order of the decisions.

    Raises:
        InputError: the store holds an interaction of another world.
        StorageError: a row is missing or damaged.
    """
    places = {world.event_id(query): query for query in range(len(world))}
    logged = [row for _, row in store.rows() if isinstance(row, Interaction)]
    foreign = [row.event_id for row in logged if row.event_id not in places]
    if foreign:
        raise InputError(f"interaction {foreign[0]!r:.80} is not of this demo's world")
    rows = sorted(usable(logged, Counter()), key=lambda row: places[row.event_id])
    at = np.array([places[row.event_id] for row in rows], dtype=np.int64)
    return Observed(at, choices_of(rows, world.table.models))
