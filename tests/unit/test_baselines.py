"""The baselines are what the textbooks say: closed forms and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from bandit_router.bootstrap import make_policy
from bandit_router.errors import CatalogError, ConfigError, UnknownPolicyError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.tally import Tally
from bandit_router.types import Features, Interaction

CATALOG = Catalog(
    ModelSpec(model=m, expected_cost_usd=c)
    for m, c in (("mid", 0.002), ("dear", 0.03), ("cheap", 0.0001))
)
ALL = CATALOG.names
NONE = Features(dense=np.zeros(0))


def row(action, score, cost, features=NONE, value=0.1, **fields):
    return Interaction(
        **{
            "event_id": "e",
            "ts": 0.0,
            "closed_ts": 0.0,
            "features": features,
            "eligible": ALL,
            "pmf": (1 / 3,) * 3,
            "action": action,
            "propensity": 1 / 3,
            "slice": "policy",
            "quality_value_usd": value,
            "score": score,
            "cost_usd": cost,
            **fields,
        }
    )


def pmf(name, eligible=ALL, value=0.1, **options):
    policy = make_policy(name, CATALOG, dimension=0, **options)
    return policy.evaluate(NONE, eligible, value).pmf.tolist()


def test_the_policies_that_do_not_learn():
    assert pmf("uniform") == pytest.approx([1 / 3] * 3)
    assert pmf("cheapest") == [0.0, 0.0, 1.0]
    assert pmf("strongest") == [0.0, 1.0, 0.0]
    assert pmf("fixed:mid") == [1.0, 0.0, 0.0]


def test_a_mask_comes_before_the_choice():
    assert pmf("cheapest", ("dear", "mid")) == [0.0, 1.0]
    assert pmf("strongest", ("cheap", "mid")) == [0.0, 1.0]
    assert pmf("fixed:dear", ("mid", "cheap")) == [0.0, 1.0]
    assert pmf("uniform", ("mid",)) == [1.0]


def test_a_fixed_model_must_be_there():
    with pytest.raises(CatalogError, match="nobody"):
        make_policy("fixed:nobody", CATALOG, dimension=0)


def test_names_and_options_that_are_not_known_are_errors():
    with pytest.raises(UnknownPolicyError, match="linucb"):
        make_policy("lin-ucb", CATALOG, dimension=0)
    with pytest.raises(ConfigError, match="magic"):
        make_policy("uniform", CATALOG, dimension=0, magic=1)
    with pytest.raises(ConfigError):
        make_policy("linucb", CATALOG, dimension=0, ridge=0.0)
    with pytest.raises(ConfigError):
        make_policy("thompson", CATALOG, dimension=0, draws=0)


def test_the_tally_by_hand():
    tally = Tally(CATALOG)
    for score, cost in ((1.0, 0.004), (0.5, 0.001), (None, 0.004), (0.0, None)):
        tally.add(row("mid", score, cost))
    tally.add(row("mid", 1.0, 9.0, learn=False))
    tally.add(row("nobody", 1.0, 9.0))
    rows = tally.rows(("mid", "cheap"))
    # Score: (1 + .5 + 0 + 1) / (3 + 2); cost: (.009 + 5 x .002) / (3 + 5).
    assert tally.scores(rows).tolist() == pytest.approx([0.5, 0.5])
    assert tally.costs_usd(rows).tolist() == pytest.approx([0.019 / 8, 0.0001])


def test_linucb_is_ridge_regression_with_an_upper_bound():
    rng = np.random.default_rng(0)
    alpha, ridge, value = 0.7, 2.0, 0.1
    policy = make_policy("linucb", CATALOG, dimension=3, alpha=alpha, ridge=ridge, epsilon=0.06)
    designs = {m: [] for m in ALL}
    rewards = {m: [] for m in ALL}
    for i in range(40):
        x, model = rng.normal(size=3), ALL[i % 3]
        score, cost = float(rng.random() < 0.5), float(rng.random() * 0.02)
        policy.learn(row(model, score, cost, Features(dense=x), value))
        designs[model].append([*x, 1.0])
        rewards[model].append(score - cost / value)
    x = rng.normal(size=3)
    z = np.array([*x, 1.0])
    mean, bound = [], []
    for model in ALL:
        design, reward = np.array(designs[model]), np.array(rewards[model])
        inverse = np.linalg.inv(design.T @ design + ridge * np.eye(4))
        mean.append(z @ inverse @ design.T @ reward)
        bound.append(mean[-1] + alpha * np.sqrt(z @ inverse @ z))
    evaluation = policy.evaluate(Features(dense=x), ALL, value)
    assert evaluation.utility == pytest.approx(mean)
    expected = np.full(3, 0.02)
    expected[int(np.argmax(bound))] = 0.96
    assert evaluation.pmf == pytest.approx(expected)


def test_linucb_begins_without_a_preference():
    assert pmf("linucb") == pytest.approx([1 / 3] * 3)


def test_thompson_samples_each_model_as_often_as_its_posterior_is_best():
    policy = make_policy("thompson", CATALOG, dimension=0, seed=3, draws=20_000)
    cost = 0.002
    for model, scores in (("mid", [1, 1, 0, 1]), ("cheap", [1, 0, 0])):
        for score in scores:
            policy.learn(row(model, float(score), {"mid": 0.002, "cheap": 0.0001}[model]))
    value = 0.02
    found = policy.evaluate(NONE, ("mid", "cheap"), value).pmf
    mid, cheap = beta(4, 2), beta(2, 3)
    shift = (cost - 0.0001) / value
    exact, _ = quad(lambda s: cheap.pdf(s) * mid.sf(s + shift), 0, 1)
    assert found[0] == pytest.approx(exact, abs=0.015)


def test_thompson_uses_a_price_before_it_has_seen_a_cost():
    # At this quality value the dear model's price eats more than any score can give.
    assert pmf("thompson", value=0.01)[1] == 0.0


@pytest.mark.parametrize("name", ["vw-epsilon", "vw-squarecb", "linucb", "thompson", "bandit"])
def test_every_learner_finds_the_model_with_the_best_reward(name):
    # Rewards at quality value .1: mid .88 (score .9), dear .7 (score 1), cheap .3 (score .3).
    policy = make_policy(name, CATALOG, dimension=2, seed=1)
    rng = np.random.default_rng(0)
    right = {"mid": 0.9, "dear": 1.0, "cheap": 0.3}
    costs = {"mid": 0.002, "dear": 0.03, "cheap": 0.0001}
    chosen = []
    for i in range(600):
        x = Features(dense=rng.normal(size=2).clip(-3, 3).astype(np.float32).astype(float))
        p = policy.evaluate(x, ALL, 0.1).pmf
        k = int(rng.choice(3, p=p / p.sum()))
        chosen.append(ALL[k])
        outcome = row(ALL[k], float(rng.random() < right[ALL[k]]), costs[ALL[k]], x)
        policy.learn(
            Interaction(
                **{f: getattr(outcome, f) for f in outcome.__struct_fields__}
                | {"pmf": tuple(p.tolist()), "propensity": float(p[k]), "event_id": f"e{i}"}
            )
        )
    late = chosen[300:]
    assert late.count("mid") > 1.5 * late.count("dear")
    assert late.count("mid") > 2 * late.count("cheap")


def test_vw_policies_use_context_columns():
    policy = make_policy("vw-squarecb", CATALOG, dimension=1, seed=1)
    rng = np.random.default_rng(0)
    for i in range(900):
        kind = ("code", "chat")[i % 2]
        x = Features(dense=np.zeros(1), columns={"task": kind})
        p = policy.evaluate(x, ("mid", "cheap"), 1.0).pmf
        k = int(rng.choice(2, p=p / p.sum()))
        model = ("mid", "cheap")[k]
        score = 1.0 if (model == "mid") == (kind == "code") else 0.0
        policy.learn(
            row(model, score, 0.001, x, 1.0, eligible=("mid", "cheap"), propensity=float(p[k]))
        )
    code = policy.evaluate(Features(dense=np.zeros(1), columns={"task": "code"}), ALL[::2], 1.0)
    chat = policy.evaluate(Features(dense=np.zeros(1), columns={"task": "chat"}), ALL[::2], 1.0)
    assert code.pmf[0] > 0.8
    assert chat.pmf[1] > 0.8
