"""What a logged ``flag_changed`` says of the shares, whoever has written it."""

from __future__ import annotations

import pytest

from bandit_router.store_ops.units import known_shares


def test_shares_sum_to_one():
    percent = {"bandit": 30.0, "shadow": 0.0, "static": 60.0, "explore": 10.0}
    assert known_shares({"enabled": True, "percent": percent}) == pytest.approx(
        {"bandit": 0.3, "shadow": 0.0, "static": 0.6, "explore": 0.1}
    )


def test_a_flag_that_is_off_has_none():
    assert known_shares({"enabled": False, "percent": {"static": 100.0}}) is None


@pytest.mark.parametrize(
    "percent",
    [
        None,
        [50.0, 50.0],
        {},
        {"bandit": 0.0, "static": 0.0},
        {"bandit": "50", "static": "50"},
        {"bandit": None, "static": 100.0},
        {"bandit": [1], "static": 1},
        {"bandit": -5.0, "static": 10.0},
        {"bandit": 1e308, "static": 1e308},
        {"bandit": 10**400, "static": 1},
        {"somebody": 100.0},
    ],
)
def test_what_is_no_split_is_not_known_and_stops_nobody(percent):
    assert known_shares({"enabled": True, "percent": percent}) is None
