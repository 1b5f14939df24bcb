"""The budget pacer: held means over simulated traffic, bounds, recovery and state."""

from __future__ import annotations

import math
from collections import deque
from functools import partial

import msgspec
import numpy as np
import pytest

from bandit_router.budget import BudgetPacer, PacerConfig
from bandit_router.errors import InputError, SnapshotError

QUERIES = 3000
SEEDS = range(20)


class Plant:
    """Queries that are answered by the model of the highest utility.

    What a model is worth differs from query to query, as it does for a contextual policy: model k
    scores ``quality[k]`` of what this query's difficulty leaves, and costs a lognormal about
    ``cost[k]`` with ``sigma[k]``.
    """

    def __init__(self, seed, cost, quality, sigma):
        self._rng = np.random.default_rng([31, seed])
        self.cost, self.quality, self.sigma = list(cost), quality, sigma

    def serve(self, value_usd):
        """Cost in USD of one query at that quality value."""
        need = float(self._rng.random())
        utility = [
            1.0 - need * (1.0 - q) - c / value_usd
            for q, c in zip(self.quality, self.cost, strict=True)
        ]
        k = max(range(len(utility)), key=utility.__getitem__)
        s = self.sigma[k]
        return self.cost[k] * math.exp(s * float(self._rng.normal()) - s * s / 2)


def run(pacer, plant, n=QUERIES, delay=0, change=None):
    """Costs of ``n`` queries; each is observed ``delay`` queries after it was served."""
    costs, waiting = [], deque()
    for i in range(n):
        if change is not None:
            change(i)
        waiting.append(plant.serve(pacer.quality_value_usd))
        costs.append(waiting[-1])
        if len(waiting) > delay:
            pacer.observe(waiting.popleft())
    return costs


def two_models(seed):
    return Plant(seed, (0.001, 0.02), (0.3, 0.9), (0.5, 0.5))


def heavy_tail(seed):
    """The dear model's mean call costs 150 budgets of .002, single ones many times that."""
    return Plant(seed, (0.0004, 0.002, 0.3), (0.3, 0.6, 0.95), (0.5, 0.5, 1.0))


def shares(make_plant, target, start, *, delay=0, change=None, config=None):
    """(cumulative mean over target at the end, share of the largest call in it), one per seed."""
    found = []
    for seed in SEEDS:
        plant, pacer = make_plant(seed), BudgetPacer(start, target, config)
        costs = run(pacer, plant, delay=delay, change=partial(change, plant) if change else None)
        found.append((float(np.mean(costs)) / target, max(costs) / target / len(costs)))
    return np.array(found).T


# -- the mean is held -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.003, 0.006, 0.015])
@pytest.mark.parametrize("start", [0.001, 0.05, 10.0])
def test_two_models_end_at_the_target_wherever_it_starts(target, start):
    found, _ = shares(two_models, target, start)
    assert found.min() >= 0.9
    assert found.max() <= 1.02


def test_a_model_whose_call_costs_150_budgets_does_not_break_the_mean():
    """A run can end on such a call, a twentieth of all that may be spent: that one is allowed."""
    found, largest = shares(heavy_tail, 0.002, 0.02)
    assert 0.9 <= found.mean() <= 1.02
    assert found.min() >= 0.9
    assert (found - largest).max() <= 1.02


def test_a_price_that_doubles_midway_is_made_good():
    def change(plant, i):
        if i == QUERIES // 2:
            plant.cost = [2 * c for c in plant.cost]

    found, _ = shares(two_models, 0.006, 0.02, change=change)
    assert found.min() >= 0.9
    assert found.max() <= 1.02


def test_feedback_that_comes_fifty_queries_late_does_not_break_the_mean():
    found, _ = shares(two_models, 0.006, 0.02, delay=50)
    assert found.min() >= 0.9
    assert found.max() <= 1.02


