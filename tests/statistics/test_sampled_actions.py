"""The logged pmf is the one that is sampled: chi-square tests, over every policy.

Everything is seeded, so a test passes or fails for good; the level (1e-4) says how improbable a
failure of a correct sampler was when it was written.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from scipy.stats import chi2, norm

from bandit_router.bootstrap import POLICIES, make_policy
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.base import sample
from bandit_router.types import Features, Interaction

MODELS = ("a", "b", "c", "d")
COSTS = (0.001, 0.002, 0.004, 0.03)
LEVEL = 1e-4
VALUE = 0.05
every_policy = pytest.mark.parametrize("name", POLICIES)


def taught(name, n=150):
    """A policy that has learned a little, on scores that do not depend on much."""
    if name == "paretobandit" and importlib.util.find_spec("pareto_bandit") is None:
        pytest.skip("paretobandit is not installed")
    catalog = Catalog(
        ModelSpec(model=m, expected_cost_usd=c) for m, c in zip(MODELS, COSTS, strict=True)
    )
    policy = make_policy(name, catalog, dimension=4, seed=1)
    for i, (features, evaluation, index) in enumerate(stream(policy, n)):
        policy.learn(outcome(i, features, evaluation, index))
    return policy


def features_of(i):
    dense = np.random.default_rng([1, i]).normal(size=4).astype(np.float32).astype(np.float64)
    return Features(dense=np.clip(dense, -3.0, 3.0))


def outcome(i, features, evaluation, index):
    score = float(np.random.default_rng([2, i]).random() < 0.45 + 0.1 * index)
    return Interaction(
        event_id=f"e{i}",
        ts=float(i),
        closed_ts=float(i),
        features=features,
        eligible=MODELS,
        pmf=tuple(evaluation.pmf.tolist()),
        action=MODELS[index],
        propensity=float(evaluation.pmf[index]),
        slice="policy",
        quality_value_usd=VALUE,
        score=score,
        cost_usd=COSTS[index],
    )


def stream(policy, n, salt="salt"):
    for i in range(n):
        features = features_of(i)
        evaluation = policy.evaluate(features, MODELS, VALUE)
        yield features, evaluation, sample(evaluation, salt, f"event-{i}")[0]


@every_policy
def test_draws_from_one_pmf_follow_it(name):
    evaluation = taught(name).evaluate(features_of(10_000), MODELS, VALUE)
    n = 4000
    drawn = [sample(evaluation, "salt", f"draw-{i}")[0] for i in range(n)]
    counts = np.bincount(drawn, minlength=len(MODELS))
    assert counts[evaluation.pmf == 0.0].sum() == 0
    expected = n * evaluation.pmf[evaluation.pmf > 0.0]
    statistic = ((counts[evaluation.pmf > 0.0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert freedom == 0 or chi2.sf(statistic, freedom) > LEVEL


@every_policy
def test_while_it_learns_every_model_is_drawn_as_often_as_its_propensities_say(name):
    policy = taught(name, 0)
    surplus, variance = np.zeros(len(MODELS)), np.zeros(len(MODELS))
    for i, (features, evaluation, index) in enumerate(stream(policy, 1500, "other salt")):
        surplus += np.eye(len(MODELS))[index] - evaluation.pmf
        variance += evaluation.pmf * (1.0 - evaluation.pmf)
        policy.learn(outcome(i, features, evaluation, index))
    drawn = variance > 1.0  # a martingale's sum is normal when enough of it was random
    z = surplus[drawn] / np.sqrt(variance[drawn])
    assert np.all(np.abs(surplus[~drawn]) < 8.0)
    assert np.all(2.0 * norm.sf(np.abs(z)) > LEVEL)


@every_policy
def test_the_uniform_share_is_drawn_as_often_as_it_is_said(name):
    evaluation = taught(name).evaluate(features_of(10_001), MODELS, VALUE)
    n = 4000
    parts = [sample(evaluation, "salt", f"draw-{i}")[1] for i in range(n)]
    share, epsilon = parts.count("explore") / n, evaluation.epsilon
    assert abs(share - epsilon) <= norm.isf(LEVEL / 2) * np.sqrt(epsilon * (1 - epsilon) / n)
