"""Feedback and escalations, however they arrive: each counts once, or is set aside with a reason.

Feedback is sent one to five times, out of order, some of it before its decision, some after the
window; the process that joins is stopped and resumed in between.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.judgements import check, judged, rules
from support.session import recipe
from support.streams import MODELS, completion, decision, escalation, feedback

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.events import ErrorOutcome, EscalationReason, Event, Feedback, encode
from bandit_router.joiner import Joiner, JoinRules
from bandit_router.loop import Loop, MemorySink
from bandit_router.store_ops import fresh_loop, resume
from bandit_router.types import Decision

AGGREGATIONS = ("last", "first", "mean", "max", "min")
SEEDS = st.integers(0, 2**32 - 1)
REASONS = get_args(EscalationReason)


def fresh(setup: JoinRules) -> Loop:
    return fresh_loop(recipe(rules=setup), MemorySink())


def resumed(loop: Loop, setup: JoinRules) -> Loop:
    """Another loop that goes on from the first one's dumps."""
    again = fresh(setup)
    again.joiner.load(loop.joiner.dump())
    again.learner.load(loop.learner.dump())
    again.sink = loop.sink
    again.offset = loop.offset
    return again


def run(setup: JoinRules, events: Sequence[Event], stops: frozenset[int] = frozenset()) -> Loop:
    loop = fresh(setup)
    for offset, event in enumerate(events):
        if offset in stops:
            loop = resumed(loop, setup)
        loop.feed(event, offset)
    loop.drain()
    return loop


CASES = [("first", "last"), *(("window", aggregation) for aggregation in AGGREGATIONS)]


@pytest.mark.parametrize(("closing", "aggregation"), CASES)
@settings(max_examples=25)
@given(SEEDS, st.frozensets(st.integers(0, 400), max_size=6))
def test_applied_is_what_is_distinct_and_valid_over_restarts(closing, aggregation, seed, stops):
    judges = 1 if closing == "first" else 4
    sent = judged(random.Random(seed), 30, apart_s=15.0, judges=judges, aggregation=aggregation)
    setup = rules(closing, aggregation)
    loop = run(setup, sent.events, stops)
    check(sent, loop.sink.rows, Counter(rejected.reason for rejected in loop.sink.rejected))

    whole = run(setup, sent.events)
    assert loop.joiner.dump() == whole.joiner.dump()
    assert loop.learner.dump() == whole.learner.dump()


@settings(max_examples=50)
@given(SEEDS, st.sampled_from(AGGREGATIONS))
def test_in_no_order_at_all_within_a_window_the_same_is_applied(seed, aggregation):
    rng = random.Random(seed)
    sent = judged(rng, 12, apart_s=0.3, judges=4, aggregation=aggregation)
    rng.shuffle(sent.events)
    loop = run(rules("window", aggregation), sent.events)
    check(sent, loop.sink.rows, Counter(rejected.reason for rejected in loop.sink.rejected))


@pytest.mark.parametrize("closing", ["first", "window"])
def test_a_store_that_is_opened_again_and_again_applies_each_feedback_once(tmp_path, closing):
    rng = random.Random(8)
    sent = judged(rng, 600, apart_s=4.0, judges=1 if closing == "first" else 3, aggregation="last")
    # Far later, one more: it ends every window.
    sent.events.append(decision("end", 1000.0 + 600 * 4.0 + 200.0))
    made_from = recipe(rules=rules(closing))
    path = tmp_path / "log.db"
    stops = sorted(rng.sample(range(1, len(sent.events)), 12))
    for start, end in zip([0, *stops], [*stops, len(sent.events)], strict=True):
        with SqliteStore.open(path) as store:
            loop = resume(store, made_from, snapshot_every=50)
            learned = end - rng.randint(0, 20)  # what comes after was stored only
            for i in range(start, end):
                (offset,) = store.append([encode(sent.events[i])])
                if i < learned:
                    loop.feed(sent.events[i], offset)
            if rng.random() < 0.5:
                loop.sink.commit()  # else what was learned is lost with the process
    with SqliteStore.open(path) as store:
        resume(store, made_from)
        rows = [row for _, row in store.rows()]
        check(sent, rows, Counter(store.rejected_counts()))


def test_the_stream_of_these_laws_has_everything_in_it():
    sent = judged(random.Random(1), 2000, apart_s=4.0, judges=3, aggregation="last")
    first = {}
    for place, event in enumerate(sent.events):
        first.setdefault((type(event), event.event_id), place)
    feedbacks = [event for event in sent.events if isinstance(event, Feedback)]
    early = sum(first[Feedback, e] < first[Decision, e] for t, e in first if t is Feedback)
    assert 0.15 < early / sum(kind is Feedback for kind, _ in first) < 0.5
    assert 0.02 < sent.set_aside["late"] / len(feedbacks) < 0.08
    assert set(sent.set_aside) == {
        "duplicate", "late", "forged_app", "unknown_metric", "forged_value",
    }  # fmt: skip


