"""Counts of executed basic blocks and of what they waited for, kept natively while the core runs.

The Python side of hil/virtual/native.py: it owns the arrays that the hooks work on, attaches the
hooks to Unicorn, configures the memory system, and reads the counts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from unicorn import Uc, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from hil.errors import HilError
from hil.virtual import native
from hil.virtual.engine_state import find_engine_state
from hil.virtual.memory import MemoryMap
from hil.virtual.timing import CoreTiming, UnknownInstruction
from hil.virtual.timing.armv7m import decode_block

CodeOrData = Literal["code", "data"]


class BlockTableFull(HilError):
    """The program rewrote its own code so often that its blocks cannot be counted."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {native.MAX_BLOCKS - 1:,} different basic blocks, or "
            f"{native.MAX_EDGES - 1:,} ways between them, ran; no cycles can be given for a "
            "program that keeps rewriting its code"
        )


class PathCosts(NamedTuple):
    """What an access costs beyond zero wait states; cycles, fractions allowed."""

    cache: int = 0  # number of the cache that it looks into; 0: none, every access is a hit
    hit: float = 0
    fill: float = 0  # the line is not there
    sequential: float = 0  # it is not there but follows the line that this path used last
    write_hit: float = 0
    write_miss: float = 0
    evict: float = 0  # a changed line has to be written back first


class CacheShape(NamedTuple):
    """Geometry of a cache, or of a flash's read buffer."""

    line_bytes: int
    lines: int
    ways: int  # as many as lines: fully associative
    replacement: Literal["lru", "random"] = "lru"
    write_allocate: bool = True


class PathCounts(NamedTuple):
    """What happened on a path."""

    hits: int
    fills: int
    sequentials: int


class BlockStalls(NamedTuple):
    """What a block waited for in all its executions; cycles."""

    address: int
    code: bytes
    fetch: float  # instructions: flash wait states, cache misses
    data: float  # loads and stores: the same
    branch: float  # mispredicted
    divide: float  # beyond the shortest
    alignment: float  # of loads and stores
    bus: float  # loads and stores that would overlap, but reach different memories


