"""Running means of score and cost per model, and the state format the baselines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from bandit_router.errors import CatalogError, DecisionError, SnapshotError
from bandit_router.models import Catalog
from bandit_router.types import Interaction

COST_PSEUDO_COUNT = 5.0
"""How many observed costs the price known beforehand counts for."""


class Tally:
    """Per model: how often it was scored, its mean score and its mean cost.

    Rows follow the catalog. The mean score starts from Beta(1, 1), the mean cost from the price
    known beforehand, which counts for :data:`COST_PSEUDO_COUNT` observations.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = Catalog(())
        self.counts = np.zeros((4, 0))  # scores seen, their sum, costs seen, their sum
        self.set_catalog(catalog)

    def set_catalog(self, catalog: Catalog) -> None:
        """Keep what is known of the models that stay; drop the rest; new ones start empty."""
        counts = np.zeros((4, len(catalog)))
        for row, spec in enumerate(catalog):
            if spec.model in self.catalog:
                counts[:, row] = self.counts[:, self.index[spec.model]]
        self.catalog, self.counts = catalog, counts
        self.index = {name: row for row, name in enumerate(catalog.names)}
        self.price = np.array([spec.prior_cost_usd() for spec in catalog])
        self._rows: dict[tuple[str, ...], np.ndarray] = {}

    def rows(self, eligible: Sequence[str]) -> np.ndarray:
        """Row of each eligible model. Raises DecisionError (none) or CatalogError (unknown)."""
        key = tuple(eligible)
        found = self._rows.get(key)
        if found is None:
            if not key:
                raise DecisionError("no model is eligible")
            for model in key:
                self.catalog[model]
            found = np.array([self.index[model] for model in key], dtype=np.intp)
            if len(self._rows) < 64:
                self._rows[key] = found
        return found

    def add(self, interaction: Interaction) -> None:
        """Count an interaction's score and cost, each when it is known and the model exists."""
        row = self.index.get(interaction.action)
        if row is None or not interaction.learn:
            return
        if interaction.score is not None:
            self.counts[0, row] += 1.0
            self.counts[1, row] += interaction.score
        if interaction.cost_usd is not None:
            self.counts[2, row] += 1.0
            self.counts[3, row] += interaction.cost_usd

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Posterior mean scores, shape (len(rows),), in (0, 1)."""
        seen, total = self.counts[0, rows], self.counts[1, rows]
        return (total + 1.0) / (seen + 2.0)

    def costs_usd(self, rows: np.ndarray) -> np.ndarray:
        """Posterior mean costs in USD, shape (len(rows),), > 0."""
        seen, total = self.counts[2, rows], self.counts[3, rows]
        return (total + COST_PSEUDO_COUNT * self.price[rows]) / (seen + COST_PSEUDO_COUNT)


def pack(kind: str, catalog: Catalog, arrays: Mapping[str, np.ndarray], **extra: Any) -> bytes:
    """State as deterministic bytes: catalog, little-endian float64 arrays, further plain values."""
    body = {
        "kind": kind,
        "catalog": catalog.to_builtins(),
        "arrays": {
            name: [list(array.shape), np.ascontiguousarray(array, "<f8").tobytes()]
            for name, array in arrays.items()
        },
        "extra": extra,
    }
    return msgspec.msgpack.encode(body, order="deterministic")


def unpack(
    kind: str, state: bytes, shapes: Mapping[str, tuple[int | None, ...]]
) -> tuple[Catalog, dict[str, np.ndarray], dict[str, Any]]:
    """What :func:`pack` was given, checked.

    Args:
        shapes: the arrays that must be there; None stands for the number of models.

    Raises:
        SnapshotError: the bytes are no state of this kind, or an array does not fit.
    """
    try:
        body = msgspec.msgpack.decode(state)
        found, rows, extra = body["kind"], body["arrays"], body["extra"]
        catalog = Catalog.from_builtins(body["catalog"])
        arrays = {
            name: np.frombuffer(data, "<f8").reshape(shape).astype(np.float64)
            for name, (shape, data) in rows.items()
        }
    except (msgspec.DecodeError, CatalogError, KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"not a saved state of policy {kind!r}: {error}") from error
    wanted = {
        name: tuple(len(catalog) if d is None else d for d in s) for name, s in shapes.items()
    }
    if found != kind or {name: a.shape for name, a in arrays.items()} != wanted:
        raise SnapshotError(f"a saved state of {found!r} does not fit this policy {kind!r}")
    return catalog, arrays, extra
