"""A small debugger for virtual boards in this process: DP, AP and core debug registers by hand."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from hil.board import Board
from hil.virtual.core_debug import CoreDebug
from hil.virtual.core_thread import CoreThread
from hil.virtual.cpu import Cpu
from hil.virtual.debug_port import DebugPort
from hil.virtual.image import load_elf
from hil.virtual.program import MemoryConsole

DHCSR, DCRSR, DCRDR, DEMCR, DFSR = 0xE000EDF0, 0xE000EDF4, 0xE000EDF8, 0xE000EDFC, 0xE000ED30
AIRCR, FP_CTRL, FP_COMP0 = 0xE000ED0C, 0xE0002000, 0xE0002008
KEY, DEBUGEN, HALT, STEP = 0xA05F0000, 1, 2, 4
S_HALT, S_LOCKUP, S_RESET_ST = 1 << 17, 1 << 19, 1 << 25
PC, XPSR, MSP, PSP, SPECIAL, FPSCR, S0 = 15, 16, 17, 18, 20, 33, 64
_DEADLINE_S = 20.0


class Debugger:
    """A board's core with its debug port, and what a debugger does with it."""

    def __init__(self, board: Board) -> None:
        self.console = MemoryConsole()
        self.cpu = Cpu(board, self.console)
        self.console.restart(self.cpu, b"")
        self.core = CoreThread(self.cpu, lambda: None)
        self.debug = CoreDebug(self.core)
        self.port = DebugPort(self.core, self.debug)
        self.port.write_dp(4, 0x5000_0000)

    def load(self, elf: Path) -> None:
        """A program into the flash, past the debug port; the core is about to start it."""
        self.core.give_up()
        self.debug.power_cycle()
        self.cpu.load(load_elf(elf.read_bytes(), self.cpu.memory))

    def run(self, elf: Path) -> None:
        """Loads and starts a program."""
        self.load(elf)
        self.core.start()

    def read(self, address: int, width: int = 4) -> int:
        """One access of the memory."""
        with self.core.lock:
            return self.port.memory.read(address, width)

    def write(self, address: int, value: int, width: int = 4) -> None:
        """One access of the memory."""
        with self.core.lock:
            self.port.memory.write(address, width, value)

    def halt(self) -> None:
        """Halts the core, with debug enabled."""
        self.write(DHCSR, KEY | DEBUGEN | HALT)
        assert self.read(DHCSR) & S_HALT

    def go(self) -> None:
        """The core leaves debug state."""
        self.write(DHCSR, KEY | DEBUGEN)

    def step(self) -> None:
        """One instruction."""
        self.write(DHCSR, KEY | DEBUGEN | STEP)
        self.wait_halted()

    def detach(self) -> None:
        """No debugger any more."""
        self.write(DHCSR, KEY)

    def wait_halted(self) -> None:
        """Until an event halts the core."""
        deadline = time.monotonic() + _DEADLINE_S
        while not self.read(DHCSR) & S_HALT:
            assert time.monotonic() < deadline, "the core did not halt"

    def wait_end(self) -> None:
        """Until the run has ended."""
        deadline = time.monotonic() + _DEADLINE_S
        while self.core.is_running:
            assert time.monotonic() < deadline, "the program did not end"
            self.core.wait(0.1)

    def register(self, number: int) -> int:
        """A core register, by its DCRSR number."""
        self.write(DCRSR, number)
        return self.read(DCRDR)

    def set_register(self, number: int, value: int) -> None:
        """A core register, by its DCRSR number."""
        self.write(DCRDR, value)
        self.write(DCRSR, number | 1 << 16)

    def set_breakpoint(self, address: int) -> None:
        """The only one."""
        self.write(FP_CTRL, 3)
        if self.read(FP_CTRL) >> 28:  # revision 2
            self.write(FP_COMP0, address | 1)
        else:
            self.write(FP_COMP0, address & ~3 | 1 | (1 << 31 if address & 2 else 1 << 30))


def symbols(elf: Path) -> dict[str, int]:
    """Addresses of the labels in an ELF file."""
    done = subprocess.run(
        ["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True, timeout=60
    )
    words = (line.split() for line in done.stdout.splitlines())
    return {name: int(value, 16) for value, _, name in words}
