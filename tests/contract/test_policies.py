"""The laws of the Policy protocol, over every registered policy.

A new policy in ``bootstrap.POLICIES`` is held to them without another line here.
"""

from __future__ import annotations

import importlib.util

import msgspec
import numpy as np
import pytest

from bandit_router.bootstrap import POLICIES, make_policy
from bandit_router.errors import CatalogError, DecisionError, InputError, SnapshotError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.base import Policy, sample
from bandit_router.types import Features, Interaction

DIMENSION = 6
MODELS = ("small", "middle", "large", "huge")
PRICES = (0.0001, 0.0005, 0.002, 0.02)
VALUE = 0.02
NAMES = (*POLICIES, "fixed:middle")


def catalog(models=MODELS, prices=PRICES):
    return Catalog(
        ModelSpec(model=m, expected_cost_usd=p) for m, p in zip(models, prices, strict=True)
    )


def make(name, seed=3, models=None):
    if name == "paretobandit" and importlib.util.find_spec("pareto_bandit") is None:
        pytest.skip("paretobandit is not installed")
    return make_policy(name, models or catalog(), dimension=DIMENSION, seed=seed)


def query(i):
    rng = np.random.default_rng([7, i])
    dense = rng.normal(size=DIMENSION).astype(np.float32).astype(np.float64)
    return Features(
        dense=np.clip(dense, -3, 3),
        ngrams=tuple(sorted({int(g) for g in rng.integers(0, 2**18, 5)})),
        columns={"task": f"task {i % 3}"},
    )


def interaction(i, policy, eligible=MODELS, **fields):
    """What query ``i`` gives: the better model of its kind is right more often."""
    features = query(i)
    evaluation = policy.evaluate(features, eligible, VALUE)
    index, part = sample(evaluation, "salt", f"event-{i}")
    rng = np.random.default_rng([11, i])
    strength = MODELS.index(eligible[index]) / 4 if eligible[index] in MODELS else 0.5
    score = float(rng.random() < 0.3 + 0.5 * strength + 0.1 * features.dense[0])
    return Interaction(
        **{
            "event_id": f"event-{i}",
            "ts": float(i),
            "closed_ts": float(i) + 1.0,
            "features": features,
            "eligible": tuple(eligible),
            "pmf": tuple(evaluation.pmf.tolist()),
            "action": eligible[index],
            "propensity": float(evaluation.pmf[index]),
            "slice": part,
            "quality_value_usd": VALUE,
            "score": score,
            "cost_usd": PRICES[index % 4] * float(np.exp(0.2 * rng.normal())),
            **fields,
        }
    )


def taught(name, n=60, **options):
    policy = make(name, **options)
    for i in range(n):
        policy.learn(interaction(i, policy))
    return policy


def bits(evaluation):
    arrays = (evaluation.pmf, evaluation.score, evaluation.cost_usd, evaluation.utility)
    return [array.tobytes() for array in arrays] + [evaluation.epsilon]


def probes(policy, eligible=MODELS):
    return [bits(policy.evaluate(query(1000 + i), eligible, VALUE)) for i in range(5)]


every_policy = pytest.mark.parametrize("name", NAMES)


@every_policy
def test_it_is_a_policy_of_that_name(name):
    policy = make(name)
    assert isinstance(policy, Policy)
    assert policy.name == name


@every_policy
@pytest.mark.parametrize("n", [0, 60])
def test_the_pmf_sums_to_one_and_keeps_its_floor(name, n):
    policy = taught(name, n)
    for i in range(20):
        for eligible in (MODELS, MODELS[1:3], MODELS[2:3]):
            evaluation = policy.evaluate(query(2000 + i), eligible, VALUE)
            k = len(eligible)
            assert evaluation.pmf.shape == (k,)
            assert abs(evaluation.pmf.sum() - 1.0) < 1e-9
            assert 0.0 <= evaluation.epsilon <= 1.0
            assert evaluation.pmf.min() >= evaluation.epsilon / k * (1.0 - 1e-12)


