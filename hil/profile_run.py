"""Runs a model or any ELF on a virtual board in this process and tells where its cycles go.

A model goes through the very session of `hil bench`: its outputs are checked, and the profiled
inference is one of the measured ones. Not here: how counts are taken (profile_collect), what
follows from them (profile).
"""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from codegen.engines import Objective
from hil.bench import measure_model
from hil.board import Board
from hil.errors import UsageError
from hil.lab import VIRTUAL, board_of, read_lab
from hil.profile import Layer, Profile, instruction_costs
from hil.profile_collect import Collector, counts_of, memories_of
from hil.profile_source import read_program
from hil.record import Record
from hil.running import RunReport, run_elf
from hil.session import STANDARD
from hil.virtual.cpu import Cpu
from hil.virtual.image import read_elf
from hil.virtual.options import NO_OPTIONS
from hil.virtual.place import VirtualPlace
from hil.virtual.server import Server
from hil.virtual.timing import model_id, timing_model

#: As `hil bench` measures by default, so that caches and predictions are in the same state.
PROCEDURE = dataclasses.replace(STANDARD, layers=True)
PROFILED = PROCEDURE.repeats // 2  # which of the measured inferences


class ProfiledPlace(VirtualPlace):
    """A virtual board in this process, so that its counts can be read while it runs.

    Args:
        board: whose virtual twin.
        prepare: called with the core and each ELF before it is flashed.
    """

    def __init__(
        self, board: Board, prepare: Callable[[Cpu, bytes], None] = lambda cpu, elf: None
    ) -> None:
        self.board, self.options = board, NO_OPTIONS
        self.name = f"{VIRTUAL}{board.id}"
        self.timing_model = model_id(timing_model(board.mcu.core))
        self._prepare = prepare
        self._lock = threading.Lock()
        self._received = b""
        self._control, self._theirs = socket.socketpair()
        self._server = Server(board)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()
        self._port = json.loads(self._control.makefile().readline())["port"]

    @property
    def cpu(self) -> Cpu:
        """The core."""
        return self._server.cpu

    def flash(self, elf: Path, *, until: str = "") -> None:
        """Programs an ELF file and starts it; raises FlashError."""
        self.stop()
        self._prepare(self.cpu, read_elf(elf))
        super().flash(elf, until=until)

    def close(self) -> None:
        """Stops the core; may be called again."""
        if self._thread.is_alive():
            self.stop()
            self._control.close()
            self._thread.join()
            self._server.close()

    def _serve(self) -> None:
        with self._theirs:
            self._server.serve(self._theirs)


def profile_elf(
    elf: Path,
    place: str,
    *,
    until: str | None = None,
    timeout_s: float = 60.0,
    on_output: Callable[[bytes], None] = lambda data: None,
) -> tuple[Profile, RunReport]:
    """The profile of a whole run of any ELF, and how it ended.

    Args:
        elf: linked for the board.
        place: name of a virtual board.
        until: text of its output that ends the run.
        timeout_s: longest run, in seconds of this machine; then the profile is of what ran.
        on_output: gets what it prints as it comes.

    Raises:
        HilError: it could not be loaded, or an instruction has no known cost.
    """
    board = virtual_board(place)
    data = read_elf(elf)
    with ProfiledPlace(board) as opened:
        report = run_elf(opened, elf, until=until, timeout_s=timeout_s, on_output=on_output)
        cpu = opened.cpu
        total = cpu.clock.total()
        costs = instruction_costs(counts_of(cpu), board.mcu.core)
        memories = tuple(use for use in memories_of(cpu) if use.accesses)
    program = read_program(data, (i.address for i in costs))
    profile = Profile(
        name=elf.name,
        place=opened.name,
        timing_model=opened.timing_model or "",
        engine=None,
        program=program,
        cycles=total.cycles,
        layers=(Layer("", "", 0, costs),),
        between_layers={},
        memories=memories,
        notes=(program.note,) if program.note else (),
    )
    return profile, report


def profile_model(
    tflite: bytes,
    name: str,
    place: str,
    *,
    engine: str = "tiny",
    objective: Objective = "latency",
) -> tuple[Profile, Record]:
    """The profile of one inference, and the record of the measurement that it is part of.

    The measurement is the one that `hil bench` makes by default, and has the same samples.

    Args:
        tflite: the model file, untrusted.
        name: what the user calls it.
        place: name of a virtual board.
        engine: a name of codegen.engines.
        objective: what engine `tiny` chooses its kernels for.

    Raises:
        HilError: as hil.bench.measure_model.
        CodegenError: as hil.bench.measure_model.
    """
    board = virtual_board(place)
    collector = Collector(board, PROCEDURE.warmup + PROFILED + 1)

    def stage(name: str) -> None:
        if name == "measuring":  # how outputs are checked before is the session's own business
            collector.count_from_here()

    with ProfiledPlace(board, collector.prepare) as opened:
        record = measure_model(
            tflite,
            name,
            opened,
            engine=engine,
            objective=objective,
            procedure=PROCEDURE,
            stage=stage,
        )
        return collector.profile(record, PROFILED), record


def virtual_board(place: str) -> Board:
    """The board of a virtual place; raises UsageError for hardware."""
    if not place.startswith(VIRTUAL):
        board = board_of(place, read_lab())
        raise UsageError(
            f"{place!r} is hardware, which counts no blocks; profile on {VIRTUAL}{board.id}"
        )
    return board_of(place, read_lab())
