"""The one class that talks to Vowpal Wabbit: what it refuses, and that its state is exact."""

from __future__ import annotations

import hashlib
import math
import struct

import pytest

from bandit_router.adapters import vowpal
from bandit_router.adapters.vowpal import VowpalWorkspace, token_index
from bandit_router.errors import ConfigError, DecisionError, InputError, SnapshotError

SCALAR = ("--noconstant", "--loss_function", "logistic", "--ftrl", "--quadratic", "ab")
ACTIONS = ("--cb_explore_adf", "--epsilon", "0.2", "--cb_type", "mtr", "--interactions", "as")


def example(i):
    return {"a": [(i % 7, 1.0), (100 + i % 3, 0.5)], "b": [(i % 5, -1.5)]}


def taught(n=50, arguments=SCALAR):
    workspace = VowpalWorkspace(arguments)
    for i in range(n):
        workspace.learn(example(i), 1.0 if i % 7 < 3 else -1.0, base=0.2)
    return workspace


def shared(i):
    return {"s": [(0, 1.0), (1, (i % 5) / 5)]}


CHOICES = [{"a": [(1000 + k, 1.0)]} for k in range(3)]


def taught_actions(n=50):
    workspace = VowpalWorkspace(ACTIONS)
    for i in range(n):
        cost = -1.0 if i % 3 == 1 else 0.0
        workspace.learn_actions(shared(i), CHOICES, i % 3, cost, 1 / 3)
    return workspace


def test_it_learns_the_residual_over_the_base():
    workspace = VowpalWorkspace(SCALAR)
    for _ in range(200):
        workspace.learn({"a": [(1, 1.0)]}, 1.0, base=5.0)
        workspace.learn({"a": [(2, 1.0)]}, 1.0, base=-5.0)
    assert workspace.predict({"a": [(1, 1.0)]}) < workspace.predict({"a": [(2, 1.0)]})


def test_a_prediction_carries_no_label_of_an_earlier_example():
    workspace = VowpalWorkspace(SCALAR)
    workspace.learn({"a": [(1, 1.0)]}, 1.0, base=7.0)
    assert workspace.predict({"a": [(99, 1.0)]}) == 0.0


def test_it_learns_which_action_is_cheap():
    pmf = taught_actions().predict_actions(shared(2), CHOICES)
    assert max(pmf) == pmf[1]
    assert sum(pmf) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("make", [taught, taught_actions])
def test_predicting_leaves_no_trace(make):
    workspace = make()
    before = workspace.save()
    for i in range(20):
        if make is taught:
            workspace.predict(example(i))
        else:
            workspace.predict_actions(shared(i), CHOICES[: 1 + i % 3])
    assert workspace.save() == before


def test_going_on_after_loading_is_bit_equal():
    workspace = taught(30)
    other = VowpalWorkspace(SCALAR)
    other.load(workspace.save())
    for i in range(30, 80):
        assert other.predict(example(i)) == workspace.predict(example(i))
        for one in (workspace, other):
            one.learn(example(i), 1.0 if i % 2 else -1.0, base=-0.1)
    assert other.save() == workspace.save()


def test_going_on_after_loading_actions_is_bit_equal():
    workspace = taught_actions(30)
    other = VowpalWorkspace(ACTIONS)
    other.load(workspace.save())
    for i in range(30, 60):
        for one in (workspace, other):
            one.learn_actions(shared(i), CHOICES, i % 3, -0.5, 0.4)
    assert other.save() == workspace.save()


BAD_NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e30]


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_numbers_that_would_do_lasting_damage_are_refused(value):
    workspace, before = taught(5), taught(5).save()
    with pytest.raises(InputError):
        workspace.predict({"a": [(1, value)]})
    with pytest.raises(InputError):
        workspace.learn({"a": [(1, 1.0)], "b": [(2, 1.0), (3, value)]}, 1.0)
    for field in ("label", "weight", "base"):
        numbers = {"label": 1.0, "weight": 1.0, "base": 0.0, field: value}
        with pytest.raises(InputError, match=field):
            workspace.learn(example(1), **numbers)
    assert workspace.save() == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"probability": 0.0}, "propensity"),
        ({"probability": 1.1}, "propensity"),
        ({"probability": float("nan")}, "probability"),
        ({"cost": float("inf")}, "cost"),
        ({"chosen": 3}, "chosen"),
        ({"chosen": -1}, "chosen"),
        ({"actions": [], "chosen": 0}, "chosen"),
    ],
)
def test_a_bad_outcome_is_refused_and_changes_nothing(wrong, words):
    workspace, before = taught_actions(5), taught_actions(5).save()
    arguments = {"actions": CHOICES, "chosen": 0, "cost": 0.0, "probability": 0.5, **wrong}
    with pytest.raises(InputError, match=words):
        workspace.learn_actions(shared(0), **arguments)
    assert workspace.save() == before


def test_a_decision_needs_an_action():
    with pytest.raises(InputError, match="at least one action"):
        taught_actions(5).predict_actions(shared(0), [])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--final_regressor", "x"),
        ("-f", "x"),
        ("--audit",),
        ("--loss_function", "logistic --final_regressor x"),
        ("--loss_function", "logi\nstic"),
        ("--quadratic", "a/../b"),
        ("--learning_rate", ""),
        ("--initial_regressor", "x"),
    ],
)
def test_only_options_on_the_list_reach_vw(arguments):
    with pytest.raises(ConfigError):
        VowpalWorkspace(arguments)


