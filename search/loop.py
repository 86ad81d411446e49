"""Runs a study: ask, check, train, measure on every place, tell.

Training processes and boards work side by side: a trained model goes to every place at once, and
while boards measure, the next candidates train. The order in which things happen to finish does not
change the search: trial n is proposed when exactly the trials below n - pending + 1 have been told,
in the order of their numbers. So with equal settings a study proposes the same networks, whether it
ran through, was stopped, or was killed and resumed.

What survives a kill: a trial from the moment it is proposed, its model from the moment it is
trained, and each place's record from the moment it is measured. A resumed study does only what is
missing.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import cast

import numpy as np

from codegen.limits import BoardLimits
from hil.errors import PlaceBusy, PlaceQuarantined
from hil.rig import Done, Job, Rig
from hil.store import Store, Study, TrialRow
from hil.where import Where
from search.architecture import Architecture
from search.candidate import Candidate, Rejected, prepare
from search.candidate import Job as TrainingJob
from search.constraints import Violation
from search.data import SearchData
from search.errors import SearchError, SpaceExhausted, StudyStopped, WorkerLost
from search.reward import objectives
from search.space import Point, Space, get_space
from search.strategy import get_strategy
from search.study import StudySettings
from search.trial import Failed, Infeasible, Outcome, Trial
from search.trial_log import TOO_LARGE, study_records, trial_outcome, violation_of
from search.workers import Broken, TrainingProcess, Work


@dataclass(frozen=True, slots=True)
class Progress:
    """One line for the user: `done` of `trials` are settled; `text` is about trial `number`."""

    done: int
    trials: int
    number: int
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class StudyResult:
    """How a run ended: `counts` of trials by state; not `finished` when the user stopped it."""

    counts: dict[str, int]
    interrupted: bool
    exhausted: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A training process is done with a trial."""

    number: int
    result: Rejected | Candidate | Broken


@dataclass(frozen=True, slots=True)
class _Interrupted:
    """The user pressed Ctrl-C."""


_Event = _Prepared | Done | _Interrupted


def run_study(
    settings: StudySettings,
    *,
    data: SearchData,
    store: Store,
    boards: Mapping[str, BoardLimits],
    rig: Rig,
    wheres: Mapping[str, Where],
    progress: Callable[[Progress], None] = lambda _: None,
    work: Work = prepare,
) -> StudyResult:
    """Runs or resumes a study until its trials are settled, the space is exhausted, or Ctrl-C.

    The first Ctrl-C ends the run cleanly: measurements under way are finished and kept, trainings
    abandoned. The second one raises KeyboardInterrupt at once.

    Args:
        settings: of the study; the same as before when it is resumed, but for
            search.study.FREE_SETTINGS.
        data: training and validation samples.
        store: where everything is kept.
        boards: memory and instructions of the board at each place.
        rig: measures; it stays open.
        wheres: for each place of the settings, which places of the rig may stand for it.
        progress: called in this thread whenever a trial is settled or trained.
        work: what a training process does with a job; a module-level function.

    Raises:
        SearchError: settings that make no sense; StudyStopped when failures pile up.
        HilError: the store cannot be used, or holds a study of that name with other settings; no
            place is left that could measure.
    """
    settings.check()
    study = store.open_study(settings.name, settings.identity(data))
    with study.lock():
        return _Loop(settings, data, study, boards, rig, wheres, progress, work).run()


