"""The compiled arithmetic: the same bits interpreted, and the right numbers."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import kernel_cases

from bandit_router.quality import kernels, scores
from bandit_router.quality import mixture as mixture_module


@pytest.fixture(scope="module")
def interpreted(repo_root):
    """Digests of the kernel cases as plain Python gives them."""
    script = Path(kernel_cases.__file__)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compiled():
    return dict(kernel_cases.digests())


@pytest.mark.parametrize("name", kernel_cases.CASES)
def test_compiled_and_interpreted_give_the_same_bits(name, compiled, interpreted):
    assert compiled[name] == interpreted[name]


def test_every_kernel_is_in_a_case():
    names = {name for name, value in vars(kernels).items() if hasattr(value, "py_func")}
    assert len(names) > 10
    called = inspect.getsource(kernel_cases)
    called += inspect.getsource(mixture_module) + inspect.getsource(scores)
    assert [name for name in sorted(names) if f"kernels.{name}(" not in called] == []


# -- hand-computed numbers ------------------------------------------------------------------------


def test_sigmoid_by_hand_and_without_overflow():
    assert kernels.sigmoid(0.0) == 0.5
    assert kernels.sigmoid(math.log(3.0)) == pytest.approx(0.75, abs=1e-15)
    assert kernels.sigmoid(-1000.0) == 0.0
    assert kernels.sigmoid(1000.0) == 1.0


def test_the_logistic_of_the_draws_is_within_its_stated_error():
    values = np.linspace(-40.0, 40.0, 8001).tolist()
    given = np.array([kernels.drawn_sigmoid(v) for v in values])
    exact = np.array([kernels.sigmoid(v) for v in values])
    assert np.abs(given - exact).max() <= 5e-5
    assert np.all(np.diff(given) >= 0.0)
    assert (given[0], given[-1]) == (pytest.approx(0.0, abs=5e-5), pytest.approx(1.0, abs=5e-5))


def test_standardise_by_hand():
    # 30 rows and 20 pseudo-rows; sum 50, sum of squares 130: mean 1, variance 150/50 - 1 = 2.
    out = np.empty(3)
    dense, total = np.array([3.0, 100.0, -100.0]), np.full(3, 50.0)
    kernels.standardise(dense, 30.0, total, np.full(3, 130.0), 20.0, 3.0, out)
    assert out == pytest.approx([math.sqrt(2.0), 3.0, -3.0])


def test_standardise_leaves_the_first_row_as_it_is():
    out = np.empty(2)
    kernels.standardise(np.array([0.25, -2.0]), 0.0, np.zeros(2), np.zeros(2), 20.0, 3.0, out)
    assert out.tolist() == [0.25, -2.0]


def test_a_constant_feature_does_not_explode():
    # 980 rows of exactly 1 and 20 pseudo-rows: variance .98 * ... is held above .01.
    out = np.empty(1)
    kernels.standardise(np.array([1.0]), 1e9, np.array([1e9]), np.array([1e9]), 20.0, 3.0, out)
    assert abs(out[0]) < 1e-6


def test_expert_weights_by_hand():
    out = np.empty(3)
    kernels.expert_weights(np.array([0.0, math.log(3.0), -1e9]), out)
    assert out == pytest.approx([0.25, 0.75, 0.0])


def test_predicted_costs_by_hand():
    # price .01, a = log 2, h.x = .5 * 2 = 1, ratio 3/2: .01 * 2 * e * 1.5; the other: .1 * e.
    out = np.empty(2)
    kernels.predicted_costs(
        np.array([2.0]), np.array([1, 0]), np.log([0.1, 0.01]), np.array([0.0, math.log(2.0), 0.5]),
        np.array([1.0, 3.0]), np.array([1.0, 2.0]), out,
    )  # fmt: skip
    assert out == pytest.approx([0.03 * math.e, 0.1 * math.e])


def test_a_predicted_cost_stays_within_the_clip_of_the_price():
    out = np.empty(2)
    kernels.predicted_costs(
        np.zeros(0), np.arange(2), np.log([0.01, 0.01]), np.array([50.0, -50.0]), np.ones(2),
        np.ones(2), out,
    )  # fmt: skip
    bound = math.exp(kernels.LOG_COST_CLIP)
    assert out == pytest.approx([0.01 * bound, 0.01 / bound])


def test_cholesky_by_hand():
    out = np.zeros((3, 3))
    matrix = np.array([[4.0, 9e9, 9e9], [2.0, 10.0, 9e9], [-2.0, 5.0, 14.0]])  # lower part only
    kernels.cholesky(matrix, out)
    assert out.tolist() == [[2.0, 0.0, 0.0], [1.0, 3.0, 0.0], [-1.0, 2.0, 3.0]]


def test_cholesky_of_a_singular_matrix_is_finite():
    out = np.zeros((2, 2))
    kernels.cholesky(np.ones((2, 2)), out)
    assert out == pytest.approx(np.array([[1.0, 0.0], [1.0, 1e-5]]))


def test_the_covariance_of_log_odds_is_that_of_the_dense_formula():
    p = kernel_cases.taught(7, 80)
    x, slots = np.array([0.3, -1.0, 2.0, 0.5]), np.array([2, 0])
    z = np.zeros((2, kernel_cases.SIZE))
    for row, slot in zip(z, slots, strict=True):
        at = 1 + kernel_cases.D + slot * (1 + kernel_cases.OWN)
        row[0], row[1 : 1 + kernel_cases.D], row[at] = 1.0, 0.4 * x, 1.0
        row[at + 1 : at + 1 + kernel_cases.OWN] = 0.4 * x[: kernel_cases.OWN]
    out = np.zeros((2, 2))
    kernels.log_odds_covariance(
        p["cov"][1], kernels.scaled(x, 4, 0.4), kernels.scaled(x, 3, 0.4), slots, np.empty(2), out
    )
    assert out[np.tril_indices(2)] == pytest.approx((z @ p["cov"][1] @ z.T)[np.tril_indices(2)])


# -- the choice -----------------------------------------------------------------------------------


def preference(utility, curiosity=1.0, temperature=0.05):
    out = np.empty(np.shape(utility)[1])
    kernels.information_directed(np.array(utility), curiosity, temperature, out)
    return out


def test_information_directed_by_hand():
    # Model 0 is best in draws 1, 2 and 4. Means .6 and .35.
    # E[u_0 | A*] = 2.3/3 and .1: Var = .0833333, sampling error .11 / 4, so .0558333 is left;
    # E[u_1 | A*] = .8/3 and .6: Var = .0208333, sampling error .0275 / 4, so .0139583 is left.
    # Indices .6 + .236291 and .35 + .118145; apart by .368146; odds exp(.368146 / .5) = 2.08818.
    utility = [[0.9, 0.2], [0.9, 0.2], [0.1, 0.6], [0.5, 0.4]]
    odds = 2.08818
    assert preference(utility, 1.0, 0.5) == pytest.approx([odds / (1 + odds), 1 / (1 + odds)], 1e-5)


def test_without_curiosity_the_mean_alone_decides():
    # Means .6 and .35; odds exp(.25 / .5).
    utility = [[0.9, 0.2], [0.9, 0.2], [0.1, 0.6], [0.5, 0.4]]
    assert preference(utility, 0.0, 0.5)[0] == pytest.approx(1.0 / (1.0 + math.exp(-0.5)))


@pytest.mark.parametrize("seed", range(5))
def test_a_preference_is_a_distribution(seed):
    utility = np.random.default_rng(seed).normal(0.0, 3.0, (64, 7))
    given = preference(utility, 2.0, 0.002)
    assert abs(given.sum() - 1.0) < 1e-12
    assert given.min() >= 0.0


def test_a_clearly_better_model_is_preferred():
    rng = np.random.default_rng(0)
    utility = rng.normal([0.3, 0.7, 0.4], 0.02, (128, 3))
    given = preference(utility)
    assert given.argmax() == 1
    assert given[1] > 0.99


def test_equal_models_share_alike():
    utility = np.tile(np.random.default_rng(0).normal(0.5, 0.1, (64, 1)), (1, 3))
    assert preference(utility) == pytest.approx(np.full(3, 1 / 3))


def test_of_two_equal_means_the_less_known_is_preferred():
    rng = np.random.default_rng(1)
    utility = np.column_stack([np.full(512, 0.5), 0.5 + rng.normal(0.0, 0.2, 512)])
    utility[:, 1] += 0.5 - utility[:, 1].mean()
    assert preference(utility, 1.0)[1] > 0.9
    assert preference(utility, 0.0) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("constant", [-3.0, -0.1, 1.0, 20.0])
def test_a_constant_added_to_all_utilities_changes_nothing(constant):
    utility = np.random.default_rng(3).normal(0.5, 0.1, (128, 4))
    assert preference(utility + constant) == pytest.approx(preference(utility), abs=1e-8)


# -- learning -------------------------------------------------------------------------------------

D, OWN, K, SIZE = kernel_cases.D, kernel_cases.OWN, kernel_cases.K, kernel_cases.SIZE


def design(x, slot):
    """z with eta = z . parameters."""
    z, at = np.zeros(SIZE), 1 + D + slot * (1 + OWN)
    z[0], z[1 : 1 + D], z[at], z[at + 1 : at + 1 + OWN] = 1.0, x, 1.0, x[:OWN]
    return z


def step(mean, cov, mean0, var0, x, slot, y, phi=1.0, rho=1.0):
    return kernels.learn_expert(mean, cov, mean0, var0, x, OWN, slot, y, phi, rho, np.empty(SIZE))


@pytest.mark.parametrize("rho", [1.0, 0.97])
@pytest.mark.parametrize("phi", [0.3, 1.0, 2.0])
def test_a_step_is_that_of_the_information_form(rho, phi):
    """P' = (P^-1 + w z z')^-1, m' = m + P' z (y - p) / phi with w = p (1 - p) / phi."""
    rng = np.random.default_rng(1)
    mean0, var0 = rng.normal(size=SIZE) * 0.4, rng.uniform(0.1, 0.5, SIZE)
    mean, cov = mean0.copy(), np.diag(var0)
    for i in range(30):
        x, slot, y = rng.normal(size=D), int(rng.integers(K)), float(rng.random())
        z = design(x, slot)
        p = 1.0 / (1.0 + np.exp(-z @ mean))
        spread = z @ cov @ z
        new_cov = np.linalg.inv(np.linalg.inv(cov) + p * (1 - p) / phi * np.outer(z, z))
        new_mean = mean + new_cov @ z * (y - p) / phi
        new_mean = mean0 + rho * (new_mean - mean0)
        new_cov = rho**2 * new_cov + (1 - rho**2) * np.diag(var0)
        q, s = step(mean, cov, mean0, var0, x, slot, y, phi, rho)
        assert s == pytest.approx(spread)
        assert q == pytest.approx(
            1.0 / (1.0 + np.exp(-np.log(p / (1 - p)) / np.sqrt(1 + np.pi * s / 8))), abs=1e-12
        )
        assert mean == pytest.approx(new_mean, abs=1e-9), i
        assert cov == pytest.approx(new_cov, abs=1e-9), i


def test_where_the_link_is_straight_incremental_equals_batch():
    """With log-odds within .01 of 0, sigma is 1/2 + eta/4: ridge regression in closed form."""
    rng = np.random.default_rng(2)
    var0 = rng.uniform(0.5e-4, 2e-4, SIZE)
    mean, cov = np.zeros(SIZE), np.diag(var0)
    precision, moment = np.diag(1.0 / var0), np.zeros(SIZE)
    for _ in range(400):
        x, slot = rng.uniform(-1, 1, D), int(rng.integers(K))
        y = 0.5 + float(rng.uniform(-0.01, 0.02))
        z = design(x, slot)
        precision += 0.25 * np.outer(z, z)
        moment += z * (y - 0.5)
        step(mean, cov, np.zeros(SIZE), var0, x, slot, y)
    batch = np.linalg.solve(precision, moment)
    assert np.abs(batch).max() > 1e-4
    assert mean == pytest.approx(batch, abs=1e-7)
    assert cov == pytest.approx(np.linalg.inv(precision), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("rho", [1.0, 0.999, 0.98])
def test_a_covariance_stays_symmetric_to_the_bit_and_positive_definite(rho):
    rng = np.random.default_rng(3)
    var0 = rng.uniform(0.05, 0.5, SIZE)
    mean, cov, mean0 = np.zeros(SIZE), np.diag(var0), np.zeros(SIZE)
    for i in range(5000):
        x = np.clip(rng.normal(size=D) * 2, -3, 3)
        step(mean, cov, mean0, var0, x, i % K, float(rng.random() < 0.9), 0.05, rho)
        if i % 500 == 499:
            assert cov.tobytes() == np.ascontiguousarray(cov.T).tobytes()
            assert np.linalg.eigvalsh(cov).min() > 0.0
    assert np.diag(cov).max() <= var0.max() * (1.0 + 1e-12)


def test_credit_by_hand():
    # log .8 / 2 for y = 1; the dispersion (1 - .8)^2 / .16 = .25 joins the sum.
    log_weight, phi_sum, phi_count = np.zeros(1), np.full(1, 20.0), np.full(1, 20.0)
    kernels.credit(log_weight, phi_sum, phi_count, 0, 0.8, 1.0, 2.0)
    assert log_weight[0] == pytest.approx(math.log(0.8) / 2.0)
    assert (phi_sum[0], phi_count[0]) == (pytest.approx(20.25), 21.0)


def test_a_cost_step_is_recursive_least_squares():
    """Incremental equals batch when the noise is known: precision-weighted ridge regression."""
    rng, k, d = np.random.default_rng(4), 2, 3
    log_price, prior = np.log([0.01, 0.1]), np.full(k + d, 0.3)
    mean, cov = np.zeros(k + d), np.diag(prior)
    noise = np.array([0.25e12, 1e12])  # so many pseudo-observations that it stays at .25
    precision, moment = np.diag(1.0 / prior), np.zeros(k + d)
    for i in range(200):
        x, slot = rng.normal(size=d), i % k
        log_ratio = float(rng.normal(0.3, 0.5))
        z = np.r_[np.eye(k)[slot], x]
        precision += np.outer(z, z) / 0.25
        moment += z * log_ratio / 0.25
        cost = math.exp(log_price[slot] + log_ratio)
        kernels.learn_cost(mean, cov, noise, log_price, np.ones(k), np.ones(k), x, slot, cost, 1.0)
    assert mean == pytest.approx(np.linalg.solve(precision, moment), abs=1e-8)
    assert cov == pytest.approx(np.linalg.inv(precision), abs=1e-10)


def test_a_free_call_is_learned_as_cheap_not_as_minus_infinity():
    mean, cov = np.zeros(1), np.eye(1)
    paid, foreseen = np.ones(1), np.ones(1)
    kernels.learn_cost(
        mean, cov, np.array([6.0, 20.0]), np.zeros(1), paid, foreseen, np.zeros(0), 0, 0.0, 1.0
    )
    assert -7.0 < mean[0] < 0.0
    assert (paid[0], foreseen[0]) == (1.0, 2.0)
