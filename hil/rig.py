"""Many places at once: a queue of jobs, one worker for each place, recovery, and a clean end.

A job asks for one place, or for any place with a board. Owners (studies, benches) take turns,
however many jobs each has waiting. When all the places that a job asks for are in quarantine, its
spares take it: other places of the same kind with the same board. Workers open a place when the
first job for it comes, keep it open, and let other processes have it between two jobs.

Not here: which places may run a job (where), what is done about a fault (recovery), how a model is
measured (bench), what people see of it (live).
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from hil.closing import Closing
from hil.errors import HilError, PlaceBusy, PlaceQuarantined
from hil.health import Ledger
from hil.lab import Place
from hil.record import Record
from hil.recovery import KeptPlace
from hil.where import Where

_LOOK_S = 0.5  # how often an idle worker looks whether another process wants its place

CLOSING_S = 2.0  # for the workers to end once their places are closed

Stage = Callable[[str], None]  # told what a measurement does now: "building", "flashing", ...

#: Opens a place by its name; when the event is set, a wait for another process ends.
OpenPlace = Callable[[str, threading.Event], AbstractContextManager[Place]]


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement to be made.

    Attributes:
        owner: study or bench that it belongs to; owners take turns.
        key: what the owner knows it by.
        where: places that may run it.
        model: name of the model.
        tflite: the model.
        engine: a name of codegen.engines.
    """

    owner: str
    key: Hashable
    where: Where
    model: str
    tflite: bytes = field(repr=False)
    engine: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.model} {self.engine}"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job: a record, or the error and its traceback.

    `place` is where it ended; `board_s` is how long that place was in use for it, retries included.
    """

    job: Job
    place: str
    board_s: float
    record: Record | None = None
    error: Exception | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What one place does now.

    Attributes:
        place: its name.
        state: idle, waiting (another process has it), opening, building, flashing, checking,
            measuring, retrying, quarantined.
        job: what it works on; empty while idle.
        since: time.monotonic() at the last change of job or, while idle, of state.
        done: jobs that gave a record.
        failed: jobs that ended with an error.
        faults: attempts that failed.
    """

    place: str
    state: str
    job: str
    since: float
    done: int
    failed: int
    faults: int


#: Measures a job on an open place; may be called again for the same job, on another place too.
MeasureJob = Callable[[Place, Job, Stage], Record]
Report = Callable[[Done], None]


@dataclass(eq=False, slots=True)
class _Entry:
    """A job in the queue or under way."""

    job: Job
    report: Report
    is_over: bool = False  # its owner does not want it any more
    refused: dict[str, HilError] = field(default_factory=dict)  # places that did not take it


