"""A virtual board as a place: what the rig holds while it works with one."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hil.board import Board
from hil.closing import Closing
from hil.errors import ChipLocked, FlashError, LinkError, VerifyFailed
from hil.locks import PlaceLock
from hil.meters import Meter, open_meter
from hil.virtual.options import NO_OPTIONS, VirtualOptions
from hil.virtual.timing import model_id, timing_model

#: A second on an idle machine, five where numba has yet to compile: a busy one may take long. A
#: process that ends is noticed at once.
START_DEADLINE_S = 300.0
_ANSWER_DEADLINE_S = 30.0
_PROJECT = Path(__file__).resolve().parents[2]


class BoardState(NamedTuple):
    """What a virtual board is doing."""

    # empty, running, waiting for input, waiting for a reader, halted (by a debugger), and at the
    # end: matched, exited, sleeping, locked up, failed, stopped
    state: str
    exit_code: int | None
    # None while it runs, or when an executed instruction has no known cost: `fault` names it
    cycles: int | None
    instructions: int | None
    pending_bytes: int  # output that nobody has read yet
    fault: str | None
    memory: dict[str, Any]  # wait_states, prefetch, caches_on, as the program has set them up


class VirtualPlace(Closing):
    """One virtual board, alive as long as this object is not closed; a context manager.

    Args:
        board: the type of board.
        options: what it is given beside its board file.
        name: as the user calls the place; "virtual:<board id>" by default.
    """

    source: Literal["virtual"] = "virtual"
    can_power_cycle = True
    lock: PlaceLock | None = None
    _meter_port: str | None = None
    _meter: Meter | None = None

    def __init__(
        self, board: Board, options: VirtualOptions = NO_OPTIONS, name: str | None = None
    ) -> None:
        self.board, self.options = board, options
        self.name = name or f"virtual:{board.id}"
        self.timing_model = model_id(timing_model(board.mcu.core))
        self._port = ""  # the last one known
        self._lock = threading.Lock()
        self._received = b""
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "hil.virtual", "--board", board.id]
        command += ["--control-fd", str(theirs.fileno())]
        python_path = os.pathsep.join(filter(None, (str(_PROJECT), os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": python_path},
                process_group=0,  # Ctrl-C is for the user's process, which then closes the channel
            )
        try:
            description = {
                "board": _without_none(dataclasses.asdict(board)),
                "options": _without_none(dataclasses.asdict(options)),
            }
            answer = self._exchange(description, START_DEADLINE_S)
            if "error" in answer:
                raise LinkError(self.name, answer["error"])
        except BaseException:
            self.close()
            raise
        self._port = answer["port"]
        self._meter_port = answer["meter_port"]

    @property
    def process_id(self) -> int:
        """Of the process behind the board."""
        return self._process.pid

    @property
    def port(self) -> str:
        """Path of its serial port at present."""
        self._port = self.ports()["port"]
        return self._port

    @property
    def probe(self) -> str | None:
        """Its debug probe at present, as pyOCD calls it; None while that is gone."""
        probe: str | None = self.ports()["probe"]
        return probe

    def ports(self) -> dict[str, Any]:
        """port, probe, jtag and meter_port at present; None for what is not there."""
        return self._request({"do": "ports"})

    def count_clients(self) -> None:
        """From now on every program that connects to the probe counts as a flashing, for faults."""
        self._request({"do": "count_clients"})

    def flash(self, elf: Path, *, until: str = "") -> None:
        """Programs an ELF file and starts it; raises FlashError.

        Straight into its memory, or by a flashing tool through its debug probe, as its options say.
        Printing `until` stops the core, where no tool is in between.
        """
        if self.options.flash != "direct":
            from hil import flash  # it knows places, as they know it

            self._request({"do": "flashing"})
            flash.program(
                self.board,
                elf,
                place=self.name,
                probe=self.probe,
                method=self.options.flash,
                pass_fds=self.lock.fds if self.lock is not None else (),
            )
            return
        answer = self._request({"do": "load", "path": str(elf.resolve()), "until": until})
        if "error" in answer:
            raise FlashError(self.name, "virtual", answer["error"])
        if "locked" in answer:
            raise ChipLocked(self.name, "virtual", answer["locked"], "all of its flash")
        if "wrong" in answer:
            raise VerifyFailed(self.name, "virtual", *answer["wrong"])

    def reset(self) -> None:
        """As the reset button."""
        self._request({"do": "reset"})

    def power_cycle(self) -> None:
        """Off and on: RAM and what a debugger has set are lost, the flash stays."""
        self._request({"do": "power_cycle"})

    def now(self) -> float:
        """True seconds that the core has run since the board exists; only differences count.

        They do not hang on its crystal. A core that runs pauses for the answer. Instructions
        without a known cost take no time.
        """
        seconds: float = self._request({"do": "now"})["seconds"]
        return seconds

    def stop(self) -> None:
        """Halts the core for good: it can be looked at, and flashed or reset to run again."""
        self._request({"do": "stop"})

    def fault(self) -> str | None:
        """The last fault since the board was flashed or reset: what, which address, which pc."""
        return self.state().fault

    def state(self) -> BoardState:
        """What the board is doing now."""
        return BoardState(**self._request({"do": "state"}))

    def pin_changes(self) -> list[tuple[int, str, int, int]]:
        """(cycle, port, pin, level) of every change of an output pin; the last 65,536."""
        changes: list[tuple[int, str, int, int]] = []
        while more := self._request({"do": "pins", "first": len(changes)})["changes"]:
            changes += [tuple(change) for change in more]
        return changes

    @property
    def meter(self) -> Meter | None:
        """Driver of the meter among its options, opened when first asked for."""
        if self._meter is None and self._meter_port is not None:
            assert self.options.meter is not None, "it has the port that was asked for"
            supply_mv = self.board.supply.voltage_mv
            self._meter = open_meter(
                self.options.meter, port=self._meter_port, supply_mv=supply_mv, board_mv=supply_mv
            )
        return self._meter

    def meter_windows(self) -> list[tuple[float, float, float]]:
        """(start, end, energy) in s, s and uJ of the last windows as a perfect meter sees them."""
        return [(start, end, uj) for start, end, uj in self._request({"do": "meter"})["windows"]]

    def close(self) -> None:
        """Ends the process; may be called again."""
        if self._meter is not None:
            self._meter.close()
        self._control.close()
        if self._process.poll() is None:
            self._process.kill()  # it holds nothing that could be lost
        self._process.wait()

    def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            return self._exchange(message, _ANSWER_DEADLINE_S)

    def _exchange(self, message: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        where = self._port or self.name
        try:
            self._control.settimeout(deadline_s)
            self._control.sendall(json.dumps(message).encode() + b"\n")
            while b"\n" not in self._received:
                data = self._control.recv(65536)
                if not data:
                    code = self._process.wait()
                    raise LinkError(
                        where, f"the virtual board's process has ended (exit code {code})"
                    )
                self._received += data
        except TimeoutError:
            raise LinkError(
                where, f"the virtual board did not answer within {deadline_s:g} s"
            ) from None
        except OSError as error:
            raise LinkError(
                where, f"the virtual board is gone: {error.strerror or error}"
            ) from None
        line, self._received = self._received.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _without_none(values: Any) -> Any:
    """Dataclass fields as the tables of a board file: None is a key that is left out."""
    if isinstance(values, dict):
        return {k: _without_none(v) for k, v in values.items() if v is not None and k != "sha256"}
    if isinstance(values, list | tuple):
        return [_without_none(v) for v in values]
    return values
