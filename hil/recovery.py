"""Brings a place back after a fault: which errors another attempt can help, and what is done first.

An attempt is the whole measurement, from flashing on: no number of a failed attempt survives. Each
fault and each action is a line in the health ledger. Errors are of three kinds:

    of the job      the model, its build or the oracle: the same again gives the same, so no retry
    of the place    noise, silence, faults, a probe that is gone: reset, then power cycle
    for a person    another board behind the port, a locked chip: quarantine at once

A place that has failed QUARANTINE_AFTER times in a row, in whichever jobs and processes, is
quarantined until `hil lab release`. A job that has used up its attempts is not counted against the
place when the place then still runs a firmware that is known to be good: the model is to blame.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TypeVar

from hil.errors import (
    ChipLocked,
    ClockMismatch,
    FirmwareMismatch,
    FlashError,
    HilError,
    LinkError,
    MeterError,
    OutputMismatch,
    PlaceQuarantined,
    PowerError,
    ResetLoop,
    TargetFault,
    TriggerError,
    WireError,
    WrongBoard,
    WrongKernel,
)
from hil.health import Ledger, is_anonymous
from hil.lab import Place

QUARANTINE_AFTER = 4  # failed attempts in a row: all of one job, and the proof after them
RETURN_S = 15.0  # for a port to come back after a reset: USB enumerates in a second or two

_POLL_S = 0.05

T = TypeVar("T")
OpenPlace = Callable[[str], AbstractContextManager[Place]]


class Step(enum.Enum):
    """What is done before another attempt."""

    RESET = "reset"
    POWER_CYCLE = "power cycle"
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True)
class Treatment:
    """What helps against an error.

    Attributes:
        steps: one before each further attempt; none: another attempt does not help.
        is_of_place: counted against the place.
        is_for_a_person: nothing runs there until somebody has looked.
        is_proved: afterwards a known firmware tells whether place or job is to blame.
        is_noted: it gets a line in the ledger.
    """

    steps: tuple[Step, ...] = ()
    is_of_place: bool = True
    is_for_a_person: bool = False
    is_proved: bool = False
    is_noted: bool = True


_OF_THE_JOB = Treatment(is_of_place=False, is_noted=False)
_FOR_A_PERSON = Treatment(is_for_a_person=True)
_BOARD = Treatment((Step.RESET, Step.POWER_CYCLE), is_proved=True)

#: The first line that fits counts; what is not here is of the job. A power cycle stands for opening
#: the place again where its supply has no switch.
_TREATMENTS: tuple[tuple[type[HilError], Treatment], ...] = (
    (WrongBoard, _FOR_A_PERSON),
    (ChipLocked, _FOR_A_PERSON),
    (PowerError, _FOR_A_PERSON),
    # An oscillator that did not start is mended by its supply, a wrong clock tree by nothing; the
    # known firmware is too quick to tell.
    (ClockMismatch, Treatment((Step.POWER_CYCLE,))),
    # The known firmware does not show whether a meter works.
    (TriggerError, Treatment((Step.POWER_CYCLE,))),
    (MeterError, Treatment((Step.REOPEN, Step.POWER_CYCLE))),
    (ResetLoop, _BOARD),
    (TargetFault, Treatment((Step.RESET,), is_proved=True)),  # a bug of the firmware comes again
    (LinkError, _BOARD),
    (WireError, _BOARD),
    (FirmwareMismatch, _BOARD),
    (FlashError, _BOARD),
    # CRCs guard what is sent, so other bytes are what the firmware computed.
    (OutputMismatch, Treatment(is_of_place=False)),
    (WrongKernel, Treatment(is_of_place=False)),
)

#: Codes of refusals that the same command would meet again; "crc" is noise.
_ENGINES_ANSWERS = ("args", "room", "state", "verb")


def treatment_of(error: Exception) -> Treatment:
    """What helps against an error."""
    if isinstance(error, WireError) and error.code in _ENGINES_ANSWERS:
        return Treatment(is_of_place=False)
    for kind, treatment in _TREATMENTS:
        if isinstance(error, kind):
            return treatment
    return _OF_THE_JOB


class KeptPlace:
    """A place that is kept open from one use to the next and brought back after faults.

    One thread uses it; any thread may call `abandon`.

    Args:
        name: of the place.
        open_place: opens it; called again after a fault.
        ledger: where faults and actions are written.
        prove: raises HilError unless the open place runs a known firmware; None: never asked.
        on_state: told when a use fails and is repeated ("retrying").
        say: told each fault with what is done about it, as a line for people.
    """

    def __init__(
        self,
        name: str,
        *,
        open_place: OpenPlace,
        ledger: Ledger,
        prove: Callable[[Place], None] | None = None,
        on_state: Callable[[str], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.faults = 0  # since this object was made
        self._open_place, self._ledger, self._prove = open_place, ledger, prove
        self._on_state, self._say = on_state, say
        self._stack = ExitStack()
        self._place: Place | None = None
        self._abandoned = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether the place is held open now."""
        return self._place is not None

    def open(self) -> Place:
        """The open place; raises HilError as opening it does."""
        if self._place is None:
            self._place = self._stack.enter_context(self._open_place(self.name))
        return self._place

    def close(self) -> None:
        """Frees the place; the next use opens it again."""
        self._place = None
        with contextlib.suppress(HilError, OSError):  # what failed before is what counts
            self._stack.close()

    def give_way(self) -> None:
        """Lets other processes that wait for the place have it first; quick when there is none."""
        lock = self._place.lock if self._place else None
        if lock is not None:
            try:
                lock.yield_turn()
            except HilError:  # it did not come back in time: the next use waits for it again
                self.close()

    def abandon(self) -> None:
        """From another thread: makes the use under way fail soon, and allows no further attempt."""
        self._abandoned.set()
        place = self._place
        if place is not None:
            with contextlib.suppress(HilError, OSError):
                place.close()

    def use(
        self, what: str, work: Callable[[Place], T], *, is_over: Callable[[], bool] = lambda: False
    ) -> T:
        """What `work` gives for the open place; faults of the place are treated and it is repeated.

        Args:
            what: the job, for the ledger.
            work: the whole of a measurement, from flashing on.
            is_over: whether nobody wants the result any more: no further attempt then.

        Raises:
            PlaceQuarantined: the place has failed too often; the last fault is the cause.
            Exception: what `work` or the opening raised and no attempt could help.
        """
        attempt = 1
        while True:
            try:
                result = work(self.open())
            except HilError as error:
                if self._abandoned.is_set() or is_over():
                    self.close()
                    raise
                self._treat(what, error, attempt)
            except BaseException:
                self.close()
                raise
            else:
                self._ledger.succeeded(self.name)
                if attempt > 1:
                    self._note("recovered", f"{what}: measured at attempt {attempt}")
                return result
            attempt += 1

    def _treat(self, what: str, error: HilError, attempt: int) -> None:
        """Does what helps before the next attempt; raises when nothing does."""
        treatment = treatment_of(error)
        if not treatment.is_noted:
            raise error
        self.faults += 1
        if not treatment.is_of_place:
            self._fault(what, error, "none: not a fault of the place")
            raise error
        failures = self._ledger.failed(self.name)
        steps = treatment.steps
        if treatment.is_for_a_person:
            self._fault(what, error, "given up" if is_anonymous(self.name) else "quarantine")
            self._quarantine(error, error)
        elif failures >= QUARANTINE_AFTER and not is_anonymous(self.name):
            self._fault(what, error, f"quarantine after {failures} failures in a row")
            self._quarantine(error, error)
        elif attempt <= len(steps):
            step = steps[attempt - 1]
            next_one = f"attempt {attempt + 1} of {len(steps) + 1}"
            self._fault(what, error, f"{step.value}, then {next_one}")
            self._on_state("retrying")
            self._do(step)
        else:
            tried = f" after {attempt} attempts" if attempt > 1 else ""
            self._fault(what, error, f"given up{tried}")
            self.close()
            if treatment.is_proved:
                self._find_the_one_to_blame(what, error)
            raise error

    def _find_the_one_to_blame(self, what: str, error: HilError) -> None:
        """Runs a known firmware; raises PlaceQuarantined when it fails, too, once too often."""
        if self._prove is None:
            return
        try:
            self._prove(self.open())
        except HilError as second:
            self.close()
            if not treatment_of(second).is_of_place:
                return  # the known firmware could not be built: it tells nothing
            failures = self._ledger.failed(self.name)
            self._note("proof", f"the known firmware fails, too: {second}", second)
            if failures >= QUARANTINE_AFTER:
                self._quarantine(second, error)
        else:
            self._ledger.succeeded(self.name)
            self._note("proof", f"the place runs the known firmware: {what} is to blame")

    def _quarantine(self, reason: HilError, cause: HilError) -> None:
        """Raises PlaceQuarantined, or the cause where there is no quarantine."""
        self.close()
        if is_anonymous(self.name):
            raise cause
        text = f"{type(reason).__name__}: {reason}"
        self._ledger.quarantine(self.name, text)
        self._say(f"{self.name} is in quarantine; see why, then: hil lab release {self.name}")
        raise PlaceQuarantined(self.name, text) from cause

    def _do(self, step: Step) -> None:
        """Takes the step, or a stronger one where it fails; leaves the rest to the next attempt."""
        if step is Step.RESET and self._place is not None:
            if self._tried(step, self._place.reset):
                return
            step = Step.POWER_CYCLE
        if (
            step is Step.POWER_CYCLE
            and self._place is not None
            and self._place.can_power_cycle
            and self._tried(step, self._place.power_cycle)
        ):
            return
        self.close()
        self._note(Step.REOPEN.value, "closed; the next attempt opens it again")

    def _tried(self, step: Step, action: Callable[[], None]) -> bool:
        """Whether an action worked and the port is there again."""
        try:
            action()
            self._await_port()
        except HilError as error:
            self._note(step.value, f"failed: {error}", error)
            return False
        self._note(step.value, "done")
        return True

    def _await_port(self) -> None:
        """Waits until the serial port is there; raises LinkError when it does not come back."""
        assert self._place is not None, "only an open place is reset"
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                port = self._place.port
                if os.path.exists(port):
                    return
                raise LinkError(port, f"is not back after {RETURN_S:.0f} s")
            except LinkError:
                if time.monotonic() > deadline or self._abandoned.wait(_POLL_S):
                    raise

    def _fault(self, what: str, error: HilError, action: str) -> None:
        text = f"{what}: {error}"
        self._ledger.add(self.name, "fault", text, action, error=type(error).__name__)
        self._say(f"{self.name}: {type(error).__name__}: {error}; {action}")

    def _note(self, event: str, detail: str, error: HilError | None = None) -> None:
        name = type(error).__name__ if error else ""
        self._ledger.add(self.name, event, detail, error=name)