class BlockCounter:
    """The tables, attached to one Unicorn engine for its whole life.

    Args:
        engine: with the memory mapped.
        memory: the board's.
        name: of the core, for the decoder.
        core: tables of its timing model.
    """

    def __init__(self, engine: Uc, memory: MemoryMap, name: str, core: CoreTiming) -> None:
        n = native
        self._engine = engine
        self._memory = memory
        self._header = np.zeros(n.HEADER_WORDS, np.int64)
        self._blocks = np.zeros((n.MAX_BLOCKS, n.BLOCK_WORDS), np.int64)
        self._block_slots = np.zeros(n.BLOCK_SLOT_COUNT, np.int32)
        self._edges = np.zeros((n.MAX_EDGES, n.EDGE_WORDS), np.int64)
        self._edge_slots = np.zeros(n.EDGE_SLOT_COUNT, np.int32)
        self._code = np.zeros(n.MAX_CODE_BYTES, np.uint8)
        self._paths = np.zeros((2 * n.MAX_REGIONS + 2, n.PATH_WORDS), np.int64)
        self._caches = np.zeros((n.MAX_CACHES, n.CACHE_WORDS), np.int64)
        self._lines = np.zeros((n.MAX_CACHES * n.MAX_LINES, n.LINE_WORDS), np.int64)
        self._hints = np.zeros((n.MAX_CACHES, n.HINT_COUNT), np.int32)
        self._predictors = np.zeros((n.MAX_PREDICTORS, n.PREDICTOR_WORDS), np.int64)
        regions = np.zeros((n.MAX_REGIONS, n.REGION_WORDS), np.int64)
        pages = np.zeros(n.PAGE_COUNT, np.uint8)
        assert len(memory.regions) <= n.MAX_REGIONS, "the native table of regions is too small"
        for number, region in enumerate(memory.regions):
            m = region.memory
            regions[number] = m.origin, m.end, region.host_address, m.kind == "ram"
            pages[m.origin >> n.PAGE_SHIFT : m.end >> n.PAGE_SHIFT] = 2 * number + 3
            self._paths[2 * number + 3, n.IS_PLAIN] = n.WRITABLE if m.kind == "ram" else n.READ_ONLY
        unaligned = np.array([core.unaligned_read, core.unaligned_write], np.int64) * n.ONE_CYCLE
        divides = _divide_table(core)
        self._kept = (regions, pages, unaligned, divides)  # the hooks hold their addresses
        for word, array in (
            (n.BLOCKS, self._blocks),
            (n.BLOCK_SLOTS, self._block_slots),
            (n.EDGES, self._edges),
            (n.EDGE_SLOTS, self._edge_slots),
            (n.CODE, self._code),
            (n.REGIONS, regions),
            (n.PAGES, pages),
            (n.PATHS, self._paths),
            (n.CACHES, self._caches),
            (n.LINES, self._lines),
            (n.HINTS, self._hints),
            (n.PREDICTORS, self._predictors),
            (n.UNALIGNED, unaligned),
            (n.DIVIDES, divides),
        ):
            self._header[word] = array.ctypes.data
        self._header[n.REGION_COUNT] = len(memory.regions)
        self._header[n.FLASH_EPOCH] = 1
        state = find_engine_state(engine)
        self._header[n.REGISTERS], self._header[n.IT_STATE] = state.registers, state.it_state
        self._no_flag = np.zeros(1, np.uint8)  # takes its place where Unicorn's is not known
        self._header[n.KEEPS_PC] = state.keeps_pc or self._no_flag.ctypes.data
        self._name, self._core = name, core
        self._on_new_block = _ON_NEW_BLOCK(self._new_block)
        self._header[n.NEW_BLOCK] = ctypes.cast(self._on_new_block, ctypes.c_void_p).value or 0
        self._header[n.HAS_BUSES] = core.overlaps is not None
        if core.predictor is not None:
            self._header[n.PREDICTOR_COUNT] = core.predictor.entries
            self._header[n.MISPREDICT] = _fixed(core.predictor.mispredict_cycles)
            self._header[n.INDIRECT] = _fixed(core.predictor.indirect_cycles)
            self._header[n.UNKNOWN] = _fixed(core.predictor.unknown_cycles)
        self._divide_hooks: list[ctypes.c_size_t] = []
        self._divide_at: set[int] = set()
        self._restart = False
        self._halted_in = native.NO_BLOCK  # the part of a block in front of a halt in its middle
        self._caches[0, n.LINE_SHIFT] = 2  # without a cache every word is an access
        self.reset()
        self._hook(unicorn_const.UC_HOOK_BLOCK, native.on_block)
        accesses = unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE
        self._hook(accesses, native.on_access)

    def reset(self) -> None:
        """Forgets everything; the memory system stays configured, its caches are empty."""
        n, header = native, self._header
        self._blocks[: int(header[n.BLOCKS_USED])] = 0
        self._edges[: int(header[n.EDGES_USED])] = 0
        self._block_slots[:] = 0
        self._edge_slots[:] = 0
        self._predictors[:] = 0
        self._paths[:, [n.LAST_LINE, n.HITS, n.FILLS, n.SEQUENTIALS]] = 0
        for number in range(n.MAX_CACHES):
            self.invalidate_cache(number)
        self._caches[:, [n.TICK, n.RANDOM]] = 0
        header[[n.CURRENT, n.CURRENT_EDGE, n.CODE_USED, n.OVERFLOW, n.QUIET, n.STALLED]] = 0
        header[[n.BLOCKS_USED, n.EDGES_USED]] = 1

    # -- the memory system

    def set_path(self, region: int, side: CodeOrData, costs: PathCosts) -> None:
        """What accesses to a region of the memory map cost from now on."""
        n = native
        row = self._paths[2 * region + (2 if side == "code" else 3)]
        row[n.CACHE] = costs.cache
        row[n.HIT : n.EVICT + 1] = [_fixed(cycles) for cycles in costs[1:]]
        row[n.ACTIVE] = any(costs[1:])

    def set_cache(self, number: int, shape: CacheShape) -> None:
        """Gives a cache (1 to MAX_CACHES - 1) its geometry; it is empty then."""
        n = native
        sets, shift = shape.lines // shape.ways, shape.line_bytes.bit_length() - 1
        assert 0 < number < n.MAX_CACHES and 0 < shape.lines <= n.MAX_LINES
        assert 1 << shift == shape.line_bytes and sets & sets - 1 == 0
        assert sets * shape.ways == shape.lines
        self._caches[number] = (
            shift,
            sets - 1,
            shape.ways,
            shape.replacement == "random",
            shape.write_allocate,
            number * n.MAX_LINES,
            0,
            0,
        )
        self.invalidate_cache(number)

    def invalidate_cache(self, number: int) -> None:
        """Empties a cache; what was changed in it is not paid for."""
        n = native
        self._lines[number * n.MAX_LINES : (number + 1) * n.MAX_LINES] = 0

    def invalidate_line(self, number: int, address: int) -> None:
        """Drops the line of a cache that holds an address, if it is there."""
        n = native
        cache = self._caches[number]
        line = address >> int(cache[n.LINE_SHIFT])
        first = int(cache[n.FIRST_LINE] + (line & cache[n.SET_MASK]) * cache[n.WAYS])
        ways = self._lines[first : first + int(cache[n.WAYS])]
        ways[ways[:, n.TAG] == line + 1] = 0

    def path_counts(self, region: int, side: CodeOrData) -> PathCounts:
        """Accesses so far, in lines for code; an inactive path counts nothing."""
        n = native
        row = self._paths[2 * region + (2 if side == "code" else 3)]
        return PathCounts(*(int(row[word]) for word in (n.HITS, n.FILLS, n.SEQUENTIALS)))

    def set_predictor(self, mispredict: float, indirect: float, unknown: float) -> None:
        """What a wrong prediction costs, where the core predicts at all; cycles."""
        n = native
        self._header[[n.MISPREDICT, n.INDIRECT, n.UNKNOWN]] = [
            _fixed(cycles) for cycles in (mispredict, indirect, unknown)
        ]

    # -- code

    def watch_divides(self, places: Iterable[tuple[int, bytes]]) -> None:
        """Prices the divides in these bytes by their operands.

        Bytes that only look like a divide do no harm: they are never executed. Divides elsewhere
        (what a debugger wrote, or the program itself) are found when they run first.
        """
        for hook in self._divide_hooks:
            uclib.uc_hook_del(self._engine._uch, hook)
        self._divide_hooks.clear()
        self._divide_at.clear()
        for address, data in places:
            halves = np.frombuffer(data[: len(data) & ~1], np.uint16)
            is_first = (halves[:-1] & 0xFFD0) == 0xFB90
            is_second = (halves[1:] & 0xF0F0) == 0xF0F0
            for half in np.flatnonzero(is_first & is_second):
                self._watch_divide(address + 2 * int(half))

    def flash_changed(self) -> None:
        """Flash holds other bytes now: blocks in it are compared anew."""
        self._header[native.FLASH_EPOCH] += 1

    def interrupt(self) -> None:
        """The next block does not follow the current one: reset, exception."""
        self._header[native.CURRENT] = native.NO_BLOCK

    def add_cycles(self, cycles: int) -> None:
        """Time in which no instruction runs, such as entering an exception."""
        self._header[native.STALLED] += cycles * native.ONE_CYCLE

    @property
    def current(self) -> tuple[int, bytes]:
        """Address and bytes of the block that runs now; it is counted already."""
        return self.block(int(self._header[native.CURRENT]))

    @property
    def current_edge(self) -> int:
        """Over which the current block was entered."""
        return int(self._header[native.CURRENT_EDGE])

    def cut(self, pc: int, *, goes_on: bool = False) -> None:
        """The current block was left before the instruction at `pc`: count only what ran of it.

        With `goes_on` the core comes back to `pc` as if nothing had been, without another fetch.
        """
        n, header = native, self._header
        address, code = self.current
        assert address <= pc < address + len(code), "a block can only be cut inside"
        edge = self._edges[header[n.CURRENT_EDGE]]
        edge[n.COUNT] -= 1
        header[n.CURRENT] = edge[n.SOURCE]
        header[n.QUIET] = 1
        if pc > address:
            native.on_block.ctypes(None, address, pc - address, self._header.ctypes.data)
            header[n.QUIET] = goes_on
            self._halted_in = int(header[n.CURRENT]) if goes_on else n.NO_BLOCK
        elif self._halted_in == edge[n.SOURCE] != n.NO_BLOCK and not goes_on:
            # A halt had cut here before; the cut for another reason is the one that counts
            header[n.QUIET] = 0
            self._halted_in = n.NO_BLOCK

    # -- counts

    @property
    def edge_count(self) -> int:
        """Edges in the table, the unused edge 0 among them."""
        if self._header[native.OVERFLOW]:
            raise BlockTableFull
        return int(self._header[native.EDGES_USED])

    def executions(self) -> npt.NDArray[np.int64]:
        """How often each edge was taken, ordered by when it was first; a view, not a copy."""
        return self._edges[: self.edge_count, native.COUNT]

    def edge(self, index: int) -> tuple[int, int]:
        """(block, next block) of an edge; block 0 is none."""
        row = self._edges[index]
        return int(row[native.SOURCE]), int(row[native.TARGET])

    def block(self, index: int) -> tuple[int, bytes]:
        """Address and bytes of a block."""
        row = self._blocks[index]
        at = int(row[native.CODE_AT])
        return int(row[native.ADDRESS]), self._code[at : at + int(row[native.SIZE])].tobytes()

    @property
    def stalled_cycles(self) -> int:
        """All stalls so far, in whole cycles."""
        return int(self._header[native.STALLED]) // native.ONE_CYCLE

    def stalls(self) -> list[BlockStalls]:
        """What each block waited for, for a profiler."""
        rows = self._blocks[1 : int(self._header[native.BLOCKS_USED])]
        cycles = rows[:, native.STALL_CAUSES] / native.ONE_CYCLE
        return [
            BlockStalls(*self.block(number), *map(float, row))
            for number, row in enumerate(cycles, start=1)
        ]

    def _new_block(self, index: int) -> int:
        """Called while a block begins for the first time; which of its accesses overlap.

        Of code that cannot be timed nothing overlaps.
        """
        address, code = self.block(index)
        try:
            block = decode_block(code, address, self._name)
        except UnknownInstruction:
            return 0
        divides = [i.address for i in block if i.kind == "divide"]
        if not self._divide_at.issuperset(divides):  # code that was not in the image
            for at in divides:
                self._watch_divide(at)
            self._engine.ctl_remove_cache(address, address + len(code))
            self._restart = True
            self._engine.emu_stop()  # before its first instruction, to go on with the hooks
        if self._core.overlaps is None:
            return 0
        return self._core.overlaps(block) & (1 << native.MAX_OVERLAPS) - 1

    def restart_requested(self) -> bool:
        """Whether the engine stopped only to enter the current block again; asked once."""
        requested, self._restart = self._restart, False
        return requested

    def _watch_divide(self, at: int) -> None:
        if at not in self._divide_at:
            self._divide_at.add(at)
            self._divide_hooks.append(
                self._hook(unicorn_const.UC_HOOK_CODE, native.on_divide, at, at)
            )

    def _hook(self, kind: int, function: object, first: int = 1, last: int = 0) -> ctypes.c_size_t:
        """Attaches a native hook to [first, last]; first > last is everywhere."""
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._engine._uch,
            ctypes.byref(hook),
            kind,
            ctypes.c_void_p(function.address),  # type: ignore[attr-defined]
            ctypes.c_void_p(self._header.ctypes.data),
            ctypes.c_uint64(first),
            ctypes.c_uint64(last),
        )
        assert status == unicorn_const.UC_ERR_OK, "Unicorn refused a hook"
        return hook


_ON_NEW_BLOCK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def _fixed(cycles: float) -> int:
    return round(cycles * native.ONE_CYCLE)


def _divide_table(core: CoreTiming) -> npt.NDArray[np.int64]:
    """[signed][bits of the dividend][bits of the divisor] -> cycles beyond the shortest."""
    largest = [(1 << bits) - 1 for bits in range(native.DIVIDE_BITS)]
    cycles = [
        [
            [core.divide_cycles(a, b, signed) for b in (*largest, -1 if signed else 0)]
            for a in largest
        ]
        for signed in (False, True)
    ]
    table: npt.NDArray[np.int64] = np.array(cycles, np.int64)
    table -= table.min()
    return table * native.ONE_CYCLE
