"""Rows for a confidence sequence, checked as a whole before any of them is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bandit_router.errors import InputError

_PMF_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Rows:
    """Checked rows, rewards and predictions scaled to [0, 1]; shapes (n,), (n,) and (n, K)."""

    rewards: np.ndarray
    actions: np.ndarray
    pmf: np.ndarray
    contrast: np.ndarray
    base: np.ndarray
    floor: np.ndarray

    @classmethod
    def checked(
        cls,
        rewards: np.ndarray | Sequence[float],
        actions: np.ndarray | Sequence[int],
        pmf: np.ndarray,
        contrast: np.ndarray,
        predicted: np.ndarray | None,
        least: np.ndarray | None,
        *,
        size: int,
        lower: float,
        upper: float,
    ) -> Self:
        """Rows of ``size`` actions with rewards in [lower, upper].

        Raises:
            InputError: see :meth:`bandit_router.ope.sequences.ContrastSequence.update`.
        """
        given = _numbers("rewards", rewards)
        if given.ndim != 1:
            raise InputError(f"rewards must have shape (n,), not {given.shape}")
        shape = (len(given), size)
        _refuse(~((given >= lower) & (given <= upper)), f"reward outside [{lower:g}, {upper:g}]")
        drawn = np.asarray(actions)
        if drawn.shape != given.shape or not (len(given) == 0 or drawn.dtype.kind in "iu"):
            raise InputError(f"actions must be {len(given)} whole numbers, one for each reward")
        _refuse((drawn < 0) | (drawn >= size), f"action outside 0..{size - 1}")
        chances = _table("pmf", pmf, shape)
        _refuse(((chances < 0.0) | (chances > 1.0)).any(axis=1), "pmf outside [0, 1]")
        _refuse(np.abs(chances.sum(axis=1) - 1.0) > _PMF_TOLERANCE, "pmf that does not sum to 1")
        drawn = drawn.astype(np.int64)
        own = chances[np.arange(len(drawn)), drawn]
        _refuse(own <= 0.0, "drawn action with propensity 0")
        masses = _table("contrast", contrast, shape)
        _refuse(((masses != 0.0) & (chances <= 0.0)).any(axis=1), _NO_SUPPORT)
        span, floor, base = upper - lower, np.zeros(shape), np.full(shape, 0.5)
        if predicted is not None:
            base = (_table("predicted", predicted, shape) - lower) / span
        if least is not None:
            floor = (_table("least", least, shape) - lower) / span
            _refuse(((floor < 0.0) | (floor > 1.0)).any(axis=1), "least reward outside the range")
        scaled = (given - lower) / span
        _refuse(scaled < floor[np.arange(len(drawn)), drawn], "reward below its action's least")
        return cls(scaled, drawn, chances, masses, base, floor)

    def part(self, start: int, stop: int) -> Self:
        """Rows [start, stop)."""
        arrays = (self.rewards, self.actions, self.pmf, self.contrast, self.base, self.floor)
        return type(self)(*(array[start:stop] for array in arrays))


_NO_SUPPORT = "contrast with mass on an action of propensity 0 (no estimate exists for it)"


def _numbers(what: str, values: np.ndarray | Sequence[float]) -> np.ndarray:
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: not an array of numbers: {error}") from error
    wrong = ~np.isfinite(array)
    _refuse(wrong.any(axis=tuple(range(1, array.ndim))), f"{what} not finite")
    return array


def _table(what: str, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An array of that shape; one row of it stands for all."""
    array = _numbers(what, values)
    if array.shape not in (shape, shape[1:]):
        raise InputError(f"{what} must have shape {shape} or {shape[1:]}, not {array.shape}")
    return np.ascontiguousarray(np.broadcast_to(array, shape))


def _refuse(wrong: np.ndarray, complaint: str) -> None:
    if wrong.any():
        where = f"row {int(np.argmax(wrong))}: " if wrong.ndim else ""
        raise InputError(f"{where}{complaint}; nothing was taken")


def terms(values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Finite numbers, shape (n,).

    Raises:
        InputError: one is not finite, or the shape is another.
    """
    given = _numbers("values", values)
    if given.ndim != 1:
        raise InputError(f"values must have shape (n,), not {given.shape}")
    return given


def observations(values: np.ndarray | Sequence[float], lower: float, upper: float) -> np.ndarray:
    """Observations in [lower, upper], scaled to [0, 1], shape (n,).

    Raises:
        InputError: one is not a number or outside the range, or the shape is another.
    """
    given = terms(values)
    _refuse(~((given >= lower) & (given <= upper)), f"value outside [{lower:g}, {upper:g}]")
    return (given - lower) / (upper - lower)
