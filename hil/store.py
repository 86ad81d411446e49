"""The result store: records, studies, queues and timings of layers, in SQLite by default.

Every method that writes is one transaction, on the disk when it returns: a kill at any moment loses
nothing that was acknowledged, and unique constraints see to it that nothing enters twice. Several
threads may share a Store and several processes may open the same file. Not here: tables for people
(report).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from hil.board import BOARDS_DIR
from hil.closing import Closing
from hil.database import (
    Database,
    layer_timings_table,
    queues_table,
    records_table,
    studies_table,
    trials_table,
)
from hil.errors import UsageError
from hil.queues import BenchQueue
from hil.record import Record
from hil.studies import DuplicateTrial, Study, StudyCost, TrialRow, decode_record, insert_record
from hil.timings import Conditions, LayerTiming, timing_key

__all__ = ["DEFAULT_PATH", "DuplicateTrial", "Store", "Study", "StudyCost", "StudyRow", "TrialRow"]

DEFAULT_PATH = BOARDS_DIR.parent / "results" / "hil.sqlite"

_KEYS_AT_ONCE = 500  # SQLite takes 999 parameters in a statement, or more

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One line of the list of studies; `trials` is their number."""

    name: str
    created_at: str
    config: dict[str, Any]
    trials: int


class Store(Closing):
    """An open store; close it, or use it in a `with`.

    Args:
        where: path of an SQLite file, made if missing, or a database URL of SQLAlchemy, such as "postgresql://...".
    """

    def __init__(self, where: str | Path = DEFAULT_PATH) -> None:
        self._database = Database(where)
        self.path = self._database.path

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    def open_study(self, name: str, config: dict[str, Any]) -> Study:
        """The study of that name, made if missing.

        Raises:
            UsageError: it exists with other settings, or the name is not a plain word.
        """
        _check_name("study", name)
        plain = json.loads(json.dumps(config))
        with self._database.write() as connection:
            row = connection.execute(
                sql.select(studies_table).where(studies_table.c.name == name)
            ).first()
            if row is None:
                connection.execute(
                    studies_table.insert().values(name=name, created_at=_now(), config=plain)
                )
            elif row.config != plain:
                raise UsageError(_config_differs("study", name, row.config, plain))
        return self.load_study(name)

    def open_queue(self, name: str, config: dict[str, Any]) -> BenchQueue:
        """The queue of that name, made if missing.

        Raises:
            UsageError: it exists and measures something else, or the name is not a plain word.
        """
        _check_name("queue", name)
        plain = json.loads(json.dumps(config))
        query = sql.select(queues_table).where(queues_table.c.name == name)
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                connection.execute(
                    queues_table.insert().values(name=name, created_at=_now(), config=plain)
                )
                row = connection.execute(query).one()
        if row.config != plain:
            raise UsageError(_config_differs("queue", name, row.config, plain))
        return self.load_queue(name)

    def load_queue(self, name: str) -> BenchQueue:
        """The queue of that name; raises UsageError when there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                sql.select(queues_table).where(queues_table.c.name == name)
            ).first()
        if row is None:
            raise UsageError(f"no queue {name!r} in {self._database.name}; hil bench makes one")
        return BenchQueue(self._database, row.id, row.name)

    def load_study(self, name: str) -> Study:
        """The study of that name; raises UsageError with the names that exist."""
        with self._database.read() as connection:
            row = connection.execute(
                sql.select(studies_table).where(studies_table.c.name == name)
            ).first()
        if row is None:
            known = ", ".join(study.name for study in self.studies()) or "none"
            raise UsageError(f"no study {name!r} in {self._database.name}; studies there: {known}")
        return Study(self._database, row.id, row.name, row.created_at, row.config)

    def studies(self) -> list[StudyRow]:
        """All studies, in the order in which they were made."""
        count = sql.func.count(trials_table.c.id)
        query = (
            sql.select(
                studies_table.c.name, studies_table.c.created_at, studies_table.c.config, count
            )
            .outerjoin(trials_table, trials_table.c.study_id == studies_table.c.id)
            .group_by(studies_table.c.id, studies_table.c.name, studies_table.c.created_at)
            .order_by(studies_table.c.id)
        )
        with self._database.read() as connection:
            return [StudyRow(*row) for row in connection.execute(query)]

    def add_record(self, record: Record) -> int:
        """Id of the record in the store; the identical record again gives the same id."""
        with self._database.write() as connection:
            return insert_record(connection, record)

    def records(
        self,
        *,
        model_sha256: str | None = None,
        board: str | None = None,
        engine: str | None = None,
    ) -> list[Record]:
        """Records, oldest first; of one model, board or engine if given."""
        query = sql.select(records_table.c.record).order_by(
            records_table.c.started_at, records_table.c.id
        )
        if model_sha256 is not None:
            query = query.where(records_table.c.model_sha256 == model_sha256)
        if board is not None:
            query = query.where(records_table.c.board == board)
        if engine is not None:
            query = query.where(records_table.c.engine == engine)
        with self._database.read() as connection:
            return [decode_record(self._database, value) for (value,) in connection.execute(query)]

    def layer_timings(
        self, wanted: Sequence[tuple[str, dict[str, Any]]], conditions: Conditions
    ) -> dict[str, LayerTiming]:
        """What is known of kernels on shapes under these conditions, by `timing_key`."""
        keys = list({timing_key(kernel, shape, conditions) for kernel, shape in wanted})
        columns = layer_timings_table.c
        query = sql.select(columns.key, columns.cycles, columns.flash_bytes)
        known: dict[str, LayerTiming] = {}
        with self._database.read() as connection:
            for first in range(0, len(keys), _KEYS_AT_ONCE):
                some = query.where(columns.key.in_(keys[first : first + _KEYS_AT_ONCE]))
                for key, cycles, flash_bytes in connection.execute(some):
                    known[key] = LayerTiming(cycles, flash_bytes)
        return known

    def add_layer_timings(
        self,
        measured: Sequence[tuple[str, dict[str, Any], LayerTiming]],
        conditions: Conditions,
    ) -> None:
        """Keeps timings of (kernel, shape); one that is known already is replaced."""
        rows = {
            timing_key(kernel, shape, conditions): {
                "kernel": kernel,
                "shape": shape,
                **dataclasses.asdict(conditions),
                **dataclasses.asdict(timing),
                "measured_at": _now(),
            }
            for kernel, shape, timing in measured
        }
        table = layer_timings_table
        with self._database.write() as connection:
            for key, row in rows.items():
                connection.execute(table.delete().where(table.c.key == key))
                connection.execute(table.insert().values(key=key, **row))


def _check_name(what: str, name: str) -> None:
    """Raises UsageError unless it is a plain word."""
    if not _NAME.match(name):
        raise UsageError(
            f"{what} name {name!r}: use up to 64 letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )


def _config_differs(what: str, name: str, stored: dict[str, Any], given: dict[str, Any]) -> str:
    stored, given = _flat(stored), _flat(given)
    keys = sorted(key for key in stored.keys() | given.keys() if stored.get(key) != given.get(key))
    changes = ", ".join(
        f"{key} was {stored.get(key)!r}, now {given.get(key)!r}" for key in keys[:3]
    )
    return f"{what} {name!r} exists with other settings ({changes}); give the {what} another name"


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Tables within the table as keys with a dot."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