class _Loop:
    """One run of a study. Everything is called from one thread; other threads only put events."""

    def __init__(
        self,
        settings: StudySettings,
        data: SearchData,
        study: Study,
        boards: Mapping[str, BoardLimits],
        rig: Rig,
        wheres: Mapping[str, Where],
        progress: Callable[[Progress], None],
        work: Work,
    ) -> None:
        self._settings, self._data, self._study = settings, data, study
        self._boards = tuple(dict.fromkeys(boards[place] for place in settings.places))
        self._rig, self._wheres, self._progress, self._work = rig, wheres, progress, work
        self._space: Space = get_space(settings.space, settings.space_options)
        self._architecture = functools.cache(self._build)
        self._strategy = get_strategy(
            settings.strategy,
            self._space,
            objectives=len(objectives(settings.objectives, settings.places)),
            seed=settings.seed,
            key=lambda point: self._architecture(point).hash,
            options=settings.strategy_options,
        )
        self._points: list[Point] = []
        self._outcomes: list[Outcome | None] = []
        self._told = 0
        self._failures: list[Failed] = []
        self._is_exhausted = False
        self._is_stopping = False
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._training: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._processes: list[TrainingProcess] = []

    def run(self) -> StudyResult:
        """Until all trials are settled, or stopped."""
        rows = self._restore()
        with _ctrl_c(lambda: self._events.put(_Interrupted())), self._threads():
            for row in rows:
                self._go_on(row)
            self._propose()
            while not self._is_stopping and None in self._outcomes:
                self._handle(self._events.get())
                self._propose()
        counts: dict[str, int] = {}
        for row in self._study.trials():
            counts[row.state] = counts.get(row.state, 0) + 1
        return StudyResult(counts, self._is_stopping, self._is_exhausted)

    def _build(self, point: Point) -> Architecture:
        return self._space.build(point, self._data.input_shape, self._data.classes)

    # proposals

    def _restore(self) -> list[TrialRow]:
        """Takes over what is stored."""
        rows = self._study.trials()
        for row in rows:
            self._points.append(self._space.point(row.point))
            self._outcomes.append(trial_outcome(row, self._settings))
        self._strategy.tell([Trial(n, point) for n, point in enumerate(self._points)])
        return rows

    def _propose(self) -> None:
        """Asks for as many trials as may be open; see the module's docstring for when."""
        while len(self._points) < self._settings.trials and not self._is_exhausted:
            number = len(self._points)
            known = max(0, number - self._settings.pending + 1)
            if self._is_stopping or None in self._outcomes[:known]:
                return
            for told in range(self._told, known):
                self._strategy.tell([Trial(told, self._points[told], self._outcomes[told])])
            self._told = max(self._told, known)
            try:
                (point,) = self._strategy.ask(1)
            except SpaceExhausted:
                self._is_exhausted = True
                return
            architecture = self._architecture(point)
            self._study.add_trial(
                number,
                point.to_dict(),
                architecture.hash,
                outcome={"summary": architecture.summary},
            )
            self._points.append(point)
            self._outcomes.append(None)
            self._training.put(number)

    def _go_on(self, row: TrialRow) -> None:
        """Does with a stored trial what is missing."""
        if row.state == "proposed":
            self._training.put(row.number)
        elif row.state == "trained":
            self._measure_missing(row)

    # events

    def _handle(self, event: _Event) -> None:
        if isinstance(event, _Interrupted):
            self._is_stopping = True
        elif isinstance(event, Done):
            self._handle_measured(event)
        elif isinstance(event.result, Candidate):
            self._handle_trained(event.number, event.result)
        elif isinstance(event.result, Rejected):
            self._reject(event.number, list(event.result.violations))
        else:
            broken = event.result
            self._fail(event.number, broken.kind, broken.reason, broken.traceback)

    def _handle_trained(self, number: int, candidate: Candidate) -> None:
        self._study.update_trial(
            number,
            state="trained",
            outcome={
                "accuracy": candidate.accuracy,
                "accuracy_samples": candidate.accuracy_samples,
                "float_accuracy": candidate.float_accuracy,
                "epochs": candidate.epochs,
                "train_s": candidate.train_s,
                "train_device": candidate.device,
            },
            model=candidate.tflite,
        )
        self._say(number, "trained", f"accuracy {candidate.accuracy:.1%}")
        if not self._is_stopping:
            self._measure_missing(self._study.trial(number))

    def _measure_missing(self, row: TrialRow) -> None:
        engine = self._settings.engine
        missing = [p for p in self._settings.places if row.record(p, engine) is None]
        if not missing:
            self._settle_measured(row)
            return
        tflite = self._study.model(row.number)
        assert tflite is not None, "a trained trial has its model"
        name = f"{self._settings.name}-{row.number:04d}"
        for place in missing:
            where = self._wheres[place]
            job = Job(self._settings.name, row.number, where, name, tflite, engine)
            self._rig.submit(job, self._events.put)

    def _handle_measured(self, done: Done) -> None:
        number, asked = cast(int, done.job.key), done.job.where.asked
        if done.record is not None:
            self._study.attach_record(number, done.record, asked=asked, board_s=done.board_s)
            row = self._study.trial(number)
            if row.state == "trained" and len(study_records(row, self._settings)) == len(
                self._settings.places
            ):
                self._settle_measured(row)
            return
        if self._outcomes[number] is not None:
            return  # it failed on another place before
        error = done.error
        if isinstance(error, PlaceQuarantined | PlaceBusy):
            # Nothing is known of the network: it is measured when the study is resumed.
            if not self._is_stopping:
                self._is_stopping = True
                raise error
        elif isinstance(error, TOO_LARGE):
            self._reject(number, [violation_of(error, asked)])
        else:
            assert error is not None, "a measurement gives a record or an error"
            reason = f"on {done.place}: {error}"
            self._fail(number, type(error).__name__, reason, done.traceback)

    def _settle_measured(self, row: TrialRow) -> None:
        """All places have measured it."""
        self._study.update_trial(row.number, state="measured")
        row = self._study.trial(row.number)
        try:
            outcome = trial_outcome(row, self._settings)
        except SearchError as error:
            self._fail(row.number, type(error).__name__, str(error), "")
            return
        records = study_records(row, self._settings).items()
        figures = ", ".join(f"{place} {record.latency_us:,.0f} us" for place, record in records)
        self._failures.clear()
        self._settle(
            row.number, outcome, "measured", f"accuracy {row.outcome['accuracy']:.1%}, {figures}"
        )

    def _reject(self, number: int, found: list[Violation]) -> None:
        total = sum(violation.amount for violation in found)
        reason = "; ".join(str(violation) for violation in found)
        self._study.update_trial(
            number,
            state="infeasible",
            outcome={
                "reason": reason,
                "violation": total,
                "violations": {
                    f"{v.memory}_bytes@{v.board}": v.needed_bytes - v.have_bytes for v in found
                },
            },
        )
        self._settle(number, Infeasible(total), "infeasible", reason)

    def _fail(self, number: int, kind: str, reason: str, trace: str) -> None:
        """A failed trial; several of a kind in a row end the run."""
        failed = Failed(kind, reason)
        self._study.update_trial(
            number,
            state="failed",
            outcome={"kind": kind, "reason": reason, "traceback": trace},
        )
        self._settle(number, failed, "failed", f"{kind}: {reason}")
        if self._failures and self._failures[0].kind != kind:
            self._failures.clear()
        self._failures.append(failed)
        if len(self._failures) >= self._settings.max_failures and not self._is_stopping:
            self._is_stopping = True
            first = self._failures[0]
            raise StudyStopped(self._settings.name, kind, len(self._failures), first.reason)

    def _settle(self, number: int, outcome: Outcome | None, state: str, text: str) -> None:
        self._outcomes[number] = outcome
        self._say(number, state, text)

    def _say(self, number: int, state: str, text: str) -> None:
        done = sum(outcome is not None for outcome in self._outcomes)
        self._progress(Progress(done, self._settings.trials, number, state, text))

    # threads

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        """Training processes, each with its thread; at the end, no job is left in the rig."""
        self._processes = [
            TrainingProcess(self._data, self._work) for _ in range(self._settings.workers)
        ]
        trainers = [
            threading.Thread(target=self._train, args=(process,), daemon=True)
            for process in self._processes
        ]
        for trainer in trainers:
            trainer.start()
        try:
            yield
        finally:
            self._is_stopping |= None in self._outcomes
            for process in self._processes:
                process.stop()
            for _ in trainers:
                self._training.put(None)
            for trainer in trainers:
                trainer.join()
            self._rig.withdraw(self._settings.name)
            while not self._events.empty():  # what came in meanwhile is kept as well
                self._handle(self._events.get())

    def _train(self, process: TrainingProcess) -> None:
        """Thread: hands trials to one training process."""
        while (number := self._training.get()) is not None:
            try:
                result = process.run(
                    self._job(number), deadline_s=self._settings.training.deadline_s
                )
            except WorkerLost as error:
                if self._is_stopping:
                    continue  # abandoned; trained again when the study is resumed
                result = Broken(type(error).__name__, str(error), "")
            self._events.put(_Prepared(number, result))

    def _job(self, number: int) -> TrainingJob:
        settings = self._settings
        return TrainingJob(
            architecture=self._architecture(self._points[number]),
            name=f"trial_{number:04d}",
            seed=int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0]),
            settings=settings.training,
            boards=self._boards,
            engine=settings.engine,
            engine_objective=settings.engine_objective,
        )


@contextlib.contextmanager
def _ctrl_c(on_first: Callable[[], None]) -> Iterator[None]:
    """Calls `on_first` at the first SIGINT; a second one raises KeyboardInterrupt as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return

    def handler(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        on_first()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
