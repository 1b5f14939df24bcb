"""Events to JSON and back.

Laws:

* :func:`decode` is total. Any bytes give a valid event or an :class:`EventError` with a reason.
* :func:`encode` is deterministic, and every float survives ``decode(encode(e))`` bit for bit.
* What ``encode`` refuses, ``decode`` refuses, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from bandit_router.errors import EventError
from bandit_router.events.ids import clean_json
from bandit_router.events.schema import (
    MAX_EVENT_BYTES,
    SCHEMA_VERSION,
    Change,
    Event,
    Outcome,
)
from bandit_router.events.validation import validate
from bandit_router.types import Decision, Features, Slice

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: dict[int, Upcaster] = {}
"""From version n to n + 1, over the plain JSON object. Applied until SCHEMA_VERSION is reached."""


class FeaturesOnWire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON form of :class:`~bandit_router.types.Features`."""

    dense: list[float]
    ngrams: list[Annotated[int, msgspec.Meta(ge=0, lt=2**18)]] = []
    columns: dict[str, str] = {}


class DecisionOnWire(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="decision",
):
    """JSON form of :class:`~bandit_router.types.Decision`; field for field the same."""

    event_id: str
    ts: float
    app: str
    unit_id: str
    tenant: str
    variant: str
    features: FeaturesOnWire
    featurizer_id: str
    eligible: tuple[str, ...]
    pmf: tuple[float, ...]
    action: str
    propensity: float
    slice: Slice
    learn: bool
    predicted_score: tuple[float, ...]
    predicted_cost_usd: tuple[float, ...]
    quality_value_usd: float
    epsilon: float
    snapshot_id: str
    learn_seq: int
    rules: tuple[str, ...]
    prompt_digest: str
    prompt: str | None = None
    schema: int = SCHEMA_VERSION


class _Head(msgspec.Struct):
    schema: Any = None
    type: Any = None


_head = msgspec.json.Decoder(_Head)
_wire_types: dict[str, Any] = {"decision": DecisionOnWire, "outcome": Outcome, "change": Change}
_decoders = {name: msgspec.json.Decoder(wire) for name, wire in _wire_types.items()}
_encoder = msgspec.json.Encoder()  # keeps the order of mappings: a policy may hash them in order


def encode(event: Event) -> bytes:
    """The event as one JSON object in UTF-8.

    Lone surrogates, which UTF-8 cannot carry, become U+FFFD.

    Raises:
        EventError: a field is out of its range (``invalid``) or the result is larger than
            :data:`MAX_EVENT_BYTES` (``oversize``).
    """
    validate(event)
    wire = _to_wire(event) if isinstance(event, Decision) else event
    try:
        data = _encoder.encode(wire)
    except UnicodeEncodeError:
        data = _encoder.encode(clean_json(msgspec.to_builtins(wire)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EventError(f"this event has no JSON form: {error}") from error
    if len(data) > MAX_EVENT_BYTES:
        raise EventError(
            f"the event is {len(data)} bytes, more than the {MAX_EVENT_BYTES} allowed",
            reason="oversize",
        )
    return data


def decode(data: bytes | None) -> Event:
    """The event in ``data``.

    Raises:
        EventError: with reason ``null`` (nothing there), ``oversize``, ``undecodable`` (not JSON),
            ``unknown_version``, or ``invalid`` (a field is missing, unknown or out of range).
    """
    if not data:
        raise EventError("the record is empty", reason="null")
    if len(data) > MAX_EVENT_BYTES:
        raise EventError(
            f"the record is {len(data)} bytes, more than the {MAX_EVENT_BYTES} allowed",
            reason="oversize",
        )
    try:
        head = _head.decode(data)
        wire = _decode_body(data, head)
    except msgspec.ValidationError as error:
        raise EventError(f"the event breaks schema {SCHEMA_VERSION}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"the record is no JSON: {error}", reason="undecodable") from error
    event = _from_wire(wire) if isinstance(wire, DecisionOnWire) else wire
    validate(event)
    return event


def _decode_body(data: bytes, head: _Head) -> Any:
    version = head.schema
    if isinstance(version, bool) or not isinstance(version, int):
        raise EventError(
            f"schema must be an integer, not {version!r:.40}", reason="unknown_version"
        )
    known = isinstance(head.type, str) and head.type in _decoders
    if version == SCHEMA_VERSION:
        if not known:
            raise EventError(f"unknown event type {head.type!r:.40}; {sorted(_decoders)} are known")
        return _decoders[head.type].decode(data)
    return _upcast(msgspec.json.decode(data), version)


def _upcast(raw: dict[str, Any], version: int) -> Any:
    while version != SCHEMA_VERSION:
        step = UPCASTERS.get(version)
        if step is None:
            raise EventError(
                f"schema version {version} is not known here; this build reads {SCHEMA_VERSION}",
                reason="unknown_version",
            )
        try:
            raw = step(raw)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EventError(f"not an event of schema version {version}: {error!r}") from error
        version += 1
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _wire_types:
        raise EventError(f"unknown event type {kind!r:.40} after upcasting")
    return msgspec.convert({**raw, "schema": SCHEMA_VERSION}, _wire_types[kind])


def _to_wire(decision: Decision) -> DecisionOnWire:
    features = decision.features
    return DecisionOnWire(
        event_id=decision.event_id,
        ts=decision.ts,
        app=decision.app,
        unit_id=decision.unit_id,
        tenant=decision.tenant,
        variant=decision.variant,
        features=FeaturesOnWire(
            dense=features.dense.tolist(), ngrams=list(features.ngrams), columns=features.columns
        ),
        featurizer_id=decision.featurizer_id,
        eligible=decision.eligible,
        pmf=decision.pmf,
        action=decision.action,
        propensity=decision.propensity,
        slice=decision.slice,
        learn=decision.learn,
        predicted_score=decision.predicted_score,
        predicted_cost_usd=decision.predicted_cost_usd,
        quality_value_usd=decision.quality_value_usd,
        epsilon=decision.epsilon,
        snapshot_id=decision.snapshot_id,
        learn_seq=decision.learn_seq,
        rules=decision.rules,
        prompt_digest=decision.prompt_digest,
        prompt=decision.prompt,
    )


def _from_wire(wire: DecisionOnWire) -> Decision:
    fields = {name: getattr(wire, name) for name in Decision.__struct_fields__}
    features = wire.features
    fields["features"] = Features(
        dense=np.array(features.dense, dtype=np.float64),
        ngrams=tuple(features.ngrams),
        columns=features.columns,
    )
    return Decision(**fields)
