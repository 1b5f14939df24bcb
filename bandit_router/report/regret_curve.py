"""Estimated regret over the course of a run, beside the true one that the full log tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandit_router.ope.regret_rows import Choices
from bandit_router.ope.regret_tracking import Regret, RegretConfig, RegretTracker
from bandit_router.regret import rewards

STEPS = 32
"""Points of a curve: reading the bounds at each is most of what a short run's curve costs."""


@dataclass(frozen=True)
class Observed:
    """What a run's own log holds.

    Attributes:
        places: shape (n,), row of the full-information arrays that each choice is about.
        choices: with the outcome of the chosen model, and of no other.
    """

    places: np.ndarray
    choices: Choices


@dataclass(frozen=True)
class RegretCurve:
    """Regret per query against the best single model, after ``rows`` queries. Shapes (m,).

    Attributes:
        rows: queries seen, ascending; the last is all of them.
        value, lower, upper: estimated from the log alone, with bounds that hold at every row.
        true: what they are an estimate of: the largest mean reward of a single model so far, less
            what our pmf earned on average over its draws.
        alpha: level of the bounds.
    """

    rows: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    true: np.ndarray
    alpha: float

    @property
    def last(self) -> tuple[float, float, float, float]:
        """Estimate, lower bound, upper bound and truth after all queries, per query."""
        return tuple(float(x[-1]) for x in (self.value, self.lower, self.upper, self.true))


def regret_curve(
    observed: Observed, scores: np.ndarray, costs_usd: np.ndarray, quality_value_usd: float
) -> RegretCurve | None:
    """The curve of a run, or None when it gave some model no chance on some query.

    Args:
        observed: the only thing that the estimate and its bounds are made of, beside the most
            that one answer of each model costs, which is taken as known beforehand.
        scores, costs_usd: shape (N, K), of every model on every query: for that largest cost, and
            for the true regret.
    """
    log = observed.choices
    if not len(log) or not (log.pmf > 0.0).all():
        return None
    n, models = len(log), tuple(map(str, range(scores.shape[1])))
    tracker = RegretTracker(
        RegretConfig(
            models=models,
            quality_value_usd=quality_value_usd,
            dearest_usd=tuple(costs_usd.max(axis=0).tolist()),
            horizon=float(max(n, 100)),
        )
    )
    ends = np.unique(np.linspace(1, n, min(STEPS, n)).astype(int))
    found, start = [], 0
    for end in ends.tolist():
        tracker.update(log.part(start, end))
        found.append(_numbers(tracker.best_fixed()))
        start = end
    value, lower, upper = np.array(found).T
    every = rewards(scores, costs_usd, quality_value_usd)[observed.places]
    ours = (log.pmf * every).sum(axis=1)
    ahead = np.cumsum(every - ours[:, np.newaxis], axis=0).max(axis=1)
    return RegretCurve(ends, value, lower, upper, (ahead[ends - 1] / ends), tracker.config.alpha)


def _numbers(regret: Regret | None) -> tuple[float, float, float]:
    """There is support and a row, so there is a regret with finite bounds."""
    assert regret is not None  # noqa: S101
    own = regret.per_query
    return own.estimate, own.lower, own.upper