@every_policy
def test_predictions_are_in_their_ranges(name):
    evaluation = taught(name).evaluate(query(5000), MODELS, VALUE)
    assert np.all((evaluation.score >= 0.0) & (evaluation.score <= 1.0))
    assert np.all((evaluation.cost_usd > 0.0) & np.isfinite(evaluation.cost_usd))
    assert np.all(np.isfinite(evaluation.utility))
    assert evaluation.score.shape == evaluation.cost_usd.shape == evaluation.utility.shape == (4,)


@every_policy
def test_the_order_of_the_eligible_models_is_the_order_of_the_answer(name):
    policy = taught(name)
    forward = policy.evaluate(query(3000), MODELS, VALUE)
    backward = policy.evaluate(query(3000), MODELS[::-1], VALUE)
    assert np.allclose(forward.score, backward.score[::-1], atol=1e-6)
    assert np.allclose(forward.cost_usd, backward.cost_usd[::-1], rtol=1e-6)


@every_policy
def test_the_same_seed_gives_the_same_choices(name):
    assert probes(taught(name, seed=5)) == probes(taught(name, seed=5))


@every_policy
def test_evaluating_changes_nothing(name):
    policy, silent = taught(name), taught(name)
    before = policy.dump()
    first = probes(policy)
    for i in range(30):
        policy.evaluate(query(4000 + i), MODELS[: 1 + i % 4], VALUE * (1 + i))
    assert probes(policy) == first
    assert policy.dump() == before
    for i in range(60, 80):
        row = interaction(i, silent)
        policy.learn(row)
        silent.learn(row)
    assert policy.dump() == silent.dump()


@every_policy
def test_learning_does_not_touch_its_inputs(name):
    policy = make(name)
    for i in range(10):
        row = interaction(i, policy)
        row.features.dense.flags.writeable = False
        before = msgspec.to_builtins(row.features.columns), row.features.dense.tobytes()
        fields = repr(row)
        policy.learn(row)
        assert (msgspec.to_builtins(row.features.columns), row.features.dense.tobytes()) == before
        assert repr(row) == fields


@every_policy
def test_a_row_that_is_not_to_be_learned_changes_nothing(name):
    policy = taught(name, 20)
    before = policy.dump()
    policy.learn(interaction(99, policy, learn=False, propensity=1.0, slice="forced"))
    assert policy.dump() == before


@every_policy
def test_features_of_another_length_are_refused_before_anything_changes(name):
    policy = taught(name, 20)
    before = policy.dump()
    row = interaction(20, policy)
    wrong = Features(dense=np.zeros(len(row.features.dense) + 1))
    try:
        policy.learn(msgspec.structs.replace(row, features=wrong))
    except InputError:
        assert policy.dump() == before
    else:  # a policy that reads no features takes the row, and goes on
        assert bits(policy.evaluate(wrong, MODELS, 0.01)) == bits(
            policy.evaluate(row.features, MODELS, 0.01)
        )


@every_policy
def test_a_row_without_score_or_without_cost_is_taken(name):
    policy = taught(name, 20)
    policy.learn(interaction(90, policy, score=None))
    policy.learn(interaction(91, policy, cost_usd=None))
    policy.learn(interaction(92, policy, score=None, cost_usd=None))
    assert abs(policy.evaluate(query(1), MODELS, VALUE).pmf.sum() - 1.0) < 1e-9


@every_policy
@pytest.mark.parametrize("n", [0, 40])
def test_loading_what_was_saved_gives_an_equal_policy(name, n):
    policy = taught(name, n)
    state = policy.dump()
    other = make(name)
    other.load(state)
    assert other.dump() == state
    assert probes(other) == probes(policy)


@every_policy
def test_going_on_after_loading_is_bit_equal_to_never_having_stopped(name):
    policy = taught(name, 40)
    other = make(name)
    other.load(policy.dump())
    for i in range(40, 100):
        row = interaction(i, policy)
        policy.learn(row)
        other.learn(row)
        assert bits(policy.evaluate(row.features, MODELS, VALUE)) == bits(
            other.evaluate(row.features, MODELS, VALUE)
        )
    assert other.dump() == policy.dump()


