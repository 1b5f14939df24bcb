"""Targets whose probabilities are known without asking a policy row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bandit_router.errors import InputError
from bandit_router.ope.logged import Logged


class Target(Protocol):
    """What is to be evaluated: a distribution over models for every logged query.

    Attributes:
        name: for people and JSON.
    """

    name: str

    def probabilities(self, log: Logged) -> np.ndarray:
        """Shape (n, K); rows sum to 1; 0 where a model was not eligible."""
        ...


@dataclass(frozen=True)
class Preferred:
    """Always the first eligible model of an order.

    ``fixed:MODEL`` is that model before the others by price; ``cheapest`` and ``strongest`` are
    the models by price, ascending and descending.
    """

    name: str
    order: tuple[str, ...]

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`Target`. Raises InputError when a row has no model of the order."""
        column = {model: k for k, model in enumerate(log.models)}
        result, left = np.zeros(log.pmf.shape), np.ones(len(log), dtype=bool)
        for model in self.order:
            if not left.any():
                return result
            if model in column:
                takes = left & log.eligible[:, column[model]]
                result[takes, column[model]] = 1.0
                left &= ~takes
        if left.any():
            row = int(log.position[np.flatnonzero(left)[0]])
            raise InputError(
                f"{self.name}: interaction {row} has no eligible model that has a price; give a "
                "price list with every model of the log"
            )
        return result


@dataclass(frozen=True)
class Mixed:
    """A random choice between targets, drawn anew for every query; the shares sum to 1."""

    name: str
    parts: tuple[tuple[float, Target], ...]

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`Target`."""
        result = np.zeros(log.pmf.shape)
        for share, target in self.parts:
            result += share * target.probabilities(log)
        return result


@dataclass(frozen=True)
class Uniform:
    """Every eligible model alike."""

    name: str = "uniform"

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`Target`."""
        return log.eligible / log.eligible.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class AsLogged:
    """The policy that logged: every weight is 1, and the estimates are plain means."""

    name: str = "logging"

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`Target`."""
        return log.pmf


def fixed(model: str, by_price: Sequence[str]) -> Preferred:
    """``fixed:MODEL``; where the model is not eligible, the cheapest that is.

    Args:
        by_price: all models, cheapest first.
    """
    return Preferred(f"fixed:{model}", (model, *(m for m in by_price if m != model)))
