"""The embedded log: what is stored comes back, all or none, and its failures are ours."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from sqlite_utils import Database
from support.session import recipe
from support.streams import catalog, completion, decision, feedback

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_sink import SqliteSink
from bandit_router.errors import EventError, InputError, SnapshotError, StorageError
from bandit_router.events import Change, encode, encode_row
from bandit_router.joiner import Joiner
from bandit_router.loop import DeadLetter, Rejected
from bandit_router.snapshot import Snapshot, pack
from bandit_router.types import Decision, Features


@pytest.fixture
def store(tmp_path):
    with SqliteStore.open(tmp_path / "log.db") as opened:
        yield opened


def row(event_id: str = "d", value: float = 1.0):
    joiner = Joiner()
    joiner.decision(decision(event_id))
    joiner.outcome(completion(event_id))
    return joiner.outcome(feedback(event_id, value=value))[0]


def snapshot(learn_seq: int, key: bytes | None = None) -> Snapshot:
    return pack(
        learn_seq=learn_seq,
        created_ts=0.0,
        parent="",
        offsets={"log": learn_seq},
        recipe=recipe(),
        catalog=tuple(catalog()),
        learner=b"learner",
        joiner=b"joiner",
        key=key,
    )


def put(sink: SqliteSink, seq: int, *rows, offset: int = 1, rejected=(), changes=()) -> None:
    sink.put(offset, None, seq, rows, rejected, changes)


def test_events_come_back_in_order_with_their_offsets(store):
    events = [decision(), completion(), feedback(), Change(ts=1.0, kind="drift_alarm")]
    assert store.append(events[:2]) == [1, 2]
    assert store.append(events[2:]) == [3, 4]
    assert store.last_offset() == 4
    found = store.read(0, 10)
    assert [offset for offset, _ in found] == [1, 2, 3, 4]
    assert [encode(event) for _, event in found] == [encode(event) for event in events]
    assert [offset for offset, _ in store.read(2, 1)] == [3]
    assert store.read(4, 10) == []


def test_the_columns_can_be_queried(store):
    store.append([decision("x", 5.0), Change(ts=6.0, kind="rollback"), b"junk"])
    columns = store.database.execute("SELECT offset, event_id, type, ts FROM events").fetchall()
    assert columns == [
        (1, "x", "decision", 5.0), (2, None, "change", 6.0), (3, None, "dead_letter", None),
    ]  # fmt: skip


def test_an_invalid_event_stores_nothing_at_all(store):
    with pytest.raises(EventError, match="propensity"):
        store.append([decision("good"), decision("bad", propensity=float("nan"))])
    assert store.last_offset() == 0


def test_raw_records_are_kept_as_they_came_and_read_as_dead_letters(store):
    store.append([encode(feedback()), b"\xff\x00 junk", b'{"schema": 9}', b""])
    reasons = [getattr(event, "reason", "fine") for _, event in store.read(0, 10)]
    assert reasons == ["fine", "undecodable", "unknown_version", "null"]
    assert store.read(1, 1)[0][1].data == b"\xff\x00 junk"


def test_positions_of_foreign_sources_move_with_their_events(store):
    store.append([feedback()], positions={"outcomes/0": 17, "decisions/0": 3})
    store.append([feedback()], positions={"outcomes/0": 18})
    assert store.positions() == {"decisions/0": 3, "outcomes/0": 18}
    with pytest.raises(EventError):
        store.append([feedback(value=7.0)], positions={"outcomes/0": 19})
    assert store.positions()["outcomes/0"] == 18


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "'; DROP TABLE events; --", "漢字 🙂", "\n"])
def test_any_text_in_ids_is_stored_and_found(store, text):
    event = decision(text, unit_id=text, tenant=text)
    store.append([event, feedback(text, feedback_id=text, source=text)])
    (_, stored), (_, judged) = store.read(0, 2)
    assert store.decision(stored.event_id).tenant == stored.tenant
    assert judged.event_id == stored.event_id


def test_a_decision_is_found_by_its_id(store):
    store.append([feedback("d"), decision("d", 1.0), decision("e", 2.0)])
    assert store.decision("d").ts == 1.0
    assert isinstance(store.decision("e"), Decision)
    assert store.decision("f") is None


def test_a_step_is_stored_with_everything_that_it_caused(store):
    sink = SqliteSink(store)
    alarm = Change(ts=2.0, kind="drift_alarm", data={"model": "a"})
    put(sink, 1, row("x"), offset=3, rejected=[Rejected("late", feedback("y"))], changes=[alarm])
    put(sink, 2, row("z"), offset=4, rejected=[Rejected("undecodable", DeadLetter("u", b"\xff"))])
    sink.save(snapshot(2))
    assert store.last_learn_seq() == 0
    sink.commit()
    rows = list(store.rows())
    assert [(seq, each.event_id) for seq, each in rows] == [(1, "x"), (2, "z")]
    assert store.rejected_counts() == {"late": 1, "undecodable": 1}
    assert store.snapshot_ids() == [snapshot(2).id]
    assert [(offset, each.data) for offset, each in store.changes()] == [(3, {"model": "a"})]


def test_a_sink_commits_by_itself_after_so_many_steps(store):
    sink = SqliteSink(store, max_steps=3)
    for seq in (1, 2, 3, 4):
        put(sink, seq, row(str(seq)))
    assert store.last_learn_seq() == 3


def test_rows_can_be_read_in_part(store):
    sink = SqliteSink(store)
    for seq in range(1, 8):
        put(sink, seq, row(str(seq)))
    sink.commit()
    assert [seq for seq, _ in store.rows(after=2, until=5)] == [3, 4, 5]


def test_rows_that_come_again_must_be_the_same(store):
    sink = SqliteSink(store)
    for seq in (1, 2, 3):
        put(sink, seq, row(str(seq)), offset=seq)
    sink.commit()
    again = SqliteSink(store)
    for seq in (2, 3, 4):
        put(again, seq, row(str(seq)), offset=seq)
    again.commit()
    assert store.last_learn_seq() == 4


@pytest.mark.parametrize("different", [(row("3", value=0.0), 3), (row("other"), 3), (row("3"), 99)])
def test_a_row_that_comes_again_differently_is_refused_for_good(store, different):
    sink = SqliteSink(store)
    for seq in (1, 2, 3):
        put(sink, seq, row(str(seq)), offset=seq)
    sink.commit()
    again = SqliteSink(store)
    put(again, 3, different[0], offset=different[1])
    put(again, 4, row("4"), offset=4)
    with pytest.raises(StorageError, match="row 3 came out differently") as caught:
        again.commit()
    assert caught.value.retriable is False
    assert store.last_learn_seq() == 3


def test_a_gap_in_the_rows_is_refused_for_good(store):
    sink = SqliteSink(store)
    put(sink, 2, row())
    with pytest.raises(StorageError, match="row 1 is missing") as caught:
        sink.commit()
    assert caught.value.retriable is False


def test_a_missing_or_damaged_row_is_a_storage_error(store):
    sink = SqliteSink(store)
    for seq in (1, 2, 3):
        put(sink, seq, row(str(seq)))
    sink.commit()
    store.database.execute("UPDATE training SET payload = x'00' WHERE learn_seq = 3")
    with pytest.raises(StorageError, match="row 3"):
        list(store.rows())
    store.database.execute("DELETE FROM training WHERE learn_seq = 2")
    with pytest.raises(StorageError, match="row 2 is missing"):
        list(store.rows())


def test_a_poisoned_row_that_was_set_aside_is_kept_though_json_cannot_carry_it(store):
    import numpy as np

    bad = decision(features=Features(dense=np.array([np.nan])))
    sink = SqliteSink(store)
    put(sink, 1, rejected=[Rejected("poison", bad)])
    sink.commit()
    ((payload,),) = store.database.execute("SELECT payload FROM rejected").fetchall()
    assert b"nan" in payload


def test_snapshots_are_found_newest_first_and_a_damaged_one_is_passed_over(store):
    sink = SqliteSink(store)
    for learn_seq in (0, 10, 20):
        sink.save(snapshot(learn_seq))
    sink.commit()
    assert [s.manifest.learn_seq for s in store.snapshots()] == [20, 10, 0]
    assert [s.manifest.learn_seq for s in store.snapshots(at_most=19)] == [10, 0]
    store.database.execute("UPDATE snapshots SET data = x'00' WHERE learn_seq = 20")
    assert [s.manifest.learn_seq for s in store.snapshots()] == [10, 0]
    with pytest.raises(SnapshotError):
        store.snapshot(snapshot(20).id)
    with pytest.raises(InputError, match="no snapshot"):
        store.snapshot("unknown")


def test_a_snapshot_stored_under_another_id_is_refused(store):
    sink = SqliteSink(store)
    sink.save(snapshot(1))
    sink.commit()
    store.database.execute("UPDATE snapshots SET id = 'x'")
    with pytest.raises(SnapshotError, match="stored as snapshot x"):
        store.snapshot("x")


def test_with_a_key_only_signed_snapshots_count(store):
    sink = SqliteSink(store)
    sink.save(snapshot(1, key=b"key"))
    sink.save(snapshot(2))
    sink.commit()
    assert [s.manifest.learn_seq for s in store.snapshots(key=b"key")] == [1]


def test_old_snapshots_are_removed_but_never_the_first(store):
    sink = SqliteSink(store, keep_snapshots=2)
    for learn_seq in (0, 10, 20, 30, 40):
        sink.save(snapshot(learn_seq))
        sink.commit()
    assert [int(i[:12]) for i in store.snapshot_ids()] == [40, 30, 0]


def test_a_locked_database_is_a_storage_error_that_may_be_tried_again(tmp_path):
    path = tmp_path / "log.db"
    with (
        SqliteStore.open(path, busy_timeout_s=0.05) as store,
        SqliteStore.open(path) as other,
        other.transaction("hold the lock"),
        pytest.raises(StorageError, match="locked") as caught,
    ):
        store.append([feedback()])
    assert caught.value.retriable is True


def test_a_commit_that_met_a_lock_can_be_made_again(tmp_path):
    path = tmp_path / "log.db"
    with SqliteStore.open(path, busy_timeout_s=0.05) as store, SqliteStore.open(path) as other:
        sink = SqliteSink(store, max_steps=1)
        with other.transaction("hold the lock"), pytest.raises(StorageError):
            put(sink, 1, row("1"))
        sink.commit()
        assert [seq for seq, _ in store.rows()] == [1]


def test_a_full_disk_is_a_storage_error_and_stores_nothing(store):
    store.append([feedback()])
    (pages,) = store.database.execute("PRAGMA page_count").fetchone()
    store.database.execute(f"PRAGMA max_page_count = {pages}")
    big = [decision(str(i), prompt="x" * 50_000) for i in range(20)]
    with pytest.raises(StorageError, match="full") as caught:
        store.append(big)
    assert caught.value.retriable is True
    assert store.last_offset() == 1
    store.database.execute("PRAGMA max_page_count = 1000000")
    assert store.append(big)[-1] == 21


def test_a_write_that_fails_in_the_middle_leaves_nothing(store):
    def write_and_fail():
        with store.transaction("try") as connection:
            connection.execute("INSERT INTO meta VALUES ('a', 'b')")
            raise KeyError("interrupted")

    with pytest.raises(KeyError):
        write_and_fail()
    assert store.get_meta("a") is None
    store.set_meta("a", "c")
    assert store.get_meta("a") == "c"


def test_several_threads_may_append_through_stores_of_their_own(tmp_path):
    path = tmp_path / "log.db"
    SqliteStore.open(path).close()
    failures: list[Exception] = []

    def work(name: str) -> None:
        try:
            with SqliteStore.open(path) as own:
                for i in range(50):
                    own.append([feedback(f"{name}-{i}"), completion(f"{name}-{i}")])
        except StorageError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with SqliteStore.open(path) as store:
        found = store.read(0, 1000)
    assert [offset for offset, _ in found] == list(range(1, 301))
    pairs = zip(found[::2], found[1::2], strict=True)
    assert all(a[1].event_id == b[1].event_id for a, b in pairs)


def test_many_may_open_a_new_file_at_once(tmp_path):
    path = tmp_path / "log.db"
    failures: list[Exception] = []

    def work() -> None:
        try:
            SqliteStore.open(path).close()
        except (StorageError, InputError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with SqliteStore.open(path) as store:
        assert store.append([feedback()]) == [1]


def test_a_file_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"missing\.db"):
        SqliteStore.open(tmp_path / "missing.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_bad_input(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("just some notes, long enough to be looked at " * 100)
    with pytest.raises(InputError, match=r"notes\.txt is no SQLite database"):
        SqliteStore.open(path)


def test_a_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteStore.open(tmp_path)


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "log.db"
    with SqliteStore.open(path) as store:
        store.database["_sqlite_migrations"].insert(
            {"migration_set": "bandit_router", "name": "m999_future", "applied_at": "x"}
        )
    with pytest.raises(InputError, match="m999_future"):
        SqliteStore.open(path)


def test_the_file_is_in_wal_mode_and_syncs_as_told(tmp_path):
    with SqliteStore.open(tmp_path / "log.db", synchronous="FULL") as store:
        assert store.database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.database.execute("PRAGMA synchronous").fetchone() == (2,)
    with SqliteStore.open(tmp_path / "log.db") as store:
        assert store.database.execute("PRAGMA synchronous").fetchone() == (1,)


def test_any_tool_can_read_the_file(tmp_path):
    path = tmp_path / "log.db"
    with SqliteStore.open(path) as store:
        store.append([feedback("x")])
        sink = SqliteSink(store)
        put(sink, 1, row("x"))
        sink.commit()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT payload FROM events").fetchone() == (encode(feedback("x")),)
    assert connection.execute("SELECT payload FROM training").fetchone() == (encode_row(row("x")),)
    connection.close()
    assert {"events", "training"} <= set(Database(path).table_names())
