"""Can a log answer for a target at all?"""

from __future__ import annotations

from typing import Self

import numpy as np

from bandit_router.ope.exact import ExactSums
from bandit_router.ope.logged import Logged
from bandit_router.ope.moments import Moments

NEGLIGIBLE = 1e-9
"""Share of the target's probability off support that rounding may leave."""


class Support:
    """How much of a target lies where the logging policy never goes; mergeable by ``+``.

    Attributes:
        n: rows.
        example: (position of a row, model) where support is missing; of the earliest row.
    """

    def __init__(self, name: str, models: tuple[str, ...]) -> None:
        self._name, self._models = name, models
        self.n = 0
        self._off = ExactSums(1)
        self.example: tuple[int, str] | None = None

    def add(self, log: Logged, target: np.ndarray) -> None:
        """Take rows and the target's probabilities (n, K)."""
        off = np.where(log.pmf > 0.0, 0.0, target)
        share = off.sum(axis=1)
        self._off.add(share[:, None])
        self.n += len(log)
        missing = np.flatnonzero(share > 0.0)
        if len(missing):
            row = int(missing[0])
            found = (int(log.position[row]), self._models[int(np.argmax(off[row]))])
            self.example = found if self.example is None else min(self.example, found)

    def __add__(self, other: Support) -> Self:
        result = type(self)(self._name, self._models)
        result.n, result._off = self.n + other.n, self._off + other._off
        found = [e for e in (self.example, other.example) if e is not None]
        result.example = min(found, default=None)
        return result

    @property
    def share_off(self) -> float:
        """Mean probability that the target gives to actions the logging policy gave none."""
        return float(self._off.values()[0, 0]) / self.n if self.n else 0.0

    def refusal(self, moments: Moments) -> str | None:
        """Why the log cannot answer for this target, or None when it can."""
        if self.share_off > NEGLIGIBLE and self.example is not None:
            position, model = self.example
            return (
                f"{self._name} cannot be estimated from this log: {self.share_off:.2%} of its "
                f"choices had no chance there (first {model!r} at interaction {position}); "
                "log with exploration over every eligible model, or choose another target"
            )
        if moments.matched == 0:
            return (
                f"{self._name} cannot be estimated from this log: none of {moments.n} interactions "
                "chose what it may choose; log more, or with more exploration"
            )
        return None
