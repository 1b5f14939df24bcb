"""What was possible on a log, and how far a run of choices fell short of it. Pure numpy.

All of it needs full information: ``scores`` and ``costs_usd`` of every model on every query,
shape (n, K). Reward is ``score - cost_usd / quality_value_usd``, in units of score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hull:
    """The fixed-arm hull: the best mean score at each mean cost that mixing two models reaches.

    Attributes:
        costs_usd: shape (m,), ascending; the vertices' mean costs.
        scores: shape (m,), strictly ascending; the vertices' mean scores.
    """

    costs_usd: np.ndarray
    scores: np.ndarray

    def score_at(self, cost_usd: float) -> float:
        """The hull's mean score at a mean cost.

        Between vertices the line joins them; beyond the dearest it is flat. Below the cheapest
        model's cost no mixture of single models exists, and the cheapest vertex's score holds: a
        run that spends less than every single model is compared with that model all the same.
        """
        return float(np.interp(cost_usd, self.costs_usd, self.scores))

    def best_reward(self, quality_value_usd: float) -> float:
        """The largest mean reward on the hull. A linear function is largest at a vertex, so this
        is the reward of the best single model, also where a mean-cost target mixes two.
        """
        return float(np.max(self.scores - self.costs_usd / quality_value_usd))


def fixed_hull(scores: np.ndarray, costs_usd: np.ndarray) -> Hull:
    """Upper concave hull of the models' (mean cost, mean score), n >= 1.

    Andrew's monotone chain (1979) from the cheapest model (the best of those, at equal cost) to
    the best one; what is dearer than the best model is not on it.
    """
    cost, score = costs_usd.mean(axis=0), scores.mean(axis=0)
    order = np.lexsort((-score, cost))
    hull: list[tuple[float, float]] = []
    for k in order.tolist():
        point = (float(cost[k]), float(score[k]))
        if hull and point[1] <= hull[-1][1]:
            continue
        while len(hull) >= 2 and _is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return Hull(np.array([c for c, _ in hull]), np.array([s for _, s in hull]))


def _is_below(
    left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Whether ``middle`` is on or under the line from ``left`` to ``right``."""
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (
        middle[0] - left[0]
    )


def rewards(scores: np.ndarray, costs_usd: np.ndarray, quality_value_usd: float) -> np.ndarray:
    """score - cost / quality value, elementwise."""
    return scores - costs_usd / quality_value_usd


def cheapest_best(scores: np.ndarray, costs_usd: np.ndarray) -> np.ndarray:
    """Per query the cheapest of the models with the top score, shape (n,): the report's oracle.

    With scores of 0 and 1 this is the cheapest correct model, or the cheapest when none is.
    """
    best = scores >= scores.max(axis=1, keepdims=True)
    return np.argmin(np.where(best, costs_usd, np.inf), axis=1)


def best_reward_choice(
    scores: np.ndarray, costs_usd: np.ndarray, quality_value_usd: float
) -> np.ndarray:
    """Per query the model with the largest reward, shape (n,); the first of equals."""
    return np.argmax(rewards(scores, costs_usd, quality_value_usd), axis=1)


@dataclass(frozen=True)
class Comparators:
    """Reward per query of what a run is held against, each shape (n,), at one quality value.

    Attributes:
        best_fixed: the single model with the largest mean reward in hindsight.
        hull: the fixed-arm hull at the run's own spend: the two hull vertices around it, mixed so
            as to cost the same (outside the vertices the nearest one, credited with the run's own
            spend, since the hull is flat there). The regret against it is the lift, negated.
        oracle: the best reward of every query.
    """

    best_fixed: np.ndarray
    hull: np.ndarray
    oracle: np.ndarray


def comparators(
    scores: np.ndarray, costs_usd: np.ndarray, quality_value_usd: float, spent_usd: float
) -> Comparators:
    """The comparators of a run that spent ``spent_usd`` per query on average."""
    reward = rewards(scores, costs_usd, quality_value_usd)
    best = int(np.argmax(reward.mean(axis=0)))
    mixture = hull_mixture(scores, costs_usd, spent_usd)
    outside_usd = float(costs_usd.mean(axis=0) @ mixture) - spent_usd
    hull = reward @ mixture + outside_usd / quality_value_usd
    return Comparators(reward[:, best], hull, reward.max(axis=1))


def hull_mixture(scores: np.ndarray, costs_usd: np.ndarray, spent_usd: float) -> np.ndarray:
    """Probabilities of the models, shape (K,), whose mixture is the hull at that mean cost."""
    hull = fixed_hull(scores, costs_usd)
    cost, score = costs_usd.mean(axis=0), scores.mean(axis=0)
    vertices = zip(hull.costs_usd, hull.scores, strict=True)
    at = np.array([np.flatnonzero((cost == c) & (score == s))[0] for c, s in vertices])
    mixture = np.zeros(scores.shape[1])
    right = int(np.searchsorted(hull.costs_usd, spent_usd))
    if right == 0 or right == len(at):
        mixture[at[min(right, len(at) - 1)]] = 1.0
        return mixture
    low, high = hull.costs_usd[right - 1], hull.costs_usd[right]
    share = (spent_usd - low) / (high - low)
    mixture[at[right]] = share
    mixture[at[right - 1]] = 1.0 - share
    return mixture


@dataclass(frozen=True)
class ErrorLedger:
    """How often a run chose another model than the best in reward, and what it lost, by kind.

    Attributes:
        quality_count / quality_loss: choices that scored less than the best model would have, and
            their reward lost, summed over queries and divided by n.
        cost_count / cost_loss: choices that scored at least as much but cost more, likewise.
    """

    quality_count: int
    quality_loss: float
    cost_count: int
    cost_loss: float


def error_ledger(
    scores: np.ndarray, costs_usd: np.ndarray, chosen: np.ndarray, quality_value_usd: float
) -> ErrorLedger:
    """Count errors towards quality and errors towards cost apart.

    Args:
        chosen: shape (n,), the model index chosen on each query.
    """
    rows = np.arange(len(chosen))
    best = best_reward_choice(scores, costs_usd, quality_value_usd)
    reward = rewards(scores, costs_usd, quality_value_usd)
    lost = reward[rows, best] - reward[rows, chosen]
    worse = scores[rows, chosen] < scores[rows, best]
    quality = (lost > 0.0) & worse
    cost = (lost > 0.0) & ~worse
    return ErrorLedger(
        quality_count=int(quality.sum()),
        quality_loss=float(lost[quality].sum() / len(chosen)),
        cost_count=int(cost.sum()),
        cost_loss=float(lost[cost].sum() / len(chosen)),
    )
