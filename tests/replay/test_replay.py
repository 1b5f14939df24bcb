"""The laws of a replay: bandit feedback only, the same for every policy, delayed as asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bandit_router.bootstrap import POLICIES, make_featurizer, make_policy
from bandit_router.errors import InputError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.baselines import Uniform
from bandit_router.replay import (
    Labelled,
    Plan,
    blurred_catalog,
    budget_quality_value,
    default_quality_values,
    query_order,
    replay,
    table_features,
    without_queries,
)
from bandit_router.report.measure import measure

FEATURIZER = make_featurizer(embed=False)
PRICES = Catalog(
    ModelSpec(model=m, expected_cost_usd=c)
    for m, c in (("small", 0.0001), ("middle", 0.001), ("large", 0.01))
)


def maker(name, catalog, seed, budget_usd):
    return make_policy(name, catalog, dimension=FEATURIZER.dimension, seed=seed)


def features_of(table, columns=()):
    features = table_features(table, FEATURIZER, columns)
    return lambda policy: features


def traces(table, policies, make=maker, *, prices=PRICES, warm=None, columns=(), **plan):
    plan = {"quality_values_usd": (0.02,), **plan}
    return list(
        replay(
            Plan(policies=tuple(policies), **plan),
            table,
            features_of(table, columns),
            make,
            prices=prices,
            warm=warm,
        )
    )


LEARNING = [name for name in POLICIES if name != "paretobandit"]


@pytest.mark.parametrize("name", LEARNING)
def test_the_outcomes_of_models_not_chosen_change_nothing(make_table, name):
    table = make_table()
    (first,) = traces(table, [name])
    rows = np.arange(len(table))
    chosen = np.empty(len(table), dtype=int)
    chosen[first.queries] = first.chosen
    scores, costs = np.full_like(table.scores, np.nan), np.full_like(table.costs_usd, np.nan)
    scores[rows, chosen] = table.scores[rows, chosen]
    costs[rows, chosen] = table.costs_usd[rows, chosen]
    poisoned = dataclasses.replace(table, scores=scores, costs_usd=costs)
    (second,) = traces(poisoned, [name])
    assert second.chosen.tolist() == first.chosen.tolist()
    assert second.propensities.tolist() == first.propensities.tolist()


def test_the_outcomes_of_the_models_chosen_do_change_what_follows(make_table):
    table = make_table()
    (first,) = traces(table, ["bandit"])
    (second,) = traces(dataclasses.replace(table, scores=1.0 - table.scores), ["bandit"])
    assert second.chosen.tolist() != first.chosen.tolist()


def test_all_policies_of_a_seed_see_the_same_order_and_the_same_prices(make_table):
    table, seen = make_table(), []

    def make(name, catalog, seed, budget_usd):
        seen.append((seed, catalog.digest))
        return maker(name, catalog, seed, budget_usd)

    found = traces(table, ["uniform", "thompson", "cheapest"], make, prices=None, seeds=2)
    orders = {t.setting.seed: set() for t in found}
    for trace in found:
        orders[trace.setting.seed].add(tuple(trace.queries.tolist()))
    assert [len(some) for some in orders.values()] == [1, 1]
    assert orders[0] != orders[1]
    assert len(set(seen)) == 2


def test_every_query_comes_once(make_table):
    for trace in traces(make_table(), ["uniform"], seeds=3):
        assert sorted(trace.queries.tolist()) == list(range(120))


def test_a_replay_can_be_repeated_bit_for_bit(make_table):
    table = make_table()
    first, second = (traces(table, ["bandit", "linucb"], seeds=2, seed0=5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.setting == b.setting
        assert a.chosen.tolist() == b.chosen.tolist()
        assert a.propensities.tobytes() == b.propensities.tobytes()


class Recorder(Uniform):
    """Notes what it is asked and told, in order."""

    def __init__(self, catalog):
        super().__init__(catalog)
        self.calls = []

    def evaluate(self, features, eligible, quality_value_usd):
        self.calls.append("decide")
        return super().evaluate(features, eligible, quality_value_usd)

    def learn(self, interaction):
        self.calls.append(interaction)
        super().learn(interaction)


def recorded(table, **plan):
    recorders = []

    def make(name, catalog, seed, budget_usd):
        recorders.append(Recorder(catalog))
        return recorders[-1]

    found = traces(table, ["uniform"], make, **plan)
    return recorders[0].calls, found[0]


@pytest.mark.parametrize("delay", [0, 1, 7, 500])
def test_outcomes_arrive_as_many_queries_later_as_asked(make_table, delay):
    calls, _ = recorded(make_table(), delay=delay)
    decided = learned = 0
    for call in calls:
        if call == "decide":
            assert learned == max(0, decided - delay)
            decided += 1
        else:
            learned += 1
    assert (decided, learned) == (120, 120)


def test_what_is_learned_is_what_the_chosen_model_scored_and_cost(make_table):
    table = make_table()
    calls, trace = recorded(table, delay=3)
    rows = [call for call in calls if call != "decide"]
    for place, row in enumerate(rows):
        query, column = trace.queries[place], trace.chosen[place]
        assert row.action == table.models[column]
        assert row.score == table.scores[query, column]
        assert row.cost_usd == table.costs_usd[query, column]
        assert row.propensity == trace.propensities[place] == 1 / 3
        assert row.learn


def test_a_warm_start_learns_every_label_first_as_a_uniform_log(make_table):
    table, other = make_table(20), make_table(15, seed=1)
    labelled = Labelled(other, features_of(other))
    calls, _ = recorded(table, warm=labelled)
    first = calls.index("decide")
    assert first == 15 * 3
    assert {row.propensity for row in calls[:first]} == {1 / 3}
    total = sum(row.score for row in calls[:first])
    assert total == other.scores.sum()


def test_a_warm_start_helps_a_policy_that_learns(make_table):
    table, other = make_table(150), make_table(150, seed=1)
    labelled = Labelled(other, features_of(other))
    cold = traces(table, ["linucb"], seeds=3)
    warm = traces(table, ["linucb"], seeds=3, warm=labelled)
    assert mean_reward(table, warm) > mean_reward(table, cold) + 0.02


def mean_reward(table, some):
    return float(np.mean([measure(table, trace).run.mean_reward for trace in some]))


def test_queries_that_are_replayed_are_left_out_of_the_warm_start(make_table):
    table = make_table(20)
    other = make_table(10, seed=1)
    both = dataclasses.replace(
        table,
        query_ids=(*other.query_ids[:5], *table.query_ids[5:]),
        prompts=(*other.prompts[:2], *table.prompts[2:]),
    )
    kept = without_queries(both, table)
    assert set(kept.query_ids) == set(other.query_ids[:2])
    with pytest.raises(InputError, match="every query"):
        without_queries(table, table)


def test_a_budget_turns_the_quality_value_and_holds_the_spend(make_table):
    table = make_table(1500)
    (trace,) = traces(table, ["thompson"], quality_values_usd=(), budgets_usd=(0.002,))
    assert len(set(trace.quality_values_usd.tolist())) > 100
    run = measure(table, trace).run
    assert run.budget_usd == 0.002
    assert run.mean_cost_usd == pytest.approx(0.002, rel=0.1)


def test_context_columns_reach_the_policy_only_when_asked_for(make_table):
    table = make_table(5)
    assert features_of(table)("")[0].columns == {}
    assert features_of(table, ("task",))("")[0].columns == {"task": "even"}


def test_blurred_prices_are_the_mean_costs_times_lognormal_noise(make_table):
    table = make_table()
    means = table.costs_usd.mean(axis=0)
    logs = np.array(
        [
            np.log([spec.prior_cost_usd() for spec in blurred_catalog(table, seed)] / means)
            for seed in range(300)
        ]
    )
    assert abs(logs.mean()) < 0.04
    assert logs.std() == pytest.approx(0.3, abs=0.02)
    assert blurred_catalog(table, 3) == blurred_catalog(table, 3)


def test_a_free_model_still_has_a_price(make_table):
    table = dataclasses.replace(make_table(), costs_usd=np.zeros((120, 3)))
    assert all(spec.prior_cost_usd() > 0.0 for spec in blurred_catalog(table, 0))


def tiny(scores, costs, make_table):
    return dataclasses.replace(
        make_table(2),
        scores=np.tile(np.array(scores), (2, 1)),
        costs_usd=np.tile(np.array(costs), (2, 1)),
    )


def test_default_quality_values_make_the_best_models_cost_a_share_of_an_answer(make_table):
    table = tiny([0.2, 0.9, 0.9], [0.001, 0.006, 0.003], make_table)
    assert default_quality_values(table) == (0.1, 0.01, 0.003)


def test_a_budget_is_measured_at_the_inverse_slope_of_the_hull(make_table):
    table = tiny([0.2, 0.6, 0.8], [0.001, 0.002, 0.004], make_table)  # slopes 400 and 100
    assert budget_quality_value(table, 0.0015) == pytest.approx(1 / 400)
    assert budget_quality_value(table, 0.0001) == pytest.approx(1 / 400)
    assert budget_quality_value(table, 0.003) == pytest.approx(1 / 100)
    assert budget_quality_value(table, 1.0) == pytest.approx(1 / 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"policies": ()},
        {"quality_values_usd": ()},
        {"quality_values_usd": (0.0,)},
        {"quality_values_usd": (float("nan"),)},
        {"budgets_usd": (-1.0,)},
        {"seeds": 0},
        {"seed0": -1},
        {"delay": -1},
    ],
)
def test_a_plan_that_makes_no_sense_is_an_error(wrong):
    with pytest.raises(InputError):
        Plan(**{"policies": ("uniform",), "quality_values_usd": (0.1,), **wrong})


def test_prices_of_other_models_are_an_error(make_table):
    other = Catalog([ModelSpec(model="x", expected_cost_usd=1.0)])
    with pytest.raises(InputError, match="same models"):
        traces(make_table(), ["uniform"], prices=other)


def test_the_query_order_is_a_permutation_by_seed():
    assert sorted(query_order(50, 1).tolist()) == list(range(50))
    assert query_order(50, 1).tolist() != query_order(50, 2).tolist()
