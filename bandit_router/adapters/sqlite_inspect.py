"""Looking into an embedded log while others write to it, and sending its dead letters again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bandit_router.adapters.kafka.dead_letters import DeadRecord, set_aside
from bandit_router.adapters.letters import Fresh, Letter
from bandit_router.adapters.records import Record
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import EventError, InputError, StorageError
from bandit_router.events import Change, clean_text, decode

TOPIC_OF_TYPE = {
    "decision": "decisions",
    "outcome": "outcomes",
    "change": "changes",
    "dead_letter": "dead_letters",
}
"""The topic of each type of event in the log."""

DEAD_REASONS = frozenset({"null", "oversize", "undecodable", "unknown_version", "invalid"})
"""Why a record is no event; whatever has another reason is one, and was of no use."""

_PAGE = 200


class StoreInspector:
    """Reads a log, and changes nothing. A context manager.

    Raises:
        InputError: there is no such file, or it is no log.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: there is no such database")
        self.path = path
        with self._translated("open"):
            uri = f"{path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            self._rows("SELECT 1 FROM events, rejected LIMIT 1")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def last(self, most: int, *, topic: str | None = None, app: str | None = None) -> list[Record]:
        """The newest ``most`` events, oldest first; of one topic, of one app."""
        found: list[Record] = []
        before = 2**63 - 1
        while len(found) < most:
            page = self._page("offset < ? ORDER BY offset DESC", before)
            found += [record for record in page if _wanted(record, topic, app)]
            if not page:
                break
            before = page[-1].offset
        return found[:most][::-1]

    def after(
        self, offset: int, *, topic: str | None = None, app: str | None = None
    ) -> Iterator[Record]:
        """The events after ``offset`` that are there now."""
        while page := self._page("offset > ? ORDER BY offset", offset):
            yield from (record for record in page if _wanted(record, topic, app))
            offset = page[-1].offset

    def last_offset(self) -> int:
        """Offset of the newest event; 0 when there is none."""
        return self._rows("SELECT coalesce(max(offset), 0) FROM events")[0][0]

    def letters(self) -> Iterator[Letter]:
        """Everything that was set aside, in the order of the log."""
        after = (-1, -1)
        while page := self._rows(
            "SELECT rejected.offset, n, reason, rejected.payload, events.ts FROM rejected "
            "LEFT JOIN events USING (offset) WHERE (rejected.offset, n) > (?, ?) "
            "ORDER BY rejected.offset, n LIMIT ?",
            *after,
            _PAGE,
        ):
            for offset, _, reason, payload, ts in page:
                yield self._letter(offset, reason, payload, ts)
            after = page[-1][:2]

    def has(self, data: bytes) -> bool:
        """Whether the log has this very event, as an event."""
        try:
            event = decode(data)
        except EventError:
            return False
        event_id = None if isinstance(event, Change) else clean_text(event.event_id)
        query = "SELECT 1 FROM events WHERE event_id IS ? AND type <> 'dead_letter' AND payload = ?"
        return bool(self._rows(f"{query} LIMIT 1", event_id, data))

    def _letter(self, offset: int, reason: str, payload: bytes, ts: float | None) -> Letter:
        dead = reason in DEAD_REASONS
        record: DeadRecord = set_aside(
            reason, payload, topic="events", offset=offset, app=_app(payload), ts=ts or 0.0
        )
        return Letter(
            record=record,
            partition=None,
            offset=offset,
            replayed=dead and self.has(payload),
            dead=dead,
        )

    def _page(self, condition: str, offset: int) -> list[Record]:
        return [
            Record(
                topic=TOPIC_OF_TYPE.get(kind, kind),
                partition=None,
                offset=at,
                ts=ts,
                key=None,
                value=payload,
            )
            for at, kind, ts, payload in self._rows(
                f"SELECT offset, type, ts, payload FROM events WHERE {condition} LIMIT {_PAGE}",  # noqa: S608 - the condition is one of two above
                offset,
            )
        ]

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._translated("read"):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise InputError(f"{self.path} is no SQLite database") from error
            if "no such table" in str(error):
                raise InputError(f"{self.path} is no event log: {error}") from error
            raise StorageError(f"{self.path}: could not {what}: {error}") from error


class StoreLetters:
    """What a store has set aside: a :class:`~bandit_router.adapters.letters.Letters`.

    That a letter was sent again needs no mark of its own: the log has the same bytes as an event.

    Raises:
        InputError: there is no such store, or its log comes from Kafka.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._store = SqliteStore.open(path, create=False)
        try:
            _refuse_fed_from_kafka(self._store)
            self._inspector = StoreInspector(path)
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._inspector.close()
        self._store.close()

    def letters(self) -> Iterator[Letter]:
        """Everything that was set aside, in the order of the log."""
        return self._inspector.letters()

    def sent_before(self, fresh: Fresh) -> bool:
        """Whether the log has it."""
        return self._inspector.has(fresh.data)

    def send(self, batch: Sequence[Fresh]) -> None:
        """Append to the log; whoever learns on it takes them from there."""
        self._store.append([fresh.data for fresh in batch])


def _refuse_fed_from_kafka(store: SqliteStore) -> None:
    """What is appended here would stand in no other copy of that log."""
    if store.positions():
        raise InputError(
            f"{store.path} is filled from Kafka, in an order that is agreed there; replay with "
            'events.transport = "kafka"'
        )


def _wanted(record: Record, topic: str | None, app: str | None) -> bool:
    if topic is not None and record.topic != topic:
        return False
    return app is None or _app(record.value) == app


def _app(data: bytes | None) -> str:
    """The app of an event; "" of what is none."""
    try:
        return decode(data).app
    except EventError:
        return ""
