"""The outbox: events that wait to be sent, in one SQLite file beside the process that makes them.

A request only ever does one INSERT here; a relay reads what is there, sends it, and takes it out.
WAL with ``synchronous=NORMAL``: what :meth:`Outbox.put` has taken survives a killed process
(``FULL``: a power cut too). Three things keep a put short while the relay works: checkpoints are
the relay's alone; it notes what was sent by moving a cursor, and removes the rows at leisure; and
one INSERT is one transaction, which finds the next number and the room that is left by itself.

Rows are numbered without gaps and sent in order, so that the newest one and the cursor, the last
one that was sent, tell how many and how many bytes are waiting.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self, TypeVar

import msgspec

from bandit_router.errors import ConfigError, InputError, OutboxFullError, StorageError

DECISION_SHARE = 0.9
"""Of the room: what decisions may fill. The rest is for the outcomes of those that were taken."""

DISK_MARGIN = 1_000_000
"""Free bytes of disk, beside the WAL's size, below which a put is refused: taking rows out and
moving the WAL into the file need room as well, and on a full disk nothing could leave any more."""

_APPLICATION_ID = 0x62726F62
_VERSION = 1
_ROW_BYTES = 48  # what a row takes beside its key, value and headers, about
_RETRY_S = 0.0002
_OPEN_TIMEOUT_S = 5.0
_TRIM_ROWS = 64
_CHECKPOINT_BYTES = 4_000_000
_RESTART_BYTES = 64_000_000
_UNTENDED_BYTES = 128_000_000
"""A WAL that long has no relay that tends it: the puts do, and take longer now and then."""

_TABLES = (
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        ts REAL NOT NULL,
        total INTEGER NOT NULL,
        topic TEXT NOT NULL,
        app TEXT NOT NULL,
        headers BLOB,
        value BLOB
    )""",
    "CREATE TABLE cursor (only INTEGER PRIMARY KEY CHECK (only = 1), id INTEGER, total INTEGER)",
    "INSERT INTO cursor VALUES (1, 0, 0)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)

_LAST = """(SELECT max(id) AS id, max(total) AS total FROM (
    SELECT id, total FROM cursor
    UNION ALL SELECT * FROM (SELECT id, total FROM events ORDER BY id DESC LIMIT 1)))"""

_PUT = f"""INSERT INTO events
SELECT last.id + 1, ?1, last.total + ?2, ?3, ?4, ?5, ?6 FROM cursor, {_LAST} AS last
WHERE last.id - cursor.id < ?7 AND last.total - cursor.total + ?2 <= ?8"""  # noqa: S608 - constants

_BACKLOG = f"""SELECT last.id - cursor.id, last.total - cursor.total,
(SELECT ts FROM events WHERE events.id > cursor.id ORDER BY id LIMIT 1)
FROM cursor, {_LAST} AS last"""  # noqa: S608 - same

_READ = """SELECT id, ts, total, topic, app, headers, value FROM events
WHERE id > ? ORDER BY id LIMIT ?"""

_ACKNOWLEDGE = """UPDATE cursor SET (id, total) = (sent.id, sent.total)
FROM (SELECT id, total FROM events WHERE id = ?) AS sent WHERE sent.id > cursor.id"""

_SENT = """SELECT first.id, cursor.id FROM cursor,
(SELECT id FROM events ORDER BY id LIMIT 1) AS first WHERE first.id <= cursor.id"""

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""Primary result codes that a later, unchanged call may not meet again."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Headers = tuple[tuple[str, bytes], ...]
Result = TypeVar("Result")

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class Outgoing(msgspec.Struct, frozen=True):
    """One record to be sent.

    Attributes:
        topic: short name, e.g. ``decisions``.
        key: the app; it decides the partition.
        value: the encoded event, or None.
        headers: (name, value) pairs.
    """

    topic: str
    key: str
    value: bytes | None
    headers: Headers = ()


class Waiting(msgspec.Struct, frozen=True):
    """A record in the outbox.

    Attributes:
        id: consecutive, ascending in the order of the puts.
        ts: when it was put, seconds since the Unix epoch.
        size: bytes that it takes of the room.
    """

    id: int
    ts: float
    size: int
    record: Outgoing


class Backlog(msgspec.Struct, frozen=True):
    """What waits to be sent: how many events, how many bytes, and for how long the oldest has."""

    events: int
    bytes: int
    oldest_s: float


