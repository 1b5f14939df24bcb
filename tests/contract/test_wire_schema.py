"""The published JSON Schema and the codec say the same of every event."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from bandit_router.errors import EventError
from bandit_router.events import decode, encode
from bandit_router.events.wire_schema import wire_schema

SCHEMA = wire_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
CORPUS = Path(__file__).resolve().parents[1] / "golden" / "v1"
VALID = sorted((CORPUS / "valid").glob("*.json"))

BEYOND = {
    "invalid--action_not_eligible", "invalid--change_nested_deep", "invalid--pmf_short",
    "invalid--pmf_sum_off_by_2e-6", "invalid--pmf_sums_to_0.9", "invalid--predicted_score_short",
    "invalid--propensity_not_of_the_pmf", "undecodable--lone_surrogate",
}  # fmt: skip
"""Golden invalid events that a JSON Schema has no words for."""


def as_json(data: bytes) -> Any:
    """The JSON in ``data``, or None when it is none: NaN and infinities are none."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        return None


JSON = {path: as_json(path.read_bytes()) for path in sorted((CORPUS / "invalid").glob("*.json"))}
INVALID = [path for path, value in JSON.items() if value is not None or path.stem.endswith("_null")]


def test_it_is_a_json_schema():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_a_golden_event_is_valid(path: Path):
    assert [error.message for error in VALIDATOR.iter_errors(as_json(path.read_bytes()))] == []


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_a_golden_invalid_event_is_refused_where_a_schema_can_say_why(path: Path):
    assert VALIDATOR.is_valid(JSON[path]) is (path.stem in BEYOND)


def test_every_field_says_what_it_means():
    for name, form in SCHEMA["$defs"].items():
        assert form["description"], name
        for field, found in form["properties"].items():
            assert found["description"], f"{name}.{field}"


ODD: list[Any] = [
    None, True, False, 0, 1, 2, -1, 0.5, 1.0, 1.5, -0.0, 2**53, 2**63, 10**30, "", "a", "c",
    "x" * 256, "x" * 257, "\U0001f600" * 256, "forced", "score", "thumbs", "outcome", "change", [],
    [1], [0.5, 0.5], ["a", "b", "c"], [0.25, 0.5, 0.25], {}, {"dense": []}, {"a": "b"},
    {"dense": [1], "ngrams": [2**18]},
]  # fmt: skip


def changed(event: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The event with one to three fields taken out, replaced or added."""
    event = dict(event)
    for _ in range(rng.randint(1, 3)):
        field = rng.choice([*event, "colour", "kind", "type"])
        if rng.random() < 0.2:
            event.pop(field, None)
        else:
            event[field] = rng.choice(ODD)
    return event


@settings(max_examples=600)
@given(st.sampled_from(VALID), st.integers(0, 2**32 - 1))
def test_what_the_codec_takes_and_gives_the_schema_allows(path: Path, seed: int):
    event = changed(as_json(path.read_bytes()), random.Random(seed))
    try:
        decoded = decode(json.dumps(event).encode())
    except EventError:
        return
    for form in (event, as_json(encode(decoded))):
        assert [error.message for error in VALIDATOR.iter_errors(form)] == []


def test_the_changes_are_both_taken_and_refused():
    taken = 0
    for seed in range(2000):
        rng = random.Random(seed)
        event = changed(as_json(rng.choice(VALID).read_bytes()), rng)
        try:
            decode(json.dumps(event).encode())
        except EventError:
            continue
        taken += 1
    assert 100 < taken < 1900


def test_ranges_that_end_open_are_open_in_the_schema_too():
    decision = as_json((CORPUS / "valid" / "decision.json").read_bytes())
    assert not VALIDATOR.is_valid({**decision, "quality_value_usd": 0.0})
    assert VALIDATOR.is_valid({**decision, "quality_value_usd": math.ulp(0.0)})
    assert not VALIDATOR.is_valid({**decision, "learn_seq": 2**63})
    assert VALIDATOR.is_valid({**decision, "learn_seq": 2**63 - 1})
