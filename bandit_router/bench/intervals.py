"""Is a difference over seeds more than noise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with Student's interval for it.

    Attributes:
        mean: ours less theirs.
        low, high: the 95 % interval; None with a single pair.
    """

    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """``ahead``, ``behind``, ``equal``, or ``within noise`` where the interval covers 0."""
        if self.low is None or self.high is None:
            return "one seed"
        if self.low == self.high == 0.0:
            return "equal"
        if self.low <= 0.0 <= self.high:
            return "within noise"
        return "ahead" if self.low > 0.0 else "behind"


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """ours - theirs, pair by pair: the same seed, so the same order of queries and the same draws.

    The interval is Student's t on n - 1 degrees of freedom. It covers the randomness of order,
    draws and prices; the log itself is the same for all seeds.
    """
    gaps = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return Difference(mean, None, None)
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(gaps) - 1, 0.5 + CONFIDENCE / 2.0))
    half = quantile * float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return Difference(mean, mean - half, mean + half)
