"""From a recipe and a stored log to a loop that goes on where the last one stopped."""

from __future__ import annotations

from collections.abc import Callable

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_sink import SqliteSink
from bandit_router.bootstrap import make_policy
from bandit_router.budget import BudgetPacer
from bandit_router.errors import InputError, SnapshotError
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.loop import Loop, Sink
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.snapshot import Recipe, Snapshots, restore

SALT = "salt"
"""The key under which a store remembers the salt of its draws."""

PolicyMaker = Callable[[Recipe], Policy]


def policy_of(recipe: Recipe) -> Policy:
    """The untrained policy of a recipe.

    Raises:
        SnapshotError: this build has no such policy, or it does not take these options.
    """
    try:
        return make_policy(
            recipe.policy,
            Catalog(recipe.catalog),
            dimension=recipe.dimension,
            seed=recipe.seed,
            **recipe.options,
        )
    except InputError as error:
        raise SnapshotError(f"the policy of the snapshot cannot be made: {error}") from error


def fresh_loop(recipe: Recipe, sink: Sink, make: PolicyMaker = policy_of) -> Loop:
    """An untrained loop as the recipe says."""
    pacer = BudgetPacer(recipe.quality_value_usd, recipe.target_cost_usd)
    learner = Learner(make(recipe), Catalog(recipe.catalog), pacer)
    return Loop(Joiner(recipe.rules), learner, sink)


def resume(
    store: SqliteStore,
    recipe: Recipe,
    *,
    snapshot_every: int = 500,
    keep_snapshots: int | None = None,
    key: bytes | None = None,
    make: PolicyMaker = policy_of,
) -> Loop:
    """The loop that learns from ``store``, where the last one stopped, at the end of the log.

    It begins at the newest snapshot that verifies, and reads the events after it again; what they
    give is compared with the rows that are stored already. ``keep_snapshots`` of the newest are
    kept, and the first; all with None.

    Raises:
        SnapshotError: the stored state was made from another recipe.
        StorageError: the store failed, or its rows are not what its events give.
    """
    sink = SqliteSink(store, keep_snapshots=keep_snapshots)
    loop = fresh_loop(recipe, sink, make)
    snapshot = next(store.snapshots(key=key), None)
    if snapshot is not None:
        loop.offset = restore(snapshot, recipe, loop.learner, loop.joiner)
    loop.snapshots = Snapshots(
        loop.learner, loop.joiner, sink, recipe, every=snapshot_every, key=key
    )
    loop.snapshots.begin()
    sink.commit()
    loop.run(store)
    return loop


def relearned(store: SqliteStore, learner: Learner, learn_seq: int) -> Learner:
    """``learner`` after the stored rows that it has not seen yet, up to ``learn_seq``.

    Raises:
        InputError: the training log ends before that.
    """
    for _, row in store.rows(after=learner.learn_seq, until=learn_seq):
        learner.apply(row)
    learner.changes.clear()  # they were handed over when the rows were learned first
    if learner.learn_seq < learn_seq:
        raise InputError(
            f"{store.path}: the training log ends at row {learner.learn_seq}, before row "
            f"{learn_seq}; let the learner catch up first"
        )
    return learner
