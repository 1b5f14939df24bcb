"""Seeded inputs for every kernel: run as a script, it prints a digest of what each kernel did.

The same module run by an interpreter with ``NUMBA_DISABLE_JIT=1`` tells what plain Python gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from bandit_router.models import Catalog, ModelSpec
from bandit_router.quality import kernels
from bandit_router.quality.mixture import Mixture
from bandit_router.types import Features

D, OWN, K, EXPERTS, ROWS = 4, 3, 3, 3, 40
SIZE = 1 + D + K * (1 + OWN)


def posterior(seed: int) -> dict[str, np.ndarray]:
    """Arrays of EXPERTS experts before the first row."""
    rng = np.random.default_rng(seed)
    mean0 = rng.normal(0.0, 0.5, (EXPERTS, SIZE))
    var0 = rng.uniform(0.05, 0.6, (EXPERTS, SIZE))
    return {
        "mean": mean0.copy(),
        "cov": np.stack([np.diag(row) for row in var0]),
        "mean0": mean0,
        "var0": var0,
        "log_weight": np.array([0.0, -0.3, -1.0, -1.0]),
        "phi_sum": np.full(EXPERTS + 1, 20.0),
        "phi_count": np.full(EXPERTS + 1, 20.0),
        "rho": np.array([1.0, 0.999, 0.97]),
    }


def taught(seed: int, rows: int) -> dict[str, np.ndarray]:
    """A posterior after ``rows`` seeded steps of every expert."""
    rng, p, pz = np.random.default_rng(seed), posterior(seed), np.empty(SIZE)
    for i in range(rows):
        x, slot = np.clip(rng.normal(size=D), -3.0, 3.0), int(rng.integers(K))
        y = float(rng.random() < 0.6) if i % 2 else float(rng.random())
        for e in range(EXPERTS):
            kernels.learn_expert(
                p["mean"][e], p["cov"][e], p["mean0"][e], p["var0"][e], x, OWN, slot, y, 1.1,
                p["rho"][e], pz,
            )  # fmt: skip
    return p


def mixture(rows: int, *, columns: bool) -> Iterator[np.ndarray]:
    """A whole mixture, with the residual expert heard or not: every kernel in its place."""
    from bandit_router.adapters.vowpal_residual import VowpalResidual

    rng, models = np.random.default_rng(6), ("a", "b", "c")
    catalog = Catalog(
        ModelSpec(model=m, expected_cost_usd=0.001 * 4.0**i) for i, m in enumerate(models)
    )
    whole = Mixture(catalog, dimension=D, seed=2, residual=VowpalResidual() if columns else None)
    if columns:
        whole._score.log_weight[-1] = 1.0
    for i in range(rows):
        features = Features(
            dense=rng.normal(size=D), columns={"task": f"t{i % 3}"} if columns else {}
        )
        belief = whole.evaluate(features, models, 0.05)
        yield from (belief.preference, belief.score, belief.cost_usd)
        whole.learn(features, models[i % 3], float(rng.random()), float(rng.exponential(0.004)))
    yield from (whole._score.mean, whole._score.cov, whole._score.log_weight, whole._cost.cov)


def _sigmoid(rng):
    values = rng.normal(0.0, 20.0, 500).tolist()
    return [kernels.sigmoid(v) for v in values] + [kernels.drawn_sigmoid(v) for v in values]


def _standardise(rng):
    out = np.empty(D)
    kernels.standardise(
        rng.normal(size=D), 7.0, rng.normal(0, 3, D), rng.uniform(5, 50, D), 20.0, 3.0, out
    )
    return [out]


def _expert_weights(rng):
    out = np.empty(5)
    kernels.expert_weights(rng.normal(0.0, 30.0, 5), out)
    return [out]


def _predicted_costs(rng):
    out = np.empty(2)
    kernels.predicted_costs(
        rng.normal(size=D), np.array([2, 0]), rng.normal(-6, 1, K), rng.normal(size=K + D),
        rng.uniform(1, 2, K), rng.uniform(1, 2, K), out,
    )  # fmt: skip
    return [out]


def _log_odds_and_covariance(rng):
    p, x, slots = taught(1, 30), rng.normal(size=D), np.array([2, 0])
    eta, link, matrix = np.empty(2), np.empty(2), np.zeros((2, 2))
    kernels.log_odds(p["mean"][1], x, OWN, slots, eta)
    s, o = kernels.scaled(x, D, 0.3), kernels.scaled(x, OWN, 0.3)
    kernels.log_odds_covariance(p["cov"][1], s, o, slots, link, matrix)
    factor = np.zeros((2, 2))
    kernels.cholesky(matrix, factor)
    return [eta, link, matrix, factor, s, o]


def _draw_utilities(rng):
    out = np.zeros((ROWS, K))
    kernels.draw_utilities(
        rng.normal(size=K), np.tril(rng.normal(size=(K, K))), 0.7, rng.normal(size=(ROWS, K)),
        3, ROWS - 2, rng.uniform(0, 0.3, K), out,
    )  # fmt: skip
    return [out]


def _information_directed(rng):
    out = np.empty(K)
    kernels.information_directed(rng.normal(0.5, 0.2, (ROWS, K)), 1.5, 0.02, out)
    return [out]


def _mixture_log_odds(rng):
    p = taught(3, 40)
    return [
        kernels.mixture_log_odds(p["mean"], p["log_weight"], rng.normal(size=D), OWN, slot)
        for slot in range(K)
    ]


def _learn_expert(rng):
    p, pz = posterior(4), np.empty(SIZE)
    given = kernels.learn_expert(
        p["mean"][0], p["cov"][0], p["mean0"][0], p["var0"][0], rng.normal(size=D), OWN, 1, 0.7,
        1.2, 0.99, pz,
    )  # fmt: skip
    return [p["mean"], p["cov"], pz, *given]


def _credit(rng):
    log_weight, phi_sum, phi_count = np.zeros(2), np.full(2, 20.0), np.full(2, 20.0)
    for q, y in rng.random((400, 2)):
        kernels.credit(log_weight, phi_sum, phi_count, 1, q, y, 1.1)
    return [log_weight, phi_sum, phi_count]


def _learn_cost(rng):
    mean, cov, noise = np.zeros(K + D), np.diag(np.full(K + D, 0.2)), np.array([6.0, 20.0])
    log_price, paid, foreseen = rng.normal(-6, 1, K), np.ones(K), np.ones(K)
    for i in range(150):
        cost = 0.0 if i % 50 == 0 else float(np.exp(rng.normal(-6.0, 1.5)))
        kernels.learn_cost(
            mean, cov, noise, log_price, paid, foreseen, rng.normal(size=D), i % K, cost, 0.99
        )
    return [mean, cov, noise, paid, foreseen]


CASES = {
    "sigmoid": _sigmoid,
    "standardise": _standardise,
    "expert_weights": _expert_weights,
    "predicted_costs": _predicted_costs,
    "log_odds, covariance, cholesky, scaled": _log_odds_and_covariance,
    "draw_utilities": _draw_utilities,
    "information_directed": _information_directed,
    "evaluate": lambda _: mixture(40, columns=False),
    "mixture_log_odds": _mixture_log_odds,
    "learn_expert": _learn_expert,
    "credit": _credit,
    "learn_score with a residual expert": lambda _: mixture(40, columns=True),
    "learn_cost": _learn_cost,
}


def digests() -> Iterator[tuple[str, str]]:
    """Name of a case and the digest of every bit it gave."""
    for name, case in CASES.items():
        given = [
            np.asarray(value, np.float64).tobytes() for value in case(np.random.default_rng(5))
        ]
        yield name, hashlib.sha256(b"".join(given)).hexdigest()


if __name__ == "__main__":
    print(json.dumps(dict(digests())))  # noqa: T201 -- the answer of the script
