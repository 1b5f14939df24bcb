"""The codec's particular cases; its laws are in tests/contract."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.streams import completion, decision, feedback

from bandit_router.errors import EventError
from bandit_router.events import (
    MAX_EVENT_BYTES,
    UPCASTERS,
    Change,
    Feedback,
    clean_text,
    decode,
    decode_row,
    encode,
    encode_row,
    uuid7,
)


def renamed(old: str, new: str, scale: float = 1.0):
    """An upcaster that renames a number."""

    def step(raw):
        rest = {key: value for key, value in raw.items() if key != old}
        return {**rest, new: raw[old] * scale}

    return step


def test_an_older_version_is_upcast_step_by_step(monkeypatch):
    monkeypatch.setitem(UPCASTERS, -1, renamed("points", "score", 0.1))
    monkeypatch.setitem(UPCASTERS, 0, renamed("score", "value"))
    old = json.loads(encode(feedback()))
    del old["value"]
    event = decode(json.dumps({**old, "schema": -1, "points": 5}).encode())
    assert isinstance(event, Feedback)
    assert (event.value, event.schema) == (0.5, 1)


@pytest.mark.parametrize(
    "upcast",
    [
        lambda raw: {**raw, "type": "gossip"},
        lambda raw: {**raw, "type": []},
        lambda raw: {**raw, "ts": "noon"},
        lambda raw: raw["missing"],
        lambda raw: raw["type"] + 1,
    ],
)
def test_an_old_event_that_cannot_be_upcast_is_an_event_error(monkeypatch, upcast):
    monkeypatch.setitem(UPCASTERS, 0, upcast)
    with pytest.raises(EventError) as caught:
        decode(b'{"schema": 0, "type": "outcome", "kind": "feedback"}')
    assert caught.value.reason == "invalid"


def test_an_event_larger_than_the_limit_is_refused_both_ways():
    with pytest.raises(EventError) as out:
        encode(decision(prompt="x" * MAX_EVENT_BYTES))
    with pytest.raises(EventError) as back:
        decode(b" " * (MAX_EVENT_BYTES + 1))
    assert out.value.reason == back.value.reason == "oversize"


@pytest.mark.parametrize("nothing", [None, b""])
def test_nothing_is_refused_as_null(nothing):
    with pytest.raises(EventError) as caught:
        decode(nothing)
    assert caught.value.reason == "null"


def test_the_order_of_context_columns_survives():
    columns = {"z": "1", "a": "2", "m": "3"}
    features = decision().features
    event = decision(features=type(features)(dense=features.dense, columns=columns))
    assert list(decode(encode(event)).features.columns) == ["z", "a", "m"]


def test_numpy_numbers_and_integers_become_floats_in_the_constructor():
    event = feedback(ts=np.float64(3), value=np.float32(0.5))
    assert (type(event.ts), type(event.value)) == (float, float)
    assert type(completion(cost_usd=0).cost_usd) is float


def test_a_decision_with_an_integer_for_a_float_is_refused():
    with pytest.raises(EventError, match="ts"):
        encode(decision(ts=1))


def test_lone_surrogates_and_nul_in_any_text_travel():
    event = decision(
        "id\ud800\0", unit_id="\udfff", tenant="\0", prompt="a\ud800b", rules=("\ud83d",)
    )
    again = decode(encode(event))
    assert again.event_id == "id\ufffd\0"
    assert again.prompt == "a\ufffdb"
    assert again.rules == ("\ufffd",)


def test_a_surrogate_pair_is_a_character_and_stays():
    assert clean_text("\ud83d\ude42") == "\U0001f642"


def test_an_object_without_json_form_is_an_event_error():
    with pytest.raises(EventError, match="data"):
        encode(Change(ts=1.0, kind="flag_changed", data={"x": object()}))
    with pytest.raises(EventError, match="data"):
        encode(Change(ts=1.0, kind="flag_changed", data={"x": float("nan")}))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"type":"interaction"}', b'{"type":"decision"}', b"[" * 100_000]
)
def test_a_damaged_training_row_is_an_event_error(data):
    with pytest.raises(EventError):
        decode_row(data)


def test_a_training_row_of_another_version_is_refused():
    data = encode_row(Change(ts=1.0, kind="model_removed", data={"model": "a"}))
    with pytest.raises(EventError) as caught:
        decode_row(data.replace(b'"schema":1', b'"schema":2'))
    assert caught.value.reason == "unknown_version"


@pytest.mark.parametrize(
    ("ts", "random"),
    [(-1.0, bytes(10)), (float("nan"), bytes(10)), (2.0**48, bytes(10)), (0.0, b"short")],
)
def test_a_uuid7_out_of_range_is_refused(ts, random):
    with pytest.raises(EventError):
        uuid7(ts, random)
