"""The four ways to serve a request, and what is logged for each.

A decision is the record of its exposure: it carries the unit and the variant that it was served in,
and there is no second event that could say otherwise. The first exposure of a unit is its first
decision in that variant. A request whose model the caller pins exposes nobody: its variant had no
part in what was served.

- ``static``: the incumbent serves. Nothing is drawn: slice ``forced``, propensity 1.
- ``shadow``: the incumbent serves, and the bandit is asked too. What served has propensity 1, slice
  ``forced`` and ``learn = False``, so neither learning nor off-policy evaluation takes it for a
  draw. ``eligible`` and ``pmf`` are what the bandit would have drawn from, and the rule
  ``shadow:MODEL`` says what it would have drawn.
- ``bandit``: the bandit draws.
- ``explore``: the uniform holdout. Each eligible model is equally likely, which is logged as such,
  and learned from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
import numpy as np

from bandit_router.types import Decision, Evaluation

Variant = Literal["bandit", "shadow", "static", "explore"]

VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""In the order of their buckets: the bandit grows upwards, out of what the incumbent serves."""

_SHADOW, _PIN = "shadow:", "pin:"


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was assigned to.

    Attributes:
        unit_id: who was bucketed; it is what the decision logs.
        incumbent: the model that serves ``static`` and ``shadow``, unless it is not eligible.
        rules: what else there is to say of the assignment, logged with the decision.
    """

    unit_id: str
    variant: Variant
    incumbent: str
    rules: tuple[str, ...] = ()


def uniform(evaluation: Evaluation) -> Evaluation:
    """``evaluation`` with the pmf of the holdout: 1/K each, which is epsilon = 1."""
    k = len(evaluation.pmf)
    return msgspec.structs.replace(evaluation, pmf=np.full(k, 1.0 / k), epsilon=1.0)


def pin_rule(model: str) -> str:
    """The rule of a decision whose model was pinned."""
    return _PIN + model


def is_pinned(rules: Iterable[str]) -> bool:
    """Whether the caller pinned the model, by the rules of a decision."""
    return any(rule.startswith(_PIN) for rule in rules)


def shadow_rule(model: str) -> str:
    """The rule that says what the bandit would have drawn."""
    return _SHADOW + model


def would_be(decision: Decision) -> str | None:
    """What the bandit would have drawn, where it was only asked; else None."""
    drawn = (rule.removeprefix(_SHADOW) for rule in decision.rules if rule.startswith(_SHADOW))
    return next(drawn, None) if decision.variant == "shadow" else None
