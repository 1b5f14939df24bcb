"""A measured number with the target it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number; None when it could not be measured, and ``note`` says why.
        unit: of the value, the spread and the target.
        low, high: smallest and largest of the repeats, when there were any.
        at_most, at_least: the target, when there is one.
        note: how it was measured.
    """

    name: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value meets its target; None without a target."""
        if self.at_most is None and self.at_least is None:
            return None
        if self.value is None:
            return False
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def verdict(self) -> str:
        """``ok``, ``missed``, ``not measured``, or nothing where there is no target."""
        if self.value is None:
            return "not measured"
        return {True: "ok", False: "missed", None: ""}[self.met]

    def to_builtins(self) -> dict[str, Any]:
        """Plain JSON-able form, the verdict included."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "min": self.low,
            "max": self.high,
            "at_most": self.at_most,
            "at_least": self.at_least,
            "verdict": self.verdict,
            "note": self.note,
        }


def median_figure(name: str, repeats: Sequence[float], unit: str, **more: Any) -> Figure:
    """The median of at least one repeat, with the smallest and the largest."""
    return Figure(
        name,
        float(np.median(repeats)),
        unit,
        low=float(min(repeats)),
        high=float(max(repeats)),
        **more,
    )


def skipped(name: str, unit: str, reason: str, **more: Any) -> Figure:
    """A figure that could not be measured."""
    return Figure(name, None, unit, note=reason, **more)
