"""The one place that builds things: from names and settings to objects that work together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandit_router.errors import ConfigError, UnknownPolicyError
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy

PolicyFactory = Callable[..., Policy]
"""Called with ``(catalog, *, dimension, seed, **options)``."""


def _baseline(class_name: str) -> Callable[[], PolicyFactory]:
    def load() -> PolicyFactory:
        from bandit_router.policy import baselines

        return getattr(baselines, class_name)

    return load


def _vowpal(class_name: str) -> Callable[[], PolicyFactory]:
    def load() -> PolicyFactory:
        from bandit_router.adapters import vowpal_native

        return getattr(vowpal_native, class_name)

    return load


POLICIES: Mapping[str, Callable[[], PolicyFactory]] = {
    "vw-epsilon": _vowpal("VowpalEpsilon"),
    "vw-squarecb": _vowpal("VowpalSquareCb"),
    "linucb": _baseline("LinUcb"),
    "thompson": _baseline("Thompson"),
    "uniform": _baseline("Uniform"),
    "cheapest": _baseline("Cheapest"),
    "strongest": _baseline("Strongest"),
}
"""Policy name to what imports its factory; nothing is imported before it is asked for."""

FIXED = "fixed:"


def check_policy_name(name: str) -> None:
    """Raise UnknownPolicyError unless :func:`make_policy` knows ``name``."""
    if name not in POLICIES and not (name.startswith(FIXED) and len(name) > len(FIXED)):
        known = ", ".join([*POLICIES, "fixed:MODEL"])
        raise UnknownPolicyError(f"unknown policy {name!r}; there are: {known}")


def make_policy(
    name: str, catalog: Catalog, *, dimension: int, seed: int = 0, **options: Any
) -> Policy:
    """The policy of that name over the models of ``catalog``.

    Args:
        name: a key of :data:`POLICIES`, or ``fixed:MODEL``.
        catalog: models and prices.
        dimension: length of ``Features.dense``.
        seed: of the policy's own randomness.
        options: further arguments of that policy.

    Raises:
        UnknownPolicyError: no policy has that name.
        CatalogError: ``fixed:MODEL`` names a model that the catalog lacks.
        ConfigError: the policy does not take these options, or not their values.
        DependencyError: the policy needs a package that is not installed.
    """
    check_policy_name(name)
    if name.startswith(FIXED):
        factory, options = _baseline("Fixed")(), {**options, "model": name[len(FIXED) :]}
    else:
        factory = POLICIES[name]()
    try:
        return factory(catalog, dimension=dimension, seed=seed, **options)
    except TypeError as error:
        raise ConfigError(f"policy {name!r}: {error}") from error
