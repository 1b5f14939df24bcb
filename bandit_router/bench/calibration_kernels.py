# ruff: noqa: ANN001, ANN201 -- the compiler infers the types; the docstrings give the shapes
"""Whole runs of `bench calibration`, compiled: a look after every row, thousands of times.

A bound misses a known truth exactly when the evidence against that truth passes the threshold, so
no bound has to be solved for at the rows in between. The arithmetic itself is that of
:mod:`bandit_router.ope`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bandit_router.ope import constant_kernels as constant
from bandit_router.ope import sequence_kernels as kernels


@njit(cache=True, nogil=True)
def draw(pmf, uniforms, actions):
    """Draw an action for every row of ``pmf``, shape (n, K), into ``actions``."""
    for t in range(pmf.shape[0]):
        left, chosen = uniforms[t], 0
        for a in range(pmf.shape[1]):
            if pmf[t, a] > 0.0:
                chosen = a
                left -= pmf[t, a]
                if left < 0.0:
                    break
        actions[t] = chosen


@njit(cache=True, nogil=True)
def learn_greedily(potential, uniforms, epsilon, delay, memory, pmf, actions):
    """An adaptive logging policy: the best running mean, with a uniform share of ``epsilon``.

    Rewards arrive ``delay`` rows later than the row itself ends; an action's mean forgets all but
    ``memory`` rewards of it.
    Fills ``pmf``, shape (n, K), and ``actions``, shape (n,).
    """
    n, k = potential.shape
    mean, count = np.full(k, 0.5), np.ones(k)
    for t in range(n):
        if t > delay:
            known = t - 1 - delay
            a = actions[known]
            count[a] = min(count[a] + 1.0, memory)
            mean[a] += (potential[known, a] - mean[a]) / count[a]
        best = 0
        for a in range(k):
            if mean[a] > mean[best]:
                best = a
        left = uniforms[t]
        chosen, found = best, False
        for a in range(k):
            pmf[t, a] = epsilon / k + (1.0 - epsilon if a == best else 0.0)
            left -= pmf[t, a]
            if left < 0.0 and not found:
                chosen, found = a, True
        actions[t] = chosen


@njit(cache=True, nogil=True)
def passes(total, threshold, bets, log_prior, log_wealth, drift):
    """Whether the evidence against ``total`` reaches the threshold. The mixture is at most its
    largest part, so that is looked at first.
    """
    largest = -math.inf
    for k in range(bets.shape[0]):
        largest = max(largest, log_wealth[k] + bets[k] * (drift[k] - total))
    if largest < threshold:
        return False
    return kernels.log_evidence(total, bets, log_prior, log_wealth, drift) >= threshold


@njit(cache=True, nogil=True)
def follow(
    rewards, actions, pmf, contrast, base, floor, values,
    bets, log_prior, threshold, marks, widths,
):  # fmt: skip
    """One run: the first row whose bounds miss the mean of ``values`` so far, or -1.

    ``values``, shape (n,): the truth of every row. At each of the rows ``marks`` a column of
    ``widths`` is filled: the width of the bounds; of the fixed-time interval with the one bet that
    turned out best for that row; the standard error of the estimate; its error in those.
    """
    size, k = bets.shape[0], pmf.shape[1]
    log_wealth, drift, sums = np.zeros((2, size)), np.zeros((2, size)), np.zeros(6)
    residual, weight, control = np.zeros(k), np.zeros(k), np.empty((2, k))
    missed, truth, mark = -1, 0.0, 0
    for t in range(rewards.shape[0]):
        kernels.push(
            rewards[t], actions[t], pmf[t], contrast[t], base[t], floor[t],
            bets, log_wealth, drift, sums, residual, weight, control,
        )  # fmt: skip
        truth += values[t]
        if missed < 0 and (
            passes(truth, threshold, bets, log_prior, log_wealth[0], drift[0])
            or passes(-truth, threshold, bets, log_prior, log_wealth[1], drift[1])
        ):
            missed = t
        if mark < marks.shape[0] and t + 1 == marks[mark]:
            n = t + 1.0
            low = kernels.least_total(threshold, bets, log_prior, log_wealth[0], drift[0])
            high = -kernels.least_total(threshold, bets, log_prior, log_wealth[1], drift[1])
            least, most = sums[kernels.LEAST], sums[kernels.MOST]
            widths[0, mark] = (min(high, most) - max(low, least)) / n
            low = np.max(drift[0] + (log_wealth[0] - threshold) / bets)
            high = -np.max(drift[1] + (log_wealth[1] - threshold) / bets)
            widths[1, mark] = (min(high, most) - max(low, least)) / n
            mean = sums[kernels.TOTAL] / n
            variance = max(sums[kernels.SQUARES] / n - mean * mean, 1e-12)
            widths[2, mark] = math.sqrt(variance / (n - 1.0))
            widths[3, mark] = (mean - truth / n) / widths[2, mark]
            mark += 1
    return missed


@njit(cache=True, nogil=True)
def follow_best(rewards, actions, pmf, potential, base, floor, bets, log_prior, threshold):
    """One run of "best fixed action less the logging policy": the first row that misses, or -1.

    ``threshold`` is for one of K comparators. The lower bound misses when any comparator's does,
    the upper one when all do.
    """
    n, k = pmf.shape
    size = bets.shape[0]
    log_wealth, drift, sums = np.zeros((k, 2, size)), np.zeros((k, 2, size)), np.zeros((k, 6))
    residual, weight, control = np.zeros((k, k)), np.zeros((k, k)), np.empty((2, k))
    truth, contrast = np.zeros(k), np.empty(k)
    for t in range(n):
        own = 0.0
        for a in range(k):
            own += pmf[t, a] * potential[t, a]
        for j in range(k):
            for a in range(k):
                contrast[a] = -pmf[t, a]
            contrast[j] += 1.0
            kernels.push(
                rewards[t], actions[t], pmf[t], contrast, base[t], floor[t],
                bets, log_wealth[j], drift[j], sums[j], residual[j], weight[j], control,
            )  # fmt: skip
            truth[j] += potential[t, j] - own
        best = truth.max()
        above = True
        for j in range(k):
            if passes(best, threshold, bets, log_prior, log_wealth[j, 0], drift[j, 0]):
                return t
            above = above and passes(
                -best, threshold, bets, log_prior, log_wealth[j, 1], drift[j, 1]
            )
        if above:
            return t
    return -1


@njit(cache=True, nogil=True)
def experiment(
    rewards, arms, share, bets, log_prior, threshold, guard_bets, guard_prior, guard_at, limit
):
    """One A/B test, a row a unit: units until a verdict and until a rollback, -1 for never.

    A verdict is a two-sided difference apart from 0; a rollback is evidence ``guard_at`` against
    "the effect is at least ``limit``".
    """
    one, two = bets.shape[0], guard_bets.shape[0]
    pmf, contrast = np.array([1.0 - share, share]), np.array([-1.0, 1.0])
    base, floor, control = np.full(2, 0.5), np.zeros(2), np.empty((2, 2))
    wealth, drift, sums = np.zeros((2, one)), np.zeros((2, one)), np.zeros(6)
    residual, weight = np.zeros(2), np.zeros(2)
    guard_wealth, guard_drift = np.zeros((2, two)), np.zeros((2, two))
    guard_sums, guard_learned = np.zeros(6), np.zeros((2, 2))
    verdict, rollback = -1, -1
    for t in range(rewards.shape[0]):
        kernels.push(
            rewards[t], arms[t], pmf, contrast, base, floor,
            bets, wealth, drift, sums, residual, weight, control,
        )  # fmt: skip
        kernels.push(
            rewards[t], arms[t], pmf, contrast, base, floor,
            guard_bets, guard_wealth, guard_drift, guard_sums,
            guard_learned[0], guard_learned[1], control,
        )  # fmt: skip
        if verdict < 0 and (
            passes(0.0, threshold, bets, log_prior, wealth[0], drift[0])
            or passes(0.0, threshold, bets, log_prior, wealth[1], drift[1])
        ):
            verdict = t + 1
        if rollback < 0 and passes(
            -limit * (t + 1), guard_at, guard_bets, guard_prior, guard_wealth[1], guard_drift[1]
        ):
            rollback = t + 1
        if verdict > 0 and rollback > 0:
            break
    return verdict, rollback


@njit(cache=True, nogil=True)
def follow_constant(values, mean, log_term, first, radii):
    """One run over observations of one mean: the first row that the plug-in bounds miss it, and the
    first from row ``first`` on that the asymptotic ones do, -1 for never; and the width of the
    plug-in bounds at the end. ``radii``: asymptotic, per row, in standard deviations.
    """
    moments, sums = np.zeros(3), np.zeros(3)
    plug_in, asymptotic, total, squares = -1, -1, 0.0, 0.0
    for t in range(values.shape[0]):
        constant.push_bernstein(values[t : t + 1], log_term, moments, sums)
        if plug_in < 0 and abs(sums[1] / sums[0] - mean) > (log_term + sums[2]) / sums[0]:
            plug_in = t
        total += values[t]
        squares += values[t] * values[t]
        if t + 1 >= first and asymptotic < 0:
            centre = total / (t + 1)
            variance = max(squares - total * centre, 0.0) / t
            if abs(centre - mean) > math.sqrt(variance) * radii[t]:
                asymptotic = t
    return plug_in, asymptotic, 2.0 * (log_term + sums[2]) / sums[0]
