"""Dead letters keep what came, why it was set aside and where it stood; reading them is total."""

from __future__ import annotations

import hashlib

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from bandit_router.adapters.kafka.dead_letters import (
    KEPT_BYTES,
    NULL,
    UNLABELLED,
    DeadRecord,
    decode_dead,
    encode_dead,
    receipt,
    receipt_of,
    set_aside,
)

ANY_TEXT = st.text(max_size=300)
ANY_HEADER = st.tuples(
    st.sampled_from(["reason", "topic", "partition", "offset", "app", "ts", "size", "key", "?"]),
    st.binary(max_size=40) | st.none() | st.integers().map(lambda n: str(n).encode()),
)


def fields(record: DeadRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in DeadRecord.__struct_fields__}


@given(
    st.binary(max_size=200),
    st.integers(-1, 2**62),
    st.integers(-1, 2**62),
    st.text(max_size=200),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=50),
)
def test_what_is_set_aside_comes_back_as_it_was(value, partition, offset, app, ts, key):
    made = set_aside(
        "invalid",
        value,
        topic="bandit.outcomes",
        partition=partition,
        offset=offset,
        app=app,
        by="learner-1",
        ts=ts,
        key=key,
    )
    again = decode_dead(*encode_dead(made))
    assert fields(again) == fields(made)
    assert again.whole


def test_a_tombstone_has_the_reason_null_and_stays_one():
    value, headers = encode_dead(set_aside("undecodable", None, topic="t", ts=1.0))
    assert value is None
    again = decode_dead(value, headers)
    assert (again.reason, again.size, again.sha256, again.whole) == (NULL, 0, "", True)


def test_an_empty_value_is_no_tombstone():
    value, headers = encode_dead(set_aside("null", b"", topic="t", ts=1.0))
    assert value == b""
    assert decode_dead(value, headers).sha256 == hashlib.sha256(b"").hexdigest()


def test_a_huge_value_is_cut_and_says_how_large_it_was():
    data = b"x" * (KEPT_BYTES + 1)
    value, headers = encode_dead(set_aside("oversize", data, topic="t", ts=1.0))
    again = decode_dead(value, headers)
    assert again.value == data[:KEPT_BYTES]
    assert (again.size, again.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert not again.whole


def test_hostile_texts_and_keys_cannot_make_a_record_too_large():
    made = set_aside(
        "r" * 10**6,
        b"v" * 10**7,
        topic="t" * 10**6,
        app="\ud800" * 10**6,
        by="b" * 10**6,
        key=b"k" * 10**6,
        ts=0.0,
    )
    value, headers = encode_dead(made)
    assert len(value) + sum(len(name) + len(content) for name, content in headers) < 1_000_000


@given(st.binary(max_size=30) | st.none(), st.lists(ANY_HEADER, max_size=12))
@example(b"x", [("offset", b"9" * 5000), ("ts", b"1e999"), ("partition", None)])
def test_any_record_in_the_topic_can_be_read(value, headers):
    found = decode_dead(value, headers)
    assert found.value == value
    assert found.reason
    encode_dead(found)


@pytest.mark.parametrize(("value", "reason"), [(b"x", UNLABELLED), (None, NULL)])
def test_a_record_of_another_program_has_a_reason_too(value, reason):
    assert decode_dead(value, ()).reason == reason


@given(st.text(max_size=400), st.integers(-1, 10**12), st.binary(max_size=20) | st.none())
def test_a_receipt_names_its_letter_however_often_that_was_written(topic, offset, value):
    letter = set_aside("invalid", value, topic=topic, partition=3, offset=offset, ts=1.0)
    again = decode_dead(*encode_dead(letter))
    assert receipt_of(receipt(letter.token)) == letter.token == again.token
    assert receipt_of(encode_dead(letter)[1]) is None


def test_letters_of_other_records_have_other_tokens():
    places = [(0, 0), (0, 1), (1, 0), (-1, -1)]
    letters = [
        set_aside("invalid", value, topic=topic, partition=partition, offset=offset, ts=1.0)
        for topic in ("a", "b")
        for partition, offset in places
        for value in (b"x", b"y")
    ]
    # What never came into a topic is known by its content alone.
    assert len({letter.token for letter in letters}) == len(letters) - 2
