"""The snapshot container: what went in comes out, and nothing else ever does."""

from __future__ import annotations

import hashlib
import math
import random
import struct

import msgspec
import pytest
from support.streams import catalog

from bandit_router.errors import ConfigError, SnapshotError
from bandit_router.joiner import JoinRules
from bandit_router.models import ModelSpec
from bandit_router.reward import Metric
from bandit_router.snapshot import Manifest, Recipe, Snapshot, Snapshots, pack, unpack
from bandit_router.snapshot.container import MAGIC

KEY = b"a key of enough length"


def recipe(**fields) -> Recipe:
    defaults = {
        "app": "default",
        "policy": "linucb",
        "dimension": 4,
        "featurizer_id": "test",
        "catalog": tuple(catalog()),
        "quality_value_usd": 0.05,
    }
    return Recipe(**(defaults | fields))


def snapshot(**fields) -> Snapshot:
    defaults = {
        "learn_seq": 500,
        "created_ts": 12.5,
        "parent": "000000000000-0123456789ab",
        "offsets": {"log": 1500},
        "recipe": recipe(),
        "catalog": tuple(catalog()),
        "learner": bytes(range(256)),
        "joiner": b"joiner" * 40,
    }
    return pack(**(defaults | fields))


def repacked(found: Snapshot, **changes) -> bytes:
    """The container with another manifest, as a forger without the key would write it."""
    body = msgspec.json.encode(msgspec.structs.replace(found.manifest, **changes))
    return with_body(found, body)


def with_body(found: Snapshot, body: bytes) -> bytes:
    payload = found.learner + found.joiner
    return MAGIC + struct.pack(">I", len(body)) + body + bytes(32) + payload


def test_what_went_in_comes_out():
    packed = snapshot()
    found = unpack(packed.data)
    assert (found.id, found.manifest) == (packed.id, packed.manifest)
    assert (found.learner, found.joiner) == (bytes(range(256)), b"joiner" * 40)


def test_equal_states_give_equal_bytes_whatever_the_order_of_the_settings():
    options = {"epsilon": 0.02, "draws": 64}
    metrics = {"score": Metric(), "stars": Metric(low=1, high=5)}
    one = recipe(
        options=options, quality_value_usd=1, rules=JoinRules(window_s=60, metrics=metrics)
    )
    two = recipe(
        options=dict(reversed(options.items())),
        quality_value_usd=1.0,
        rules=JoinRules(window_s=60.0, metrics=dict(reversed(metrics.items()))),
        catalog=tuple(
            ModelSpec(model=s.model, expected_cost_usd=s.expected_cost_usd) for s in catalog()
        ),
    )
    assert snapshot(recipe=one).data == snapshot(recipe=two).data


def test_a_recipe_with_whole_numbers_is_the_same_after_the_container():
    specs = (ModelSpec(model="a", usd_per_1m_input=1, usd_per_1m_output=2),)
    packed = snapshot(recipe=recipe(catalog=specs, target_cost_usd=1))
    found = unpack(packed.data)
    assert snapshot(recipe=found.manifest.recipe).data == packed.data


def test_the_id_names_the_row_and_the_content():
    packed = snapshot()
    assert packed.id.startswith("000000000500-")
    assert packed.id != snapshot(learner=b"other").id
    assert packed.id != snapshot(parent="").id


@pytest.mark.parametrize("key", [None, KEY])
def test_every_truncation_is_refused(key):
    data = snapshot(key=key).data
    for length in range(0, len(data), 7):
        with pytest.raises(SnapshotError):
            unpack(data[:length], key=key)


@pytest.mark.parametrize("key", [None, KEY])
def test_bytes_at_the_end_are_refused(key):
    with pytest.raises(SnapshotError, match="truncated or padded"):
        unpack(snapshot(key=key).data + b"\0", key=key)


def test_every_flipped_bit_of_a_signed_snapshot_is_refused():
    data = snapshot(key=KEY).data
    rng = random.Random(0)
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(SnapshotError):
            unpack(bytes(flipped), key=KEY)


def test_every_flipped_bit_of_the_payload_is_refused_without_a_key_too():
    packed = snapshot()
    start = len(packed.data) - len(packed.learner) - len(packed.joiner)
    for place in range(start, len(packed.data)):
        flipped = bytearray(packed.data)
        flipped[place] ^= 1
        with pytest.raises(SnapshotError, match="sha256"):
            unpack(bytes(flipped))


