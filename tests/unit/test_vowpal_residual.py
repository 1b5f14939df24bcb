"""Vowpal Wabbit as the residual expert: linear, inert to text, exact in its state, and of use."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from bandit_router.adapters.vowpal_residual import VowpalResidual, VowpalResidualConfig
from bandit_router.errors import SnapshotError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.bandit import BanditPolicy
from bandit_router.policy.base import sample
from bandit_router.quality.mixture import Mixture
from bandit_router.types import Features, Interaction

MODELS = ("a", "b", "c")


def features(columns, ngrams=(), dense=()):
    return Features(dense=np.array(dense, np.float64), ngrams=tuple(ngrams), columns=columns)


def query(i):
    rng = np.random.default_rng([41, i])
    return features(
        {"tenant": f"t{i % 5}", "task": f"k{i % 3}"},
        sorted({int(g) for g in rng.integers(0, 2**18, 8)}),
    )


def taught(n=60, config=None):
    expert = VowpalResidual(config)
    for i in range(n):
        expert.learn(query(i), MODELS[i % 3], float(i % 5 < 2), 1.0, 0.2)
    return expert


def sigmoid(value):
    return 1.0 / (1.0 + math.exp(-value))


# -- a correction in log-odds ---------------------------------------------------------------------


def test_it_starts_at_no_correction():
    assert VowpalResidual().residuals(query(0), MODELS).tolist() == [0.0, 0.0, 0.0]


def test_shared_and_own_parts_add_up_to_the_prediction_of_one_full_example():
    expert = taught()
    for i in range(20):
        q = query(100 + i)
        whole = [
            expert._workspace.predict({**expert._shared(q), **expert._own(q, m)}) for m in MODELS
        ]
        assert expert.residuals(q, MODELS) == pytest.approx(whole, abs=1e-6)
    assert np.ptp(expert.residuals(query(0), MODELS)) > 0.01


def test_each_model_is_corrected_as_if_it_were_asked_for_alone():
    expert = taught()
    every = expert.residuals(query(1), MODELS)
    assert [expert.residuals(query(1), (m,))[0] for m in MODELS] == every.tolist()


def test_without_context_there_is_nothing_to_correct():
    expert, nothing = taught(), features({})
    before = expert.dump()
    expert.learn(nothing, "a", 1.0, 1.0, 0.0)
    assert expert.residuals(nothing, MODELS).tolist() == [0.0, 0.0, 0.0]
    assert expert.dump() == before


def test_learning_tells_the_correction_of_before():
    expert = taught()
    for i in range(100, 130):
        before = expert.residuals(query(i), ("a",))[0]
        given = expert.learn(query(i), "a", float(i % 2), 1.0, 0.4)
        assert given == pytest.approx(before, abs=1e-6)
        assert expert.residuals(query(i), ("a",))[0] != pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("base", [-2.0, 0.0, 0.7, 3.0])
def test_where_the_base_is_right_nothing_moves(base):
    expert = VowpalResidual()
    for i in range(200):
        expert.learn(query(i), MODELS[i % 3], sigmoid(base), 1.0, base)
    seen = np.array([expert.residuals(query(i), MODELS) for i in range(20)])
    assert np.abs(seen).max() < 1e-4


@pytest.mark.parametrize(("score", "base"), [(0.8, 0.5), (0.3, 0.0), (0.6, -1.5)])
def test_in_a_constant_context_base_and_correction_come_to_the_log_odds(score, base):
    expert, q = VowpalResidual(), features({"task": "one"})
    for _ in range(3000):
        expert.learn(q, "a", score, 1.0, base)
    wanted = math.log(score / (1.0 - score))
    assert base + expert.residuals(q, ("a",))[0] == pytest.approx(wanted, abs=0.05)


def test_a_row_of_weight_zero_teaches_nothing():
    expert = taught()
    before = expert.residuals(query(0), MODELS).tolist()
    expert.learn(query(0), "a", 1.0, 0.0, 0.0)
    assert expert.residuals(query(0), MODELS).tolist() == before


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_correction_keeps_to_its_limit(score):
    expert, q = VowpalResidual(VowpalResidualConfig(limit=0.5)), features({"task": "one"})
    for _ in range(300):
        expert.learn(q, "a", score, 1.0, 0.0)
    assert expert.residuals(q, ("a",))[0] == (0.5 if score else -0.5)


def test_doubt_shrinks_with_what_a_pair_of_model_and_context_has_seen():
    expert, q = VowpalResidual(), features({"task": "one"})
    fresh = expert.doubts(q, MODELS)
    for _ in range(50):
        expert.learn(q, "b", 1.0, 1.0, 0.0)
    known = expert.doubts(q, MODELS)
    assert fresh[0] == fresh[1] == fresh[2] > 0.0
    assert (known[0], known[2]) == (fresh[0], fresh[2])
    assert known[1] < 0.5 * fresh[1]
    assert expert.doubts(features({}), MODELS).tolist() == [0.0, 0.0, 0.0]


# -- text is only an identity ---------------------------------------------------------------------

HOSTILE = (
    "",
    "line\n1 1 | injected:1e9",
    "|n a:1",
    "a:nan",
    "nul\0nul",
    "\ud800 lone \udfff",
    "x" * 10_240,
    "--final_regressor /tmp/x",
    "0:0:0",
    "shared |",
    "\x1f=\x1f",
    "名前",
)


def test_hostile_text_gives_the_numbers_that_plain_text_gives():
    """Renaming columns, values and models changes no bit: text is hashed, never parsed."""
    hostile, plain = VowpalResidual(), VowpalResidual()
    rng, n = np.random.default_rng(0), len(HOSTILE)
    for _ in range(300):
        value, model = (int(k) for k in rng.integers(n, size=2))
        score = float(rng.random() < 0.2 + 0.05 * model)
        nasty = features({HOSTILE[-1 - value]: HOSTILE[value]})
        tame = features({f"column {value}": f"value {value}"})
        assert (
            hostile.residuals(nasty, HOSTILE).tobytes()
            == plain.residuals(tame, [f"model {k}" for k in range(n)]).tobytes()
        )
        hostile.learn(nasty, HOSTILE[model], score, 1.0, 0.1)
        plain.learn(tame, f"model {model}", score, 1.0, 0.1)
    assert np.abs(hostile.residuals(nasty, HOSTILE)).max() > 0.01


def test_vowpal_wabbit_is_handed_single_letters_and_numbers_only(monkeypatch):
    from bandit_router.adapters.vowpal import VowpalWorkspace

    handed, asked = [], []
    learn, weight = VowpalWorkspace.learn, VowpalWorkspace.weight

    def spy_learn(self, namespaces, *numbers):
        handed.append((namespaces, numbers))
        return learn(self, namespaces, *numbers)

    def spy_weight(self, index):
        asked.append(index)
        return weight(self, index)

    monkeypatch.setattr(VowpalWorkspace, "learn", spy_learn)
    monkeypatch.setattr(VowpalWorkspace, "weight", spy_weight)
    expert = VowpalResidual()
    for text in HOSTILE:
        q = features({text: text, "task": text}, (3, 77))
        expert.learn(q, text, 1.0, 1.0, 0.0)
        assert np.isfinite(expert.residuals(q, HOSTILE)).all()
    assert len(handed) == len(HOSTILE)
    assert len(asked) > len(HOSTILE) * 2
    assert all(type(index) is int for index in asked)
    for namespaces, numbers in handed:
        assert all(type(number) is float for number in numbers)
        for letter, pairs in namespaces.items():
            assert letter in {"c", "n", "p"}
            assert all(type(i) is int and type(v) is float for i, v in pairs)


# -- state ----------------------------------------------------------------------------------------


def test_save_load_continue_is_bit_equal():
    first, second = taught(), VowpalResidual()
    second.load(first.dump())
    for i in range(60, 160):
        for expert in (first, second):
            expert.learn(query(i), MODELS[i % 3], float(i % 4 == 0), 0.7, -0.3)
        one, other = (e.residuals(query(i + 1), MODELS) for e in (first, second))
        assert one.tobytes() == other.tobytes()
        assert first.doubts(query(i), MODELS).tolist() == second.doubts(query(i), MODELS).tolist()
    assert first.dump() == second.dump()


def test_asking_leaves_no_trace_in_the_state():
    expert = taught()
    before = expert.dump()
    for i in range(50):
        expert.residuals(query(i), MODELS)
        expert.doubts(query(i), MODELS)
    assert expert.dump() == before


def damaged():
    state = taught(80).dump()
    model, *rest = msgspec.msgpack.decode(state)
    middle = len(model) // 2
    flipped = model[:middle] + bytes([model[middle] ^ 1]) + model[middle + 1 :]
    return {
        "empty": b"",
        "noise": bytes(range(256)),
        "truncated": state[:-1],
        "half": state[: len(state) // 2],
        "model truncated": msgspec.msgpack.encode([model[:-9], *rest]),
        "one bit of the model": msgspec.msgpack.encode([flipped, *rest]),
        "another table size": taught(5, VowpalResidualConfig(bits=16)).dump(),
    }


@pytest.mark.parametrize("damage", damaged())
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    expert = taught()
    before, believed = expert.dump(), expert.residuals(query(0), MODELS).tobytes()
    with pytest.raises(SnapshotError):
        expert.load(damaged()[damage])
    assert expert.dump() == before
    assert expert.residuals(query(0), MODELS).tobytes() == believed


# -- of use where context decides, silent where it does not ---------------------------------------


def play(n, chance, *, vowpal, seed=7):
    """A policy over equally dear models; ``chance(tenant, k)`` is model k's rate of success."""
    catalog = Catalog(ModelSpec(model=m, expected_cost_usd=0.001) for m in MODELS)
    mixture = Mixture(catalog, dimension=2, residual=VowpalResidual() if vowpal else None)
    policy, scores = BanditPolicy(mixture), []
    rng = np.random.default_rng(seed)
    for i in range(n):
        tenant = int(rng.integers(50))
        q = features({"tenant": f"tenant {tenant}"}, dense=rng.normal(size=2))
        evaluation = policy.evaluate(q, MODELS, 0.1)
        k, part = sample(evaluation, "salt", f"event {i}")
        scores.append(float(rng.random() < chance(tenant, k)))
        policy.learn(
            Interaction(
                event_id=f"event {i}",
                ts=float(i),
                closed_ts=float(i),
                features=q,
                eligible=MODELS,
                pmf=tuple(evaluation.pmf.tolist()),
                action=MODELS[k],
                propensity=float(evaluation.pmf[k]),
                slice=part,
                quality_value_usd=0.1,
                score=scores[-1],
                cost_usd=0.001,
            )
        )
    return mixture, float(np.mean(scores[n // 2 :]))


def test_tenants_with_different_best_models_are_told_apart():
    def chance(tenant, k):
        return 0.9 if k == tenant % 3 else 0.3

    mixture, with_vowpal = play(4000, chance, vowpal=True)
    _, without = play(4000, chance, vowpal=False)
    assert mixture.residual_share() > 0.5
    assert without < 0.6  # one model for all: 1/3 of .9 and 2/3 of .3 make .5
    assert with_vowpal > without + 0.15


def test_columns_that_say_nothing_lose_their_voice():
    mixture, with_vowpal = play(3000, lambda _, k: (0.4, 0.6, 0.8)[k], vowpal=True)
    assert mixture.residual_share() < 0.1
    assert with_vowpal > 0.7
