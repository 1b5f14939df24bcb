"""What an app's store refuses to be opened with, and what a batch survives that fails halfway."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.streaming import interactions, plan, topic

from bandit_router.adapters.kafka.client import SOURCES
from bandit_router.adapters.sqlite_stream import Arrival
from bandit_router.errors import ConfigError, StorageError
from bandit_router.events import encode
from bandit_router.store_ops import policy_of
from bandit_router.streaming.applearner import AppLearner
from bandit_router.streaming.partition import Item


def test_another_salt_is_refused_because_the_draws_could_not_be_explained(tmp_path):
    before = plan("x", tmp_path)
    AppLearner.open(before).close()
    with pytest.raises(ConfigError, match=r"app\.salt is 'other', but its decisions were drawn"):
        AppLearner.open(replace(before, salt="other"))
    AppLearner.open(before).close()


def batch_of(events):
    """The app's part of a batch of all these events, and what it spans."""
    at = dict.fromkeys(SOURCES, 0)
    items = []
    for event in events:
        name = topic(event)
        offset, at[name] = at[name], at[name] + 1
        sources = (*(at[source] for source in SOURCES), 0)
        items.append(Item(name, offset, Arrival(encode(event), event, sources), None))
    return items, {"order": 0, "start": dict.fromkeys(SOURCES, 0), "upto": at}


def failing_once_learned(count):
    """From a recipe to a policy that fails on every row after so many."""

    def make(recipe):
        policy = policy_of(recipe)
        learn_row, seen = policy.learn, []

        def fails(row):
            if row.event_id not in seen:
                seen.append(row.event_id)
            learn_row(row)
            if len(seen) == count:
                raise ZeroDivisionError("a fault of the policy")

        policy.learn = fails
        return policy

    return make


def test_a_batch_that_could_not_be_mended_after_a_fault_of_the_policy_is_not_stored_twice(
    tmp_path, monkeypatch
):
    events = interactions("x", 30)
    items, span = batch_of(events)
    learner = AppLearner.open(plan("x", tmp_path, make=failing_once_learned(12)))
    note = learner.store.set_meta

    def locked(*_):
        monkeypatch.setattr(learner.store, "set_meta", note)
        raise StorageError("the database is locked")

    monkeypatch.setattr(learner.store, "set_meta", locked)
    with pytest.raises(StorageError, match="is locked"):
        learner.take(items, **span)
    learner.take(items, **span)
    assert learner.store.last_offset() == len(events)
    assert learner.store.rejected_counts()["policy_error"] >= 1
    learner.close()
