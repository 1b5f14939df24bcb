"""Which actions may be drawn: masks, applied before there is a pmf.

A rule removes models for a stated reason; it never changes a probability. What is left is the
support of the pmf, so every propensity stays exact. Each removal is named ``RULE:MODEL`` and logged
with the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol, runtime_checkable

import msgspec

from bandit_router.errors import ConfigError, DecisionError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.types import Context

BYTES_PER_TOKEN = 3.0
"""UTF-8 bytes per token, on the low side (English runs at about 4), so that tokens are
overestimated and a prompt near a context window is kept away from it."""

DEFAULT_OUTPUT_TOKENS = 1024


@runtime_checkable
class Rule(Protocol):
    """One reason to leave a model out."""

    @property
    def name(self) -> str:
        """Short, stable, ``[a-z_]+``; logged with every removal."""
        ...

    def excludes(self, context: Context, spec: ModelSpec) -> bool:
        """Whether ``spec`` must not serve ``context``."""
        ...


class AllowList(msgspec.Struct, frozen=True):
    """Only these models, for everybody or for one tenant."""

    models: frozenset[str]
    tenant: str | None = None
    name: str = "allow_list"

    def excludes(self, context: Context, spec: ModelSpec) -> bool:
        """True for a model that is not on the list."""
        applies = self.tenant is None or self.tenant == context.tenant
        return applies and spec.model not in self.models


class DenyList(msgspec.Struct, frozen=True):
    """Never these models, for everybody or for one tenant."""

    models: frozenset[str]
    tenant: str | None = None
    name: str = "deny_list"

    def excludes(self, context: Context, spec: ModelSpec) -> bool:
        """True for a model that is on the list."""
        applies = self.tenant is None or self.tenant == context.tenant
        return applies and spec.model in self.models


class Capabilities(msgspec.Struct, frozen=True):
    """A request that needs ``tools`` or ``vision`` goes to models that have it.

    The needed capabilities stand in the context column ``column``, separated by commas.
    """

    column: str = "requires"
    name: str = "capability"

    def excludes(self, context: Context, spec: ModelSpec) -> bool:
        """True when one of the needed capabilities is missing."""
        needed = context.columns.get(self.column, "")
        wanted = (part.strip() for part in needed.split(","))
        return any(part and part not in spec.capabilities for part in wanted)


class ContextWindow(msgspec.Struct, frozen=True):
    """Prompt and requested output must fit; a model whose window is unknown is kept."""

    bytes_per_token: float = BYTES_PER_TOKEN
    default_output_tokens: int = DEFAULT_OUTPUT_TOKENS
    name: str = "context_window"

    def __post_init__(self) -> None:
        if not self.bytes_per_token > 0.0:
            raise ConfigError(f"bytes_per_token {self.bytes_per_token!r} must be above 0")

    def excludes(self, context: Context, spec: ModelSpec) -> bool:
        """True when the estimated tokens exceed the model's window."""
        if spec.context_window is None:
            return False
        return self.tokens(context) > spec.context_window

    def tokens(self, context: Context) -> float:
        """Estimated prompt tokens plus the output tokens asked for."""
        prompt = context.prompt
        size = len(prompt) if prompt.isascii() else len(prompt.encode("utf-8", "surrogatepass"))
        output = context.max_output_tokens
        return size / self.bytes_per_token + (
            self.default_output_tokens if output is None else output
        )


class OpenBreakers:
    """Models whose circuit breaker is open; ``open_models`` is asked at every decision."""

    name = "breaker"

    def __init__(self, open_models: Callable[[], Collection[str]]) -> None:
        self._open_models = open_models

    def excludes(self, context: Context, spec: ModelSpec) -> bool:  # noqa: ARG002 - one signature
        """True while the model's breaker is open."""
        return spec.model in self._open_models()


class Eligibility:
    """An ordered set of rules. Without rules every model of the catalog is eligible."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def of(self, context: Context, catalog: Catalog) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Eligible models in catalog order, and the name of every rule that fired.

        Raises:
            DecisionError: no model is left; the message names the rules.
        """
        eligible: list[str] = []
        fired: list[str] = []
        for spec in catalog:
            reasons = [rule.name for rule in self._rules if rule.excludes(context, spec)]
            if reasons:
                fired.extend(f"{reason}:{spec.model}" for reason in reasons)
            else:
                eligible.append(spec.model)
        if not eligible:
            raise DecisionError(
                f"no model is eligible; rules that fired: {', '.join(fired) or 'none'}"
                if len(catalog)
                else "no model is eligible: the catalog is empty"
            )
        return tuple(eligible), tuple(fired)
