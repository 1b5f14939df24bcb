"""What an experiment reads of a store: decisions with their units, and what became of them.

Only the few fields that are needed are decoded, so that a log of any length is read quickly.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import StorageError


class Decided(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """A decision: who was served, in which variant, by which rules."""

    event_id: str
    unit_id: str = ""
    variant: str = "bandit"
    rules: tuple[str, ...] = ()


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="change"):
    """A change of something."""

    kind: str
    data: dict[str, Any] = {}


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="outcome"):
    """An outcome; ``kind`` is ``error`` where no answer was delivered."""

    event_id: str
    kind: str


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="interaction"):
    """A decision whose attribution window is over, with what is known of it."""

    event_id: str
    score: float | None = None
    cost_usd: float | None = None
    escalations: tuple[str, ...] = ()


Read = Decided | Changed | Happened

_decoder = msgspec.json.Decoder(Decided | Changed | Happened | Closed)


class UnitLog:
    """Reads a store. It owns nothing."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def last_offset(self) -> int:
        """Offset of the newest event."""
        return self._store.last_offset()

    def events(self, after: int, until: int, limit: int) -> list[tuple[int, Read | None]]:
        """Up to ``limit`` events with ``after < offset <= until``; None for one that is none."""
        found = self._rows(
            "SELECT offset, type, payload FROM events WHERE offset > ? AND offset <= ? "
            "ORDER BY offset LIMIT ?",
            after,
            until,
            limit,
        )
        return [
            (offset, None if kind == "dead_letter" else _read(payload, Read))
            for offset, kind, payload in found
        ]

    def closed(self, after: int, until: int) -> list[tuple[int, Closed | None]]:
        """Training rows after the row ``after`` that events up to offset ``until`` closed."""
        found = self._rows(
            "SELECT learn_seq, payload FROM training WHERE learn_seq > ? AND offset <= ? "
            "ORDER BY learn_seq",
            after,
            until,
        )
        return [(learn_seq, _read(payload, Closed)) for learn_seq, payload in found]

    def set_aside(self, after: int, until: int) -> Iterator[tuple[int, Decided | Closed]]:
        """Decisions and interactions that events with ``after < offset <= until`` set aside."""
        for offset, payload in self._rows(
            "SELECT offset, payload FROM rejected WHERE offset > ? AND offset <= ? "
            "ORDER BY offset, n",
            after,
            until,
        ):
            item = _read(payload, Decided | Closed)
            if item is not None:
                yield offset, item

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._translated():
            return self._store.database.conn.execute(query, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a fault in this code, not in the file
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self._store.path}: could not read units: {error}") from error


def _read(payload: bytes, form: Any) -> Any:
    """What is in ``payload``, where it is one of ``form``; else None."""
    try:
        item = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return item if isinstance(item, form) else None