def test_a_configured_key_refuses_what_is_unsigned_or_signed_otherwise():
    with pytest.raises(SnapshotError, match="not signed"):
        unpack(snapshot().data, key=KEY)
    with pytest.raises(SnapshotError, match="HMAC"):
        unpack(snapshot(key=b"another key").data, key=KEY)
    assert unpack(snapshot(key=KEY).data, key=KEY).id == snapshot().id


def test_a_forged_manifest_is_refused_by_its_hmac_before_it_is_decoded():
    forged = with_body(snapshot(key=KEY), b"this is no manifest at all")
    forged = forged.replace(bytes(32), b"\1" * 32, 1)
    with pytest.raises(SnapshotError, match="HMAC"):
        unpack(forged, key=KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"learn_seq": -1}, "out of range"),
        ({"offsets": {}}, "offsets of"),
        ({"offsets": {"decisions": 5}}, "offsets of"),
        ({"offsets": {"log": 1} | {c * 2: 1 for c in "abcdefghijklmnop"}}, "offsets of"),
        ({"offsets": {"log": -2}}, "out of range"),
        ({"offsets": {"log": 1, "decisions": 2**63}}, "out of range"),
        ({"offsets": {"log": 1, "../x": 1}}, "out of range"),
        ({"sizes": {"learner": 496}}, "parts"),
        ({"sizes": {"learner": -1, "joiner": 497}}, "parts"),
        ({"sizes": {"learner": 1, "joiner": 1}}, "truncated or padded"),
        ({"sha256": hashlib.sha256(b"x").hexdigest()}, "sha256"),
        ({"recipe": recipe(options={"Bad Name": 1})}, "no name"),
        ({"recipe": recipe(options={"--final_regressor": "/etc/passwd"})}, "no name"),
        ({"recipe": recipe(options={"x": "y" * 257})}, "257"),
        ({"recipe": recipe(options={f"x{i}": i for i in range(65)})}, "65"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused(changes, message):
    with pytest.raises(SnapshotError, match=message):
        unpack(repacked(snapshot(), **changes))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"schema":1}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(body):
    with pytest.raises(SnapshotError, match="manifest"):
        unpack(with_body(snapshot(), body))


def test_an_unknown_field_in_the_manifest_is_refused():
    body = msgspec.json.encode(snapshot().manifest)
    with pytest.raises(SnapshotError, match="surprise"):
        unpack(with_body(snapshot(), body[:-1] + b',"surprise":1}'))


def test_a_structured_option_is_refused():
    body = msgspec.json.encode(snapshot(recipe=recipe(options={"x": 1})).manifest)
    with pytest.raises(SnapshotError, match="damaged"):
        unpack(with_body(snapshot(), body.replace(b'"x":1', b'"x":[1]')))


def test_only_allowed_policies_and_options_pass():
    found = snapshot(recipe=recipe(options={"epsilon": 0.1})).data
    assert unpack(found, allowed={"linucb": {"epsilon"}}).manifest.learn_seq == 500
    with pytest.raises(SnapshotError, match="epsilon"):
        unpack(found, allowed={"linucb": set()})
    with pytest.raises(SnapshotError, match="linucb"):
        unpack(found, allowed={"bandit": {"epsilon"}})


def test_a_snapshot_larger_than_allowed_is_refused_unseen():
    with pytest.raises(SnapshotError, match="more than the 100 allowed"):
        unpack(snapshot().data, max_bytes=100)


def test_a_manifest_that_claims_to_be_huge_is_refused():
    with pytest.raises(SnapshotError, match="4294967295"):
        unpack(MAGIC + b"\xff" * 500)


def test_an_option_that_is_not_allowed_is_not_even_written():
    with pytest.raises(SnapshotError, match="no name"):
        snapshot(recipe=recipe(options={"../x": 1}))
    with pytest.raises(SnapshotError, match="nan"):
        snapshot(recipe=recipe(options={"x": math.nan}))


def test_differences_of_recipes_are_named():
    assert recipe().differences(recipe(seed=1, dimension=5)) == ["seed", "dimension"]
    assert recipe().differences(recipe()) == []


def test_the_manifest_has_no_wall_clock():
    names = set(Manifest.__struct_fields__)
    assert {"created_ts", "learn_seq", "offsets", "parent", "sha256"} <= names
    assert snapshot().data == snapshot().data


def test_a_schedule_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Snapshots(None, None, None, recipe(), every=0)
