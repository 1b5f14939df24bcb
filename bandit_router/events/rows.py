"""Rows of the training log to JSON and back: joined interactions and changes of the catalog.

The log is what a learner is rebuilt from, so the same laws hold as for events: deterministic
bytes, floats bit for bit, nothing out of range goes in or comes out.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from bandit_router.errors import EventError
from bandit_router.events.codec import FeaturesOnWire
from bandit_router.events.ids import clean_text
from bandit_router.events.schema import SCHEMA_VERSION, Change, EscalationReason
from bandit_router.events.validation import validate
from bandit_router.types import Features, Interaction, Slice

Row = Interaction | Change
"""One row of the training log."""


class InteractionOnWire(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="interaction",
):
    """JSON form of :class:`~bandit_router.types.Interaction`; field for field the same."""

    event_id: str
    ts: float
    closed_ts: float
    app: str
    unit_id: str
    tenant: str
    variant: str
    features: FeaturesOnWire
    eligible: tuple[str, ...]
    pmf: tuple[float, ...]
    action: str
    propensity: float
    slice: Slice
    learn: bool
    quality_value_usd: float
    score: float | None
    cost_usd: float | None
    latency_s: float | None
    escalations: tuple[EscalationReason, ...]
    schema: int = SCHEMA_VERSION


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(InteractionOnWire | Change)


def encode_row(row: Row) -> bytes:
    """The row as one JSON object. Raises EventError when a number is not finite or out of range."""
    if isinstance(row, Change):
        validate(row)
        return _encoder.encode(row)
    _check(row)
    try:
        return _encoder.encode(_to_wire(row))
    except UnicodeEncodeError:
        return _encoder.encode(_to_wire(_clean(row)))


def decode_row(data: bytes) -> Row:
    """The row in ``data``. Raises EventError when it is none of this schema version."""
    try:
        wire = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not a row of a training log: {error}", reason="undecodable") from error
    if wire.schema != SCHEMA_VERSION:
        raise EventError(f"row of schema {wire.schema}", reason="unknown_version")
    if isinstance(wire, Change):
        validate(wire)
        return wire
    fields = {name: getattr(wire, name) for name in Interaction.__struct_fields__}
    fields["features"] = Features(
        dense=np.array(wire.features.dense, dtype=np.float64),
        ngrams=tuple(wire.features.ngrams),
        columns=wire.features.columns,
    )
    row = Interaction(**fields)
    _check(row)
    return row


def _check(row: Interaction) -> None:
    numbers = (row.ts, row.closed_ts, row.propensity, row.quality_value_usd, *row.pmf)
    optional = (row.score, row.cost_usd, row.latency_s)
    known = [value for value in optional if value is not None]
    for value in (*numbers, *known):
        if type(value) is not float or not math.isfinite(value):
            raise EventError(f"interaction {row.event_id:.80}: {value!r:.40} is no finite float")
    if row.score is not None and not 0.0 <= row.score <= 1.0:
        raise EventError(f"interaction {row.event_id:.80}: score {row.score!r} outside [0, 1]")
    if row.cost_usd is not None and row.cost_usd < 0.0:
        raise EventError(f"interaction {row.event_id:.80}: cost_usd {row.cost_usd!r} is negative")
    if not 0.0 < row.propensity <= 1.0:
        raise EventError(f"interaction {row.event_id:.80}: propensity {row.propensity!r}")
    if not np.isfinite(row.features.dense).all():
        raise EventError(f"interaction {row.event_id:.80}: features are not finite")


def _clean(row: Interaction) -> Interaction:
    texts = {name: clean_text(getattr(row, name)) for name in ("event_id", "unit_id", "tenant")}
    columns = {clean_text(k): clean_text(v) for k, v in row.features.columns.items()}
    features = msgspec.structs.replace(row.features, columns=columns)
    return msgspec.structs.replace(row, features=features, **texts)


def _to_wire(row: Interaction) -> InteractionOnWire:
    features = row.features
    return InteractionOnWire(
        event_id=row.event_id,
        ts=row.ts,
        closed_ts=row.closed_ts,
        app=row.app,
        unit_id=row.unit_id,
        tenant=row.tenant,
        variant=row.variant,
        features=FeaturesOnWire(
            dense=features.dense.tolist(), ngrams=list(features.ngrams), columns=features.columns
        ),
        eligible=row.eligible,
        pmf=row.pmf,
        action=row.action,
        propensity=row.propensity,
        slice=row.slice,
        learn=row.learn,
        quality_value_usd=row.quality_value_usd,
        score=row.score,
        cost_usd=row.cost_usd,
        latency_s=row.latency_s,
        escalations=row.escalations,
    )
