"""The real pyOCD, unmodified, on every virtual board."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hil.board import board_ids, get_board
from hil.virtual.probe_server import ProbeServer
from tests.support.debuggers import Debugger, symbols

_DEADLINE_S = 120.0
IMAGE_BYTES = 50_000

# Loops, a divide, and code that the program copies to RAM, all with a say in time.
PROGRAM = """start: ldr r6, =2000
    ldr r8, =123456
    1: udiv r7, r8, r6
    subs r6, #1
    bne 1b
    ldr r4, =copied
    ldr r5, ={ram:#x}
    ldm r4, {{r0-r3}}
    stm r5, {{r0-r3}}
    dsb
    isb
    adds r5, #1
    movs r6, #9
    2: blx r5
    subs r6, #1
    bne 2b
    stop: movs r0, #0
    EXIT
    .balign 4
    copied: udiv r7, r8, r6
    udiv r7, r7, r6
    bx lr
    nop
    nop
    nop
"""
# Through pyOCD's Python interface: what a debugger does, as JSON.
DEBUG = """
import json, sys
from pyocd.core.helpers import ConnectHelper
from pyocd.core.target import Target

probe, target_type, at = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
options = {"target_override": target_type, "auto_unlock": False}
session = ConnectHelper.session_with_chosen_probe(unique_id=probe, blocking=False, options=options)
with session:
    target, seen = session.target, {}
    target.reset_and_halt()
    seen["at reset"] = target.read_core_register("pc")
    target.step()
    seen["after a step"] = target.read_core_register("pc")
    target.set_breakpoint(at["stop"])
    target.resume()
    while target.get_state() != Target.State.HALTED:
        pass
    seen["at the breakpoint"] = target.read_core_register("pc")
    seen["r6"] = target.read_core_register("r6")
    seen["why"] = str(target.get_halt_reason())
    target.remove_breakpoint(at["stop"])
    target.write_core_register("s5", 1.5)
    seen["s5"] = target.read_core_register("s5")
    target.write_core_register("control", 0)
    target.write16(at["ram"] + 0x100, 0xABCD)
    seen["ram"] = [target.read8(at["ram"] + 0x100), target.read8(at["ram"] + 0x101)]
    seen["cpu"] = target.selected_core.name
    seen["breakpoints"] = len(target.selected_core.fpb.hw_breakpoints)
    print(json.dumps(seen))
"""

boards = pytest.mark.parametrize(
    "board_id",
    [b if b == "nrf52840_dk" else pytest.param(b, marks=pytest.mark.slow) for b in board_ids()],
)
all_boards = pytest.mark.parametrize("board_id", board_ids())


class Bench:
    """A board whose probe is served in this process."""

    def __init__(self, board_id: str) -> None:
        self.board = get_board(board_id)
        self.debugger = Debugger(self.board)
        self.server = ProbeServer(self.debugger.port, self.board.name)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of this Python; its output may be about anything."""
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=_DEADLINE_S
        )
        assert self.debugger.core.failure is None
        return done

    def pyocd(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert self.server.address is not None
        target = ["-t", self.board.flash.target, "-u", self.server.address]
        options = ["-O", "auto_unlock=false"]
        return self.run("-m", "pyocd", command, *target, *options, *arguments)


@pytest.fixture
def bench(board_id: str) -> Iterator[Bench]:
    bench = Bench(board_id)
    yield bench
    bench.server.close()
    bench.debugger.core.give_up()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Bytes like those of code and weights."""
    path = tmp_path / "image.bin"
    path.write_bytes(random.Random(5).randbytes(IMAGE_BYTES))
    return path


@boards
def test_load_writes_once_and_savemem_reads_it_back(bench: Bench, image: Path) -> None:
    origin = f"{bench.board.flash_memory.origin:#x}"

    first = bench.pyocd("load", "--base-address", origin, str(image))
    assert first.returncode == 0, first.stderr
    saved = image.with_suffix(".saved")
    save = f"savemem {origin} {IMAGE_BYTES} {saved}"
    second = bench.pyocd("load", "--base-address", origin, str(image))
    done = bench.pyocd("commander", "-c", "halt", "-c", save)

    assert done.returncode == 0, done.stderr
    assert saved.read_bytes() == image.read_bytes()
    assert "programmed 0 bytes" in second.stderr + second.stdout


@boards
def test_a_program_runs_the_same_however_it_was_flashed(bench: Bench, assemble) -> None:
    elf = assemble(bench.board, PROGRAM.format(ram=bench.board.ram[0] + 0x800))
    bench.debugger.run(elf)
    bench.debugger.wait_end()
    directly = bench.debugger.cpu.clock.total()

    for _ in ("into another program's flash", "onto itself"):
        done = bench.pyocd("load", str(elf))
        assert done.returncode == 0, done.stderr
        bench.debugger.wait_end()
        assert bench.debugger.core.stop is not None
        assert bench.debugger.core.stop.exit_code == 0
        assert bench.debugger.cpu.clock.total() == directly
        other = assemble(bench.board, "start: udiv r0, r1, r2\nEXIT\n", name="other")
        bench.debugger.run(other)
        bench.debugger.wait_end()


@all_boards
@pytest.mark.slow
def test_a_debugger_s_session(bench: Bench, assemble) -> None:
    ram = bench.board.ram[0] + 0x800
    elf = assemble(bench.board, PROGRAM.format(ram=ram))
    bench.debugger.run(elf)
    bench.debugger.wait_end()
    at = {**symbols(elf), "ram": ram}
    assert bench.server.address is not None

    done = bench.run("-c", DEBUG, bench.server.address, bench.board.flash.target, json.dumps(at))
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    is_m7 = bench.board.mcu.core == "cortex-m7"
    assert seen == {
        "at reset": at["start"],
        "after a step": at["start"] + 4,
        "at the breakpoint": at["stop"],
        "r6": 0,
        "why": "HaltReason.BREAKPOINT",
        "s5": 1.5,
        "ram": [0xCD, 0xAB],
        "cpu": "Cortex-M7" if is_m7 else "Cortex-M4",
        "breakpoints": 8 if is_m7 else 6,
    }


@all_boards
@pytest.mark.slow
def test_a_locked_chip_is_not_written(bench: Bench, image: Path) -> None:
    controller = bench.debugger.cpu.flash_controller
    assert controller is not None
    controller.protect()
    before = [bytes(r.data[:64]) for r in bench.debugger.cpu.memory.regions]

    done = bench.pyocd(
        "load", "--base-address", f"{bench.board.flash_memory.origin:#x}", str(image)
    )

    assert done.returncode != 0
    flash = [r.memory.kind == "flash" for r in bench.debugger.cpu.memory.regions]
    after = [bytes(r.data[:64]) for r in bench.debugger.cpu.memory.regions]
    assert [b for b, f in zip(before, flash, strict=True) if f] == [
        a for a, f in zip(after, flash, strict=True) if f
    ]
