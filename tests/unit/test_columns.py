"""Context columns: normalised, bounded, in a deterministic order."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from bandit_router.features.columns import MAX_COLUMN_CHARS, MAX_COLUMNS, normalise_columns

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=100)
values = st.one_of(any_text, st.integers(), st.floats(), st.booleans(), st.none())


def test_keys_and_values_are_normalised():
    columns = {" Task ": "  gsm  ", "User-Tier": "Gold", "n": 3, "flag": True, "x": 0.5}
    assert normalise_columns(columns) == {
        "flag": "True",
        "n": "3",
        "task": "gsm",
        "user_tier": "Gold",
        "x": "0.5",
    }


def test_none_and_blank_values_and_unusable_keys_are_left_out():
    assert normalise_columns({"a": None, "b": "  ", "": "x", "--": "x", "c": "y"}) == {"c": "y"}


def test_the_order_given_does_not_matter():
    one = normalise_columns({"b": "1", "a": "2", "A": "3"})
    other = normalise_columns({"A": "3", "a": "2", "b": "1"})
    assert list(one.items()) == list(other.items()) == [("a", "3"), ("b", "1")]


def test_number_and_length_are_bounded():
    columns = {f"key_{i:03d}" + "k" * 200: "v" * 10_000_000 for i in range(40)}
    normal = normalise_columns(columns)
    assert len(normal) == MAX_COLUMNS
    assert all(len(k) == len(v) == MAX_COLUMN_CHARS for k, v in normal.items())
    assert next(iter(normal)).startswith("key_000")


def test_the_caller_s_mapping_is_left_alone():
    columns = {"Task": " gsm "}
    normalise_columns(columns)
    assert columns == {"Task": " gsm "}


def test_hostile_values_survive_json(hostile_text):
    normal = normalise_columns({"k": hostile_text, hostile_text: "v"})
    assert json.loads(json.dumps(normal).encode()) == normal


@given(st.dictionaries(any_text, values, max_size=40))
def test_any_mapping_gives_lawful_columns_that_normalise_to_themselves(columns):
    normal = normalise_columns(columns)
    assert len(normal) <= MAX_COLUMNS
    assert list(normal) == sorted(normal)
    for key, text in normal.items():
        assert re.fullmatch(r"[a-z0-9_]{1,64}", key)
        assert 0 < len(text.encode()) <= 4 * MAX_COLUMN_CHARS
    assert normalise_columns(normal) == normal
