"""The ranges and cross-field laws of events. Encoder and decoder both go through here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bandit_router.errors import EventError
from bandit_router.events.schema import (
    MAX_ACTIONS,
    MAX_ID_CHARS,
    METRIC_RANGES,
    PMF_TOLERANCE,
    Change,
    Completion,
    ErrorOutcome,
    Escalation,
    Event,
    Feedback,
)
from bandit_router.types import Decision, Features


def validate(event: Event) -> None:
    """Check every range and cross-field law of ``event``.

    Raises:
        EventError: the first one that is broken, with its field and value.
    """
    _text("app", event.app)
    _finite("ts", event.ts)
    if isinstance(event, Change):
        _check_json("data", event.data)
        return
    _text("event_id", event.event_id)
    if isinstance(event, Decision):
        _check_decision(event)
    elif isinstance(event, Feedback):
        _check_feedback(event)
    else:
        _check_attempt(event)


def _check_decision(decision: Decision) -> None:
    eligible, pmf = decision.eligible, decision.pmf
    k = len(eligible)
    _need(0 < k <= MAX_ACTIONS, "eligible", f"has {k} actions, 1 to {MAX_ACTIONS} are allowed")
    _need(len(set(eligible)) == k, "eligible", "names an action twice")
    for model in eligible:
        _text("eligible", model)
    _need(len(pmf) == k, "pmf", f"has {len(pmf)} entries for {k} eligible actions")
    for p in pmf:
        _finite("pmf", p)
    _need(min(pmf) >= 0.0, "pmf", "has a negative entry")
    total = math.fsum(pmf)
    _need(abs(total - 1.0) <= PMF_TOLERANCE, "pmf", f"sums to {total!r}, not to 1")
    _need(decision.action in eligible, "action", f"{decision.action!r:.80} is not eligible")
    _check_propensity(decision, pmf[eligible.index(decision.action)])
    for name in ("predicted_score", "predicted_cost_usd"):
        values = getattr(decision, name)
        _need(len(values) in (0, k), name, f"has {len(values)} entries for {k} actions")
        for value in values:
            _finite(name, value)
    for cost in decision.predicted_cost_usd:
        _not_negative("predicted_cost_usd", cost)
    _finite("quality_value_usd", decision.quality_value_usd)
    _need(decision.quality_value_usd > 0.0, "quality_value_usd", "must be above 0")
    _finite("epsilon", decision.epsilon)
    _need(0.0 <= decision.epsilon <= 1.0, "epsilon", f"{decision.epsilon!r} is outside [0, 1]")
    _need(0 <= decision.learn_seq < 2**63, "learn_seq", f"{decision.learn_seq} is negative or huge")
    _check_features(decision.features)


def _check_propensity(decision: Decision, probability: float) -> None:
    propensity = decision.propensity
    _finite("propensity", propensity)
    _need(0.0 < propensity <= 1.0, "propensity", f"{propensity!r} is outside (0, 1]")
    if decision.slice == "forced":
        _need(propensity == 1.0, "propensity", "of a forced choice must be 1")
        _need(not decision.learn, "learn", "must be false for a forced choice")
    else:
        _need(propensity == probability, "propensity", f"{propensity!r} is not pmf[action]")


def _check_features(features: Features) -> None:
    dense = features.dense
    _need(dense.ndim == 1, "features.dense", f"has shape {dense.shape}, not (d,)")
    _need(bool(np.isfinite(dense).all()), "features.dense", "is not finite")
    if features.ngrams:
        _need(
            min(features.ngrams) >= 0 and max(features.ngrams) < 2**18,
            "features.ngrams",
            "has a hash outside [0, 2**18)",
        )


def _check_feedback(feedback: Feedback) -> None:
    _text("metric", feedback.metric)
    _text("feedback_id", feedback.feedback_id)
    _finite("value", feedback.value)
    low, high = METRIC_RANGES.get(feedback.metric, (-math.inf, math.inf))
    _need(
        low <= feedback.value <= high,
        "value",
        f"{feedback.value!r} is outside [{low}, {high}] for metric {feedback.metric!r}",
    )


def _check_attempt(outcome: Completion | Escalation | ErrorOutcome) -> None:
    if isinstance(outcome, Escalation):
        _text("from", outcome.from_model)
        _text("to", outcome.to_model)
    else:
        _text("model", outcome.model)
        _not_negative("latency_s", outcome.latency_s)
    _not_negative("cost_usd", outcome.cost_usd)
    attempt = outcome.attempt
    _need(attempt is None or 1 <= attempt <= 1000, "attempt", f"{attempt!r} is outside 1..1000")
    if isinstance(outcome, Completion):
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            tokens = getattr(outcome, name)
            _need(tokens is None or 0 <= tokens < 2**53, name, f"{tokens!r} is negative or huge")
        confidence = outcome.confidence
        _need(
            confidence is None or 0.0 <= confidence <= 1.0,
            "confidence",
            f"{confidence!r} is outside [0, 1]",
        )


def _check_json(name: str, value: Any, depth: int = 0) -> None:
    """Refuse what JSON cannot carry exactly: NaN, infinities, foreign objects, deep nesting."""
    _need(depth <= 16, name, "is nested more than 16 deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _need(isinstance(key, str), name, f"has the key {key!r:.40}, which is no text")
            _check_json(f"{name}.{key:.40}", item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(name, item, depth + 1)
    elif isinstance(value, float):
        _finite(name, value)
    else:
        plain = value is None or isinstance(value, str | bool)
        plain = plain or (isinstance(value, int) and -(2**63) <= value < 2**64)
        _need(plain, name, f"holds {value!r:.40}, which has no portable JSON form")


def _need(condition: object, field: str, what: str) -> None:
    if not condition:
        raise EventError(f"field {field}: {what}")


def _text(field: str, value: str) -> None:
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise EventError(f"field {field}: {len(value)} characters, 1 to {MAX_ID_CHARS} are allowed")


def _finite(field: str, value: float) -> None:
    """An integer is refused: it would come back from the wire as a float, so not bit-equal."""
    if type(value) is not float or not math.isfinite(value):
        raise EventError(f"field {field}: {value!r:.40} is not a finite float")


def _not_negative(field: str, value: float | None) -> None:
    if value is None:
        return
    _finite(field, value)
    if value < 0.0:
        raise EventError(f"field {field}: {value!r} is negative")
