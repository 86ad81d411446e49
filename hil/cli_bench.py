"""`hil bench`: jobs on a rig, with what goes on for people and what comes of it in the store."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import cast

from hil.bench import Row, open_rig, row_of, run_jobs
from hil.console import say
from hil.live import watching
from hil.queues import BenchQueue
from hil.record import Record
from hil.rig import Done, Job, MeasureJob
from hil.store import Store


def run_bench(
    jobs: Sequence[Job],
    measure_job: MeasureJob,
    store: Store,
    queue: BenchQueue | None = None,
    *,
    flash: str | None = None,
) -> list[Row]:
    """The rows of the jobs, in their order; each record is in the store as soon as it is there.

    Args:
        jobs: numbered by their keys.
        measure_job: measures one.
        store: for the records.
        queue: remembers which jobs are done; those that are, are not done again.
        flash: how images get onto the places, instead of their own ways.

    Raises:
        UsageError: another process runs the queue.
    """
    rows: dict[int, Row] = {}
    with queue.lock() if queue else contextlib.nullcontext():
        known = queue.records() if queue else {}
        for number, job in enumerate(jobs):
            if number in known:
                rows[number] = Row(job.model, job.where.asked, job.engine, known[number])
        if queue and rows:
            say(f"queue {queue.name}: {len(rows)} of {len(jobs)} measurements are there already")
        missing = [job for number, job in enumerate(jobs) if number not in rows]
        try:
            with open_rig(measure_job, flash=flash, say=say) as rig, watching(rig):
                for done in run_jobs(rig, missing):
                    number = cast(int, done.job.key)
                    _keep(done, number, store, queue)
                    rows[number] = row_of(done)
                    say(f"[{len(rows)}/{len(jobs)}] {_line(rows[number])}")
        except KeyboardInterrupt:
            if queue:
                say(f"queue {queue.name}: stopped; the same command does the rest")
            raise
    return [rows[number] for number in range(len(jobs))]


def _keep(done: Done, number: int, store: Store, queue: BenchQueue | None) -> None:
    if queue is None:
        if done.record is not None:
            store.add_record(done.record)
    elif done.record is not None:
        queue.add_record(number, done.record, board_s=done.board_s)
    elif done.error is not None:
        queue.add_failure(number, done.error)


def last_rounds(rows: Sequence[Row]) -> list[Row]:
    """One row for each model, engine and place: the last record, or the error if there is none."""
    last: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.model, row.place, row.engine)
        if isinstance(row.result, Record) or not isinstance(last.get(key, row).result, Record):
            last[key] = row
    return list(last.values())


def round_notes(rows: Sequence[Row]) -> list[str]:
    """How far the rounds agree: a line for each model, engine and place that has several."""
    medians: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if isinstance(row.result, Record):
            found = medians.setdefault((row.model, row.engine, row.place), [])
            found.append(row.result.latency_cycles.median)
    notes = []
    for (model, engine, place), values in medians.items():
        if len(values) > 1:
            low, high = min(values), max(values)
            spread = f"{low:,.0f} cycles" if low == high else f"{low:,.0f} to {high:,.0f} cycles"
            notes.append(f"{model} {engine} on {place}: {len(values)} rounds, {spread}")
    return notes


def sha256(data: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()


def _line(row: Row) -> str:
    where = f"{row.model} {row.engine} on {row.place}"
    if not isinstance(row.result, Record):
        return f"{where}: not measured"
    if row.result.place != row.place:
        where += f" ({row.result.place})"
    return f"{where}: {row.result.latency_cycles.median:,.0f} cycles"
