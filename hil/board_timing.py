"""How long a board's memories take: the `[timing]` of its board file, and what calibration changed.

A *path* is how one side of the core (`code`, `data`) reaches one memory: through a cache, through a
read buffer, or straight. `hil/virtual/memory_system.py` turns paths and the state of the chip's
registers into costs. Every number here is in core cycles, beyond what the access takes without wait
states, unless its name ends in `_waits`: that many times the wait states set in the flash
controller. Keys and sources: boards/README.md.

A number is also known by a flat name, such as `flash.code.icache.fill_waits`: that is how
`hil calibrate` fits it and how `boards/<id>.timing.toml` overrides it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hil.errors import BoardFileError
from hil.tables import read_toml, table_to_dataclass

UNCACHED = "uncached"  # instead of a cache's name: every access goes to the memory
MAX_CACHES = 7  # of the native side
MAX_CYCLES = 64.0
MAX_WAITS = 4.0


class Constant(NamedTuple):
    """A number that calibration may fit, and between what."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Cache:
    """Geometry of a cache, or of a buffer that keeps what the flash was last asked for."""

    line_bytes: int
    lines: int
    ways: int = 0  # 0: fully associative
    replacement: Literal["lru", "random"] = "lru"
    write_allocate: bool = False
    always_on: bool = False  # a buffer that no register switches

    def __post_init__(self) -> None:
        if self.line_bytes < 4 or self.line_bytes & self.line_bytes - 1:
            raise ValueError(
                f"line_bytes is {self.line_bytes}; it should be a power of 2 from 4 on"
            )
        if self.lines <= 0 or self.ways < 0:
            raise ValueError(f"{self.lines} lines in {self.ways} ways are no cache")
        sets, rest = divmod(self.lines, self.ways or self.lines)
        if rest or sets & sets - 1:
            raise ValueError(
                f"{self.lines} lines in {self.ways} ways make no power of 2 of sets of equal size"
            )


@dataclass(frozen=True, slots=True)
class AccessPath:
    """What accesses on a path cost; only what the board file says is there to be fitted."""

    hit_cycles: float | None = None  # each access, if uncached
    hit_waits: float | None = None
    fill_cycles: float | None = None  # the line is not there
    fill_waits: float | None = None
    sequential_cycles: float | None = None  # nor is it there, but it follows the one before
    sequential_waits: float | None = None
    write_hit_cycles: float | None = None  # each write, if uncached
    write_miss_cycles: float | None = None
    evict_cycles: float | None = None  # a changed line makes room
    prefetch: bool = False  # `sequential` only holds while the chip's prefetch is on

    def __post_init__(self) -> None:
        _check_bounds(self)

    def cycles(self, event: str, wait_states: int = 0) -> float:
        """Cost of a `hit`, `fill`, `sequential`, `write_hit`, `write_miss` or `evict`."""
        fixed = getattr(self, f"{event}_cycles")
        waits = getattr(self, f"{event}_waits", None)
        if event == "sequential" and fixed is None and waits is None:
            return self.cycles("fill", wait_states)
        return (fixed or 0.0) + (waits or 0.0) * wait_states


