"""Benches that can be stopped and gone on with: which of their jobs are done, in the store.

A queue is known by its name and by what it measures. A job is done when its record is in the store,
entered together with the job in one transaction; what failed is kept with its error, and done again
when the queue is gone on with. Not here: how jobs are run (bench, rig).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sql

from hil.database import Database, queue_jobs_table, records_table
from hil.errors import StoreError
from hil.record import Record
from hil.studies import decode_record, insert_record, locked_file


class BenchQueue:
    """One queue of a store."""

    def __init__(self, database: Database, queue_id: int, name: str) -> None:
        self._database, self._id = database, queue_id
        self.name = name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes off this queue; raises UsageError that names the one that runs it.

        The kernel frees it however the process ends.
        """
        with locked_file(self._database, f"queue-{self.name}", f"queue {self.name!r}"):
            yield

    def records(self) -> dict[int, Record]:
        """What was measured, by the number of the job."""
        jobs = queue_jobs_table.c
        query = (
            sql.select(jobs.number, records_table.c.record)
            .join(records_table, records_table.c.id == jobs.record_id)
            .where(jobs.queue_id == self._id)
            .order_by(jobs.number)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {number: decode_record(self._database, value) for number, value in rows}

    def failures(self) -> dict[int, tuple[str, str]]:
        """(type of the error, its text) of the jobs that failed when they were last run."""
        jobs = queue_jobs_table.c
        query = (
            sql.select(jobs.number, jobs.error, jobs.reason)
            .where(jobs.queue_id == self._id, jobs.record_id.is_(None))
            .order_by(jobs.number)
        )
        with self._database.read() as connection:
            return {number: (error, reason) for number, error, reason in connection.execute(query)}

    def add_record(self, number: int, record: Record, *, board_s: float = 0.0) -> None:
        """A job is done; raises StoreError when it was done before."""
        with self._database.write() as connection:
            values = {"record_id": insert_record(connection, record), "board_s": board_s}
            self._enter(connection, number, {**values, "error": None, "reason": None})

    def add_failure(self, number: int, error: Exception) -> None:
        """A job failed; raises StoreError when it was done before."""
        values = {"error": type(error).__name__, "reason": str(error)}
        with self._database.write() as connection:
            self._enter(connection, number, values)

    def _enter(self, connection: sql.Connection, number: int, values: dict[str, Any]) -> None:
        jobs = queue_jobs_table.c
        this = (jobs.queue_id == self._id) & (jobs.number == number)
        row = connection.execute(sql.select(jobs.record_id).where(this)).first()
        if row is None:
            connection.execute(
                queue_jobs_table.insert().values(queue_id=self._id, number=number, **values)
            )
        elif row.record_id is None:
            connection.execute(queue_jobs_table.update().where(this).values(**values))
        else:
            raise StoreError(
                self._database.name, f"job {number} of queue {self.name!r} is already measured"
            )