@every_policy
@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "noise"])
def test_bytes_that_do_not_fit_are_refused(name, damage):
    policy = taught(name, 20)
    state = policy.dump()
    foreign = "uniform" if name != "uniform" else "cheapest"
    wrong = {
        "empty": b"",
        "truncated": state[: len(state) // 2],
        "foreign": make(foreign).dump(),
        "noise": bytes(range(256)),
    }[damage]
    with pytest.raises(SnapshotError):
        policy.load(wrong)


@every_policy
def test_a_model_can_be_added_while_running(name):
    policy = taught(name)
    larger = catalog((*MODELS, "new"), (*PRICES, 0.001))
    policy.set_catalog(larger)
    evaluation = policy.evaluate(query(1), (*MODELS, "new"), VALUE)
    assert evaluation.pmf.shape == (5,)
    assert abs(evaluation.pmf.sum() - 1.0) < 1e-9
    for i in range(60, 80):
        policy.learn(interaction(i, policy, eligible=(*MODELS, "new")))
    other = make(name)
    other.load(policy.dump())
    assert probes(other, (*MODELS, "new")) == probes(policy, (*MODELS, "new"))


@every_policy
def test_a_removed_model_is_gone_and_the_others_stay(name):
    policy = taught(name)
    before = policy.evaluate(query(1), ("small", "middle"), VALUE)
    policy.set_catalog(catalog(MODELS[:2] + MODELS[3:], PRICES[:2] + PRICES[3:]))
    with pytest.raises(CatalogError, match="large"):
        policy.evaluate(query(1), ("small", "large"), VALUE)
    after = policy.evaluate(query(1), ("small", "middle"), VALUE)
    assert np.allclose(before.score, after.score, atol=0.15)
    policy.learn(interaction(70, policy, eligible=("small", "middle", "huge")))


@every_policy
def test_an_outcome_of_a_model_that_is_gone_is_no_accident(name):
    policy = taught(name, 20)
    row = interaction(50, policy, action="large")
    policy.set_catalog(catalog(MODELS[:2], PRICES[:2]))
    policy.learn(row)
    assert abs(policy.evaluate(query(1), MODELS[:2], VALUE).pmf.sum() - 1.0) < 1e-9


@every_policy
def test_a_new_price_is_known_at_the_next_decision(name):
    policy = make(name)
    before = policy.evaluate(query(1), MODELS, VALUE).cost_usd
    policy.set_catalog(catalog(prices=(PRICES[0], PRICES[1], PRICES[2] * 10, PRICES[3])))
    after = policy.evaluate(query(1), MODELS, VALUE).cost_usd
    assert after[2] == pytest.approx(10 * before[2], rel=1e-6)
    assert after[[0, 1, 3]] == pytest.approx(before[[0, 1, 3]], rel=1e-6)


@every_policy
def test_no_eligible_model_and_an_unknown_one_are_errors(name):
    policy = make(name)
    with pytest.raises(DecisionError):
        policy.evaluate(query(1), (), VALUE)
    with pytest.raises(CatalogError, match="nobody"):
        policy.evaluate(query(1), ("small", "nobody"), VALUE)


@every_policy
def test_hostile_columns_and_extreme_features_are_just_numbers(name):
    policy = taught(name, 10)
    hostile = Features(
        dense=np.array([3.0, -3.0, 0.0, 3.0, -3.0, 1e-30]),
        ngrams=(),
        columns={"task": "a\n1 1 | b:1e9 |c", "\x00": "\ud800", "": "--final_regressor x"},
    )
    row = interaction(30, policy)
    policy.learn(msgspec.structs.replace(row, features=hostile))
    evaluation = policy.evaluate(hostile, MODELS, VALUE)
    assert abs(evaluation.pmf.sum() - 1.0) < 1e-9
