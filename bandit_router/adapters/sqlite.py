"""The embedded log: events, training rows, rejected items and snapshots in one SQLite file.

WAL, so that readers never wait for the writer. With ``synchronous=NORMAL`` a killed process loses
nothing it has committed; a power cut may lose the last commits, never the file (``FULL`` closes
that too). Every write is one transaction that begins IMMEDIATE, so several processes may append.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

import msgspec
from sqlite_utils import Database

from bandit_router.adapters.sqlite_schema import migrations
from bandit_router.adapters.sqlite_wal import use_wal
from bandit_router.errors import EventError, InputError, SnapshotError, StorageError
from bandit_router.events import (
    Change,
    Event,
    Row,
    clean_text,
    decode,
    decode_row,
    encode,
)
from bandit_router.loop import DeadLetter
from bandit_router.snapshot import Snapshot, unpack
from bandit_router.types import Decision

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""Primary result codes that a later, unchanged call may not meet again."""


_POSITION = "position:"

SEED, SEED_LOG, SEED_ROW = "seed", "seed:log", "seed:learn_seq"
"""Settings of a store that goes on from a snapshot which was made elsewhere: the snapshot's id, and
the last event and training row in it, which the store does not have."""

SOURCE_NAMES = ("changes", "decisions", "outcomes", "order")

_LAST = (
    "SELECT coalesce(max({0}), (SELECT CAST(value AS INTEGER) FROM meta WHERE key = '{2}'), 0) "
    "FROM {1}"
)
_LAST_OFFSET = _LAST.format("offset", "events", SEED_LOG)
_LAST_LEARN_SEQ = _LAST.format("learn_seq", "training", SEED_ROW)


