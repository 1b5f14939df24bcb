"""The wire events as a JSON Schema, for producers in other languages.

Types and names come from the structs that the codec reads and writes; what each field means, its
unit and its range stand here, since msgspec's structs do not carry them. Whatever the codec takes
or gives, the schema allows; of what the codec refuses, the schema refuses all that a JSON Schema
can express. What it cannot express is said in its description.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bandit_router.events.codec import DecisionOnWire
from bandit_router.events.schema import (
    MAX_ACTIONS,
    MAX_EVENT_BYTES,
    MAX_ID_CHARS,
    METRIC_RANGES,
    PMF_TOLERANCE,
    SCHEMA_VERSION,
    Change,
    Completion,
    ErrorOutcome,
    Escalation,
    Feedback,
)

_EVENTS = (DecisionOnWire, Completion, Escalation, Feedback, ErrorOutcome, Change)
_RENAMED = {"DecisionOnWire": "Decision", "FeaturesOnWire": "Features", "ErrorOutcome": "Error"}

_DESCRIPTION = (
    f"Events of wire schema {SCHEMA_VERSION}: one JSON object per record, UTF-8, at most "
    f"{MAX_EVENT_BYTES} bytes, every number finite. Decisions go to PREFIX.decisions, "
    "completions, escalations, feedback and errors to PREFIX.outcomes, changes to PREFIX.changes; "
    "the record's key is the app. Beyond what a JSON Schema can say: pmf has an entry for each "
    f"eligible model, in their order, and sums to 1 within {PMF_TOLERANCE:g}; action is one of "
    "eligible, and propensity its entry of pmf unless slice is forced; predicted_score and "
    "predicted_cost_usd are empty or as long as eligible; a change's data is nested at most 16 "
    "deep; schema is written 1, not 1.0; no text has a lone surrogate."
)

_WHAT = {
    "Decision": "A model was drawn for a query; written before the model is called.",
    "Features": "What the policy saw of the query. Logged once, never computed again.",
    "Completion": "A model answered.",
    "Escalation": "An attempt was not good enough, and another model takes over. What the attempt "
    "cost, and what the rescue costs, is charged to the model that was drawn.",
    "Feedback": "What somebody or something thought of the answer.",
    "Error": "No answer was delivered at all: every attempt failed.",
    "Change": "Something other than a request happened: to the catalog, a snapshot, a flag, the "
    "stream.",
}

_ID = {"minLength": 1, "maxLength": MAX_ID_CHARS}
_MONEY = {"minimum": 0}
_SHARE = {"minimum": 0, "maximum": 1}
_TOKENS = {"minimum": 0, "exclusiveMaximum": 2**53}

_FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "schema": (
        "Version of this schema.",
        {"type": "integer", "const": SCHEMA_VERSION},
    ),
    "type": ("Which type of event this is.", {}),
    "kind": ("Which kind of outcome this is.", {}),
    "event_id": ("Unique id of the decision (UUIDv7); its outcomes carry the same.", _ID),
    "ts": ("When it happened, seconds since the Unix epoch.", {}),
    "app": ("Owner of the policy: one app has one learner.", _ID),
    "cost_usd": ("What this attempt cost, USD; null when unknown.", _MONEY),
    "latency_s": (
        "Wall time from the request to the end, all attempts, seconds; null when unknown.",
        {"minimum": 0},
    ),
    "model": ("The model that served the answer.", _ID),
    "attempt": (
        "1-based number of the last attempt, after attempt - 1 escalations; null: not counted.",
        {"minimum": 1, "maximum": 1000},
    ),
    "Decision.unit_id": ("Who is bucketed in experiments: user, conversation...", {}),
    "Decision.tenant": ("For entitlement, budgets and segments.", {}),
    "Decision.variant": ("Arm of an experiment.", {}),
    "Decision.features": ("What the policy saw of the query.", {}),
    "Decision.featurizer_id": ("Hash of what made the features.", {}),
    "Decision.eligible": (
        "The models that could be drawn.",
        {
            "minItems": 1,
            "maxItems": MAX_ACTIONS,
            "uniqueItems": True,
            "items": {"type": "string", **_ID},
        },
    ),
    "Decision.pmf": (
        "The probabilities that were sampled, aligned with eligible.",
        {"minItems": 1, "maxItems": MAX_ACTIONS, "items": {"type": "number", "minimum": 0}},
    ),
    "Decision.action": ("The model that was drawn, one of eligible.", _ID),
    "Decision.propensity": (
        "The probability with which it was drawn; 1 when it was forced.",
        {"exclusiveMinimum": 0, "maximum": 1},
    ),
    "Decision.slice": (
        "Which part of the pmf drew it: the policy's share, the share of exploring, or neither.",
        {},
    ),
    "Decision.learn": ("Whether the policy may learn from it; false when it was forced.", {}),
    "Decision.predicted_score": (
        "Predicted mean score per eligible model.",
        {"maxItems": MAX_ACTIONS},
    ),
    "Decision.predicted_cost_usd": (
        "Predicted mean cost per eligible model, USD.",
        {"maxItems": MAX_ACTIONS, "items": {"type": "number", "minimum": 0}},
    ),
    "Decision.quality_value_usd": (
        "What one fully good answer was worth, USD.",
        {"exclusiveMinimum": 0},
    ),
    "Decision.epsilon": ("Share of the uniform distribution in the pmf.", _SHARE),
    "Decision.snapshot_id": ("The policy's snapshot; empty for an untrained one.", {}),
    "Decision.learn_seq": (
        "Training rows the policy had learned.",
        {"minimum": 0, "exclusiveMaximum": 2**63},
    ),
    "Decision.rules": ("Rules that took models out, or forced one.", {}),
    "Decision.prompt_digest": ("SHA-256 of the prompt, hexadecimal; may be empty.", {}),
    "Decision.prompt": ("The prompt itself, where logging it is allowed.", {}),
    "Features.dense": ("The vector.", {}),
    "Features.ngrams": ("Hashed n-grams of the prompt.", {}),
    "Features.columns": ("Metadata that came with the request.", {}),
    "Completion.input_tokens": ("Tokens in the request.", _TOKENS),
    "Completion.output_tokens": ("Tokens in the answer.", _TOKENS),
    "Completion.cached_tokens": ("Tokens of the request that came from a cache.", _TOKENS),
    "Completion.finish_reason": ("Why the model stopped, in its provider's words.", {}),
    "Completion.format_valid": ("Whether the answer has the form that was asked for.", {}),
    "Completion.confidence": ("The model's or a verifier's confidence.", _SHARE),
    "Escalation.from": ("The model whose attempt was not good enough.", _ID),
    "Escalation.to": ("The model that takes over.", _ID),
    "Escalation.reason": ("What was wrong with the attempt.", {}),
    "Escalation.attempt": (
        "1-based number of the attempt that failed.",
        {"minimum": 1, "maximum": 1000},
    ),
    "Feedback.metric": ("Which metric the value is of; the joiner's rules map it to a score.", _ID),
    "Feedback.value": ("The value of the metric.", {}),
    "Feedback.source": ("Who says so: user, judge, test...", {}),
    "Feedback.feedback_id": (
        "Unique within the decision: a second feedback of the same id is a duplicate.",
        _ID,
    ),
    "Feedback.model": ("The model that is judged, when the source knows it.", {}),
    "Feedback.retracts": ("The feedback_id that this one withdraws.", {}),
    "Error.model": ("The last model tried.", _ID),
    "Error.reason": ("A short token for people and counters: timeout, http_500...", {}),
    "Change.kind": ("What changed.", {}),
    "Change.data": (
        "The model's entry in the catalog when one was added or repriced, its name when removed.",
        {},
    ),
}
"""Meaning and range of each field, by name or by type and name."""


def wire_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every event of the current wire schema."""
    _, components = msgspec.json.schema_components(_EVENTS)
    definitions = {_name(name): _refined(_name(name), form) for name, form in components.items()}
    events = [_name(event.__name__) for event in _EVENTS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"bandit_router events, schema {SCHEMA_VERSION}",
        "description": _DESCRIPTION,
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in events],
        "$defs": {name: definitions[name] for name in [*events, "Features"]},
    }


