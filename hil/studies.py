"""Studies and their trials in the store. Not here: what a point or an outcome means (search)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from hil.database import Database, records_table, studies_table, trial_records_table, trials_table
from hil.errors import HilError, StoreError, UsageError
from hil.record import Record

STATES = ("proposed", "trained", "measured", "infeasible", "failed")


class DuplicateTrial(HilError):
    """A trial with that number or that architecture is already in the study."""

    def __init__(self, study: str, number: int, other: int) -> None:
        self.study, self.number, self.other = study, number, other
        what = "is already there" if number == other else f"has the architecture of trial {other}"
        super().__init__(f"trial {number} of study {study!r} {what}")


@dataclass(frozen=True, slots=True)
class StudyCost:
    """What a study has used so far, in seconds; board seconds count each board."""

    cpu_s: float
    gpu_s: float
    board_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial as stored, with its records; the model itself is read by `Study.model`.

    `asked` says for each record which place (or board) the study named: the record may be from
    another place with the same board.
    """

    number: int
    point: dict[str, Any]
    arch_hash: str
    state: str
    outcome: dict[str, Any]
    has_model: bool
    test_accuracy: float | None
    test_samples: int | None
    records: tuple[Record, ...]
    asked: tuple[str, ...]

    def record(self, place: str, engine: str = "tiny") -> Record | None:
        """The record that was asked of one place and engine, if it is there."""
        for asked, record in zip(self.asked, self.records, strict=True):
            if asked == place and record.engine == engine:
                return record
        return None


class Study:
    """One study of a store: its settings, its trials, what it has cost."""

    def __init__(
        self, database: Database, study_id: int, name: str, created_at: str, config: dict[str, Any]
    ) -> None:
        self._database, self._id = database, study_id
        self.name, self.created_at, self.config = name, created_at, config

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes off this study; the kernel frees it however the process ends.

        Only a store in a file can be locked; with a database server the unique constraints alone
        protect.

        Raises:
            UsageError: another process, which the message names, runs the study.
        """
        with locked_file(self._database, self.name, f"study {self.name!r}"):
            yield

    def add_trial(
        self,
        number: int,
        point: dict[str, Any],
        arch_hash: str,
        *,
        state: str = "proposed",
        outcome: dict[str, Any] | None = None,
    ) -> None:
        """Enters a trial; raises DuplicateTrial when its number or architecture is there."""
        _check_state(state)
        same = (trials_table.c.number == number) | (trials_table.c.arch_hash == arch_hash)
        with self._database.write() as connection:
            other = connection.execute(
                sql.select(trials_table.c.number).where(trials_table.c.study_id == self._id, same)
            ).scalar()
            if other is not None:
                raise DuplicateTrial(self.name, number, other)
            connection.execute(
                trials_table.insert().values(
                    study_id=self._id,
                    number=number,
                    arch_hash=arch_hash,
                    point=point,
                    state=state,
                    outcome=outcome or {},
                )
            )

    def update_trial(
        self,
        number: int,
        *,
        state: str | None = None,
        outcome: dict[str, Any] | None = None,
        model: bytes | None = None,
    ) -> None:
        """Changes what is given: the state, keys of the outcome (others stay), the .tflite."""
        with self._database.write() as connection:
            row = self._row(connection, number)
            values: dict[str, Any] = {"outcome": {**row.outcome, **(outcome or {})}}
            if state is not None:
                _check_state(state)
                values["state"] = state
            if model is not None:
                values["model"] = model
            connection.execute(
                trials_table.update().where(trials_table.c.id == row.id).values(**values)
            )

    def attach_record(
        self, number: int, record: Record, *, asked: str | None = None, board_s: float = 0.0
    ) -> int:
        """Stores a record as the trial's measurement on a place and engine; returns its id.

        Args:
            number: the trial.
            record: what was measured.
            asked: place or board that the study named; the record's own place by default.
            board_s: how long the board was in use for it.

        Raises:
            StoreError: the trial already has a record of that place and engine.
        """
        with self._database.write() as connection:
            row = self._row(connection, number)
            place = asked or record.place
            key = {"trial_id": row.id, "place": place, "engine": record.engine}
            if connection.execute(sql.select(trial_records_table).filter_by(**key)).first():
                raise StoreError(
                    self._database.name,
                    f"trial {number} of study {self.name!r} is already measured on {place} "
                    f"with engine {record.engine!r}",
                )
            record_id = insert_record(connection, record)
            connection.execute(
                trial_records_table.insert().values(**key, record_id=record_id, board_s=board_s)
            )
        return record_id

    def set_test_accuracy(self, number: int, accuracy: float, samples: int) -> None:
        """Keeps the accuracy on the test set, 0 to 1; a second time is a StoreError."""
        with self._database.write() as connection:
            row = self._row(connection, number)
            if row.test_accuracy is not None:
                raise StoreError(
                    self._database.name,
                    f"trial {number} of study {self.name!r} was already tested; "
                    "the test set is used once",
                )
            connection.execute(
                trials_table.update()
                .where(trials_table.c.id == row.id)
                .values(test_accuracy=accuracy, test_samples=samples)
            )

    def add_cost(self, *, cpu_s: float = 0.0, gpu_s: float = 0.0, board_s: float = 0.0) -> None:
        """Adds to what the study has used."""
        with self._database.write() as connection:
            connection.execute(
                studies_table.update()
                .where(studies_table.c.id == self._id)
                .values(
                    cpu_s=studies_table.c.cpu_s + cpu_s,
                    gpu_s=studies_table.c.gpu_s + gpu_s,
                    board_s=studies_table.c.board_s + board_s,
                )
            )

    def cost(self) -> StudyCost:
        """What was added by `add_cost`, and the board seconds of all records."""
        recorded = (
            sql.select(sql.func.coalesce(sql.func.sum(trial_records_table.c.board_s), 0.0))
            .join(trials_table, trials_table.c.id == trial_records_table.c.trial_id)
            .where(trials_table.c.study_id == self._id)
        )
        with self._database.read() as connection:
            row = connection.execute(
                sql.select(studies_table).where(studies_table.c.id == self._id)
            ).one()
            return StudyCost(
                row.cpu_s, row.gpu_s, row.board_s + connection.execute(recorded).scalar_one()
            )

    def trials(self, *, state: str | None = None) -> list[TrialRow]:
        """All trials by number, with their records; only those in `state` if given."""
        query = sql.select(*_TRIAL_COLUMNS).where(trials_table.c.study_id == self._id)
        if state is not None:
            _check_state(state)
            query = query.where(trials_table.c.state == state)
        return self._select(query.order_by(trials_table.c.number))

    def trial(self, number: int) -> TrialRow:
        """One trial with its records."""
        query = sql.select(*_TRIAL_COLUMNS).where(
            trials_table.c.study_id == self._id, trials_table.c.number == number
        )
        rows = self._select(query)
        if not rows:
            raise self._no_trial(number)
        return rows[0]

    def model(self, number: int) -> bytes | None:
        """The trial's .tflite, once it is trained."""
        with self._database.read() as connection:
            row = self._row(connection, number, trials_table.c.model)
        model: bytes | None = row.model
        return model

    def _select(self, query: sql.Select[Any]) -> list[TrialRow]:
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            records = connection.execute(
                sql.select(
                    trial_records_table.c.trial_id,
                    trial_records_table.c.place,
                    records_table.c.record,
                )
                .join(records_table, records_table.c.id == trial_records_table.c.record_id)
                .join(trials_table, trials_table.c.id == trial_records_table.c.trial_id)
                .where(trials_table.c.study_id == self._id)
                .order_by(records_table.c.id)
            ).all()
        of_trial: dict[int, list[tuple[str, Record]]] = {row.id: [] for row in rows}
        for trial_id, asked, value in records:
            if trial_id in of_trial:
                of_trial[trial_id].append((asked, decode_record(self._database, value)))
        return [
            TrialRow(
                number=row.number,
                point=row.point,
                arch_hash=row.arch_hash,
                state=row.state,
                outcome=row.outcome,
                has_model=bool(row.has_model),
                test_accuracy=row.test_accuracy,
                test_samples=row.test_samples,
                records=tuple(record for _, record in of_trial[row.id]),
                asked=tuple(asked for asked, _ in of_trial[row.id]),
            )
            for row in rows
        ]

    def _row(
        self, connection: sql.Connection, number: int, *columns: sql.Column[Any]
    ) -> sql.Row[Any]:
        chosen: Sequence[Any] = columns or _TRIAL_COLUMNS
        row = connection.execute(
            sql.select(*chosen).where(
                trials_table.c.study_id == self._id, trials_table.c.number == number
            )
        ).first()
        if row is None:
            raise self._no_trial(number)
        return row

    def _no_trial(self, number: int) -> StoreError:
        return StoreError(self._database.name, f"study {self.name!r} has no trial {number}")


