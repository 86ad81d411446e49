"""The health ledger: what went wrong at each place, what was done, quarantine and flash wear.

One SQLite file beside the results, shared by every process that uses a place. A line is written in
one transaction, so a killed process leaves whole lines only. Of each place the last KEPT_LINES are
kept, and of older ones the totals. An anonymous virtual board (`virtual:<board>`) is made anew for
every use: it has lines, but neither quarantine nor wear. Not here: what to do about a fault
(recovery).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.board import BOARDS_DIR
from hil.closing import Closing
from hil.errors import LedgerError
from hil.wal import enter_wal

KEPT_LINES = 2000  # of each place: years of a healthy one
MAX_TEXT = 2000  # characters of one field: a flashing tool may print pages

_PRUNED_EVERY = 50  # lines
_SCHEMA_VERSION = 1
_ANONYMOUS = "virtual:"

_TABLES = """
create table lines (
    id integer primary key, at text not null, place text not null, event text not null,
    error text not null, detail text not null, action text not null, process integer not null
);
create index lines_of_place on lines (place, id);
create table totals (
    place text not null, event text not null, error text not null,
    count integer not null, first_at text not null, last_at text not null,
    primary key (place, event, error)
);
create table places (
    place text primary key, failures_in_row integer not null default 0,
    quarantine text, quarantined_at text,
    loads integer not null default 0, erased_sectors integer not null default 0,
    written_bytes integer not null default 0
);
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what happened at a place, and what was done about it.

    Attributes:
        at: UTC, ISO 8601.
        place: name of the place, without the options of an anonymous virtual board.
        event: fault, retry, reset, power cycle, reopen, quarantine, release, ...: one word or two.
        error: type of the error, if there was one.
        detail: in words.
        action: what was done about it, if anything.
        process: that wrote the line.
    """

    at: str
    place: str
    event: str
    error: str
    detail: str
    action: str
    process: int


@dataclass(frozen=True, slots=True)
class Total:
    """How often something has happened at a place since the ledger began."""

    event: str
    error: str
    count: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why nothing runs at a place, and since when (UTC, ISO 8601)."""

    reason: str
    since: str


@dataclass(frozen=True, slots=True)
class Wear:
    """What the flash of a place has gone through: images loaded, sectors erased, bytes written."""

    loads: int = 0
    erased_sectors: int = 0
    written_bytes: int = 0


def ledger_path() -> Path:
    """Where the ledger is: HIL_LEDGER if set, else results/lab.sqlite."""
    return Path(os.environ.get("HIL_LEDGER") or BOARDS_DIR.parent / "results" / "lab.sqlite")


