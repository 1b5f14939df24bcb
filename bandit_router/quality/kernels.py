# ruff: noqa: ANN001, ANN201 -- the compiler infers the types; the docstrings give the shapes
"""The arithmetic of the mixture, compiled. Everything that touches posterior numbers lives here.

One expert is a Bayesian logistic regression in the shape of item response theory. For a query with
standardised features x and a model k,

    eta_k = theta_0 + w . x + b_k + D_k . x_own

with the shared block s = (1, x) of length ``ds`` and one block o = (1, x_own) of length ``do`` per
model: the parameter vector is (theta_0, w, b_1, D_1, b_2, D_2, ...), of length ds + K * do.
``mean`` has shape (E, D), ``cov`` shape (E, D, D) for E experts.

The functions are plain Python over arrays in an order that is fixed by the source. They give the
same bits compiled and interpreted (a test holds it), because no option that reorders floating-point
arithmetic is on.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

PI_OVER_8 = math.pi / 8.0
LOG_COST_CLIP = 3.0


@njit(cache=True, nogil=True)
def sigmoid(value: float) -> float:
    """Logistic function without overflow."""
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    part = math.exp(value)
    return part / (1.0 + part)


@njit(cache=True, nogil=True)
def drawn_sigmoid(value: float) -> float:
    """Logistic function within 5e-5, by arithmetic alone: for the many draws of a decision.

    (1 + tanh(v / 2)) / 2 with the [7/6] Pade approximant of tanh, held within [0, 1].
    """
    half = 0.5 * min(max(value, -9.94), 9.94)
    square = half * half
    top = half * (135135.0 + square * (17325.0 + square * (378.0 + square)))
    bottom = 135135.0 + square * (62370.0 + square * (3150.0 + square * 28.0))
    return min(max(0.5 + 0.5 * top / bottom, 0.0), 1.0)


@njit(cache=True, nogil=True)
def standardise(dense, count, total, square, prior, clip, out):
    """Running standardisation: mean and variance of the rows learned so far, shrunk to 0 and 1."""
    weight = count + prior
    for i in range(dense.shape[0]):
        mean = total[i] / weight
        variance = (square[i] + prior) / weight - mean * mean
        value = (dense[i] - mean) / math.sqrt(max(variance, 0.01))
        out[i] = min(max(value, -clip), clip)


@njit(cache=True, nogil=True)
def expert_weights(log_weight, out):
    """Softmax of ``log_weight`` (E,)."""
    top = log_weight.max()
    total = 0.0
    for e in range(log_weight.shape[0]):
        out[e] = math.exp(log_weight[e] - top)
        total += out[e]
    for e in range(log_weight.shape[0]):
        out[e] /= total


@njit(cache=True, nogil=True)
def predicted_costs(x, slots, log_price, cost_mean, paid, foreseen, out):
    """c_k(x) = price_k exp(a_k + h . x) r_k, USD, for the models in ``slots``."""
    k_all = log_price.shape[0]
    shared = 0.0
    for i in range(x.shape[0]):
        shared += cost_mean[k_all + i] * x[i]
    for j in range(slots.shape[0]):
        k = slots[j]
        exponent = min(max(cost_mean[k] + shared, -LOG_COST_CLIP), LOG_COST_CLIP)
        out[j] = math.exp(log_price[k] + exponent) * paid[k] / foreseen[k]


@njit(cache=True, nogil=True)
def log_odds(mean, x, own, slots, out):
    """Posterior mean of eta_k for the models in ``slots``, one expert: mean (D,)."""
    ds, do = 1 + x.shape[0], 1 + own
    base = mean[0]
    for i in range(x.shape[0]):
        base += mean[1 + i] * x[i]
    for j in range(slots.shape[0]):
        at = ds + slots[j] * do
        value = base + mean[at]
        for i in range(own):
            value += mean[at + 1 + i] * x[i]
        out[j] = value


@njit(cache=True, nogil=True)
def log_odds_covariance(cov, s, o, slots, link, out):
    """Covariance of eta over ``slots`` for one expert: s' P_ss s + cross terms + o' P_jl o."""
    ds, do, n = s.shape[0], o.shape[0], slots.shape[0]
    shared = 0.0
    for i in range(ds):
        part = 0.0
        for j in range(ds):
            part += cov[i, j] * s[j]
        shared += part * s[i]
    for j in range(n):
        at = ds + slots[j] * do
        total = 0.0
        for i in range(ds):
            part = 0.0
            for l in range(do):
                part += cov[i, at + l] * o[l]
            total += part * s[i]
        link[j] = total
    for j in range(n):
        at = ds + slots[j] * do
        for l in range(j + 1):
            other = ds + slots[l] * do
            total = 0.0
            for i in range(do):
                part = 0.0
                for h in range(do):
                    part += cov[at + i, other + h] * o[h]
                total += part * o[i]
            out[j, l] = shared + link[j] + link[l] + total


@njit(cache=True, nogil=True)
def cholesky(matrix, out):
    """Lower Cholesky factor of the lower triangle, pivots held above 1e-10."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            value = matrix[i, j]
            for h in range(j):
                value -= out[i, h] * out[j, h]
            if i == j:
                out[i, i] = math.sqrt(max(value, 1e-10))
            else:
                out[i, j] = value / out[j, j]


