"""Exact sums of weights and weighted outcomes: all that IPS, SNIPS and their intervals need."""

from __future__ import annotations

from typing import Self

import numpy as np

from bandit_router.ope.exact import ExactSums


class Moments:
    """Sums over rows of (w, r): mergeable by ``+``, in every bit whatever the parts.

    Attributes:
        n: rows.
        matched: rows with w > 0, where the target could have done what was done.
        largest_weight: the largest w seen.
        weight_range: the least and the largest w that was possible.
        outcome_range: the least and the largest r that is possible.
    """

    __slots__ = ("_sums", "largest_weight", "matched", "n", "outcome_range", "weight_range")

    def __init__(self) -> None:
        self._sums = ExactSums(5)
        self.n = self.matched = 0
        self.largest_weight = 0.0
        self.weight_range = (np.inf, 0.0)
        self.outcome_range = (np.inf, -np.inf)

    def add(
        self,
        weight: np.ndarray,
        outcome: np.ndarray,
        weight_range: tuple[float, float],
        outcome_range: tuple[float, float],
    ) -> None:
        """Take rows: arrays of shape (n,). Raises InputError when a product is not finite."""
        if not len(weight):
            return
        weighted = weight * outcome
        columns = (weight, weight * weight, weighted, weight * weighted, weighted * weighted)
        self._sums.add(np.stack(columns, axis=1))
        self.n += len(weight)
        self.matched += int(np.count_nonzero(weight))
        self.largest_weight = max(self.largest_weight, float(weight.max()))
        self.weight_range = union(self.weight_range, weight_range)
        self.outcome_range = union(self.outcome_range, outcome_range)

    def __add__(self, other: Moments) -> Self:
        result = type(self)()
        result._sums = self._sums + other._sums
        result.n, result.matched = self.n + other.n, self.matched + other.matched
        result.largest_weight = max(self.largest_weight, other.largest_weight)
        result.weight_range = union(self.weight_range, other.weight_range)
        result.outcome_range = union(self.outcome_range, other.outcome_range)
        return result

    def sums(self) -> tuple[float, float, float, float, float]:
        """Sums of w, w^2, w r, w^2 r and w^2 r^2, each rounded once."""
        return tuple(self._sums.values()[0].tolist())

    @property
    def effective_n(self) -> float:
        """Effective sample size (sum w)^2 / sum w^2 (Kish 1965); 0 when nothing matched."""
        w, ww, *_ = self.sums()
        return w * w / ww if ww > 0.0 else 0.0

    @property
    def mean_weight(self) -> float:
        """About 1 when the propensities are those that drew; 0 without rows."""
        return self.sums()[0] / self.n if self.n else 0.0


def union(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The smallest range that has both."""
    return min(one[0], other[0]), max(one[1], other[1])
