# ruff: noqa: ANN001, ANN202 -- numba infers the kernel's types; its docstring gives the shapes
"""Sums of float64 without any rounding, so that parts of a log add up to the whole in every bit.

A superaccumulator (Neal 2015, "Fast exact summation using small and large superaccumulators",
arXiv:1505.05571): a fixed-point number wide enough for every float64, held as limbs of 32 bits in
int64. Adding is integer addition, so neither the order of the terms nor how they are divided among
processes changes the sum, and it is rounded once, when it is read.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numba import njit

from bandit_router.errors import InputError

_LIMBS = 70
"""Bits of all finite float64 (2,098) and of 2**100 of them, in limbs of 32, and a sign."""

_ADDS_BEFORE_CARRY = 1 << 28
"""A limb takes less than 2**33 from one term, so int64 holds 2**30 of them."""


@njit(cache=True, nogil=True)
def _add(limbs, groups, bits):
    """limbs (G, q, L) += terms; groups (n,) in [0, G); bits (n, q), float64 seen as int64."""
    mask = np.int64(0xFFFFFFFF)
    for i in range(bits.shape[0]):
        row = limbs[groups[i]]
        for j in range(bits.shape[1]):
            word = bits[i, j]
            exponent = (word >> 52) & 0x7FF
            mantissa = word & np.int64(0xFFFFFFFFFFFFF)
            if exponent == 0:
                if mantissa == 0:
                    continue
                exponent = 1
            else:
                mantissa |= np.int64(1) << 52
            shift = exponent - 1
            limb, offset = shift >> 5, shift & 31
            low = (mantissa & mask) << offset
            high = (mantissa >> 32) << offset
            first, second, third = low & mask, (low >> 32) + (high & mask), high >> 32
            if word < 0:
                first, second, third = -first, -second, -third
            row[j, limb] += first
            row[j, limb + 1] += second
            row[j, limb + 2] += third


@njit(cache=True, nogil=True)
def _carry(limbs):
    """Bring every limb but the last of each number into [0, 2**32): the one form of a value."""
    for g in range(limbs.shape[0]):
        for j in range(limbs.shape[1]):
            for k in range(limbs.shape[2] - 1):
                over = limbs[g, j, k] >> 32
                limbs[g, j, k] -= over << 32
                limbs[g, j, k + 1] += over


class ExactSums:
    """``groups`` x ``columns`` sums, each exact.

    Two objects that took the same terms, in whatever order and parts, are equal.
    """

    __slots__ = ("_limbs", "_since_carry")

    def __init__(self, columns: int, groups: int = 1) -> None:
        self._limbs = np.zeros((groups, columns, _LIMBS), dtype=np.int64)
        self._since_carry = 0

    def add(self, terms: np.ndarray, groups: np.ndarray | None = None) -> None:
        """Add each row of ``terms``, shape (n, columns), to the sums of its group (default 0).

        Raises:
            InputError: a term is not finite; nothing was added.
        """
        values = np.ascontiguousarray(terms, dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise InputError(f"term {row} of a sum is not finite: {values[row].tolist()}")
        places = np.zeros(len(values), np.int64) if groups is None else groups.astype(np.int64)
        if len(values) > _ADDS_BEFORE_CARRY - self._since_carry:
            _carry(self._limbs)
            self._since_carry = 0
        _add(self._limbs, places, values.view(np.int64))
        self._since_carry += len(values)

    def __add__(self, other: ExactSums) -> Self:
        result = object.__new__(type(self))
        result._limbs = self._settled() + other._settled()
        result._since_carry = 2
        return result

    def __sub__(self, other: ExactSums) -> Self:
        result = object.__new__(type(self))
        result._limbs = self._settled() - other._settled()
        result._since_carry = 2
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExactSums) and np.array_equal(self._settled(), other._settled())

    __hash__ = None

    def total(self) -> ExactSums:
        """The sums over all groups, as one group."""
        result = ExactSums(self._limbs.shape[1])
        result._limbs = self._settled().sum(axis=0, keepdims=True)
        result._since_carry = len(self._limbs)
        return result

    def part(self, groups: slice) -> ExactSums:
        """Those of some groups, on their own."""
        result = ExactSums(0)
        result._limbs, result._since_carry = self._settled()[groups].copy(), 1
        return result

    def values(self) -> np.ndarray:
        """Every sum rounded once to the nearest float64, shape (groups, columns)."""
        limbs = self._settled()
        flat = limbs.reshape(-1, _LIMBS)
        low = flat[:, :-1].astype("<u4").tobytes()  # settled limbs are 32 bits; the last has a sign
        size = 4 * (_LIMBS - 1)
        rounded = [
            (int.from_bytes(low[i * size : (i + 1) * size], "little") + (int(top) << (8 * size)))
            / (1 << 1074)
            for i, top in enumerate(flat[:, -1])
        ]
        return np.array(rounded).reshape(limbs.shape[:2])

    def _settled(self) -> np.ndarray:
        if self._since_carry:
            _carry(self._limbs)
            self._since_carry = 0
        return self._limbs
