"""Proves one place, step by step: is it free, does the probe answer, does the board run and tell?

Every step that can be taken is taken, with the firmware of `firmware/models/echo`, which copies its
input: what fails is the place, never a model. A step that needs one that failed is skipped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hil import flash
from hil.build import Firmware, build
from hil.doctor import USB_RULES
from hil.energy import LOOP_US, measure_windows
from hil.errors import (
    BuildError,
    ChipLocked,
    ClockMismatch,
    FirmwareMismatch,
    FlashError,
    HilError,
    LinkError,
    LinkGarbled,
    LinkTimeout,
    MeterError,
    PlaceBusy,
    PowerError,
    ProbeGone,
    ResetLoop,
    SamplesLost,
    TargetFault,
    TriggerError,
    VerifyFailed,
    WireError,
    WrongBoard,
)
from hil.hardware import HardwarePlace
from hil.health import Ledger, is_anonymous
from hil.lab import Place, open_place
from hil.link import SerialLink
from hil.manifest import Manifest, read_manifest
from hil.proof import MODEL_DIR
from hil.session import BOOT_S, CLOCK_TOLERANCE, Runner, check_identity, inference_s, telling_faults
from hil.wire import Wire

FREE_S = 0.5  # for a place in use to become free: somebody may just have looked at it
CLOCK_S = 1.0  # over which a board's clock is compared with this machine's
VIRTUAL_CLOCK_S = 0.02  # emulated seconds are exact, and cost more
RESTARTED_S = 1.0  # firmware that has started meanwhile says nothing more
_INFERENCES_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One step: `seen` says what was found, `mend` what to do when it failed."""

    place: str
    what: str
    state: Literal["ok", "failed", "skipped"]
    seen: str
    mend: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class _Skipped(Exception):
    """A step that cannot be taken here; says why."""


def check_place(name: str, *, load_ohm: float | None = None) -> Iterator[Check]:
    """The steps of one place, each as soon as it is done.

    Args:
        name: of a place; an anonymous virtual one is as good.
        load_ohm: a resistor of so many ohms is where the board was: only the meter is tried.

    Raises:
        BoardNotFound, BoardFileError: there is no such place, or lab.toml is wrong.
    """
    with ExitStack() as stack:
        steps = _Steps(name)
        yield steps.take("free", lambda: steps.open(stack))
        if steps.place is None:
            return
        if not is_anonymous(name):
            yield steps.take("quarantine", steps.quarantine)
        if load_ohm is not None:
            yield steps.take("meter", lambda: steps.load(load_ohm))
            return
        yield steps.take("plugged in", steps.plugged_in)
        yield steps.take("probe", steps.probe)
        yield steps.take("flash", lambda: steps.flash(stack))
        yield steps.take("serial port", steps.hello)
        yield steps.take("clock", steps.clock)
        yield steps.take("trigger pin", steps.trigger)
        yield steps.take("power switch", lambda: steps.power(stack))


