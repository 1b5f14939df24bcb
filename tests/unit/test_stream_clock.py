"""The stream's clock follows the events and believes no single one of them."""

from __future__ import annotations

import pytest

from bandit_router.joiner.clock import WITNESSES_BACK, StreamClock


def clock() -> StreamClock:
    return StreamClock(max_jump_s=60.0, witnesses=3)


def after(target: StreamClock, *events: tuple[float, str]) -> float:
    for ts, event_id in events:
        target.advance(ts, event_id)
    return target.now


def test_time_is_the_latest_event_time():
    assert after(clock(), (10.0, "a"), (12.0, "b"), (11.0, "c")) == 12.0


def test_time_never_runs_backwards():
    target, last = clock(), float("-inf")
    for i, ts in enumerate((5.0, 1.0, 9.0, -1e9, 1e12, 8.0, 30.0, 29.0)):
        now = target.advance(ts, str(i))
        assert now >= last
        last = now


def test_a_far_jump_needs_different_decisions_in_a_row():
    target = clock()
    assert after(target, (0.0, "a"), (1e6, "b"), (1e6, "b"), (1e6 + 5, "b"), (1e6, "c")) == 0.0
    assert after(target, (1e6 + 500, "d")) == 1e6
    assert target.jumps == 5


def test_an_event_near_the_clock_clears_the_suspicion():
    target = clock()
    assert after(target, (0.0, "a"), (1e6, "b"), (1e6, "c"), (1.0, "d"), (1e6, "e")) == 1.0


def test_after_a_quiet_night_the_clock_follows_the_witnesses_that_are_near_each_other():
    night = [(0.0, "a"), (30_007.0, "b"), (30_000.0, "c")]
    assert after(clock(), *night, (30_009.0, "d")) == 30_009.0
    assert after(clock(), *night, (90_000.0, "d")) == 30_007.0


def test_where_every_gap_is_a_jump_the_clock_follows_two_events_behind():
    target = clock()
    times = [target.advance(i * 1000.0, str(i)) for i in range(8)]
    assert times == [0.0, 0.0, 0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0]


def test_a_clock_that_began_in_the_future_finds_back_and_goes_on():
    target = clock()
    after(target, (1e9, "wild"))
    for i in range(WITNESSES_BACK):
        target.advance(float(i) / 100.0, str(i))
    at_return = target.now
    assert at_return == 1e9
    assert after(target, (20.0, "x")) == pytest.approx(at_return + 10.01)


def test_a_short_burst_of_old_events_does_not_turn_the_clock():
    target = clock()
    after(target, (10_000.0, "a"), *((float(i), str(i)) for i in range(500)))
    assert after(target, (10_001.0, "b")) == 10_001.0


def test_a_resumed_clock_goes_on_the_same():
    events = [(0.0, "a"), (1e6, "b"), (1e6, "c"), (-1e6, "d"), (1e6, "e"), (1e6, "f"), (1e6, "g")]
    whole = clock()
    for i in range(len(events)):
        half = clock()
        after(half, *events[:i])
        resumed = clock()
        resumed.load(half.dump())
        after(resumed, *events[i:])
        whole = clock()
        after(whole, *events)
        assert resumed.dump() == whole.dump()
