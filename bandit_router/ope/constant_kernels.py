# ruff: noqa: ANN001, ANN201 -- the compiler infers the types; the docstrings give the shapes
"""The arithmetic of the sequences for a constant mean, compiled; the same bits interpreted.

Observations lie in [0, 1]. ``moments`` is (rows, sum of x, sum of squared one-step errors): from
them come the regularised mean (1/2 + sum x) / (t + 1) and variance (1/4 + errors) / (t + 1) of
Waudby-Smith and Ramdas (2023), which are known before the next observation.
"""

from __future__ import annotations

import math

from numba import njit

LARGEST_BET = 0.5
"""c of the paper: no row takes more than half of the wealth."""


@njit(cache=True, nogil=True)
def next_bet(moments, log_term):
    """The paper's predictable bet sqrt(2 log(2/alpha) / (var t log(1 + t))) for row t."""
    t = moments[0] + 1.0
    variance = (0.25 + moments[2]) / t
    return math.sqrt(2.0 * log_term / (variance * t * math.log1p(t)))


@njit(cache=True, nogil=True)
def learn(x, moments):
    """Add an observation to the moments; the error is against the mean that includes it."""
    moments[0] += 1.0
    moments[1] += x
    error = x - (0.5 + moments[1]) / (moments[0] + 1.0)
    moments[2] += error * error


@njit(cache=True, nogil=True)
def push_bernstein(values, log_term, moments, sums):
    """Predictable plug-in empirical Bernstein (their Theorem 2).

    ``sums``: sum of bets, of bets times observations, and of 4 (x - mean before)^2 psi(bet).
    """
    for t in range(values.shape[0]):
        x = values[t]
        bet = min(next_bet(moments, log_term), LARGEST_BET)
        error = x - (0.5 + moments[1]) / (moments[0] + 1.0)
        sums[0] += bet
        sums[1] += bet * x
        sums[2] += error * error * (-math.log1p(-bet) - bet)
        learn(x, moments)


@njit(cache=True, nogil=True)
def push_hedged(values, log_term, moments, means, up, down, alive):
    """Hedged capital (their Theorem 3) over the candidate ``means``, ascending, inside (0, 1).

    ``up`` and ``down``, the logs of the two capitals, fall and rise in the candidate; so what is
    rejected is a range at either end, and ``alive`` holds the first and last that is not.
    """
    for t in range(values.shape[0]):
        x = values[t]
        bet = next_bet(moments, log_term)
        first, last = alive[0], alive[1]
        for k in range(first, last + 1):
            m = means[k]
            up[k] += math.log1p(min(bet, LARGEST_BET / m) * (x - m))
            down[k] += math.log1p(-min(bet, LARGEST_BET / (1.0 - m)) * (x - m))
        while first <= last and up[first] >= log_term:
            first += 1
        while last >= first and down[last] >= log_term:
            last -= 1
        alive[0], alive[1] = first, last
        learn(x, moments)