class SqliteStore:
    """One database file. A store belongs to the thread that opened it; open one per thread.

    Use :meth:`open`. It is a context manager, and a :class:`~bandit_router.loop.Source`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self.database = Database(connection)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        create: bool = True,
        read_only: bool = False,
        synchronous: Synchronous = "NORMAL",
        busy_timeout_s: float = 5.0,
    ) -> Self:
        """Open a log, bringing its tables up to date; make it first if ``create``.

        Args:
            path: the file.
            create: make it when it is missing.
            read_only: change nothing, whatever is called; the tables must be up to date then.
            synchronous: when SQLite waits for the disk.
            busy_timeout_s: how long to wait for another writer, seconds.

        Raises:
            InputError: the file is not there (without ``create``), is no SQLite database, or was
                written by a newer version.
            StorageError: it cannot be opened, or stays locked for ``busy_timeout_s``.
        """
        path = Path(path)
        if (read_only or not create) and not path.is_file():
            raise InputError(f"{path}: there is no such database")
        where = f"{path.absolute().as_uri()}?mode=ro" if read_only else str(path)
        try:
            connection = sqlite3.connect(
                where, timeout=busy_timeout_s, isolation_level=None, uri=read_only
            )
        except sqlite3.Error as error:
            raise StorageError(f"{path}: cannot be opened: {error}") from error
        store = cls(connection, path)
        try:
            if not read_only:
                with store._translated("open"):
                    connection.execute(f"PRAGMA synchronous = {synchronous}")
                    use_wal(connection, wait_s=busy_timeout_s)
            store._migrate(read_only=read_only)
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Close the file. Uncommitted steps of a sink are lost; commit it first."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Events

    def append(
        self, events: Iterable[Event | bytes], *, positions: Mapping[str, int] | None = None
    ) -> list[int]:
        """Store events at the end of the log, all or none; returns their offsets.

        Raw bytes, as a transport delivers them, are stored as they are, valid or not: the log
        keeps what came, and :meth:`read` gives invalid ones as dead letters.

        Args:
            events: in the order they are to have.
            positions: how far each foreign source has been read with these events; stored in the
                same transaction, so that nothing is read twice or left out after a crash.

        Raises:
            EventError: an event breaks its schema; nothing is stored.
            StorageError: locked, disk full or damaged; nothing is stored.
        """
        records = [_record(event) for event in events]
        with self.transaction("append events") as connection:
            (last,) = connection.execute(_LAST_OFFSET).fetchone()
            offsets = list(range(last + 1, last + 1 + len(records)))
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                [(offset, *record) for offset, record in zip(offsets, records, strict=True)],
            )
            store_positions(connection, positions or {})
        return offsets

    def positions(self) -> dict[str, int]:
        """How far each foreign source has been read into the log."""
        with self._translated("read positions") as connection:
            found = connection.execute(
                "SELECT key, value FROM meta WHERE key >= ? AND key < ?",
                (_POSITION, _POSITION[:-1] + ";"),
            ).fetchall()
        return {key.removeprefix(_POSITION): int(value) for key, value in found}

    def read(self, after: int, limit: int) -> list[tuple[int, Event | DeadLetter]]:
        """Up to ``limit`` events with offsets above ``after``; see :class:`Source`."""
        with self._translated("read events") as connection:
            found = connection.execute(
                "SELECT offset, type, payload FROM events WHERE offset > ? ORDER BY offset LIMIT ?",
                (after, limit),
            ).fetchall()
        return [(offset, _event(payload, kind)) for offset, kind, payload in found]

    def last_offset(self) -> int:
        """Offset of the newest event; 0 when there is none, or that of the store's seed."""
        return self._one(_LAST_OFFSET)

    def sources(self, offset: int) -> dict[str, int]:
        """How far each topic of Kafka had been read once the event at ``offset`` was taken.

        For ``changes``, ``decisions`` and ``outcomes`` the next offset, for ``order`` that of the
        order journal's record by which the event came. Empty for an event that came otherwise.
        """
        with self._translated("read where an event came from") as connection:
            found = connection.execute(
                "SELECT changes, decisions, outcomes, journal FROM sources WHERE offset = ?",
                (offset,),
            ).fetchone()
        return dict(zip(SOURCE_NAMES, found, strict=True)) if found else {}

    def decision(self, event_id: str) -> Decision | None:
        """The stored decision of that id, or None."""
        with self._translated("read a decision") as connection:
            found = connection.execute(
                "SELECT payload FROM events WHERE event_id = ? AND type = 'decision' "
                "ORDER BY offset LIMIT 1",
                (clean_text(event_id),),
            ).fetchone()
        event = _event(found[0]) if found else None
        return event if isinstance(event, Decision) else None

    # The training log

    def rows(self, after: int = 0, until: int | None = None) -> Iterator[tuple[int, Row]]:
        """Training rows with ``after < learn_seq <= until``, in order.

        Raises:
            StorageError: a row is missing or damaged.
        """
        expected = after
        for learn_seq, payload in self.row_payloads(after, until):
            expected += 1
            if learn_seq != expected:
                raise _final(f"{self.path}: training row {expected} is missing")
            try:
                yield learn_seq, decode_row(payload)
            except EventError as error:
                raise _final(f"{self.path}: training row {learn_seq}: {error}") from error

    def last_learn_seq(self) -> int:
        """Number of the newest training row; 0 when there is none, or that of the seed."""
        return self._one(_LAST_LEARN_SEQ)

    def rejected_counts(self) -> dict[str, int]:
        """How many items were set aside, by reason."""
        with self._translated("count rejected items") as connection:
            return dict(
                connection.execute(
                    "SELECT reason, count(*) FROM rejected GROUP BY reason ORDER BY reason"
                ).fetchall()
            )

    def changes(self) -> list[tuple[int, Change]]:
        """What learning found out (drift alarms), in order, each with the offset of the event
        that closed the row which showed it.

        Raises:
            StorageError: one is damaged.
        """
        with self._translated("read changes") as connection:
            found = connection.execute(
                "SELECT offset, payload FROM changes ORDER BY offset, n"
            ).fetchall()
        events = [(offset, _event(payload)) for offset, payload in found]
        for offset, event in events:
            if not isinstance(event, Change):
                raise _final(f"{self.path}: the change of event {offset} is damaged")
        return events

    # Snapshots

    def snapshots(
        self, *, at_most: int | None = None, key: bytes | None = None
    ) -> Iterator[Snapshot]:
        """Those snapshots (with ``learn_seq <= at_most``) that verify, newest first."""
        for snapshot_id in self.snapshot_ids(at_most=at_most):
            try:
                yield self.snapshot(snapshot_id, key=key)
            except SnapshotError:
                continue  # an older one serves as well: the rows after it are in the log

    def snapshot(self, snapshot_id: str, *, key: bytes | None = None) -> Snapshot:
        """One stored snapshot, verified.

        Raises:
            InputError: there is none of that id.
            SnapshotError: it does not verify.
        """
        with self._translated("read a snapshot") as connection:
            found = connection.execute(
                "SELECT data FROM snapshots WHERE id = ?", (clean_text(snapshot_id),)
            ).fetchone()
        if found is None:
            raise InputError(f"{self.path} has no snapshot {snapshot_id!r:.80}")
        snapshot = unpack(found[0], key=key)
        if snapshot.id != snapshot_id:
            raise SnapshotError(f"what is stored as snapshot {snapshot_id} is {snapshot.id}")
        return snapshot

    def snapshot_ids(self, *, at_most: int | None = None) -> list[str]:
        """Ids of the stored snapshots (with ``learn_seq <= at_most``), newest first."""
        end = 2**63 - 1 if at_most is None else at_most
        with self._translated("list snapshots") as connection:
            found = connection.execute(
                "SELECT id FROM snapshots WHERE learn_seq <= ? ORDER BY learn_seq DESC, rowid DESC",
                (end,),
            )
            return [row[0] for row in found.fetchall()]

    def seed(self, *, key: bytes | None = None) -> Snapshot | None:
        """The snapshot that this store goes on from, or None when it has its log from the start.

        Raises:
            InputError, SnapshotError: it is gone, or does not verify.
        """
        snapshot_id = self.get_meta(SEED)
        return None if snapshot_id is None else self.snapshot(snapshot_id, key=key)

    # Settings

    def get_meta(self, key: str) -> str | None:
        """A setting stored beside the log, or None."""
        with self._translated("read a setting") as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Store a setting beside the log. Raises InputError when the text is not valid Unicode."""
        if clean_text(value) != value:
            raise InputError(f"the setting {key} has characters that cannot be stored")
        with self.transaction("store a setting") as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it, or none when an exception leaves the block."""
        with self._translated(what) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def commit_steps(
        self,
        rows: Sequence[tuple[int, int, str | None, bytes]],
        rejected: Sequence[tuple[int, int, str, bytes]],
        snapshots: Sequence[Snapshot],
        changes: Sequence[tuple[int, int, str, float, bytes]] = (),
        *,
        keep_snapshots: int | None = None,
    ) -> None:
        """Store what a run of the loop gave, in one transaction.

        Rows that are there already, because a run was interrupted after it had stored them, must
        be equal to the stored ones byte for byte.

        Args:
            rows: (learn_seq, offset, event_id, payload), consecutive.
            rejected: (offset, n, reason, payload).
            snapshots: taken after some of the rows.
            changes: (offset, n, kind, ts, payload).
            keep_snapshots: delete others than the newest so many and the first or the seed.

        Raises:
            StorageError: the write failed (``retriable``), or a row differs from the stored one or
                leaves a gap (not retriable: the log and its past do not fit together).
        """
        with self.transaction("store training rows") as connection:
            if rows:
                fresh = self._not_stored_yet(rows, connection)
                connection.executemany("INSERT INTO training VALUES (?, ?, ?, ?)", fresh)
            connection.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", rejected)
            self._put_changes(connection, changes)
            connection.executemany(
                "INSERT OR IGNORE INTO snapshots VALUES (?, ?, ?, ?)",
                [(s.id, s.manifest.learn_seq, manifest_text(s), s.data) for s in snapshots],
            )
            if snapshots and keep_snapshots is not None:
                connection.execute(
                    "DELETE FROM snapshots WHERE learn_seq > 0 AND id NOT IN "
                    "(SELECT id FROM snapshots ORDER BY learn_seq DESC, rowid DESC LIMIT ?) "
                    "AND id NOT IN (SELECT value FROM meta WHERE key = ?)",
                    (keep_snapshots, SEED),
                )

    def _put_changes(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[tuple[int, int, str, float, bytes]],
    ) -> None:
        connection.executemany("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?)", changes)

    def _not_stored_yet(
        self, rows: Sequence[tuple[int, int, str | None, bytes]], connection: sqlite3.Connection
    ) -> Sequence[tuple[int, int, str | None, bytes]]:
        (last,) = connection.execute(_LAST_LEARN_SEQ).fetchone()
        first = rows[0][0]
        if first > last + 1:
            raise _final(f"{self.path}: training row {last + 1} is missing before row {first}")
        known = min(max(last + 1 - first, 0), len(rows))
        if known:
            stored = connection.execute(
                "SELECT * FROM training WHERE learn_seq BETWEEN ? AND ? ORDER BY learn_seq",
                (first, first + known - 1),
            ).fetchall()
            for new, old in zip(rows, stored, strict=False):
                if new != old:
                    raise _final(
                        f"{self.path}: training row {new[0]} came out differently than it was "
                        "stored; the log was changed, or it was joined by other rules"
                    )
        return rows[known:]

    def _migrate(self, *, read_only: bool) -> None:
        known = {migration.name for migration in migrations._migrations}  # noqa: SLF001
        with self._translated("read the schema version"):
            foreign = {m.name for m in migrations.applied(self.database)} - known
            waiting = migrations.pending(self.database)
        if foreign:
            raise InputError(
                f"{self.path} was written by a newer version of bandit-router (it has "
                f"{', '.join(sorted(foreign))}); upgrade to read it"
            )
        if waiting and read_only:
            raise InputError(
                f"{self.path} was written by an older version of bandit-router; open it once with "
                "a command that writes to it (route, feedback, learn) to bring it up to date"
            )
        if waiting:
            # Inside one IMMEDIATE transaction, two processes that open a new file cannot collide.
            with self.transaction("create the tables"):
                migrations.apply(self.database)

    def row_payloads(self, after: int, until: int | None) -> Iterator[tuple[int, bytes]]:
        """As :meth:`rows`, undecoded. No read transaction stays open while the caller learns."""
        end = 2**63 - 1 if until is None else until
        while True:
            with self._translated("read training rows") as connection:
                page = connection.execute(
                    "SELECT learn_seq, payload FROM training "
                    "WHERE learn_seq > ? AND learn_seq <= ? ORDER BY learn_seq LIMIT 1000",
                    (after, end),
                ).fetchall()
            if not page:
                return
            yield from page
            after = page[-1][0]

    def _one(self, query: str) -> int:
        with self._translated("read") as connection:
            return connection.execute(query).fetchone()[0]

    @contextmanager
    def _translated(self, what: str) -> Iterator[sqlite3.Connection]:
        """Turns errors of sqlite3 into ours."""
        try:
            yield self._connection
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # a fault in this code, not in the file
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_NOTADB:
                raise InputError(f"{self.path} is no SQLite database") from error
            failure = StorageError(f"{self.path}: could not {what}: {error}")
            failure.retriable = code in _PASSING
            raise failure from error


