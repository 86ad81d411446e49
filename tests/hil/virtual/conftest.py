"""Small programs in assembler and C for the virtual boards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hil.board import Board, board_ids, get_board

GCC = "arm-none-eabi-gcc"

# A program for assembler tests: the vector table where the chip looks for it, then `start`. EXIT
# ends it with the code in r0 through semihosting.
_HEAD = """
.syntax unified
.thumb
.macro EXIT
    ldr r1, =exit_block
    str r0, [r1, #4]
    movs r0, #0x20
    bkpt 0xab
.endm
.section .vectors, "a"
    .word {stack_end}, start + 1, 0, {hard_fault}, 0, 0, 0, 0, 0, 0, 0, {sv_call}
.text
.global start
"""
_TAIL = """
.ltorg
.data
exit_block: .word 0x20026, 0
"""

Assemble = Callable[..., Path]


def _flags(board: Board) -> list[str]:
    fpu = "fpv5-sp-d16" if "fpv5-sp" in board.mcu.features else "fpv4-sp-d16"
    return [f"-mcpu={board.mcu.core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}"]


@pytest.fixture(params=board_ids())
def board(request: pytest.FixtureRequest) -> Board:
    """Every board in turn."""
    return get_board(request.param)


@pytest.fixture
def assemble(tmp_path: Path) -> Assemble:
    """`assemble(board, text)`: an ELF file in flash; the text holds a label `start`."""
    _need_compiler()

    def build(board: Board, text: str, name: str = "program") -> Path:
        source, elf = tmp_path / f"{name}.s", tmp_path / f"{name}.elf"
        ram_start, ram_bytes = board.ram
        vectors = {v: f"{v} + 1" if f"{v}:" in text else "0" for v in ("hard_fault", "sv_call")}
        source.write_text(
            _HEAD.format(stack_end=hex(ram_start + ram_bytes), **vectors) + text + _TAIL
        )
        flash = board.flash_memory.origin
        layout = [
            f"-Wl,--section-start=.vectors={flash:#x}",
            f"-Wl,-Ttext={flash + 0x100:#x},-Tdata={ram_start:#x}",
        ]
        layout += ["-Wl,-e,start,-n,--no-warn-rwx-segments"]
        _run([GCC, *_flags(board), "-nostdlib", *layout, str(source), "-o", str(elf)])
        return elf

    return build


@pytest.fixture
def compile_c(tmp_path: Path) -> Assemble:
    """`compile_c(board, text)`: an ELF file in RAM, with newlib and semihosting."""
    _need_compiler()

    def build(board: Board, text: str, name: str = "program") -> Path:
        source, elf = tmp_path / f"{name}.c", tmp_path / f"{name}.elf"
        source.write_text(text)
        options = ["-O2", "--specs=rdimon.specs", f"-Wl,-Ttext-segment={board.ram[0]:#x}"]
        options += ["-Wl,--no-warn-rwx-segments"]
        _run([GCC, *_flags(board), *options, str(source), "-o", str(elf)])
        return elf

    return build


def _need_compiler() -> None:
    if shutil.which(GCC) is None:
        pytest.skip(
            f"{GCC} is not installed; apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"
        )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """`machine_code(text, core="cortex-m7")`: the bytes of some instructions."""
    _need_compiler()
    folder = tmp_path_factory.mktemp("code")

    @cache
    def assembled(text: str, core: str = "cortex-m7") -> bytes:
        fpu = "fpv4-sp-d16" if core == "cortex-m4" else "fpv5-sp-d16"
        lines = text.replace(";", "\n")
        (folder / "code.s").write_text(
            f".syntax unified\n.cpu {core}\n.fpu {fpu}\n.thumb\n{lines}\n"
        )
        for command in (
            ["arm-none-eabi-as", "code.s", "-o", "code.o"],
            ["arm-none-eabi-objcopy", "-O", "binary", "code.o", "code.bin"],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (folder / "code.bin").read_bytes()

    return assembled
