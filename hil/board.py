"""Board files: `boards/<id>.toml` to a frozen `Board`.

Everything a tool needs to know of a board is in its file. The keys, their units and where their
values come from are described in boards/README.md. Not here: where a board is plugged in
(hil/lab.py) and how the firmware drives it (firmware/ports).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hil.board_timing import Timing, overrides_path, read_overrides
from hil.errors import BoardFileError, BoardNotFound
from hil.tables import read_toml, table_to_dataclass

BOARDS_DIR = Path(__file__).resolve().parents[1] / "boards"

_ADDRESSES = 1 << 32
_USB_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def _must_be_positive(owner: object, *keys: str) -> None:
    for key in keys:
        if (value := getattr(owner, key)) <= 0:
            raise ValueError(f"key {key!r} is {value}; it should be more than 0")


@dataclass(frozen=True, slots=True)
class Mcu:
    """The chip: part number, core, what its core can do, and its clock as the firmware sets it."""

    part: str
    core: Literal["cortex-m4", "cortex-m7"]
    features: tuple[Literal["dsp", "fpv4-sp", "fpv5-sp", "icache", "dcache"], ...]
    clock_hz: int

    def __post_init__(self) -> None:
        _must_be_positive(self, "clock_hz")


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory as the core sees it.

    `alias_of` names the memory whose bytes this address range shows again (the ITCM view of the
    F746's flash). `erase_bytes` lists the sizes of a flash's erase units in address order; a single
    size repeats over the whole memory.
    """

    name: str
    kind: Literal["flash", "ram"]
    origin: int
    size_bytes: int
    alias_of: str | None = None
    erase_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.size_bytes <= 0 or self.origin < 0 or self.end > _ADDRESSES:
            raise ValueError(
                f"memory {self.name!r} is {self.size_bytes:,} B at {self.origin:#x}; "
                "it should lie in the 32-bit address space"
            )
        sizes = self.erase_bytes
        unit = sizes[0] if len(sizes) == 1 else 0
        covered = self.size_bytes // unit * unit if unit > 0 else sum(sizes)
        if sizes and (min(sizes) <= 0 or covered != self.size_bytes):
            raise ValueError(
                f"memory {self.name!r}: erase_bytes {list(sizes)} should cover its "
                f"{self.size_bytes:,} B"
            )

    @property
    def end(self) -> int:
        """First address after the memory."""
        return self.origin + self.size_bytes


