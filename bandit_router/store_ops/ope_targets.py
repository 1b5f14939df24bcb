"""From what a user names to what can be evaluated: policies, snapshots, fixed models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandit_router.adapters.interactions import STORE_SUFFIXES
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bootstrap import FIXED, POLICIES, check_policy_name, make_policy
from bandit_router.errors import EventError, InputError, LogFormatError
from bandit_router.events import Row, decode_row
from bandit_router.learner import Learner
from bandit_router.loop import MemorySink
from bandit_router.models import Catalog, ModelSpec
from bandit_router.ope.frozen import Frozen
from bandit_router.ope.targets import AsLogged, Preferred, Target, Uniform, fixed
from bandit_router.policy.base import Policy
from bandit_router.snapshot import Snapshot, read_file
from bandit_router.store_ops.rebuild import newest_snapshot
from bandit_router.store_ops.resume import fresh_loop
from bandit_router.types import Interaction

EACH_FIXED, HULL, LOGGING = "fixed", "hull", "logging"
WITHOUT_TRAINING = ("uniform", "cheapest", "strongest")
FOREIGN = "paretobandit"

DEFAULT_TARGETS = (LOGGING, "strongest", EACH_FIXED, HULL)

_SNAPSHOT_ID = re.compile(r"\d{12}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Named:
    """What was asked for, by kind.

    Attributes:
        names: all of them, without repetition, in order.
        learners: policies that must be trained first.
        snapshots: by the name they were asked for.
        learned_until: training rows of this log that some snapshot has learned from.
    """

    names: tuple[str, ...]
    learners: tuple[str, ...]
    snapshots: Mapping[str, Snapshot]
    learned_until: int


def is_store(path: Path) -> bool:
    """Whether a log is a store, by its extension."""
    return path.suffix.lower() in STORE_SUFFIXES


def resolve(names: Sequence[str], log: Path, key: bytes | None) -> Named:
    """Find out what each name means.

    Raises:
        InputError: a name is none of a policy, a snapshot's file or the id of a stored one.
        SnapshotError: a snapshot does not verify.
    """
    learners: list[str] = []
    snapshots: dict[str, Snapshot] = {}
    learned_until = 0
    for name in dict.fromkeys(names):
        if name in (EACH_FIXED, HULL, LOGGING, *WITHOUT_TRAINING):
            continue
        if name == FOREIGN:
            raise InputError(
                f"--policy {name}: it sees other features than are logged; compare it with "
                "'bandit-router replay'"
            )
        if name in POLICIES:
            learners.append(name)
        elif name.startswith(FIXED):
            check_policy_name(name)
        else:
            snapshots[name], own = _snapshot(name, log, key)
            if own:
                learned_until = max(learned_until, snapshots[name].manifest.learn_seq)
    return Named(tuple(dict.fromkeys(names)), tuple(learners), snapshots, learned_until)


def _snapshot(name: str, log: Path, key: bytes | None) -> tuple[Snapshot, bool]:
    """The snapshot, and whether it has learned from this very log."""
    if Path(name).is_file():
        snapshot = read_file(Path(name), key=key)
        return snapshot, is_store(log) and _has_snapshot(log, snapshot.id)
    if is_store(log) and (_SNAPSHOT_ID.fullmatch(name) or name == "newest"):
        with SqliteStore.open(log, create=False, read_only=True) as store:
            if name == "newest":
                return newest_snapshot(store, key), True
            return store.snapshot(name, key=key), True
    known = ", ".join([LOGGING, EACH_FIXED, "fixed:MODEL", HULL, *POLICIES])
    raise InputError(
        f"--policy {name!r}: no policy, no snapshot's file, and no id of a snapshot in a store; "
        f"policies are: {known}"
    )


def _has_snapshot(log: Path, snapshot_id: str) -> bool:
    with SqliteStore.open(log, create=False, read_only=True) as store:
        return snapshot_id in store.snapshot_ids()


@dataclass(frozen=True)
class Catalogs:
    """The models of a store's learner before its first row, and now."""

    first: Catalog
    now: Catalog


def stored_catalogs(log: Path, key: bytes | None) -> Catalogs | None:
    """Of a store's newest snapshot; None for an export or without a snapshot that verifies."""
    if not is_store(log):
        return None
    with SqliteStore.open(log, create=False, read_only=True) as store:
        snapshot = next(store.snapshots(key=key), None)
    if snapshot is None:
        return None
    manifest = snapshot.manifest
    return Catalogs(Catalog(manifest.recipe.catalog), Catalog(manifest.catalog))


