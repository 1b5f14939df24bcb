"""The learner: numbered rows in, equal bits out, and nothing harmful gets through."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from support.streams import DIMENSION, catalog, completion, decision, feedback

from bandit_router.bootstrap import make_policy
from bandit_router.budget import BudgetPacer
from bandit_router.errors import InputError, SnapshotError
from bandit_router.events import Change
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.types import Features, Interaction


def learner(policy: str = "linucb") -> Learner:
    return Learner(
        make_policy(policy, catalog(), dimension=DIMENSION), catalog(), BudgetPacer(0.05, 0.01)
    )


def row(**fields) -> Interaction:
    joiner = Joiner()
    joiner.decision(decision())
    joiner.outcome(completion())
    (joined,) = joiner.outcome(feedback())
    return msgspec.structs.replace(joined, **fields)


def change(kind: str, **data) -> Change:
    return Change(ts=1.0, kind=kind, data=data)


def test_each_row_takes_the_next_number_and_changes_the_policy():
    target = learner()
    before = target.dump()
    target.apply(row())
    assert target.learn_seq == 1
    assert target.policy.dump() != learner().policy.dump()
    assert target.dump() != before


def test_a_row_that_must_not_be_learned_takes_a_number_and_changes_nothing_else():
    target = learner()
    policy, pacer = target.policy.dump(), target.pacer.dump()
    target.apply(row(learn=False))
    assert target.learn_seq == 1
    assert (target.policy.dump(), target.pacer.dump()) == (policy, pacer)


def test_the_pacer_sees_known_costs_alone():
    target = learner()
    pacer = target.pacer.dump()
    target.apply(row(cost_usd=None))
    assert target.pacer.dump() == pacer
    target.apply(row(cost_usd=0.02))
    assert target.pacer.dump() != pacer


def bad_features(value: float) -> Features:
    return Features(dense=np.array([0.0, value, 0.0, 0.0]))


@pytest.mark.parametrize(
    "fields",
    [
        {"score": math.nan},
        {"score": 1.0001},
        {"score": -0.1},
        {"cost_usd": math.inf},
        {"cost_usd": -1.0},
        {"cost_usd": math.nan},
        {"propensity": 0.0},
        {"propensity": math.nan},
        {"quality_value_usd": math.nan},
        {"features": bad_features(math.nan)},
        {"features": bad_features(math.inf)},
        {"features": bad_features(1e200)},
        {"action": "z"},
    ],
)
def test_a_poisoned_row_is_refused_before_it_touches_anything(fields):
    target = learner()
    before = target.dump()
    assert target.offer(row(**fields)) == "poison"
    with pytest.raises(InputError, match="poison"):
        target.apply(row(**fields))
    assert target.dump() == before


def test_a_row_of_a_model_that_was_removed_is_refused():
    target = learner()
    target.apply(change("model_removed", model="b"))
    assert target.offer(row()) == "unknown_action"
    assert target.learn_seq == 1


def test_models_come_change_their_price_and_go():
    target = learner()
    target.apply(change("model_added", model="d", expected_cost_usd=0.5))
    target.apply(change("model_repriced", model="a", expected_cost_usd=1))
    target.apply(change("model_removed", model="b"))
    assert target.catalog.names == ("a", "c", "d")
    assert target.catalog["a"].prior_cost_usd() == 1.0
    evaluation = target.policy.evaluate(decision().features, ("a", "c", "d"), 0.05)
    assert evaluation.pmf.sum() == pytest.approx(1.0)
    assert target.learn_seq == 3


@pytest.mark.parametrize(
    "wrong",
    [
        change("model_added", model="a", expected_cost_usd=0.5),
        change("model_added", model="d"),
        change("model_added", model="d", expected_cost_usd="cheap"),
        change("model_added"),
        change("model_repriced", model="d", expected_cost_usd=0.5),
        change("model_removed", model="d"),
        change("model_removed"),
        change("model_removed", model=["a"]),
        change("drift_alarm"),
    ],
)
def test_a_change_that_does_not_fit_the_catalog_is_refused(wrong):
    target = learner()
    before = target.dump()
    assert target.offer(wrong) == "bad_change"
    assert target.dump() == before


def test_the_last_model_cannot_be_removed():
    target = learner()
    target.apply(change("model_removed", model="a"))
    target.apply(change("model_removed", model="b"))
    assert target.offer(change("model_removed", model="c")) == "bad_change"


@pytest.mark.parametrize("policy", ["linucb", "thompson", "bandit"])
def test_a_learner_that_was_stopped_goes_on_in_every_bit(policy):
    rows = [
        row(score=score, action=action, features=Features(dense=np.full(DIMENSION, score)))
        for score, action in zip((0.0, 1.0, 0.5, 0.25, 1.0), "abcab", strict=True)
    ]
    rows.insert(2, change("model_added", model="d", expected_cost_usd=0.5))
    whole = learner(policy)
    for each in rows:
        whole.apply(each)
    half, resumed = learner(policy), learner(policy)
    for each in rows[:4]:
        half.apply(each)
    resumed.load(half.dump())
    for each in rows[4:]:
        resumed.apply(each)
    assert resumed.dump() == whole.dump()
    assert resumed.catalog == whole.catalog


@pytest.mark.parametrize("state", [b"", b"\x80", b"junk" * 50])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(SnapshotError):
        learner().load(state)


def test_a_state_without_a_pacer_does_not_load_into_a_learner_with_one():
    bare = Learner(make_policy("linucb", catalog(), dimension=DIMENSION), catalog())
    with pytest.raises(SnapshotError, match="pacer"):
        learner().load(bare.dump())
