"""Runs a generated folder on an emulated core, without the bench firmware around it.

The model is compiled with support/c/model_runner.c, which prints what it computes through
semihosting: quick enough to put hundreds of ops through the instructions that a board executes.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from codegen.ir import DType
from codegen.manifest import Manifest
from hil.bench import board_limits
from hil.board import Board, board_ids, get_board
from hil.virtual.program import run_program

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
_C = Path(__file__).resolve().parent / "c"

#: One board for each core.
BOARDS = list({b.mcu.core: b for b in map(get_board, reversed(board_ids()))}.values())[::-1]
BOARD = get_board("nrf52840_dk")


#: What models are generated for, if a test does not say.
LIMITS = board_limits(BOARD)

_FPU = {"cortex-m4": "fpv4-sp-d16", "cortex-m7": "fpv5-sp-d16"}
_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-fno-common")
_C_FLAGS = (
    "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wundef", "-Wconversion",
    "-Wdouble-promotion",
)  # fmt: skip
_CXX_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti")


class RunnerFailed(Exception):
    """The model did not run; the message is what the board printed."""


def run_model(
    folder: Path,
    manifest: Manifest,
    batch: Sequence[Sequence[np.ndarray]],
    *,
    board: Board = BOARD,
) -> list[list[np.ndarray]]:
    """The outputs of every inference, computed by the emulated core.

    Args:
        folder: what `generate` wrote; the build's files are added to it.
        manifest: what `generate` returned.
        batch: per inference, one array per input of the model.
        board: whose core runs it.

    Raises:
        RunnerFailed: model_init refused, or the core faulted.
    """
    elf = build(folder, manifest, batch, board=board)
    printed = run_program(board, elf.read_bytes(), timeout_s=120, set_up=False).output.decode()
    lines = printed.splitlines()
    sizes = [
        math.prod(output.shape) * DType(output.dtype).item_bytes for output in manifest.outputs
    ]
    if len(lines) != len(batch) or any(len(line) != 2 * sum(sizes) for line in lines):
        raise RunnerFailed(printed[-200:])
    return [_split(bytes.fromhex(line), manifest, sizes) for line in lines]


def _split(data: bytes, manifest: Manifest, sizes: Sequence[int]) -> list[np.ndarray]:
    outputs = []
    for output, size in zip(manifest.outputs, sizes, strict=True):
        outputs.append(np.frombuffer(data[:size], DType(output.dtype).numpy).reshape(output.shape))
        data = data[size:]
    return outputs


def _cpu_flags(board: Board) -> tuple[str, ...]:
    core = board.mcu.core
    return (f"-mcpu={core}", "-mthumb", f"-mfpu={_FPU[core]}", "-mfloat-abi=hard")


def build(
    folder: Path,
    manifest: Manifest,
    batch: Sequence[Sequence[np.ndarray]],
    *,
    board: Board = BOARD,
) -> Path:
    """The ELF of a generated folder with a batch of inputs."""
    data = b"".join(array.tobytes() for inputs in batch for array in inputs)
    (folder / "runner_inputs.c").write_text(
        "#include <stdint.h>\n"
        "extern const uint8_t runner_inputs[];\n"
        "extern const uint32_t runner_inferences;\n"
        f"const uint8_t runner_inputs[] = {{{','.join(map(str, data or bytes(1)))}}};\n"
        f"const uint32_t runner_inferences = {len(batch)};\n"
    )
    source_dirs = [FIRMWARE / name for name in manifest.build.source_dirs]
    include_dirs = [
        folder, FIRMWARE / "include", FIRMWARE / "kernels", *source_dirs,
        *map(Path, manifest.build.include_dirs),
    ]  # fmt: skip
    flags = [
        *_cpu_flags(board), *_SECTIONS, *manifest.build.flags,
        *(f"-I{path}" for path in include_dirs),
    ]  # fmt: skip
    sources = [
        _C / "model_runner.c", *(path for at in (folder, *source_dirs) for path in at.glob("*.c")),
    ]  # fmt: skip
    objects = []
    for source in folder.glob("*.cc"):
        objects.append(source.with_suffix(".o"))
        compile_with("g++", [*flags, *_CXX_FLAGS, "-c", source, "-o", objects[-1]])
    memory = {
        "FLASH_ORIGIN": board.flash_memory.origin, "FLASH_BYTES": board.flash_bytes,
        "RAM_ORIGIN": board.ram[0], "RAM_BYTES": board.ram_bytes,
    }  # fmt: skip
    elf = folder / "model.elf"
    compile_with(
        "gcc",
        [
            *flags, *_C_FLAGS, "-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections",
            *(f"-Wl,--defsym={name}={value:#x}" for name, value in memory.items()),
            "-T", _C / "model_runner.ld", *sources, *objects, *manifest.build.libraries, "-lm",
            "-o", elf,
        ],
    )  # fmt: skip
    return elf


def build_library(source: Path, include_dirs: Sequence[Path], library: Path) -> Path:
    """A static library of one C++ source."""
    object_file = library.with_suffix(".o")
    flags = [
        *_cpu_flags(BOARD),
        *_SECTIONS,
        *_CXX_FLAGS,
        "-O2",
        *(f"-I{path}" for path in include_dirs),
    ]
    compile_with("g++", [*flags, "-c", source, "-o", object_file])
    compile_with("ar", ["rcs", library, object_file])
    return library


def compile_with(tool: str, arguments: Iterable[str | Path]) -> None:
    """Runs one of the arm-none-eabi tools; its complaints are the test's failure."""
    command = [f"arm-none-eabi-{tool}", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
