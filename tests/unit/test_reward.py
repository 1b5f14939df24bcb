"""Reward and the mapping of feedback to scores, by hand-computed numbers."""

from __future__ import annotations

import math

import pytest

from bandit_router.errors import ConfigError, InputError
from bandit_router.reward import Metric, aggregate, reward

RATINGS = [(3.0, "c", 0.5), (1.0, "a", 0.0), (2.0, "b", 1.0)]


def test_reward_is_score_less_cost_in_units_of_score():
    assert reward(0.75, 0.002, 0.01) == pytest.approx(0.55)
    assert reward(0.0, 0.02, 0.01) == -2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.2, 0.0, 1.0), "score"),
        ((math.nan, 0.0, 1.0), "score"),
        ((0.5, -0.1, 1.0), "cost_usd"),
        ((0.5, math.inf, 1.0), "cost_usd"),
        ((0.5, 0.1, 0.0), "quality_value_usd"),
        ((0.5, 0.1, math.nan), "quality_value_usd"),
    ],
)
def test_a_reward_of_numbers_out_of_range_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        reward(*arguments)


@pytest.mark.parametrize(
    ("rule", "expected"), [("last", 0.5), ("first", 0.0), ("mean", 0.5), ("max", 1.0), ("min", 0.0)]
)
def test_aggregation_of_three_ratings(rule, expected):
    assert aggregate(rule, RATINGS) == expected
    assert aggregate(rule, RATINGS[::-1]) == expected


def test_ratings_of_the_same_moment_are_ordered_by_their_id():
    assert aggregate("last", [(1.0, "b", 0.2), (1.0, "a", 0.9)]) == 0.2


def test_the_mean_does_not_depend_on_the_order_in_the_last_bit():
    ratings = [(0.0, str(i), value) for i, value in enumerate((0.1, 0.7, 1e-17, 0.3, 1.0))]
    assert len({aggregate("mean", ratings[i:] + ratings[:i]) for i in range(5)}) == 1


def test_nothing_cannot_be_aggregated():
    with pytest.raises(InputError):
        aggregate("mean", [])


@pytest.mark.parametrize(
    ("metric", "value", "score"),
    [
        (Metric(kind="float"), 0.25, 0.25),
        (Metric(kind="float", low=1.0, high=5.0), 4.0, 0.75),
        (Metric(kind="float", low=5.0, high=1.0), 4.0, 0.25),
        (Metric(kind="float", low=1.0, high=5.0), 5.5, None),
        (Metric(kind="bool"), 1.0, 1.0),
        (Metric(kind="bool"), 0.5, None),
        (Metric(kind="thumbs"), -1.0, 0.0),
        (Metric(kind="thumbs"), 0.0, 0.5),
        (Metric(kind="thumbs"), 1.0, 1.0),
        (Metric(kind="thumbs"), 2.0, None),
        (Metric(kind="float"), math.nan, None),
    ],
)
def test_a_metric_maps_its_values_to_scores(metric, value, score):
    assert metric.score(value) == score


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_a_metric_without_a_range_is_refused(low, high):
    with pytest.raises(ConfigError, match="range"):
        Metric(low=low, high=high)
