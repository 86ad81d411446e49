"""A virtual board as a process: threads run the core, its debug probe and the control channel.

The control channel is an inherited socket with one JSON object a line, a request and its answer.
The process ends when it is told to, when the channel is closed, or when its parent is gone; it
creates no files, so it can also be killed at any moment.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hil.board import Board, board_ids
from hil.errors import HilError
from hil.tables import table_to_dataclass
from hil.virtual.core_debug import CoreDebug
from hil.virtual.core_thread import CoreThread
from hil.virtual.cpu import Cpu, PinChange
from hil.virtual.debug_port import DebugPort
from hil.virtual.fake_lpm01a import FakeLpm01a
from hil.virtual.fake_meter import FakeMeter, trigger_pin
from hil.virtual.fake_ppk2 import FakePpk2
from hil.virtual.faults import Faults, parse_faults
from hil.virtual.image import first_difference, load_elf, read_elf
from hil.virtual.jtag_server import CHAINS, JtagServer
from hil.virtual.options import NO_OPTIONS, VirtualOptions
from hil.virtual.probe_server import ProbeServer
from hil.virtual.serial_faults import SerialFaults
from hil.virtual.uart import Pty

_ORPHAN_CHECK_S = 1.0
_STATES = {
    "exit": "exited",
    "lockup": "locked up",
    "sleep": "sleeping",
    "hung": "hung",
    "stopped": "stopped",
    "halted": "halted",
}
_REST_S = 0.2  # a program that has just answered waits for its next command much sooner
MAX_PIN_CHANGES_SENT = 4096
MAX_WINDOWS_SENT = 1000
_METERS: dict[str, type[FakeMeter]] = {meter.kind: meter for meter in (FakeLpm01a, FakePpk2)}


class Server:
    """One board, served on one control socket."""

    def __init__(self, board: Board, options: VirtualOptions = NO_OPTIONS) -> None:
        self.options = options
        self._pty = Pty()
        self.cpu = Cpu(board, self._pty)
        self._pty.stops_waiting = lambda: self.cpu.stop_requested
        self._pty.on_match = self._matched
        self.core = CoreThread(self.cpu, self._pty.wake)
        self.debug = CoreDebug(self.core)
        self.debug_port = DebugPort(self.core, self.debug)
        self.probe = ProbeServer(self.debug_port, board.name)
        chain = CHAINS.get(board.build.family)
        self.jtag = JtagServer(self.debug_port, chain) if chain is not None else None
        self.faults = Faults(parse_faults(options.faults))
        self._true_s, self._true_cycles = 0.0, 0  # true time at a number of cycles
        self._was_flashed = False
        if options.faults:
            self._connect_faults(board)
        self._was_matched = False
        self._trigger = trigger_pin(board)
        self.meter: FakeMeter | None = None
        if options.meter is not None:
            self.meter = _METERS[options.meter](
                board, at_rest=self._is_at_rest, set_power=self._set_power
            )
            self.meter.start()
        if self.meter is not None or options.faults:
            self.cpu.on_pin = self._pin_changed

    def close(self) -> None:
        """Closes its ports, once `serve` has returned and the core has stopped."""
        if self.meter is not None:
            self.meter.close()
        self.probe.close()
        if self.jtag is not None:
            self.jtag.close()
        self._pty.close()

    def serve(self, control: socket.socket) -> None:
        """Answers requests until the channel closes or asks to quit."""
        parent = os.getppid()
        received = b""
        _send(control, self._do_ports({}))
        while True:
            writers = [self._pty.board_end] if self._pty.pending_bytes else []
            ready, writable, _ = select.select([control], writers, [], _ORPHAN_CHECK_S)
            if writable:
                self._pty.drain()
            if os.getppid() != parent:
                return
            if not ready:
                continue
            data = control.recv(65536)
            if not data:
                return
            received += data
            *lines, received = received.split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["do"] == "quit":
                    return
                _send(control, self._answer(request))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with self.core.lock:
                answer: dict[str, Any] = getattr(self, f"_do_{request['do']}")(request)
        except HilError as error:
            return {"error": str(error)}
        return answer

    def _do_ports(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where the board can be reached now."""
        meter_port = None if self.meter is None else self.meter.port
        return {
            "port": self._pty.port,
            "probe": self.probe.address,
            "jtag": self.jtag and f"127.0.0.1:{self.jtag.tcp_port}",
            "meter_port": meter_port,
        }

    def _do_load(self, request: dict[str, Any]) -> dict[str, Any]:
        image = load_elf(read_elf(Path(request["path"])), self.cpu.memory)
        self.core.give_up()
        self._do_flashing({})
        if self.faults.chip_locked():
            return {"locked": "its flash is protected"}
        self._pty.start_program(request["until"].encode())
        self._was_matched = False
        self.debug.power_cycle()
        if self.faults.find("stale_firmware") is not None and self._was_flashed:
            self.serial.is_old_image = True
            self.cpu.power_on()  # it runs as it did after it was flashed, cycle by cycle
            self.core.start()
            return {}
        written = image
        if self.faults.supply_fails(image.size_bytes):
            fault = self.faults.find("brown_out")
            assert fault is not None, "it made the supply fail"
            written = image.beginning(int(fault.number("after_bytes")))
        self.cpu.load(written)
        self._was_flashed = True
        self.core.start()
        wrong = first_difference(image, self.cpu.memory)
        return {} if wrong is None else {"wrong": wrong}

    def _do_flashing(self, request: dict[str, Any]) -> dict[str, Any]:
        """Somebody is about to flash the board, in whichever way."""
        if not self.options.faults:
            return {}
        self._true_seconds()
        was_locked = self.faults.chip_locked()
        self.faults.begin_flashing()
        controller = self.cpu.flash_controller
        if controller is not None and self.faults.chip_locked() != was_locked:
            self.core.give_up()
            (controller.erase_chip if was_locked else controller.protect)()
        return {}

    def _do_count_clients(self, request: dict[str, Any]) -> dict[str, Any]:
        """From now on every program that connects to the probe is about to flash."""

        def came() -> None:
            with self.core.lock:
                self._do_flashing({})

        self.probe.on_client = came
        if self.jtag is not None:
            self.jtag.on_client = came
        return {}

    def _connect_faults(self, board: Board) -> None:
        other = next(name for name in board_ids() if name != board.id)
        self.serial = SerialFaults(self.faults, baud=board.link.baud, other_board=other)
        self.serial.on_reset = self.cpu.request_reset
        self.serial.on_move = self._pty.move
        self._pty.to_host, self._pty.to_board = self.serial.to_host, self.serial.to_board
        self.faults.on_change = self.serial.restart
        self.cpu.on_flash_change = self._flash_changes
        self.probe.vanishes = self.faults.probe_vanishes

    def _flash_changes(self, size_bytes: int) -> None:
        if self.faults.supply_fails(size_bytes):
            self.cpu.stop()  # nothing more is written; the rest waits for the core's thread to end
            threading.Thread(target=self._do_power_cycle, args=({},), daemon=True).start()

    def _do_reset(self, request: dict[str, Any]) -> dict[str, Any]:
        self.core.give_up()
        self._pty.start_program(b"")
        self._was_matched = False
        self.cpu.fault_text = None
        self.debug.reset()
        return {}

    def _do_power_cycle(self, request: dict[str, Any]) -> dict[str, Any]:
        self._set_power(on=False)
        self.faults.power_cycled()
        self._set_power(on=True)
        return {}

    def _set_power(self, on: bool) -> None:
        """Off, the core stands still; on, it starts with nothing in its RAM."""
        with self.core.lock:
            self.core.give_up()
            self._pty.start_program(b"")
            self._was_matched = False
            if on:
                self.debug.power_cycle()
                self.debug_port.power_cycle()
                self.cpu.power_on()
                self.core.start()

    def _pin_changed(self, change: PinChange) -> None:
        if (change.port, change.pin) != self._trigger:
            return
        if change.level and self.options.faults and (strike := self.serial.take_strike()):
            blocks = int(strike.number("after_blocks"))
            self.cpu.strike(hangs=strike.name == "hang", after_blocks=blocks)
        if self.meter is not None:
            stuck_at = self.faults.trigger_stuck_at()
            self.meter.pin_changed(change.cycle, change.level if stuck_at is None else stuck_at)
            if change.level and (lost := self.faults.lost_samples()):
                self.meter.drop_samples(lost)

    def _is_at_rest(self) -> bool:
        return self._state() != "running"

    def _do_meter(self, request: dict[str, Any]) -> dict[str, Any]:
        """(start, end, energy) in s, s and uJ of the last windows as a perfect meter sees them."""
        windows = [] if self.meter is None else list(self.meter.windows)
        return {"windows": windows[-MAX_WINDOWS_SENT:]}

    def _do_stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self.core.give_up()
        return {}

    def _do_now(self, request: dict[str, Any]) -> dict[str, Any]:
        """True seconds that the core has run since the board exists.

        A program that has just answered comes to rest by itself; another one pauses to be asked.
        """
        deadline = time.monotonic() + _REST_S
        while not self._is_at_rest() and time.monotonic() < deadline:
            time.sleep(_REST_S / 1000)
        return {"seconds": self._true_seconds()}

    def _true_seconds(self) -> float:
        cycles = self._cycles_ever()
        seconds = (cycles - self._true_cycles) / self.cpu.board.mcu.clock_hz
        self._true_s += seconds * self.faults.clock_factor()
        self._true_cycles = cycles
        return self._true_s

    def _cycles_ever(self) -> int:
        with self._pty.at_rest:
            waits = bool(self._pty.waiting)
            cycles = self.cpu.cycles_ever() if waits else 0
        if not waits:
            with self.core.at_rest():
                cycles = self.cpu.cycles_ever()
        return cycles

    def _do_state(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._pty.at_rest:
            stop = self.core.stop
            state: dict[str, Any] = {"state": self._state(), "fault": self._fault()}
            state["exit_code"] = stop.exit_code if stop else None
            state["pending_bytes"] = self._pty.pending_bytes
            state["memory"] = self.cpu.memory_system.setting()
            state |= {"cycles": None, "instructions": None}
            if state["state"] != "running":
                try:
                    total = self.cpu.clock.total()
                    state |= {"cycles": total.cycles, "instructions": total.instructions}
                except HilError as error:  # the cost of an instruction is not known
                    state["fault"] = state["fault"] or str(error)
        return state

    def _do_pins(self, request: dict[str, Any]) -> dict[str, Any]:
        """Pin changes from number `first` on; at most MAX_PIN_CHANGES_SENT at once."""
        first = int(request["first"])
        changes = list(self.cpu.pin_changes)[first : first + MAX_PIN_CHANGES_SENT]
        return {"changes": changes}

    def _state(self) -> str:
        stop = self.core.stop
        if self.core.failure is not None:
            return "failed"
        if self.debug.is_halted:
            return "halted"
        if stop is not None:
            return "matched" if self._was_matched else _STATES[stop.reason]
        if not self.core.was_started:
            return "empty"
        return {"": "running", "input": "waiting for input", "reader": "waiting for a reader"}[
            self._pty.waiting
        ]

    def _fault(self) -> str | None:
        failure = self.core.failure
        return str(failure) if failure is not None else self.cpu.fault_text

    def _matched(self) -> None:
        self._was_matched = True
        self.cpu.stop()


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """A mistake in the core's thread: the parent sees that the process has ended."""
    sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    os._exit(1)


def main(control_fd: int) -> None:
    """Body of the process: the first line on the control channel says which board, and how."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which then closes the channel
    control = socket.socket(fileno=control_fd)
    description = b""
    while not description.endswith(b"\n"):
        data = control.recv(65536)
        if not data:
            return
        description += data
    try:
        given = json.loads(description)
        board = table_to_dataclass(Board, given["board"], Path("control channel"))
        options = table_to_dataclass(VirtualOptions, given["options"], Path("control channel"))
        server = Server(board, options)
    except HilError as error:
        _send(control, {"error": str(error)})
        return
    server.serve(control)
    os._exit(0)  # without waiting for the core's thread