class Outbox:
    """One outbox file, opened. Its methods may be called from any thread, one at a time each.

    The sender and the relay open the file once each, so that neither waits for the other's calls.
    Make it with :meth:`open`; it is a context manager.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        max_events: int,
        max_bytes: int,
        busy_timeout_s: float,
    ) -> None:
        self.path = path
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._busy_timeout_s = busy_timeout_s
        self._patience_s = busy_timeout_s
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        max_events: int = 500_000,
        max_bytes: int = 2_000_000_000,
        busy_timeout_s: float = 0.25,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        check: bool = True,
    ) -> Self:
        """Open an outbox, made when it is missing.

        Args:
            max_events, max_bytes: most that may wait; >= 1.
            busy_timeout_s: how long a put waits for somebody who holds a lock on the file, seconds.
                After one has waited in vain the next do not wait at all, until one succeeds.
            synchronous: ``FULL`` survives a power cut too, and costs an fsync for each put.
            check: read the whole file for damage.

        Raises:
            ConfigError: ``max_events`` or ``max_bytes`` is below 1.
            InputError: the file is no outbox, or was written by a newer version.
            StorageError: it cannot be opened, is locked or damaged.
        """
        path = Path(path)
        if max_events < 1 or max_bytes < 1:
            raise ConfigError(f"{path}: an outbox of {max_events} events, {max_bytes} bytes")
        with _translated(path, "open"):
            connection = sqlite3.connect(
                path, timeout=_OPEN_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        outbox = cls(
            connection,
            path,
            max_events=max_events,
            max_bytes=max_bytes,
            busy_timeout_s=busy_timeout_s,
        )
        try:
            outbox._prepare(synchronous, check=check)
        except BaseException:
            connection.close()
            raise
        return outbox

    def close(self) -> None:
        """Close the file; what waits in it stays."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, records: Sequence[Outgoing], *, reserve: bool = False) -> None:
        """Take records, all or none. When it returns, they survive the end of the process.

        Args:
            reserve: they may use the last tenth of the room.

        Raises:
            OutboxFullError: there is no room; nothing was taken.
            StorageError: the disk is full or the file locked or damaged; nothing was taken.
        """
        now = time.time()
        share = 1.0 if reserve else DECISION_SHARE
        room = (max(1, int(self._max_events * share)), max(1, int(self._max_bytes * share)))
        rows = [(now, *_row(record), *room) for record in records]
        with self._lock:
            wal_bytes = self._check_disk(DISK_MARGIN if reserve else 2 * DISK_MARGIN)
            taken = self._patiently(lambda: self._insert(rows), "take events")
        if wal_bytes > _UNTENDED_BYTES:
            with suppress(StorageError):  # what was taken is taken
                self.tidy()
        if not taken:
            waiting = self.backlog()
            raise OutboxFullError(
                f"{self.path} is full: {waiting.events} events of {waiting.bytes} bytes wait to be "
                "sent; it takes more when Kafka has acknowledged some"
            )

    def backlog(self) -> Backlog:
        """What waits to be sent.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._lock, _translated(self.path, "count what waits"):
            events, size, oldest = self._connection.execute(_BACKLOG).fetchone()
        return Backlog(events, size, max(0.0, time.time() - oldest) if oldest is not None else 0.0)

    # For the relay

    def read(self, after: int, limit: int) -> list[Waiting]:
        """Up to ``limit`` records with ids above ``after``, in order.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._lock, _translated(self.path, "read events"):
            rows = self._connection.execute(_READ, (after, limit)).fetchall()
        return [
            Waiting(
                number,
                ts,
                _size(app, headers, value),
                Outgoing(topic, app, value, _decode_headers(headers) if headers else ()),
            )
            for number, ts, _, topic, app, headers, value in rows
        ]

    def acknowledged(self) -> int:
        """The id of the last record that was sent; 0 before the first.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._lock, _translated(self.path, "read the cursor"):
            return self._connection.execute("SELECT id FROM cursor").fetchone()[0]

    def acknowledge(self, up_to: int) -> None:
        """Count every record up to that id as sent: it waits no more, and its room is free.

        Raises:
            StorageError: it failed; nothing has changed.
        """
        with self._lock:
            self._patiently(
                lambda: self._connection.execute(_ACKNOWLEDGE, (up_to,)), "note what was sent"
            )

    def trim(self) -> int:
        """Remove a few records that were sent; returns how many more there are to be removed.

        That takes the file's lock, so whoever calls it often rests in between.

        Raises:
            StorageError: it failed; nothing has changed.
        """
        with self._lock, _translated(self.path, "find what was sent"):
            found = self._connection.execute(_SENT).fetchone()
        if found is None:
            return 0
        first, sent = found
        last = min(first + _TRIM_ROWS - 1, sent)
        with self._lock:
            self._patiently(
                lambda: self._connection.execute("DELETE FROM events WHERE id <= ?", (last,)),
                "remove what was sent",
            )
        return sent - last

    def tidy(self) -> None:
        """Move what is in the WAL into the file, if it has become long.

        A checkpoint does not hold up puts; only when that has not been enough for long, because
        puts never pause, does one make them wait for some milliseconds.

        Raises:
            StorageError: the disk is full or the file damaged.
        """
        size = _size_of(self._wal)
        if size < _CHECKPOINT_BYTES:
            return
        with self._lock, _translated(self.path, "move the WAL into the file"):
            _, frames, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if size >= _RESTART_BYTES and frames > moved:
                self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def _prepare(self, synchronous: str, *, check: bool) -> None:
        with _translated(self.path, "open"):
            connection = self._connection
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
            if not empty and found != _APPLICATION_ID:
                raise InputError(f"{self.path} is a SQLite database, but no outbox")
            if version > _VERSION:
                raise InputError(f"{self.path} was written by a newer version of bandit-router")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA secure_delete = OFF")  # Debian: on, which doubles the locks
            connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            if version < _VERSION:
                self._create()
            if check:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise _damaged(self.path, verdict)
            connection.execute("PRAGMA busy_timeout = 0")

    def _create(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Of two processes that open a new file, the second finds it made.
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                for statement in _TABLES:
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _check_disk(self, margin: int) -> int:
        """The size of the WAL, once there is room for a put."""
        try:
            disk = os.statvfs(self.path)
        except OSError as error:
            raise StorageError(f"{self.path}: the file is gone: {error.strerror}") from error
        free, wal_bytes = disk.f_bavail * disk.f_frsize, _size_of(self._wal)
        if free < margin + wal_bytes:
            raise StorageError(f"{self.path}: the disk is nearly full: {free} bytes are free")
        return wal_bytes

    def _insert(self, rows: Sequence[tuple]) -> bool:
        """Whether there was room."""
        connection = self._connection
        if len(rows) == 1:
            return connection.execute(_PUT, rows[0]).rowcount == 1
        with _transaction(connection):
            for row in rows:
                if connection.execute(_PUT, row).rowcount != 1:
                    connection.execute("ROLLBACK")
                    return False
        return True

    def _patiently(self, write: Callable[[], Result], what: str) -> Result:
        """``write()``, tried again while somebody else holds a lock.

        SQLite's own busy handler sleeps for milliseconds where the relay's lock lasts for less.
        """
        deadline = None
        with _translated(self.path, what):
            while True:
                try:
                    result = write()
                except sqlite3.OperationalError as error:
                    if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY:
                        raise
                    now = time.monotonic()
                    deadline = now + self._patience_s if deadline is None else deadline
                    if now >= deadline:
                        self._patience_s = 0.0
                        raise
                    time.sleep(_RETRY_S)
                else:
                    self._patience_s = self._busy_timeout_s
                    return result


def _row(record: Outgoing) -> tuple[int, str, str, bytes | None, bytes | None]:
    """(size, topic, app, headers, value) of a record as the table has them."""
    headers = _encode_headers(record.headers) if record.headers else None
    return (
        _size(record.key, headers, record.value),
        record.topic,
        record.key,
        headers,
        record.value,
    )


def _size(app: str, headers: bytes | None, value: bytes | None) -> int:
    return _ROW_BYTES + len(app) + len(headers or b"") + len(value or b"")


def _size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - half of pathlib's time, in every request
    except OSError:
        return 0


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction, unless the block has rolled it back itself."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated(path: Path, what: str) -> Iterator[None]:
    """Turns errors of sqlite3 into ours."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise StorageError(f"{path}: could not {what}: {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise _damaged(path, str(error)) from error
        failure = StorageError(f"{path}: could not {what}: {error}")
        failure.retriable = code in _PASSING
        raise failure from error


def _damaged(path: Path, how: str) -> StorageError:
    """The error of a file that cannot be trusted; it is left as it is for whoever can mend it."""
    how = " ".join(how.replace("*** in database main ***", "").split())
    error = StorageError(
        f"{path} is damaged ({how}). What it holds has not been sent: keep a copy, then move it "
        "away, or set events.outbox to another file"
    )
    error.retriable = False
    return error
