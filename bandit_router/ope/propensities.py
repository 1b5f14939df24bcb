"""Are the logged propensities those that drew the actions?"""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from bandit_router.ope.exact import ExactSums
from bandit_router.ope.logged import Logged

LEVEL = 1e-6
"""Probability of a complaint about a log whose propensities are right."""

_SCALES = 64


class PropensityCheck:
    """How often each model was chosen, against how often its logged probabilities say.

    For true propensities, chosen - probability sums to a martingale with steps in [-1, 1]. By
    Freedman's (1975) inequality, at a union over 64 doublings of its variance V, both signs and all
    K models, |sum| <= sqrt(4 V L) + sqrt(2 L) + 2 L / 3 with L = ln(128 K / level), whatever the
    policy learned meanwhile.

    It notices an index that is off by one, swapped pmfs, a fallback that is logged under the old
    probability, or a pmf from before the mask, once the difference adds up. It cannot notice
    probabilities that are wrong in both directions and right on average.
    """

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models
        self._sums = ExactSums(2 * len(models))
        self._chosen = np.zeros(len(models), dtype=np.int64)

    def add(self, log: Logged) -> None:
        """Take rows."""
        k = len(self._models)
        hit = log.action[:, None] == np.arange(k)
        self._sums.add(np.concatenate([log.pmf, log.pmf * (1.0 - log.pmf)], axis=1))
        self._chosen += hit.sum(axis=0)

    def __add__(self, other: PropensityCheck) -> Self:
        result = type(self)(self._models)
        result._sums = self._sums + other._sums
        result._chosen = self._chosen + other._chosen
        return result

    def problem(self, level: float = LEVEL) -> str | None:
        """What contradicts the propensities most, or None."""
        k = len(self._models)
        expected, variance = np.split(self._sums.values()[0], 2)
        length = math.log(2.0 * _SCALES * k / level)
        reach = np.sqrt(4.0 * np.maximum(variance, 0.0) * length) + math.sqrt(2.0 * length)
        reach += 2.0 * length / 3.0
        excess = np.abs(self._chosen - expected) - reach
        worst = int(np.argmax(excess))
        if excess[worst] <= 0.0:
            return None
        return (
            f"the propensities are not those that drew the actions: {self._models[worst]!r} was "
            f"chosen {int(self._chosen[worst])} times where the logged probabilities say "
            f"{expected[worst]:.1f}; an estimate from them would mean nothing"
        )