@dataclass(frozen=True, slots=True)
class Core:
    """Overrides of what the timing model of the core says; None: the model's number."""

    mispredict_cycles: float | None = None
    indirect_cycles: float | None = None
    unknown_cycles: float | None = None

    def __post_init__(self) -> None:
        _check_bounds(self)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """How the bench firmware's port leaves the chip: clock up, caches on.

    Where programs start that bring no code to set up the chip.
    """

    wait_states: int = 0
    prefetch: bool = False
    caches_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Caches, paths and operating point; without any, all memory answers at once.

    `paths` is by memory, side and cache. Of several caches for one side the first that is on is
    used. A memory without `paths` is reached like the one that `same` names, else like the one that
    it is an alias of, else without waiting.
    """

    caches: dict[str, Cache] = field(default_factory=dict, hash=False)
    paths: dict[str, dict[str, dict[str, AccessPath]]] = field(default_factory=dict, hash=False)
    same: dict[str, str] = field(default_factory=dict, hash=False)
    operating_point: OperatingPoint = field(default_factory=OperatingPoint)
    core: Core = field(default_factory=Core)

    def __post_init__(self) -> None:
        if len(self.caches) > MAX_CACHES:
            raise ValueError(f"{len(self.caches)} caches; at most {MAX_CACHES} can be modelled")
        if UNCACHED in self.caches:
            raise ValueError(f"no cache can be called {UNCACHED!r}")
        known = {*self.caches, UNCACHED}
        for memory, sides in self.paths.items():
            for side, paths in sides.items():
                if side not in ("code", "data"):
                    raise ValueError(f"paths.{memory}: {side!r} should be 'code' or 'data'")
                if strange := set(paths) - known:
                    raise ValueError(
                        f"paths.{memory}.{side}: no cache {min(strange)!r}; known are "
                        f"{', '.join(sorted(known))}"
                    )
        for memory, other in self.same.items():
            if other not in self.paths or memory in self.paths:
                raise ValueError(f"same: {memory} = {other!r} should name a memory with paths")
        for name in self.operating_point.caches_on:
            if name not in self.caches or self.caches[name].always_on:
                raise ValueError(f"operating_point: no cache {name!r} that can be switched on")

    def check_memories(self, names: set[str]) -> None:
        """Raises ValueError when a memory is mentioned that the board has not."""
        if strange := {*self.paths, *self.same} - names:
            raise ValueError(f"timing: no memory {min(strange)!r}")

    def paths_of(
        self, memory: str, alias_of: str | None = None
    ) -> dict[str, dict[str, AccessPath]]:
        """By side and cache, how a memory is reached."""
        for name in (memory, self.same.get(memory), alias_of):
            if name in self.paths:
                return self.paths[name]
        return {}

    def constant_reads(self, memory: str, alias_of: str | None = None) -> tuple[int, float]:
        """How data in a memory, or in its alias, is read at the operating point.

        Returns:
            Bytes of a line, and cycles to fetch one. A memory without paths has words that are
            there at once.
        """
        on = self.operating_point.caches_on
        for name, path in self.paths_of(memory, alias_of).get("data", {}).items():
            cache = self.caches.get(name)
            if cache is None:
                return 4, path.cycles("hit", self.operating_point.wait_states)
            if cache.always_on or name in on:
                return cache.line_bytes, path.cycles("fill", self.operating_point.wait_states)
        return 4, 0.0

    def constants(self) -> dict[str, Constant]:
        """Everything that calibration may fit, by flat name, in the order of the file."""
        found = {
            f"{memory}.{side}.{cache}.{key}": Constant(value, 0.0, _upper(key))
            for memory, sides in self.paths.items()
            for side, paths in sides.items()
            for cache, path in paths.items()
            for key, value in _numbers(path).items()
        }
        for key, value in _numbers(self.core).items():
            found[f"core.{key}"] = Constant(value, 0.0, _upper(key))
        return found

    def with_constants(self, values: Mapping[str, float]) -> Timing:
        """The same with other numbers, by flat name.

        A key that the board file does not mention may be set, too. Raises ValueError for a name
        that leads nowhere and for a number out of its bounds.
        """
        paths = {m: {s: dict(p) for s, p in sides.items()} for m, sides in self.paths.items()}
        core = self.core
        for name, value in values.items():
            where, _, key = name.rpartition(".")
            if where == "core" and key in _keys(Core):
                core = dataclasses.replace(core, **{key: float(value)})
                continue
            parts = where.split(".")
            if len(parts) != 3 or key not in _keys(AccessPath):
                raise ValueError(f"no constant {name!r}")
            memory, side, cache = parts
            try:
                path = paths[memory][side][cache]
            except KeyError:
                raise ValueError(f"no constant {name!r}") from None
            change: dict[str, Any] = {key: float(value)}
            paths[memory][side][cache] = dataclasses.replace(path, **change)
        return dataclasses.replace(self, paths=paths, core=core)


@dataclass(frozen=True, slots=True)
class Overrides:
    """A file `boards/<id>.timing.toml`, as `hil calibrate` writes it."""

    constants: dict[str, float]
    # For the reader only: where they come from, and how well they explain the measurement.
    source: str = ""
    place: str = ""
    measured_at: str = ""
    firmware_sha256: str = ""
    timing_model: str = ""
    standard_errors: dict[str, float] = field(default_factory=dict, hash=False)
    residuals: dict[str, float] = field(default_factory=dict, hash=False)
    undetermined: tuple[str, ...] = ()


def overrides_path(board_file: Path) -> Path:
    """Where the overrides of a board file are, if there are any."""
    return board_file.with_suffix(".timing.toml")


def read_overrides(path: Path, timing: Timing) -> Timing:
    """`timing` with the numbers of an override file; raises BoardFileError."""
    overrides = table_to_dataclass(Overrides, read_toml(path), path)
    try:
        return timing.with_constants(overrides.constants)
    except ValueError as error:
        raise BoardFileError(path, "constants", str(error)) from None


def _keys(cls: type[AccessPath] | type[Core]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.name.endswith(("_cycles", "_waits"))]


def _numbers(owner: AccessPath | Core) -> dict[str, float]:
    """The numbers that the file gives."""
    values = {key: getattr(owner, key) for key in _keys(type(owner))}
    return {key: value for key, value in values.items() if value is not None}


def _upper(key: str) -> float:
    return MAX_WAITS if key.endswith("_waits") else MAX_CYCLES


def _check_bounds(owner: AccessPath | Core) -> None:
    for key, value in _numbers(owner).items():
        if not 0.0 <= value <= _upper(key):  # false for NaN, too
            raise ValueError(f"key {key!r} is {value:g}; it should be from 0 to {_upper(key):g}")
