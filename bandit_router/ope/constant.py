"""Confidence sequences for one mean that does not change: Waudby-Smith and Ramdas (2023).

"Estimating means of bounded random variables by betting", JRSS B 86(1). Both need every
observation to have the same mean given those before (independent ones of one distribution do).
Their bets fall as 1 / sqrt(t log t), which suits some hundred rows; at 10,000 they are wider than
the mixture of fixed bets (`bandit-router bench calibration` prints by how much). Where the mean may
drift they cover nothing in particular (the first a weighted mean whose weights fall with time): use
:class:`~bandit_router.ope.sequences.ContrastSequence`, which covers the running mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope import constant_kernels as kernels
from bandit_router.ope.sequence_rows import observations
from bandit_router.ope.sequences import Bounds, level

_CANDIDATES = 1000


class ConstantMean(Protocol):
    """What the two sequences have in common."""

    def update(self, values: np.ndarray | Sequence[float]) -> None:
        """Take observations, in order; all at once or one by one gives the same bits."""
        ...

    def bounds(self) -> Bounds:
        """Bounds that hold after every row at once, at the level of construction."""
        ...


class PlugInBernstein:
    """Predictable plug-in empirical Bernstein: O(1) per row, closed form.

    Bounds of different times are not intersected, so they can widen for a moment.

    Args:
        alpha: two-sided level.
        lower, upper: every observation lies in [lower, upper].

    Raises:
        InputError: the level or the range is none.
    """

    def __init__(self, alpha: float = 0.05, lower: float = 0.0, upper: float = 1.0) -> None:
        self._settings = _settings(alpha, lower, upper)
        self._moments, self._sums = np.zeros(3), np.zeros(3)

    def update(self, values: np.ndarray | Sequence[float]) -> None:
        """See :class:`ConstantMean`. Raises InputError, and has taken nothing then."""
        alpha, lower, upper = self._settings
        scaled = observations(values, lower, upper)
        kernels.push_bernstein(scaled, math.log(2.0 / alpha), self._moments, self._sums)

    def bounds(self) -> Bounds:
        """See :class:`ConstantMean`."""
        alpha, lower, upper = self._settings
        rows, total, _ = self._moments.tolist()
        bets, weighted, spread = self._sums.tolist()
        if rows == 0.0:
            return Bounds(0.5 * (lower + upper), lower, upper, 0)
        centre, radius = weighted / bets, (math.log(2.0 / alpha) + spread) / bets
        ends = (max(centre - radius, 0.0), min(centre + radius, 1.0))
        least, most = (lower + (upper - lower) * end for end in ends)
        return Bounds(lower + (upper - lower) * total / rows, least, most, int(rows))

    def merge(self, other: Self) -> None:
        """Add disjoint rows of the same mean: the supermartingales multiply, so the sums add.

        Raises:
            InputError: another level or range.
        """
        if other._settings != self._settings:
            raise InputError("only sequences of the same level and range can be merged")
        self._moments += other._moments
        self._sums += other._sums

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        return msgspec.msgpack.encode(
            [list(self._settings), self._moments.tolist(), self._sums.tolist()]
        )

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        Three = tuple[float, float, float]
        try:
            settings, *arrays = msgspec.msgpack.decode(state, type=tuple[Three, Three, Three])
            made = cls(*settings)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a plug-in sequence: {error}") from error
        made._moments, made._sums = (np.array(array) for array in arrays)
        if not (np.isfinite(arrays).all() and made._moments[0] >= 0.0):
            raise SnapshotError("a plug-in sequence's state has a wrong number")
        return made


class HedgedCapital:
    """Hedged betting over a grid of candidate means: the narrowest here up to some hundred rows.

    O(candidates not yet rejected) per row. Rejected candidates stay so (the mean is constant):
    the bounds never widen. Their resolution is 1 / 1000 of the range, to the outside.

    Not mergeable: how the grid was rejected cannot be taken back, and capital is no longer counted
    for rejected candidates.

    Args and Raises: as :class:`PlugInBernstein`.
    """

    def __init__(self, alpha: float = 0.05, lower: float = 0.0, upper: float = 1.0) -> None:
        self._settings = _settings(alpha, lower, upper)
        self._means = np.arange(1, _CANDIDATES) / _CANDIDATES
        self._moments = np.zeros(3)
        self._up, self._down = np.zeros(_CANDIDATES - 1), np.zeros(_CANDIDATES - 1)
        self._alive = np.array([0, _CANDIDATES - 2])

    def update(self, values: np.ndarray | Sequence[float]) -> None:
        """See :class:`ConstantMean`. Raises InputError, and has taken nothing then."""
        alpha, lower, upper = self._settings
        scaled = observations(values, lower, upper)
        kernels.push_hedged(
            scaled, math.log(2.0 / alpha), self._moments, self._means, self._up, self._down,
            self._alive,
        )  # fmt: skip

    def bounds(self) -> Bounds:
        """See :class:`ConstantMean`. Should every candidate be rejected (which has probability at
        most alpha), the bounds meet where the last one was.
        """
        _, lower, upper = self._settings
        rows, total, _ = self._moments.tolist()
        first, last = self._alive.tolist()
        ends = (first / _CANDIDATES, max(first, last + 2) / _CANDIDATES)
        least, most = (lower + (upper - lower) * end for end in ends)
        mean = total / rows if rows else 0.5
        return Bounds(lower + (upper - lower) * mean, least, most, int(rows))

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        arrays = (self._moments, self._up, self._down, self._alive)
        return msgspec.msgpack.encode([list(self._settings), *(a.tolist() for a in arrays)])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        Three = tuple[float, float, float]
        form = tuple[Three, Three, list[float], list[float], tuple[int, int]]
        try:
            settings, moments, up, down, alive = msgspec.msgpack.decode(state, type=form)
            made = cls(*settings)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a betting sequence: {error}") from error
        numbers = np.array([*moments, *up, *down])
        size = len(made._up)
        if len(up) != size or len(down) != size or not np.isfinite(numbers).all():
            raise SnapshotError("a betting sequence's state has a wrong length or number")
        if moments[0] < 0.0 or not 0 <= alive[0] <= alive[1] + 1 <= size:
            raise SnapshotError("a betting sequence's state has a wrong count")
        made._moments, made._alive = np.array(moments), np.array(alive)
        made._up, made._down = np.array(up), np.array(down)
        return made


def _settings(alpha: float, lower: float, upper: float) -> tuple[float, float, float]:
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise InputError(f"the range [{lower!r}, {upper!r}] must be finite, lower < upper")
    return (level(alpha), float(lower), float(upper))
