"""The announcement: signed by itself, and what comes with it is bounded by what it says."""

from __future__ import annotations

import hashlib
import random
import zlib

import msgspec
import pytest
from support.published import APP, KEY, snapshot

from bandit_router.errors import SnapshotError
from bandit_router.snapshot import Snapshot
from bandit_router.snapshot.announcement import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_CHUNKS,
    Announcement,
    announce,
    assemble,
    decode,
    encode,
)


@pytest.fixture(scope="module")
def found() -> Snapshot:
    return snapshot()


def announcement(of: Snapshot, **changes) -> Announcement:
    made, _ = announce(APP, of, epoch=3, learner="l", key=KEY)
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize("chunk_bytes", [900_000, 5_000, 333])
@pytest.mark.parametrize("key", [None, KEY])
def test_what_was_announced_is_put_together_again(found, key, chunk_bytes):
    made, pieces = announce(APP, found, epoch=3, learner="l", key=key, chunk_bytes=chunk_bytes)
    read = decode(encode(made), app=APP, key=key)
    assert read == made
    assert (read.snapshot_id, read.epoch, read.learn_seq) == (found.id, 3, 20)
    assert read.chunks == (0 if len(pieces) == 1 else len(pieces))
    assert max(map(len, pieces)) <= chunk_bytes
    assert assemble(read, pieces) == found.data


def test_a_large_state_is_compressed(found):
    made, pieces = announce(APP, found, epoch=0, learner="")
    assert made.encoding == "zlib"
    assert sum(map(len, pieces)) < made.size == len(found.data)


def test_what_compression_does_not_make_smaller_travels_as_it_is(found):
    noise = random.Random(0).randbytes(2000)
    made, pieces = announce(
        APP, msgspec.structs.replace(found, data=noise), epoch=0, learner="", chunk_bytes=500
    )
    assert (made.encoding, made.chunks, assemble(made, pieces)) == ("", 4, noise)


def test_a_snapshot_in_too_many_pieces_is_not_published(found):
    noise = msgspec.structs.replace(found, data=random.Random(0).randbytes(MAX_CHUNKS + 1))
    with pytest.raises(SnapshotError, match="can be published"):
        announce(APP, noise, epoch=0, learner="", chunk_bytes=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 4}, {"learner": "m"}, {"learn_seq": 21}, {"size": 1}, {"chunks": 2},
        {"sha256": "0" * 64}, {"encoding": ""}, {"parent": "x"}, {"created_ts": 1.0},
        {"snapshot_id": "000000000020-0123456789ab"}, {"hmac": "0" * 64}, {"hmac": "é"},
    ],
)  # fmt: skip
def test_every_field_is_signed(found, changes):
    forged = encode(announcement(found, **changes))
    with pytest.raises(SnapshotError) as caught:
        decode(forged, app=APP, key=KEY)
    assert caught.value.reason == "bad_hmac"


def test_an_unsigned_one_is_refused_where_a_key_is_configured(found):
    made, _ = announce(APP, found, epoch=3, learner="l")
    with pytest.raises(SnapshotError) as caught:
        decode(encode(made), app=APP, key=KEY)
    assert caught.value.reason == "unsigned"
    assert decode(encode(made), app=APP) == made


def test_an_apps_announcement_is_of_no_use_under_another_apps_key(found):
    with pytest.raises(SnapshotError) as caught:
        decode(encode(announcement(found)), app="other", key=KEY)
    assert caught.value.reason == "wrong_app"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "unknown_version"),
        ({"epoch": -1}, "damaged"),
        ({"learn_seq": -1}, "damaged"),
        ({"size": -1}, "damaged"),
        ({"size": 2**63}, "damaged"),
        ({"chunks": -1}, "damaged"),
        ({"chunks": 1}, "damaged"),
        ({"chunks": MAX_CHUNKS + 1}, "damaged"),
        ({"sha256": "x"}, "damaged"),
        ({"sha256": "0" * 64 + "\n"}, "damaged"),
        ({"snapshot_id": "../x"}, "damaged"),
        ({"learner": "x" * 1000}, "damaged"),
        ({"learner": "x" * MAX_ANNOUNCEMENT_BYTES}, "size"),
        ({"encoding": "gzip"}, "damaged"),
    ],
)
def test_what_is_out_of_range_is_refused_without_a_key_too(found, changes, reason):
    with pytest.raises(SnapshotError) as caught:
        decode(encode(announcement(found, **changes)), app=APP)
    assert caught.value.reason == reason


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"[" * 10_000, b"\xff", b'{"schema":1}'])
def test_what_is_no_announcement_is_refused(data):
    with pytest.raises(SnapshotError):
        decode(data, app=APP)


def of_bytes(packed: bytes, content: bytes, found: Snapshot, **changes) -> Announcement:
    return announcement(
        found,
        **{"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), **changes},
    )


def test_a_zip_bomb_costs_no_more_than_the_announced_size(found):
    bomb = zlib.compress(bytes(200_000_000), 9)
    said = of_bytes(bomb, bytes(1000), found)
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(SnapshotError) as caught:
        assemble(said, [bomb])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason == "size"
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("packed", "changes", "reason"),
    [
        (zlib.compress(b"content")[:-6], {}, "truncated"),
        (b"", {}, "truncated"),
        (b"no zlib at all", {}, "damaged"),
        (zlib.compress(b"context"), {}, "damaged"),
        (zlib.compress(b"content"), {"size": 6}, "size"),
        (zlib.compress(b"content"), {"size": 8}, "truncated"),
        (b"content", {"encoding": "", "size": 6}, "size"),
        (b"conten", {"encoding": ""}, "truncated"),
        (b"context", {"encoding": ""}, "damaged"),
    ],
)
def test_pieces_that_are_not_what_was_announced_are_refused(found, packed, changes, reason):
    with pytest.raises(SnapshotError) as caught:
        assemble(of_bytes(packed, b"content", found, **changes), [packed])
    assert caught.value.reason == reason