@njit(cache=True, nogil=True)
def draw_utilities(eta, factor, width, draws, first, last, price_terms, out):
    """Utilities sigma(eta) - price term of draws first..last-1 of the posterior, into ``out``."""
    n = eta.shape[0]
    for r in range(first, last):
        for j in range(n):
            value = 0.0
            for l in range(j + 1):
                value += factor[j, l] * draws[r, l]
            out[r, j] = drawn_sigmoid(eta[j] + width * value) - price_terms[j]


@njit(cache=True, nogil=True)
def information_directed(utility, curiosity, temperature, out):
    """Preference over n models from M draws of their utilities (M, n), into ``out`` (n,).

    With A* the best model of a draw, model j has the index

        E[u_j] + curiosity * sqrt(Var(E[u_j | A*]))

    the second term being what a draw of u_j would tell of which model is best. The sampling error
    of M draws is taken off that variance. The preference is the softmax of index / temperature.
    """
    rows, n = utility.shape
    count, mean, second = np.zeros(n), np.zeros(n), np.zeros(n)
    given = np.zeros((n, n))
    for r in range(rows):
        best = 0
        for j in range(1, n):
            if utility[r, j] > utility[r, best]:
                best = j
        count[best] += 1.0
        for j in range(n):
            mean[j] += utility[r, j]
            second[j] += utility[r, j] * utility[r, j]
            given[best, j] += utility[r, j]
    top = -math.inf
    for j in range(n):
        mean[j] /= rows
        told, levels = 0.0, -1.0
        for best in range(n):
            if count[best] > 0.0:
                apart = given[best, j] / count[best] - mean[j]
                told += count[best] / rows * apart * apart
                levels += 1.0
        noise = max(second[j] / rows - mean[j] * mean[j], 0.0) * levels / rows
        out[j] = mean[j] + curiosity * math.sqrt(max(told - noise, 0.0))
        top = max(top, out[j])
    total = 0.0
    for j in range(n):
        out[j] = math.exp((out[j] - top) / temperature)
        total += out[j]
    for j in range(n):
        out[j] /= total


@njit(cache=True, nogil=True)
def scaled(x, count, factor):
    """(1, factor * x_1, ..., factor * x_count)."""
    out = np.empty(1 + count)
    out[0] = 1.0
    for i in range(count):
        out[1 + i] = factor * x[i]
    return out