def store_positions(connection: sqlite3.Connection, positions: Mapping[str, int]) -> None:
    """Within a transaction: remember how far each foreign source has been read."""
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        [(_POSITION + source, str(at)) for source, at in positions.items()],
    )


def _record(event: Event | bytes) -> tuple[str | None, str, float | None, bytes]:
    """(event_id, type, ts, payload) of an event as the table has it."""
    if isinstance(event, bytes):
        return record_of(_event(event), event)
    return record_of(event, encode(event))


def record_of(
    event: Event | DeadLetter, payload: bytes
) -> tuple[str | None, str, float | None, bytes]:
    """(event_id, type, ts, payload) as the table has it, of an event and its encoded form."""
    if isinstance(event, DeadLetter):
        return None, "dead_letter", None, payload
    if isinstance(event, Change):
        return None, "change", event.ts, payload
    kind = "decision" if isinstance(event, Decision) else "outcome"
    return clean_text(event.event_id), kind, event.ts, payload


def _event(payload: bytes, kind: str = "") -> Event | DeadLetter:
    try:
        event = decode(payload)
    except EventError as error:
        return DeadLetter(error.reason, payload)
    # A build that reads more than the one before must not change what the log has given.
    return DeadLetter("unknown_version", payload) if kind == "dead_letter" else event


def manifest_text(snapshot: Snapshot) -> str:
    """The manifest as the table has it, for people."""
    return msgspec.json.encode(snapshot.manifest).decode()


def _final(message: str) -> StorageError:
    """A StorageError that a retry cannot mend."""
    error = StorageError(message)
    error.retriable = False
    return error
