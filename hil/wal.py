"""SQLite's write-ahead log: readers and a writer side by side, and no harm from a kill."""

from __future__ import annotations

import sqlite3
import time

BUSY_S = 30  # longest wait for another process's transaction


def enter_wal(cursor: sqlite3.Cursor) -> None:
    """Turns the log on, from the first opening of the file on; waits for others, too.

    The change wants the file for itself, and SQLite answers "locked" at once, whatever
    busy_timeout says, when several processes make the same file at the same time.
    """
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # extended codes too
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
