"""How long one decision takes when the features are given."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bandit_router.bench.figures import Figure, median_figure
from bandit_router.bench.synthetic import synthetic_log
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.replay import Player, blurred_catalog, table_features
from bandit_router.router import Router
from bandit_router.types import Context

MODELS = 12
QUALITY_VALUE_USD = 0.02
P50_AT_MOST_US, P99_AT_MOST_US = 250.0, 1000.0


def decide_figures(*, decisions: int = 2000, rounds: int = 5, learned: int = 1500) -> list[Figure]:
    """p50 and p99 of ``Router.decide`` with 12 models, over rounds of that many decisions.

    The policy has learned ``learned`` queries before, so that every part of it is at work.
    """
    table = synthetic_log(MODELS, learned)
    featurizer = make_featurizer(embed=False)
    features = table_features(table, featurizer, ("task",))
    catalog = blurred_catalog(table, 0)
    policy = make_policy("bandit", catalog, dimension=featurizer.dimension)
    player = Player(policy, catalog, quality_value_usd=QUALITY_VALUE_USD)
    player.play(table, features, range(len(table)))
    router = Router(
        policy, featurizer, catalog, salt="bench", quality_value_usd=lambda: QUALITY_VALUE_USD
    )
    wall, cpu = np.empty((rounds, decisions)), np.empty((rounds, decisions))
    for part in range(rounds):
        for i in range(decisions):
            context = Context(event_id=f"decide-{part}-{i}", ts=float(i))
            given = features[i % len(features)]
            start, own = time.perf_counter_ns(), time.thread_time_ns()
            router.decide(context, features=given)
            cpu[part, i] = time.thread_time_ns() - own
            wall[part, i] = time.perf_counter_ns() - start
    note = f"features given; median of {rounds} x {decisions:,} decisions"
    return [
        _percentile(wall, 50, "", at_most=P50_AT_MOST_US, note=note),
        _percentile(wall, 99, "", at_most=P99_AT_MOST_US, note=note),
        _percentile(cpu, 50, ", CPU time", note="without what other processes took"),
        _percentile(cpu, 99, ", CPU time", note="without what other processes took"),
    ]


def _percentile(taken_ns: np.ndarray, q: int, what: str, **more: Any) -> Figure:
    """A percentile of each row, in us."""
    repeats = (np.percentile(taken_ns, q, axis=1) / 1e3).tolist()
    return median_figure(f"decide, {MODELS} models, p{q}{what}", repeats, "us", **more)
