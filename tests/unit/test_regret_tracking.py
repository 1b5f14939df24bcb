"""The regret tracker on cases worked by hand, its states, and what it refuses."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest
from support.regret_cases import MODELS, choices, draw, tracker

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope.regret_rows import FORCED, NO_OUTCOME, Choices
from bandit_router.ope.regret_tracking import OVER_LIMIT, RegretConfig, RegretTracker
from bandit_router.types import Features, Interaction


def one(pmf, action, score, cost=0.0, propensity=None) -> Choices:
    chance = pmf[action] if propensity is None else propensity
    return Choices(
        np.array([action]), np.array([chance]), np.array([pmf]), np.array([score]), np.array([cost])
    )


def small(**settings) -> RegretTracker:
    given = {"models": ("a", "b"), "quality_value_usd": 1.0, "dearest_usd": (0.0, 0.0)}
    return RegretTracker(RegretConfig(**given | settings))


def test_one_row_by_hand():
    # Control .5 for both. "a less ours" is (.25, -.25): .25 / .75 * (1 - .5) = 1 / 6.
    # "b less ours" is (-.75, .75): -1 * (1 - .5) = -.5.
    mine = small()
    mine.update(one((0.75, 0.25), 0, 1.0))
    assert mine.against("a").per_query.estimate == pytest.approx(1 / 6)
    assert mine.against("b").per_query.estimate == pytest.approx(-0.5)


def test_cost_counts_in_units_of_the_quality_value():
    # Rewards of a lie in [-.5, 1], of b in [-1, 1]; the control of both is 0, the middle.
    # Score 1 at $1 of $2 is a reward of .5: "a less ours" .25 / .75 * .5, "b less ours" -.5.
    mine = small(quality_value_usd=2.0, dearest_usd=(1.0, 2.0))
    mine.update(one((0.75, 0.25), 0, 1.0, cost=1.0))
    assert mine.against("a").per_query.estimate == pytest.approx(0.5 / 3)
    assert mine.against("b").per_query.estimate == pytest.approx(-0.5)


def test_the_estimate_is_right_on_average_over_the_draw():
    pmf, rewards = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.5, 0.45])
    for k, model in enumerate(MODELS):
        mean = 0.0
        for action in range(3):
            mine = small(models=MODELS, dearest_usd=(0.0,) * 3)
            mine.update(one(tuple(pmf), action, rewards[action]))
            mean += pmf[action] * mine.against(model).per_query.estimate
        assert mean == pytest.approx(rewards[k] - pmf @ rewards, abs=1e-12)


def test_cumulative_regret_is_the_mean_times_the_rows():
    mine = tracker()
    mine.update(choices(draw(3, 200)))
    found = mine.best_fixed()
    own = found.per_query
    assert own.rows == mine.rows == 200
    assert found.cumulative == (own.estimate * 200, own.lower * 200, own.upper * 200)


def test_the_best_model_pays_for_its_selection_and_a_named_one_does_not():
    mine = tracker(strongest="large")
    mine.update(choices(draw(5, 400)))
    best, each = mine.best_fixed(), [mine.against(model).per_query for model in MODELS]
    assert best.per_query.lower <= max(own.lower for own in each)
    assert best.per_query.upper >= max(own.upper for own in each)
    assert mine.strongest() == mine.against("large")
    assert tracker().strongest() is None
    assert best.per_query.lower <= best.per_query.estimate <= best.per_query.upper


def test_before_any_row_nothing_is_known():
    found = tracker().best_fixed()
    assert (found.per_query.lower, found.per_query.upper) == (-math.inf, math.inf)
    assert found.cumulative == (0.0, -math.inf, math.inf)


@pytest.mark.parametrize("window", [0, 50])
def test_row_by_row_and_all_at_once_are_the_same_bits(window):
    log, whole, stream = choices(draw(1, 130)), tracker(window=window), tracker(window=window)
    whole.update(log)
    for row in range(len(log)):
        stream.update(log.part(row, row + 1))
    assert stream.dump() == whole.dump()
    assert stream.best_fixed() == whole.best_fixed()


def test_a_loaded_state_goes_on_as_if_nothing_had_happened():
    log, straight, before = choices(draw(2, 300)), tracker(window=40), tracker(window=40)
    straight.update(log)
    before.update(log.part(0, 111))
    after = RegretTracker.load(before.dump())
    assert after.dump() == before.dump()
    after.update(log.part(111, 300))
    assert after.dump() == straight.dump()
    assert after.recent_best_fixed() == straight.recent_best_fixed()


def test_a_damaged_state_is_refused():
    mine = tracker(window=40)
    mine.update(choices(draw(2, 60)))
    state = mine.dump()
    parts = msgspec.msgpack.decode(state)
    wrong = [b"", state[:-3], msgspec.msgpack.encode(["other/1", *parts[1:]])]
    for place, value in ((2, 61), (4, parts[4][:1]), (5, []), (4, [b"", *parts[4][1:]])):
        wrong.append(msgspec.msgpack.encode([*parts[:place], value, *parts[place + 1 :]]))
    for bad in wrong:
        with pytest.raises(SnapshotError):
            RegretTracker.load(bad)


def test_the_window_shows_what_the_whole_hides():
    mine, log = tracker(window=400), draw(4, 2400)
    turned = dataclasses.replace(log, potential=log.potential.copy())
    turned.potential[1600:, 0] = 0.0  # the policy's favourite fails
    mine.update(choices(turned))
    recent = mine.recent_best_fixed()
    assert recent.since == 1600
    assert recent.per_query.rows == 800
    assert recent.per_query.lower > mine.best_fixed().per_query.lower
    assert tracker().recent_best_fixed() is None


def test_a_model_without_a_chance_has_no_regret_and_neither_has_the_best_of_all():
    mine = tracker(window=10, strongest="large")
    mine.update(choices(draw(6, 30)))
    mine.update(one((0.5, 0.5, 0.0), 0, 1.0))
    assert mine.unsupported == ("large",)
    assert mine.against("small") is not None
    assert mine.against("large") is mine.strongest() is mine.best_fixed() is None
    assert mine.recent_best_fixed() is None
    assert RegretTracker.load(mine.dump()).unsupported == ("large",)


GOOD = (0.75, 0.25)
WRONG = {
    "propensity 0": one(GOOD, 0, 1.0, propensity=0.0),
    "propensity above 1": one(GOOD, 0, 1.0, propensity=1.5),
    "propensity NaN": one(GOOD, 0, 1.0, propensity=math.nan),
    "propensity logged before the mask": one((1.0, 0.0), 0, 1.0, propensity=0.75),
    "another action's propensity": one(GOOD, 1, 1.0, propensity=0.75),
    "an action off by one": Choices(
        np.array([2]), np.array([0.25]), np.array([GOOD]), np.array([1.0]), np.array([0.0])
    ),
    "an action below 0": Choices(
        np.array([-1]), np.array([0.25]), np.array([GOOD]), np.array([1.0]), np.array([0.0])
    ),
    "an action that is no whole number": Choices(
        np.array([0.5]), np.array([0.25]), np.array([GOOD]), np.array([1.0]), np.array([0.0])
    ),
    "a pmf that does not sum to 1": one((0.75, 0.35), 0, 1.0),
    "a drawn action of propensity 0": one((1.0, 0.0), 1, 1.0),
    "a score above 1": one(GOOD, 0, 1.5),
    "a score that is NaN": one(GOOD, 0, math.nan),
    "a negative cost": one(GOOD, 0, 1.0, cost=-1.0),
    "an infinite cost": one(GOOD, 0, 1.0, cost=math.inf),
    "lengths that differ": Choices(
        np.array([0]), np.array([0.75]), np.array([GOOD]), np.ones(2), np.zeros(2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", WRONG.values(), ids=WRONG)
def test_a_wrong_row_is_refused_and_nothing_taken(bad):
    mine = small()
    before = mine.dump()
    with pytest.raises(InputError):
        mine.update(bad)
    assert mine.dump() == before


def test_a_cost_above_its_limit_counts_as_the_limit_and_is_told():
    cut, at = small(dearest_usd=(0.5, 0.5)), small(dearest_usd=(0.5, 0.5))
    cut.update(one(GOOD, 0, 1.0, cost=0.9))
    at.update(one(GOOD, 0, 1.0, cost=0.5))
    assert cut.against("b") == at.against("b")
    assert (cut.left_out[OVER_LIMIT], at.left_out[OVER_LIMIT]) == (1, 0)


def interaction(**changes) -> Interaction:
    given = {
        "event_id": "e", "ts": 0.0, "closed_ts": 1.0, "features": Features(dense=np.zeros(1)),
        "eligible": ("b", "a"), "pmf": (0.25, 0.75), "action": "a", "propensity": 0.75,
        "slice": "policy", "quality_value_usd": 1.0, "score": 1.0, "cost_usd": 0.0,
    }  # fmt: skip
    return Interaction(**given | changes)


def test_interactions_find_their_columns_by_name():
    followed, updated = small(), small()
    followed.follow([interaction()])
    updated.update(one(GOOD, 0, 1.0))
    assert followed.dump() == updated.dump()


def test_what_was_not_drawn_or_has_no_outcome_is_left_out_and_counted():
    mine = small()
    mine.follow(
        [
            interaction(slice="forced", learn=False, propensity=1.0),
            interaction(learn=False),
            interaction(score=None),
            interaction(cost_usd=None),
            interaction(),
        ]
    )
    assert mine.rows == 1
    assert mine.left_out == {FORCED: 2, NO_OUTCOME: 2}


@pytest.mark.parametrize(
    "changes",
    [{"eligible": ("b", "c")}, {"action": "c"}, {"pmf": (1.0,)}],
    ids=["unknown model", "unknown action", "short pmf"],
)
def test_an_interaction_that_does_not_fit_is_refused(changes):
    mine = small()
    with pytest.raises(InputError):
        mine.follow([interaction(score=None), interaction(**changes)])
    assert (mine.rows, mine.left_out) == (0, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"models": ("a", "a")},
        {"dearest_usd": (1.0,)},
        {"dearest_usd": (1.0, math.nan)},
        {"dearest_usd": (1.0, -1.0)},
        {"quality_value_usd": 0.0},
        {"quality_value_usd": math.inf},
        {"strongest": "c"},
        {"alpha": 0.0},
        {"horizon": 0.0},
        {"scale": 0.0},
        {"window": -1},
    ],
    ids=str,
)
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(InputError):
        small(**wrong)


def test_an_unknown_comparator_is_refused():
    with pytest.raises(InputError, match="none of the models"):
        small().against("c")
