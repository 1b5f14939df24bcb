"""Sums without rounding: the nearest float64 to the true sum, whatever the order and the parts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_router.errors import InputError
from bandit_router.ope.exact import ExactSums

FLOATS = st.floats(allow_nan=False, allow_infinity=False, max_value=1e300, min_value=-1e300)


def summed(values) -> ExactSums:
    sums = ExactSums(1)
    sums.add(np.array(values, dtype=np.float64).reshape(-1, 1))
    return sums


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, max_size=40))
def test_the_sum_is_the_nearest_float_to_the_true_one(values):
    assert summed(values).values()[0, 0] == float(sum(map(Fraction, values), Fraction(0)))


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, max_size=30), st.randoms(use_true_random=False))
def test_order_and_parts_do_not_matter(values, random):
    cut = random.randint(0, len(values))
    shuffled = random.sample(values, len(values))
    assert summed(shuffled[:cut]) + summed(shuffled[cut:]) == summed(values)


@pytest.mark.parametrize(
    "values",
    [
        [1e308, 1.0, -1e308],
        [5e-324, 5e-324, -5e-324],
        [1.0, 2.0**-60, -1.0],
        [0.1] * 10,
        [-0.0],
        [],
        [2.2250738585072014e-308, -5e-324],
    ],
)
def test_it_agrees_with_fsum_where_ordinary_sums_fail(values):
    assert summed(values).values()[0, 0] == math.fsum(values)


def test_groups_are_summed_apart_and_taken_apart():
    rng = np.random.default_rng(0)
    terms, groups = rng.normal(size=(100, 2)), rng.integers(0, 3, 100)
    sums = ExactSums(2, 3)
    sums.add(terms, groups)
    for group in range(3):
        expected = [math.fsum(terms[groups == group, column]) for column in range(2)]
        assert sums.values()[group].tolist() == expected
        assert sums.part(slice(group, group + 1)).values()[0].tolist() == expected
    assert (sums + sums - sums) == sums


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_nothing_is_added(bad):
    sums = summed([1.5])
    with pytest.raises(InputError, match="term 1 of a sum is not finite"):
        sums.add(np.array([[2.0], [bad]]))
    assert sums == summed([1.5])
