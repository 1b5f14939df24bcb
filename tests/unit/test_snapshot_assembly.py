"""From the topic's records to containers: in any mixture, with any rubbish, in bounded memory."""

from __future__ import annotations

import random

import pytest
from support.published import APP, KEY, records, snapshot

from bandit_router.adapters.kafka.assembly import (
    CONTAINER_HEADER,
    ID_HEADER,
    INDEX_HEADER,
    Announced,
    Assembly,
    Refused,
    chunk_key,
)
from bandit_router.snapshot import Snapshot

SMALL = 2_000


@pytest.fixture(scope="module")
def old() -> Snapshot:
    return snapshot(5)


@pytest.fixture(scope="module")
def new() -> Snapshot:
    return snapshot(20)


def assembly(**options) -> Assembly:
    return Assembly([APP], **options)


def take(into: Assembly, found) -> list[Refused]:
    return [r for r in (into.take(*record) for record in found) if r is not None]


def test_a_small_snapshot_is_one_record(new):
    into = assembly()
    found = records(new)
    assert len(found) == 1
    assert take(into, found) == []
    newest = into.newest(APP)
    assert (newest.data, newest.app, newest.epoch, newest.learner) == (new.data, APP, 1, "test")
    assert into.newest(APP) is None


def test_a_large_one_is_whole_once_its_announcement_is_there(new):
    into = assembly()
    found = records(new, chunk_bytes=SMALL)
    assert len(found) > 5
    for record in found:
        assert into.newest(APP) is None
        assert into.take(*record) is None
    assert into.newest(APP).data == new.data


def test_the_order_of_the_chunks_does_not_matter_nor_that_some_come_twice(new):
    found = records(new, chunk_bytes=SMALL)
    for seed in range(20):
        into = assembly()
        shuffled = random.Random(seed).sample(found * 2, len(found) * 2)
        assert take(into, shuffled) == []
        assert into.newest(APP).data == new.data


def test_the_chunks_of_two_publishers_may_mix(old, new):
    into = assembly()
    one, two = records(old, chunk_bytes=SMALL), records(new, chunk_bytes=SMALL)
    mixed = [record for pair in zip(one[:-1], two[:-1], strict=False) for record in pair]
    rest = [r for r in two[:-1] if r not in mixed]
    assert take(into, [*mixed, *rest, one[-1], two[-1]]) == []
    assert into.newest(APP).data == new.data


def test_what_is_incomplete_waits_and_is_dropped_for_a_newer_one(old, new):
    into = assembly()
    broken = records(old, chunk_bytes=SMALL)
    del broken[1]
    take(into, broken)
    assert into.newest(APP) is None
    take(into, records(new))
    assert into.newest(APP).data == new.data
    assert into.counts["incomplete"] == 1


def test_the_missing_chunk_may_come_after_the_announcement(new):
    into = assembly()
    first, *others = records(new, chunk_bytes=SMALL)
    take(into, others)
    assert into.newest(APP) is None
    take(into, [first])
    assert into.newest(APP).data == new.data


def test_of_many_only_the_newest_is_handed_over(old, new):
    into = assembly()
    take(into, records(old) + records(new))
    assert into.newest(APP).data == new.data
    assert into.newest(APP) is None


@pytest.mark.parametrize(
    ("epochs", "reason"), [((2, 1), "old_epoch"), ((1, 1), "old_state"), ((2, 0), "old_epoch")]
)
def test_a_stale_learners_snapshot_does_not_replace_one_that_waits_to_be_handed_over(
    old, new, epochs, reason
):
    into = assembly()
    take(into, records(new, epoch=epochs[0]))
    (refused,) = take(into, records(old, epoch=epochs[1]))
    assert (refused.app, refused.reason) == (APP, reason)
    assert into.newest(APP).data == new.data


def test_a_new_epoch_may_start_further_back(old, new):
    into = assembly()
    take(into, records(new, epoch=1) + records(old, epoch=2))
    assert into.newest(APP).data == old.data


def test_tombstones_are_counted_and_change_nothing(new):
    into = assembly()
    found = records(new, chunk_bytes=SMALL)
    take(into, found)
    take(into, [(chunk_key(APP, i), None, []) for i in range(40)] + [(APP.encode(), None, [])])
    assert into.counts["tombstones"] == 41
    assert into.newest(APP).data == new.data


def test_the_records_of_other_apps_and_what_is_none_are_passed_over(new):
    into = assembly()
    strange = [
        None,
        b"",
        b"\xff\xfe",
        b"default\0",
        b"default\0x",
        b"default\0-1",
        b"default\x00256",
    ]
    take(into, records(new, app="other") + [(key, b"x", []) for key in strange])
    assert into.newest(APP) is None
    assert into.counts["foreign"] == 1 + len(strange)


