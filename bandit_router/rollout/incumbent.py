"""What served before: a fixed model, or one by the value of a context column."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bandit_router.types import Context


class IncumbentRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests whose context column ``column`` is ``equals`` go to ``model``."""

    column: str
    equals: str
    model: str


class Incumbent:
    """The first rule that fits, else ``model``."""

    def __init__(self, model: str, rules: Sequence[IncumbentRule] = ()) -> None:
        self._model, self._rules = model, tuple(rules)

    def of(self, context: Context) -> str:
        """The model that would have served this request."""
        for rule in self._rules:
            if context.columns.get(rule.column) == rule.equals:
                return rule.model
        return self._model
