"""The model catalog: which models (actions) exist, what they cost, what they can do.

A catalog is an immutable value; a change of it (model added, removed, repriced) is a new value and
an event in the training log, so that a policy rebuilt from the log sees it at the same place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from bandit_router.errors import CatalogError

TYPICAL_INPUT_TOKENS = 250.0
TYPICAL_OUTPUT_TOKENS = 350.0


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model (action) and what is known of it before it is ever called.

    Attributes:
        model: the action's id, non-empty.
        usd_per_1m_input / usd_per_1m_output: list prices, USD per million tokens.
        expected_cost_usd: prior mean cost per query in USD; overrides the token prices.
        context_window: tokens, or None when unknown.
        capabilities: e.g. ``tools``, ``vision``, ``json``.
        metadata: free tags (``vendor``, ``family``, ...).
        price_source: where the price was read, for people.
    """

    model: str
    usd_per_1m_input: float | None = None
    usd_per_1m_output: float | None = None
    expected_cost_usd: float | None = None
    context_window: int | None = None
    capabilities: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    price_source: str = ""

    def prior_cost_usd(self) -> float:
        """Cost of a typical query in USD, > 0, from ``expected_cost_usd`` or the list prices.

        Raises:
            CatalogError: the model has no price, or one that is not finite and positive. A model
                without a price never counts as free.
        """
        if self.expected_cost_usd is not None:
            cost = self.expected_cost_usd
        elif self.usd_per_1m_input is not None and self.usd_per_1m_output is not None:
            cost = (
                self.usd_per_1m_input * TYPICAL_INPUT_TOKENS
                + self.usd_per_1m_output * TYPICAL_OUTPUT_TOKENS
            ) / 1e6
        else:
            raise CatalogError(
                f"model {self.model!r} has no price: give expected_cost_usd, or both "
                "usd_per_1m_input and usd_per_1m_output"
            )
        if not (math.isfinite(cost) and cost > 0.0):
            raise CatalogError(f"model {self.model!r}: price {cost!r} must be finite and above 0")
        return float(cost)


class Catalog:
    """An ordered, immutable set of models. Iteration order is the order given.

    Raises:
        CatalogError: a name is empty or given twice, or a model has no usable price.
    """

    __slots__ = ("_by_name", "digest")

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._by_name: dict[str, ModelSpec] = {}
        for spec in specs:
            if not spec.model:
                raise CatalogError("a model in the catalog has an empty name")
            if spec.model in self._by_name:
                raise CatalogError(f"model {spec.model!r} is listed twice in the catalog")
            spec.prior_cost_usd()
            self._by_name[spec.model] = spec
        payload = msgspec.json.encode(list(self._by_name.values()), order="deterministic")
        self.digest: str = hashlib.sha256(payload).hexdigest()[:16]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, model: object) -> bool:
        return model in self._by_name

    def __getitem__(self, model: str) -> ModelSpec:
        try:
            return self._by_name[model]
        except KeyError:
            known = ", ".join(self._by_name) or "none"
            raise CatalogError(f"unknown model {model!r}; the catalog has: {known}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalog) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def names(self) -> tuple[str, ...]:
        """Model ids in catalog order."""
        return tuple(self._by_name)

    def with_model(self, spec: ModelSpec) -> Catalog:
        """A catalog with ``spec`` added at the end, or replacing the model of that name."""
        merged = dict(self._by_name)
        merged[spec.model] = spec
        return Catalog(merged.values())

    def without(self, model: str) -> Catalog:
        """A catalog without ``model``. Raises CatalogError when it is not there."""
        self[model]
        return Catalog(s for s in self if s.model != model)

    def to_builtins(self) -> list[dict[str, Any]]:
        """Plain JSON-able form; inverse of :meth:`from_builtins`."""
        return msgspec.to_builtins(list(self._by_name.values()))

    @classmethod
    def from_builtins(cls, rows: Iterable[Mapping[str, Any]]) -> Catalog:
        """Build from plain mappings. Raises CatalogError on an unknown key or a wrong type."""
        try:
            return cls(msgspec.convert(list(rows), list[ModelSpec]))
        except msgspec.ValidationError as error:
            raise CatalogError(f"model catalog: {error}") from error
