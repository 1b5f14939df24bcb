"""The demo's world: deterministic, late by tens of queries, silent about what was not chosen."""

from __future__ import annotations

import dataclasses
import uuid

import numpy as np
import pytest
from support.demo import small_log
from support.streams import decision

from bandit_router.demo.world import (
    DROP_FACTOR,
    JUDGED_LIMIT_S,
    OnTheirWay,
    World,
    demo_log,
    make_world,
)

LOG = small_log(400)


def world(seed: int = 0, **options) -> World:
    return make_world(LOG, seed=seed, quality_value_usd=0.1, **options)


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    one, again, other = world(1), world(1), world(2)
    assert one.table.query_ids == again.table.query_ids
    assert one.table.query_ids != other.table.query_ids
    for name in ("arrival_ts", "answer_s", "judged_s"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert (getattr(one, name) != getattr(other, name)).any()
    assert [one.event_id(i) for i in range(9)] == [again.event_id(i) for i in range(9)]


def test_event_ids_are_distinct_uuids_of_version_7_in_order_of_arrival():
    some = world()
    ids = [some.event_id(query) for query in range(len(some))]
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(event_id).version for event_id in ids} == {7}
    assert [event_id[:13] for event_id in ids] == sorted(event_id[:13] for event_id in ids)


def test_every_query_comes_once_and_folds_keep_their_order():
    folds = np.repeat([0, 1], [100, 300])
    some = make_world(dataclasses.replace(LOG, folds=folds), seed=3, quality_value_usd=0.1)
    assert sorted(some.table.query_ids) == sorted(LOG.query_ids)
    assert set(some.table.query_ids[:100]) == set(LOG.query_ids[:100])
    assert some.table.query_ids[:100] != LOG.query_ids[:100]


def test_the_favourite_fails_half_way_and_nothing_else_changes():
    sound, failing = world(failing=False), world()
    drop = failing.drop
    assert (drop.model, drop.query, drop.factor) == ("middle", 200, DROP_FACTOR)
    expected = sound.table.scores.copy()
    expected[200:, 1] *= DROP_FACTOR
    np.testing.assert_array_equal(failing.table.scores, expected)
    np.testing.assert_array_equal(failing.table.costs_usd, sound.table.costs_usd)
    assert sound.drop is None


def test_which_model_is_the_favourite_depends_on_what_an_answer_is_worth():
    assert make_world(LOG, seed=0, quality_value_usd=0.0005).drop.model == "small"
    assert make_world(LOG, seed=0, quality_value_usd=50.0).drop.model == "large"


def test_what_comes_back_is_of_the_chosen_model_and_late():
    some = world()
    chosen = decision(some.event_id(7), float(some.arrival_ts[7]), eligible=some.table.models,
                      action="large", app="demo")  # fmt: skip
    completion, feedback = some.outcomes(7, chosen)
    assert (completion.model, completion.cost_usd) == ("large", some.table.costs_usd[7, 2])
    assert feedback.value == some.table.scores[7, 2]
    assert chosen.ts < completion.ts < feedback.ts < chosen.ts + 20 + JUDGED_LIMIT_S
    behind = np.searchsorted(some.arrival_ts, some.arrival_ts + some.answer_s + some.judged_s)
    assert 20 < np.mean(behind[:300] - np.arange(300)) < 45


def test_outcomes_arrive_in_the_order_of_their_times_each_once():
    some, coming, seen = world(), OnTheirWay(), []
    for query in range(len(some)):
        chosen = decision(some.event_id(query), float(some.arrival_ts[query]), action="small")
        coming.add(some.outcomes(query, chosen))
        seen += coming.arrived(float(some.arrival_ts[query]))
    seen += coming.arrived(np.inf)
    assert len(seen) == 2 * len(some)
    assert [o.ts for o in seen] == sorted(o.ts for o in seen)
    assert coming.arrived(np.inf) == []


def test_the_packaged_log_has_both_parts_in_order():
    log = demo_log()
    assert (len(log), len(log.models)) == (3609, 3)
    assert log.query_ids[0].startswith("val")
    assert log.query_ids[-1].startswith("test_holdout")
    assert demo_log(30).query_ids == log.query_ids[:30]


@pytest.mark.parametrize("value", [0.004, 0.1, 1.3])
def test_the_documented_range_of_quality_values_has_the_documented_favourite(value: float):
    model = make_world(demo_log(), seed=0, quality_value_usd=value).drop.model
    assert model == "mistralai/mistral-large-2512"
