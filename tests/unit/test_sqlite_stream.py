"""The store of a learner on Kafka: what belongs together is stored together, or not at all."""

from __future__ import annotations

import pytest
from support.session import Session, recipe
from support.streams import completion, decision

from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite import SOURCE_NAMES, SqliteStore
from bandit_router.adapters.sqlite_schema import migrations
from bandit_router.adapters.sqlite_stream import Arrival, StreamStore
from bandit_router.errors import FencedError, InputError, SnapshotError, StorageError
from bandit_router.events import encode
from bandit_router.store_ops import rebuild

AT = dict(zip(SOURCE_NAMES, (0, 1, 2, 7), strict=True))
LETTER = Outgoing("dead_letters", "default", None, (("reason", b"null"),))


def arrival(event, *sources) -> Arrival:
    return Arrival(encode(event), event, sources)


@pytest.fixture
def store(tmp_path):
    with StreamStore.open(tmp_path / "log.db") as opened:
        yield opened


def test_events_positions_sources_and_what_is_to_be_sent_are_stored_together(store):
    arrivals = [arrival(decision(), 0, 1, 0, 7), arrival(completion(), 0, 1, 1, 7)]
    assert store.ingest(arrivals, before={}, after=AT, outgoing=[LETTER]) == [1, 2]
    assert store.positions() == AT
    assert store.sources(1) == {"changes": 0, "decisions": 1, "outcomes": 0, "order": 7}
    assert store.sources(3) == {}
    assert [(type(e), o) for o, e in store.read(0, 9)] == [
        (type(decision()), 1), (type(completion()), 2),
    ]  # fmt: skip
    ((number, letter),) = store.outgoing()
    assert letter == LETTER
    store.sent(number)
    assert store.outgoing() == []


def test_who_believes_the_store_elsewhere_changes_nothing(store):
    store.ingest([arrival(decision(), 0, 1, 0, 7)], before={}, after=AT)
    with pytest.raises(FencedError):
        store.ingest([arrival(completion(), 0, 1, 1, 8)], before={}, after=AT, outgoing=[LETTER])
    assert (store.last_offset(), store.positions(), store.outgoing()) == (1, AT, [])


def test_a_snapshot_is_planted_in_an_empty_store_only_and_the_log_goes_on_after_it(store, tmp_path):
    with SqliteStore.open(tmp_path / "other.db") as other:
        Session(other, recipe()).run(60)
        taken = other.snapshot(other.snapshot_ids()[0])
    with pytest.raises(SnapshotError, match="where in Kafka"):
        store.plant(taken)
    assert store.seed() is None
    taken.manifest.offsets.update(AT)
    store.plant(taken)
    assert store.seed().id == taken.id
    assert store.last_learn_seq() == taken.manifest.learn_seq
    log = taken.manifest.offsets["log"]
    assert store.last_offset() == log
    assert store.ingest([arrival(decision(), 0, 2, 2, 8)], before=AT, after=AT) == [log + 1]
    with pytest.raises(InputError, match="not empty"):
        store.plant(taken)


def test_a_store_that_is_opened_to_be_read_cannot_be_written_to_and_can_be_rebuilt(tmp_path):
    path = tmp_path / "log.db"
    with SqliteStore.open(path) as store:
        loop = Session(store, recipe()).run(60)
        assert loop.learner.learn_seq > 0
    with SqliteStore.open(path, read_only=True) as store:
        assert rebuild(store).identical
        with pytest.raises(StorageError, match="readonly"):
            store.set_meta("a", "b")
    with pytest.raises(InputError, match="no such database"):
        SqliteStore.open(tmp_path / "none.db", read_only=True)


def test_a_store_of_an_older_version_is_not_read_without_bringing_it_up_to_date(tmp_path):
    path = tmp_path / "log.db"
    with SqliteStore.open(path) as store:
        newest = migrations.applied(store.database)[-1].name
        store.database["_sqlite_migrations"].delete_where("name = ?", [newest])
    with pytest.raises(InputError, match="older version"):
        SqliteStore.open(path, read_only=True)