#: All of a trial but its model, which may be large.
_TRIAL_COLUMNS: tuple[Any, ...] = (
    *(column for column in trials_table.c if column.name != "model"),
    trials_table.c.model.is_not(None).label("has_model"),
)


def insert_record(connection: sql.Connection, record: Record) -> int:
    """Id of the record, entered if it is not there yet."""
    digest = record.sha256
    known = connection.execute(
        sql.select(records_table.c.id).where(records_table.c.sha256 == digest)
    ).scalar()
    if known is not None:
        return int(known)
    result = connection.execute(
        records_table.insert().values(
            sha256=digest,
            started_at=record.started_at,
            model_name=record.model.name,
            model_sha256=record.model.sha256,
            board=record.board,
            place=record.place,
            source=record.source,
            engine=record.engine,
            latency_us=record.latency_us,
            sram_bytes=record.sram_bytes.total,
            flash_bytes=record.flash_bytes.total,
            record=record.to_json(),
        )
    )
    assert result.inserted_primary_key is not None, "an insert gives its key"
    return int(result.inserted_primary_key[0])


def decode_record(database: Database, value: Any) -> Record:
    """The record of a stored JSON value; raises StoreError when it is none."""
    try:
        return Record.from_json(value)
    except ValueError as error:
        raise StoreError(database.name, f"holds a {error}") from None


@contextlib.contextmanager
def locked_file(database: Database, name: str, what: str) -> Iterator[None]:
    """Holds a lock file beside a database's file; there is none for a database server.

    Raises:
        UsageError: another process, which the message names, holds it.
    """
    if database.path is None:
        yield
        return
    path = database.path.with_name(f"{database.path.name}.{name}.lock")
    file = _lock_file(path, what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock_file(path: Path, what: str) -> int:
    """An open, locked file at `path`; raises UsageError when another process holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode("ascii", "replace") or "unknown"
            os.close(file)
            raise UsageError(
                f"{what} is being run by process {holder}; wait for it or stop it"
            ) from None
        # the holder before us may have unlinked the file after we opened it
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        os.close(file)


def _check_state(state: str) -> None:
    if state not in STATES:
        raise ValueError(f"trial state {state!r}; the states are {', '.join(STATES)}")
