"""Micro-benchmarks: the tables in firmware/calibration, and the image that measures them.

A micro-benchmark is a few lines of assembly that isolate one rule of a core or one path to a
memory. This file reads the tables, chooses what a board can run, and writes a folder that
`hil.build` makes a firmware of. Not here: measuring and fitting (hil/calibrate.py).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hil.board import BOARDS_DIR, Board, Memory
from hil.build import forget_oldest
from hil.errors import UsageError
from hil.tables import read_toml, table_to_dataclass

TABLES_DIR = BOARDS_DIR.parent / "firmware" / "calibration"
IMAGES_DIR = BOARDS_DIR.parent / "build" / "calibration"
KEPT_IMAGES = 12
CORE_RAM = "core"  # the name in the tables for RAM that the core reaches without waiting

_COPIED = ("calibration.c", "calibration.h")
_TEMPLATE = "microbenchmarks.S.j2"
_SYSTEM_BUS = 0x2000_0000  # below it code is fetched through the code buses or the ITCM
_STACK_BYTES = 4096  # firmware/platform: it lies below the arena
_CORE_DATA_BYTES = 0x1000  # what bodies use of the core's own RAM
_CORE_CODE_BYTES = 0x3000  # the longest routine that runs in it
_ROOM_BYTES = 0x1_0000  # of any other RAM, for a routine or for data: many times a cache
_CODE_OFFSET = 0x100  # into memory that starts at address 0, which in C is no address of anything


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
    functions: str = ""
    copies: tuple[int, ...] = (8, 24)
    turns: int = 20
    cold: bool = False
    code: tuple[str, ...] = (CORE_RAM,)
    data: tuple[str, ...] = (CORE_RAM,)
    caches: tuple[bool, ...] = (True,)
    more_wait_states: tuple[int, ...] = (0,)

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
    """One row with its code in one memory, its loads and stores in another, and the chip set up."""

    row: Row
    code: str
    data: str
    caches: bool = True
    more_wait_states: int = 0

    @property
    def name(self) -> str:
        """The row's; with what it is about where a row has several."""
        parts = [f"code in {self.code}"] if self.code != CORE_RAM else []
        parts += [f"data in {self.data}"] if self.data != CORE_RAM else []
        parts += [] if self.caches else ["caches off"]
        parts += [f"+{self.more_wait_states} wait states"] if self.more_wait_states else []
        return f"{self.row.name} ({', '.join(parts)})" if parts else self.row.name

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
    rows: list[Row] = []
    for path in sorted(TABLES_DIR.glob("*.toml")):
        table = table_to_dataclass(Table, read_toml(path), path)
        if board.mcu.core in table.cores:
            rows += table.benchmark
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{TABLES_DIR} has two micro-benchmarks named {', '.join(sorted(twice))}")
    memories = {CORE_RAM, *(memory.name for memory in board.memory)}
    has_wait_states = board.timing.operating_point.wait_states > 0
    return [
        Microbenchmark(*choice)
        for row in rows
        for choice in itertools.product([row], row.code, row.data, row.caches, row.more_wait_states)
        if {choice[1], choice[2]} <= memories and (has_wait_states or choice[4] == 0)
    ]


def image_folder(board: Board, images_dir: Path = IMAGES_DIR) -> tuple[Path, list[Microbenchmark]]:
    """The folder that `hil.build` compiles, written unless it is there, and what it holds.

    Its name has a hash of its content: several processes may ask for it at once.
    """
    found = microbenchmarks(board)
    files = _image_files(board, found)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    folder = images_dir / f"{board.id}-{digest}"
    images_dir.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        partial = Path(tempfile.mkdtemp(dir=images_dir, suffix=".partial"))
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(partial)
    forget_oldest(images_dir, KEPT_IMAGES)
    return folder, found


def _image_files(board: Board, found: list[Microbenchmark]) -> dict[str, str]:
    """Name and text of every file of an image's folder."""
    space = _Space.of(board, {b.data for b in found} | {b.code for b in found})
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TABLES_DIR),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    ).get_template(_TEMPLATE)
    rows = {benchmark.row.name: benchmark.row for benchmark in found}
    source = template.render(
        board=board.id,
        routines=[_routine(row, copies) for row in rows.values() for copies in row.copies],
        entries=[
            _entry(benchmark, copies, space)
            for benchmark in found
            for copies in benchmark.row.copies
        ],
    )
    manifest = {
        "model": {"name": "calibration"},
        "engine": "none",
        "build": {"flags": ["-O2"], "source_dirs": [], "include_dirs": [], "libraries": []},
    }
    return {name: (TABLES_DIR / name).read_text(encoding="utf-8") for name in _COPIED} | {
        "microbenchmarks.S": source,
        "calibration_sizes.h": space.header(len(found)),
        "manifest.json": json.dumps(manifest, indent=2) + "\n",
    }


