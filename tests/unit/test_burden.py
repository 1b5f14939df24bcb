"""Waiting and failed attempts as USD in the utility."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from bandit_router.bootstrap import make_policy
from bandit_router.errors import InputError, SnapshotError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.quality.burden import Burden, BurdenConfig
from bandit_router.types import Features, Interaction

MODELS = ("quick", "slow")


def test_means_are_priced_and_an_unseen_model_gets_the_usual():
    burden = Burden(BurdenConfig(usd_per_second=0.01, usd_per_escalation=0.5))
    burden.learn("quick", 1.0, 0)
    burden.learn("quick", 3.0, 1)
    burden.learn("slow", 10.0, 0)
    # quick: 2 s and .5 failures; slow: 10 s, none; unseen: 6 s and .25.
    assert burden.usd(("quick", "slow", "new")) == pytest.approx([0.27, 0.10, 0.185])


def test_an_unknown_latency_is_no_latency_of_zero():
    burden = Burden(BurdenConfig(usd_per_second=1.0))
    burden.learn("quick", None, 0)
    burden.learn("quick", 4.0, 0)
    assert burden.usd(("quick",)) == pytest.approx([4.0])


def test_old_evidence_fades():
    burden = Burden(BurdenConfig(usd_per_second=1.0, memory=10.0))
    for latency_s in [1.0] * 200 + [5.0] * 60:
        burden.learn("quick", latency_s, 0)
    assert burden.usd(("quick",)) == pytest.approx([5.0], abs=0.02)


def test_nothing_priced_costs_nothing_and_keeps_nothing():
    burden = Burden()
    burden.learn("quick", 9.0, 3)
    assert burden.usd(MODELS) is None
    assert burden.dump() == Burden().dump()


@pytest.mark.parametrize(
    "settings",
    [{"usd_per_second": -1.0}, {"usd_per_escalation": math.nan}, {"memory": 0.5}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError):
        Burden(BurdenConfig(**settings))


def test_a_saved_burden_goes_on_bit_for_bit():
    one = Burden(BurdenConfig(usd_per_second=0.3))
    two = Burden(BurdenConfig(usd_per_second=0.3))
    one.learn("slow", 0.1, 0)
    two.load(one.dump())
    for burden in (one, two):
        burden.learn("slow", 0.7, 2)
    assert one.dump() == two.dump()


@pytest.mark.parametrize(
    "state",
    [b"", b"junk", msgspec.msgpack.encode([{"m": (0, 1.0)}, {}]),
     msgspec.msgpack.encode([{"m": (1, math.inf)}, {}])],
)  # fmt: skip
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    burden = Burden(BurdenConfig(usd_per_second=0.3))
    burden.learn("slow", 2.0, 0)
    before = burden.dump()
    with pytest.raises(SnapshotError):
        burden.load(state)
    assert burden.dump() == before


def test_of_two_equal_models_the_slower_loses_the_traffic_once_waiting_has_a_price():
    catalog = Catalog(ModelSpec(model=model, expected_cost_usd=0.001) for model in MODELS)
    features = Features(dense=np.zeros(3))
    policy = make_policy("bandit", catalog, dimension=3, usd_per_second=0.01, vowpal=False)
    for turn in range(60):
        model = MODELS[turn % 2]
        policy.learn(
            Interaction(
                event_id=str(turn), ts=0.0, closed_ts=0.0, features=features, eligible=MODELS,
                pmf=(0.5, 0.5), action=model, propensity=0.5, slice="policy",
                quality_value_usd=0.1, score=float(turn % 4 < 2), cost_usd=0.001,
                latency_s=1.0 if model == "quick" else 3.0,
            )
        )  # fmt: skip
    evaluation = policy.evaluate(features, MODELS, 0.1)
    assert evaluation.utility[0] - evaluation.utility[1] == pytest.approx(0.2, abs=0.05)
    assert evaluation.pmf[0] > 0.9
