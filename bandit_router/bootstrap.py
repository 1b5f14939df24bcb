"""The one place that builds things: from names and settings to objects that work together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bandit_router.errors import ConfigError, UnknownPolicyError
from bandit_router.features.featurizer import Embedder, Featurizer
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy

if TYPE_CHECKING:
    from bandit_router.adapters.kafka.client import Connection
    from bandit_router.config import EventsSection, FeaturesSection

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


def _paretobandit() -> PolicyFactory:
    from bandit_router.adapters.pareto import ParetoBandit

    return ParetoBandit


def _bandit() -> PolicyFactory:
    from bandit_router.adapters.vowpal_residual import VowpalResidual
    from bandit_router.drift import DriftMonitor
    from bandit_router.policy.bandit import BanditPolicy
    from bandit_router.quality.burden import Burden, BurdenConfig
    from bandit_router.quality.mixture import Mixture, MixtureConfig
    from bandit_router.quality.scores import ScoreConfig

    def make(
        catalog: Catalog,
        *,
        dimension: int,
        seed: int = 0,
        epsilon: float = 0.02,
        exploration_cost: float = 0.001,
        vowpal: bool = True,
        drift: bool = True,
        usd_per_second: float = 0.0,
        usd_per_escalation: float = 0.0,
        forgetting: float | None = None,
    ) -> Policy:
        score = ScoreConfig()
        if forgetting is not None:
            score = ScoreConfig(
                experts=tuple((v, r if r == 1.0 else 1.0 - forgetting) for v, r in score.experts)
            )
        outcomes = Mixture(
            catalog,
            dimension=dimension,
            seed=seed,
            config=MixtureConfig(score=score),
            residual=VowpalResidual() if vowpal else None,
        )
        return BanditPolicy(
            outcomes,
            epsilon=epsilon,
            exploration_cost=exploration_cost,
            drift=DriftMonitor() if drift else None,
            burden=Burden(
                BurdenConfig(usd_per_second=usd_per_second, usd_per_escalation=usd_per_escalation)
            ),
        )

    return make


POLICIES: Mapping[str, Callable[[], PolicyFactory]] = {
    "bandit": _bandit,
    "vw-epsilon": _vowpal("VowpalEpsilon"),
    "vw-squarecb": _vowpal("VowpalSquareCb"),
    "linucb": _baseline("LinUcb"),
    "thompson": _baseline("Thompson"),
    "uniform": _baseline("Uniform"),
    "cheapest": _baseline("Cheapest"),
    "strongest": _baseline("Strongest"),
    "paretobandit": _paretobandit,
}
"""Policy name to what imports its factory; nothing is imported before it is asked for."""

FIXED = "fixed:"

_GIVEN = frozenset({"catalog", "dimension", "seed", "model"})
"""Arguments of policies that are no options: the recipe has them elsewhere."""


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


def policy_options(name: str) -> frozenset[str]:
    """The names of the further arguments that the policy of that name takes.

    Raises:
        UnknownPolicyError: no policy has that name.
        DependencyError: the policy needs a package that is not installed.
    """
    check_policy_name(name)
    factory = _baseline("Fixed")() if name.startswith(FIXED) else POLICIES[name]()
    return frozenset(inspect.signature(factory).parameters) - _GIVEN


def make_featurizer(settings: FeaturesSection | None = None, *, embed: bool = True) -> Featurizer:
    """The featurizer of the settings; None for the defaults.

    Args:
        settings: the section [features] of the configuration.
        embed: False where every context brings its embedding; the encoder is not loaded then.

    Raises:
        ConfigError: the settings ask for another encoder than the projection was fitted on, or
            for more components than it has.
        DependencyError: a shipped artefact is missing or damaged.
    """
    from bandit_router.adapters.artefacts import load_projection

    embedder: Embedder | None = None
    if embed:
        from bandit_router.adapters.embedding import make_embedder

        embedder = (
            make_embedder()
            if settings is None
            else make_embedder(
                settings.embedder, threads=settings.threads, cache_entries=settings.cache_entries
            )
        )
    chosen = {} if settings is None else {"components": settings.components}
    return Featurizer(*load_projection(), embedder, **chosen)


def make_connection(settings: EventsSection) -> Connection:
    """How the section [events] reaches Kafka; TLS and SASL by kafka-python's names."""
    from bandit_router.adapters.kafka.client import Connection

    password = settings.sasl_password
    security = {
        "security_protocol": settings.security_protocol,
        "ssl_cafile": settings.ssl_cafile and str(settings.ssl_cafile),
        "ssl_certfile": settings.ssl_certfile and str(settings.ssl_certfile),
        "ssl_keyfile": settings.ssl_keyfile and str(settings.ssl_keyfile),
        "ssl_check_hostname": settings.ssl_check_hostname,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password and password.get_secret_value(),
    }
    return Connection(
        bootstrap_servers=settings.bootstrap_servers,
        prefix=settings.prefix,
        partitions=settings.partitions,
        security={key: value for key, value in security.items() if value is not None},
    )