class Ledger(Closing):
    """The open ledger; close it, or use it in a `with`. Threads may share it.

    Args:
        path: of the file, made if missing; `ledger_path()` by default.

    Raises:
        LedgerError: from here and from every method: the file cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or ledger_path()
        self._lock = threading.Lock()
        self._lines_added = 0
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                cursor = self._connection.cursor()
                enter_wal(cursor)
                # A line is safe from a kill at once, from a power cut after a moment.
                cursor.execute("PRAGMA synchronous = NORMAL")
            self._create_or_check()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Closes the file; may be called again."""
        with self._lock:
            self._connection.close()

    # lines

    def add(
        self, place: str, event: str, detail: str = "", action: str = "", *, error: str = ""
    ) -> None:
        """Writes one line; fields as in `Line`."""
        with self._write() as cursor:
            self._insert_line(cursor, _key(place), event, error, detail, action)

    def events(self, place: str | None = None, *, limit: int = 100) -> list[Line]:
        """The last lines, oldest first; those of one place if given."""
        of_place = "" if place is None else "where place = ?"
        rows = self._rows(
            "select at, place, event, error, detail, action, process from lines "
            f"{of_place} order by id desc limit ?",
            *([] if place is None else [_key(place)]),
            limit,
        )
        return [Line(*row) for row in reversed(rows)]

    def totals(self, place: str) -> list[Total]:
        """What has happened at a place, the most frequent first."""
        rows = self._rows(
            "select event, error, count, first_at, last_at from totals where place = ? "
            "order by count desc, event, error",
            _key(place),
        )
        return [Total(*row) for row in rows]

    # failures in a row, and quarantine

    def failed(self, place: str) -> int:
        """Counts one more failure in a row, in whichever process, and gives their number."""
        if is_anonymous(place):
            return 1
        with self._write() as cursor:
            cursor.execute(
                "insert into places (place, failures_in_row) values (?, 1) "
                "on conflict do update set failures_in_row = failures_in_row + 1",
                (place,),
            )
            row = cursor.execute("select failures_in_row from places where place = ?", (place,))
            return int(row.fetchone()[0])

    def succeeded(self, place: str) -> None:
        """The place works: failures in a row are counted from zero again."""
        if self.failures_in_row(place):  # reading is quicker, and most often there is none
            with self._write() as cursor:
                cursor.execute("update places set failures_in_row = 0 where place = ?", (place,))

    def failures_in_row(self, place: str) -> int:
        """Failures since the last success, of all processes."""
        rows = self._rows("select failures_in_row from places where place = ?", place)
        return int(rows[0][0]) if rows else 0

    def quarantine(self, place: str, reason: str) -> None:
        """Takes a place out of use until `release`; it stays so when it is already.

        Raises:
            ValueError: an anonymous virtual board, which the next user would not meet again.
        """
        if is_anonymous(place):
            raise ValueError(f"{place} is made anew for every use: it has no quarantine")
        with self._write() as cursor:
            changed = cursor.execute(
                "insert into places (place, quarantine, quarantined_at) values (?, ?, ?) "
                "on conflict do update set quarantine = excluded.quarantine, "
                "quarantined_at = excluded.quarantined_at where quarantine is null",
                (place, reason[:MAX_TEXT], _now()),
            )
            if changed.rowcount:
                self._insert_line(cursor, place, "quarantine", "", reason, "")

    def release(self, place: str) -> bool:
        """Puts a place back into use, its failures forgotten; False if it was in use."""
        with self._write() as cursor:
            row = cursor.execute("select quarantine from places where place = ?", (place,))
            found = row.fetchone()
            was_quarantined = found is not None and found[0] is not None
            cursor.execute(
                "update places set quarantine = null, quarantined_at = null, failures_in_row = 0 "
                "where place = ?",
                (place,),
            )
            if was_quarantined:
                self._insert_line(cursor, place, "release", "", found[0], "")
            return was_quarantined

    def quarantined(self, place: str) -> str | None:
        """Why the place is in quarantine, or None."""
        rows = self._rows("select quarantine from places where place = ?", place)
        return str(rows[0][0]) if rows and rows[0][0] is not None else None

    def quarantines(self) -> dict[str, Quarantine]:
        """All places in quarantine."""
        rows = self._rows(
            "select place, quarantine, quarantined_at from places where quarantine is not null "
            "order by place"
        )
        return {place: Quarantine(reason, since) for place, reason, since in rows}

    # wear

    def add_wear(self, place: str, *, erased_sectors: int, written_bytes: int) -> None:
        """Counts what loading one image did to the flash; both are 0 when nothing changed."""
        if is_anonymous(place):
            return
        with self._write() as cursor:
            cursor.execute(
                "insert into places (place, loads, erased_sectors, written_bytes) "
                "values (?, 1, ?, ?) on conflict do update set loads = loads + 1, "
                "erased_sectors = erased_sectors + excluded.erased_sectors, "
                "written_bytes = written_bytes + excluded.written_bytes",
                (place, erased_sectors, written_bytes),
            )

    def wear(self, place: str) -> Wear:
        """What the flash of a place has gone through."""
        rows = self._rows(
            "select loads, erased_sectors, written_bytes from places where place = ?", place
        )
        return Wear(*rows[0]) if rows else Wear()

    # the file

    def _insert_line(
        self,
        cursor: sqlite3.Cursor,
        place: str,
        event: str,
        error: str,
        detail: str,
        action: str,
    ) -> None:
        now = _now()
        cursor.execute(
            "insert into lines (at, place, event, error, detail, action, process) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (now, place, event, error, detail[:MAX_TEXT], action[:MAX_TEXT], os.getpid()),
        )
        cursor.execute(
            "insert into totals values (?, ?, ?, 1, ?, ?) "
            "on conflict do update set count = count + 1, last_at = excluded.last_at",
            (place, event, error, now, now),
        )
        if self._lines_added % _PRUNED_EVERY == 0:
            cursor.execute(
                "delete from lines where place = ? and id <= (select id from lines "
                "where place = ? order by id desc limit 1 offset ?)",
                (place, place, KEPT_LINES),
            )
        self._lines_added += 1

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Cursor]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        with self._lock, self._errors():
            cursor = self._connection.cursor()
            cursor.execute("begin immediate")
            try:
                yield cursor
                cursor.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("rollback")
                raise

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, self._errors():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(self.path, str(error)) from None
        except OSError as error:
            raise LedgerError(self.path, error.strerror or str(error)) from None

    def _create_or_check(self) -> None:
        with self._write() as cursor:
            (version,) = cursor.execute("pragma user_version").fetchone()
            (tables,) = cursor.execute("select count(*) from sqlite_schema").fetchone()
            if version == 0 and tables == 0:
                for statement in _TABLES.split(";"):
                    cursor.execute(statement)
                cursor.execute(f"pragma user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise LedgerError(
                    self.path,
                    f"has version {version}, this version of hil reads {_SCHEMA_VERSION}",
                )


def is_anonymous(place: str) -> bool:
    """Whether the name stands for a virtual board that is made anew for every use."""
    return place.startswith(_ANONYMOUS)


def _key(place: str) -> str:
    """Lines of anonymous virtual boards go by their bare name: options would fill the ledger."""
    return place.partition("?")[0] if is_anonymous(place) else place


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