@dataclass(frozen=True, slots=True)
class Build:
    """What PlatformIO needs: the chip family's port under firmware/ports, and the board's wiring.

    `defines` become C macros; which of them a port reads is said at the top of its port.c.
    """

    family: str
    defines: dict[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Flash:
    """How an image gets onto a physical board: a method of hil/flash.py, its name for the chip.

    `other_targets` are what other methods call it, for places that choose one of them.
    """

    method: Literal["pyocd", "openocd", "jlink"]
    target: str
    other_targets: dict[str, str] = field(default_factory=dict, hash=False)

    def target_of(self, method: str) -> str | None:
        """What a method calls the chip, if the file says."""
        return self.target if method == self.method else self.other_targets.get(method)


@dataclass(frozen=True, slots=True)
class Link:
    """The serial port: speed, and the USB ids (`vid:pid`, hexadecimal) of its debugger."""

    baud: int
    usb_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        _must_be_positive(self, "baud")
        for usb_id in self.usb_ids:
            if not _USB_ID.fullmatch(usb_id):
                raise ValueError(f"USB id {usb_id!r} should be like '1366:1015', in lower case")


@dataclass(frozen=True, slots=True)
class Supply:
    """Supply of the chip while it computes, from the data sheet; what energy estimates rest on.

    `idle_ua` is what it draws while it waits for a command, for virtual meters only.
    """

    voltage_mv: int
    active_ua: int
    source: str
    idle_ua: int | None = None

    def __post_init__(self) -> None:
        _must_be_positive(self, "voltage_mv", "active_ua")
        if self.idle_ua is not None:
            _must_be_positive(self, "idle_ua")


@dataclass(frozen=True, slots=True)
class Board:
    """One type of board; `sha256` is that of its file, and of its timing overrides if any."""

    id: str
    name: str
    mcu: Mcu
    memory: tuple[Memory, ...]
    build: Build
    flash: Flash
    link: Link
    supply: Supply
    timing: Timing = field(default_factory=Timing)
    datasheets: tuple[str, ...] = ()
    sha256: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.id):
            raise ValueError(f"id {self.id!r} should be lower-case letters, digits and '_'")
        memories = sorted(self.memory, key=lambda memory: memory.origin)
        for below, above in itertools.pairwise(memories):
            if below.end > above.origin:
                raise ValueError(f"memories {below.name!r} and {above.name!r} overlap")
        by_name = {memory.name: memory for memory in memories}
        if len(by_name) != len(memories):
            raise ValueError("two memories have one name")
        for memory in memories:
            if memory.alias_of is None:
                continue
            shown = by_name.get(memory.alias_of)
            if shown is None or shown.alias_of or shown.size_bytes != memory.size_bytes:
                raise ValueError(
                    f"memory {memory.name!r}: alias_of {memory.alias_of!r} should name a memory "
                    "of the same size"
                )
        self.timing.check_memories(set(by_name))

    @property
    def flash_memory(self) -> Memory:
        """The flash that images are linked for: the first one that is no alias."""
        return next(m for m in self.memory if m.kind == "flash" and m.alias_of is None)

    @property
    def flash_bytes(self) -> int:
        """Flash in bytes."""
        return self.flash_memory.size_bytes

    @property
    def ram(self) -> tuple[int, int]:
        """(origin, bytes) of the longest run of adjoining RAM: what the linker script uses."""
        best = (0, 0)
        start = size = 0
        own = (m for m in self.memory if m.kind == "ram" and m.alias_of is None)
        for memory in sorted(own, key=lambda m: m.origin):
            start, size = (
                (start, size + memory.size_bytes)
                if memory.origin == start + size
                else (memory.origin, memory.size_bytes)
            )
            best = max(best, (start, size), key=lambda run: run[1])
        return best

    @property
    def ram_bytes(self) -> int:
        """RAM in bytes that a program can use as one piece."""
        return self.ram[1]


def load_board(path: Path) -> Board:
    """The board of one file; raises BoardFileError that names file, table and key."""
    board = table_to_dataclass(Board, read_toml(path), path)
    if board.id != path.stem:
        raise BoardFileError(path, "", f"id {board.id!r} must equal the file name {path.stem!r}")
    for needed in ("flash", "ram"):
        if not any(m.kind == needed and m.alias_of is None for m in board.memory):
            raise BoardFileError(path, "memory", f"no memory of kind {needed!r}")
    content = path.read_bytes()
    overrides = overrides_path(path)
    if overrides.is_file():
        timing = read_overrides(overrides, board.timing)
        board = dataclasses.replace(board, timing=timing)
        content += b"\0" + overrides.read_bytes()
    object.__setattr__(board, "sha256", hashlib.sha256(content).hexdigest())
    return board


def with_constants(board: Board, values: Mapping[str, float]) -> Board:
    """The board with other timing constants, by flat name; another board, by its `sha256`.

    Raises ValueError for a name that leads nowhere and for a number out of its bounds.
    """
    changed = dataclasses.replace(board, timing=board.timing.with_constants(values))
    said = board.sha256 + "".join(f" {name}={values[name]!r}" for name in sorted(values))
    object.__setattr__(changed, "sha256", hashlib.sha256(said.encode()).hexdigest())
    return changed


def board_ids(boards_dir: Path = BOARDS_DIR) -> list[str]:
    """Ids of all boards, sorted; nothing is loaded."""
    return sorted(
        path.stem for path in boards_dir.glob("*.toml") if not path.name.endswith(".timing.toml")
    )


def get_board(board_id: str, boards_dir: Path = BOARDS_DIR) -> Board:
    """The board of that id; raises BoardNotFound with the ids that exist."""
    known = board_ids(boards_dir)
    if board_id not in known:
        raise BoardNotFound(board_id, known)
    return load_board(boards_dir / f"{board_id}.toml")