@st.composite
def chains(draw: st.DrawFn, *, named: bool) -> tuple[str, list[Event], float, list[str]]:
    """(drawn model, its outcomes in any order, everything that was spent, reasons in order).

    With ``named`` the feedback says which model it judges, so that it cannot be taken for that of
    an earlier answer which it overtook.
    """
    models = draw(st.permutations(MODELS))[: draw(st.integers(1, 3))]
    reasons = draw(st.lists(st.sampled_from(REASONS), min_size=len(models) - 1, max_size=2))
    reasons = reasons[: len(models) - 1]
    costs = draw(st.lists(st.floats(0.0, 10.0), min_size=len(models), max_size=len(models)))
    events: list[Event] = [
        escalation(ts=float(n), from_model=a, to_model=b, reason=reason, cost_usd=cost, attempt=n)
        for n, (a, b, reason, cost) in enumerate(
            zip(models, models[1:], reasons, costs, strict=False), start=1
        )
    ]
    last = {"model": models[-1], "cost_usd": costs[-1], "attempt": len(models), "latency_s": 3.0}
    if draw(st.booleans()):
        about = models[-1] if named else ""
        events += [completion(ts=5.0, **last), feedback(ts=6.0, value=0.75, model=about)]
    else:
        events.append(ErrorOutcome(event_id="d", ts=5.0, reason="timeout", **last))
    shown = draw(st.integers(0, len(reasons)))  # attempts that were delivered before the user asked
    events += [
        completion(ts=n + 0.5, model=models[n - 1], cost_usd=costs[n - 1], attempt=n)
        for n in range(1, shown + 1)
    ]
    return models[0], draw(st.permutations(events)), math.fsum(costs), reasons


@pytest.mark.parametrize("closing", ["first", "window"])
@given(st.data(), st.integers(0, 8), st.integers(0, 8))
def test_a_rescue_is_charged_to_the_model_that_needed_it(closing, data, place, stop):
    drawn, events, spent, reasons = data.draw(chains(named=closing == "first"))
    made = decision(action=drawn, pmf=(0.5, 0.25, 0.25), propensity={"a": 0.5}.get(drawn, 0.25))
    arrivals = [*events[:place], made, *events[place:]]
    joiner, rows = Joiner(rules(closing)), []
    for i, event in enumerate(arrivals):
        if i == stop:
            again = Joiner(rules(closing))
            again.load(joiner.dump())
            joiner = again
        rows += joiner.decision(event) if event is made else joiner.outcome(event)
    rows += joiner.drain()
    (row,) = rows
    answered = any(isinstance(event, Feedback) for event in events)
    assert (row.action, row.learn) == (drawn, True)
    assert row.cost_usd == spent
    assert list(row.escalations) == reasons
    assert row.score == (0.75 if answered else 0.0)
    assert row.latency_s == 3.0


def test_an_answer_that_was_escalated_is_not_the_last_one():
    joiner = Joiner(rules("first"))
    early = [
        decision(),
        completion(ts=1.0, attempt=1, cost_usd=0.004),
        escalation(ts=2.0, attempt=1, reason="user_reask", cost_usd=0.004),
        feedback(ts=9.0, value=1.0),
    ]
    assert joiner.decision(early[0]) == []
    assert [joiner.outcome(event) for event in early[1:]] == [[], [], []]
    assert joiner.waits_for("d") == ("answer",)
    (row,) = joiner.outcome(completion(ts=3.0, model="c", attempt=2, cost_usd=0.016))
    assert (row.action, row.cost_usd, row.score, row.learn) == ("b", 0.004 + 0.016, 1.0, True)


@pytest.mark.parametrize("closing", ["first", "window"])
def test_a_request_that_was_handed_to_a_person_counts_with_what_is_known(closing):
    joiner = Joiner(rules(closing))
    rows = joiner.decision(decision())
    for event in (
        completion(ts=1.0, attempt=1, cost_usd=0.004),
        escalation(ts=2.0, attempt=1, reason="user_handoff", to_model="a person"),
        feedback(ts=3.0, value=0.0),
    ):
        rows += joiner.outcome(event)
    assert len(rows) == (closing == "first")
    (row,) = [*rows, *joiner.drain()]
    assert (row.score, row.cost_usd, row.escalations) == (0.0, 0.004, ("user_handoff",))
    assert row.learn


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_of_an_escalation_reaches_the_policy(reason):
    loop = fresh(rules("first"))
    step = escalation(reason=reason, cost_usd=0.004)
    events = [decision(), step, completion(model="c", cost_usd=0.016), feedback(value=1.0)]
    for offset, event in enumerate(events):
        loop.feed(event, offset)
    (row,) = loop.sink.rows
    assert (row.action, row.cost_usd, row.escalations) == ("b", 0.004 + 0.016, (reason,))
    assert row.learn
