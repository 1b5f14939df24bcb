"""Sample-ratio mismatch: were units dealt as the flag says? Looked at after every unit.

An experiment whose units are not split as they should be compares other things than its variants:
requests of one variant get lost, or a unit's variant is decided on what it did. The null is that
unit t, given all before it, is in variant i with the probability theta_t(i) that was in force at
its first exposure. For any forecast q_t made before it, the product of q_t(x_t) / theta_t(x_t) is
then a non-negative martingale that starts at 1, so it exceeds 1 / alpha with probability at most
alpha, ever (Ville 1939). The forecast here is

    q_t(i) proportional to theta_t(i) r_i,   r_i = (kappa + n_i) / (kappa + e_i),

with n_i units seen in i and e_i expected there. With shares that stay and kappa in proportion to
them, this is the Dirichlet mixture of Lindon and Malek (2022, "Anytime-valid inference for
multinomial count data"); the form above stays valid when the shares change in between. A variant
of share 0 must have no unit: one is enough to reject.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bandit_router.errors import InputError

ALPHA = 0.001
"""The level at which a mismatch blocks a verdict."""

_PRIOR_UNITS = 50.0
"""kappa summed over the variants: how slowly the forecast leaves the null."""


class SampleRatio:
    """An e-process against "units are split as they should be".

    Args:
        variants: the names that units can have, two at least.
    """

    def __init__(self, variants: Sequence[str]) -> None:
        if len(set(variants)) < 2 or len(set(variants)) != len(variants):
            raise InputError(f"two different variants at least are needed, not {variants!r}")
        self.observed = dict.fromkeys(variants, 0)
        self.expected = dict.fromkeys(variants, 0.0)
        self._log_evidence = self._highest = 0.0

    def update(self, variant: str, shares: Mapping[str, float]) -> None:
        """Take one unit.

        Args:
            variant: where it is.
            shares: the probability of each variant at its first exposure; they sum to 1. A variant
                that is not named has 0.

        Raises:
            InputError: an unknown variant, or no probabilities; nothing was taken then.
        """
        theta = {name: float(shares.get(name, 0.0)) for name in self.observed}
        unknown = ({variant} | set(shares)) - set(theta)
        if unknown:
            raise InputError(f"unknown variants: {', '.join(sorted(unknown))}")
        if not (min(theta.values()) >= 0.0 and abs(sum(theta.values()) - 1.0) <= 1e-9):
            raise InputError(f"the shares {theta} are no probabilities that sum to 1")
        kappa = _PRIOR_UNITS / len(theta)
        ratio = {i: (kappa + n) / (kappa + self.expected[i]) for i, n in self.observed.items()}
        total = sum(theta[i] * ratio[i] for i in theta)
        # q / theta: the share itself cancels, except where it is 0.
        self._log_evidence += math.log(ratio[variant] / total) if theta[variant] else math.inf
        self._highest = max(self._highest, self._log_evidence)
        self.observed[variant] += 1
        for name, share in theta.items():
            self.expected[name] += share

    @property
    def units(self) -> int:
        """Units taken."""
        return sum(self.observed.values())

    @property
    def p_value(self) -> float:
        """Anytime-valid: while the null holds, P(it is ever at most alpha) <= alpha."""
        return math.exp(-self._highest)

    def mismatch(self, alpha: float = ALPHA) -> bool:
        """Whether the split is not the one that should be, at level ``alpha``."""
        return self.p_value <= alpha
