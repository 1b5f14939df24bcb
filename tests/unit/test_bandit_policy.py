"""The default policy: its floor, its price dial, and what a drift alarm does."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bandit_router.drift import Alarm, DriftConfig, DriftMonitor
from bandit_router.errors import DecisionError, InputError, SnapshotError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.bandit import BanditPolicy
from bandit_router.quality.mixture import Mixture
from bandit_router.types import Features, Interaction

D = 3
MODELS = ("cheap", "middle", "dear")
PRICES = (0.001, 0.01, 0.1)
QUALITY = (0.3, 0.6, 0.9)


def catalog(prices=PRICES):
    return Catalog(
        ModelSpec(model=m, expected_cost_usd=p) for m, p in zip(MODELS, prices, strict=True)
    )


def make(**options):
    return BanditPolicy(Mixture(catalog(), dimension=D, seed=2), **options)


def features(i):
    return Features(dense=np.random.default_rng([3, i]).normal(size=D))


def interaction(i, k, score, cost=None):
    return Interaction(
        event_id=f"e{i}",
        ts=float(i),
        closed_ts=float(i),
        features=features(i),
        eligible=MODELS,
        pmf=(1 / 3,) * 3,
        action=MODELS[k],
        propensity=1 / 3,
        slice="policy",
        quality_value_usd=0.1,
        score=score,
        cost_usd=PRICES[k] if cost is None else cost,
    )


def teach(policy, n=300, start=0):
    rng = np.random.default_rng(5)
    for i in range(start, start + n):
        policy.learn(interaction(i, i % 3, float(rng.random() < QUALITY[i % 3])))
    return policy


@pytest.fixture(scope="module")
def taught():
    """A policy that has seen each model a hundred times; never taught further."""
    return teach(make())


# -- exploration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e-4, 1e-3, 0.02, 1.0, 1e3])
@pytest.mark.parametrize(("epsilon", "bound"), [(0.02, 0.001), (0.3, 0.05), (1.0, 1e9)])
def test_exploring_costs_no_more_than_its_bound_and_keeps_its_floor(value, epsilon, bound):
    policy = make(epsilon=epsilon, exploration_cost=bound)
    teach(policy, 30)
    for eligible in (MODELS, MODELS[:2], MODELS[1:2]):
        e = policy.evaluate(features(900), eligible, value)
        loss = e.utility.max() - e.utility.mean()
        assert e.epsilon == pytest.approx(min(epsilon, bound / max(loss, 1e-12)))
        assert e.epsilon * loss <= bound * (1 + 1e-12)
        assert e.pmf.min() >= e.epsilon / len(eligible) * (1 - 1e-12)
        assert e.pmf.min() > 0.0


def test_the_bound_shrinks_epsilon_only_where_a_uniform_choice_would_cost_more(taught):
    rich = taught.evaluate(features(1), MODELS, 1e6)
    poor = taught.evaluate(features(1), MODELS, 0.001)
    assert rich.epsilon == pytest.approx(0.001 / (rich.utility.max() - rich.utility.mean()))
    assert poor.epsilon < rich.epsilon / 50  # one call of the dear model costs 100 answers
    assert make(exploration_cost=1e9).evaluate(features(1), MODELS, 0.001).epsilon == 0.02


def test_the_pmf_is_the_preference_and_the_stated_share_of_uniform(taught):
    e = taught.evaluate(features(2), MODELS, 0.1)
    preference = taught._outcomes.evaluate(features(2), MODELS, 0.1).preference
    assert e.pmf == pytest.approx((1 - e.epsilon) * preference + e.epsilon / 3, abs=1e-15)


def test_utility_is_score_less_cost_in_units_of_score(taught):
    e = taught.evaluate(features(2), MODELS, 0.07)
    assert e.utility == pytest.approx(e.score - e.cost_usd / 0.07, abs=1e-15)


@pytest.mark.parametrize(
    "options",
    [
        {"epsilon": -0.01},
        {"epsilon": 1.01},
        {"epsilon": float("nan")},
        {"exploration_cost": 0.0},
        {"exploration_cost": -1.0},
        {"exploration_cost": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)


def test_no_eligible_model_is_no_decision(taught):
    with pytest.raises(DecisionError):
        taught.evaluate(features(0), (), 0.1)


# -- the dial and the prices take effect at once --------------------------------------------------


def test_a_tenfold_quality_value_moves_choice_to_the_dearer_better_model(taught):
    before = taught.dump()
    chosen = [taught.evaluate(features(5), MODELS, v) for v in (0.01, 0.1, 1.0, 10.0)]
    assert chosen[0].pmf.argmax() == 0
    assert chosen[-1].pmf.argmax() == 2
    spent = [float(e.pmf @ np.array(PRICES)) for e in chosen]
    assert spent == sorted(spent)
    assert spent[-1] > 20 * spent[0]
    for e in chosen[1:]:
        assert e.score.tobytes() == chosen[0].score.tobytes()
        assert e.cost_usd.tobytes() == chosen[0].cost_usd.tobytes()
    assert taught.dump() == before


def test_a_new_price_moves_choice_at_once():
    policy = teach(make())
    assert policy.evaluate(features(5), MODELS, 1.0).pmf.argmax() == 2
    policy.set_catalog(catalog((0.001, 0.01, 10.0)))
    dearer = policy.evaluate(features(5), MODELS, 1.0)
    assert dearer.pmf.argmax() == 1
    assert dearer.pmf[2] < 0.01
    policy.set_catalog(catalog((0.001, 0.01, 0.0001)))
    assert policy.evaluate(features(5), MODELS, 0.01).pmf.argmax() == 2


# -- drift ----------------------------------------------------------------------------------------


class AlarmAt(DriftMonitor):
    """Alarms at the n-th observation, and notes what it was shown."""

    def __init__(self, n):
        super().__init__(DriftConfig(threshold=1e12))
        self.left, self.shown = n, []

    def observe(self, model, expected, score):
        self.shown.append((model, expected, score))
        self.left -= 1
        if self.left == 0:
            return Alarm(model=model, interactions=len(self.shown), shortfall=0.5)
        return super().observe(model, expected, score)


def test_an_alarm_widens_that_model_and_is_drained_once():
    monitor = AlarmAt(120)
    policy = make(drift=monitor)
    twin = teach(make(), 120)
    teach(policy, 120)
    alarms = policy.take_alarms()
    assert [(a.model, a.interactions) for a in alarms] == [("dear", 120)]
    assert policy.take_alarms() == []
    wide, narrow = policy._outcomes._score, twin._outcomes._score
    assert wide.mean.tobytes() == narrow.mean.tobytes()
    at = 1 + D + 2 * (1 + D)
    assert np.all(wide.cov[:, at, at] > narrow.cov[:, at, at] + 0.9 * wide.var0[:, at])
    for slot in range(2):
        other = 1 + D + slot * (1 + D)
        assert wide.cov[0, other, other] == narrow.cov[0, other, other]


def test_the_monitor_sees_the_score_expected_before_the_outcome():
    monitor = AlarmAt(0)
    policy = make(drift=monitor)
    expected = policy.evaluate(features(0), MODELS, 0.1).score[1]
    policy.learn(interaction(0, 1, 0.25))
    assert monitor.shown == [("middle", pytest.approx(expected, abs=1e-9), 0.25)]


def test_the_monitor_sees_no_row_that_is_not_learned_or_has_no_score():
    monitor = AlarmAt(0)
    policy = make(drift=monitor)
    policy.learn(interaction(0, 1, None))
    policy.learn(msgspec.structs.replace(interaction(1, 1, 1.0), learn=False))
    policy.learn(msgspec.structs.replace(interaction(2, 1, 1.0), action="nobody"))
    assert monitor.shown == []


def test_a_model_that_collapses_is_noticed_and_left():
    policy = teach(make(drift=DriftMonitor(DriftConfig(threshold=1000.0))), 600)
    assert policy.take_alarms() == []
    assert policy.evaluate(features(5), MODELS, 10.0).pmf.argmax() == 2
    for i in range(60):
        policy.learn(interaction(1000 + i, 2, 0.0))
    assert next(a.model for a in policy.take_alarms()) == "dear"
    assert policy.evaluate(features(5), MODELS, 10.0).pmf.argmax() == 1


# -- state ----------------------------------------------------------------------------------------


def watched():
    return make(drift=DriftMonitor())


def parts(policy):
    return msgspec.msgpack.decode(policy.dump(), type=tuple[bytes, bytes, bytes])


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "no pair",
        "drift truncated",
        "drift noise",
        "outcomes truncated",
        "no drift",
        "burden truncated",
    ],
)
def test_a_state_that_does_not_fit_leaves_the_policy_as_it_was(damage):
    policy, other = teach(watched(), 150), teach(watched(), 180)
    outcomes, drift, burden = parts(other)
    wrong = {
        "empty": b"",
        "no pair": msgspec.msgpack.encode([outcomes]),
        "drift truncated": msgspec.msgpack.encode([outcomes, drift[:-1], burden]),
        "drift noise": msgspec.msgpack.encode([outcomes, b"\xff\x00\xff", burden]),
        "outcomes truncated": msgspec.msgpack.encode([outcomes[:-1], drift, burden]),
        "no drift": teach(make(), 150).dump(),
        "burden truncated": msgspec.msgpack.encode([outcomes, drift, burden[:-1]]),
    }[damage]
    before = policy.dump()
    with pytest.raises(SnapshotError):
        policy.load(wrong)
    assert policy.dump() == before


def test_alarms_of_before_are_not_those_of_a_loaded_state():
    policy, other = make(drift=AlarmAt(10)), teach(watched(), 5)
    teach(policy, 10)
    policy.load(other.dump())
    assert policy.take_alarms() == []