class Rig(Closing):
    """Measures jobs on many places; close it, or use it in a `with`.

    Args:
        measure: measures one job; called from the worker of a place.
        open_place: opens a place; called from its worker.
        ledger: of the places' health.
        prove: as in KeptPlace.
        say: told what people should know at once: faults, moves.
    """

    def __init__(
        self,
        measure: MeasureJob,
        *,
        open_place: OpenPlace,
        ledger: Ledger,
        prove: Callable[[Place], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._measure, self._open_place, self._ledger = measure, open_place, ledger
        self._prove, self._say = prove, say
        self._changed = threading.Condition()
        self._queues: dict[str, deque[_Entry]] = {}  # in the order in which owners take turns
        self._quarantined: dict[str, str] = {}
        self._workers: dict[str, _Worker] = {}
        self._is_closing = False

    def submit(self, job: Job, report: Report) -> None:
        """Adds a job.

        `report` is called from a worker, once, unless the job is withdrawn before it began.
        """
        assert job.where.places, "a job that may run nowhere"
        with self._changed:
            assert not self._is_closing, "a rig that is closed takes no jobs"
            entry = _Entry(job, report)
            if not self._is_stranded(entry):
                self._queues.setdefault(job.owner, deque()).append(entry)
                self._changed.notify_all()

    def wait(self, owner: str) -> None:
        """Until no job of the owner waits or is under way."""
        with self._changed:
            while not self._is_idle(owner):
                self._changed.wait()

    def withdraw(self, owner: str) -> None:
        """Drops what waits of an owner; what is under way is finished, with no further attempt."""
        with self._changed:
            self._queues.pop(owner, None)
            for worker in self._workers.values():
                if worker.entry is not None and worker.entry.job.owner == owner:
                    worker.entry.is_over = True
        self.wait(owner)

    def views(self) -> list[View]:
        """What each place does now, by name."""
        with self._changed:
            return [self._workers[place].view() for place in sorted(self._workers)]

    def close(self, *, grace_s: float = 0.0) -> None:
        """Abandons what is under way and closes all places; may be called again.

        Args:
            grace_s: how long measurements under way may go on.
        """
        with self._changed:
            self._is_closing = True
            self._queues.clear()
            for worker in self._workers.values():
                if worker.entry is not None:
                    worker.entry.is_over = True
                worker.is_leaving.set()
            self._changed.notify_all()
            workers = list(self._workers.values())
        _join(workers, grace_s)
        for worker in workers:
            worker.kept.abandon()
        _join(workers, CLOSING_S)

    # for the workers

    def _is_idle(self, owner: str) -> bool:
        return not self._queues.get(owner) and not any(
            worker.entry is not None and worker.entry.job.owner == owner
            for worker in self._workers.values()
        )

    def _may_run(self, entry: _Entry, place: str) -> bool:
        """Whether a place may have a job now."""
        if place in self._quarantined or place in entry.refused:
            return False
        where = entry.job.where
        return place in where.places or (
            place in where.spares
            and all(p in self._quarantined or p in entry.refused for p in where.places)
        )

    def _has_work(self, place: str) -> bool:
        return any(
            self._may_run(entry, place) for queue in self._queues.values() for entry in queue
        )

    def _take(self, place: str) -> _Entry | None:
        """The next job for a place; its owner goes to the end of the line."""
        for owner, queue in self._queues.items():
            for entry in queue:
                if self._may_run(entry, place):
                    queue.remove(entry)
                    del self._queues[owner]
                    if queue:
                        self._queues[owner] = queue
                    return entry
        return None

    def _put_back(self, entry: _Entry) -> None:
        """A job that another place has to do goes first."""
        if not self._is_stranded(entry):
            self._queues.setdefault(entry.job.owner, deque()).appendleft(entry)

    def _set_quarantine(self, place: str, reason: str) -> None:
        self._quarantined[place] = reason
        self._settle_stranded()
        self._changed.notify_all()

    def _settle_stranded(self) -> None:
        """Ends the jobs that no place can run any more."""
        for owner, queue in list(self._queues.items()):
            left = deque(entry for entry in queue if not self._is_stranded(entry))
            if left:
                self._queues[owner] = left
            else:
                del self._queues[owner]

    def _is_stranded(self, entry: _Entry) -> bool:
        """Whether no place can run a job, which then ends; else there are workers for it."""
        where = entry.job.where
        lost = {p for p in where.all if p in self._quarantined or p in entry.refused}
        for place in where.spares if lost.issuperset(where.places) else where.places:
            if place not in lost and place not in self._workers:
                self._workers[place] = _Worker(self, place)
        if not lost.issuperset(where.all):
            return False
        first = where.places[0]
        error = entry.refused.get(first)
        if error is None:
            error = PlaceQuarantined(first, self._quarantined[first])
        entry.report(Done(entry.job, first, 0.0, error=error, traceback=str(error)))
        return True

    def _give_up(self, place: str, error: Exception) -> None:
        """A worker that met a mistake of ours: its jobs end with it, so that nobody waits."""
        for owner, queue in list(self._queues.items()):
            for entry in [entry for entry in queue if place in entry.job.where.all]:
                queue.remove(entry)
                entry.report(Done(entry.job, place, 0.0, error=error, traceback=_trace(error)))
            if not queue:
                del self._queues[owner]
        self._changed.notify_all()


class _Worker:
    """The thread of one place."""

    def __init__(self, rig: Rig, place: str) -> None:
        self.place = place
        self.entry: _Entry | None = None
        self.is_leaving = threading.Event()
        self.kept = KeptPlace(
            place,
            open_place=lambda name: rig._open_place(name, self.is_leaving),
            ledger=rig._ledger,
            prove=rig._prove,
            on_state=self._show,
            say=rig._say,
        )
        self._rig, self._changed = rig, rig._changed
        self._state, self._since = "idle", time.monotonic()
        self._done = self._failed = 0
        self.thread = threading.Thread(target=self._serve, name=f"place {place}", daemon=True)
        self.thread.start()

    def view(self) -> View:
        """What the place does now."""
        job = self.entry.job.text if self.entry else ""
        return View(
            self.place, self._state, job, self._since, self._done, self._failed, self.kept.faults
        )

    def _show(self, state: str) -> None:
        self._state = state

    def _serve(self) -> None:
        try:
            while self._await_work():
                self._work()
        except Exception as error:
            with self._changed:
                entry, self.entry = self.entry, None
                if entry is not None:
                    entry.report(
                        Done(entry.job, self.place, 0.0, error=error, traceback=_trace(error))
                    )
                self._rig._give_up(self.place, error)
        finally:
            self.kept.close()

    def _await_work(self) -> bool:
        """Until there is a job for this place; False when the rig closes."""
        while True:
            with self._changed:
                if self.is_leaving.is_set():
                    return False
                if self._rig._has_work(self.place):
                    return True
                self._changed.wait(_LOOK_S)
                if self.is_leaving.is_set() or self._rig._has_work(self.place):
                    continue
            self._look_around()

    def _look_around(self) -> None:
        """While idle: is the place in quarantine, or released; does another process want it?"""
        reason = self._rig._ledger.quarantined(self.place)
        with self._changed:
            was_quarantined = self.place in self._rig._quarantined
            if reason is None and was_quarantined:
                del self._rig._quarantined[self.place]
                self._show("idle")
            elif reason is not None and not was_quarantined:
                self._show("quarantined")
                self._rig._set_quarantine(self.place, reason)
        self._let_others()

    def _let_others(self) -> None:
        state = self._state
        self._show("waiting")
        self.kept.give_way()
        self._show(state)

    def _work(self) -> None:
        """One job, if the place can be had and the job is still there."""
        busy: PlaceBusy | None = None
        reason = self._rig._ledger.quarantined(self.place)
        if reason is None and not self.kept.is_open:
            self._show("opening")
            try:
                self.kept.open()
            except PlaceQuarantined as error:  # by another process, just now
                reason = error.reason
            except PlaceBusy as error:
                busy = error
            except HilError:
                pass  # met again, and treated, when the job opens it
        with self._changed:
            if reason is not None:
                self._show("quarantined")
                self._rig._say(str(PlaceQuarantined(self.place, reason)))
                self._rig._set_quarantine(self.place, reason)
                return
            entry = self.entry = self._rig._take(self.place)
            self._since = time.monotonic()
        if entry is not None:
            if busy is not None:
                entry.refused[self.place] = busy
            self._end(entry, self._measured(entry) if busy is None else None)
        self._let_others()

    def _measured(self, entry: _Entry) -> Done | None:
        """What came of a job; None: another place has to do it."""
        job, started = entry.job, time.monotonic()

        def done(record: Record | None, error: Exception | None) -> Done:
            trace = _trace(error) if error else ""
            return Done(job, self.place, time.monotonic() - started, record, error, trace)

        try:
            record = self.kept.use(
                job.text,
                lambda place: self._rig._measure(place, job, self._show),
                is_over=lambda: entry.is_over,
            )
        except PlaceQuarantined as error:
            entry.refused[self.place] = error
            return None
        except Exception as error:  # the owner makes it a failed trial, or raises it
            return done(None, error)
        return done(record, None)

    def _end(self, entry: _Entry, done: Done | None) -> None:
        if done is not None:
            entry.report(done)
        reason = self._rig._ledger.quarantined(self.place)
        with self._changed:
            self.entry = None
            self._since = time.monotonic()
            self._show("quarantined" if reason is not None else "idle")
            if done is None and not entry.is_over:
                if reason is not None:
                    self._rig._quarantined[self.place] = reason
                self._rig._put_back(entry)
            elif done is not None:
                self._done += done.record is not None
                self._failed += done.record is None
            if reason is not None:
                self._rig._set_quarantine(self.place, reason)
            self._changed.notify_all()


def _join(workers: list[_Worker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.thread.join(max(0.0, deadline - time.monotonic()))


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
