"""The loop: one step per event, everything accounted for, catalog changes in their place."""

from __future__ import annotations

import numpy as np
import pytest
from support.streams import DIMENSION, catalog, completion, decision, features, feedback

from bandit_router.bootstrap import make_policy
from bandit_router.budget import BudgetPacer
from bandit_router.events import Change
from bandit_router.joiner import Joiner, JoinRules
from bandit_router.learner import Learner
from bandit_router.loop import DeadLetter, Loop, MemorySink
from bandit_router.types import Features, Interaction


class ListSource:
    """A log in a list; offsets count from 1."""

    def __init__(self, events):
        self.events = list(events)
        self.reads: list[tuple[int, int]] = []

    def read(self, after: int, limit: int):
        self.reads.append((after, limit))
        start = max(after, 0)
        return [(i + 1, e) for i, e in enumerate(self.events)][start : start + limit]


class CountingSink(MemorySink):
    """Knows the steps and when it was told to commit."""

    def __init__(self):
        super().__init__()
        self.steps: list[tuple] = []
        self.commits: list[int] = []

    def put(self, offset, event, first_seq, rows, rejected, changes):
        super().put(offset, event, first_seq, rows, rejected, changes)
        self.steps.append((offset, first_seq, len(rows), [r.reason for r in rejected]))

    def commit(self):
        self.commits.append(len(self.steps))


def loop(**rules) -> Loop:
    learner = Learner(
        make_policy("linucb", catalog(), dimension=DIMENSION), catalog(), BudgetPacer(0.05)
    )
    return Loop(Joiner(JoinRules(**rules)), learner, CountingSink())


def request(i: int):
    event_id = f"d{i}"
    return [
        decision(event_id, float(i), features=features(i)),
        completion(event_id, i + 0.1),
        feedback(event_id, i + 0.2, value=float(i % 2)),
    ]


ADDED = Change(ts=5.0, kind="model_added", data={"model": "d", "expected_cost_usd": 0.1})


def test_each_event_is_one_step_and_rows_are_numbered():
    target = loop()
    events = [*request(1), ADDED, *request(2)]
    assert target.run(ListSource(events)) == 7
    assert target.sink.steps == [
        (1, 1, 0, []), (2, 1, 0, []), (3, 1, 1, []), (4, 2, 1, []),
        (5, 3, 0, []), (6, 3, 0, []), (7, 3, 1, []),
    ]  # fmt: skip
    assert [type(row) for row in target.sink.rows] == [Interaction, Change, Interaction]
    assert target.learner.learn_seq == 3
    assert target.learner.catalog.names == ("a", "b", "c", "d")


def test_a_source_is_read_after_what_was_seen_and_committed_by_the_batch():
    target, source = loop(), ListSource([e for i in range(5) for e in request(i)])
    assert target.run(source, batch=4) == 15
    assert source.reads == [(-1, 4), (4, 4), (8, 4), (12, 4), (15, 4)]
    assert target.sink.commits == [4, 8, 12, 15]
    source.events += request(9)
    assert target.run(source) == 3
    assert target.run(source) == 0


def test_a_dead_letter_is_kept_and_the_offset_advances():
    target = loop()
    target.feed(DeadLetter("undecodable", b"junk"), 1)
    assert target.sink.steps == [(1, 1, 0, ["undecodable"])]
    assert target.sink.rejected[0].item.data == b"junk"
    assert target.offset == 1


def test_what_the_joiner_sets_aside_reaches_the_sink_with_its_event():
    target = loop()
    for offset, event in enumerate([*request(1), *request(1)]):
        target.feed(event, offset)
    assert [r.reason for r in target.sink.rejected] == ["duplicate"] * 3
    assert target.joiner.discarded == []
    assert target.learner.learn_seq == 1


def test_a_row_that_the_learner_refuses_takes_no_number():
    target = loop()
    poisoned = decision("p", 0.0, features=Features(dense=np.array([np.nan] * DIMENSION)))
    for offset, event in enumerate([poisoned, completion("p"), feedback("p"), *request(2)]):
        target.feed(event, offset)
    assert [r.reason for r in target.sink.rejected] == ["poison"]
    assert [row.event_id for row in target.sink.rows] == ["d2"]
    assert target.learner.learn_seq == 1


@pytest.mark.parametrize("kind", ["drift_alarm", "flag_changed", "snapshot_published", "rollback"])
def test_other_changes_are_no_training_rows(kind):
    target = loop()
    target.feed(Change(ts=1.0, kind=kind), 1)
    assert target.sink.steps == [(1, 1, 0, [])]
    assert target.learner.learn_seq == 0


def test_a_change_that_does_not_fit_is_set_aside():
    target = loop()
    target.feed(ADDED, 1)
    target.feed(ADDED, 2)
    assert [r.reason for r in target.sink.rejected] == ["bad_change"]


def test_one_event_may_close_several_decisions():
    target = loop(closing="window", window_s=10.0, slack_s=1.0)
    for offset, event in enumerate([*request(1), *request(2), decision("late", 50.0)]):
        target.feed(event, offset)
    assert target.sink.steps[-1] == (6, 1, 2, [])


def test_draining_closes_what_is_open():
    target = loop()
    target.feed(decision("open", 0.0), 1)
    target.feed(completion("open", 1.0), 2)
    target.feed(feedback("ghost", 1.0), 3)
    target.drain()
    assert target.sink.steps[-1] == (3, 1, 1, ["orphan"])
    assert target.sink.rows[0].score is None
