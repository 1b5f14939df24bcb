"""From a recipe and a stored log to a loop that goes on where the last one stopped."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_sink import SqliteSink
from bandit_router.bootstrap import make_policy
from bandit_router.budget import BudgetPacer
from bandit_router.errors import InputError, PolicyError, SnapshotError, StorageError
from bandit_router.events import clean_text
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.loop import Loop, Sink
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.snapshot import Recipe, Snapshots, restore

SALT = "salt"
"""The key under which a store remembers the salt of its draws."""

REFUSED = "refused"
"""The key under which a store remembers the rows that its policy failed on, as a JSON list."""

MAX_REFUSED = 1000
"""A policy that fails on more rows than this is no policy; stop and have it mended."""

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
    kept, and the first; all with None. A row that the policy fails on is refused from then on, as
    ``policy_error``, and the loop begins at the snapshot once more.

    Raises:
        SnapshotError: the stored state was made from another recipe.
        StorageError: the store failed, or its rows are not what its events give.
    """
    while True:
        try:
            return _resume(store, recipe, snapshot_every, keep_snapshots, key, make)
        except PolicyError as error:
            refuse(store, error)


def _resume(
    store: SqliteStore,
    recipe: Recipe,
    snapshot_every: int,
    keep_snapshots: int | None,
    key: bytes | None,
    make: PolicyMaker,
) -> Loop:
    sink = SqliteSink(store, keep_snapshots=keep_snapshots)
    loop = fresh_loop(recipe, sink, make)
    snapshot = next(store.snapshots(key=key), None)
    if snapshot is not None:
        loop.offset = restore(snapshot, recipe, loop.learner, loop.joiner)
    loop.learner.refused = refused_rows(store)
    loop.snapshots = Snapshots(
        loop.learner,
        loop.joiner,
        sink,
        recipe,
        every=snapshot_every,
        key=key,
        sources=store.sources,
    )
    loop.snapshots.begin()
    sink.commit()
    loop.run(store)
    return loop


def refused_rows(store: SqliteStore) -> frozenset[str]:
    """The rows that the policy of this store is known to fail on."""
    return frozenset(msgspec.json.decode(store.get_meta(REFUSED) or "[]", type=list[str]))


def refuse(store: SqliteStore, failure: PolicyError) -> None:
    """Remember that a row is to be refused.

    Raises:
        StorageError: it could not be stored, or there are too many such rows.
        PolicyError: the row was refused already, and the policy fails on it all the same.
    """
    known = refused_rows(store)
    if failure.row in known:
        raise failure
    if len(known) >= MAX_REFUSED:
        full = StorageError(f"{store.path}: the policy failed on {len(known)} rows: {failure}")
        full.retriable = False
        raise full
    store.set_meta(REFUSED, msgspec.json.encode(sorted({*known, clean_text(failure.row)})).decode())


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
