"""The virtual boards against QEMU: the same program executes the same instructions on both.

Compared are the output and, for every address, how often the instruction there was executed. Both
sides count an instruction of an IT block whether its condition holds or not. One that faults is not
executed; QEMU's plugin, which is called before each instruction, counts it all the same.

QEMU shares ancestors with Unicorn, but nothing of what counts: our block hook, blocks left in their
middle, rewritten code, capstone's lengths, and delivery of exceptions.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import model_runner
import numpy as np
import pytest
import qemu
from networks import random_network

from codegen.export_tflite import export_tflite
from codegen.generate import generate
from hil.bench import board_limits
from hil.board import Board, get_board
from hil.board_timing import Timing
from hil.virtual.cpu import Cpu
from hil.virtual.image import load_elf
from hil.virtual.program import MemoryConsole, run_program
from hil.virtual.timing.armv7m import decode

pytestmark = pytest.mark.cross

PROGRAMS = Path(__file__).resolve().parent / "programs"
NAMES = sorted(
    path.stem for path in PROGRAMS.glob("*.[cS]") if path.stem not in ("start", "faults")
)
FPU = {"cortex-m4": "fpv4-sp-d16", "cortex-m7": "fpv5-sp-d16"}
LINKER_SCRIPT = Path(model_runner.__file__).parent / "c" / "model_runner.ld"

Link = Callable[[Board, Path], None]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return qemu.build_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(params=["nrf52840_dk", "stm32f746g_disco"])  # one for each core
def board(request):
    return get_board(request.param)


def moved_for_qemu(board: Board) -> Board:
    """The board with its flash where QEMU has code memory, to link for."""
    flash = replace(board.flash_memory, origin=qemu.FLASH_ORIGIN)
    ram = (m for m in board.memory if m.kind == "ram" and m.origin >= qemu.RAM_ORIGIN)
    return replace(board, memory=(flash, *ram), timing=Timing())


def compile_program(board: Board, name: str, folder: Path) -> Link:
    """Compiles a program once; what is returned links it for a board."""
    (source,) = PROGRAMS.glob(f"{name}.[cS]")
    core = board.mcu.core
    cpu = [f"-mcpu={core}", "-mthumb", f"-mfpu={FPU[core]}", "-mfloat-abi=hard"]
    objects = [folder / "start.o", folder / "program.o"]
    for path, made in zip((PROGRAMS / "start.c", source), objects, strict=True):
        model_runner.compile_with("gcc", [*cpu, "-std=c11", "-Wall", "-O2", "-c", path, "-o", made])

    def link(linked_for: Board, elf: Path) -> None:
        memory = {
            "FLASH_ORIGIN": linked_for.flash_memory.origin, "FLASH_BYTES": linked_for.flash_bytes,
            "RAM_ORIGIN": linked_for.ram[0], "RAM_BYTES": linked_for.ram[1],
        }  # fmt: skip
        defines = [f"-Wl,--defsym={symbol}={value:#x}" for symbol, value in memory.items()]
        options = ["-nostartfiles", "--specs=nano.specs", "-Wl,--no-warn-rwx-segments", *defines]
        options += ["-T", LINKER_SCRIPT]
        model_runner.compile_with("gcc", [*cpu, *options, *objects, "-o", elf])

    return link


def executions_on_virtual_board(board: Board, elf: bytes) -> Counter[int]:
    """Address of an instruction -> how often it was executed."""
    console = MemoryConsole()
    cpu = Cpu(board, console)
    console.restart(cpu, b"")
    cpu.load(load_elf(elf, cpu.memory))
    assert cpu.run().reason == "exit"
    executions: Counter[int] = Counter()
    for block in cpu.edge_runs():
        for instruction in decode(block.code, block.address, board.mcu.core):
            executions[instruction.address] += block.executions
    return executions


def compare(
    board: Board, plugin: Path, link: Link, folder: Path, faults: dict[str, int] | None = None
) -> int:
    """Runs what `link` makes on both sides, asserts that they agree; the number of instructions.

    Args:
        board: whose virtual board runs it.
        plugin: what `build_plugin` made.
        link: puts a program at the flash of a board.
        folder: for files.
        faults: label of an instruction -> how often it faults.
    """
    ours, theirs = folder / "board.elf", folder / "qemu.elf"
    link(board, ours)
    link(moved_for_qemu(board), theirs)
    if board.flash_memory.origin == qemu.FLASH_ORIGIN:
        assert ours.read_bytes() == theirs.read_bytes(), "the very same program runs on both"

    virtual = run_program(board, ours.read_bytes(), set_up=False)
    real = qemu.run_qemu(plugin, board.mcu.core, theirs)

    assert virtual.output == real.output
    assert virtual.exit_code == real.exit_code == 0
    executions = executions_on_virtual_board(board, ours.read_bytes())
    flash = board.flash_memory
    at_zero = Counter(
        {
            address - flash.origin * (flash.origin <= address < flash.end): count
            for address, count in executions.items()
        }
    )
    for label, times in (faults or {}).items():
        real.executions[address_of(theirs, label)] -= times
    differ = {
        f"0x{address:08x}": (at_zero[address], real.executions[address])
        for address in sorted(at_zero | real.executions)
        if at_zero[address] != real.executions[address]
    }
    assert differ == {}, "executed by address: (on the virtual board, on QEMU)"
    assert virtual.instructions == executions.total() == real.executions.total()
    return virtual.instructions


def address_of(elf: Path, symbol: str) -> int:
    listed = subprocess.run(["arm-none-eabi-nm", elf], capture_output=True, text=True, check=True)
    return next(
        int(n.split()[0], 16) for n in listed.stdout.splitlines() if n.endswith(f" {symbol}")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_program_executes_the_same_instructions_on_qemu(name, board, plugin, tmp_path):
    instructions = compare(board, plugin, compile_program(board, name, tmp_path), tmp_path)

    assert instructions > 3_000


def test_a_faulting_instruction_is_not_counted_and_everything_else_is(board, plugin, tmp_path):
    labels = ("bad_load", "bad_store", "bad_store_2", "bad_multiple", "bad_undefined", "bad_state")
    faults = dict.fromkeys(labels, 20)
    faults["bad_in_it"] = 11  # its condition does not hold in the other 9 rounds

    compare(board, plugin, compile_program(board, "faults", tmp_path), tmp_path, faults)


def test_a_generated_network_executes_the_same_instructions_on_qemu(board, plugin, tmp_path):
    graph = random_network(np.random.default_rng(5), blocks=2, size=20)
    generated = tmp_path / "net"
    manifest = generate(
        export_tflite(graph), name="net", engine="tiny", board=board_limits(board),
        out_dir=generated,
    )  # fmt: skip
    rng = np.random.default_rng(6)
    batch = [
        [rng.integers(-128, 128, graph.tensors[i].shape).astype(np.int8) for i in graph.inputs]
        for _ in range(2)
    ]

    def link(linked_for: Board, elf: Path) -> None:
        model_runner.build(generated, manifest, batch, board=linked_for).rename(elf)

    assert compare(board, plugin, link, tmp_path) > 100_000
