"""What the estimators that need nothing but the weighted sums have in common."""

from __future__ import annotations

from typing import Self

from bandit_router.ope.moments import Moments
from bandit_router.ope.terms import Terms


class Weighted:
    """Takes rows into sums of weights and outcomes; mergeable by ``+``."""

    def __init__(self) -> None:
        self.moments = Moments()

    def add(self, batch: Terms) -> None:
        """Take rows."""
        self.moments.add(batch.weight, batch.outcome, batch.weight_range, batch.outcome_range)

    def __add__(self, other: Self) -> Self:
        result = type(self)()
        result.moments = self.moments + other.moments
        return result

    @property
    def outcome_range(self) -> tuple[float, float]:
        """Between which values an outcome can lie."""
        return self.moments.outcome_range
