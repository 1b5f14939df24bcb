"""Tables of the embedded log, as ordered migrations. A migration is never edited, only added to."""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("bandit_router")


@migrations()
def m001_log(db: Database) -> None:
    """The log: events in, training rows and rejected items out, snapshots, settings."""
    for statement in (
        # The totally ordered log. offset is assigned once and never reused.
        """CREATE TABLE events (
            offset INTEGER PRIMARY KEY,
            event_id TEXT,
            type TEXT NOT NULL,
            ts REAL,
            payload BLOB NOT NULL
        )""",
        "CREATE INDEX events_event_id ON events (event_id)",
        # offset is that of the event that closed the row.
        """CREATE TABLE training (
            learn_seq INTEGER PRIMARY KEY,
            offset INTEGER NOT NULL,
            event_id TEXT,
            payload BLOB NOT NULL
        )""",
        "CREATE INDEX training_event_id ON training (event_id)",
        # n numbers what one event caused to be set aside.
        """CREATE TABLE rejected (
            offset INTEGER NOT NULL,
            n INTEGER NOT NULL,
            reason TEXT NOT NULL,
            payload BLOB NOT NULL,
            PRIMARY KEY (offset, n)
        ) WITHOUT ROWID""",
        """CREATE TABLE snapshots (
            id TEXT PRIMARY KEY,
            learn_seq INTEGER NOT NULL,
            manifest TEXT NOT NULL,
            data BLOB NOT NULL
        )""",
        "CREATE INDEX snapshots_learn_seq ON snapshots (learn_seq)",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ):
        db.execute(statement)


@migrations()
def m002_changes(db: Database) -> None:
    """What learning found out: drift alarms."""
    # offset is that of the event that closed the row which raised it; n numbers them.
    db.execute(
        """CREATE TABLE changes (
            offset INTEGER NOT NULL,
            n INTEGER NOT NULL,
            kind TEXT NOT NULL,
            ts REAL NOT NULL,
            payload BLOB NOT NULL,
            PRIMARY KEY (offset, n)
        ) WITHOUT ROWID"""
    )


@migrations()
def m003_streaming(db: Database) -> None:
    """What a learner on Kafka keeps: where its events came from, and what is to be sent."""
    for statement in (
        # How far each topic had been read once this event was taken: the next offset of each, and
        # the offset of the record of the order journal that the event came by.
        """CREATE TABLE sources (
            offset INTEGER PRIMARY KEY,
            changes INTEGER NOT NULL,
            decisions INTEGER NOT NULL,
            outcomes INTEGER NOT NULL,
            journal INTEGER NOT NULL
        )""",
        # Stored with what caused it, deleted once the broker has it.
        """CREATE TABLE outgoing (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            topic TEXT NOT NULL,
            key TEXT NOT NULL,
            value BLOB,
            headers BLOB NOT NULL
        )""",
    ):
        db.execute(statement)


@migrations()
def m004_guardrails(db: Database) -> None:
    """What the guardrails of a rollout have seen, and whether one has given way."""
    db.execute("CREATE TABLE guardrails (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    db.execute("CREATE TABLE exposed_units (unit_id TEXT PRIMARY KEY) WITHOUT ROWID")
