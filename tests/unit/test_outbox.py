"""The outbox: what a put has taken is there, in order, bounded, whatever happens to the process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandit_router.adapters import outbox as module
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import ConfigError, InputError, OutboxFullError, StorageError


def record(number: int, size: int = 100) -> Outgoing:
    return Outgoing("decisions", f"app/{number % 3}", b"%d:" % number + b"x" * size)


def values(outbox: Outbox, after: int = 0) -> list[bytes | None]:
    return [waiting.record.value for waiting in outbox.read(after, 1_000_000)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path) -> Iterator[Outbox]:
    with Outbox.open(path) as opened:
        yield opened


def test_records_come_back_as_they_were_put_and_in_that_order(outbox):
    records = [
        record(0),
        Outgoing("outcomes", "a", None),
        Outgoing("changes", "äpp", b"", (("reason", b"\xff\x00"), ("n", b""))),
    ]
    outbox.put(records)
    outbox.put([record(1)])
    waiting = outbox.read(0, 100)
    assert [item.record for item in waiting] == [*records, record(1)]
    assert [item.id for item in waiting] == [1, 2, 3, 4]
    assert outbox.read(2, 1)[0].id == 3
    assert abs(waiting[0].ts - time.time()) < 60


def test_what_was_sent_waits_no_more_and_numbers_are_never_used_again(path, outbox):
    outbox.put([record(n) for n in range(10)])
    outbox.acknowledge(4)
    assert outbox.acknowledged() == 4
    assert outbox.backlog().events == 6
    outbox.acknowledge(2)  # of a while ago
    assert outbox.acknowledged() == 4
    outbox.acknowledge(10)
    while outbox.trim():
        pass
    assert outbox.backlog() == module.Backlog(0, 0, 0.0)
    outbox.close()
    with Outbox.open(path) as again:
        again.put([record(10)])
        assert [item.id for item in again.read(again.acknowledged(), 10)] == [11]


def test_trimming_removes_what_was_sent_and_nothing_else(outbox, monkeypatch):
    monkeypatch.setattr(module, "_TRIM_ROWS", 3)
    outbox.put([record(n) for n in range(10)])
    assert outbox.trim() == 0
    outbox.acknowledge(7)
    assert [outbox.trim(), outbox.trim(), outbox.trim(), outbox.trim()] == [4, 1, 0, 0]
    assert [item.id for item in outbox.read(0, 100)] == [8, 9, 10]


def test_a_backlog_says_how_much_and_for_how_long(outbox, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    outbox.put([record(0)])
    now[0] += 5.0
    outbox.put([record(1, size=1000)])
    now[0] += 2.0
    full = outbox.backlog()
    assert (full.events, full.oldest_s) == (2, 7.0)
    outbox.acknowledge(1)
    rest = outbox.backlog()
    assert (rest.events, rest.oldest_s) == (1, 2.0)
    assert 1000 < rest.bytes < full.bytes - 100


def test_decisions_leave_the_last_tenth_of_the_count_to_outcomes(path):
    with Outbox.open(path, max_events=20) as small:
        for n in range(18):
            small.put([record(n)])
        with pytest.raises(OutboxFullError, match=r"18 events of .* wait to be sent"):
            small.put([record(18)])
        small.put([record(18), record(19)], reserve=True)
        with pytest.raises(OutboxFullError):
            small.put([record(20)], reserve=True)
        small.acknowledge(3)
        small.put([record(20)])
        assert values(small, 3) == [record(n).value for n in range(3, 21)]


def test_decisions_leave_the_last_tenth_of_the_bytes_to_outcomes(path):
    with Outbox.open(path, max_events=1000, max_bytes=10_000) as small:
        small.put([record(0, size=8000)])
        with pytest.raises(OutboxFullError):
            small.put([record(1, size=1200)])
        small.put([record(1, size=1200)], reserve=True)


def test_records_are_taken_all_or_none(path):
    with Outbox.open(path, max_events=10) as small:
        with pytest.raises(OutboxFullError):
            small.put([record(n) for n in range(11)], reserve=True)
        assert small.backlog().events == 0


def test_an_outbox_of_one_event_takes_it(path):
    with Outbox.open(path, max_events=1) as tiny:
        tiny.put([record(0)])
        with pytest.raises(OutboxFullError):
            tiny.put([record(1)], reserve=True)


def test_threads_and_connections_that_put_at_once_lose_nothing(path):
    counted = 200

    def put(box: Outbox, first: int) -> None:
        for n in range(first, first + counted):
            box.put([record(n)])

    with Outbox.open(path, busy_timeout_s=10.0) as one, Outbox.open(path) as sent:
        with Outbox.open(path, busy_timeout_s=10.0) as two:
            threads = [
                threading.Thread(target=put, args=(box, counted * i))
                for i, box in enumerate((one, one, two))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        waiting = sent.read(0, 10_000)
        assert [item.id for item in waiting] == list(range(1, 3 * counted + 1))
        numbers = [int((item.record.value or b"").split(b":")[0]) for item in waiting]
        assert sorted(numbers) == list(range(3 * counted))
        for first in range(0, 3 * counted, counted):
            own = [n for n in numbers if first <= n < first + counted]
            assert own == sorted(own)


def test_a_lock_that_somebody_holds_is_waited_for_once_and_briefly(path, outbox):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(StorageError, match="locked") as caught:
            outbox.put([record(0)])
        first = time.monotonic() - begun
        assert caught.value.retriable
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(StorageError):
                outbox.put([record(0)])
        assert (time.monotonic() - begun) / 20 < first / 5  # these do not wait
        assert 0.2 < first < 5.0
        other.execute("ROLLBACK")
    outbox.put([record(1)])
    assert values(outbox) == [record(1).value]


def test_a_short_lock_is_waited_for(path, outbox):
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.05, other.execute, ["ROLLBACK"])
        release.start()
        outbox.put([record(0)])
        release.join()
    assert values(outbox) == [record(0).value]


def put_until_refused(outbox: Outbox) -> tuple[int, StorageError]:
    """How many records of 1000 bytes it takes, and why no more."""
    for taken in range(100_000):
        try:
            outbox.put([record(taken, size=1000)])
        except StorageError as error:
            return taken, error
    raise AssertionError("it took everything")


def test_a_file_that_may_not_grow_takes_nothing_more_and_goes_on_when_it_may(outbox):
    outbox._connection.execute("PRAGMA max_page_count = 20")
    taken, error = put_until_refused(outbox)
    assert "full" in str(error)
    assert error.retriable
    assert not isinstance(error, OutboxFullError)
    assert values(outbox) == [record(n, size=1000).value for n in range(taken)]
    outbox.acknowledge(taken)
    while outbox.trim():
        pass
    outbox.put([record(1)])
    assert outbox.backlog().events == 1


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    junk = folder / "junk"
    with contextlib.suppress(OSError), junk.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    return junk


def test_on_a_disk_that_others_have_filled_a_put_fails_and_later_ones_do_not(small_disk):
    with Outbox.open(small_disk / "outbox.db") as outbox:
        outbox.put([record(0)])
        junk = fill_disk(small_disk)
        for reserve in (False, True):
            with pytest.raises(StorageError, match="nearly full"):
                outbox.put([record(1)], reserve=reserve)
        assert values(outbox) == [record(0).value]
        junk.unlink()
        outbox.put([record(1)])
        assert values(outbox) == [record(0).value, record(1).value]


def test_an_outbox_that_fills_its_disk_can_still_be_emptied(small_disk):
    with Outbox.open(small_disk / "outbox.db") as outbox:
        taken, error = put_until_refused(outbox)
        assert "nearly full" in str(error)
        assert taken > 100
        outbox.put([record(taken)], reserve=True)  # an outcome of a decision that was taken
        assert len(outbox.read(0, 10_000)) == taken + 1
        outbox.acknowledge(taken + 1)
        while outbox.trim():
            pass
        outbox._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        outbox.put([record(0)])
        assert outbox.backlog().events == 1


def test_the_wal_is_moved_into_the_file_when_it_is_long(path, outbox, monkeypatch):
    monkeypatch.setattr(module, "_CHECKPOINT_BYTES", 100_000)
    wal = path.with_name("outbox.db-wal")
    for _ in range(40):
        for n in range(10):
            outbox.put([record(n, size=1000)])
        outbox.tidy()
        outbox.acknowledge(10_000_000)
    assert wal.stat().st_size < 400_000
    assert len(outbox.read(0, 10_000)) == 400


def test_a_long_wal_is_begun_anew_even_when_puts_never_pause(path, outbox, monkeypatch):
    monkeypatch.setattr(module, "_CHECKPOINT_BYTES", 10_000)
    monkeypatch.setattr(module, "_RESTART_BYTES", 20_000)
    with Outbox.open(path, check=False) as relay:
        for n in range(100):
            outbox.put([record(n, size=1000)])
            relay.tidy()
    assert path.with_name("outbox.db-wal").stat().st_size < 200_000


def test_a_wal_that_no_relay_tends_is_bounded_all_the_same(path, outbox, monkeypatch):
    for name in ("_CHECKPOINT_BYTES", "_RESTART_BYTES", "_UNTENDED_BYTES"):
        monkeypatch.setattr(module, name, 50_000)
    for n in range(300):
        outbox.put([record(n, size=1000)])
    assert path.with_name("outbox.db-wal").stat().st_size < 150_000
    assert outbox.backlog().events == 300


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_the_configured_durability_is_in_force(path, synchronous):
    with Outbox.open(path, synchronous=synchronous) as outbox:
        (level,) = outbox._connection.execute("PRAGMA synchronous").fetchone()
    assert level == {"NORMAL": 1, "FULL": 2}[synchronous]


def test_a_file_that_is_no_outbox_is_refused_and_left_alone(tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"no database\n" * 1000)
    with pytest.raises(StorageError, match=r"is damaged .*move it away") as caught:
        Outbox.open(text)
    assert not caught.value.retriable
    assert text.read_bytes() == b"no database\n" * 1000
    SqliteStore.open(tmp_path / "store.db").close()
    with pytest.raises(InputError, match="but no outbox"):
        Outbox.open(tmp_path / "store.db")


def test_a_damaged_outbox_is_told_at_the_start_and_left_where_it_is(path):
    with Outbox.open(path) as outbox:
        for n in range(200):
            outbox.put([record(n, size=500)])
    content = bytearray(path.read_bytes())
    content[4096 * 10 : 4096 * 12] = os.urandom(8192)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"is damaged .*keep a copy"):
        Outbox.open(path)
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_refused(path):
    Outbox.open(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer version"):
        Outbox.open(path)


def test_bounds_below_one_are_refused(path):
    with pytest.raises(ConfigError, match="0 events"):
        Outbox.open(path, max_events=0)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageError, match="could not open"):
        Outbox.open(tmp_path / "nowhere" / "outbox.db")


def test_a_closed_outbox_says_so(path):
    outbox = Outbox.open(path)
    outbox.close()
    with pytest.raises(StorageError, match="closed database"):
        outbox.put([record(0)])
