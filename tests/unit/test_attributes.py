"""Prompt attributes: bounded and finite for any text, and what they say about plain prompts."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_router.errors import InputError
from bandit_router.features.attributes import ATTRIBUTE_NAMES, AttributeScaling, fit_scaling, raw

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)


def value(name: str, text: str) -> float:
    return raw(text)[ATTRIBUTE_NAMES.index(name)]


def assert_bounded(values: list[float]) -> None:
    assert len(values) == len(ATTRIBUTE_NAMES)
    assert all(math.isfinite(v) and 0.0 <= v < 20.0 for v in values)


def test_every_hostile_text_gives_bounded_finite_values(hostile_text):
    assert_bounded(raw(hostile_text))
    assert raw(hostile_text) == raw(hostile_text)


@given(any_text)
def test_any_text_gives_bounded_finite_values(text):
    assert_bounded(raw(text))


def test_a_megabyte_costs_under_five_milliseconds():
    text = "lorem ipsum (a) 12 {x} \n" * 42_000
    start = time.perf_counter()
    for _ in range(20):
        raw(text)
    assert (time.perf_counter() - start) / 20 < 0.005


def test_long_texts_are_read_at_both_ends_only():
    middle = ["x" * 100_000, "? 1 { json \n" * 10_000]
    first, second = (raw("why? " * 1000 + m[:100_000] + " solve" * 1000) for m in middle)
    assert first == second


def test_log_chars_is_the_first_and_counts_the_whole_text():
    assert ATTRIBUTE_NAMES[0] == "log_chars"
    assert raw("x" * 99_999)[0] == pytest.approx(math.log(100_000))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("digit_share", "12ab", math.sqrt(0.5)),
        ("number_count", "12 apples and 3 pears for 450", math.log(4)),
        ("upper_share", "ABcd", math.sqrt(0.5)),
        ("code_marks", "{}ab", math.sqrt(0.5)),
        ("code_words", "Write a Python function", math.log(3)),
        ("math_marks", "1+2=", math.sqrt(0.5)),
        ("math_words", "How many? Solve and compute.", math.log(4)),
        ("questions", "Why? How?", math.log(3)),
        ("lines", "a\nb\nc", math.log(3)),
        ("choices", "(A) one (B) two", math.log(3)),
        ("structured_format", "Answer in JSON.", math.log(2)),
        ("list_format", "List ten ideas", math.log(3)),
        ("explain_words", "Explain why", math.log(3)),
        ("write_words", "write a poem", math.log(3)),
        ("non_ascii_share", "éa", math.sqrt(0.5)),
        ("word_length", "ab cd", math.log1p(2.5)),
    ],
)
def test_an_attribute_counts_what_its_name_says(name, text, expected):
    assert value(name, text) == pytest.approx(expected)


def test_an_empty_text_has_nothing_to_count():
    assert raw("") == [0.0] * len(ATTRIBUTE_NAMES)


def test_fitted_scaling_gives_each_source_its_weight_and_unit_variance():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, (4000, len(ATTRIBUTE_NAMES)))
    weights = np.where(np.arange(4000) < 1000, 3.0, 1.0)
    scaling = fit_scaling(values, weights)
    scaled = np.array([scaling(list(row)) for row in values])
    share = weights / weights.sum()
    np.testing.assert_allclose(share @ scaled, 0.0, atol=1e-9)
    np.testing.assert_allclose(share @ scaled**2, 1.0, atol=1e-9)


def test_an_attribute_that_never_varied_does_not_blow_up():
    scaling = fit_scaling(np.zeros((5, len(ATTRIBUTE_NAMES))), np.ones(5))
    assert scaling.scale.min() == 0.05


@pytest.mark.parametrize(
    ("mean", "scale", "message"),
    [
        (np.zeros(3), np.ones(3), "means and scales"),
        (np.full(len(ATTRIBUTE_NAMES), np.nan), np.ones(len(ATTRIBUTE_NAMES)), "finite"),
        (np.zeros(len(ATTRIBUTE_NAMES)), np.zeros(len(ATTRIBUTE_NAMES)), "above 0"),
    ],
)
def test_unusable_scaling_is_refused(mean, scale, message):
    with pytest.raises(InputError, match=message):
        AttributeScaling(mean, scale)
