"""Counts of executed basic blocks, kept by a native hook that Unicorn calls for every block.

The hook is compiled by numba to a C function (no Python per block). A block is known by its
address, its size and its bytes: code in RAM is compared byte by byte at every execution and code in
flash once after each change of the flash, so code that rewrites itself is counted under what it
really was. For every block the table keeps how often it ran and how often it was left by a taken
branch, that is, the next block was not the one that follows it in memory.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic
from unicorn import Uc, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from hil.errors import HilError
from hil.virtual.memory import MemoryMap

# Words of the header that the hook and Python share.
(
    CURRENT,
    EXPECTED,
    ENTRIES,
    CODE_USED,
    FLASH_EPOCH,
    OVERFLOW,
    TABLE,
    SLOTS,
    CODE,
    REGIONS,
    REGION_COUNT,
) = range(11)
HEADER_WORDS = 16
# Words of one table entry (64 bytes: one cache line).
ADDRESS, SIZE, COUNT, TAKEN, CODE_AT, CHECKED_EPOCH = range(6)
ENTRY_WORDS = 8
# Words of one memory region.
ORIGIN, END, HOST, IS_RAM = range(4)

MAX_BLOCKS = 1 << 17  # an 1 MiB flash holds fewer blocks; code that keeps rewriting itself does not
SLOT_COUNT = 1 << 19
MAX_CODE_BYTES = 1 << 23
MAX_REGIONS = 16
NO_BLOCK = 0  # table entry 0 is never used: nothing has run yet


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, source: Any) -> Any:
    """An integer as a pointer, for carray."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(source), generate


_SIGNATURE = types.void(types.voidptr, types.uint64, types.uint32, types.voidptr)


@cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _on_block(engine: Any, address: Any, size: Any, user: Any) -> None:
    header = carray(user, HEADER_WORDS, np.uint64)
    table = carray(_pointer(header[TABLE]), (MAX_BLOCKS, ENTRY_WORDS), np.uint64)
    slots = carray(_pointer(header[SLOTS]), SLOT_COUNT, np.uint32)
    code = carray(_pointer(header[CODE]), MAX_CODE_BYTES, np.uint8)
    regions = carray(_pointer(header[REGIONS]), (MAX_REGIONS, 4), np.uint64)

    if address != header[EXPECTED]:
        table[header[CURRENT], TAKEN] += np.uint64(1)
    header[EXPECTED] = address + np.uint64(size)

    slot = (address >> np.uint64(1)) * np.uint64(0x9E3779B1) + np.uint64(size)
    while True:
        slot &= np.uint64(SLOT_COUNT - 1)
        index = np.uint64(slots[slot])
        if index == np.uint64(NO_BLOCK):
            break
        entry = table[index]
        if entry[ADDRESS] == address and entry[SIZE] == np.uint64(size):
            if entry[CHECKED_EPOCH] == header[FLASH_EPOCH]:
                entry[COUNT] += np.uint64(1)
                header[CURRENT] = index
                return
            same = False
            for r in range(header[REGION_COUNT]):
                if regions[r, ORIGIN] <= address and address < regions[r, END]:
                    host = carray(
                        _pointer(regions[r, HOST] + address - regions[r, ORIGIN]), size, np.uint8
                    )
                    same = True
                    for i in range(size):
                        if host[i] != code[entry[CODE_AT] + np.uint64(i)]:
                            same = False
                            break
                    if same and regions[r, IS_RAM] == np.uint64(0):
                        entry[CHECKED_EPOCH] = header[FLASH_EPOCH]
                    break
            if same:
                entry[COUNT] += np.uint64(1)
                header[CURRENT] = index
                return
        slot += np.uint64(1)

    index = header[ENTRIES]
    if index >= np.uint64(MAX_BLOCKS) or header[CODE_USED] + np.uint64(size) > np.uint64(
        MAX_CODE_BYTES
    ):
        header[OVERFLOW] = np.uint64(1)
        header[CURRENT] = np.uint64(NO_BLOCK)
        return
    header[ENTRIES] = index + np.uint64(1)
    slots[slot] = index
    entry = table[index]
    entry[ADDRESS] = address
    entry[SIZE] = np.uint64(size)
    entry[COUNT] = np.uint64(1)
    entry[CODE_AT] = header[CODE_USED]
    for r in range(header[REGION_COUNT]):
        if regions[r, ORIGIN] <= address and address < regions[r, END]:
            host = carray(_pointer(regions[r, HOST] + address - regions[r, ORIGIN]), size, np.uint8)
            for i in range(size):
                code[header[CODE_USED] + np.uint64(i)] = host[i]
            if regions[r, IS_RAM] == np.uint64(0):
                entry[CHECKED_EPOCH] = header[FLASH_EPOCH]
            break
    header[CODE_USED] += np.uint64(size)
    header[CURRENT] = index


