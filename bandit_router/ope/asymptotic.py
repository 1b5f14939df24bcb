"""Asymptotic confidence sequences, for logs so long that a normal approximation is meant.

Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", Annals of Statistics 52(6), 2024: with the mean m_t and the standard
deviation s_t of the first t terms,

    m_t +- s_t sqrt( 2 (t rho^2 + 1) / (t^2 rho^2) * log( sqrt(t rho^2 + 1) / alpha ) )

covers the running mean of the terms' conditional means at all times t >= m at once, with a
probability that tends to 1 - alpha as m grows, when the terms have 2 + delta moments and their mean
variance settles (their Lyapunov-type conditions). It needs no range and no bets, and says nothing
of early rows: with importance weights of 1/epsilon, "early" lasts for many multiples of 1/epsilon
rows. Where a bound must hold as stated, use
:class:`~bandit_router.ope.sequences.ContrastSequence`.
"""

from __future__ import annotations

import math
from typing import Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope.sequence_rows import terms as checked
from bandit_router.ope.sequences import Bounds, ContrastSequence, level

_MIN_ROWS = 2.0


def asymptotic_radius(rows: float, alpha: float, horizon: float) -> float:
    """Half the width in units of the terms' standard deviation, after ``rows`` rows.

    Args:
        rows: > 0.
        alpha: two-sided level, in (0, 1).
        horizon: rows after which it is to be tightest, > 0 (their equation for rho).
    """
    twice = -2.0 * math.log(level(alpha))
    rho2 = (twice + math.log1p(twice)) / horizon
    inner = rows * rho2 + 1.0
    return math.sqrt(2.0 * inner / (rows**2 * rho2) * math.log(math.sqrt(inner) / alpha))


def asymptotic_bounds(
    sequence: ContrastSequence, alpha: float = 0.05, horizon: float = 10_000.0
) -> Bounds:
    """Asymptotic bounds from the pseudo-outcomes of a sequence; infinite before two rows.

    Under drift of the mean the sample variance is too large by the variance of the means, so the
    bounds are the wider for it.

    Raises:
        InputError: the level or the horizon is none.
    """
    if not 0.0 < horizon < math.inf:
        raise InputError(f"the horizon {horizon!r} must be above 0")
    rows = sequence.rows
    if rows < _MIN_ROWS:
        return Bounds(sequence.estimate, -math.inf, math.inf, rows)
    deviation = sequence.standard_error * math.sqrt(rows)
    radius = deviation * asymptotic_radius(rows, alpha, horizon)
    return Bounds(sequence.estimate, sequence.estimate - radius, sequence.estimate + radius, rows)


class AsymptoticSequence:
    """Mean and asymptotic bounds of any terms: outcomes, or doubly robust pseudo-outcomes.

    Terms must have their meaning row by row: a pseudo-outcome must be unbiased given the past.
    O(1) per row; merging is exact up to rounding.

    Args:
        horizon: rows after which the bounds are to be tightest.

    Raises:
        InputError: the horizon is not above 0.
    """

    def __init__(self, horizon: float = 10_000.0) -> None:
        if not 0.0 < horizon < math.inf:
            raise InputError(f"the horizon {horizon!r} must be above 0")
        self._horizon = float(horizon)
        self._state = (0.0, 0.0, 0.0)  # rows, mean, sum of squares about the mean

    def update(self, terms: np.ndarray) -> None:
        """Take terms, shape (n,). Raises InputError, and has taken nothing then."""
        given = checked(terms)
        if len(given):
            mean = float(given.mean())
            part = (float(len(given)), mean, float(((given - mean) ** 2).sum()))
            self._state = _pooled(self._state, part)

    def bounds(self, alpha: float = 0.05) -> Bounds:
        """Two-sided asymptotic bounds; infinite before two rows. Raises InputError."""
        rows, mean, squares = self._state
        if rows < _MIN_ROWS:
            return Bounds(mean, -math.inf, math.inf, int(rows))
        deviation = math.sqrt(squares / (rows - 1.0))
        radius = deviation * asymptotic_radius(rows, alpha, self._horizon)
        return Bounds(mean, mean - radius, mean + radius, int(rows))

    def merge(self, other: Self) -> None:
        """Add the terms of another sequence. Raises InputError when its horizon differs."""
        if other._horizon != self._horizon:
            raise InputError("only sequences with the same horizon can be merged")
        self._state = _pooled(self._state, other._state)

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        return msgspec.msgpack.encode([self._horizon, *self._state])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            form = tuple[float, float, float, float]
            horizon, *moments = msgspec.msgpack.decode(state, type=form)
            made = cls(horizon)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a sequence: {error}") from error
        rows, mean, squares = moments
        if not (math.isfinite(mean) and 0.0 <= rows < math.inf and 0.0 <= squares < math.inf):
            raise SnapshotError("an asymptotic sequence's state has a wrong number")
        made._state = (rows, mean, squares)
        return made


_Moments = tuple[float, float, float]


def _pooled(one: _Moments, other: _Moments) -> _Moments:
    """Rows, mean and squares of both together (Chan, Golub and LeVeque 1983)."""
    rows = one[0] + other[0]
    if rows == 0.0:
        return one
    apart = other[1] - one[1]
    mean = one[1] + apart * other[0] / rows
    return (rows, mean, one[2] + other[2] + apart * apart * one[0] * other[0] / rows)
