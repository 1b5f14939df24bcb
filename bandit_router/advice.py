"""A decision for one text with everything that went into it: what `bandit-router route` prints.

An :class:`Advisor` logs and learns nothing; :func:`advice_on` says the same of a logged decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bootstrap import make_featurizer
from bandit_router.budget import BudgetPacer
from bandit_router.config import Settings
from bandit_router.errors import InputError
from bandit_router.features.featurizer import Featurizer
from bandit_router.learner import Learner
from bandit_router.live import configured_policy, recipe_of
from bandit_router.loop import MemorySink
from bandit_router.router import Router
from bandit_router.store_ops import SALT, drawn_by, fresh_loop, newest_snapshot
from bandit_router.types import Context, Decision


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One eligible model as the policy saw it; score and utility in units of score."""

    model: str
    score: float
    cost_usd: float
    utility: float
    probability: float


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and its reasons.

    Attributes:
        decision: as it would be logged.
        offers: every eligible model, in catalog order.
        drawn_by: what drew the model, in words.
        why: how its utility compares, in words.
    """

    decision: Decision
    offers: tuple[Offer, ...]
    drawn_by: str
    why: str


@dataclass(frozen=True)
class Advisor:
    """Decides texts with one policy state.

    Attributes:
        app: owner of the policy.
        learned_rows: training rows that the policy has learned; 0 for a fresh one.
    """

    router: Router
    salt: str
    app: str
    learned_rows: int

    def advise(self, context: Context, *, quality_value_usd: float | None = None) -> Advice:
        """Decide ``context``.

        Args:
            quality_value_usd: of this request, USD, > 0; None for the policy's own.

        Raises:
            InputError: ``quality_value_usd`` is not finite and above 0.
            DecisionError: no model is eligible.
        """
        check_quality_value(quality_value_usd)
        decision = self.router.decide(context, quality_value_usd=quality_value_usd)
        return advice_on(decision, self.salt)


def check_quality_value(value_usd: float | None) -> None:
    """Raise InputError unless the value is finite and above 0, or None."""
    if value_usd is not None and not 0.0 < value_usd < math.inf:
        raise InputError(f"quality value {value_usd!r} must be finite and above 0, in USD")


def advice_on(decision: Decision, salt: str) -> Advice:
    """``decision`` with its reasons; ``salt`` is the one it was drawn with."""
    offers = _offers(decision)
    return Advice(
        decision=decision,
        offers=offers,
        drawn_by=drawn_by(decision, salt),
        why=_why(decision, offers),
    )


def fresh_advisor(settings: Settings) -> Advisor:
    """The untrained policy of the settings.

    Raises:
        ConfigError: the settings do not fit together.
        DependencyError: the encoder or the policy's package is missing.
    """
    featurizer = make_featurizer(settings.features)
    recipe = recipe_of(settings, featurizer)
    learner = fresh_loop(recipe, MemorySink(), configured_policy).learner
    app, salt = settings.app.name, settings.app.salt
    return _advisor(learner, learner.pacer, featurizer, app, salt, settings.app.safe_model)


def stored_advisor(store: SqliteStore, settings: Settings, *, key: bytes | None = None) -> Advisor:
    """The policy of a store's newest snapshot. The log is only read.

    Args:
        settings: its section [features] must make the features the policy was learned on.
        key: the HMAC key of the snapshots.

    Raises:
        InputError: the store has no snapshot, or its features are made in another way.
        SnapshotError: the snapshot does not verify.
    """
    snapshot = newest_snapshot(store, key)
    recipe = snapshot.manifest.recipe
    featurizer = make_featurizer(settings.features)
    if featurizer.featurizer_id != recipe.featurizer_id:
        raise InputError(
            f"{store.path}: its policy was learned on features {recipe.featurizer_id}, but the "
            f"section [features] makes {featurizer.featurizer_id}; give the configuration that "
            "the log was made with"
        )
    learner = fresh_loop(recipe, MemorySink()).learner
    learner.load(snapshot.learner)
    learner.snapshot_id = snapshot.id
    salt = store.get_meta(SALT) or settings.app.salt
    return _advisor(learner, learner.pacer, featurizer, recipe.app, salt, None)


def _advisor(
    learner: Learner,
    pacer: BudgetPacer,
    featurizer: Featurizer,
    app: str,
    salt: str,
    safe_model: str | None,
) -> Advisor:
    router = Router(
        learner.policy,
        featurizer,
        learner.catalog,
        salt=salt,
        quality_value_usd=lambda: pacer.quality_value_usd,
        app=app,
        state=learner,
        safe_model=safe_model,
    )
    return Advisor(router, salt, app, learner.learn_seq)


def _offers(decision: Decision) -> tuple[Offer, ...]:
    per_usd = 1.0 / decision.quality_value_usd
    return tuple(
        Offer(
            model=model, score=score, cost_usd=cost, utility=score - cost * per_usd, probability=p
        )
        for model, score, cost, p in zip(
            decision.eligible,
            decision.predicted_score,
            decision.predicted_cost_usd,
            decision.pmf,
            strict=True,
        )
    )


def _why(decision: Decision, offers: tuple[Offer, ...]) -> str:
    mine = next((offer for offer in offers if offer.model == decision.action), None)
    if any(rule.startswith("incumbent:") for rule in decision.rules):
        return f"{decision.action} serves because it is the incumbent in {decision.variant!r}"
    if mine is None or decision.slice == "forced":
        return f"{decision.action} serves because the policy gave no usable answer"
    own = (
        f"{mine.model} is expected to score {mine.score:.3f} and to cost ${mine.cost_usd:.2g}, "
        f"a utility of {mine.utility:+.3f}"
    )
    others = [offer for offer in offers if offer is not mine]
    if not others:
        return f"{own}; no other model is eligible"
    rival = max(others, key=lambda offer: offer.utility)
    if mine.utility >= rival.utility:
        return f"{own}, the best of {len(offers)} (next: {rival.model}, {rival.utility:+.3f})"
    return (
        f"{own}, less than the {rival.utility:+.3f} of {rival.model}: a model that may be better "
        "than it looks is tried now and then"
    )
