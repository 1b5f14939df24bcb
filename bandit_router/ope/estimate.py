"""What an estimator says, and the protocol that all of them keep."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Protocol, Self

import msgspec

from bandit_router.errors import InputError
from bandit_router.ope.moments import Moments
from bandit_router.ope.terms import Terms


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over the rows of a log, had the target decided.

    Attributes:
        value: in the unit of the outcome. IPS and doubly robust values may lie outside the
            outcome's range: cutting them would bias them.
        standard_error: root of the estimated variance.
        n: rows that went in.
    """

    value: float
    standard_error: float
    n: int

    def normal_interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """value +- z standard errors: the interval of the central limit theorem at a fixed n.

        It assumes many rows of comparable weight. With a model that a policy chose in one of a
        thousand queries it does not hold: on the shared logs such intervals covered 30 % to 80 %
        of the time instead of 95 %. Neither may it be looked at repeatedly.
        """
        if not 0.0 < alpha < 1.0:
            raise InputError(f"alpha {alpha!r} must be between 0 and 1")
        reach = NormalDist().inv_cdf(1.0 - alpha / 2.0) * self.standard_error
        return self.value - reach, self.value + reach


class Estimator(Protocol):
    """Streaming and mergeable: ``add`` rows, ``+`` the parts of a log, ``estimate`` at the end.

    Every sum is exact (:mod:`bandit_router.ope.exact`), so the parts of a log merged give, in
    every bit, what the whole gives at once, in any order and division.

    Attributes:
        name: as it is asked for.
        moments: weights with what they weigh, for intervals and diagnostics.
        outcome_range: the least and the largest value that the target's mean can have.
    """

    name: str
    moments: Moments

    @property
    def outcome_range(self) -> tuple[float, float]:
        """See the class."""
        ...

    def add(self, batch: Terms) -> None:
        """Take rows. Raises InputError when a term is not finite; nothing was taken then."""
        ...

    def __add__(self, other: Self) -> Self:
        """Both logs together."""
        ...

    def estimate(self) -> Estimate:
        """The value so far. Raises InputError when there is nothing to estimate it from."""
        ...


def require_rows(n: int) -> None:
    """Raise InputError when a log is empty: no mean of nothing looks right."""
    if n == 0:
        raise InputError("the log is empty: there is no row with a known outcome to estimate from")


def standard_error(total: float, squares: float, n: int) -> float:
    """Of a mean of n terms with that sum and that sum of squares; infinite for a single one."""
    if n < 2:
        return math.inf
    variance = max(squares - total * total / n, 0.0) / (n - 1)
    return math.sqrt(variance / n)