@pytest.mark.parametrize(
    ("key", "value", "headers", "reason"),
    [
        (APP.encode(), b"", [], "damaged"),
        (APP.encode(), b"\0" * 5000, [], "damaged"),
        (APP.encode(), b"x" * 50_000, [], "size"),
        (chunk_key(APP, 1), b"x", [], "damaged"),
        (chunk_key(APP, 1), b"x", [(ID_HEADER, b"a"), (INDEX_HEADER, b"2")], "damaged"),
        (chunk_key(APP, 1), b"x", [(ID_HEADER, b"a" * 99), (INDEX_HEADER, b"1")], "damaged"),
        (chunk_key(APP, 1), b"x", [(ID_HEADER, b"\xff"), (INDEX_HEADER, b"1")], "damaged"),
        (chunk_key(APP, 1), b"x", [(ID_HEADER, None), (INDEX_HEADER, b"1")], "damaged"),
        (chunk_key(APP, 1), b"x" * 900_001, [(ID_HEADER, b"a"), (INDEX_HEADER, b"1")], "size"),
    ],
)
def test_rubbish_under_the_apps_own_keys_is_refused(new, key, value, headers, reason):
    into = assembly()
    take(into, records(new))
    (refused,) = take(into, [(key, value, headers)])
    assert refused.reason == reason
    assert into.newest(APP).data == new.data


def test_an_announcement_without_its_container_is_refused(new):
    ((key, value, headers),) = records(new)
    without = [h for h in headers if h[0] != CONTAINER_HEADER]
    (refused,) = take(assembly(), [(key, value, without)])
    assert "not there" in refused.problem


def test_nothing_of_a_forged_announcement_is_kept(new):
    into = assembly(key=KEY)
    assert [r.reason for r in take(into, records(new))] == ["unsigned"]
    assert [r.reason for r in take(into, records(new, key=b"another key"))] == ["bad_hmac"]
    assert into.newest(APP) is None
    assert take(into, records(new, key=KEY)) == []
    assert into.newest(APP).data == new.data


def test_a_container_of_another_content_is_refused_when_it_is_handed_over(old, new):
    into = assembly()
    (key, value, headers), ((_, _, others),) = records(new)[0], records(old)
    take(into, [(key, value, [h for h in headers if h[0] == ID_HEADER] + others[-1:])])
    refused = into.newest(APP)
    assert isinstance(refused, Refused)
    assert refused.reason in {"damaged", "truncated", "size"}


def test_a_snapshot_larger_than_allowed_is_refused_by_its_announcement(new):
    into = assembly(max_bytes=len(new.data) - 1)
    (refused,) = take(into, records(new))
    assert refused.reason == "size"
    assert into.newest(APP) is None


def test_chunks_that_belong_to_nothing_are_kept_in_bounded_number():
    into = assembly(max_bytes=100_000)
    for number in range(500):
        for index in range(20):
            name = [(ID_HEADER, b"s%d" % number), (INDEX_HEADER, b"%d" % index)]
            into.take(chunk_key(APP, index), b"x" * 10_000, name)
    inbox = into._inboxes[APP]
    assert sum(len(p) for pieces in inbox.sets.values() for p in pieces.values()) <= 200_000


def test_no_record_whatever_stops_it(new):
    into, rng = assembly(), random.Random(1)
    good = records(new, chunk_bytes=SMALL)
    for _ in range(3000):
        key, value, headers = rng.choice(good)
        key, value = bytearray(key), bytearray(value)
        for part in (key, value):
            if part and rng.random() < 0.5:
                part[rng.randrange(len(part))] = rng.randrange(256)
        cut = rng.randrange(len(value)) if rng.random() < 0.3 else len(value)
        into.take(bytes(key), bytes(value[:cut]), headers[: rng.randrange(len(headers) + 1)])
        found = into.newest(APP)
        assert not isinstance(found, Announced) or found.data == new.data
    take(into, good)
    assert into.newest(APP).data == new.data


def test_a_snapshot_with_a_damaged_chunk_is_mended_by_publishing_it_again(new):
    into = assembly()
    good = records(new, chunk_bytes=SMALL)
    key, value, headers = good[2]
    take(into, [*good[:2], (key, value[::-1], headers), *good[3:]])
    assert isinstance(into.newest(APP), Refused)
    take(into, good)
    assert into.newest(APP).data == new.data
