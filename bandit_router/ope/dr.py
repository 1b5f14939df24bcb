"""The doubly robust estimator."""

from __future__ import annotations

from typing import Self

import numpy as np

from bandit_router.ope.estimate import Estimate, require_rows, standard_error
from bandit_router.ope.exact import ExactSums
from bandit_router.ope.moments import Moments, union
from bandit_router.ope.terms import Terms


class DoublyRobust:
    """mean of sum_a pi(a|x) q(x, a) + w (r - q(x, a_logged)) (Dudik, Langford & Li 2011).

    With exact propensities it is unbiased for any q that was fitted without the row itself, and its
    variance is that of the residuals r - q instead of r. Folds divide the log at random
    (Chernozhukov et al. 2018): that is exact for a log whose policy did not learn. Where it did, a
    fold's model has seen rows whose choice this row had a part in, and the bias is of order 1 / n;
    a model of the past alone (Zhan et al. 2021) has none. See
    :data:`~bandit_router.ope.outcomes.Folding`.

    Attributes:
        moments: of the weighted residuals.
        outcome_range: between which values an outcome, not a residual, can lie.
    """

    name = "dr"

    def __init__(self) -> None:
        self.moments = Moments()
        self.outcome_range = (np.inf, -np.inf)
        self._sums = ExactSums(4)

    def add(self, batch: Terms) -> None:
        """Take rows, whose terms have a model's predictions."""
        residual = batch.outcome - batch.predicted
        whole = batch.direct + batch.weight * residual
        self._sums.add(
            np.stack([whole, whole * whole, batch.direct, batch.direct * batch.direct], axis=1)
        )
        self.moments.add(batch.weight, residual, batch.weight_range, _residual_range(batch))
        self.outcome_range = union(self.outcome_range, batch.outcome_range)

    def __add__(self, other: DoublyRobust) -> Self:
        result = type(self)()
        result.moments = self.moments + other.moments
        result._sums = self._sums + other._sums
        result.outcome_range = union(self.outcome_range, other.outcome_range)
        return result

    @property
    def direct(self) -> Estimate:
        """The models' part alone, the direct method: biased by whatever the models get wrong."""
        return self._estimate(2)

    @property
    def correction(self) -> Estimate:
        """The mean weighted residual, which is added to the models' part."""
        n = self.moments.n
        require_rows(n)
        _, _, weighted, _, squares = self.moments.sums()
        return Estimate(
            value=weighted / n, standard_error=standard_error(weighted, squares, n), n=n
        )

    def estimate(self) -> Estimate:
        """Predictions, corrected by the weighted residuals."""
        return self._estimate(0)

    def _estimate(self, column: int) -> Estimate:
        n = self.moments.n
        require_rows(n)
        total, squares = self._sums.values()[0, column : column + 2].tolist()
        return Estimate(value=total / n, standard_error=standard_error(total, squares, n), n=n)


def _residual_range(batch: Terms) -> tuple[float, float]:
    """Between which values the residual of an action that the target may take can lie."""
    low, high = batch.outcome_range
    return low - batch.predicted_range[1], high - batch.predicted_range[0]
