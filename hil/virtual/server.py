"""A virtual board as a process: one thread runs the core, the other answers the control channel.

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
from pathlib import Path
from typing import Any

from hil.board import Board
from hil.errors import HilError
from hil.tables import table_to_dataclass
from hil.virtual.cpu import Cpu, Stop
from hil.virtual.image import load_elf, read_elf
from hil.virtual.options import NO_OPTIONS, VirtualOptions
from hil.virtual.uart import Pty

_ORPHAN_CHECK_S = 1.0
_STOP_RETRY_S = 0.01
_STATES = {"exit": "exited", "lockup": "locked up", "sleep": "sleeping", "stopped": "stopped"}
MAX_PIN_CHANGES_SENT = 4096


class Server:
    """One board, served on one control socket."""

    def __init__(self, board: Board, options: VirtualOptions = NO_OPTIONS) -> None:
        self.options = options
        self._pty = Pty()
        self.cpu = Cpu(board, self._pty)
        self._pty.stops_waiting = lambda: self.cpu.stop_requested
        self._pty.on_match = self._matched
        self._thread: threading.Thread | None = None
        self._stop: Stop | None = None
        self._failure: HilError | None = None
        self._was_matched = False

    def close(self) -> None:
        """Closes the serial port, once `serve` has returned and the core has stopped."""
        self._pty.close()

    def serve(self, control: socket.socket) -> None:
        """Answers requests until the channel closes or asks to quit."""
        parent = os.getppid()
        received = b""
        _send(control, {"port": self._pty.port})
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
            answer: dict[str, Any] = getattr(self, f"_do_{request['do']}")(request)
        except HilError as error:
            return {"error": str(error)}
        return answer

    def _do_load(self, request: dict[str, Any]) -> dict[str, Any]:
        image = load_elf(read_elf(Path(request["path"])), self.cpu.memory)
        self._give_up_run()
        self._pty.start_program(request["until"].encode())
        self._was_matched = False
        self.cpu.load(image)
        self._start_run()
        return {}

    def _do_reset(self, request: dict[str, Any]) -> dict[str, Any]:
        self._give_up_run()
        self._pty.start_program(b"")
        self.cpu.fault_text = None
        self.cpu.reset()
        self._start_run()
        return {}

    def _do_stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._give_up_run()
        return {}

    def _do_state(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._pty.at_rest:
            state: dict[str, Any] = {"state": self._state(), "fault": self._fault()}
            state["exit_code"] = self._stop.exit_code if self._stop else None
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
        if self._failure is not None:
            return "failed"
        if self._stop is not None:
            return "matched" if self._was_matched else _STATES[self._stop.reason]
        if self._thread is None:
            return "empty"
        return {"": "running", "input": "waiting for input", "reader": "waiting for a reader"}[
            self._pty.waiting
        ]

    def _fault(self) -> str | None:
        return str(self._failure) if self._failure is not None else self.cpu.fault_text

    def _matched(self) -> None:
        self._was_matched = True
        self.cpu.stop()

    def _start_run(self) -> None:
        self._stop = self._failure = None
        self.cpu.allow_run()
        self._thread = threading.Thread(target=self._run, name="core", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._stop = self.cpu.run()
        except HilError as failure:
            self._failure = failure

    def _give_up_run(self) -> None:
        while self._thread is not None and self._thread.is_alive():
            self.cpu.stop()  # again: one that comes just before the engine starts is lost
            self._pty.wake()
            self._thread.join(_STOP_RETRY_S)


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
