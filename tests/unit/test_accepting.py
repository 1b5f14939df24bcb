"""What a router demands of a snapshot: which options, and how large a state may be."""

from __future__ import annotations

import msgspec
import pytest
from support.published import interaction, recipe, snapshot, taken, trained

from bandit_router.bootstrap import POLICIES, policy_options
from bandit_router.errors import SnapshotError, UnknownPolicyError
from bandit_router.events import Change
from bandit_router.snapshot import pack
from bandit_router.streaming.accepting import (
    SIZE_RATIO,
    SIZE_SLACK_BYTES,
    Acceptance,
    Served,
)

VW_WEIGHT_BYTES = 16
VW_WEIGHTS = 1 << 18
PAIRS = 65_536
PAIR_BYTES = 9


def test_every_policys_options_are_those_that_it_takes():
    options = {name: policy_options(name) for name in POLICIES if name != "paretobandit"}
    assert options["linucb"] == {"alpha", "ridge", "epsilon"}
    assert options["thompson"] == {"draws"}
    assert options["uniform"] == options["vw-epsilon"] == policy_options("fixed:a") == frozenset()
    assert {"epsilon", "vowpal", "drift", "forgetting"} < options["bandit"]
    assert not {"catalog", "dimension", "seed", "self", "args"} & set().union(*options.values())
    with pytest.raises(UnknownPolicyError):
        policy_options("nonsense")


def served(state_bytes: int) -> Served:
    learner = trained(0, recipe(policy="uniform")).learner
    return Served(snapshot_id="", learn_seq=0, epoch=0, learner=learner, state_bytes=state_bytes)


def sized(size: int, **fields):
    """A container whose learner's state has this size."""
    of = snapshot(0, policy="uniform")
    return pack(
        learn_seq=0,
        created_ts=0.0,
        parent="",
        offsets={"log": 0},
        recipe=of.manifest.recipe,
        catalog=of.manifest.catalog,
        learner=bytes(size),
        joiner=b"",
        **fields,
    ).data


@pytest.mark.parametrize(
    ("old", "new", "passes"),
    [
        (64_096, 64_096 + VW_WEIGHT_BYTES * VW_WEIGHTS + PAIR_BYTES * PAIRS, True),
        (64_096, 100 * 64_096, False),
        (64_096, 64_096 + SIZE_SLACK_BYTES, True),
        (64_096, 64_097 + SIZE_SLACK_BYTES, False),
        (2_000_000, SIZE_RATIO * 2_000_000, True),
        (2_000_000, SIZE_RATIO * 2_000_000 + 1, False),
        (SIZE_RATIO * 2_000_000, 2_000_000, True),
        (SIZE_RATIO * 2_000_000, 1_999_999, False),
        (10, 0, True),
    ],
)
def test_a_state_may_fill_up_but_not_change_beyond_measure(old, new, passes):
    acceptance = Acceptance(recipe(policy="uniform"))
    if passes:
        assert len(acceptance.verified(sized(new), last=served(old)).learner) == new
    else:
        with pytest.raises(SnapshotError) as caught:
            acceptance.verified(sized(new), last=served(old))
        assert caught.value.reason == "size"
    assert acceptance.verified(sized(new)).learner == bytes(new)  # the first may have any size


def test_a_state_grows_by_no_more_than_its_weights_and_counts():
    grown, empty = trained(300).learner.dump(), trained(0).learner.dump()
    weights = 300 * 8 + 300 * 2  # at most: eight n-grams, a column and a pair a row
    assert len(empty) < len(grown) < len(empty) + VW_WEIGHT_BYTES * weights + PAIR_BYTES * 300


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"paretobandit"}))
def test_every_policys_snapshot_is_served_as_it_was_learned(name):
    of = recipe(policy=name)
    loop = trained(0, of)
    for number in range(40):
        loop.learner.apply(interaction(number))
    container = taken(loop, of).data
    acceptance = Acceptance(of)
    found = acceptance.restored(acceptance.verified(container), epoch=3)
    assert found.learner.dump() == loop.learner.dump()
    assert (found.learn_seq, found.epoch) == (40, 3)


def test_a_catalog_that_changed_since_the_recipe_is_served_as_it_is_now():
    of = recipe()
    loop = trained(20, of)
    added = {"model": "d", "expected_cost_usd": 0.5}
    loop.learner.apply(Change(ts=30.0, app="default", kind="model_added", data=added))
    loop.learner.apply(Change(ts=31.0, app="default", kind="model_removed", data={"model": "a"}))
    acceptance = Acceptance(msgspec.structs.replace(of, catalog=of.catalog[:1]))
    found = acceptance.restored(acceptance.verified(taken(loop, of).data), epoch=1)
    assert found.learner.catalog.names == ("b", "c", "d")
