"""The learned scores and costs: catalog changes, prices, evidence, and states that do not fit."""

from __future__ import annotations

import math
from functools import cache

import msgspec
import numpy as np
import pytest

from bandit_router.adapters.vowpal_residual import VowpalResidual
from bandit_router.drift import DriftMonitor
from bandit_router.errors import CatalogError, InputError, SnapshotError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.quality.mixture import Mixture, MixtureConfig
from bandit_router.quality.scores import ScoreConfig
from bandit_router.quality.state import pack, unpack
from bandit_router.types import Features

D = 4
MODELS = ("small", "middle", "large")
PRICES = (0.001, 0.004, 0.016)
ABILITY = (-0.6, 0.2, 0.9)
WEIGHTS = np.array([0.8, -0.5, 0.3, 0.0])
VALUE = 0.05


def catalog(prices=PRICES, **metadata):
    return Catalog(
        ModelSpec(model=m, expected_cost_usd=p, metadata=metadata.get(m, {}))
        for m, p in zip(MODELS, prices, strict=True)
    )


def make(models=None, *, vowpal=False, **options):
    residual = VowpalResidual() if vowpal else None
    return Mixture(models or catalog(), dimension=D, seed=1, residual=residual, **options)


def features(i, seed=0):
    return Features(
        dense=np.random.default_rng([seed, i]).normal(size=D), columns={"task": f"t{i % 4}"}
    )


def truth(x):
    return 1.0 / (1.0 + np.exp(-(0.3 + np.array(ABILITY) + WEIGHTS @ x)))


def rows(n, seed=0, spread=0.4):
    """(features, model, score, cost) of a log in which the model is drawn evenly."""
    rng = np.random.default_rng([seed, 99])
    for i in range(n):
        f, k = features(i, seed), int(rng.integers(3))
        score = float(rng.random() < truth(f.dense)[k])
        yield f, MODELS[k], score, PRICES[k] * 1.5 * math.exp(spread * rng.normal())


def teach(mixture, n=150, seed=0):
    for row in rows(n, seed):
        mixture.learn(*row)
    return mixture


def beliefs(mixture, models=MODELS, n=6):
    """Every bit of what is believed of ``models`` at some queries."""
    given = [mixture.evaluate(features(i, seed=7), models, VALUE) for i in range(n)]
    return [(b.score.tobytes(), b.cost_usd.tobytes(), b.preference.tobytes()) for b in given]


with_and_without_vowpal = pytest.mark.parametrize("vowpal", [False, True])

# -- the catalog changes while running -------------------------------------------------------------


@with_and_without_vowpal
@pytest.mark.parametrize("gone", MODELS)
def test_removing_a_model_leaves_every_bit_of_the_others(gone, vowpal):
    mixture = teach(make(vowpal=vowpal))
    rest = tuple(m for m in MODELS if m != gone)
    before = beliefs(mixture, rest)
    mixture.set_catalog(catalog().without(gone))
    assert beliefs(mixture, rest) == before
    with pytest.raises(CatalogError, match=gone):
        mixture.evaluate(features(0), MODELS, VALUE)


def test_adding_a_model_leaves_every_bit_of_the_others():
    mixture = teach(make())
    before = beliefs(mixture)
    mixture.set_catalog(catalog().with_model(ModelSpec(model="new", expected_cost_usd=0.002)))
    assert beliefs(mixture) == before


def test_another_order_of_the_catalog_changes_no_belief():
    mixture = teach(make())
    before = beliefs(mixture)
    mixture.set_catalog(Catalog(reversed(list(catalog()))))
    assert beliefs(mixture) == before


def log_odds(p):
    return np.log(p / (1 - p))


def single(**settings):
    """One closed-form expert, so that log-odds add up to the bit of a formula."""
    score = ScoreConfig(experts=((0.05, 1.0),), model_variance=0.5, price_slope=0.25, **settings)
    return MixtureConfig(score=score)


