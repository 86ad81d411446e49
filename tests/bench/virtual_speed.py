"""How fast the virtual boards are: `python tests/bench/virtual_speed.py`.

Runs loops of different block lengths on each board and prints instructions and blocks a second,
counted as in every measurement; then what starting a board costs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hil.board import Board, board_ids, get_board
from hil.virtual.place import VirtualPlace
from hil.virtual.program import run_program

BODIES = {
    "3 instructions a block": "",
    "12 a block, ALU": "add r2, r3\n" * 9,
    "12 a block, MAC and loads": "ldr r2, [r4]\nldr r3, [r4, #4]\nsmlad r5, r2, r3, r5\n" * 3,
    "50 a block, MAC and loads": "ldr r2, [r4]\nldr r3, [r4, #4]\nsmlad r5, r2, r3, r5\n" * 16,
}
EXECUTED = 60_000_000  # instructions of each loop


def _program(board: Board, body: str, folder: Path) -> bytes:
    passes = EXECUTED // (len(body.splitlines()) + 3)
    ram = board.ram[0]
    text = f"""
.syntax unified
.thumb
.global start
start: ldr r0, ={passes}
ldr r4, ={ram + 0x8000:#x}
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


def main() -> None:
    """Prints the table."""
    if shutil.which("arm-none-eabi-gcc") is None:
        sys.exit("arm-none-eabi-gcc is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for board in map(get_board, board_ids()):
            for what, body in BODIES.items():
                elf = _program(board, body, folder)
                run_program(board, elf)
                start = time.perf_counter()
                run = run_program(board, elf)
                seconds = time.perf_counter() - start
                blocks = EXECUTED // (len(body.splitlines()) + 3)
                print(
                    f"{board.id:18} {what:27} {run.instructions / seconds / 1e6:7.0f} M instr/s"
                    f" {blocks / seconds / 1e6:6.1f} M blocks/s"
                    f" {run.cycles / run.instructions:5.2f} cycles/instruction"
                )
            start = time.perf_counter()
            with VirtualPlace(board):
                print(f"{board.id:18} {'start of a board':27} {time.perf_counter() - start:7.2f} s")


if __name__ == "__main__":
    main()
