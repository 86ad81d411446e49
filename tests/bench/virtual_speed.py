"""How fast the virtual boards are: `python tests/bench/virtual_speed.py`.

Instructions a second, on one core of this machine, of loops with different blocks and of whole
inferences: with block costs only (accesses are not looked at), with memory that answers at once
(accesses are looked at for their alignment and their memory), and with the board's own memories
(caches and wait states). Start-up is left out by the difference of a short and a long run. Then
what a board takes to start, and the memory of all of it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from support.model_runner import build
from unicorn import unicorn_const

from codegen.generate import generate
from hil.bench import board_limits
from hil.board import Board, board_ids, get_board
from hil.board_timing import Timing
from hil.virtual import cpu
from hil.virtual.blocks import BlockCounter
from hil.virtual.place import VirtualPlace
from hil.virtual.program import ProgramRun, run_program

MODELS = Path(os.environ.get("HIL_MODELS", Path(__file__).resolve().parents[3] / "shared/models"))
BODIES = {
    "3 instructions a block": "",
    "12 a block, ALU": "add r2, r3\n" * 9,
    "12 a block, MAC and loads": "ldr r2, [r4]\nldr r3, [r4, #4]\nsmlad r5, r2, r3, r5\n" * 3,
    "50 a block, MAC and loads": "ldr r2, [r4]\nldr r3, [r4, #4]\nsmlad r5, r2, r3, r5\n" * 16,
}
SHORT, LONG = 6_000_000, 60_000_000  # instructions of each loop
INFERENCES = (1, 5)


class BlocksOnly(BlockCounter):
    """Does not look at accesses to memory."""

    def _hook(self, kind: int, function: object, first: int = 1, last: int = 0) -> ctypes.c_size_t:
        if kind & unicorn_const.UC_HOOK_MEM_READ:
            return ctypes.c_size_t()
        return super()._hook(kind, function, first, last)


def main() -> None:
    """Prints the tables."""
    heads = "   blocks   at once   board's    cycles/instr.  s/inference"
    print(f"{'M instructions a second':43} {heads}")
    with tempfile.TemporaryDirectory() as name:
        for board in map(get_board, board_ids()):
            for what, body in BODIES.items():
                folder = Path(name)
                loops = [_loop(board, body, folder, count) for count in (SHORT, LONG)]
                _row(board, what, loops)
            for model in sorted(MODELS.glob("*.tflite")):
                folder = Path(name) / board.id / model.stem
                _row(board, model.stem, _inferences(board, model, folder), of=INFERENCES)
    for board in map(get_board, board_ids()):
        start = time.perf_counter()
        with VirtualPlace(board) as place:
            seconds = time.perf_counter() - start
            status = Path(f"/proc/{place.process_id}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            print(f"{board.id:17} starts in {seconds:.2f} s, {resident.split()[1]} KiB resident")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{'this process':17} {peak} KiB at its peak, with 4 boards and their tables")


def _row(board: Board, what: str, elfs: list[bytes], of: tuple[int, int] = (0, 1)) -> None:
    cpu.BlockCounter = BlocksOnly  # type: ignore[misc]
    blocks = _per_second(replace(board, name="blocks only", timing=Timing()), elfs)
    cpu.BlockCounter = BlockCounter  # type: ignore[misc]
    at_once = _per_second(replace(board, timing=Timing()), elfs)
    own = _per_second(board, elfs)
    each = f"{own[2] / (of[1] - of[0]):10.3f}" if of != (0, 1) else ""
    print(
        f"{board.id:17} {what:25} {blocks[0] / 1e6:9.0f} {at_once[0] / 1e6:9.0f}"
        f" {own[0] / 1e6:9.0f}"
        f"   {at_once[1]:5.2f} {own[1]:5.2f}  {each}"
    )


def _per_second(board: Board, elfs: list[bytes]) -> tuple[float, float, float]:
    """(instructions a second, cycles an instruction, seconds) of what the longer run does more."""

    def timed(elf: bytes) -> tuple[float, ProgramRun]:
        start = time.perf_counter()
        run = run_program(board, elf, timeout_s=300)
        return time.perf_counter() - start, run

    (short_s, short), (long_s, long) = (
        min((timed(elf) for _ in range(3)), key=lambda pair: pair[0]) for elf in elfs
    )
    instructions = long.instructions - short.instructions
    seconds = long_s - short_s
    return instructions / seconds, (long.cycles - short.cycles) / instructions, seconds


def _loop(board: Board, body: str, folder: Path, instructions: int) -> bytes:
    passes = instructions // (len(body.splitlines()) + 3)
    text = f"""
.syntax unified
.thumb
.global start
start: ldr r0, ={passes}
ldr r4, ={board.ram[0] + 0x8000:#x}
again: {body}
subs r0, #1
nop
bne again
movs r0, #0x18
ldr r1, =0x20026
bkpt 0xab
"""
    (folder / "loop.s").write_text(text)
    command = ["arm-none-eabi-gcc", f"-mcpu={board.mcu.core}", "-mthumb", "-nostdlib"]
    command += [f"-Wl,-Ttext={board.flash_memory.origin + 0x100:#x},-e,start"]
    subprocess.run([*command, "loop.s", "-o", "loop.elf"], cwd=folder, check=True)
    return (folder / "loop.elf").read_bytes()


def _inferences(board: Board, model: Path, folder: Path) -> list[bytes]:
    folder.mkdir(parents=True)
    data = model.read_bytes()
    manifest = generate(
        data, name=model.stem, engine="tiny", board=board_limits(board), out_dir=folder
    )
    random = np.random.default_rng(0)
    shapes = [i.shape for i in manifest.inputs]
    batch = [
        [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
        for _ in range(max(INFERENCES))
    ]
    return [build(folder, manifest, batch[:n], board=board).read_bytes() for n in INFERENCES]


if __name__ == "__main__":
    main()
