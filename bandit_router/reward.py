"""Reward, and the way from raw feedback to a score in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from bandit_router.errors import ConfigError, InputError

Aggregation = Literal["last", "first", "mean", "max", "min"]
"""How several values of one metric become one score. ``last`` and ``first`` go by event time."""

Rating = tuple[float, str, float]
"""One accepted feedback: (event time, feedback_id, score in [0, 1])."""


def reward(score: float, cost_usd: float, quality_value_usd: float) -> float:
    """score - cost_usd / quality_value_usd, in units of score.

    Args:
        score: in [0, 1].
        cost_usd: >= 0.
        quality_value_usd: what one fully good answer is worth, USD, > 0.

    Raises:
        InputError: an argument is not finite or outside its range.
    """
    if not 0.0 <= score <= 1.0:
        raise InputError(f"score {score!r} is outside [0, 1]")
    if not 0.0 <= cost_usd < math.inf:
        raise InputError(f"cost_usd {cost_usd!r} must be finite and not negative")
    if not 0.0 < quality_value_usd < math.inf:
        raise InputError(f"quality_value_usd {quality_value_usd!r} must be finite and above 0")
    return score - cost_usd / quality_value_usd


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What the values of one feedback metric mean.

    Attributes:
        kind: ``bool`` (0 or 1), ``thumbs`` (-1, 0 or 1; 0 counts as a half) or ``float``.
        low / high: for ``float``, the values that map to 0 and to 1; ``high`` may be below ``low``
            for a metric of which less is better.

    Raises:
        ConfigError: ``low`` and ``high`` are equal or not finite.
    """

    kind: Literal["bool", "thumbs", "float"] = "float"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low != self.high):
            raise ConfigError(
                f"metric range [{self.low!r}, {self.high!r}]: both ends must be finite and differ"
            )

    def score(self, value: float) -> float | None:
        """The value as a score in [0, 1], or None when the metric has no such value."""
        if self.kind == "float":
            scaled = (value - self.low) / (self.high - self.low)
            return scaled if 0.0 <= scaled <= 1.0 else None
        if self.kind == "bool":
            return float(value) if value in (0.0, 1.0) else None
        return (value + 1.0) / 2.0 if value in (-1.0, 0.0, 1.0) else None


def aggregate(rule: Aggregation, ratings: Sequence[Rating]) -> float:
    """One score from several. The order of ``ratings`` does not matter, not even in the last bit.

    ``first`` and ``last`` compare (event time, feedback_id); ``mean`` is exactly rounded.

    Raises:
        InputError: there are no ratings.
    """
    if not ratings:
        raise InputError("no ratings to aggregate")
    if len(ratings) == 1:
        return ratings[0][2]
    if rule == "last":
        return max(ratings)[2]
    if rule == "first":
        return min(ratings)[2]
    scores = [rating[2] for rating in ratings]
    if rule == "max":
        return max(scores)
    if rule == "min":
        return min(scores)
    return math.fsum(scores) / len(scores)
