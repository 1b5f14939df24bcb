"""The probe: every policy passes it, untrained and trained; no unfit answer does."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from support.published import interaction, snapshot, specs, taken, trained
from support.streams import DIMENSION, catalog

from bandit_router.bootstrap import POLICIES, make_policy
from bandit_router.errors import DecisionError, SnapshotError
from bandit_router.models import Catalog
from bandit_router.policy.baselines import Uniform
from bandit_router.snapshot import probe

OURS = sorted(set(POLICIES) - {"paretobandit"})


@pytest.mark.parametrize("name", [*OURS, "fixed:b"])
def test_every_policy_passes_it_untrained_and_trained(name):
    policy = make_policy(name, catalog(), dimension=DIMENSION)
    probe(policy, catalog(), DIMENSION, 0.05)
    for number in range(60):
        policy.learn(interaction(number))
    probe(policy, catalog(), DIMENSION, 0.05)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("value", [1e-6, 1.0, 1e6])
def test_any_catalog_and_any_quality_value_pass_it(count, value):
    models = Catalog(specs(count))
    probe(make_policy("bandit", models, dimension=16), models, 16, value)


def test_it_leaves_no_trace():
    loop = trained(40)
    before = taken(loop).data
    probe(loop.learner.policy, loop.learner.catalog, DIMENSION, 0.05)
    assert taken(loop).data == before
    assert taken(loop).data == snapshot(40).data


class Unfit(Uniform):
    """Answers well ``well`` times, then with ``changes``."""

    def __init__(self, well: int, **changes) -> None:
        super().__init__(catalog())
        self._well, self._changes = well, changes

    def evaluate(self, features, eligible, quality_value_usd):
        answer = super().evaluate(features, eligible, quality_value_usd)
        self._well -= 1
        if self._well >= 0:
            return answer
        changed = {name: change(getattr(answer, name)) for name, change in self._changes.items()}
        return msgspec.structs.replace(answer, **changed)


def one(value):
    def change(array):
        array = array.copy()
        array[0] = value
        return array

    return change


def moved(array):
    array = array.copy()
    array[0], array[-1] = array[0] + array[-1], 0.0
    return array


@pytest.mark.parametrize("well", [0, 1, 31])
@pytest.mark.parametrize(
    "changes",
    [
        {"pmf": one(np.nan)},
        {"pmf": one(np.inf)},
        {"pmf": one(-0.1)},
        {"pmf": lambda p: p * 1.001},
        {"pmf": lambda p: p[:-1]},
        {"pmf": lambda p: np.append(p, 0.0)},
        {"score": one(np.nan)},
        {"score": one(-np.inf)},
        {"cost_usd": one(np.inf)},
        {"cost_usd": one(-1e-9)},
        {"epsilon": lambda _: np.nan},
        {"epsilon": lambda _: 1.5},
    ],
)
def test_an_unfit_answer_is_refused_whenever_it_comes(changes, well):
    with pytest.raises(SnapshotError, match=f"probe {well}:") as caught:
        probe(Unfit(well, **changes), catalog(), DIMENSION, 0.05)
    assert caught.value.reason == "bad_pmf"


def test_a_probability_below_the_stated_floor_is_refused():
    with pytest.raises(SnapshotError, match="below epsilon / K"):
        probe(Unfit(0, pmf=moved), catalog(), DIMENSION, 0.05)


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), MemoryError(), KeyError("a"), OSError(5, "x")]
)
def test_a_policy_that_fails_is_refused_whatever_it_raises(error):
    def fail(_):
        raise error

    with pytest.raises(SnapshotError, match=type(error).__name__) as caught:
        probe(Unfit(5, pmf=fail), catalog(), DIMENSION, 0.05)
    assert caught.value.reason == "unusable"


@pytest.mark.parametrize("error", [DecisionError("x"), ZeroDivisionError(), FloatingPointError()])
def test_a_policy_that_has_no_pmf_to_give_has_a_bad_one(error):
    def fail(_):
        raise error

    with pytest.raises(SnapshotError) as caught:
        probe(Unfit(5, pmf=fail), catalog(), DIMENSION, 0.05)
    assert caught.value.reason == "bad_pmf"
