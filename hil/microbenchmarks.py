"""Micro-benchmarks: the tables in firmware/calibration, and the image that measures them on a board.

A micro-benchmark is a few lines of assembly that isolate one rule of a core or one path to a memory. This
file reads the tables, chooses what a board can run, and writes a folder that `hil.build` makes a
firmware of. Not here: measuring and fitting (hil/calibrate.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hil.board import BOARDS_DIR, Board, Memory
from hil.errors import UsageError
from hil.tables import read_toml, table_to_dataclass

TABLES_DIR = BOARDS_DIR.parent / "firmware" / "calibration"
IMAGES_DIR = BOARDS_DIR.parent / "build" / "calibration"
CORE_RAM = "ram"  # the name in the tables for memory that the core reaches without waiting

_COPIED = ("calibration.c", "calibration.h")
_TEMPLATE = "microbenchmarks.S.j2"
_SYSTEM_BUS = 0x2000_0000  # below it code is fetched through the code buses or the ITCM
_STACK_BYTES = 4096  # firmware/platform: it lies below the arena
_CORE_DATA_BYTES = 0x1000  # what bodies use of the core's own RAM
_DATA_BYTES = 0x1_0000  # what bodies use of any other RAM: many times a cache
_CODE_OFFSET = 0x100  # into memory that starts at address 0, which in C is no address of anything
_CODE_BYTES = 0x3000  # the longest routine that is copied


@dataclass(frozen=True, slots=True)
class Row:
    """One micro-benchmark of a table; firmware/calibration/README.md says what the keys mean."""

    name: str
    rule: str
    body: str
    source: str = ""
    cycles: float | None = None
    setup: str = ""
    after: str = ""
    copies: tuple[int, ...] = (8, 24)
    turns: int = 20
    code: tuple[str, ...] = (CORE_RAM,)
    data: tuple[str, ...] = (CORE_RAM,)

    def __post_init__(self) -> None:
        if len(self.copies) != 2 or not 0 < self.copies[0] < self.copies[1] or self.turns < 1:
            raise ValueError(f"{self.name!r}: copies should be two numbers, the smaller one first")
        if self.cycles is not None and not self.source:
            raise ValueError(f"{self.name!r}: who says that it takes {self.cycles:g} cycles?")


@dataclass(frozen=True, slots=True)
class Table:
    """One file: the cores that its rules are about, and its micro-benchmarks."""

    cores: tuple[str, ...]
    benchmark: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Microbenchmark:
    """One row with its code in one memory and its loads and stores in another."""

    row: Row
    code: str
    data: str

    @property
    def name(self) -> str:
        """The row's; with the memories where they are named ones."""
        places = [f"code in {self.code}"] if self.code != CORE_RAM else []
        places += [f"data in {self.data}"] if self.data != CORE_RAM else []
        return f"{self.row.name} ({', '.join(places)})" if places else self.row.name

    @property
    def label(self) -> str:
        """Of the routines, without the number of copies."""
        return f"{self.row.name}_{self.code}_{self.data}"

    @property
    def bodies(self) -> int:
        """How many bodies the long routine runs more than the short one."""
        short, long = self.row.copies
        return (long - short) * self.row.turns

    def cycles_per_body(self, short_cycles: int, long_cycles: int) -> float:
        """What one body took."""
        return (long_cycles - short_cycles) / self.bodies