def test_a_new_model_starts_from_the_shared_part_and_the_price_line():
    mixture = teach(make(config=single()), 400)
    at = mixture._score
    mixture.set_catalog(catalog().with_model(ModelSpec(model="new", expected_cost_usd=0.008)))
    for i in range(5):
        f = features(i, seed=3)
        x = mixture._standardised(f)
        shared = at.mean[0, 0] + at.mean[0, 1 : 1 + D] @ x
        line = 0.25 * (math.log(0.008) - np.mean(np.log(PRICES)))
        score = mixture.evaluate(f, ("new",), VALUE).score[0]
        assert log_odds(score) == pytest.approx(shared + line)
    assert abs(at.mean[0, 0] - ScoreConfig().shared_mean) > 0.1  # what was learned is in it


def test_a_new_model_of_a_known_family_starts_from_half_its_lift():
    family = {"large": {"family": "f"}, "middle": {"vendor": "v"}}
    mixture = teach(make(catalog(**family), config=single(family_share=0.5)), 400)
    for i in range(30):
        mixture.learn(features(i, seed=6), "large", 1.0, PRICES[2])
        mixture.learn(features(i, seed=6), "middle", 0.0, PRICES[1])
    lift = {
        m: mixture._score.mean[0, at] - mixture._score.mean0[0, at]
        for m, at in zip(MODELS, (1 + D + s * (1 + D) for s in range(3)), strict=True)
    }
    assert lift["large"] > 0.1 > -0.1 > lift["middle"]
    specs = {
        "plain": {},
        "kin": {"family": "f", "vendor": "v"},
        "compatriot": {"family": "other", "vendor": "v"},
    }
    grown = catalog(**family)
    for name, metadata in specs.items():
        grown = grown.with_model(ModelSpec(model=name, expected_cost_usd=0.004, metadata=metadata))
    mixture.set_catalog(grown)
    plain, kin, compatriot = log_odds(mixture.evaluate(features(0), tuple(specs), VALUE).score)
    assert kin - plain == pytest.approx(0.5 * lift["large"])
    assert compatriot - plain == pytest.approx(0.5 * lift["middle"])


def test_a_new_model_learns_as_one_that_was_there_from_the_start():
    """It has the full prior width: twenty bad answers are enough to know it for bad."""
    mixture = teach(make(), 300)
    mixture.set_catalog(catalog().with_model(ModelSpec(model="new", expected_cost_usd=0.004)))
    before = mixture.evaluate(features(0), ("new", "middle"), VALUE).score
    for i in range(20):
        mixture.learn(features(i), "new", 0.0, 0.004)
    after = mixture.evaluate(features(0), ("new", "middle"), VALUE).score
    assert before[0] - after[0] > 0.2
    assert before[1] - after[1] < 0.15


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0, 40.0])
def test_repricing_changes_the_cost_by_the_ratio_and_the_score_not_at_all(factor):
    mixture = teach(make())
    before = [mixture.evaluate(features(i), MODELS, VALUE) for i in range(5)]
    mixture.set_catalog(catalog((PRICES[0], PRICES[1] * factor, PRICES[2])))
    after = [mixture.evaluate(features(i), MODELS, VALUE) for i in range(5)]
    for old, new in zip(before, after, strict=True):
        assert new.score.tobytes() == old.score.tobytes()
        assert new.cost_usd == pytest.approx(old.cost_usd * [1.0, factor, 1.0], rel=1e-12)


@with_and_without_vowpal
def test_a_subset_gets_the_scores_and_costs_of_the_full_set(vowpal):
    mixture = teach(make(vowpal=vowpal))
    full = mixture.evaluate(features(0), MODELS, VALUE)
    for subset in (MODELS[:1], MODELS[1:], (MODELS[2], MODELS[0])):
        part = mixture.evaluate(features(0), subset, VALUE)
        at = [MODELS.index(m) for m in subset]
        assert part.score.tobytes() == full.score[at].tobytes()
        assert part.cost_usd.tobytes() == full.cost_usd[at].tobytes()


# -- learning --------------------------------------------------------------------------------------


def test_without_a_score_only_the_cost_is_learned():
    mixture = teach(make(), 50)
    before = mixture._score.mean.tobytes(), mixture._score.cov.tobytes()
    cost = mixture.evaluate(features(0), MODELS, VALUE).cost_usd
    for i in range(10):
        assert mixture.learn(features(i), "middle", None, 0.05) is None
    assert (mixture._score.mean.tobytes(), mixture._score.cov.tobytes()) == before
    assert mixture.evaluate(features(0), MODELS, VALUE).cost_usd[1] > 2 * cost[1]