def test_late_feedback_does_not_make_the_value_swing():
    """Of the second half, every window of 300 queries is near the target."""
    costs = np.array(run(BudgetPacer(0.02, 0.006), two_models(0), delay=50))[QUERIES // 2 :]
    windows = costs[: len(costs) // 300 * 300].reshape(-1, 300).mean(axis=1) / 0.006
    assert windows.min() > 0.7
    assert windows.max() < 1.3


# -- the dial -------------------------------------------------------------------------------------


def test_without_a_target_the_value_is_the_one_given():
    pacer = BudgetPacer(0.037)
    for cost in (0.0, 1.0, 1e6):
        pacer.observe(cost)
        assert pacer.quality_value_usd == 0.037
    assert pacer.target_cost_usd is None


def test_with_a_target_it_starts_at_the_value_given():
    assert BudgetPacer(0.037, 0.001).quality_value_usd == pytest.approx(0.037)


@pytest.mark.parametrize("wrong", [0.0, -0.0, -1.0, math.nan, math.inf, -math.inf])
def test_values_that_are_no_amount_of_money_are_refused(wrong):
    with pytest.raises(InputError, match="quality_value_usd"):
        BudgetPacer(wrong)
    with pytest.raises(InputError, match="target_cost_usd"):
        BudgetPacer(0.01, wrong)


def test_two_observations_by_hand():
    # aim .5: A = .005. Debt after .02: 3; level ln .1 - .01 * 3; V = exp(level - .1 * 3).
    # After a free query: debt 2; level less .01 * 2.
    config = PacerConfig(pull=0.1, drift=0.1, aim=0.5)
    pacer = BudgetPacer(0.1, 0.01, config)
    pacer.observe(0.02)
    assert pacer.quality_value_usd == pytest.approx(0.1 * math.exp(-0.03 - 0.3))
    pacer.observe(0.0)
    assert pacer.quality_value_usd == pytest.approx(0.1 * math.exp(-0.03 - 0.02 - 0.2))


def test_spending_lowers_the_value_and_saving_raises_it():
    pacer = BudgetPacer(0.05, 0.01)
    values = [pacer.quality_value_usd]
    for cost in [0.02] * 5 + [0.0] * 15:
        pacer.observe(cost)
        values.append(pacer.quality_value_usd)
    steps = np.diff(values)
    assert np.all(steps[:5] < 0)
    assert np.all(steps[8:] > 0)


def test_the_value_stays_within_its_span_whatever_happens():
    config = PacerConfig()
    pacer = BudgetPacer(0.05, 0.01)
    rng = np.random.default_rng(0)
    for cost in [0.0] * 20_000 + [1e9] * 200 + list(rng.exponential(0.1, 2000)):
        pacer.observe(float(cost))
        assert 0.01 * (1 - 1e-9) <= pacer.quality_value_usd <= 0.01 * config.span * (1 + 1e-9)


# -- targets that cannot be reached ---------------------------------------------------------------


def window(costs, first, last):
    return float(np.mean(costs[first:last]))


@pytest.mark.parametrize("seed", range(5))
def test_a_target_below_the_cheapest_model_saturates_and_is_recovered_from(seed):
    """Ten thousand queries above the target; then prices fall and the target is in reach."""
    plant, pacer = Plant(seed, (0.02, 0.4), (0.3, 0.9), (0.5, 0.5)), BudgetPacer(0.05, 0.006)
    run(pacer, plant, 10_000)
    assert pacer.quality_value_usd == pytest.approx(0.006)
    plant.cost = [0.001, 0.02]
    costs = run(pacer, plant, 3500)
    assert window(costs, 1500, 3500) / 0.006 == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_a_target_above_the_dearest_model_saves_no_credit_to_squander(seed):
    """Ten thousand queries below the target; then prices rise. The overspending is bounded."""
    plant, pacer = Plant(seed, (0.0001, 0.002), (0.3, 0.9), (0.5, 0.5)), BudgetPacer(0.05, 0.006)
    run(pacer, plant, 10_000)
    assert window(run(pacer, plant, 100), 0, 100) < 0.006
    plant.cost = [0.001, 0.02]
    costs = np.array(run(pacer, plant, 3500))
    assert window(costs, 1500, 3500) / 0.006 == pytest.approx(1.0, abs=0.1)
    overspent = np.cumsum(costs / 0.006 - 1.0).max()
    assert overspent < 0.1 * 10_000


# -- state ----------------------------------------------------------------------------------------


def test_dump_load_continue_is_bit_equal():
    first, second = BudgetPacer(0.02, 0.006), BudgetPacer(0.02, 0.006)
    run(first, two_models(1), 500)
    second.load(first.dump())
    assert run(first, two_models(2), 300) == run(second, two_models(2), 300)
    assert first.dump() == second.dump()


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\x92",
        bytes(range(64)),
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode([1.0, 2.0, 3.0]),
        msgspec.msgpack.encode(["1.0", 2.0]),
        msgspec.msgpack.encode([math.nan, 0.0]),
        msgspec.msgpack.encode([0.0, math.inf]),
        msgspec.msgpack.encode({"level": 1.0, "debt": 0.0}),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    pacer = BudgetPacer(0.02, 0.006)
    pacer.observe(0.1)
    before = pacer.dump()
    for wrong in (state, before[:-1], before + b"\0"):
        with pytest.raises(SnapshotError):
            pacer.load(wrong)
    assert pacer.dump() == before
