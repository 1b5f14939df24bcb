"""Who runs in `bench quality`: the default policy, the baselines, and variants of the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FeatureKind = Literal["shipped", "none", "task", "first-200", "paretobandit"]


@dataclass(frozen=True)
class Entrant:
    """A policy under a name of its own.

    Attributes:
        name: in the tables.
        policy: name in the policy registry.
        options: of that policy.
        features: ``shipped`` (the default featurizer), ``none`` (nothing of the query), ``task``
            (shipped, and the context column ``task``), ``first-200`` (the projection fitted on
            the stream's first 200 prompts, known beforehand), ``paretobandit`` (its own).
        warm: learns the warm-start folds first, with every model's outcome.
    """

    name: str
    policy: str = "bandit"
    options: tuple[tuple[str, Any], ...] = ()
    features: FeatureKind = "shipped"
    warm: bool = False


OURS = Entrant("bandit")
PARETO = Entrant("paretobandit", policy="paretobandit", features="paretobandit")
BASELINES = (
    *(Entrant(name, policy=name) for name in ("vw-epsilon", "vw-squarecb", "linucb", "thompson")),
    PARETO,
    *(Entrant(name, policy=name) for name in ("uniform", "cheapest", "strongest")),
)
WARM = Entrant("bandit-warm", warm=True)
VARIANTS = (  # the featurizer or an option changed, nothing else
    Entrant("bandit-no-vw", options=(("vowpal", False),)),
    Entrant("bandit-no-context", features="none"),
    Entrant("bandit-task", features="task"),
    Entrant("bandit-own-pca", features="first-200"),
    WARM,
)
BEST_FIXED = "best fixed"
"""The single model with the largest mean reward in hindsight; computed, not run."""

QUICK = ("bandit", "vw-squarecb", "linucb", "thompson", "paretobandit", "bandit-no-vw")


def entrants(*, quick: bool) -> tuple[Entrant, ...]:
    """Everyone, or the few of a quick run."""
    everyone = (OURS, *BASELINES, *VARIANTS)
    return tuple(e for e in everyone if not quick or e.name in QUICK)