def test_a_combination_that_vw_refuses_is_a_configuration_error():
    with pytest.raises(ConfigError, match="refused"):
        VowpalWorkspace(("--loss_function", "nonsense"))


@pytest.mark.parametrize("cut", [0, 4, 20, 45, 100, -1])
def test_a_truncated_state_is_refused(cut):
    state = taught().save()
    with pytest.raises(SnapshotError):
        VowpalWorkspace(SCALAR).load(state[:cut])


def test_a_damaged_state_is_refused():
    state = bytearray(taught().save())
    for place in range(0, len(state), 7):
        damaged = bytearray(state)
        damaged[place] ^= 0xFF
        with pytest.raises(SnapshotError):
            VowpalWorkspace(SCALAR).load(bytes(damaged))


def test_a_state_of_other_options_is_refused():
    with pytest.raises(SnapshotError, match="other options"):
        VowpalWorkspace(SCALAR).load(taught(5, (*SCALAR[:-1], "aa")).save())


def test_a_model_file_that_carries_an_option_is_refused_although_its_digest_is_right():
    state = taught(5).save()
    model = bytearray(state[45:])
    at = model.index(b" --ftrl")
    (length,) = struct.unpack_from("<I", model, at - 4)
    extra = b" --final_regressor /tmp/x"
    model[at - 4 : at] = struct.pack("<I", length + len(extra))
    model[at:at] = extra
    with pytest.raises(SnapshotError, match="other options"):
        VowpalWorkspace(SCALAR).load(enveloped(model))


def enveloped(model):
    """What ``save`` would give for these model bytes."""
    digest = hashlib.sha256(model).digest()
    return b"BRVW1" + struct.pack("<Q", len(model)) + digest + bytes(model)


WEIGHT = struct.Struct("<Ifff")


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda model: model[:-1], "truncated"),
        (lambda model: model[:-8], "truncated"),
        (lambda model: model[:150], "truncated"),
        (lambda model: model + b"\0", "truncated"),
        (lambda model: model + WEIGHT.pack(1 << 18, 0.0, 0.0, 0.0), "damaged"),
        (lambda model: model + WEIGHT.pack(0, 0.0, 0.0, 0.0), "damaged"),
        (lambda model: model + WEIGHT.pack((1 << 18) - 1, math.nan, 0.0, 0.0), "damaged"),
        (lambda model: model + WEIGHT.pack((1 << 18) - 1, 0.0, math.inf, 0.0), "damaged"),
    ],
)
def test_weights_that_vw_would_not_write_are_refused_although_their_digest_is_right(
    end, reason, monkeypatch
):
    forged, workspace = enveloped(end(taught(5).save()[45:])), VowpalWorkspace(SCALAR)
    monkeypatch.setattr(vowpal, "Workspace", None)  # to call it would be a TypeError
    with pytest.raises(SnapshotError) as caught:
        workspace.load(forged)
    assert caught.value.reason == reason


def test_a_last_weight_of_the_highest_index_is_taken():
    model = taught(5).save()[45:] + WEIGHT.pack((1 << 18) - 1, 0.5, 0.0, 0.0)
    workspace = VowpalWorkspace(SCALAR)
    workspace.load(enveloped(model))
    assert workspace.weight((1 << 18) - 1) == 0.5


@pytest.mark.parametrize(
    ("place", "content"),
    [("id", b"\3\0\0\0ab\0"), ("low", struct.pack("<f", math.nan))],
    ids=["a name", "a label limit that is none"],
)
def test_a_header_that_this_package_does_not_write_is_refused(place, content):
    model = bytearray(taught(5).save()[45:])
    after_version = 4 + struct.unpack_from("<I", model, 0)[0]
    if place == "id":
        model[after_version : after_version + 5] = content
    else:
        model[after_version + 6 : after_version + 10] = content
    with pytest.raises(SnapshotError, match="a kind this package writes"):
        VowpalWorkspace(SCALAR).load(enveloped(model))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--coin",), (), ("--adaptive",), ("--normalized",), ("--adaptive", "--normalized"),
        ("--adaptive", "--invariant"), ("--ftrl", "--noconstant"), ("--bit_precision", "20"),
    ],
)  # fmt: skip
def test_the_weights_of_every_kind_of_learner_are_understood(arguments):
    workspace, other = taught(40, arguments), VowpalWorkspace(arguments)
    other.load(workspace.save())
    assert other.save() == workspace.save()


def test_a_native_error_does_not_spoil_what_follows():
    workspace, twin = taught_actions(20), taught_actions(20)
    with pytest.raises(DecisionError, match="Vowpal Wabbit failed"):
        workspace._guard(lambda: (_ for _ in ()).throw(RuntimeError("boom")))
    for one in (workspace, twin):
        one.learn_actions(shared(1), CHOICES, 1, -1.0, 0.5)
    assert workspace.save() == twin.save()


def test_no_text_reaches_vw_only_its_digest():
    indices = {token_index(t) for t in ("a", "b", "a\n1 1 |b", "\ud800", "")}
    assert len(indices) == 5
    assert all(0 <= i < 2**32 for i in indices)


def test_many_calls_do_not_grow_memory():
    from pathlib import Path

    def resident_kib():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    workspace, actions = taught(100), taught_actions(100)
    before = resident_kib()
    for i in range(3000):
        workspace.learn(example(i), 1.0)
        workspace.predict(example(i))
        actions.learn_actions(shared(i), CHOICES, i % 3, 0.1, 0.5)
        actions.predict_actions(shared(i), CHOICES)
    assert resident_kib() - before < 2048