def test_without_a_cost_only_the_score_is_learned():
    mixture = teach(make(), 50)
    before = mixture._cost.mean.tobytes(), mixture._cost.paid.tobytes()
    score = mixture.evaluate(features(0), MODELS, VALUE).score
    for i in range(20):
        assert 0.0 < mixture.learn(features(i), "middle", 0.0, None) < 1.0
    assert (mixture._cost.mean.tobytes(), mixture._cost.paid.tobytes()) == before
    assert mixture.evaluate(features(0), MODELS, VALUE).score[1] < score[1] - 0.1


def test_the_expected_score_is_the_one_before_the_outcome():
    mixture = teach(make(), 100)
    f = features(5)
    foreseen = mixture.evaluate(f, ("large",), VALUE).score[0]
    assert mixture.learn(f, "large", 0.0, 0.01) == pytest.approx(foreseen, abs=0.02)


def test_after_a_change_the_past_is_still_expected_while_the_present_is_believed():
    mixture = make()
    rng = np.random.default_rng(0)
    for i in range(800):
        mixture.learn(features(i), "large", float(rng.random() < 0.9), 0.01)
    for i in range(40):
        expected = mixture.learn(features(i), "large", float(rng.random() < 0.4), 0.01)
    believed = np.mean(
        [mixture.evaluate(features(i), ("large",), VALUE).score[0] for i in range(9)]
    )
    assert believed < 0.7
    assert expected > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_predicted_scores_and_costs_come_to_the_truth(seed):
    mixture = teach(make(), 3000, seed)
    probes = [features(i, seed=50 + seed) for i in range(200)]
    given = [mixture.evaluate(f, MODELS, VALUE) for f in probes]
    score = np.array([b.score for b in given])
    real = np.array([truth(f.dense) for f in probes])
    assert np.abs(score - real).mean() < 0.05
    assert np.abs(score.mean(axis=0) - real.mean(axis=0)).max() < 0.05
    # The mean of a lognormal: 1.5 e^(.4^2 / 2) times the price.
    cost = np.array([b.cost_usd for b in given]).mean(axis=0)
    assert cost == pytest.approx(np.array(PRICES) * 1.5 * math.exp(0.08), rel=0.1)


def test_a_silent_change_of_price_is_followed():
    mixture = teach(make(), 600)
    before = mixture.evaluate(features(0), ("middle",), VALUE).cost_usd[0]
    for i in range(800):
        mixture.learn(features(i, seed=4), "middle", None, 3 * PRICES[1] * 1.5)
    after = mixture.evaluate(features(0), ("middle",), VALUE).cost_usd[0]
    assert after / before == pytest.approx(3.0, rel=0.3)


def test_forgetting_a_model_widens_it_alone_and_keeps_what_is_expected():
    mixture = teach(make(), 500)
    score = mixture._score
    block = [slice(1 + D + s * (1 + D), 1 + D + (s + 1) * (1 + D)) for s in range(3)]
    before, mean = score.cov.copy(), score.mean.copy()
    mixture.forget("middle")
    assert score.mean.tobytes() == mean.tobytes()
    for e in range(len(before)):
        own, prior = score.cov[e][block[1], block[1]], score.var0[e, block[1]]
        assert own == pytest.approx(before[e][block[1], block[1]] + np.diag(prior))
        assert np.linalg.eigvalsh(score.cov[e]).min() > -1e-12
        others = np.r_[0 : block[1].start, block[1].stop : before.shape[1]]
        assert np.array_equal(
            score.cov[e][np.ix_(others, others)], before[e][np.ix_(others, others)]
        )
        assert not score.cov[e][np.ix_(others, np.arange(block[1].start, block[1].stop))].any()


