"""Hull, lift, comparators and the error ledger, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bandit_router.regret import (
    best_reward_choice,
    cheapest_best,
    comparators,
    error_ledger,
    fixed_hull,
    hull_mixture,
)

# Four queries, four models. Means: a .25 at 1, b .5 at 2, c .75 at 3, d .5 at 4 (dominated by c);
# b lies on the line from a to c, so the hull is a-c.
SCORES = np.array([[1, 0, 1, 0], [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=float)
COSTS = np.tile([1.0, 2.0, 3.0, 4.0], (4, 1))


def test_the_hull_leaves_out_what_is_on_or_under_a_line_and_what_is_dearer_than_the_best():
    hull = fixed_hull(SCORES, COSTS)
    assert hull.costs_usd.tolist() == [1.0, 3.0]
    assert hull.scores.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("cost", "score"),
    [(1.0, 0.25), (2.0, 0.5), (1.5, 0.375), (3.0, 0.75), (9.0, 0.75), (0.1, 0.25)],
)
def test_the_hull_joins_its_vertices_and_is_flat_beyond_them(cost, score):
    assert fixed_hull(SCORES, COSTS).score_at(cost) == pytest.approx(score)


def test_of_models_at_one_cost_only_the_best_is_a_vertex():
    hull = fixed_hull(np.array([[0.2, 0.6, 0.4]]), np.array([[1.0, 1.0, 1.0]]))
    assert hull.costs_usd.tolist() == [1.0]
    assert hull.scores.tolist() == [0.6]


def test_the_best_reward_on_the_hull_is_that_of_the_best_single_model():
    # Rewards at quality value 10: a .15, b .3, c .45, d .1; at 2: a -.25, b -.5, c -.75, d -1.5.
    hull = fixed_hull(SCORES, COSTS)
    assert hull.best_reward(10.0) == pytest.approx(0.45)
    assert hull.best_reward(2.0) == pytest.approx(-0.25)


def test_the_oracle_is_the_cheapest_of_the_best_models():
    # Query 1: a and c score 1, a is cheaper. Query 4: only c. Query 3: b before d.
    assert cheapest_best(SCORES, COSTS).tolist() == [0, 1, 1, 2]


def test_the_best_choice_weighs_score_against_cost():
    # At quality value 2 a step of cost is .5: query 4 gives a -.5, c -.5 (equal; the first wins).
    assert best_reward_choice(SCORES, COSTS, 2.0).tolist() == [0, 1, 1, 0]
    assert best_reward_choice(SCORES, COSTS, 10.0).tolist() == [0, 1, 1, 2]


def test_the_mixture_costs_what_it_is_asked_to():
    assert hull_mixture(SCORES, COSTS, 2.5).tolist() == [0.25, 0.0, 0.75, 0.0]
    assert hull_mixture(SCORES, COSTS, 0.5).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert hull_mixture(SCORES, COSTS, 3.5).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_comparators_by_hand():
    against = comparators(SCORES, COSTS, 10.0, spent_usd=2.0)
    assert against.best_fixed.tolist() == pytest.approx([0.7, 0.7, -0.3, 0.7])  # c
    assert against.hull.tolist() == pytest.approx([0.8, 0.3, -0.2, 0.3])  # half a, half c
    assert against.oracle.tolist() == pytest.approx([0.9, 0.8, 0.8, 0.7])


@given(
    arrays(float, (6, 4), elements=st.floats(0, 1)),
    arrays(float, (6, 4), elements=st.floats(1e-6, 1)),
    arrays(int, 6, elements=st.integers(0, 3)),
    st.floats(0.001, 100.0),
)
def test_regret_against_the_hull_is_the_lift_negated(scores, costs, chosen, value):
    rows = np.arange(6)
    score, cost = scores[rows, chosen].mean(), costs[rows, chosen].mean()
    lift = score - fixed_hull(scores, costs).score_at(cost)
    against = comparators(scores, costs, value, cost)
    regret = against.hull.mean() - (score - cost / value)
    assert regret == pytest.approx(-lift, abs=1e-9 * (1.0 + 1.0 / value))


@given(
    arrays(float, (5, 4), elements=st.floats(0, 1)),
    arrays(float, (5, 4), elements=st.floats(1e-6, 1)),
)
def test_no_single_model_is_above_the_hull_and_the_hull_is_concave(scores, costs):
    hull = fixed_hull(scores, costs)
    for model in range(4):
        assert scores[:, model].mean() <= hull.score_at(costs[:, model].mean()) + 1e-9
    slopes = np.diff(hull.scores) / np.diff(hull.costs_usd)
    assert np.all(np.diff(hull.costs_usd) > 0.0)
    assert np.all(slopes > 0.0)
    assert np.all(slopes[1:] <= slopes[:-1] * (1.0 + 1e-9))


def test_errors_towards_quality_and_towards_cost_are_counted_apart():
    # Quality value 10. Best: a, b, b, c.
    # Chosen d, d, b, a: query 1 scores 0 for 1 (quality, lost .9 + .4 = 1.3 - 0 = .9 - -.4);
    # query 2 scores as well but costs 2 more (cost, lost .2); query 3 is right;
    # query 4 saves 2 and scores 0 for 1 (quality, lost .7 - -.1 = .8).
    ledger = error_ledger(SCORES, COSTS, np.array([3, 3, 1, 0]), 10.0)
    assert (ledger.quality_count, ledger.cost_count) == (2, 1)
    assert ledger.quality_loss == pytest.approx((1.3 + 0.8) / 4)
    assert ledger.cost_loss == pytest.approx(0.2 / 4)


def test_a_run_of_best_choices_has_no_errors():
    ledger = error_ledger(SCORES, COSTS, best_reward_choice(SCORES, COSTS, 10.0), 10.0)
    assert (ledger.quality_count, ledger.cost_count) == (0, 0)
    assert (ledger.quality_loss, ledger.cost_loss) == (0.0, 0.0)
