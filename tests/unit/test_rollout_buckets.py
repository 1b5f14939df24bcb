"""Buckets: sticky, uniform, blind to the percentages, and raised at the control's expense alone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from bandit_router.adapters.flags import FileProvider
from bandit_router.errors import InputError
from bandit_router.events import MAX_ID_CHARS
from bandit_router.rollout.flag_document import with_split
from bandit_router.rollout.split import BUCKETS, Split, split, split_of
from bandit_router.rollout.units import unit_of
from bandit_router.rollout.variants import VARIANTS
from bandit_router.types import Context

UNITS = [f"user-{number}" for number in range(4000)]
SHARES = st.integers(0, BUCKETS)


def dealt(folder: Path, shares: Split, units=UNITS, flag: str = "bandit-router") -> dict[str, str]:
    """The variant of each unit, by a flag file with these shares."""
    file = folder / "flags.json"
    file.write_text(json.dumps(with_split({"flags": {}}, flag, shares)))
    provider = FileProvider(file, flag)
    return {unit: provider.variant_of(unit) for unit in units}


def test_a_unit_keeps_its_variant(tmp_path):
    assert dealt(tmp_path, split(25.0)) == dealt(tmp_path, split(25.0))


def test_units_are_dealt_as_they_always_were(tmp_path):
    """Another hash would deal all units of a running experiment anew."""
    lowest = {}
    for unit in ("alice", "bob", "zoë", "user-1", "tenant:acme"):
        low, high = 0, BUCKETS  # the least share of the bandit at which it serves the unit
        while low < high:
            middle = (low + high) // 2
            served = dealt(tmp_path, split(middle / 100), [unit])[unit]
            low, high = (low, middle) if served == "bandit" else (middle + 1, high)
        lowest[unit] = low
    assert lowest == GOLDEN


GOLDEN = {"alice": 9316, "bob": 8760, "zoë": 8207, "user-1": 3121, "tenant:acme": 5438}


@pytest.mark.parametrize(("low", "high"), [(0, 5), (5, 50), (50, 99), (12.34, 12.35)])
def test_raising_the_bandit_moves_only_units_of_the_incumbent(tmp_path, low, high):
    before = dealt(tmp_path, split(low, explore=1))
    after = dealt(tmp_path, split(high, explore=1))
    moved = {(before[unit], after[unit]) for unit in UNITS if before[unit] != after[unit]}
    assert moved <= {("static", "bandit")}
    assert split(low, explore=1).moved(split(high, explore=1)) == {
        "static>bandit": pytest.approx(high - low)
    }


@given(SHARES, SHARES, SHARES)
def test_raising_the_bandit_never_takes_a_bucket_from_it_or_from_the_holdout(one, other, explore):
    low, high = sorted(min(share, BUCKETS - explore) / 100 for share in (one, other))
    before, after = split(low, explore=explore / 100), split(high, explore=explore / 100)
    assert set(before.moved(after)) <= {"static>bandit"}
    assert set(after.moved(before)) <= {"bandit>static"}


@given(SHARES, st.integers(0, 500), st.integers(0, 500))
def test_raising_the_holdout_moves_only_units_of_the_incumbent(bandit, one, other):
    low, high = sorted((one, other))
    bandit = min(bandit, BUCKETS - high) / 100
    moved = split(bandit, explore=low / 100).moved(split(bandit, explore=high / 100))
    assert set(moved) <= {"static>explore"}


@settings(max_examples=10)
@given(SHARES, SHARES)
def test_what_moved_is_what_the_buckets_say(one, other):
    before, after = split(one / 100), split(other / 100)
    differing = sum(before.of(b) != after.of(b) for b in range(BUCKETS))
    assert sum(before.moved(after).values()) == pytest.approx(differing / 100)


def test_the_shares_are_met_by_units(tmp_path):
    """A right hash fails this once in 10,000 sets of units; these are fixed."""
    shares = split(20, shadow=10, explore=5)
    found = list(dealt(tmp_path, shares).values())
    observed = [found.count(variant) for variant in VARIANTS]
    expected = [shares.percent[variant] / 100 * len(UNITS) for variant in VARIANTS]
    assert chisquare(observed, expected).pvalue > 1e-4


def test_units_in_sequence_are_dealt_independently_of_each_other(tmp_path):
    found = list(dealt(tmp_path, split(50)).values())
    repeats = sum(a == b for a, b in itertools.pairwise(found))
    assert binomtest(repeats, len(found) - 1, 0.5).pvalue > 1e-4


def test_another_flag_deals_independently(tmp_path):
    ours = list(dealt(tmp_path, split(50)).values())
    theirs = list(dealt(tmp_path, split(50), flag="other").values())
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert binomtest(same, len(ours), 0.5).pvalue > 1e-4


def test_at_nothing_and_at_everything_there_is_no_exception(tmp_path):
    assert set(dealt(tmp_path, split(0)).values()) == {"static"}
    assert set(dealt(tmp_path, split(100)).values()) == {"bandit"}


@pytest.mark.parametrize("percent", [-1, 100.01, 0.001, float("nan"), float("inf")])
def test_a_share_that_has_no_buckets_is_refused(percent):
    with pytest.raises(InputError, match=r"multiple of 0\.01"):
        split(percent)


def test_shares_beyond_everything_are_refused():
    with pytest.raises(InputError, match="exceed 100 %"):
        split(99, explore=2)


@pytest.mark.parametrize(
    "targeting",
    [
        None,
        {},
        {"if": [True, "bandit", "static"]},
        {"fractional": [{"var": "email"}, ["bandit", 1]]},
        {"fractional": [["bandit", "many"]]},
        {"fractional": [["bandit", 0]]},
    ],
)
def test_any_other_targeting_has_no_known_split(targeting):
    assert split_of(targeting) is None


def test_the_unit_is_the_given_one_or_one_that_says_where_it_is_from():
    def of(**known):
        return unit_of(Context(event_id="e1", ts=0.0, **known))

    columns = {"session": "s1"}
    assert of(unit_id="u", tenant="t", columns=columns) == ("u", "")
    assert of(tenant="t", columns=columns) == ("session:s1", "session")
    assert of(tenant="t") == ("tenant:t", "tenant")
    assert of() == ("event:e1", "event")


def test_a_unit_is_bucketed_by_the_form_in_which_it_is_logged():
    long, broken = "x" * 1000, "\ud800"
    unit, _ = unit_of(Context(event_id="e", ts=0.0, unit_id=long))
    assert len(unit) == MAX_ID_CHARS
    unit, _ = unit_of(Context(event_id="e", ts=0.0, unit_id=broken))
    assert unit.encode()
