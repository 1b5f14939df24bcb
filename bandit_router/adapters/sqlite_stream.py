"""The embedded log of an app whose events come from Kafka.

Beside what every log has, it knows of each event how far the topics had been read with it, and it
holds records that are to be sent until the broker has them. Both are written in the transaction
that stores the events, so a crash can neither lose them nor separate them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite import (
    SEED,
    SEED_LOG,
    SEED_ROW,
    SOURCE_NAMES,
    SqliteStore,
    manifest_text,
    record_of,
    store_positions,
)
from bandit_router.errors import FencedError, InputError, SnapshotError
from bandit_router.events import Event
from bandit_router.loop import DeadLetter
from bandit_router.snapshot import Snapshot

CHANGES = "changes"

_pack_headers = msgspec.msgpack.Encoder().encode
_unpack_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


class Arrival(msgspec.Struct, frozen=True, eq=False):
    """One record of an app, in its place.

    Attributes:
        payload: the record's value, as it came; empty for null.
        event: what it decodes to.
        sources: how far ``changes``, ``decisions``, ``outcomes`` and the order journal have been
            read with it; see :meth:`SqliteStore.sources`.
    """

    payload: bytes
    event: Event | DeadLetter
    sources: tuple[int, int, int, int]


class StreamStore(SqliteStore):
    """A :class:`SqliteStore` that is filled from Kafka."""

    def ingest(
        self,
        arrivals: Sequence[Arrival],
        *,
        before: Mapping[str, int],
        after: Mapping[str, int],
        outgoing: Sequence[Outgoing] = (),
    ) -> list[int]:
        """Store a part of the stream, in one transaction; returns the offsets in the log.

        Args:
            arrivals: the app's records, in order.
            before: the positions that the caller believes the store to have.
            after: the positions that it is to have.
            outgoing: what is to be sent because of these records.

        Raises:
            FencedError: the store is elsewhere: another process has written to it.
            StorageError: locked, disk full or damaged; nothing is stored.
        """
        with self.transaction("store events") as connection:
            stored = self.positions()
            if stored != before:
                raise FencedError(
                    f"{self.path}: another learner has brought it to {stored}, this one had it at "
                    f"{dict(before)}"
                )
            first = self.last_offset() + 1
            offsets = list(range(first, first + len(arrivals)))
            numbered = list(zip(offsets, arrivals, strict=True))
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                [(offset, *record_of(a.event, a.payload)) for offset, a in numbered],
            )
            connection.executemany(
                "INSERT INTO sources VALUES (?, ?, ?, ?, ?)",
                [(offset, *a.sources) for offset, a in numbered],
            )
            store_positions(connection, after)
            _queue(connection, outgoing)
        return offsets

    def plant(self, snapshot: Snapshot) -> None:
        """Make an empty store one that goes on from a snapshot which was made elsewhere.

        Raises:
            InputError: the store is not empty.
            SnapshotError: the snapshot does not say where in Kafka it was taken.
        """
        offsets = snapshot.manifest.offsets
        if not set(SOURCE_NAMES) <= set(offsets):
            raise SnapshotError(f"snapshot {snapshot.id} does not say where in Kafka it was taken")
        with self.transaction("plant a snapshot") as connection:
            if self.last_offset() or self.snapshot_ids():
                raise InputError(f"{self.path} is not empty; a snapshot cannot be planted in it")
            connection.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?)",
                (snapshot.id, snapshot.manifest.learn_seq, manifest_text(snapshot), snapshot.data),
            )
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    (SEED, snapshot.id),
                    (SEED_LOG, str(max(offsets["log"], 0))),
                    (SEED_ROW, str(snapshot.manifest.learn_seq)),
                ],
            )
            store_positions(connection, {name: offsets[name] for name in SOURCE_NAMES})

    def rebase(self, positions: Mapping[str, int]) -> None:
        """Go on from other positions: Kafka has lost what the stored ones speak of."""
        with self.transaction("store positions") as connection:
            store_positions(connection, positions)

    def queue(self, outgoing: Sequence[Outgoing]) -> None:
        """Store records that are to be sent."""
        with self.transaction("store records to be sent") as connection:
            _queue(connection, outgoing)

    def outgoing(self, limit: int = 500) -> list[tuple[int, Outgoing]]:
        """The first of the records that are to be sent, each with its number."""
        with self._translated("read records to be sent") as connection:
            found = connection.execute(
                "SELECT id, topic, key, value, headers FROM outgoing ORDER BY id LIMIT ?", (limit,)
            ).fetchall()
        return [
            (number, Outgoing(topic, key, value, _unpack_headers(headers)))
            for number, topic, key, value, headers in found
        ]

    def sent(self, number: int) -> None:
        """Forget the records up to ``number``: the broker has them."""
        with self.transaction("forget sent records") as connection:
            connection.execute("DELETE FROM outgoing WHERE id <= ?", (number,))

    def _put_changes(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[tuple[int, int, str, float, bytes]],
    ) -> None:
        """Store alarms; those that are new are to be sent. After a crash they come once more."""
        for change in changes:
            known = connection.execute(
                "SELECT 1 FROM changes WHERE offset = ? AND n = ?", change[:2]
            ).fetchone()
            if known is None:
                app = msgspec.json.decode(change[4])["app"]
                _queue(connection, [Outgoing(CHANGES, app, change[4])])
        super()._put_changes(connection, changes)


def _queue(connection: sqlite3.Connection, outgoing: Sequence[Outgoing]) -> None:
    connection.executemany(
        "INSERT INTO outgoing (topic, key, value, headers) VALUES (?, ?, ?, ?)",
        [(o.topic, o.key, o.value, _pack_headers(o.headers)) for o in outgoing],
    )
