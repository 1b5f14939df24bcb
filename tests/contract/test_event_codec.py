"""Laws of the codec over everything Hypothesis can think of."""

from __future__ import annotations

import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from support.streams import completion, decision, escalation, feedback

from bandit_router.errors import EventError
from bandit_router.events import (
    Change,
    Completion,
    Feedback,
    decode,
    decode_row,
    encode,
    encode_row,
    uuid7,
)
from bandit_router.joiner.pending import Pending
from bandit_router.joiner.rules import JoinRules
from bandit_router.types import Decision, Features, Interaction

REASONS = {"null", "oversize", "undecodable", "unknown_version", "invalid"}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
NAMES = st.text(min_size=1, max_size=20)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    eligible = tuple(draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)))
    weights = draw(st.lists(st.floats(1e-3, 1.0), min_size=len(eligible), max_size=len(eligible)))
    pmf = tuple(w / math.fsum(weights) for w in weights)
    index = draw(st.integers(0, len(eligible) - 1))
    dense = np.array(draw(st.lists(FINITE, max_size=8)), dtype=np.float64)
    return decision(
        draw(NAMES),
        draw(FINITE),
        features=Features(
            dense=dense,
            ngrams=tuple(draw(st.lists(st.integers(0, 2**18 - 1), max_size=4))),
            columns=draw(st.dictionaries(NAMES, st.text(max_size=10), max_size=4)),
        ),
        eligible=eligible,
        pmf=pmf,
        action=eligible[index],
        propensity=pmf[index],
        predicted_score=tuple(draw(st.lists(FINITE, min_size=len(pmf), max_size=len(pmf)))),
        predicted_cost_usd=(),
        quality_value_usd=draw(st.floats(1e-300, 1e300)),
        unit_id=draw(st.text(max_size=10)),
        prompt=draw(st.none() | st.text(max_size=30)),
        learn_seq=draw(st.integers(0, 2**62)),
    )


def same_bits(a: Decision, b: Decision) -> bool:
    """Equal in every field, floats by their bits."""
    same = a.features.dense.tobytes() == b.features.dense.tobytes()
    for name in Decision.__struct_fields__:
        if name != "features":
            same = same and repr(getattr(a, name)) == repr(getattr(b, name))
    others = (a.features.ngrams, list(a.features.columns.items()))
    return same and others == (b.features.ngrams, list(b.features.columns.items()))


def is_event_or_has_reason(data: bytes) -> bool:
    try:
        event = decode(data)
    except EventError as error:
        return error.reason in REASONS and bool(str(error))
    return repr(decode(encode(event))) == repr(event)


@given(st.binary(max_size=300))
@example(b'{"schema":1}')
@example(b"[" * 200_000)
@example(b'{"schema":1,"type":' + b"[" * 200_000)
@example(b'{"schema":1e400,"type":"change"}')
@example(b'{"schema":123456789012345678901234567890}')
def test_any_bytes_are_an_event_or_an_error_with_a_reason(data: bytes):
    assert is_event_or_has_reason(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=12,
    ),
    st.sampled_from(["decision", "outcome", "change"]),
    st.sampled_from(["completion", "escalation", "feedback", "error", "model_added"]),
)
def test_any_json_in_any_place_is_an_event_or_an_error_with_a_reason(value, kind, subkind):
    whole = {"schema": 1, "type": kind, "kind": subkind, "ts": 1.0, "event_id": value}
    for data in (value, whole, {**whole, "event_id": "x", "data": value, "value": value}):
        assert is_event_or_has_reason(json.dumps(data).encode())


@given(st.sampled_from([decision, completion, escalation, feedback]), st.data())
def test_any_change_of_a_byte_is_an_event_or_an_error_with_a_reason(make, data):
    encoded = bytearray(encode(make()))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    assert is_event_or_has_reason(bytes(encoded))


