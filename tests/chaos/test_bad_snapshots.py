"""Whatever comes in place of a snapshot, VW sees no byte of it and the last good one serves on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
from support.published import (
    APP,
    KEY,
    ListReader,
    announced,
    recipe,
    records,
    snapshot,
    specs,
    taken,
    trained,
)
from support.streams import DIMENSION, MODELS, features

from bandit_router.adapters import vowpal
from bandit_router.adapters.kafka.assembly import Assembly, Refused
from bandit_router.errors import StorageError, TransportError
from bandit_router.learner import LearnerState
from bandit_router.snapshot import Snapshot, pack
from bandit_router.snapshot.container import MAGIC
from bandit_router.streaming import accepting
from bandit_router.streaming.following import Follower, Served

DEADLINE_S = 20.0
TRUNCATED = int(os.environ.get("TRUNCATED_SNAPSHOTS_FOR_TESTS", "250"))
FLIPPED = int(os.environ.get("FLIPPED_SNAPSHOTS_FOR_TESTS", "300"))


@pytest.fixture(scope="module")
def good() -> Snapshot:
    return snapshot(30, key=KEY)


@pytest.fixture(scope="module")
def better() -> Snapshot:
    return snapshot(40, key=KEY)


@pytest.fixture
def reader() -> ListReader:
    return ListReader()


@pytest.fixture
def follower(reader: ListReader, tmp_path: Path) -> Iterator[Follower]:
    with following(reader, tmp_path) as made:
        yield made


@pytest.fixture
def seen_by_vw(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The model files that VW was told to load."""
    models: list[bytes] = []
    real = vowpal.Workspace

    def spy(*, arg_list):
        if "--initial_regressor" in arg_list:
            models.append(Path(arg_list[arg_list.index("--initial_regressor") + 1]).read_bytes())
        return real(arg_list=arg_list)

    monkeypatch.setattr(vowpal, "Workspace", spy)
    return models