def test_after_forgetting_a_model_is_judged_anew_at_once():
    kept, forgot = teach(make(), 1500), teach(make(), 1500)
    forgot.forget("large")
    for mixture in (kept, forgot):
        for i in range(15):
            mixture.learn(features(i, seed=8), "large", 0.0, PRICES[2])
    slow, fast = (m.evaluate(features(0), ("large",), VALUE).score[0] for m in (kept, forgot))
    assert fast < slow - 0.1


def test_the_expert_that_predicts_better_gains_weight():
    """Models that differ in what they are good at: the expert without deviations loses."""
    experts = ((0.0, 1.0), (2.0, 1.0))
    mixture = make(config=MixtureConfig(score=ScoreConfig(experts=experts)))
    rng = np.random.default_rng(0)
    for i in range(600):
        f, k = features(i), i % 3
        p = 1.0 / (1.0 + math.exp(-3.0 * (k - 1) * f.dense[0]))
        mixture.learn(f, MODELS[k], float(rng.random() < p), PRICES[k])
    assert mixture._score.log_weight[1] > mixture._score.log_weight[0] + 2.0


class Alternating:
    """A residual expert that is sure of something else at every second row."""

    def __init__(self, size):
        self.size = size

    def residuals(self, features, models):
        return np.full(len(models), self.size)

    def doubts(self, features, models):
        return np.zeros(len(models))

    def learn(self, features, model, score, weight, base):
        self.size = -self.size
        return self.size

    def dump(self):
        return b"alternating"

    def load(self, state):
        raise AssertionError(state)


@pytest.mark.parametrize("size", [0.0, 0.5, 1.5, 3.0])
def test_a_correction_that_is_noise_loses_its_voice_however_sure_it_is(size):
    mixture = Mixture(catalog(), dimension=D, seed=1, residual=Alternating(size))
    mixture._score.log_weight[-1] = 2.0
    teach(mixture, 800)
    assert mixture.residual_share() < 0.1


@with_and_without_vowpal
def test_evaluating_changes_nothing(vowpal):
    mixture = teach(make(vowpal=vowpal), 60)
    before = mixture.dump()
    for i in range(20):
        mixture.evaluate(features(i), MODELS[: 1 + i % 3], VALUE * (1 + i))
        mixture.evaluate(features(i), MODELS, VALUE, np.full(3, 0.1))
    assert mixture.dump() == before


def test_a_penalty_moves_the_preference_and_no_prediction():
    mixture = teach(make(), 300)
    free = mixture.evaluate(features(0), MODELS, 10.0)
    held = mixture.evaluate(features(0), MODELS, 10.0, np.array([0.0, 0.0, 5.0]))
    assert held.preference[2] < 1e-6 < free.preference[2]
    assert held.score.tobytes() == free.score.tobytes()
    assert held.cost_usd.tobytes() == free.cost_usd.tobytes()


def test_features_of_another_length_and_models_that_nobody_knows_are_refused():
    mixture = make()
    with pytest.raises(InputError, match="shape"):
        mixture.evaluate(Features(dense=np.zeros(D + 1)), MODELS, VALUE)
    with pytest.raises(InputError, match="shape"):
        mixture.learn(Features(dense=np.zeros(D - 1)), "small", 1.0, 0.1)
    with pytest.raises(CatalogError, match="nobody"):
        mixture.evaluate(features(0), ("nobody",), VALUE)


# -- state -----------------------------------------------------------------------------------------


@with_and_without_vowpal
def test_dump_load_continue_is_bit_equal(vowpal):
    first = teach(make(vowpal=vowpal), 80)
    second = make(vowpal=vowpal)
    second.load(first.dump())
    for row in rows(80, seed=2):
        assert first.learn(*row) == second.learn(*row)
        assert beliefs(first, n=1) == beliefs(second, n=1)
    assert first.dump() == second.dump()


def test_a_state_brings_its_catalog():
    first = make()
    first.set_catalog(catalog().with_model(ModelSpec(model="new", expected_cost_usd=0.002)))
    teach(first, 40)
    second = make()
    second.load(first.dump())
    assert beliefs(second, (*MODELS, "new")) == beliefs(first, (*MODELS, "new"))


def test_loading_copies_the_numbers():
    first = teach(make(), 40)
    state = first.dump()
    second = make()
    second.load(state)
    teach(second, 40, seed=5)
    assert first.dump() == state


