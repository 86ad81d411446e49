"""One thread per place: trained models in, records out; opened once, and again after a failure."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from hil.record import Record


class Measure(Protocol):
    """Builds, flashes, runs and measures one model on one place."""

    def __call__(self, tflite: bytes, name: str, engine: str) -> Record:
        """The record; raises HilError or CodegenError."""


#: Opens a place for measuring; the thread that opens it is the only one to use it.
OpenBench = Callable[[str], AbstractContextManager[Measure]]


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """One model to be measured for a trial."""

    number: int
    name: str
    tflite: bytes
    engine: str


@dataclass(frozen=True, slots=True)
class MeasureDone:
    """What came of a job: a record, or the error and its traceback."""

    number: int
    place: str
    board_s: float
    record: Record | None = None
    error: Exception | None = None
    traceback: str = ""


class PlaceThread:
    """Measures jobs on one place in the order in which they come.

    Args:
        place: name of the place.
        open_bench: opens it; called again after a failure.
        report: called from the thread for each job that was not skipped.
    """

    def __init__(
        self, place: str, open_bench: OpenBench, report: Callable[[MeasureDone], None]
    ) -> None:
        self.place = place
        self._open_bench, self._report = open_bench, report
        self._jobs: queue.SimpleQueue[MeasureJob | None] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"place {place}", daemon=True)
        self._thread.start()

    def submit(self, job: MeasureJob) -> None:
        """Adds a job at the end."""
        self._jobs.put(job)

    def finish(self) -> None:
        """Waits until all jobs are done and the place is closed."""
        self._jobs.put(None)
        self._thread.join()

    def stop(self) -> None:
        """Waits for the measurement under way, skips the others, and closes the place."""
        self._is_stopping.set()
        self.finish()

    def _serve(self) -> None:
        while self._serve_with_one_opening():
            pass

    def _serve_with_one_opening(self) -> bool:
        """Serves until something fails (True) or there are no more jobs (False)."""
        with contextlib.ExitStack() as opened:
            measure: Measure | None = None
            while (job := self._jobs.get()) is not None:
                if self._is_stopping.is_set():
                    continue
                started = time.monotonic()
                try:
                    if measure is None:
                        measure = opened.enter_context(self._open_bench(self.place))
                    record = measure(job.tflite, job.name, job.engine)
                except Exception as error:  # the loop makes it a failed trial
                    self._report(self._failure(job, started, error))
                    with contextlib.suppress(Exception):  # the first error is the one that counts
                        opened.close()
                    return True
                self._report(
                    MeasureDone(job.number, self.place, time.monotonic() - started, record)
                )
            return False

    def _failure(self, job: MeasureJob, started: float, error: Exception) -> MeasureDone:
        return MeasureDone(
            job.number,
            self.place,
            time.monotonic() - started,
            error=error,
            traceback="".join(traceback.format_exception(error)),
        )