def following(reader: ListReader, folder: Path, *, key: bytes | None = KEY, **options) -> Follower:
    return Follower(reader, {APP: recipe()}, folder, key=key, poll_s=0.001, **options)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` holds; fail with ``what`` when it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


def swapped(follower: Follower, to: Snapshot) -> Served:
    """What is served once it is this snapshot."""

    def is_served() -> bool:
        served = follower.served(APP)
        return served is not None and served.snapshot_id == to.id

    wait_for(is_served, f"not swapped: {follower.status()}")
    return follower.served(APP)


def refused(follower: Follower, count: int) -> dict[str, int]:
    """The reasons, once there are so many refusals."""
    wait_for(
        lambda: sum(follower.status()["refused"].values()) >= count,
        f"not refused: {follower.status()}",
    )
    return follower.status()["refused"]


def answers(served: Served) -> list[list[float]]:
    """The pmfs of some contexts."""
    evaluate = served.learner.policy.evaluate
    return [evaluate(features(seed), MODELS, 0.05).pmf.tolist() for seed in range(10)]


def resigned(of: Snapshot, learner: bytes, **changes) -> Snapshot:
    """A snapshot with another state, rightly hashed and signed: by a thief of the key."""
    manifest = of.manifest
    fields = {
        "learn_seq": manifest.learn_seq,
        "created_ts": manifest.created_ts,
        "parent": manifest.parent,
        "offsets": manifest.offsets,
        "recipe": manifest.recipe,
        "catalog": manifest.catalog,
        "joiner": of.joiner,
    }
    return pack(learner=learner, key=KEY, **(fields | changes))


def with_vw(of: Snapshot, change: Callable[[bytes], bytes]) -> Snapshot:
    """A snapshot whose VW model is another one, every digest on the way made right again."""
    state = msgspec.msgpack.decode(of.learner, type=LearnerState)
    outcomes, drift, burden = msgspec.msgpack.decode(state.policy)
    mixture = msgspec.msgpack.decode(outcomes)
    saved, pairs = msgspec.msgpack.decode(mixture["values"]["residual"])
    model = change(saved[45:])
    digest = hashlib.sha256(model).digest()
    saved = b"BRVW1" + struct.pack("<Q", len(model)) + digest + model
    mixture["values"]["residual"] = msgspec.msgpack.encode([saved, pairs])
    outcomes = msgspec.msgpack.encode(mixture)
    policy = msgspec.msgpack.encode([outcomes, drift, burden])
    return resigned(of, msgspec.msgpack.encode(msgspec.structs.replace(state, policy=policy)))


def with_vw_options(text: bytes) -> Callable[[bytes], bytes]:
    def change(model: bytes) -> bytes:
        at = model.index(b" --ftrl")
        (length,) = struct.unpack_from("<I", model, at - 4)
        options = model[at : at + length - 1] + text + b"\0"
        return model[: at - 4] + struct.pack("<I", len(options)) + options + model[at + length :]

    return change


def with_policy_value(of: Snapshot, name: str, value: object) -> Snapshot:
    """A snapshot with one value of the outcome model changed."""
    state = msgspec.msgpack.decode(of.learner, type=LearnerState)
    outcomes, drift, burden = msgspec.msgpack.decode(state.policy)
    mixture = msgspec.msgpack.decode(outcomes)
    assert name in mixture["values"]
    mixture["values"][name] = value
    policy = msgspec.msgpack.encode([msgspec.msgpack.encode(mixture), drift, burden])
    return resigned(of, msgspec.msgpack.encode(msgspec.structs.replace(state, policy=policy)))


def test_a_good_snapshot_is_served_as_it_was_learned(reader, follower, good):
    reader.give(announced(good))
    served = swapped(follower, good)
    learner = trained(30).learner
    assert (served.learn_seq, served.epoch) == (30, 1)
    assert answers(served) == [
        learner.policy.evaluate(features(seed), MODELS, 0.05).pmf.tolist() for seed in range(10)
    ]
    assert served.learner.dump() == learner.dump()


def test_truncated_snapshots_are_refused_before_vw_is_made(
    reader, follower, good, better, seen_by_vw
):
    reader.give(announced(good))
    served = swapped(follower, good)
    before, made = answers(served), len(seen_by_vw)
    lengths = random.Random(0).sample(range(len(better.data)), TRUNCATED)
    reader.give(*(announced(better, data=better.data[:length]) for length in lengths))
    assert refused(follower, TRUNCATED) == {"truncated": TRUNCATED}
    assert len(seen_by_vw) == made
    assert follower.served(APP) is served
    assert answers(served) == before
    reader.give(announced(better))
    swapped(follower, better)


def test_snapshots_with_a_flipped_bit_are_refused_before_vw_is_made(
    reader, follower, good, better, seen_by_vw
):
    reader.give(announced(good))
    served = swapped(follower, good)
    before, made = answers(served), len(seen_by_vw)
    rng = random.Random(1)
    for _ in range(FLIPPED):
        flipped = bytearray(better.data)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        reader.give(announced(better, data=bytes(flipped)))
    reasons = refused(follower, FLIPPED)
    assert sum(reasons.values()) == FLIPPED
    assert set(reasons) <= {"damaged", "bad_hmac", "truncated"}
    assert len(seen_by_vw) == made
    assert follower.served(APP) is served
    assert answers(served) == before
    reader.give(announced(better))
    swapped(follower, better)


def test_records_with_a_flipped_bit_are_refused_without_a_key_too(better):
    into, rng = Assembly([APP]), random.Random(2)
    ((key, value, headers),) = records(better)
    for _ in range(FLIPPED):
        part = bytearray(headers[-1][1])
        part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
        into.take(key, value, [*headers[:-1], (headers[-1][0], bytes(part))])
        found = into.newest(APP)
        assert isinstance(found, Refused) or found.data == better.data  # a bit that says nothing


@pytest.mark.parametrize(
    "options",
    [
        b" -f /tmp/x", b" --final_regressor /tmp/x", b" --invert_hash /tmp/x", b" --cache_file x",
        b" --readable_model /tmp/x", b" -p /tmp/x", b" --daemon --port 1", b" --bit_precision 31",
        b" --loss_function squared", b" ", b"\0 -f /tmp/x", b" --audit", b" --sgd",
    ],
)  # fmt: skip
def test_crafted_vw_options_are_refused_before_vw_sees_them(
    reader, follower, good, better, seen_by_vw, options
):
    reader.give(announced(good))
    served = swapped(follower, good)
    forged = with_vw(better, with_vw_options(options))
    reader.give(announced(forged))
    assert refused(follower, 1) == {"bad_option": 1}
    assert not any(options.strip(b" \0") in model for model in seen_by_vw if options.strip())
    assert all(b" --ftrl --noconstant\0" in model for model in seen_by_vw)
    assert follower.served(APP) is served


@pytest.mark.parametrize("cut", [-1, -7, -16 * 3 - 2, 150, 60, 10])
def test_cut_vw_models_are_refused_before_vw_sees_them(
    reader, follower, good, better, seen_by_vw, cut
):
    reader.give(announced(good))
    served = swapped(follower, good)
    whole: list[bytes] = []

    def cut_off(model: bytes) -> bytes:
        whole.append(model)
        return model[:cut]

    reader.give(announced(with_vw(better, cut_off)))
    assert set(refused(follower, 1)) <= {"truncated", "damaged"}
    assert whole[0][:cut] not in seen_by_vw
    assert follower.served(APP) is served


def test_an_option_that_the_policy_does_not_take_is_refused(
    reader, follower, good, better, seen_by_vw
):
    reader.give(announced(good))
    swapped(follower, good)
    made = len(seen_by_vw)
    for options in ({"final_regressor": "x"}, {"seed": 1}, {"catalog": "x"}, {"model": "a"}):
        reader.give(announced(resigned(better, better.learner, recipe=recipe(options=options))))
    reader.give(announced(resigned(better, better.learner, recipe=recipe(policy="vw-epsilon"))))
    assert refused(follower, 5) == {"bad_option": 5}
    assert len(seen_by_vw) == made


def test_a_wrong_key_and_none_are_refused(reader, follower, good, seen_by_vw):
    reader.give(announced(snapshot(30)), announced(snapshot(30, key=b"another key")))
    assert refused(follower, 2) == {"unsigned": 1, "bad_hmac": 1}
    assert follower.served(APP) is None
    assert not seen_by_vw
    reader.give(announced(good))
    swapped(follower, good)


@pytest.mark.parametrize(
    ("times", "reason"), [(100, "damaged"), (1000, "size")], ids=["no state", "out of all bounds"]
)
def test_a_state_many_times_the_size_is_refused(
    reader, follower, good, better, seen_by_vw, times, reason
):
    reader.give(announced(good))
    served = swapped(follower, good)
    made = len(seen_by_vw)
    reader.give(announced(resigned(good, good.learner * times, learn_seq=50)))
    reader.give(announced(better, data=better.data * times))  # and one that is merely padded
    assert refused(follower, 2)[reason] == 1
    assert len(seen_by_vw) == made
    assert follower.served(APP) is served


def test_the_refusal_of_a_size_says_how_to_mend_it(reader, follower, good):
    reader.give(announced(good), announced(resigned(good, bytes(8_000_000), learn_seq=50)))
    assert refused(follower, 1) == {"size": 1}
    assert "remove the router's stored snapshot" in follower.status()["last_refusal"]


def test_a_state_that_shrank_to_nothing_is_refused(monkeypatch, reader, follower, good):
    monkeypatch.setattr(accepting, "SIZE_SLACK_BYTES", 1000)
    reader.give(announced(good))
    served = swapped(follower, good)
    reader.give(announced(resigned(good, b"x", learn_seq=50)))
    assert refused(follower, 1) == {"size": 1}
    assert follower.served(APP) is served


def test_an_older_epoch_and_an_older_row_are_refused(reader, follower, good, better):
    reader.give(announced(better, epoch=7))
    served = swapped(follower, better)
    reader.give(announced(good, epoch=7), announced(snapshot(99, key=KEY), epoch=6))
    assert refused(follower, 2) == {"old_state": 1, "old_epoch": 1}
    assert follower.served(APP) is served
    reader.give(announced(good, epoch=8))  # a learner that lost its store starts further back
    assert swapped(follower, good).epoch == 8


def test_the_same_snapshot_under_a_new_epoch_is_not_restored_again(reader, follower, good, better):
    reader.give(announced(better, epoch=1))
    first = swapped(follower, better)
    reader.give(announced(better, epoch=2))
    wait_for(lambda: follower.served(APP).epoch == 2, "the epoch was not taken")
    assert follower.served(APP).learner is first.learner
    reader.give(announced(snapshot(99, key=KEY), epoch=1))
    assert refused(follower, 1) == {"old_epoch": 1}
    assert follower.status()["swaps"] == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"featurizer_id": "other"}, "wrong_features"),
        ({"dimension": DIMENSION + 1}, "wrong_features"),
        ({"app": "other"}, "wrong_app"),
        ({"catalog": tuple(specs(accepting.MAX_MODELS + 1))}, "size"),
    ],
)
def test_a_snapshot_that_is_not_for_this_router_is_refused(
    reader, follower, better, seen_by_vw, fields, reason
):
    reader.give(announced(resigned(better, better.learner, recipe=recipe(**fields))))
    assert refused(follower, 1) == {reason: 1}
    assert not seen_by_vw
    assert follower.served(APP) is None


def test_states_that_are_none_are_refused(reader, follower, good, better):
    reader.give(announced(good))
    served = swapped(follower, good)
    rng = random.Random(3)
    bad = [resigned(better, data) for data in (b"", b"\x80", rng.randbytes(5000))]
    for _ in range(60):  # rightly hashed and signed, but one byte is another
        changed = bytearray(better.learner)
        changed[rng.randrange(len(changed) // 8)] ^= 0x55
        bad.append(resigned(better, bytes(changed), learn_seq=41))
    bad.append(resigned(better, better.learner, learn_seq=41))  # says 41, holds 40
    reader.give(*(announced(one) for one in bad))
    assert sum(refused(follower, len(bad)).values()) == len(bad)
    assert follower.served(APP) is served


def test_a_policy_whose_pmf_is_none_is_refused(reader, follower, good, better):
    reader.give(announced(good))
    served = swapped(follower, good)
    mixture = msgspec.msgpack.decode(
        msgspec.msgpack.decode(msgspec.msgpack.decode(better.learner, type=LearnerState).policy)[0]
    )["values"]
    shape = mixture["score_mean"]["shape"]
    vast = {"shape": shape, "f8": np.full(shape, 1e308).astype("<f8").tobytes()}
    nan = {"shape": shape, "f8": np.full(shape, np.nan).astype("<f8").tobytes()}
    reader.give(announced(with_policy_value(better, "score_mean", nan)))
    assert refused(follower, 1) == {"damaged": 1}
    reader.give(announced(with_policy_value(better, "score_mean", vast)))
    reasons = refused(follower, 2)
    assert set(reasons) == {"damaged", "bad_pmf"}
    assert follower.served(APP) is served


def test_what_another_snapshot_was_announced_as_is_refused(reader, follower, good, better):
    reader.give(announced(good, data=better.data))
    assert refused(follower, 1) == {"damaged": 1}
    assert follower.served(APP) is None


def test_the_readers_own_refusals_are_counted_with_the_others(reader, follower):
    reader.give(Refused(app=APP, reason="bad_hmac", problem="the announcement's HMAC is wrong"))
    assert refused(follower, 1) == {"bad_hmac": 1}
    assert "the announcement's HMAC" in follower.status()["last_refusal"]


def test_it_outlives_a_broker_that_is_gone_and_any_other_error(reader, follower, good, better):
    reader.give(TransportError("gone"), announced(good))
    swapped(follower, good)
    reader.give(ValueError("a fault in the client"), announced(better))
    swapped(follower, better)
    assert reader.closed == 1  # the client that failed was given up
    assert follower.status()["connected"]


def test_it_outlives_a_client_that_fails_at_its_closing_too(
    monkeypatch, reader, follower, good, better
):
    reader.give(announced(good))
    swapped(follower, good)
    with monkeypatch.context() as broken:
        broken.setattr(reader, "close", Mock(side_effect=RuntimeError("it does not close either")))
        reader.give(ValueError("a fault in the client"), announced(better))
        swapped(follower, better)
        reader.close.assert_called_once_with()
    assert follower.status()["connected"]


def test_it_says_when_kafka_is_not_there(reader, follower):
    reader.give(*[TransportError("nobody answers")] * 3)
    wait_for(lambda: not follower.status()["connected"], "it seems connected")
    wait_for(lambda: follower.status()["problem"] == "nobody answers", "no problem is said")


# -- after a restart ---------------------------------------------------------------------------


def test_after_a_restart_without_kafka_the_last_good_one_serves(reader, good, tmp_path):
    with following(reader, tmp_path) as first:
        reader.give(announced(good, epoch=5))
        before = answers(swapped(first, good))
    with following(ListReader(), tmp_path) as second:
        served = second.served(APP)
        assert (served.snapshot_id, served.epoch) == (good.id, 5)
        assert answers(served) == before
        assert second.status()["refused"] == {}


def test_after_a_restart_older_epochs_are_refused_still(reader, good, better, tmp_path):
    with following(reader, tmp_path) as first:
        reader.give(announced(good, epoch=5))
        swapped(first, good)
    again = ListReader()
    with following(again, tmp_path) as second:
        again.give(announced(better, epoch=4))
        assert refused(second, 1) == {"old_epoch": 1}
        again.give(announced(better, epoch=5))
        swapped(second, better)


def test_after_a_crash_between_the_two_files_the_epoch_is_known_and_the_old_one_serves(
    reader, good, better, tmp_path, monkeypatch
):
    def crash(*_):
        raise StorageError("killed here")

    with following(reader, tmp_path) as first:
        reader.give(announced(good, epoch=1))
        swapped(first, good)
        wait_for(lambda: len(list(tmp_path.glob("*"))) == 2, "not stored")
        monkeypatch.setattr("bandit_router.streaming.keeping.write_file", crash)
        reader.give(announced(better, epoch=2))
        swapped(first, better)
        wait_for(lambda: first.status()["store_problem"] == "killed here", "nothing is said")
    monkeypatch.undo()
    again = ListReader()
    with following(again, tmp_path) as second:
        assert second.served(APP).snapshot_id == good.id
        again.give(announced(snapshot(99, key=KEY), epoch=1))
        assert refused(second, 1) == {"old_epoch": 1}
        again.give(announced(better, epoch=2))
        swapped(second, better)


def spoil_snapshot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link_snapshot(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (spoil_snapshot, "damaged"),
        (link_snapshot, "symlink"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: os.truncate(path, 1 << 40), "size"),
        (lambda path: path.write_bytes(snapshot(30).data), "unsigned"),
        (lambda path: (path.unlink(), path.mkdir()), "damaged"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "damaged"),
    ],
)
def test_a_stored_snapshot_that_was_harmed_is_refused_and_service_starts_untrained(
    reader, good, better, tmp_path, seen_by_vw, harm, reason
):
    with following(reader, tmp_path) as first:
        reader.give(announced(good))
        swapped(first, good)
    (path,) = tmp_path.glob("*.brsnap")
    harm(path)
    made = len(seen_by_vw)
    again = ListReader()
    with following(again, tmp_path) as second:
        assert second.served(APP) is None
        status = second.status()
        assert reason in status["refused"] or "unreadable" in status["refused"]
        assert str(path) in status["store_problem"]
        assert len(seen_by_vw) == made
        again.give(announced(better))
        swapped(second, better)


def test_a_full_disk_does_not_keep_a_good_snapshot_from_serving(
    reader, good, tmp_path, monkeypatch
):
    def full(*_):
        raise StorageError("no space left")

    monkeypatch.setattr("bandit_router.streaming.keeping.write_bytes", full)
    with following(reader, tmp_path) as one:
        reader.give(announced(good))
        swapped(one, good)
        wait_for(lambda: one.status()["store_problem"] == "no space left", "nothing is said")


def test_every_swap_is_told_after_it_is_done(reader, good, better, tmp_path):
    told: list[tuple[str, Served]] = []
    with following(reader, tmp_path, on_swap=lambda app, served: told.append((app, served))):
        reader.give(announced(good), announced(better))
        wait_for(lambda: len(told) == 2, "not told")
    assert [(app, served.snapshot_id) for app, served in told] == [(APP, good.id), (APP, better.id)]
    again: list[str] = []
    with following(ListReader(), tmp_path, on_swap=lambda app, _: again.append(app)):
        assert again == [APP]


def test_it_outlives_a_caller_that_fails_when_it_is_told(reader, good, better, tmp_path):
    def fail(_app, _served):
        raise ValueError("a fault of the caller")

    with following(reader, tmp_path, on_swap=fail) as one:
        reader.give(announced(good))
        swapped(one, good)
        reader.give(announced(better))
        swapped(one, better)


def test_what_is_served_names_its_snapshot(reader, follower, good):
    reader.give(announced(good))
    served = swapped(follower, good)
    assert served.learner.snapshot_id == good.id
    with pytest.raises(dataclasses.FrozenInstanceError):
        served.epoch = 5


def test_a_container_that_is_none_at_all_is_refused(reader, follower, good):
    for data in (b"", MAGIC, b"x" * 500, MAGIC + b"\xff" * 500):
        reader.give(announced(good, data=data))
    assert refused(follower, 4) == {"truncated": 3, "damaged": 1}


def test_a_repriced_and_grown_catalog_is_served(reader, follower, good):
    reader.give(announced(good))
    swapped(follower, good)
    many = recipe(catalog=tuple(specs(11)))
    grown = taken(trained(0, many), many, key=KEY)
    reader.give(announced(grown, epoch=2))
    assert len(swapped(follower, grown).learner.catalog) == 11
