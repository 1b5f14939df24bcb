"""From a context to a decision: featurize, mask, evaluate, draw. One public method.

The law of this module: the logged pmf is the one that was sampled. Whatever the policy does not
draw (a pin, a fallback, the incumbent) carries propensity 1, the slice ``forced`` and
``learn = False``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from bandit_router.eligibility import Eligibility
from bandit_router.errors import DecisionError, EventError
from bandit_router.events import MAX_ID_CHARS, PMF_TOLERANCE, clean_text
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy, sample
from bandit_router.rollout.variants import Assignment, pin_rule, shadow_rule, uniform
from bandit_router.types import Context, Decision, Evaluation, Features

MAX_LOGGED_PROMPT_CHARS = 32_768

UNUSABLE = (DecisionError, ArithmeticError, np.linalg.LinAlgError)
"""What a policy with a damaged state may raise; the safe model serves then."""


class FeatureSource(Protocol):
    """The part of the featurizer that a decision needs."""

    featurizer_id: str

    def features(self, context: Context) -> Features:
        """Numbers and tokens of one context."""
        ...


class PolicyState(Protocol):
    """Which state the policy is in; the learner is one, so is a router that follows snapshots."""

    catalog: Catalog
    learn_seq: int
    snapshot_id: str


class FixedState:
    """The state of a policy that nobody trains."""

    def __init__(self, catalog: Catalog, *, learn_seq: int = 0, snapshot_id: str = "") -> None:
        self.catalog = catalog
        self.learn_seq = learn_seq
        self.snapshot_id = snapshot_id


class _Request(NamedTuple):
    """What a decision is made of, whoever makes it."""

    event_id: str
    context: Context
    features: Features
    quality_value_usd: float
    assignment: Assignment | None


class Router:
    """Chooses a model for each context, with a known probability.

    Args:
        policy: evaluates the eligible actions.
        featurizer: gives the features, which are logged and never recomputed.
        catalog: the models; later changes arrive through ``state``.
        salt: with the event id it seeds the draw.
        quality_value_usd: asked at each decision, USD, > 0.
        eligibility: masks before the pmf; None for none.
        app: owner of the policy, stamped on each decision.
        state: names the policy's exact state; None when nothing learns.
        safe_model: serves when the policy's evaluation is unusable, if eligible; else the first
            eligible model in catalog order does.
        log_prompts: log the text itself (cut at 32,768 characters), not only its sha256.

    ``counts`` has ``decisions``, ``forced`` and ``unusable_evaluations``.
    """

    def __init__(
        self,
        policy: Policy,
        featurizer: FeatureSource,
        catalog: Catalog,
        *,
        salt: str,
        quality_value_usd: Callable[[], float],
        eligibility: Eligibility | None = None,
        app: str = "default",
        variant: str = "bandit",
        state: PolicyState | None = None,
        safe_model: str | None = None,
        log_prompts: bool = False,
    ) -> None:
        if safe_model is not None:
            catalog[safe_model]
        self.policy = policy
        self.salt = salt
        self.state: PolicyState = state if state is not None else FixedState(catalog)
        self.counts = {"decisions": 0, "forced": 0, "unusable_evaluations": 0}
        self._featurizer = featurizer
        self._quality_value_usd = quality_value_usd
        self._eligibility = eligibility or Eligibility()
        self._app = app
        self._variant = variant
        self._safe_model = safe_model
        self._log_prompts = log_prompts
        self._catalog: Catalog | None = None
        self._names: tuple[str, ...] = ()

    def decide(
        self,
        context: Context,
        *,
        features: Features | None = None,
        forced: str | None = None,
        quality_value_usd: float | None = None,
        assignment: Assignment | None = None,
    ) -> Decision:
        """Draw a model for ``context``, or take the incumbent where it is assigned so.

        Args:
            context: what is known of the query.
            features: given when they are known already; else the featurizer is asked.
            forced: a pinned model, which need not pass the masks.
            quality_value_usd: of this request alone, USD, > 0.
            assignment: the unit and its variant; None for the context's own and the router's.

        Raises:
            DecisionError: no model is eligible, or ``quality_value_usd`` is not above 0.
            CatalogError: ``forced`` is not in the catalog.
            EventError: the context's event_id is empty or longer than 256 characters.
        """
        event_id = _event_id(context.event_id)
        if features is None:
            features = self._featurizer.features(context)
        value = float(self._quality_value_usd() if quality_value_usd is None else quality_value_usd)
        if not 0.0 < value < math.inf:
            raise DecisionError(f"quality_value_usd {value!r} must be finite and above 0")
        self.counts["decisions"] += 1
        request = _Request(event_id, context, features, value, assignment)
        given = () if assignment is None else assignment.rules
        if forced is not None:
            self.state.catalog[forced]
            return self._forced(request, forced, (*given, pin_rule(forced)))
        eligible, rules = self._eligible(context)
        rules = (*given, *rules)
        if assignment is None or assignment.variant in {"bandit", "explore"}:
            return self._drawn(request, eligible, rules)
        incumbent = assignment.incumbent
        if incumbent not in eligible:
            rules = (*rules, f"incumbent_not_eligible:{incumbent}")
            incumbent = self._safe(eligible)
        if assignment.variant == "shadow":
            return self._shadowed(request, eligible, incumbent, rules)
        return self._forced(request, incumbent, (*rules, f"incumbent:{incumbent}"))

    def _drawn(
        self, request: _Request, eligible: tuple[str, ...], rules: tuple[str, ...]
    ) -> Decision:
        """The decision that is drawn: by the policy's pmf, or by that of the uniform holdout."""
        evaluated = self._evaluate(request.features, eligible, request.quality_value_usd)
        if evaluated is None:
            self.counts["unusable_evaluations"] += 1
            return self._forced(request, self._safe(eligible), (*rules, "unusable_evaluation"))
        evaluation, pmf, score, cost_usd = evaluated
        if request.assignment is not None and request.assignment.variant == "explore":
            evaluation = uniform(evaluation)
            pmf = tuple(evaluation.pmf.tolist())
        index, part = sample(evaluation, self.salt, request.event_id)
        return self._decision(
            request,
            eligible=eligible,
            pmf=pmf,
            action=eligible[index],
            propensity=pmf[index],
            slice=part,
            epsilon=float(evaluation.epsilon),
            predicted_score=score,
            predicted_cost_usd=cost_usd,
            rules=rules,
        )

    def _shadowed(
        self,
        request: _Request,
        eligible: tuple[str, ...],
        incumbent: str,
        rules: tuple[str, ...],
    ) -> Decision:
        """The incumbent's decision, beside what the policy would have drawn from, and drawn."""
        evaluated = self._evaluate(request.features, eligible, request.quality_value_usd)
        if evaluated is None:
            self.counts["unusable_evaluations"] += 1
            rules = (*rules, "unusable_evaluation", f"incumbent:{incumbent}")
            return self._forced(request, incumbent, rules)
        self.counts["forced"] += 1
        evaluation, pmf, score, cost_usd = evaluated
        index, _ = sample(evaluation, self.salt, request.event_id)
        return self._decision(
            request,
            eligible=eligible,
            pmf=pmf,
            action=incumbent,
            propensity=1.0,
            slice="forced",
            epsilon=float(evaluation.epsilon),
            predicted_score=score,
            predicted_cost_usd=cost_usd,
            learn=False,
            rules=(*rules, f"incumbent:{incumbent}", shadow_rule(eligible[index])),
        )

    def _forced(self, request: _Request, model: str, rules: tuple[str, ...]) -> Decision:
        """The decision when nothing is drawn: ``model`` is the only action of its pmf."""
        self.counts["forced"] += 1
        evaluated = self._evaluate(request.features, (model,), request.quality_value_usd)
        _, _, score, cost_usd = evaluated or (None, (), (), ())
        return self._decision(
            request,
            eligible=(model,),
            pmf=(1.0,),
            action=model,
            propensity=1.0,
            slice="forced",
            epsilon=0.0,
            predicted_score=score,
            predicted_cost_usd=cost_usd,
            learn=False,
            rules=rules,
        )

    def _decision(self, request: _Request, **drawn: Any) -> Decision:
        """The decision with what it has from its context and from the policy's state."""
        context, assignment = request.context, request.assignment
        return Decision(
            event_id=request.event_id,
            ts=float(context.ts),
            features=request.features,
            featurizer_id=self._featurizer.featurizer_id,
            quality_value_usd=request.quality_value_usd,
            snapshot_id=self.state.snapshot_id,
            learn_seq=self.state.learn_seq,
            app=self._app,
            unit_id=_short(context.unit_id) if assignment is None else assignment.unit_id,
            tenant=_short(context.tenant),
            variant=self._variant if assignment is None else assignment.variant,
            prompt_digest=_digest(context.prompt),
            prompt=self._logged_prompt(context.prompt),
            **drawn,
        )

    def _safe(self, eligible: tuple[str, ...]) -> str:
        safe = self._safe_model
        return safe if safe is not None and safe in eligible else eligible[0]

    def _eligible(self, context: Context) -> tuple[tuple[str, ...], tuple[str, ...]]:
        catalog = self.state.catalog
        if self._eligibility or not len(catalog):
            return self._eligibility.of(context, catalog)
        if catalog is not self._catalog:
            self._catalog, self._names = catalog, catalog.names
        return self._names, ()

    def _evaluate(
        self, features: Features, eligible: tuple[str, ...], quality_value_usd: float
    ) -> tuple[Evaluation, *tuple[tuple[float, ...], ...]] | None:
        """(evaluation, pmf, score, cost), or None when the policy has no usable answer.

        Sums of Python floats find a NaN or an infinity among a dozen numbers faster than numpy.
        """
        try:
            evaluation = self.policy.evaluate(features, eligible, quality_value_usd)
        except UNUSABLE:
            return None
        pmf = tuple(evaluation.pmf.tolist())
        score = tuple(evaluation.score.tolist())
        cost_usd = tuple(evaluation.cost_usd.tolist())
        usable = (
            abs(sum(pmf) - 1.0) <= PMF_TOLERANCE
            and min(pmf) >= 0.0
            and math.isfinite(sum(score))
            and math.isfinite(sum(cost_usd))
            and min(cost_usd) >= 0.0
        )
        return (evaluation, pmf, score, cost_usd) if usable else None

    def _logged_prompt(self, prompt: str) -> str | None:
        return clean_text(prompt[:MAX_LOGGED_PROMPT_CHARS]) if self._log_prompts else None


def _event_id(text: str) -> str:
    """The id as it will be logged, so that the draw can be recomputed from the log."""
    if not 0 < len(text) <= MAX_ID_CHARS:
        raise EventError(f"event_id has {len(text)} characters, 1 to {MAX_ID_CHARS} are allowed")
    return text if text.isascii() else clean_text(text)


def _short(text: str) -> str:
    return text if len(text) <= MAX_ID_CHARS and text.isascii() else clean_text(text[:MAX_ID_CHARS])


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