@given(decisions())
def test_a_decision_survives_the_wire_bit_for_bit(event: Decision):
    data = encode(event)
    again = decode(data)
    assert same_bits(event, again)
    assert encode(again) == data


@given(FINITE, FINITE, ANY_TEXT, ANY_TEXT)
def test_feedback_with_any_text_is_after_construction_what_it_is_after_the_wire(ts, value, a, b):
    event = Feedback(
        event_id="x" + a, ts=ts, metric="m" + b, value=value, source=b, feedback_id="f" + a
    )
    again = decode(encode(event))
    assert repr(again) == repr(event)


ANY_DATA = st.dictionaries(
    st.text(max_size=3) | st.just("\ud800"),
    st.recursive(
        FINITE | st.just("a\udfff\0b") | st.integers(-(2**70), 2**70),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)


@given(FINITE, ANY_DATA)
def test_a_change_with_any_data_is_after_construction_what_it_is_after_the_wire(ts, data):
    event = Change(ts=ts, kind="flag_changed", data=data)
    try:
        encoded = encode(event)
    except EventError:
        return  # an integer too large, or nested too deep
    assert repr(decode(encoded)) == repr(event)


@given(decisions(), st.floats(0.0, 1.0), st.floats(0.0, 1e6) | st.none(), FINITE)
def test_a_training_row_survives_the_log_bit_for_bit(event, score, cost, ts):
    pending = Pending(event, 0.0)
    answer = Completion(event_id=event.event_id, ts=ts, model=event.action, cost_usd=cost)
    judged = feedback(event.event_id, 1.0, value=score)
    pending.add(answer, "answer")
    pending.add(judged, "f", score)
    row = pending.finished(JoinRules())
    assert isinstance(row, Interaction)
    data = encode_row(row)
    again = decode_row(data)
    assert encode_row(again) == data
    assert again.features.dense.tobytes() == row.features.dense.tobytes()
    assert (again.score, again.cost_usd, again.pmf) == (score, cost, event.pmf)


BAD_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (decision, "ts"),
        (decision, "propensity"),
        (decision, "quality_value_usd"),
        (decision, "epsilon"),
        (completion, "ts"),
        (completion, "cost_usd"),
        (completion, "latency_s"),
        (completion, "confidence"),
        (escalation, "cost_usd"),
        (feedback, "value"),
    ],
)
def test_a_number_that_json_cannot_carry_is_refused_on_the_way_out(make, field, bad):
    with pytest.raises(EventError, match=field):
        encode(make(**{field: bad}))


@pytest.mark.parametrize("bad", BAD_NUMBERS)
@pytest.mark.parametrize("name", ["pmf", "predicted_score", "predicted_cost_usd"])
def test_a_vector_with_a_bad_number_is_refused_on_the_way_out(name, bad):
    with pytest.raises(EventError, match=name):
        encode(decision(**{name: (0.5, bad, 0.5)}))


@pytest.mark.parametrize("bad", BAD_NUMBERS)
def test_features_with_a_bad_number_are_refused_on_the_way_out(bad):
    with pytest.raises(EventError, match=r"features\.dense"):
        encode(decision(features=Features(dense=np.array([0.0, bad]))))


@given(st.floats(0.0, 2.0**48 / 1000.0 - 1.0), st.binary(min_size=10, max_size=10))
def test_a_uuid7_has_its_version_variant_and_time(ts: float, random: bytes):
    text = uuid7(ts, random)
    value = int(text.replace("-", ""), 16)
    assert [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12]
    assert value >> 76 & 0xF == 7
    assert value >> 62 & 0b11 == 0b10
    assert value >> 80 == int(ts * 1000.0)


@given(st.floats(0.0, 1e9), st.floats(0.002, 1e6), st.binary(min_size=10, max_size=10))
def test_uuid7s_sort_by_time(ts: float, later: float, random: bytes):
    assert uuid7(ts, b"\xff" * 10) < uuid7(ts + later, random)
