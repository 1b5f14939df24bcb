"""Switch a SQLite file to write-ahead logging."""

from __future__ import annotations

import sqlite3
import time

_PAUSE_S = 0.005


def use_wal(connection: sqlite3.Connection, *, wait_s: float) -> None:
    """Switch, however many open a new file at the same moment.

    Of two connections that switch a new file, SQLite refuses one at once, whatever its busy
    timeout, since waiting could be a deadlock. Trying again is none.

    Args:
        wait_s: how long to try, seconds.

    Raises:
        sqlite3.Error: the file stays locked, or is none.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(_PAUSE_S)