def changed(state, **values):
    """The state with some of its values replaced; a value of None leaves the entry out."""
    whole = {**unpack("mixture/1", state), **values}
    return pack("mixture/1", {name: value for name, value in whole.items() if value is not None})


def poisoned(state, name, number):
    array = unpack("mixture/1", state)[name].copy()
    array.flat[-1] = number
    return changed(state, **{name: array})


OTHER = MixtureConfig(draws=7)
DAMAGE = {
    "empty": lambda _: b"",
    "nil": lambda _: msgspec.msgpack.encode(None),
    "a number": lambda _: msgspec.msgpack.encode(7),
    "a list": lambda _: msgspec.msgpack.encode([1, 2, 3]),
    "noise": lambda _: bytes(range(256)),
    "deep nesting": lambda _: b"\x91" * 100_000 + b"\xc0",
    "one byte short": lambda s: s[:-1],
    "half": lambda s: s[: len(s) // 2],
    "one byte long": lambda s: s + b"\0",
    "a drift monitor's": lambda _: DriftMonitor().dump(),
    "another kind": lambda s: pack("mixture/2", unpack("mixture/1", s)),
    "other settings": lambda _: make(config=OTHER, vowpal=True).dump(),
    "another seed": lambda s: changed(s, seed=2),
    "another dimension": lambda s: changed(s, dimension=D + 1),
    "without residual": lambda _: teach(make(), 10).dump(),
    "residual truncated": lambda s: changed(s, residual=unpack("mixture/1", s)["residual"][:-9]),
    "residual no bytes": lambda s: changed(s, residual=5),
    "residual missing": lambda s: changed(s, residual=None),
    "NaN in the mean": lambda s: poisoned(s, "score_mean", math.nan),
    "infinity in the covariance": lambda s: poisoned(s, "score_cov", math.inf),
    "NaN in the costs": lambda s: poisoned(s, "cost_paid", math.nan),
    "NaN in the features": lambda s: poisoned(s, "square", math.nan),
    "NaN count": lambda s: changed(s, count=math.nan),
    "text count": lambda s: changed(s, count="many"),
    "count missing": lambda s: changed(s, count=None),
    "NaN reference": lambda s: changed(s, score_reference=math.nan),
    "reference missing": lambda s: changed(s, score_reference=None),
    "mean missing": lambda s: changed(s, score_mean=None),
    "mean of another shape": lambda s: changed(s, score_mean=np.zeros((2, 3))),
    "mean no array": lambda s: changed(s, score_mean=[1.0, 2.0]),
    "covariance of fewer experts": lambda s: changed(
        s, score_cov=unpack("mixture/1", s)["score_cov"][1:]
    ),
    "costs of another shape": lambda s: changed(s, cost_cov=np.zeros((1, 1))),
    "array shorter than its shape": lambda s: changed(
        s, cost_paid={"shape": [3], "f8": b"\0" * 16}
    ),
    "catalog of another length": lambda s: changed(
        s, catalog=unpack("mixture/1", s)["catalog"][:-1]
    ),
    "catalog no list": lambda s: changed(s, catalog=5),
    "catalog without prices": lambda s: changed(s, catalog=[{"model": "a"}] * 3),
}


@cache
def good_state():
    return teach(make(vowpal=True), 60, seed=3).dump()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_that_does_not_fit_is_refused_and_nothing_has_changed(damage):
    mixture = teach(make(vowpal=True), 40)
    wrong = DAMAGE[damage](good_state())
    before, believed = mixture.dump(), beliefs(mixture)
    with pytest.raises(SnapshotError):
        mixture.load(wrong)
    assert mixture.dump() == before
    assert beliefs(mixture) == believed


def test_the_state_that_the_table_damages_is_sound_itself():
    mixture = make(vowpal=True)
    mixture.load(changed(good_state()))
    assert mixture.dump() == good_state()


def test_a_model_named_twice_is_refused_before_the_kernels_see_it():
    with pytest.raises(InputError, match="named twice"):
        make().evaluate(features(0), (*MODELS, MODELS[0]), 1.0)