def prices_usd(
    models: Sequence[str], catalog: Catalog | None, logged: Mapping[str, float]
) -> dict[str, float]:
    """Price of each model, USD per query: the catalog's, else what it cost where it was chosen."""
    prices = dict(logged)
    if catalog is not None:
        prices.update({spec.model: spec.prior_cost_usd() for spec in catalog})
    return {model: prices[model] for model in models if model in prices}


def training_rows(log: Path, until: int) -> Iterator[Row]:
    """Rows of the training log up to a position, in order.

    Raises:
        InputError: a Parquet export has no changes of the catalog and is not learned from.
        LogFormatError, StorageError: the log is damaged.
    """
    if is_store(log):
        with SqliteStore.open(log, create=False, read_only=True) as store:
            for _, row in store.rows(after=0, until=until):
                yield row
        return
    if log.suffix.lower() == ".parquet":
        raise InputError(
            f"{log}: policies are trained on a store (.db) or its .jsonl export; a Parquet export "
            "does not have all they learn from"
        )
    with log.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if number > until:
                return
            if not line.strip():
                continue
            try:
                yield decode_row(line)
            except EventError as error:
                raise LogFormatError(str(error), path=str(log), row=number) from error


def trained(
    name: str, log: Path, until: int, catalog: Catalog | None, *, dimension: int, seed: int
) -> Policy:
    """A policy of that name after the log's rows up to ``until``; rows it refuses are left out.

    Raises:
        InputError: no model has a price to start from; see also :func:`training_rows`.
    """
    start = catalog if catalog is not None else _catalog_of(training_rows(log, until))
    policy = make_policy(name, start, dimension=dimension, seed=seed)
    learner = Learner(policy, start)
    for row in training_rows(log, until):
        learner.offer(row)
    return policy


def _catalog_of(rows: Iterator[Row]) -> Catalog:
    """Each model of some rows with the mean of what it cost."""
    costs: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(row, Interaction):
            for model in row.eligible:
                costs.setdefault(model, [])
            if row.cost_usd is not None:
                costs[row.action].append(row.cost_usd)
    unpriced = [model for model, found in costs.items() if not sum(found) > 0.0]
    if unpriced or not costs:
        raise InputError(
            "the part of the log to train on does not say what every model costs "
            f"({', '.join(unpriced) or 'it is empty'}); give --catalog"
        )
    return Catalog(
        ModelSpec(model=model, expected_cost_usd=sum(found) / len(found))
        for model, found in costs.items()
    )


def targets_of(
    named: Named,
    models: Sequence[str],
    prices: Mapping[str, float],
    policies: Mapping[str, Policy],
    quality_value_usd: float | None,
) -> list[Target]:
    """The targets, all but the hull, which needs the others' values first.

    Args:
        models: of the log.
        prices: USD per query, by model.
        policies: trained ones and those of snapshots, by name.
        quality_value_usd: that they decide at; None for the logged one.

    Raises:
        InputError: ``fixed:MODEL`` names a model that the log lacks.
    """
    by_price = sorted(prices, key=lambda model: (prices[model], model))
    found: dict[str, Target] = {}
    for name in named.names:
        if name == LOGGING:
            found[name] = AsLogged()
        elif name == "uniform":
            found[name] = Uniform()
        elif name == "cheapest":
            found[name] = Preferred(name, tuple(by_price))
        elif name == "strongest":
            found[name] = Preferred(name, tuple(reversed(by_price)))
        elif name in (EACH_FIXED, HULL):
            for model in models:
                found.setdefault(FIXED + model, fixed(model, by_price))
        elif name in policies:
            found[name] = Frozen(name, policies[name], quality_value_usd)
        else:
            model = name.removeprefix(FIXED)
            if model not in models:
                raise InputError(
                    f"--policy {name}: the log has no such model; it has: {', '.join(models)}"
                )
            found[name] = fixed(model, by_price)
    return list(found.values())


def restored(snapshot: Snapshot) -> Policy:
    """The policy in a snapshot. Raises SnapshotError when it does not load."""
    learner = fresh_loop(snapshot.manifest.recipe, MemorySink()).learner
    learner.load(snapshot.learner)
    return learner.policy
