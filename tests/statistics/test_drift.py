"""The drift monitor: how often it cries wolf, how fast it sees one, and its state.

The guarantee: while the expectation overstates the truth by at most the margin on average, the
mean number of interactions to an alarm is at least the threshold, and by Doob's inequality the
probability of an alarm within n interactions is at most n / threshold.
"""

from __future__ import annotations

import statistics

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from bandit_router.drift import DriftConfig, DriftMonitor
from bandit_router.errors import InputError, SnapshotError

LEVEL = 1e-4


def first_alarm(monitor, pairs, model="m"):
    """Number of the interaction that raised the first alarm, or None."""
    for i, (expected, score) in enumerate(pairs, 1):
        if monitor.observe(model, expected, score) is not None:
            return i
    return None


def stream(seed, n, overstatement=0.0):
    """Expectations that change from query to query, and binary scores ``overstatement`` below."""
    rng = np.random.default_rng([17, seed])
    expected = rng.uniform(0.2, 0.95, n)
    scores = (rng.random(n) < expected - overstatement).astype(float)
    return zip(expected.tolist(), scores.tolist(), strict=True)


def test_calibrated_expectations_raise_alarms_no_more_often_than_the_bound_allows():
    runs, n, config = 200, 5000, DriftConfig()
    alarms = sum(first_alarm(DriftMonitor(config), stream(s, n)) is not None for s in range(runs))
    assert binom.sf(alarms - 1, runs, n / config.threshold) > LEVEL


def test_the_bound_holds_where_it_is_tight_too():
    """Expectations that overstate by the whole margin, and a threshold that is soon reached."""
    runs, n, config = 400, 200, DriftConfig(threshold=1000.0, warmup=0)
    alarms = sum(
        first_alarm(DriftMonitor(config), stream(s, n, config.margin)) is not None
        for s in range(runs)
    )
    assert alarms > 0  # else this would show nothing
    assert binom.sf(alarms - 1, runs, n / config.threshold) > LEVEL


def test_the_mean_run_to_a_false_alarm_is_at_least_the_threshold():
    config = DriftConfig(threshold=150.0, warmup=0)
    runs = [first_alarm(DriftMonitor(config), stream(s, 20_000, config.margin)) for s in range(150)]
    assert None not in runs
    error = statistics.stdev(runs) / len(runs) ** 0.5
    assert statistics.mean(runs) + 3.7 * error > config.threshold


@pytest.mark.parametrize(("drop", "within"), [(0.4, 100), (0.6, 60)])
def test_a_drop_is_noticed_soon(drop, within):
    delays = []
    for seed in range(60):
        monitor = DriftMonitor()
        rng = np.random.default_rng([23, seed])
        for _ in range(300):
            assert monitor.observe("m", 0.8, float(rng.random() < 0.8)) is None
        after = ((0.8, float(rng.random() < 0.8 - drop)) for _ in range(2000))
        delays.append(first_alarm(monitor, after))
    assert None not in delays
    assert statistics.median(delays) <= within


def test_an_alarm_says_which_model_after_how_many_and_by_how_much():
    monitor = DriftMonitor()
    for _ in range(100):
        monitor.observe("good", 0.8, 0.8)
    alarm, seen = None, 0
    while alarm is None:
        monitor.observe("good", 0.8, 0.8)
        alarm, seen = monitor.observe("bad", 0.9, 0.1), seen + 1
    assert (alarm.model, alarm.interactions) == ("bad", seen)
    assert alarm.shortfall == pytest.approx(0.8)


def test_a_model_that_does_better_than_expected_raises_no_alarm():
    monitor = DriftMonitor(DriftConfig(threshold=10.0))
    assert first_alarm(monitor, [(0.3, 1.0)] * 3000) is None


def test_the_first_interactions_of_a_model_are_not_watched():
    config = DriftConfig(warmup=30, threshold=2.0)
    assert first_alarm(DriftMonitor(config), [(1.0, 0.0)] * 40) > 30
    assert first_alarm(DriftMonitor(DriftConfig(warmup=0, threshold=2.0)), [(1.0, 0.0)] * 40) < 10


def test_after_an_alarm_the_count_starts_over():
    monitor = DriftMonitor()
    first = first_alarm(monitor, [(1.0, 0.0)] * 500)
    assert first_alarm(monitor, [(1.0, 0.0)] * 500) == first


def test_forgetting_one_model_is_as_if_it_had_never_been_seen():
    monitor, never = DriftMonitor(), DriftMonitor()
    for expected, score in stream(0, 200):
        monitor.observe("m", expected, score)
        monitor.observe("other", expected, score)
        never.observe("other", expected, score)
    monitor.forget("m")
    monitor.forget("nobody")
    assert monitor.dump() == never.dump()


def test_dump_load_continue_is_bit_equal():
    first, second = DriftMonitor(), DriftMonitor()
    for expected, score in stream(1, 150):
        first.observe("m", expected, score)
    second.load(first.dump())
    for expected, score in stream(2, 400, 0.4):
        assert first.observe("m", expected, score) == second.observe("m", expected, score)
        assert first.dump() == second.dump()


STATES = {
    "empty": b"",
    "noise": bytes(range(200)),
    "two tables": msgspec.msgpack.encode([{}, {}]),
    "text for a number": msgspec.msgpack.encode([{"m": 1}, {"m": "x"}, {}]),
    "NaN": msgspec.msgpack.encode([{"m": 1}, {"m": float("nan")}, {}]),
    "infinite detector": msgspec.msgpack.encode([{"m": 1}, {"m": 0.0}, {"m": [float("inf")] * 4}]),
    "short detector": msgspec.msgpack.encode([{"m": 50}, {"m": 0.0}, {"m": [1.0]}]),
    "impossible count": msgspec.msgpack.encode([{"m": -1}, {"m": 0.0}, {}]),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    monitor = DriftMonitor()
    for expected, score in stream(3, 100):
        monitor.observe("m", expected, score)
    before = monitor.dump()
    for wrong in (state, before[:-1]):
        with pytest.raises(SnapshotError):
            monitor.load(wrong)
    assert monitor.dump() == before


@pytest.mark.parametrize(
    "settings", [{"threshold": 1.0}, {"threshold": float("nan")}, {"margin": -0.1}, {"margin": 0.3}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError):
        DriftMonitor(DriftConfig(**settings))
