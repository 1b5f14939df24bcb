"""Confidence sequences: the inequality they rest on, exactly; coverage; invariances; states.

The guarantee: the truth is inside the bounds after every row with probability at least 1 - alpha,
whatever the logging policy learns and however the world drifts.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.stats import binom, norm
from support import sequence_cases
from support.sequence_cases import K, rows, taken

from bandit_router.bench import calibration_runs as worlds
from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope import sequence_kernels as kernels
from bandit_router.ope.asymptotic import AsymptoticSequence, asymptotic_bounds, asymptotic_radius
from bandit_router.ope.constant import HedgedCapital, PlugInBernstein
from bandit_router.ope.harm import HarmConfig, HarmMonitor
from bandit_router.ope.selected import best_of
from bandit_router.ope.sequences import ContrastSequence, SequenceConfig, design_scale
from bandit_router.ope.windowed import WindowedSequence

LEVEL = 1e-4
TARGET = np.eye(K)[3]
ONE = np.ones(1)


def fed(log, contrast, config=None, **more):
    sequence = ContrastSequence(log["pmf"].shape[1], config)
    sequence.update(**taken(log), contrast=contrast, **more)
    return sequence


def mean_of(values, config=None):
    sequence = ContrastSequence(1, config)
    sequence.update(values, np.zeros(len(values), dtype=int), ONE, ONE)
    return sequence


# -- the inequality, exactly ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_no_draw_can_be_expected_to_raise_the_wealth_against_the_truth(seed):
    """One step from a state with a past, over every draw: E[wealth after / wealth before] <= 1.

    And the pseudo-outcome's mean is the contrast's value. With weights up to 4,000, signed
    contrasts, wrong predictions and rewards at the ends of their range.
    """
    rng = np.random.default_rng([31, seed])
    before = fed(rows(seed, 50), TARGET - rows(seed, 50)["pmf"])
    pmf = rng.dirichlet(np.full(K, 0.2)) * 0.999 + 0.001 / K
    pmf /= pmf.sum()
    contrast = (TARGET, TARGET - pmf, rng.normal(size=K))[seed % 3]
    least = np.array([0.0, 0.1, 0.2, 0.0])
    reward = np.maximum(rng.choice([0.0, 1.0, rng.random()], K), least)
    predicted, value = rng.normal(0.5, 0.5, K), float(contrast @ reward)
    mean, wealth = 0.0, np.zeros_like(before._log_wealth)
    for action in range(K):
        after = ContrastSequence.load(before.dump())
        after.update(reward[[action]], [action], pmf, contrast, predicted[None], least)
        mean += pmf[action] * (after._sums - before._sums)[kernels.TOTAL]
        gained = after._log_wealth - before._log_wealth
        for side, sign in ((0, 1.0), (1, -1.0)):
            predicted_less = (after._drift - before._drift)[side] - sign * value
            wealth[side] += pmf[action] * np.exp(gained[side] + after._bets * predicted_less)
    assert mean == pytest.approx(value, abs=1e-9)
    assert np.all(wealth <= 1.0 + 1e-12)
    assert np.all(wealth > 0.0)


def test_one_row_by_hand():
    """Reward 1 after a prediction of 1/2: each bet b has won 1 + b / 2, of which exp(-b (m - 1/2))
    is left against the mean m.
    """
    sequence = mean_of([1.0], SequenceConfig(horizon=10_000))
    bets, log_prior = sequence.config.bets()
    assert bets[bets <= 1.0].size > 5
    won = np.where(bets <= 1.0, 1.0 + bets / 2.0, 0.0)
    exact = np.where(bets <= 1.0, np.exp(log_prior) * won * np.exp(bets * (0.5 - 0.3)), 0.0).sum()
    large = bets > 1.0  # there the control is capped at 1 / (2 b), so that a 0 costs half at most
    expected = np.minimum(0.5, 0.5 / bets + 0.9 / bets - 0.5 / bets)[large]
    exact += (
        np.exp(log_prior[large])
        * (1.0 + bets[large] * (1.0 - expected))
        * np.exp(bets[large] * (expected - 0.3))
    ).sum()
    assert sequence.log_evidence_above(0.3) == pytest.approx(math.log(exact), abs=1e-12)
    assert sequence.estimate == 1.0


def test_a_bound_is_where_the_evidence_reaches_its_threshold():
    log = rows(3, 500)
    sequence = fed(log, TARGET - log["pmf"])
    found = sequence.bounds(0.1)
    for evidence in (
        sequence.log_evidence_above(found.lower),
        sequence.log_evidence_below(found.upper),
    ):
        assert evidence == pytest.approx(math.log(20.0), abs=1e-6)
    assert sequence.log_evidence_above(found.lower - 0.01) > math.log(20.0)
    assert sequence.log_evidence_above(found.lower + 0.01) < math.log(20.0)


def test_the_series_of_the_logarithm_is_as_exact_as_the_library():
    gains = np.linspace(-0.006, 0.006, 1201)
    assert max(abs(kernels.log_of(g) - math.log1p(g)) for g in gains.tolist()) < 1e-17


def test_plug_in_bernstein_by_hand():
    # First bet: sqrt(2 log 40 / (1/4 log 2)) > 1/2, so 1/2. Then x = 1 against the guess 1/2.
    sequence = PlugInBernstein(0.05)
    sequence.update([1.0] * 1)
    spread = 0.25 * (math.log(2.0) - 0.5)
    assert sequence._sums.tolist() == pytest.approx([0.5, 0.5, spread])
    assert (sequence.bounds().lower, sequence.bounds().upper) == (0.0, 1.0)
    sequence.update([1.0] * 200)
    bets, weighted, spread = sequence._sums
    radius = (math.log(40.0) + spread) / bets
    assert sequence.bounds().lower == pytest.approx(weighted / bets - radius)


def test_hedged_capital_by_hand():
    # Against m = 0.2 the bet is 1/2 / 0.2 = 2.5 while the paper's is above that: 1 + 2.5 * 0.8 = 3.
    sequence = HedgedCapital(0.05)
    sequence.update([1.0])
    index = int(np.argmin(np.abs(sequence._means - 0.2)))
    assert sequence._up[index] == pytest.approx(math.log(3.0))
    assert sequence._down[index] == pytest.approx(math.log(1.0 - 0.5 / 0.8 * 0.8))


def test_asymptotic_radius_by_hand():
    # rho^2 = (2 log 20 + log(1 + 2 log 20)) / m, at t = m.
    rho2 = (2.0 * math.log(20.0) + math.log(1.0 + 2.0 * math.log(20.0))) / 100.0
    inner = 100.0 * rho2 + 1.0
    exact = math.sqrt(2.0 * inner / (1e4 * rho2) * math.log(math.sqrt(inner) / 0.05))
    assert asymptotic_radius(100.0, 0.05, 100.0) == pytest.approx(exact)
    assert exact == pytest.approx(0.30352, abs=1e-5)  # 1.549 times the fixed-time 0.196
    around = [asymptotic_radius(100.0, 0.05, horizon) for horizon in (50.0, 100.0, 200.0)]
    assert min(around) == around[1]


# -- coverage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", worlds.WORLDS, ids=lambda w: w.name)
@pytest.mark.parametrize("which", worlds.CONTRASTS[:2])
def test_the_truth_is_inside_at_every_row_in_95_percent_of_runs(world, which):
    missed, runs = 0, 150
    for seed in range(runs):
        path, actions = worlds.world_path(world, 2000, 10_000 + seed)
        missed += worlds.cover_run(path, actions, which, 2.0).missed[0] >= 0
    assert binom.sf(missed - 1, runs, 0.05) > LEVEL


def test_the_runs_of_the_bench_miss_when_the_bounds_of_the_class_do(monkeypatch):
    """At level 1/2, where misses are common, row by row against the bounds themselves."""
    monkeypatch.setattr(worlds, "ALPHA", 0.5)
    found, hits = [], 0
    for seed in range(12):
        path, actions = worlds.world_path(worlds.WORLDS[1], 150, seed)
        contrast = path.contrast("best fixed less ours")
        truth = (contrast * path.potential).sum(axis=1).cumsum()
        config = SequenceConfig(scale=0.5, alpha=0.5)
        sequence, first = ContrastSequence(4, config), -1
        for t in range(150):
            reward = path.potential[[t], actions[[t]]]
            sequence.update(reward, actions[[t]], path.pmf[t], contrast[t], path.base[[t]])
            own = sequence.bounds()
            if first < 0 and not own.lower <= truth[t] / (t + 1) <= own.upper:
                first = t
        kernel = worlds.cover_run(path, actions, "best fixed less ours", 0.5).missed[0]
        found.append((first, kernel))
        hits += first >= 0
    assert 1 <= hits <= 9
    assert all(first == kernel for first, kernel in found)


def test_the_best_of_several_is_covered_though_it_is_selected():
    missed, runs = 0, 150
    for seed in range(runs):
        path, actions = worlds.world_path(worlds.WORLDS[1], 1000, 20_000 + seed)
        missed += worlds.best_missed(path, actions, 2.0) >= 0
    assert binom.sf(missed - 1, runs, 0.05) > LEVEL


def test_merged_parts_cover_the_mean_of_all_their_rows():
    missed, runs = 0, 200
    for seed in range(runs):
        parts = [rows(100 * seed + part, 200) for part in range(4)]
        whole = fed(parts[0], TARGET)
        for part in parts[1:]:
            whole.merge(fed(part, TARGET))
        truth = float(np.mean([part["potential"][:, 3] for part in parts]))
        found = whole.bounds()
        assert found.rows == 800
        missed += not found.lower <= truth <= found.upper
    assert binom.sf(missed - 1, runs, 0.05) > LEVEL


@pytest.mark.parametrize("kind", [PlugInBernstein, HedgedCapital])
def test_a_constant_mean_is_inside_at_the_end_and_along_the_way(kind):
    missed, runs = 0, 120
    for seed in range(runs):
        values = (np.random.default_rng([7, seed]).random(400) < 0.7).astype(float)
        sequence, out = kind(0.1), False
        for part in np.split(values, 40):
            sequence.update(part)
            out = out or not sequence.bounds().lower <= 0.7 <= sequence.bounds().upper
        missed += out
    assert binom.sf(missed - 1, runs, 0.1) > LEVEL


def test_asymptotic_bounds_cover_from_some_rows_on():
    missed, runs = 0, 200
    for seed in range(runs):
        sequence, out = AsymptoticSequence(horizon=1000.0), False
        values = np.random.default_rng([8, seed]).exponential(size=1500)
        sequence.update(values[:300])
        for part in np.split(values[300:], 60):
            sequence.update(part)
            found = sequence.bounds()
            out = out or not found.lower <= 1.0 <= found.upper
        missed += out
    assert binom.sf(missed - 1, runs, 0.05) > LEVEL


def experiment(seed, n, control, treatment):
    rng = np.random.default_rng([9, seed])
    arms = rng.integers(0, 2, n)
    return (rng.random(n) < np.where(arms == 1, treatment, control)).astype(float), arms


HALVES, EFFECT = np.array([0.5, 0.5]), np.array([-1.0, 1.0])


@pytest.mark.parametrize("restart", [None, 100])
def test_no_harm_raises_an_alarm_in_no_more_runs_than_alpha(restart):
    """At the limit itself, where the guarantee is tight."""
    config = HarmConfig(harm_is="below", limit=-0.1, alpha=0.1, restart_every=restart)
    alarms, runs = 0, 150
    for seed in range(runs):
        monitor = HarmMonitor(2, config)
        alarms += monitor.update(*experiment(seed, 250, 0.8, 0.7), HALVES, EFFECT)
    assert binom.sf(alarms - 1, runs, 0.1) > LEVEL


def test_the_wealth_of_restarts_is_shared_by_hand():
    """Process j has 1 / ((j + 1) (j + 2)); what is left for those to come is 1 / (started + 1)."""
    config = HarmConfig(harm_is="above", limit=0.4, restart_every=50)
    values = (np.random.default_rng(24).random(120) < 0.5).astype(float)
    monitor = HarmMonitor(1, config)
    monitor.update(values, np.zeros(120, dtype=int), ONE, ONE)
    parts = [mean_of(values[start:], config.rewards) for start in (0, 50, 100)]
    wealth = [math.exp(part.log_evidence_above(0.4)) for part in parts]
    exact = wealth[0] / 2 + wealth[1] / 6 + wealth[2] / 12 + 1 / 4
    assert monitor.log_evidence == pytest.approx(math.log(exact), abs=1e-9)


def test_twenty_points_worse_are_noticed_within_500_decisions_in_most_runs():
    config, when = HarmConfig(harm_is="below", limit=-0.02), []
    for seed in range(60):
        monitor = HarmMonitor(2, config)
        monitor.update(*experiment(1000 + seed, 1500, 0.8, 0.6), HALVES, EFFECT)
        when.append(monitor.alarm_row or 10**6)
    assert np.median(when) <= 500
    assert np.mean(np.array(when) <= 1500) >= 0.95


def test_restarts_see_harm_that_begins_late():
    def alarm(restart):
        config = HarmConfig(harm_is="above", limit=0.3, restart_every=restart)
        monitor, rng = HarmMonitor(1, config), np.random.default_rng(4)
        errors = np.concatenate([rng.random(1500) < 0.05, rng.random(400) < 0.6]).astype(float)
        monitor.update(errors, np.zeros(1900, dtype=int), ONE, ONE)
        return monitor.alarm_row

    assert alarm(None) is None
    assert 1500 < alarm(200) < 1750


# -- invariance and monotonicity ------------------------------------------------------------------


def test_the_bounds_narrow_with_rows_and_widen_with_confidence():
    log = rows(5, 4000)
    widths = [
        fed({k: v[:n] for k, v in log.items()}, TARGET).bounds().width for n in (200, 1000, 4000)
    ]
    assert widths[0] > widths[1] > widths[2]
    sequence = fed(log, TARGET)
    levels = [sequence.bounds(alpha) for alpha in (0.5, 0.1, 0.01, 1e-6)]
    for narrow, wide in itertools.pairwise(levels):
        assert wide.lower < narrow.lower < narrow.estimate < narrow.upper < wide.upper


def test_a_higher_last_reward_raises_both_bounds():
    log, found = rows(6, 300), []
    for last in (0.0, 0.4, 1.0):
        changed = {**log, "rewards": np.append(log["rewards"][:-1], last)}
        found.append(fed(changed, log["pmf"]).bounds())
    assert found[0].lower < found[1].lower < found[2].lower
    assert found[0].upper < found[1].upper < found[2].upper


def test_the_unit_of_reward_does_not_matter():
    log = rows(7, 600)
    plain = fed(log, TARGET - log["pmf"]).bounds()
    usd = {**log, "rewards": log["rewards"] * 8 - 4, "predicted": log["predicted"] * 8 - 4}
    scaled = fed(usd, TARGET - log["pmf"], SequenceConfig(lower=-4.0, upper=4.0, scale=3.2))
    got = scaled.bounds()
    assert [got.lower, got.upper, got.estimate] == pytest.approx(
        [8 * plain.lower, 8 * plain.upper, 8 * plain.estimate], abs=1e-9
    )
    value = fed(usd, TARGET, SequenceConfig(lower=-4.0, upper=4.0, scale=3.2)).bounds()
    assert value.lower == pytest.approx(8 * fed(log, TARGET).bounds().lower - 4, abs=1e-9)


def test_the_negative_contrast_mirrors_the_bounds():
    log = rows(8, 500)
    there, back = fed(log, TARGET - log["pmf"]).bounds(), fed(log, log["pmf"] - TARGET).bounds()
    assert (there.lower, there.upper) == (-back.upper, -back.lower)
    # a value's upper bound is the lower bound of the mirrored reward
    mirrored = {**log, "rewards": 1 - log["rewards"], "predicted": 1 - log["predicted"]}
    value = fed(log, TARGET).bounds()
    assert fed(mirrored, TARGET).bounds().lower == pytest.approx(1 - value.upper, abs=1e-9)


def test_the_order_of_the_actions_does_not_matter_and_ineligible_ones_are_as_if_absent():
    log, order = rows(9, 400), np.array([2, 0, 3, 1])
    plain = fed(log, TARGET).bounds()
    moved = {**log, "pmf": log["pmf"][:, order], "predicted": log["predicted"][:, order]}
    moved["actions"] = np.argsort(order)[log["actions"]]
    assert fed(moved, TARGET[order]).bounds().lower == pytest.approx(plain.lower, abs=1e-12)
    wide = {**log, "pmf": np.pad(log["pmf"], ((0, 0), (0, 2)))}
    wide["predicted"] = np.pad(log["predicted"], ((0, 0), (0, 2)))
    assert fed(wide, np.append(TARGET, [0.0, 0.0])).bounds() == plain
    grown = ContrastSequence(K)
    grown.update(**taken(log), contrast=TARGET)
    grown.grow(K + 2)
    assert grown.bounds() == plain
    assert grown.actions == K + 2


def test_a_policy_does_not_differ_from_itself():
    log = rows(10, 300)
    found = fed(log, log["pmf"] - log["pmf"]).bounds()
    assert (found.lower, found.upper, found.estimate) == (0.0, 0.0, 0.0)


def test_a_difference_is_narrower_as_one_process_than_as_two():
    log = rows(11, 5000, epsilon=0.2)
    nearly = 0.9 * log["pmf"] + 0.1 * TARGET
    one = fed(log, nearly - log["pmf"], SequenceConfig(scale=0.3)).bounds().width
    both = fed(log, nearly).bounds(0.025).width + fed(log, log["pmf"]).bounds(0.025).width
    assert one < 0.5 * both


def test_predictions_and_known_least_rewards_narrow_the_bounds():
    log = rows(12, 3000, epsilon=0.5)
    plain = ContrastSequence(K)
    plain.update(**taken(log, "predicted"), contrast=TARGET)
    exact = {**log, "predicted": log["potential"]}
    assert fed(exact, TARGET).bounds().width < 0.7 * plain.bounds().width
    log = rows(12, 3000, epsilon=0.02)
    wide = SequenceConfig(lower=-5.0, upper=1.0, scale=2.0)
    known = fed(log, TARGET, wide, least=np.zeros(K)).bounds().width
    assert known < 0.8 * fed(log, TARGET, wide).bounds().width


def test_a_known_least_reward_counts_as_the_end_of_the_range():
    """The same rows in a range that is wider than need be: bet by bet the same wealth."""
    log, span = rows(23, 300, epsilon=0.02), 6.0
    narrow = fed(log, TARGET - log["pmf"], SequenceConfig(scale=0.5))
    config = SequenceConfig(lower=1.0 - span, upper=1.0, scale=0.5)
    wide = fed(log, TARGET - log["pmf"], config, least=np.zeros(K))
    same = min(len(narrow._bets), len(wide._bets))
    assert same > 10
    assert wide._bets[-same:] == pytest.approx(span * narrow._bets[-same:])
    assert wide._log_wealth[:, -same:] == pytest.approx(narrow._log_wealth[:, -same:], abs=1e-9)


def test_no_weight_is_too_large_for_a_bound():
    log = rows(13, 2000, epsilon=1e-7)
    config = SequenceConfig(scale=100.0)
    found = fed(log, TARGET, config).bounds()
    assert 0.0 <= found.lower < found.upper <= 1.0
    assert not found.contradictory


def test_draws_that_the_propensities_rule_out_contradict_themselves():
    """An action logged at 1 in 40 million that is drawn at once: the propensity is wrong."""
    log = rows(13, 2000, epsilon=1e-7)
    rare = np.flatnonzero(log["pmf"][:, 3] < 1e-6)[0]
    log["actions"][rare], log["rewards"][rare] = 3, 1.0
    assert fed(log, TARGET, SequenceConfig(scale=100.0)).bounds().contradictory


def test_before_any_row_nothing_is_known():
    found = ContrastSequence(2).bounds()
    assert (found.lower, found.upper, found.rows) == (-math.inf, math.inf, 0)
    assert AsymptoticSequence().bounds().upper == math.inf
    assert PlugInBernstein().bounds().width == HedgedCapital().bounds().width == 1.0


def test_at_its_horizon_a_sequence_is_at_most_1_6_times_the_fixed_time_interval():
    values = (np.random.default_rng(14).random(10_000) < 0.7).astype(float)
    sequence = mean_of(values)
    fixed = 2.0 * norm.isf(0.025) * sequence.standard_error
    assert 1.4 < sequence.bounds().width / fixed <= 1.6
    assert 1.4 < asymptotic_bounds(sequence).width / fixed <= 1.6


def test_the_design_tells_the_scale():
    pmf = np.array([[0.01, 0.99], [0.5, 0.5]])
    assert design_scale(pmf, np.array([[1.0, 0.0]] * 2), 1.0) == pytest.approx(math.sqrt(51.0))
    assert design_scale(pmf, pmf - pmf) > 0.0


# -- selection and windows ------------------------------------------------------------------------


def test_the_best_of_several_takes_a_share_of_alpha_for_each():
    log = rows(15, 2000, epsilon=0.5)
    sequences = [fed(log, np.eye(K)[k]) for k in range(K)]
    found = best_of(sequences, 0.08)
    assert found.each == tuple(sequence.bounds(0.02) for sequence in sequences)
    assert found.leader == 3
    assert found.bounds.lower == max(own.lower for own in found.each)
    assert found.bounds.upper == max(own.upper for own in found.each)
    assert found.plausible == (3,)
    with pytest.raises(InputError, match="same rows"):
        best_of([sequences[0], fed(rows(15, 10), TARGET)])
    with pytest.raises(InputError, match="at least one"):
        best_of([])


def test_a_window_is_a_sequence_that_started_with_it():
    log = rows(16, 1050)
    windowed = WindowedSequence(K, 200, SequenceConfig(scale=2.0))
    windowed.update(**taken(log), contrast=TARGET)
    found = windowed.recent()
    assert (found.start, found.restart, windowed.rows) == (800, 4, 1050)
    last = {key: value[800:] for key, value in log.items()}
    alone = fed(last, TARGET, SequenceConfig(scale=2.0, horizon=300.0))
    assert found.bounds == alone.bounds()
    assert windowed.recent(simultaneous=True).bounds == alone.bounds(0.05 / 30.0)


def test_a_window_forgets_what_the_running_mean_remembers():
    rng = np.random.default_rng(17)
    values = np.concatenate([rng.random(3000) < 0.9, rng.random(800) < 0.3]).astype(float)
    windowed = WindowedSequence(1, 400)
    windowed.update(values, np.zeros(3800, dtype=int), ONE, ONE)
    assert windowed.recent().bounds.upper < 0.45
    assert mean_of(values).bounds().lower > 0.6


# -- rows one by one, and states ------------------------------------------------------------------


def one_by_one(sequence, log, contrast):
    contrast = np.broadcast_to(contrast, log["pmf"].shape)
    for t in range(len(log["rewards"])):
        row = {key: value[[t]] for key, value in taken(log).items()}
        sequence.update(**row, contrast=contrast[[t]])
    return sequence


def sequences_over_rows():
    harm = HarmConfig(harm_is="above", limit=0.4, restart_every=60)
    return {
        "contrast": lambda: ContrastSequence(K, SequenceConfig(scale=3.0)),
        "windowed": lambda: WindowedSequence(K, 70),
        "harm": lambda: HarmMonitor(K, harm),
    }


@pytest.mark.parametrize("name", sequences_over_rows())
def test_row_by_row_and_all_at_once_give_the_same_bits(name):
    log, make = rows(18, 260), sequences_over_rows()[name]
    whole = make()
    whole.update(**taken(log), contrast=TARGET)
    assert one_by_one(make(), log, TARGET).dump() == whole.dump()


@pytest.mark.parametrize("kind", [PlugInBernstein, HedgedCapital])
def test_observations_one_by_one_give_the_same_bits(kind):
    values = np.random.default_rng(19).random(150)
    whole, single = kind(), kind()
    whole.update(values)
    for value in values.tolist():
        single.update([value])
    assert single.dump() == whole.dump()


@pytest.mark.parametrize("name", sequences_over_rows())
def test_dump_load_continue_is_bit_equal(name):
    log, make = rows(20, 300), sequences_over_rows()[name]
    first = {key: value[:130] for key, value in log.items()}
    rest = {key: value[130:] for key, value in log.items()}
    through = make()
    through.update(**taken(first), contrast=TARGET)
    restored = type(through).load(through.dump())
    assert restored.dump() == through.dump()
    for sequence in (through, restored):
        sequence.update(**taken(rest), contrast=TARGET)
    assert restored.dump() == through.dump()


def test_a_raised_alarm_survives_a_restart_and_good_news():
    config = HarmConfig(harm_is="above", limit=0.2)
    monitor = HarmMonitor(1, config)
    assert monitor.update(np.ones(100), np.zeros(100, dtype=int), ONE, ONE)
    row = monitor.alarm_row
    restored = HarmMonitor.load(monitor.dump())
    assert restored.update(np.zeros(5000), np.zeros(5000, dtype=int), ONE, ONE)
    assert restored.alarm_row == row < 40
    assert restored.log_evidence < 0.0


SMALL = {
    "plug-in": PlugInBernstein(),
    "hedged": HedgedCapital(),
    "asymptotic": AsymptoticSequence(),
}


@pytest.mark.parametrize("name", [*sequences_over_rows(), *SMALL])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "other", "NaN"])
def test_a_damaged_state_is_refused(name, damage):
    made = SMALL.get(name) or sequences_over_rows()[name]()
    state = made.dump()
    wrong = {
        "empty": b"",
        "noise": bytes(range(200)),
        "cut": state[:-2],
        "other": msgspec.msgpack.encode(["bandit_router.other/1", {}]),
        "NaN": state.replace(msgspec.msgpack.encode(0.0), msgspec.msgpack.encode(math.nan)),
    }[damage]
    assert wrong != state
    with pytest.raises(SnapshotError):
        type(made).load(wrong)


def test_merging_adds_rows_and_refuses_another_config():
    log, other = rows(21, 100), rows(22, 50)
    both, swapped = fed(log, TARGET), fed(other, TARGET)
    both.merge(fed(other, TARGET))
    swapped.merge(fed(log, TARGET))
    assert both.bounds().lower == pytest.approx(swapped.bounds().lower, abs=1e-9)
    assert both.rows == 150
    with pytest.raises(InputError, match="same config"):
        both.merge(ContrastSequence(K, SequenceConfig(horizon=7.0)))
    halves = AsymptoticSequence(), AsymptoticSequence(), AsymptoticSequence()
    for sequence, values in zip(halves, (log["rewards"], other["rewards"], None), strict=True):
        sequence.update(np.r_[log["rewards"], other["rewards"]] if values is None else values)
    halves[0].merge(halves[1])
    assert halves[0].bounds().upper == pytest.approx(halves[2].bounds().upper, abs=1e-12)
    with pytest.raises(InputError, match="horizon"):
        halves[0].merge(AsymptoticSequence(3.0))
    plug_in = PlugInBernstein()
    with pytest.raises(InputError, match="same level"):
        plug_in.merge(PlugInBernstein(0.1))


# -- bad input ------------------------------------------------------------------------------------

GOOD = {
    "rewards": np.array([0.5, 1.0]),
    "actions": np.array([0, 1]),
    "pmf": np.array([[0.5, 0.5], [0.1, 0.9]]),
    "contrast": np.array([[0.0, 1.0], [0.0, 1.0]]),
    "predicted": np.array([[0.5, 0.5], [0.5, 0.5]]),
    "least": np.array([0.0, 0.0]),
}
NAN = math.nan
BAD = {
    "reward NaN": ({"rewards": [0.5, NAN]}, "row 1: rewards not finite"),
    "reward above": ({"rewards": [0.5, 1.01]}, r"row 1: reward outside \[0, 1\]"),
    "reward below": ({"rewards": [-0.01, 1.0]}, "row 0: reward outside"),
    "reward text": ({"rewards": ["a", "b"]}, "not an array of numbers"),
    "reward shape": ({"rewards": [[0.5, 1.0]]}, "shape"),
    "action unknown": ({"actions": [0, 2]}, r"row 1: action outside 0\.\.1"),
    "action negative": ({"actions": [-1, 1]}, "row 0: action outside"),
    "action fraction": ({"actions": [0.0, 1.0]}, "whole numbers"),
    "action missing": ({"actions": [0]}, "whole numbers"),
    "pmf NaN": ({"pmf": [[0.5, 0.5], [NAN, 0.9]]}, "row 1: pmf not finite"),
    "pmf negative": ({"pmf": [[0.5, 0.5], [-0.1, 1.1]]}, "row 1: pmf outside"),
    "pmf sum": ({"pmf": [[0.5, 0.4], [0.1, 0.9]]}, "row 0: pmf that does not sum to 1"),
    "pmf shape": ({"pmf": [[0.5, 0.25, 0.25]] * 2}, "pmf must have shape"),
    "propensity 0": ({"pmf": [[0.0, 1.0], [0.1, 0.9]]}, "row 0: drawn action with propensity 0"),
    "no support": (
        {"pmf": [[1.0, 0.0], [0.1, 0.9]]},
        "row 0: contrast with mass on an action of propensity 0",
    ),
    "contrast NaN": ({"contrast": [0.0, NAN]}, "contrast not finite"),
    "prediction NaN": ({"predicted": [[0.5, NAN], [0.5, 0.5]]}, "row 0: predicted not finite"),
    "least too high": ({"least": [0.0, 2.0]}, "least reward outside the range"),
    "below its least": ({"least": [0.6, 0.0]}, "row 0: reward below its action's least"),
}


def rows_makers():
    return {
        "contrast": lambda: ContrastSequence(2),
        "windowed": lambda: WindowedSequence(2, 5),
        "harm": lambda: HarmMonitor(2, HarmConfig(harm_is="below", limit=0.0)),
    }


@pytest.mark.parametrize("name", rows_makers())
@pytest.mark.parametrize(("change", "complaint"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_and_nothing_is_taken(name, change, complaint):
    sequence = rows_makers()[name]()
    sequence.update(**GOOD)
    before = sequence.dump()
    with pytest.raises(InputError, match=complaint):
        sequence.update(**{**GOOD, **change})
    assert sequence.dump() == before


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("values", [[0.5, NAN], [[0.5]], ["x"], [0.1, math.inf]], ids=str)
def test_bad_observations_are_refused_and_nothing_is_taken(name, values):
    sequence = type(SMALL[name]).load(SMALL[name].dump())
    before = sequence.dump()
    with pytest.raises(InputError):
        sequence.update(values)
    assert sequence.dump() == before
    if name != "asymptotic":
        with pytest.raises(InputError, match="outside"):
            sequence.update([0.5, 1.2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: SequenceConfig(lower=1.0, upper=1.0),
        lambda: SequenceConfig(upper=math.inf),
        lambda: SequenceConfig(scale=0.0),
        lambda: SequenceConfig(horizon=0.5),
        lambda: SequenceConfig(alpha=1.0),
        lambda: ContrastSequence(0),
        lambda: ContrastSequence(2).bounds(0.0),
        lambda: ContrastSequence(2).log_evidence_above(NAN),
        lambda: ContrastSequence(2).grow(1),
        lambda: WindowedSequence(2, 0),
        lambda: HarmConfig(harm_is="below", limit=NAN),
        lambda: HarmConfig(harm_is="below", limit=0.0, alpha=0.0),
        lambda: HarmConfig(harm_is="below", limit=0.0, restart_every=0),
        lambda: PlugInBernstein(0.0),
        lambda: HedgedCapital(0.05, 2.0, 1.0),
        lambda: AsymptoticSequence(0.0),
        lambda: asymptotic_bounds(ContrastSequence(1), horizon=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(InputError):
        make()


# -- compiled -------------------------------------------------------------------------------------


def test_compiled_and_interpreted_give_the_same_bits(repo_root):
    done = subprocess.run(
        [sys.executable, str(Path(sequence_cases.__file__))],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    compiled = subprocess.run(
        [sys.executable, str(Path(sequence_cases.__file__))],
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads(compiled.stdout)
    assert len(json.loads(done.stdout)) == 5
