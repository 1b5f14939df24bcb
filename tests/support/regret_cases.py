"""Seeded runs of a small learning policy whose every reward is known, for the regret tracker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandit_router.ope.regret_rows import Choices
from bandit_router.ope.regret_tracking import RegretConfig, RegretTracker

MODELS = ("small", "middle", "large")
COSTS = np.array([0.0, 0.05, 0.3])
VALUE = 1.0


@dataclass(frozen=True)
class Run:
    """What a run drew, and what every model would have scored on each query."""

    actions: np.ndarray
    pmf: np.ndarray
    potential: np.ndarray

    @property
    def true(self) -> np.ndarray:
        """Regret per query against the best fixed model after each row, shape (n,)."""
        reward = self.potential - COSTS / VALUE
        ahead = np.cumsum(reward - (self.pmf * reward).sum(axis=1, keepdims=True), axis=0)
        return ahead.max(axis=1) / np.arange(1, len(reward) + 1)


def draw(seed: int, n: int, epsilon: float = 0.1) -> Run:
    """Epsilon-greedy on the mean rewards it has seen, in a world that drifts by a slow wave."""
    rng = np.random.default_rng([seed, 0x5E6])
    wave = 0.3 * np.sin(2.0 * np.pi * (np.arange(n)[:, None] / n + [0.0, 0.3, 0.6]))
    potential = (rng.random((n, 3)) < [0.5, 0.6, 0.8] + wave * [1.0, 1.0, 0.5]).astype(float)
    sums, counts = np.zeros(3), np.full(3, 1e-9)
    actions, pmf = np.zeros(n, dtype=np.int64), np.full((n, 3), epsilon / 3)
    for t in range(n):
        pmf[t, int(np.argmax(sums / counts))] += 1.0 - epsilon
        actions[t] = min(int((pmf[t].cumsum() < rng.random()).sum()), 2)
        sums[actions[t]] += potential[t, actions[t]] - COSTS[actions[t]] / VALUE
        counts[actions[t]] += 1.0
    return Run(actions, pmf, potential)


def choices(run: Run) -> Choices:
    """What the run logged: nothing of the models that were not asked."""
    rows = np.arange(len(run.actions))
    return Choices(
        run.actions,
        run.pmf[rows, run.actions],
        run.pmf,
        run.potential[rows, run.actions],
        COSTS[run.actions],
    )


def tracker(**settings: object) -> RegretTracker:
    """One for these runs."""
    given = {"models": MODELS, "quality_value_usd": VALUE, "dearest_usd": tuple(COSTS.tolist())}
    return RegretTracker(RegretConfig(**given | {"horizon": 300.0} | settings))