def microbenchmarks(board: Board) -> list[Microbenchmark]:
    """All that a board can run, in the order of the tables."""
    found = []
    for path in sorted(TABLES_DIR.glob("*.toml")):
        table = table_to_dataclass(Table, read_toml(path), path)
        if board.mcu.core in table.cores:
            found += [
                Microbenchmark(row, code, data)
                for row in table.benchmark
                for code in row.code
                for data in row.data
                if code in (CORE_RAM, *_names(board)) and data in (CORE_RAM, *_names(board))
            ]
    labels = [benchmark.label for benchmark in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UsageError(f"{TABLES_DIR} has two micro-benchmarks named {', '.join(sorted(twice))}")
    return found


def write_image_folder(board: Board, folder: Path) -> list[Microbenchmark]:
    """Writes the folder that `hil.build` compiles; returns what it holds, in the table's order."""
    found = microbenchmarks(board)
    space = _Space.of(board, {benchmark.data for benchmark in found})
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copyfile(TABLES_DIR / name, folder / name)
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TABLES_DIR),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    ).get_template(_TEMPLATE)
    routines = [
        _routine(benchmark, copies, space) for benchmark in found for copies in benchmark.row.copies
    ]
    (folder / "microbenchmarks.S").write_text(
        template.render(board=board.id, routines=routines), encoding="utf-8"
    )
    (folder / "calibration_sizes.h").write_text(space.header(len(found)), encoding="utf-8")
    manifest = {
        "model": {"name": "calibration"},
        "engine": "none",
        "build": {"flags": ["-O2"], "source_dirs": [], "include_dirs": [], "libraries": []},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return found


@dataclass(frozen=True, slots=True)
class _Space:
    """Where on a board the routines run and what they read and write."""

    board: Board
    code_at: int  # routines that are copied
    arena_from: int
    arena_to: int

    @classmethod
    def of(cls, board: Board, data: set[str]) -> _Space:
        """The board's, from its memory map, for bodies that use these memories.

        All RAM that is used lies in the image's arena: the core's own data first, then, where code
        RAM is a view of the same RAM, the copied routines.
        """
        start, size = board.ram
        arena_from = start + _STACK_BYTES
        ends = [arena_from + _CORE_DATA_BYTES]
        code_ram = _code_ram(board)
        shown_at = _memory(board, code_ram.alias_of).origin if code_ram.alias_of else None
        offset = _CODE_OFFSET if shown_at is None else max(0, ends[0] - shown_at)
        if shown_at is not None:
            ends.append(shown_at + offset + _CODE_BYTES)
        for name in data:
            if name != CORE_RAM and _memory(board, name).kind == "ram":
                ends.append(max(arena_from, _memory(board, name).origin) + _DATA_BYTES)
        assert max(ends) <= start + size, "the arena lies in the RAM of the image"
        return cls(board, code_ram.origin + offset, arena_from, max(ends))

    def header(self, benchmarks: int) -> str:
        """calibration_sizes.h."""
        return (
            f"/* Written by hil/microbenchmarks.py from boards/{self.board.id}.toml. */\n"
            f"#define CALIBRATION_BENCHMARKS {benchmarks}u\n"
            f"#define CALIBRATION_ARENA_BYTES {self.arena_to - self.arena_from}u\n"
            f"#define CALIBRATION_ARENA_FROM 0x{self.arena_from:08x}u\n"
            f"#define CALIBRATION_ARENA_TO 0x{self.arena_to:08x}u\n"
        )

    def run_at(self, label: str, code: str) -> str:
        """Assembly for the address where a routine runs."""
        if code == CORE_RAM:
            return f"0x{self.code_at:08x}"
        moved = _memory(self.board, code).origin - self.board.flash_memory.origin
        return f"{label} + ({moved})" if moved else label

    def data_at(self, data: str) -> int:
        """The memory that loads and stores go to."""
        if data == CORE_RAM:
            return self.arena_from
        memory = _memory(self.board, data)
        return max(self.arena_from, memory.origin) if memory.kind == "ram" else memory.origin


def _routine(benchmark: Microbenchmark, copies: int, space: _Space) -> dict[str, Any]:
    row, label = benchmark.row, f"{benchmark.label}_{copies}"
    return {
        "label": label,
        "comment": f"{row.rule}: {copies} copies",
        "setup": row.setup.split("\n") if row.setup else [],
        "body": [line for line in row.body.split("\n") if line.strip()],
        "after": row.after.split("\n") if row.after else [],
        "copies": copies,
        "turns": row.turns,
        "run_at": space.run_at(label, benchmark.code),
        "copied": int(benchmark.code == CORE_RAM),
        "data": space.data_at(benchmark.data),
    }


def _names(board: Board) -> list[str]:
    return [memory.name for memory in board.memory]


def _memory(board: Board, name: str) -> Memory:
    return next(memory for memory in board.memory if memory.name == name)


def _code_ram(board: Board) -> Memory:
    """RAM on the code buses, or the ITCM RAM: instructions come from it without waiting."""
    for memory in board.memory:
        if memory.kind == "ram" and memory.origin < _SYSTEM_BUS:
            return memory
    raise UsageError(
        f"boards/{board.id}.toml names no RAM below 0x{_SYSTEM_BUS:08x}; "
        "micro-benchmarks need some that instructions come from without wait states"
    )
