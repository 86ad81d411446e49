"""Short programs on a board's core in this process: how kernels are tried, thousands of times."""

from __future__ import annotations

import threading
from typing import NamedTuple

from hil.board import Board
from hil.errors import TargetFault
from hil.virtual.cpu import Cpu
from hil.virtual.image import load_elf


class MemoryConsole:
    """A console without a host: keeps the output, gives the input, then stops the program."""

    def __init__(self) -> None:
        self.output = bytearray()
        self._cpu: Cpu | None = None
        self._input = iter(b"")

    def restart(self, cpu: Cpu, input_bytes: bytes) -> None:
        """Empty, with new input, before a run of `cpu`."""
        self._cpu, self._input = cpu, iter(input_bytes)
        self.output.clear()

    def write(self, data: bytes) -> None:
        """See Console.write."""
        self.output += data

    def receive(self, *, wait: bool) -> int | None:
        """See Console.receive; a program that waits for more than there is can never go on."""
        byte = next(self._input, None)
        if byte is None and wait and self._cpu is not None:
            self._cpu.stop()
        return byte


class ProgramRun(NamedTuple):
    """What `run_program` saw."""

    exit_code: int
    output: bytes
    cycles: int
    instructions: int


_KEPT_CPUS = 4  # one has tables of some 100 MB, of which it touches what a program needs
_cpus: dict[Board, tuple[Cpu, MemoryConsole]] = {}


def run_program(
    board: Board,
    elf: bytes,
    *,
    input_bytes: bytes = b"",
    timeout_s: float = 60.0,
    set_up: bool = True,
) -> ProgramRun:
    """Runs a program that ends through semihosting; made for many short runs.

    Output is everything written through semihosting or a UART. The core of a board is kept for the
    next call of the same thread's process; not for several threads at once.

    Args:
        board: whose core, memory and peripherals.
        elf: linked for the board, in flash or in RAM.
        input_bytes: what the UART receives.
        timeout_s: host seconds.
        set_up: starts with the FPU on and the chip at the board's operating point; otherwise as
            after a reset, and the program must do it.

    Raises:
        ImageError: the file cannot be loaded.
        TargetFault: the program faulted and has no handler, sleeps for ever, waits for more input,
            or ran too long.
        UnknownInstruction: no cycles can be given.
    """
    cpu, console = _cpu_of(board)
    console.restart(cpu, input_bytes)
    cpu.allow_run()
    cpu.load(load_elf(elf, cpu.memory))
    if set_up:
        cpu.set_up()
    ended = threading.Event()
    watchdog = threading.Thread(target=_stop_after, args=(cpu, timeout_s, ended), daemon=True)
    watchdog.start()
    try:
        stop = cpu.run()
    finally:
        ended.set()
        watchdog.join()
    if stop.reason != "exit" or stop.exit_code is None:
        why = {"stopped": f"no exit within {timeout_s:g} s, or it waits for input"}
        raise TargetFault(f"virtual:{board.id}", stop.detail or why.get(stop.reason, stop.reason))
    total = cpu.clock.total()
    return ProgramRun(stop.exit_code, bytes(console.output), total.cycles, total.instructions)


def _cpu_of(board: Board) -> tuple[Cpu, MemoryConsole]:
    """A core for this board: of the last boards that were asked for, the same again."""
    kept = _cpus.pop(board, None)
    if kept is None:
        console = MemoryConsole()
        kept = Cpu(board, console), console
    _cpus[board] = kept
    if len(_cpus) > _KEPT_CPUS:
        del _cpus[next(iter(_cpus))]
    return kept


def _stop_after(cpu: Cpu, timeout_s: float, ended: threading.Event) -> None:
    """Gives up the run at the timeout; again, as a stop between two engine starts is lost."""
    wait_s = timeout_s
    while not ended.wait(wait_s):
        cpu.stop()
        wait_s = 0.01
