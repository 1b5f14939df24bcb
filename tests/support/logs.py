"""Logged choices with a known truth, for the laws of off-policy estimators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandit_router.ope.logged import Logged

MODELS = ("small", "middle", "large")


@dataclass(frozen=True)
class Made:
    """A log, and what every model would have brought on every query."""

    log: Logged
    scores: np.ndarray
    costs_usd: np.ndarray


def made_log(n: int, seed: int = 0, *, k: int = 3, d: int = 4, floor: float = 0.1) -> Made:
    """n queries with d features; each of k models is chosen with probability at least floor / k.

    Scores are 0 or 1, with a chance that depends on the features; so do the logged probabilities.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    lean = np.exp(x[:, :1] * np.linspace(-1.0, 1.0, k))
    pmf = (1.0 - floor) * lean / lean.sum(axis=1, keepdims=True) + floor / k
    pmf /= pmf.sum(axis=1, keepdims=True)
    chance = 1.0 / (1.0 + np.exp(-x[:, :1] - np.linspace(-0.5, 1.0, k)))
    scores = (rng.random((n, k)) < chance).astype(np.float64)
    costs = 0.001 * 4.0 ** np.arange(k) * np.exp(0.3 * rng.normal(size=(n, k)))
    action = np.minimum((rng.random(n)[:, None] >= pmf.cumsum(axis=1)).sum(axis=1), k - 1)
    rows = np.arange(n)
    log = Logged(
        models=tuple(f"model{i}" for i in range(k)) if k != len(MODELS) else MODELS,
        position=rows + 1,
        action=action,
        propensity=pmf[rows, action],
        pmf=pmf,
        eligible=np.ones((n, k), dtype=bool),
        score=scores[rows, action],
        cost_usd=costs[rows, action],
        quality_value_usd=np.full(n, 0.1),
        features=x,
        fold_key=rng.integers(0, 2**32, n).astype(np.uint32),
    )
    return Made(log, scores, costs)


def hand_log() -> Logged:
    """Four rows of two models that can be worked out on paper.

    =====  ======  ==========  =====  ====
    row    action  propensity  score  cost
    =====  ======  ==========  =====  ====
    1      a       1/2         1      .01
    2      b       1/4         1      .03
    3      b       1/2         0      .05
    4      a       3/4         0      .02
    =====  ======  ==========  =====  ====
    """
    share_of_a = np.array([0.5, 0.75, 0.5, 0.75])
    action = np.array([0, 1, 1, 0])
    pmf = np.stack([share_of_a, 1.0 - share_of_a], axis=1)
    return Logged(
        models=("a", "b"),
        position=np.arange(1, 5),
        action=action,
        propensity=pmf[np.arange(4), action],
        pmf=pmf,
        eligible=np.ones((4, 2), dtype=bool),
        score=np.array([1.0, 1.0, 0.0, 0.0]),
        cost_usd=np.array([0.01, 0.03, 0.05, 0.02]),
        quality_value_usd=np.full(4, 0.1),
        features=np.zeros((4, 1)),
        fold_key=np.arange(4, dtype=np.uint32),
    )