def _name(component: str) -> str:
    return _RENAMED.get(component, component)


def _refined(name: str, form: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema with meanings and ranges, and what the codec needs besides."""
    fields = {
        field: _field(f"{name}.{field}", field, found)
        for field, found in form["properties"].items()
    }
    # The codec looks at these before it looks at anything else.
    needed = [key for key in ("schema", "type", "kind") if key in fields]
    required = needed + [key for key in form["required"] if key not in needed]
    refined = {
        "type": "object",
        "description": _WHAT[name],
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }
    conditions = _CONDITIONS.get(name)
    return {**refined, "allOf": conditions} if conditions else refined


def _field(path: str, field: str, found: dict[str, Any]) -> dict[str, Any]:
    meaning, limits = _FIELDS.get(path) or _FIELDS[field]
    if "$ref" in found:
        target = found["$ref"].rpartition("/")[2]
        return {"description": meaning, "$ref": f"#/$defs/{_name(target)}"}
    options = [option for option in found.get("anyOf", ()) if option != {"type": "null"}]
    if options:
        (only,) = options
        shape = {"anyOf": [{**only, **limits}, {"type": "null"}]}
        if "default" in found:
            shape["default"] = found["default"]
    else:
        shape = {**found, **limits}
    if field in {"schema", "type"}:
        shape.pop("default", None)  # it is required
    return {"description": meaning, **shape}


def _when(condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {
        "if": {"properties": condition, "required": list(condition)},
        "then": {"properties": then},
    }


_CONDITIONS: dict[str, list[dict[str, Any]]] = {
    "Decision": [
        _when(
            {"slice": {"const": "forced"}},
            {"propensity": {"const": 1}, "learn": {"const": False}},
        )
    ],
    "Feedback": [
        _when({"metric": {"const": metric}}, {"value": {"minimum": low, "maximum": high}})
        for metric, (low, high) in METRIC_RANGES.items()
    ],
}
