"""Laws of the joiner, over seeded streams that Hypothesis chooses and shuffles."""

from __future__ import annotations

import random
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.streams import MODELS, completion, decision, escalation, feedback

from bandit_router.events import Event, Feedback, encode_row
from bandit_router.joiner import Joiner, JoinRules
from bandit_router.types import Decision, Interaction

WINDOW_S, SLACK_S = 100.0, 10.0
CLOSINGS = pytest.mark.parametrize("closing", ["first", "window"])
SEEDS = st.integers(0, 2**32 - 1)


def rules(closing: str, **others) -> JoinRules:
    return JoinRules(window_s=WINDOW_S, slack_s=SLACK_S, max_jump_s=50.0, closing=closing, **others)


def stream(seed: int, n: int = 25) -> list[Event]:
    """Decisions with every kind of outcome, in order of event time.

    Some get no feedback, some get it after the window, some are escalated, some were served by
    another model than the drawn one, some fail altogether, some hear of no completion.
    """
    rng = random.Random(seed)
    events: list[Event] = []
    ts = 1000.0
    for i in range(n):
        ts += rng.choice((0.0, 0.5, 3.0, 20.0, 300.0))
        event_id, drawn = f"{seed}-{i}", rng.choice(MODELS[:2])
        events.append(decision(event_id, ts, action=drawn, pmf=(0.5, 0.5, 0.0), propensity=0.5))
        fate, later = rng.random(), ts + rng.uniform(0.0, WINDOW_S)
        if fate < 0.2:
            events.append(escalation(event_id, later, from_model=drawn, cost_usd=rng.random()))
            attempt = rng.choice((None, 2))
            events.append(completion(event_id, later, model="c", attempt=attempt))
        elif fate < 0.3:
            events.append(completion(event_id, later, model="c", attempt=rng.choice((None, 1))))
        elif fate < 0.9:
            cost = rng.choice((None, rng.random()))
            events.append(completion(event_id, later, model=drawn, cost_usd=cost))
        if rng.random() < 0.8:
            value, after = rng.random(), rng.choice((0.3, 0.9, 1.0, 1.5))
            events.append(feedback(event_id, ts + after * WINDOW_S, value=value))
    return sorted(events, key=lambda event: event.ts)


def shuffled(events: Sequence[Event], seed: int) -> list[Event]:
    """An order of arrival in which nothing is delayed by more than the slack."""
    rng = random.Random(seed)
    return sorted(events, key=lambda event: event.ts + rng.uniform(0.0, SLACK_S))


def join(joiner: Joiner, events: Sequence[Event]) -> list[Interaction]:
    rows: list[Interaction] = []
    for event in events:
        take = joiner.decision if isinstance(event, Decision) else joiner.outcome
        rows += take(event)
    return rows


def all_rows(joiner: Joiner, events: Sequence[Event]) -> list[bytes]:
    """What a whole stream gives, in an order that does not depend on that of arrival."""
    return sorted(encode_row(row) for row in [*join(joiner, events), *joiner.drain()])


@CLOSINGS
@given(SEEDS, SEEDS)
def test_any_order_within_the_slack_gives_the_same_interactions(closing, seed, order):
    events = stream(seed)
    expected = all_rows(Joiner(rules(closing)), events)
    assert all_rows(Joiner(rules(closing)), shuffled(events, order)) == expected


@CLOSINGS
@given(SEEDS, SEEDS, st.integers(1, 5))
def test_duplicates_within_the_slack_change_nothing(closing, seed, order, copies):
    events = stream(seed)
    expected = all_rows(Joiner(rules(closing)), events)
    again = Joiner(rules(closing))
    assert all_rows(again, shuffled(events * copies, order)) == expected
    decisions = sum(isinstance(event, Decision) for event in events)
    assert again.counts["decisions"] == decisions


@CLOSINGS
@given(SEEDS, SEEDS)
def test_every_decision_gives_exactly_one_interaction(closing, seed, order):
    events = shuffled(stream(seed), order)
    joiner = Joiner(rules(closing))
    ids = sorted(row.event_id for row in [*join(joiner, events), *joiner.drain()])
    assert ids == sorted(event.event_id for event in events if isinstance(event, Decision))
    assert joiner.open_decisions == 0


@CLOSINGS
@given(SEEDS, SEEDS)
def test_every_feedback_is_applied_once_or_set_aside_with_a_reason(closing, seed, order):
    events = shuffled(stream(seed) * 2, order)
    joiner = Joiner(rules(closing))
    rows = [*join(joiner, events), *joiner.drain()]
    sent = sum(isinstance(event, Feedback) for event in events)
    applied = sum(row.score is not None for row in rows)
    set_aside = sum(isinstance(item.event, Feedback) for item in joiner.discarded)
    assert applied + set_aside == sent


@CLOSINGS
@settings(max_examples=50)
@given(SEEDS, SEEDS, st.integers(0, 100))
def test_stopping_and_resuming_anywhere_is_not_visible(closing, seed, order, place):
    events = shuffled(stream(seed) * 2, order)
    whole = Joiner(rules(closing))
    rows = join(whole, events)

    first, second = Joiner(rules(closing)), Joiner(rules(closing))
    head = join(first, events[:place])
    second.load(first.dump())
    assert second.dump() == first.dump()
    tail = join(second, events[place:])
    assert [encode_row(row) for row in head + tail] == [encode_row(row) for row in rows]
    assert second.dump() == whole.dump()
    assert second.counts == whole.counts


@CLOSINGS
@given(SEEDS)
def test_equal_streams_give_equal_bytes(closing, seed):
    one, two = Joiner(rules(closing)), Joiner(rules(closing))
    join(one, stream(seed))
    join(two, stream(seed))
    assert one.dump() == two.dump()


@given(SEEDS, SEEDS, st.sampled_from(["last", "first", "mean", "max", "min"]))
def test_aggregation_in_the_window_does_not_depend_on_the_order(seed, order, aggregation):
    rng = random.Random(seed)
    events: list[Event] = [decision(ts=0.0), completion(ts=1.0)]
    for i in range(rng.randrange(1, 6)):
        ts = rng.choice((2.0, 3.0, 4.0))
        events.append(feedback(ts=ts, value=rng.random(), feedback_id=str(i)))
    if rng.random() < 0.5:
        events.append(feedback(ts=5.0, feedback_id="r", retracts="0"))
    setup = rules("window", aggregation=aggregation)
    expected = all_rows(Joiner(setup), events)
    assert all_rows(Joiner(setup), shuffled(events, order)) == expected


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_memory_stays_within_its_bounds(seed, max_open, max_early, max_closed):
    rng = random.Random(seed)
    events = stream(seed, 60)
    rng.shuffle(events)
    joiner = Joiner(rules("window", max_open=max_open, max_early=max_early, max_closed=max_closed))
    for event in events:
        join(joiner, [event])
        assert joiner.open_decisions <= max_open
        assert sum(len(early.outcomes) for early in joiner._early.entries.values()) <= max_early
        assert len(joiner._closed) <= max_closed
        assert len(joiner._open._queue) <= 2 * max_open + 1025
    decisions = sum(isinstance(event, Decision) for event in events)
    closed = joiner.counts["expired"] + joiner.counts["evicted"]
    assert closed + joiner.open_decisions == joiner.counts["decisions"] <= decisions