class _Steps:
    """The state from step to step; every step returns what was seen, or raises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.place: Place | None = None
        self._wire: Wire | None = None
        self._runner: Runner | None = None
        self._firmware: Firmware | None = None
        self._manifest: Manifest | None = None
        self._link: SerialLink | None = None

    def take(self, what: str, step: Callable[[], str]) -> Check:
        """Takes a step and tells how it went; a failure is a line in the health ledger."""
        started = time.monotonic()
        try:
            seen, state, mend = step(), "ok", ""
        except _Skipped as reason:
            return Check(self.name, what, "skipped", str(reason))
        except HilError as error:
            seen, state, mend = str(error), "failed", _mend(error)
            if not is_anonymous(self.name) and not isinstance(error, PlaceBusy):
                with Ledger() as ledger:
                    ledger.add(self.name, "check", f"{what}: {seen}", error=type(error).__name__)
        seconds = round(time.monotonic() - started, 3)
        return Check(self.name, what, state, seen, mend, seconds)  # type: ignore[arg-type]

    def open(self, stack: ExitStack) -> str:
        opened = open_place(self.name, wait_s=FREE_S, even_quarantined=True)
        self.place = stack.enter_context(opened)
        return f"{self.place.board.name}, {self.place.source}"

    def quarantine(self) -> str:
        with Ledger() as ledger:
            reason = ledger.quarantined(self.name)
        if reason is not None:
            raise _Skipped(
                f"is in quarantine: {reason}; if all else is ok: hil lab release {self.name}"
            )
        return "none"

    def plugged_in(self) -> str:
        place = self._open()
        if isinstance(place, HardwarePlace):
            if missing := place.missing():
                raise LinkError(place.entry.port or "", missing)
        elif place.source == "virtual":
            return f"emulated, its port is {place.port}"
        return place.port

    def probe(self) -> str:
        place = self._open()
        options = getattr(place, "options", None)
        if options is not None and options.flash == "direct":
            raise _Skipped("images go straight into the memory of a virtual board, as it was asked")
        if options is None:
            place.reset()
        else:
            flash.reset(place.board, place=place.name, probe=place.probe, method=options.flash)
        return f"{place.probe or 'the only one'} answers and has reset the board"

    def flash(self, stack: ExitStack) -> str:
        place = self._open()
        self._firmware, self._manifest = build(MODEL_DIR, place.board), read_manifest(MODEL_DIR)
        # open before the firmware starts, so that its boot message is not missed
        link = stack.enter_context(SerialLink(place.port, place.board.link.baud))
        link.discard()
        place.flash(self._firmware.elf)
        self._link = link
        return f"{self._firmware.flash_bytes.total:,} B written and verified"

    def hello(self) -> str:
        place, firmware, manifest = self._open(), self._firmware, self._manifest
        if self._link is None or firmware is None or manifest is None:
            raise _Skipped("needs a board that was flashed")
        wire = Wire(self._link, place.name)
        with telling_faults(place):
            wire.wait_boot(BOOT_S)
            hello = wire.hello()
            check_identity(hello, place, firmware, manifest)
            self._runner = Runner(wire, manifest, hello, inference_s(place, manifest))
            self._runner.fill(1)
        self._wire = wire
        return f"{hello.board} answers at {place.board.link.baud:,} baud with what was flashed"

    def clock(self) -> str:
        """The board's two readings lie between ours before and after, whatever USB adds."""
        place, wire, runner = self._open(), self._wire, self._runner
        if wire is None or runner is None:
            raise _Skipped("needs a board that answers")
        least_s = VIRTUAL_CLOCK_S if place.source == "virtual" else CLOCK_S
        before = place.now()
        _, first = wire.time()
        after_first = place.now()
        cycles, last = 0, first
        while place.now() - after_first < least_s:
            runner.run(_INFERENCES_AT_ONCE)
            _, count = wire.time()
            cycles, last = cycles + (count - last) % 2**32, count
        before_last = place.now()
        _, count = wire.time()
        cycles += (count - last) % 2**32
        longest_s, shortest_s = place.now() - before, before_last - after_first
        board_s = cycles / place.board.mcu.clock_hz
        if not (shortest_s * (1 - CLOCK_TOLERANCE) <= board_s <= longest_s * (1 + CLOCK_TOLERANCE)):
            raise ClockMismatch(
                f"{board_s:.6f} s by the cycle counter at {place.board.mcu.clock_hz:,} Hz are "
                f"{shortest_s:.6f} to {longest_s:.6f} s by a clock that is not the board's"
            )
        return f"{cycles:,} cycles in {shortest_s:.6f} to {longest_s:.6f} s"

    def trigger(self) -> str:
        place, runner = self._open(), self._runner
        meter = place.meter
        if meter is None:
            raise _Skipped("needs a meter, and this place has none")
        if runner is None:
            raise _Skipped("needs a board that answers")
        latency_us = runner.run(1)[0] / place.board.mcu.clock_hz * 1e6
        inferences = math.ceil(LOOP_US / latency_us)
        (window,) = measure_windows(meter, [lambda: runner.loop_us(inferences) * 1e-6], exact=False)
        return (
            f"{meter.name} sees one window with {window.energy_uj:.3g} uJ, and "
            f"{window.idle_uw / 1000:,.2f} mW before and after"
        )

    def load(self, load_ohm: float) -> str:
        from hil.meters import self_test

        place = self._open()
        if place.source == "virtual":
            raise _Skipped("a virtual meter has no terminals to put a resistor between")
        if place.meter is None:
            raise _Skipped("lab.toml names no meter for this place")
        result = self_test(place.meter, load_ohm)
        if not result.ok:
            raise MeterError(place.meter.name, str(result))
        return str(result)

    def power(self, stack: ExitStack) -> str:
        place = self._open()
        if not place.can_power_cycle:
            raise _Skipped("lab.toml names no switch: faults that need one wait for a person")
        if self._link is not None:
            self._link.close()  # the port may go, and come back as another
        if place.source == "hardware" or self._wire is None:
            place.power_cycle()
        if self._wire is None:
            return "off and on again, and all is plugged in"
        link = stack.enter_context(SerialLink(place.port, place.board.link.baud))
        wire = Wire(link, place.name)
        with telling_faults(place):
            if place.source == "virtual":
                place.power_cycle()  # its port stays, so the boot message is seen
                wire.wait_boot(BOOT_S)
            else:
                with contextlib.suppress(LinkTimeout):  # said before the port was back
                    wire.wait_boot(RESTARTED_S)
                link.discard()
            wire.hello()
        return "off and on again, and the firmware answers"

    def _open(self) -> Place:
        assert self.place is not None, "steps are taken of an open place"
        return self.place


#: What to do about an error, by its type; the first that fits.
_MENDS: tuple[tuple[type[HilError], str], ...] = (
    (ChipLocked, "if what it holds may go, unlock it by hand: pyocd erase --mass"),
    (ProbeGone, f"is it plugged in and `probe` right (hil lab scan lists them)? {USB_RULES}"),
    (VerifyFailed, "try a shorter cable and a powered hub; hil lab health: how worn is the flash?"),
    (BuildError, "hil doctor says what is not installed"),
    (FlashError, "hil doctor says which tools are missing; the words above are the tool's"),
    (WrongBoard, "cables are mixed up, or `port` is another board's: hil lab scan"),
    (LinkGarbled, "compare baud in boards/, and the jumpers between debugger and UART"),
    (WireError, "noise on the line: a shorter cable, a ground between board and debugger"),
    (LinkTimeout, "is `port` the right one of two, are the jumpers to the debugger's UART set?"),
    (ResetLoop, "look at the supply: a weak one resets the board when it starts to work"),
    (TargetFault, "flash the demo of the maker: if that fails too, the board is broken"),
    (ClockMismatch, "is the crystal that the port's clock tree expects fitted on this board?"),
    (TriggerError, "wire the trigger pin (boards/README.md) and a ground to the meter's input"),
    (SamplesLost, "plug the meter into a socket of its own, without a hub"),
    (MeterError, f"is it plugged in, does nobody else use it? {USB_RULES}"),
    (PowerError, "hil/lab.py describes [places.NAME.power]; boards/BENCH.md which hubs work"),
    (FirmwareMismatch, "does the probe flash the board that this port belongs to? hil lab scan"),
    (LinkError, f"plug it in; hil boards lists what is attached; {USB_RULES}"),
)


def _mend(error: HilError) -> str:
    for kind, text in _MENDS:
        if isinstance(error, kind):
            return text
    return ""
