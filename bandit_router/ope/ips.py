"""Inverse propensity scoring."""

from __future__ import annotations

from bandit_router.ope.estimate import Estimate, require_rows, standard_error
from bandit_router.ope.weighted import Weighted


class Ips(Weighted):
    """mean of w r (Horvitz & Thompson 1952).

    Unbiased when the logged propensities are those that drew the actions and every action that the
    target may take had one above 0, whether or not the logging policy learned meanwhile: given the
    past, each term has the right mean. Its variance grows with the weights. The standard error is
    that of a mean of independent terms; for a policy that learned it is that of a martingale, which
    needs enough rows of comparable weight.
    """

    name = "ips"

    def estimate(self) -> Estimate:
        """The mean of the weighted outcomes."""
        n = self.moments.n
        require_rows(n)
        _, _, weighted, _, squares = self.moments.sums()
        return Estimate(
            value=weighted / n, standard_error=standard_error(weighted, squares, n), n=n
        )
