"""The seam between a policy and what it has learned of scores and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from bandit_router.models import Catalog
from bandit_router.types import Features


class Belief(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a model of outcomes believes of one query, aligned with the models asked for, (K,).

    Attributes:
        preference: share of the traffic that each model has earned: its utility and what its
            answer would tell of which model is best; non-negative, sums to 1. Not yet a pmf to
            sample from: the policy adds its floor.
        score: posterior mean score, in (0, 1).
        cost_usd: expected cost in USD, > 0.
    """

    preference: np.ndarray
    score: np.ndarray
    cost_usd: np.ndarray


class OutcomeModel(Protocol):
    """Learns score and cost apart, so that prices and quality values take effect at once."""

    def evaluate(
        self,
        features: Features,
        models: Sequence[str],
        quality_value_usd: float,
        penalty: np.ndarray | None = None,
    ) -> Belief:
        """Belief about ``models`` for one query. Changes nothing.

        ``penalty``, shape (K,), is taken off each utility, in units of score.

        Raises:
            CatalogError: a model is not in the catalog.
        """
        ...

    def learn(
        self, features: Features, model: str, score: float | None, cost_usd: float | None
    ) -> float | None:
        """Take one outcome, ``None`` for what is not known; the score that was expected of it."""
        ...

    def set_catalog(self, catalog: Catalog) -> None:
        """Models added, removed or repriced. What is known of the others stays."""
        ...

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        ...

    def load(self, state: bytes) -> None:
        """Inverse of ``dump``. Raises SnapshotError."""
        ...


class ResidualExpert(Protocol):
    """An expert for sparse context that learns what the shared model leaves over, in log-odds."""

    def residuals(self, features: Features, models: Sequence[str]) -> np.ndarray:
        """Correction to the shared model's log-odds for each model, shape (K,). Finite."""
        ...

    def doubts(self, features: Features, models: Sequence[str]) -> np.ndarray:
        """Variance of each correction, shape (K,), >= 0: what exploring this context could tell."""
        ...

    def learn(
        self, features: Features, model: str, score: float, weight: float, base: float
    ) -> float:
        """One step towards ``score`` in [0, 1], from log-odds ``base``; the correction before."""
        ...

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        ...

    def load(self, state: bytes) -> None:
        """Inverse of ``dump``. Raises SnapshotError."""
        ...