@njit(cache=True, nogil=True)
def evaluate(
    mean, cov, log_weight, residual, doubt, has_residual, x, own, slots, context_width, width,
    curiosity, temperature, draws, price_terms, score, preference,
):  # fmt: skip
    """Fill ``score`` and ``preference`` (n,) for the models in ``slots``.

    The draws are shared out over the experts by weight. The last entry of ``log_weight`` is the
    residual expert's: its log-odds are the mixture's plus ``residual``, its covariance that of the
    heaviest closed-form expert plus the variances ``doubt`` on the diagonal.
    """
    experts, n, rows = mean.shape[0], slots.shape[0], draws.shape[0]
    weight = np.empty(experts + 1)
    expert_weights(log_weight, weight)
    s, o = scaled(x, x.shape[0], context_width), scaled(x, own, context_width)
    eta, link = np.empty(n), np.empty(n)
    matrix, factor, heaviest = np.empty((n, n)), np.zeros((n, n)), np.zeros((n, n))
    utility = np.empty((rows, n))
    score[:] = 0.0
    total, first, top = 0.0, 0, -1.0
    for e in range(experts):
        log_odds(mean[e], x, own, slots, eta)
        for j in range(n):
            score[j] += weight[e] * sigmoid(eta[j])
        total += weight[e]
        last = int(total * rows + 0.5)
        if e == experts - 1 and not has_residual:
            last = rows
        if last > first or weight[e] > top:
            log_odds_covariance(cov[e], s, o, slots, link, matrix)
            cholesky(matrix, factor)
            draw_utilities(eta, factor, width, draws, first, last, price_terms, utility)
            if weight[e] > top:
                top = weight[e]
                heaviest[:, :] = matrix
            first = last
    for j in range(n):
        score[j] = min(max(score[j] / total, 1e-9), 1.0 - 1e-9)
    if has_residual:
        for j in range(n):
            eta[j] = math.log(score[j] / (1.0 - score[j])) + residual[j]
            heaviest[j, j] += doubt[j]
        cholesky(heaviest, factor)
        draw_utilities(eta, factor, width, draws, first, rows, price_terms, utility)
        for j in range(n):
            score[j] = total * score[j] + weight[experts] * sigmoid(eta[j])
    information_directed(utility, curiosity, temperature, preference)


@njit(cache=True, nogil=True)
def mixture_log_odds(mean, log_weight, x, own, slot):
    """Log-odds of the closed-form experts' weighted mean score for one model."""
    experts = mean.shape[0]
    weight = np.empty(experts)
    expert_weights(log_weight[:experts], weight)
    slots, eta = np.empty(1, np.int64), np.empty(1)
    slots[0] = slot
    p = 0.0
    for e in range(experts):
        log_odds(mean[e], x, own, slots, eta)
        p += weight[e] * sigmoid(eta[0])
    p = min(max(p, 1e-9), 1.0 - 1e-9)
    return math.log(p / (1.0 - p))


@njit(cache=True, nogil=True)
def credit(log_weight, phi_sum, phi_count, e, q, y, phi):
    """Predictive log-likelihood of y in [0, 1] under q, tempered by phi, to expert e.

    All experts are tempered alike: by its own dispersion, the one that is surer than it should be
    would pay less for its errors.
    """
    q = min(max(q, 1e-4), 1.0 - 1e-4)
    log_weight[e] += (y * math.log(q) + (1.0 - y) * math.log(1.0 - q)) / phi
    phi_sum[e] += (y - q) * (y - q) / max(q * (1.0 - q), 0.02)
    phi_count[e] += 1.0


