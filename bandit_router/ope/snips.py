"""Self-normalised inverse propensity scoring."""

from __future__ import annotations

import math

from bandit_router.errors import InputError
from bandit_router.ope.estimate import Estimate, require_rows
from bandit_router.ope.weighted import Weighted


class Snips(Weighted):
    """sum of w r / sum of w (Swaminathan & Joachims 2015).

    Stays inside the outcomes' range and does not move when a constant is added to them. Biased by
    a term of order 1 / n, consistent. The standard error is the delta method's (Owen 2013, "Monte
    Carlo theory, methods and examples", section 9.2), which understates it when few rows carry the
    weight: with one matching row it is 0, and nothing at all is known of the spread.
    """

    name = "snips"

    def estimate(self) -> Estimate:
        """The weighted mean of the outcomes."""
        n = self.moments.n
        require_rows(n)
        w, ww, wr, wwr, wwrr = self.moments.sums()
        if not w > 0.0:
            raise InputError(f"none of {n} rows chose what the target may choose")
        value = wr / w
        spread = max(wwrr - 2.0 * value * wwr + value * value * ww, 0.0)
        error = math.inf if self.moments.matched < 2 else math.sqrt(spread) / w
        return Estimate(value=value, standard_error=error, n=n)
