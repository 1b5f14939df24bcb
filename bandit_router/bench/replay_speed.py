"""How many queries a second are decided and learned in the replay loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rates:
    """Queries per second of every round.

    Attributes:
        features: making features from embeddings and prompts.
        ours, without_vw: the replay loop, features made.
        ours_cpu: the same per second of CPU time.
        theirs: paretobandit's own interface, its features made; empty when not installed.
    """

    features: list[float]
    ours: list[float]
    ours_cpu: list[float]
    without_vw: list[float]
    theirs: list[float]


def replay_figures(table: OutcomeTable, what: str, rounds: int) -> list[Figure]:
    """Figures of one log; ``what`` names it."""
    rates = measure_rates(table, rounds)
    k = len(table.models)
    name = f"replay, {k} models, {what}"
    both = [1.0 / (1.0 / a + 1.0 / b) for a, b in zip(rates.features, rates.ours, strict=True)]
    figures = [
        median_figure(
            name,
            rates.ours,
            "queries/s",
            at_least=AT_LEAST.get(k),
            note=f"decide and learn, features made before; {len(table):,} queries x {rounds}",
        ),
        median_figure(
            f"{name}, CPU time",
            rates.ours_cpu,
            "queries/s",
            note="without what other processes took",
        ),
        median_figure(
            f"{name}, from embeddings", both, "queries/s", note="making the features included"
        ),
        median_figure(
            f"{name}, no VW expert", rates.without_vw, "queries/s", note="the same without VW"
        ),
    ]
    if not rates.theirs:
        return [*figures, skipped(f"{name}, paretobandit", "queries/s", NO_PARETO)]
    ratios = np.array(rates.ours) / np.array(rates.theirs)
    return [
        *figures,
        median_figure(
            f"{name}, paretobandit",
            rates.theirs,
            "queries/s",
            note="its own route and process_feedback, features made before",
        ),
        median_figure(f"{name}, ours over theirs", ratios.tolist(), "x", note="round by round"),
    ]


def measure_rates(table: OutcomeTable, rounds: int) -> Rates:
    """Everything that is compared, in turn, ``rounds`` times; one more round goes before."""
    rates = Rates([], [], [], [], [])
    featurizer = make_featurizer(embed=False)
    value = default_quality_values(table)[1]
    columns = ("task",)
    peer = None
    if has_paretobandit():
        from bandit_router.bench.peer_speed import peer_features

        peer = peer_features(table)
    for part in range(-1, rounds):
        start = time.perf_counter()
        features = table_features(table, featurizer, columns)
        made = len(table) / (time.perf_counter() - start)
        (ours, cpu), (without, _) = _loop_rates(table, features, value, max(part, 0))
        theirs = _peer_rate(table, peer, max(part, 0))
        if part < 0:
            continue
        rates.features.append(made)
        rates.ours.append(ours)
        rates.ours_cpu.append(cpu)
        rates.without_vw.append(without)
        rates.theirs.extend(theirs)
    return rates


def _loop_rates(
    table: OutcomeTable, features: Sequence[Features], value: float, seed: int
) -> list[tuple[float, float]]:
    """Queries per second, and per second of CPU time, of our policy, then of it without VW."""

    def make(name: str, catalog: Catalog, seed: int, budget_usd: float | None) -> Policy:
        del budget_usd
        dimension = len(features[0].dense)
        return make_policy(OURS, catalog, dimension=dimension, seed=seed, vowpal=name == OURS)

    plan = Plan((OURS, WITHOUT_VW), (value,), seed0=seed)
    rates = []
    traces = replay(plan, table, lambda _: features, make)
    for _ in plan.settings():
        start = time.thread_time()
        trace = next(traces)
        rates.append((len(table) / trace.seconds, len(table) / (time.thread_time() - start)))
    return rates


def _peer_rate(table: OutcomeTable, features: np.ndarray | None, seed: int) -> list[float]:
    if features is None:
        return []
    from bandit_router.bench.peer_speed import peer_queries_per_second

    return [peer_queries_per_second(table, features, seed)]
