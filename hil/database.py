"""The database behind the store: its tables, its schema version, and transactions that last.

A commit is on the disk when `write` returns (SQLite: WAL, synchronous=FULL); several threads and
processes may use one file. Not here: what the rows mean (store, studies).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.pool import ConnectionPoolEntry

from hil.errors import StoreError
from hil.wal import enter_wal

SCHEMA_VERSION = 3

_tables = sql.MetaData()
meta_table = sql.Table(
    "meta",
    _tables,
    sql.Column("key", sql.String(32), primary_key=True),
    sql.Column("value", sql.String(200), nullable=False),
)
records_table = sql.Table(
    "records",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("sha256", sql.String(64), nullable=False, unique=True),
    sql.Column("started_at", sql.String(32), nullable=False, index=True),
    sql.Column("model_name", sql.Text, nullable=False),
    sql.Column("model_sha256", sql.String(64), nullable=False, index=True),
    sql.Column("board", sql.String(64), nullable=False, index=True),
    sql.Column("place", sql.String(80), nullable=False),
    sql.Column("source", sql.String(16), nullable=False),
    sql.Column("engine", sql.String(32), nullable=False),
    sql.Column("latency_us", sql.Float, nullable=False),
    sql.Column("sram_bytes", sql.Integer, nullable=False),
    sql.Column("flash_bytes", sql.Integer, nullable=False),
    sql.Column("record", sql.JSON, nullable=False),
)
studies_table = sql.Table(
    "studies",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(64), nullable=False, unique=True),
    sql.Column("created_at", sql.String(32), nullable=False),
    sql.Column("config", sql.JSON, nullable=False),
    sql.Column("cpu_s", sql.Float, nullable=False, default=0.0),
    sql.Column("gpu_s", sql.Float, nullable=False, default=0.0),
    sql.Column("board_s", sql.Float, nullable=False, default=0.0),
)
trials_table = sql.Table(
    "trials",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("study_id", sql.ForeignKey("studies.id"), nullable=False),
    sql.Column("number", sql.Integer, nullable=False),
    sql.Column("arch_hash", sql.String(128), nullable=False),
    sql.Column("point", sql.JSON, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("outcome", sql.JSON, nullable=False),
    sql.Column("model", sql.LargeBinary),
    sql.Column("test_accuracy", sql.Float),
    sql.Column("test_samples", sql.Integer),
    sql.UniqueConstraint("study_id", "number"),
    sql.UniqueConstraint("study_id", "arch_hash"),
)
trial_records_table = sql.Table(
    "trial_records",
    _tables,
    sql.Column("trial_id", sql.ForeignKey("trials.id"), primary_key=True),
    sql.Column("place", sql.String(80), primary_key=True),
    sql.Column("engine", sql.String(32), primary_key=True),
    sql.Column("record_id", sql.ForeignKey("records.id"), nullable=False),
    sql.Column("board_s", sql.Float, nullable=False),
)
layer_timings_table = sql.Table(
    "layer_timings",
    _tables,
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("kernel", sql.String(80), nullable=False),
    sql.Column("shape", sql.JSON, nullable=False),
    sql.Column("board", sql.String(64), nullable=False),
    sql.Column("source", sql.String(16), nullable=False),
    sql.Column("timing_model", sql.String(80)),
    sql.Column("compiler", sql.Text, nullable=False),
    sql.Column("flags", sql.JSON, nullable=False),
    sql.Column("build", sql.String(64), nullable=False),
    sql.Column("cycles", sql.BigInteger, nullable=False),
    sql.Column("flash_bytes", sql.Integer, nullable=False),
    sql.Column("measured_at", sql.String(32), nullable=False),
)
queues_table = sql.Table(
    "queues",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(64), nullable=False, unique=True),
    sql.Column("created_at", sql.String(32), nullable=False),
    sql.Column("config", sql.JSON, nullable=False),
)
queue_jobs_table = sql.Table(
    "queue_jobs",
    _tables,
    sql.Column("queue_id", sql.ForeignKey("queues.id"), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("record_id", sql.ForeignKey("records.id")),
    sql.Column("board_s", sql.Float, nullable=False, default=0.0),
    sql.Column("error", sql.String(64)),
    sql.Column("reason", sql.Text),
)

#: What each older version lacks, the oldest first.
_ADDED_AFTER: dict[str, tuple[sql.Table, ...]] = {
    "1": (layer_timings_table,),
    "2": (queues_table, queue_jobs_table),
}


class Database:
    """An open database with our tables in it; made if missing.

    Args:
        where: path of an SQLite file, made if missing, or a database URL of SQLAlchemy ("postgresql://...").
    """

    def __init__(self, where: str | Path) -> None:
        self.path: Path | None = None if "://" in str(where) else Path(where)
        self.name = str(where)
        if self.path is None:
            with self._errors():
                url = sql.make_url(str(where))
            self.name = url.render_as_string(hide_password=True)
        else:
            with self._errors():
                self.path.parent.mkdir(parents=True, exist_ok=True)
            url = sql.URL.create("sqlite", database=str(self.path))
        with self._errors():
            self._engine = sql.create_engine(url)
        self._writer = self._engine.execution_options(write=True)
        if url.get_backend_name() == "sqlite":
            sql.event.listen(self._engine, "connect", _configure_sqlite)
            sql.event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._create_or_check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """A connection that sees one state of the database."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        with self._errors(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the database's errors into StoreError."""
        try:
            yield
        except sql.exc.DBAPIError as error:
            raise StoreError(self.name, str(error.orig)) from None
        except (sql.exc.SQLAlchemyError, ImportError) as error:
            raise StoreError(self.name, str(error)) from None
        except OSError as error:
            raise StoreError(self.name, error.strerror or str(error)) from None

    def _create_or_check(self) -> None:
        with self.write() as connection:
            present = sql.inspect(connection).get_table_names()
            if "meta" not in present:
                if present:
                    raise StoreError(
                        self.name,
                        f"is a database of something else (tables {', '.join(present[:5])})",
                    )
                _tables.create_all(connection)
                connection.execute(
                    meta_table.insert().values(key="schema_version", value=str(SCHEMA_VERSION))
                )
            found = connection.execute(
                sql.select(meta_table.c.value).where(meta_table.c.key == "schema_version")
            ).scalar()
            if found in _ADDED_AFTER:
                for version, tables in _ADDED_AFTER.items():
                    if int(version) >= int(found):
                        for table in tables:
                            table.create(connection)
                found = str(SCHEMA_VERSION)
                connection.execute(
                    meta_table.update()
                    .where(meta_table.c.key == "schema_version")
                    .values(value=found)
                )
            if found != str(SCHEMA_VERSION):
                raise StoreError(
                    self.name,
                    f"has schema version {found}, this version of hil reads {SCHEMA_VERSION}; "
                    "use the hil that wrote it, or move the file away",
                )


def _configure_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    cursor = connection.cursor()
    enter_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it returns
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sql.Connection) -> None:
    # A writer takes its lock at once: one that reads first and then writes could meet another's
    # change in between and fail.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