class BlockTableFull(HilError):
    """The program rewrote its own code so often that its blocks cannot be counted."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {MAX_BLOCKS - 1:,} different basic blocks ran; no cycles can be given for "
            "a program that keeps rewriting its code"
        )


class BlockRun(NamedTuple):
    """A basic block and how often it ran."""

    address: int
    code: bytes
    executions: int
    taken: int  # how often it was left by a taken branch


class BlockCounter:
    """The table, attached to one Unicorn engine for its whole life."""

    def __init__(self, engine: Uc, memory: MemoryMap) -> None:
        self._header = np.zeros(HEADER_WORDS, np.uint64)
        self._table = np.zeros((MAX_BLOCKS, ENTRY_WORDS), np.uint64)
        self._slots = np.zeros(SLOT_COUNT, np.uint32)
        self._code = np.zeros(MAX_CODE_BYTES, np.uint8)
        self._regions = np.zeros((MAX_REGIONS, 4), np.uint64)
        assert len(memory.regions) <= MAX_REGIONS, "the native hook's table of regions is too small"
        for row, region in zip(self._regions, memory.regions, strict=False):
            m = region.memory
            row[:] = m.origin, m.end, region.host_address, m.kind == "ram"
        for word, array in (
            (TABLE, self._table),
            (SLOTS, self._slots),
            (CODE, self._code),
            (REGIONS, self._regions),
        ):
            self._header[word] = array.ctypes.data
        self._header[REGION_COUNT] = len(memory.regions)
        self._header[FLASH_EPOCH] = 1
        self._parts: Counter[tuple[int, bytes]] = Counter()  # blocks that were left in their middle
        self.reset()
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(hook),
            unicorn_const.UC_HOOK_BLOCK,
            ctypes.c_void_p(_on_block.address),
            ctypes.c_void_p(self._header.ctypes.data),
            ctypes.c_uint64(1),  # begin > end: everywhere
            ctypes.c_uint64(0),
        )
        assert status == unicorn_const.UC_ERR_OK, "Unicorn refused the block hook"

    def reset(self) -> None:
        """Forget everything."""
        used = int(self._header[ENTRIES])
        self._table[:used] = 0
        self._slots[:] = 0
        self._header[[CURRENT, EXPECTED, CODE_USED, OVERFLOW]] = 0
        self._header[ENTRIES] = 1
        self._parts.clear()

    def flash_changed(self) -> None:
        """Flash holds other bytes now: blocks in it are compared anew."""
        self._header[FLASH_EPOCH] += np.uint64(1)

    def continue_at(self, address: int) -> None:
        """The next block starts here, and not because of a branch: reset, exception, stop."""
        self._header[EXPECTED] = address

    @property
    def current(self) -> tuple[int, bytes]:
        """Address and bytes of the block that runs now; it is counted already."""
        entry = self._table[self._header[CURRENT]]
        return int(entry[ADDRESS]), self._bytes(entry)

    def cut(self, pc: int) -> None:
        """The current block was left before the instruction at `pc`: count only what ran of it."""
        entry = self._table[self._header[CURRENT]]
        address, code = self.current
        assert address <= pc <= address + len(code), "a block can only be cut inside"
        entry[COUNT] -= np.uint64(1)
        if pc > address:
            self._parts[address, code[: pc - address]] += 1
        self.continue_at(pc)

    def __len__(self) -> int:
        """Entries in the table, the unused entry 0 among them."""
        if self._header[OVERFLOW]:
            raise BlockTableFull
        return int(self._header[ENTRIES])

    def counts(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """(count, taken) of every entry, ordered by when a block first ran; views, not copies."""
        used = len(self)
        return self._table[:used, COUNT], self._table[:used, TAKEN]

    def block(self, index: int) -> tuple[int, bytes]:
        """Address and bytes of one entry."""
        entry = self._table[index]
        return int(entry[ADDRESS]), self._bytes(entry)

    def parts(self) -> Counter[tuple[int, bytes]]:
        """Blocks that were left in their middle: (address, executed bytes) -> count."""
        return self._parts

    def runs(self) -> list[BlockRun]:
        """Everything counted, for a profiler."""
        counts, taken = self.counts()
        whole = [
            BlockRun(*self.block(i), int(counts[i]), int(taken[i])) for i in range(1, len(self))
        ]
        return whole + [BlockRun(address, code, n, 0) for (address, code), n in self._parts.items()]

    def _bytes(self, entry: npt.NDArray[np.uint64]) -> bytes:
        at = int(entry[CODE_AT])
        return self._code[at : at + int(entry[SIZE])].tobytes()
