"""The wire events, schema 1: what routers, gateways and applications publish, and the codec.

Three types travel: ``decision`` (:class:`~bandit_router.types.Decision`), ``outcome`` (one of
:class:`Completion`, :class:`Escalation`, :class:`Feedback`, :class:`ErrorOutcome`, told apart by
``kind``) and ``change`` (:class:`Change`). On the wire each is one JSON object with ``schema``,
``type``, ``ts`` and ``app``.
"""

from bandit_router.events.codec import UPCASTERS, decode, encode
from bandit_router.events.ids import clean_text, uuid7
from bandit_router.events.rows import Row, decode_row, encode_row
from bandit_router.events.schema import (
    CATALOG_CHANGES,
    MAX_EVENT_BYTES,
    MAX_ID_CHARS,
    METRIC_RANGES,
    PMF_TOLERANCE,
    SCHEMA_VERSION,
    Change,
    ChangeKind,
    Completion,
    ErrorOutcome,
    Escalation,
    EscalationReason,
    Event,
    Feedback,
    Outcome,
)
from bandit_router.events.validation import validate

__all__ = [
    "CATALOG_CHANGES",
    "MAX_EVENT_BYTES",
    "MAX_ID_CHARS",
    "METRIC_RANGES",
    "PMF_TOLERANCE",
    "SCHEMA_VERSION",
    "UPCASTERS",
    "Change",
    "ChangeKind",
    "Completion",
    "ErrorOutcome",
    "Escalation",
    "EscalationReason",
    "Event",
    "Feedback",
    "Outcome",
    "Row",
    "clean_text",
    "decode",
    "decode_row",
    "encode",
    "encode_row",
    "uuid7",
    "validate",
]
