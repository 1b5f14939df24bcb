"""How many queries a second are decided and learned in the replay loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench.figures import Figure, median_figure, skipped
from bandit_router.bench.routing_logs import has_paretobandit
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.replay import Plan, default_quality_values, replay, table_features
from bandit_router.types import Features

OURS, WITHOUT_VW = "bandit", "bandit-no-vw"
AT_LEAST = {3: 8000.0, 12: 3000.0}
NO_PARETO = "package paretobandit is not installed"


@dataclass
class Rates:
    """Queries per second of every round.

    Attributes:
        features: making features from embeddings and prompts.
        ours, without_vw: the replay loop, features made.
        ours_cpu: the same as ``ours`` per second of CPU time.
        with_column: with a context column, which gives VW a feature for each model more.
        theirs: paretobandit's own interface, its features made; empty when not installed.
    """

    features: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    ours_cpu: list[float] = field(default_factory=list)
    without_vw: list[float] = field(default_factory=list)
    with_column: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)


def replay_figures(table: OutcomeTable, what: str, rounds: int) -> list[Figure]:
    """Figures of one log; ``what`` names it."""
    rates = measure_rates(table, rounds)
    k = len(table.models)
    name = f"replay, {k} models, {what}"
    both = [1.0 / (1.0 / a + 1.0 / b) for a, b in zip(rates.features, rates.ours, strict=True)]
    how = f"decide and learn, features made before; {len(table):,} queries x {rounds}"
    figures = [
        median_figure(name, rates.ours, "queries/s", at_least=AT_LEAST.get(k), note=how),
        *(
            median_figure(f"{name}, {which}", repeats, "queries/s", note=note)
            for which, repeats, note in (
                ("CPU time", rates.ours_cpu, "without what other processes took"),
                ("from embeddings", both, "making the features included"),
                ("no VW expert", rates.without_vw, ""),
                ("with a context column", rates.with_column, "the column task"),
            )
        ),
    ]
    theirs = f"{name}, paretobandit"
    if not rates.theirs:
        return [*figures, skipped(theirs, "queries/s", NO_PARETO)]
    ratios = (np.array(rates.ours) / np.array(rates.theirs)).tolist()
    how = "its own route and process_feedback, features made before"
    return [
        *figures,
        median_figure(theirs, rates.theirs, "queries/s", note=how),
        median_figure(f"{name}, ours over theirs", ratios, "x", note="round by round"),
    ]


def measure_rates(table: OutcomeTable, rounds: int) -> Rates:
    """Everything that is compared, in turn, ``rounds`` times; one more round goes before."""
    featurizer = make_featurizer(embed=False)
    value = default_quality_values(table)[1]
    with_column = table_features(table, featurizer, ("task",))
    peer = None
    if has_paretobandit():
        from bandit_router.bench.peer_speed import peer_features

        peer = peer_features(table)
    rates = Rates()
    for part in range(-1, rounds):
        if part == 0:
            rates = Rates()
        seed = max(part, 0)
        start = time.perf_counter()
        features = table_features(table, featurizer)
        rates.features.append(len(table) / (time.perf_counter() - start))
        wall, cpu = _loop_rate(OURS, table, features, value, seed)
        rates.ours.append(wall)
        rates.ours_cpu.append(cpu)
        rates.without_vw.append(_loop_rate(WITHOUT_VW, table, features, value, seed)[0])
        rates.with_column.append(_loop_rate(OURS, table, with_column, value, seed)[0])
        rates.theirs.extend(_peer_rate(table, peer, seed))
    return rates


def _loop_rate(
    name: str, table: OutcomeTable, features: Sequence[Features], value: float, seed: int
) -> tuple[float, float]:
    """Queries per second, and per second of CPU time, of our policy with or without VW."""

    def make(name: str, catalog: Catalog, seed: int, budget_usd: float | None) -> Policy:
        del budget_usd
        dimension = len(features[0].dense)
        return make_policy(OURS, catalog, dimension=dimension, seed=seed, vowpal=name == OURS)

    start = time.thread_time()
    plan = Plan((name,), (value,), seed0=seed)
    (trace,) = replay(plan, table, lambda _: features, make)
    return len(table) / trace.seconds, len(table) / (time.thread_time() - start)


def _peer_rate(table: OutcomeTable, features: np.ndarray | None, seed: int) -> list[float]:
    if features is None:
        return []
    from bandit_router.bench.peer_speed import peer_queries_per_second

    return [peer_queries_per_second(table, features, seed)]
