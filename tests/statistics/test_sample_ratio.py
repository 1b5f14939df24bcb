"""The test of the split: rarely wrong however often one looks, and soon right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bandit_router.errors import InputError
from bandit_router.ope.sample_ratio import SampleRatio

AB = ("bandit", "static")
PLANS = {
    "half": lambda t: {"bandit": 0.5, "static": 0.5},
    "raised": lambda t: (
        {"bandit": 0.05, "static": 0.95} if t < 150 else {"bandit": 0.5, "static": 0.5}
    ),
}


def run(share_of, true_share_of, units: int, seed: int) -> SampleRatio:
    ratio, rng = SampleRatio(AB), np.random.default_rng(seed)
    for t, u in enumerate(rng.random(units)):
        ratio.update("bandit" if u < true_share_of(t) else "static", share_of(t))
    return ratio


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_right_split_is_accused_in_at_most_alpha_of_runs_with_a_look_after_every_unit(plan):
    """p_value is the smallest ever seen, so a run is accused if it was at any look."""
    runs, alpha = 400, 0.05
    accused = sum(
        run(plan, lambda t: plan(t)["bandit"], 300, seed).mismatch(alpha) for seed in range(runs)
    )
    assert accused <= binom.ppf(0.999, runs, alpha)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_lost_units_are_found(plan):
    """Every fourth request of the bandit gets lost before it is logged."""

    def kept(t: int) -> float:
        share = plan(t)["bandit"]
        return 0.75 * share / (0.75 * share + 1.0 - share)

    found = [run(plan, kept, 3000, seed).mismatch() for seed in range(20)]
    assert sum(found) >= 19


@given(
    st.lists(st.tuples(st.sampled_from(AB), st.floats(0.01, 0.99)), max_size=20),
    st.floats(0.01, 0.99),
)
def test_the_evidence_is_a_martingale_whatever_came_before(past, share):
    def evidence(last: str) -> float:
        ratio = SampleRatio(AB)
        for variant, before in past:
            ratio.update(variant, {"bandit": before, "static": 1.0 - before})
        now = ratio._log_evidence
        ratio.update(last, {"bandit": share, "static": 1.0 - share})
        return math.exp(ratio._log_evidence - now)

    expected = share * evidence("bandit") + (1.0 - share) * evidence("static")
    assert expected == pytest.approx(1.0, abs=1e-12)


def test_one_unit_where_there_should_be_none_is_enough():
    ratio = SampleRatio(AB)
    ratio.update("static", {"static": 1.0})
    assert ratio.p_value == 1.0
    ratio.update("bandit", {"static": 1.0})
    assert ratio.p_value == 0.0


@pytest.mark.parametrize(
    ("variant", "shares"),
    [
        ("green", {"bandit": 1.0}),
        ("bandit", {"bandit": 0.5, "green": 0.5}),
        ("bandit", {"bandit": 0.5}),
        ("bandit", {"bandit": 1.5, "static": -0.5}),
        ("bandit", {"bandit": math.nan, "static": 1.0}),
        ("bandit", {}),
    ],
)
def test_what_is_no_split_is_refused_and_not_taken(variant, shares):
    ratio = SampleRatio(AB)
    with pytest.raises(InputError):
        ratio.update(variant, shares)
    assert ratio.units == 0


@pytest.mark.parametrize("variants", [(), ("bandit",), ("bandit", "bandit")])
def test_a_split_needs_two_variants(variants):
    with pytest.raises(InputError):
        SampleRatio(variants)
