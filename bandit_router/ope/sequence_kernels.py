# ruff: noqa: ANN001, ANN201 -- the compiler infers the types; the docstrings give the shapes
"""The arithmetic of the confidence sequences, compiled; the same bits interpreted.

Rewards are scaled to [0, 1], that of action a to [floor(a), 1]. A row has a pmf h over K actions,
signed masses d over them with weights g = d / h, and estimates v = sum_a d(a) r(a), of which one
r(a) was seen. With a control c(a), predicted before the action was drawn,

    xi = g(A) (R - c(A)) + sum_a d(a) c(a)        has mean v, given the past and the query,

whatever c is. For every bet b > 0 and every prediction p with b (xi - p) > -1,

    prod (1 + b (xi - p)) exp(b (p - v))          is a nonnegative supermartingale that starts at 1

because its factors have mean (1 + b (v - p)) exp(-b (v - p)) <= 1 (Mineiro, "A lower confidence
sequence for the changing mean of non-negative right heavy-tailed observations with bounded mean",
2022, Theorem 1). No bound on the weights g enters: for each bet the control is capped so that
b g (R - c) > -1/2, and p lowered where that is not enough (the capped control variate of
Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid off-policy inference for
contextual bandits", 2022/2024, section 2.3, one cap for each bet).

``log_wealth`` and ``drift`` have shape (2, G): sum of log(1 + b (xi - p)) and sum of p, for G bets
and for both sides; side 1 estimates -v.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

CAP = 0.5
"""Largest share of the wealth that one row's weighted control may cost."""

FLOOR = 0.9
"""Largest share of the wealth that one row may cost."""

ROWS, TOTAL, SQUARES, LEAST, MOST, MASS = range(6)
"""Places in ``sums``: rows; sums of xi, of xi squared, of the least and the most that v can be,
and of the contrast's mass."""


@njit(cache=True, nogil=True)
def log_of(gain):
    """log(1 + gain), near 0 by its series: within 2e-16, and several times as quick."""
    if -0.005 < gain < 0.005:
        tail = gain * (0.2 - gain * (1.0 / 6.0 - gain / 7.0))
        return gain * (1.0 - gain * (0.5 - gain * (1.0 / 3.0 - gain * (0.25 - tail))))
    return math.log1p(gain)


@njit(cache=True, nogil=True)
def controls(contrast, base, floor, residual, weight, control, sums):
    """Predict every action's reward into ``control``, add the row's known sums, return sum d c."""
    plain = 0.0
    for a in range(contrast.shape[0]):
        value = base[a] + residual[a] / (weight[a] + 1.0)
        control[a] = min(max(value, floor[a]), 1.0)
        mass = contrast[a]
        plain += mass * control[a]
        sums[MASS] += mass
        sums[LEAST] += mass * floor[a] if mass > 0.0 else mass
        sums[MOST] += mass if mass > 0.0 else mass * floor[a]
    sums[ROWS] += 1.0
    return plain


@njit(cache=True, nogil=True)
def pulls(sign, pmf, contrast, floor, control, pull):
    """Into ``pull``: the most that drawing each action can take from xi - sum d c, on one side."""
    reach = 0.0
    for a in range(pmf.shape[0]):
        mass, pull[a] = sign * contrast[a], 0.0
        if mass > 0.0:
            pull[a] = mass / pmf[a] * (control[a] - floor[a])
        elif mass < 0.0:
            pull[a] = -mass / pmf[a] * (1.0 - control[a])
        reach = max(reach, pull[a])
    return reach


@njit(cache=True, nogil=True)
def push(
    reward, action, pmf, contrast, base, floor,
    bets, log_wealth, drift, sums, residual, weight, control,
):  # fmt: skip
    """Take one row: reward in [floor, 1]; what is given per action has shape (K,), the scratch
    ``control`` (2, K).

    Capping the control so that an action's pull is ``cap`` lowers sum d c by pmf (pull - cap) and
    raises the row's own term by pull - cap, when that action was drawn: on average nothing.

    ``residual`` and ``weight``, shape (K,), learn by how much ``base`` is wrong for each action.
    """
    plain = controls(contrast, base, floor, residual, weight, control[0], sums)
    ratio = contrast[action] / pmf[action]
    whole = plain + ratio * (reward - control[0, action])
    sums[TOTAL] += whole
    sums[SQUARES] += whole * whole
    for side in range(2):
        sign = 1.0 - 2.0 * side
        own = sign * ratio * (reward - control[0, action])
        reach = pulls(sign, pmf, contrast, floor, control[0], control[1])
        for k in range(bets.shape[0]):
            room = 1.0 / bets[k]
            cap, predicted, gain = CAP * room, sign * plain, own
            if reach > cap:
                expected = predicted
                for a in range(pmf.shape[0]):
                    if control[1, a] > cap:
                        expected -= pmf[a] * (control[1, a] - cap)
                predicted = min(predicted, expected + FLOOR * room - cap)
                gain += max(control[1, action] - cap, 0.0) + expected - predicted
            log_wealth[side, k] += log_of(bets[k] * gain)
            drift[side, k] += predicted
    residual[action] += reward - base[action]
    weight[action] += 1.0


@njit(cache=True, nogil=True)
def push_many(
    rewards, actions, pmf, contrast, base, floor,
    bets, log_wealth, drift, sums, residual, weight,
):  # fmt: skip
    """:func:`push` row by row; arrays of shapes (n,), (n,) and (n, K)."""
    control = np.empty((2, pmf.shape[1]))
    for t in range(rewards.shape[0]):
        push(
            rewards[t], actions[t], pmf[t], contrast[t], base[t], floor[t],
            bets, log_wealth, drift, sums, residual, weight, control,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def log_evidence(total, bets, log_prior, log_wealth, drift):
    """Log of the mixture's wealth against "the sum of v is ``total``"; arrays of shape (G,)."""
    highest = -math.inf
    for k in range(bets.shape[0]):
        highest = max(highest, log_prior[k] + log_wealth[k] + bets[k] * (drift[k] - total))
    summed = 0.0
    for k in range(bets.shape[0]):
        term = log_prior[k] + log_wealth[k] + bets[k] * (drift[k] - total)
        summed += math.exp(term - highest)
    return highest + math.log(summed)


@njit(cache=True, nogil=True)
def least_total(threshold, bets, log_prior, log_wealth, drift):
    """The largest sum of v, from below, against which the wealth is still ``threshold`` in logs.

    The log of the wealth falls and is convex in the sum, so Newton's steps from below never pass
    the root: where they end, at or below it, is a valid bound.
    """
    total = -math.inf
    for k in range(bets.shape[0]):
        alone = drift[k] + (log_prior[k] + log_wealth[k] - threshold) / bets[k]
        total = max(total, alone)
    for _ in range(100):
        height = log_evidence(total, bets, log_prior, log_wealth, drift)
        slope = 0.0
        for k in range(bets.shape[0]):
            term = log_prior[k] + log_wealth[k] + bets[k] * (drift[k] - total)
            slope += bets[k] * math.exp(term - height)
        step = (height - threshold) / slope
        total += max(step, 0.0)
        if step <= 1e-9 * (1.0 + abs(total)):
            break
    return total
