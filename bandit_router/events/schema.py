"""The events of wire schema 1 as frozen values.

A change of any field here, or of the wire forms in ``codec``, needs a new :data:`SCHEMA_VERSION`
and an upcaster from the old one.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bandit_router.events.ids import clean_json, clean_text
from bandit_router.types import Decision

SCHEMA_VERSION = 1

MAX_EVENT_BYTES = 1_000_000
"""Largest encoded event. Kafka's default record limit is 1 MiB, key and headers included."""

MAX_ID_CHARS = 256
MAX_ACTIONS = 1024
PMF_TOLERANCE = 1e-6

METRIC_RANGES: dict[str, tuple[float, float]] = {
    "score": (0.0, 1.0),
    "accepted": (0.0, 1.0),
    "thumbs": (-1.0, 1.0),
}
"""Metrics whose range is part of the schema; other metrics need only be finite here."""

EscalationReason = Literal[
    "invalid_json",
    "schema",
    "low_confidence",
    "refusal",
    "empty",
    "timeout",
    "error",
    "user_reask",
    "user_handoff",
]
"""Why an attempt was not good enough and another model had to answer."""

ChangeKind = Literal[
    "model_added",
    "model_removed",
    "model_repriced",
    "snapshot_published",
    "flag_changed",
    "drift_alarm",
    "rollback",
]

CATALOG_CHANGES = frozenset({"model_added", "model_removed", "model_repriced"})
"""The kinds of change that a policy learns of: they take a place in the training log."""


def _settle(event: Any, numbers: tuple[str, ...], texts: tuple[str, ...]) -> None:
    """Bring fields into the form they come back in from the wire: floats, and valid Unicode."""
    for name in numbers:
        value = getattr(event, name)
        if type(value) is not float and value is not None:
            msgspec.structs.force_setattr(event, name, float(value))
    for name in texts:
        text = getattr(event, name)
        if not text.isascii():
            msgspec.structs.force_setattr(event, name, clean_text(text))


class Completion(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="completion",
):
    """A model answered.

    Attributes:
        model: the model that served the answer.
        cost_usd: what this attempt cost, USD; None when unknown.
        latency_s: wall time from the request to the delivered answer, earlier attempts included.
        attempt: 1-based number of the attempt that answered, so that ``attempt - 1`` escalations
            are to be expected; None when the producer does not count.
        confidence: the model's or a verifier's, in [0, 1].
    """

    event_id: str
    ts: float
    app: str = "default"
    model: str
    cost_usd: float | None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str = ""
    format_valid: bool | None = None
    confidence: float | None = None
    attempt: int | None = None
    schema: int = SCHEMA_VERSION
    type: Literal["outcome"] = "outcome"

    def __post_init__(self) -> None:
        _settle(
            self,
            ("ts", "cost_usd", "latency_s", "confidence"),
            ("event_id", "app", "model", "finish_reason"),
        )


class Escalation(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="escalation",
    rename={"from_model": "from", "to_model": "to"},
):
    """An attempt failed and another model takes over.

    Attributes:
        from_model / to_model: ``from`` and ``to`` on the wire.
        cost_usd: what the failed attempt cost, USD; None when unknown.
        attempt: 1-based number of the attempt that failed.
    """

    event_id: str
    ts: float
    app: str = "default"
    from_model: str
    to_model: str
    reason: EscalationReason
    cost_usd: float | None = 0.0
    attempt: int = 1
    schema: int = SCHEMA_VERSION
    type: Literal["outcome"] = "outcome"

    def __post_init__(self) -> None:
        _settle(self, ("ts", "cost_usd"), ("event_id", "app", "from_model", "to_model"))


class Feedback(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="feedback",
):
    """What somebody or something thought of the answer.

    Attributes:
        metric: which metric ``value`` is of; :mod:`bandit_router.reward` maps it to [0, 1].
        source: who says so (``user``, ``judge``, ``test``, ...).
        feedback_id: unique within the decision; a second one of the same id is a duplicate.
        model: the model that is being judged, when the source knows it; "" otherwise.
        retracts: the ``feedback_id`` that this one withdraws; "" when it withdraws none.
    """

    event_id: str
    ts: float
    app: str = "default"
    metric: str
    value: float
    source: str = ""
    feedback_id: str
    model: str = ""
    retracts: str = ""
    schema: int = SCHEMA_VERSION
    type: Literal["outcome"] = "outcome"

    def __post_init__(self) -> None:
        _settle(
            self,
            ("ts", "value"),
            ("event_id", "app", "metric", "source", "feedback_id", "model", "retracts"),
        )


class ErrorOutcome(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="error",
):
    """No answer was delivered at all: every attempt failed.

    Attributes:
        model: the last model tried.
        reason: a short token for people and counters (``timeout``, ``http_500``, ...).
        cost_usd: what the last attempt cost, USD; None when unknown.
        attempt: as in :class:`Completion`.
    """

    event_id: str
    ts: float
    app: str = "default"
    model: str
    reason: str = ""
    cost_usd: float | None = 0.0
    latency_s: float | None = None
    attempt: int | None = None
    schema: int = SCHEMA_VERSION
    type: Literal["outcome"] = "outcome"

    def __post_init__(self) -> None:
        _settle(self, ("ts", "cost_usd", "latency_s"), ("event_id", "app", "model", "reason"))


class Change(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="change",
):
    """Something other than a request happened: to the catalog, a snapshot, a flag, the stream.

    Attributes:
        data: a JSON object; for ``model_added`` and ``model_repriced`` the ``ModelSpec`` fields,
            for ``model_removed`` ``{"model": NAME}``.
    """

    ts: float
    app: str = "default"
    kind: ChangeKind
    data: dict[str, Any] = {}
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _settle(self, ("ts",), ("app",))
        msgspec.structs.force_setattr(self, "data", clean_json(self.data))


Outcome = Completion | Escalation | Feedback | ErrorOutcome
Event = Decision | Outcome | Change