@njit(cache=True, nogil=True)
def learn_expert(mean, cov, mean0, var0, x, own, slot, y, phi, rho, pz):
    """One step of the extended Kalman filter for a logistic observation, then forgetting.

    Returns:
        (q, s): the probability predicted beforehand, variance taken in (probit approximation,
        MacKay 1992), and the variance of the log-odds.
    """
    size, ds, do = mean.shape[0], 1 + x.shape[0], 1 + own
    at = ds + slot * do
    eta = mean[0] + mean[at]
    for i in range(x.shape[0]):
        eta += mean[1 + i] * x[i]
    for i in range(own):
        eta += mean[at + 1 + i] * x[i]
    for i in range(size):
        value = cov[i, 0] + cov[i, at]
        for j in range(x.shape[0]):
            value += cov[i, 1 + j] * x[j]
        for j in range(own):
            value += cov[i, at + 1 + j] * x[j]
        pz[i] = value
    s = pz[0] + pz[at]
    for j in range(x.shape[0]):
        s += pz[1 + j] * x[j]
    for j in range(own):
        s += pz[at + 1 + j] * x[j]
    p = sigmoid(eta)
    w = max(p * (1.0 - p), 0.01) / phi
    step = (y - p) / (phi * (1.0 + w * s))
    root = math.sqrt(w / (1.0 + w * s))
    for i in range(size):
        mean[i] += pz[i] * step
        pz[i] *= root
    keep = rho * rho
    for i in range(size):
        if rho < 1.0:
            mean[i] = mean0[i] + rho * (mean[i] - mean0[i])
            for j in range(size):
                cov[i, j] = keep * (cov[i, j] - pz[i] * pz[j])
            cov[i, i] += (1.0 - keep) * var0[i]
        else:
            for j in range(size):
                cov[i, j] -= pz[i] * pz[j]
    return sigmoid(eta / math.sqrt(1.0 + PI_OVER_8 * s)), s


@njit(cache=True, nogil=True)
def learn_score(
    mean, cov, mean0, var0, log_weight, phi_sum, phi_count, rho, x, own, slot, y, base, residual,
    has_residual, toll, fade,
):  # fmt: skip
    """Update every expert and the weights from one score.

    The residual expert pays ``toll`` nats per interaction: a correction that predicts no better
    than the closed form loses its share.
    """
    experts = mean.shape[0]
    pz = np.empty(mean.shape[1])
    heaviest, spread = 0, 0.0
    for e in range(experts):
        if log_weight[e] > log_weight[heaviest]:
            heaviest = e
    common = max(phi_sum[heaviest] / phi_count[heaviest], 0.05)
    for e in range(experts):
        phi = max(phi_sum[e] / phi_count[e], 0.05)
        q, s = learn_expert(mean[e], cov[e], mean0[e], var0[e], x, own, slot, y, phi, rho[e], pz)
        if e == heaviest:
            spread = s
        credit(log_weight, phi_sum, phi_count, e, q, y, common)
    if has_residual:
        q = sigmoid((base + residual) / math.sqrt(1.0 + PI_OVER_8 * spread))
        credit(log_weight, phi_sum, phi_count, experts, q, y, common)
        log_weight[experts] -= toll
    top = log_weight.max()
    for e in range(experts + 1):
        log_weight[e] = (log_weight[e] - top) * fade


@njit(cache=True, nogil=True)
def learn_cost(
    cost_mean, cost_cov, noise, log_price, paid, foreseen, x, slot, cost, fade
):  # fmt: skip
    """Recursive least squares on log(cost / price), and the ratio of paid to foreseen USD.

    ``noise`` is (sum of squared innovations, count): the running variance of the log cost.
    """
    k_all, size = log_price.shape[0], cost_mean.shape[0]
    fit = cost_mean[slot]
    for i in range(x.shape[0]):
        fit += cost_mean[k_all + i] * x[i]
    bounded = min(max(fit, -LOG_COST_CLIP), LOG_COST_CLIP)
    paid[slot] = fade * paid[slot] + cost
    foreseen[slot] = fade * foreseen[slot] + math.exp(log_price[slot] + bounded)
    ratio = math.log(max(cost, 1e-3 * math.exp(log_price[slot]))) - log_price[slot]
    gain = np.empty(size)
    for i in range(size):
        value = cost_cov[i, slot]
        for j in range(x.shape[0]):
            value += cost_cov[i, k_all + j] * x[j]
        gain[i] = value
    spread = gain[slot]
    for j in range(x.shape[0]):
        spread += gain[k_all + j] * x[j]
    variance = max(noise[0] / noise[1], 1e-4)
    whole = variance + spread
    error = ratio - fit
    root = 1.0 / math.sqrt(whole)
    for i in range(size):
        cost_mean[i] += gain[i] * error / whole
        gain[i] *= root
    for i in range(size):
        for j in range(size):
            cost_cov[i, j] -= gain[i] * gain[j]
    noise[0] += error * error * variance / whole
    noise[1] += 1.0