@dataclass(frozen=True, slots=True)
class _Space:
    """Where on a board the routines run and what they read and write.

    All RAM that is used lies in the image's arena: the core's own data first, then, where the code
    RAM is a view of the same RAM, the copied routines.
    """

    board: Board
    core_code: tuple[int, int]  # where it runs, and the same memory at its own address
    core_data: int
    rooms: dict[str, int]  # of the other RAMs that are used, by name
    arena_to: int

    @classmethod
    def of(cls, board: Board, used: set[str]) -> _Space:
        """The board's, from its memory map, for micro-benchmarks that use these memories."""
        start, size = board.ram
        core_data = start + _STACK_BYTES
        free = core_data + _CORE_DATA_BYTES
        code_ram = _code_ram(board)
        offset = _CODE_OFFSET
        if code_ram.alias_of is not None:
            shown_at = _memory(board, code_ram.alias_of).origin
            offset = max(0, free - shown_at)
            code_end = shown_at + offset + _CORE_CODE_BYTES
            free = code_end if offset else free
        rooms = {
            name: max(free, _memory(board, name).origin)
            for name in sorted(used - {CORE_RAM})
            if _memory(board, name).kind == "ram"
        }
        ends = [free, *(room + _ROOM_BYTES for room in rooms.values())]
        ends += [code_end] if code_ram.alias_of is not None else []
        assert max(ends) <= start + size, "the arena lies in the RAM of the image"
        own = code_ram if code_ram.alias_of is None else _memory(board, code_ram.alias_of)
        core_code = code_ram.origin + offset, own.origin + offset
        return cls(board, core_code, core_data, rooms, max(ends))

    def header(self, benchmarks: int) -> str:
        """calibration_sizes.h."""
        return (
            f"/* Written by hil/microbenchmarks.py from boards/{self.board.id}.toml. */\n"
            f"#define CALIBRATION_BENCHMARKS {benchmarks}u\n"
            f"#define CALIBRATION_ARENA_BYTES {self.arena_to - self.core_data}u\n"
            f"#define CALIBRATION_ARENA_FROM 0x{self.core_data:08x}u\n"
            f"#define CALIBRATION_ARENA_TO 0x{self.arena_to:08x}u\n"
            f"#define CALIBRATION_CORE_CODE 0x{self.core_code[1]:08x}u\n"
            f"#define CALIBRATION_CORE_CODE_BYTES {_CORE_CODE_BYTES}u\n"
            f"#define CALIBRATION_ROOM_BYTES {_ROOM_BYTES}u\n"
        )

    def run_at(self, label: str, code: str) -> tuple[str, int]:
        """(assembly for the address where a routine runs, where it is copied to or 0)."""
        if code == CORE_RAM:
            return f"0x{self.core_code[0]:08x}", self.core_code[1]
        if code in self.rooms:
            return f"0x{self.rooms[code]:08x}", self.rooms[code]
        moved = _memory(self.board, code).origin - self.board.flash_memory.origin
        return (f"{label} + ({moved})" if moved else label), 0

    def data_at(self, data: str) -> int:
        """The memory that loads and stores go to."""
        if data == CORE_RAM:
            return self.core_data
        return self.rooms.get(data, _memory(self.board, data).origin)


def _routine(row: Row, copies: int) -> dict[str, Any]:
    """What the template needs for the code of one routine."""
    return {
        "label": _label(row, copies),
        "comment": row.rule,
        "setup": _lines(row.setup),
        "body": _lines(row.body),
        "after": _lines(row.after),
        "functions": _lines(row.functions),
        "copies": copies,
    }


def _entry(benchmark: Microbenchmark, copies: int, space: _Space) -> dict[str, Any]:
    """What the template needs for one entry of the firmware's table."""
    label = _label(benchmark.row, copies)
    run_at, copy_to = space.run_at(label, benchmark.code)
    return {
        "label": label,
        "comment": f"{benchmark.name}: {copies} copies",
        "run_at": run_at,
        "copy_to": copy_to,
        "data": space.data_at(benchmark.data),
        "turns": benchmark.row.turns,
        "runs": 1 if benchmark.row.cold else 2,
        "caches_on": int(benchmark.caches),
        "more_wait_states": benchmark.more_wait_states,
    }


def _label(row: Row, copies: int) -> str:
    return f"{row.name}_{copies}"


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


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
