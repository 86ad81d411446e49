"""What runs natively while the virtual core runs: hooks that Unicorn calls, compiled by numba.

One file, because numba's cache on disk looks at the file of the hook only. Everything is int64: an
address is below 2**32 and counts stay below 2**63. Python and the hooks share arrays; the layouts
are the constants below, the Python side is hil/virtual/blocks.py.

`on_block` counts edges: block A was followed by block B. A block is known by its address, its size
and its bytes: code in RAM is compared byte by byte at every execution and code in flash once after
each change of the flash, so code that rewrites itself is counted under what it really was. It also
plays the branch predictor and the instruction side of the memory system. `on_access` plays the data
side, `on_divide` reads a divide's operands. Stalls are in 1/256 cycle, for each block
by cause.

Cost: an edge that was taken lately is found without a search; a block in a cache that hits costs a
comparison for each line that it touches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Words of the header that the hooks and Python share.
(
    CURRENT,  # the block that runs now
    CURRENT_EDGE,  # over which it was entered
    BLOCKS_USED,
    EDGES_USED,
    CODE_USED,
    FLASH_EPOCH,
    OVERFLOW,
    QUIET,  # the next block was entered already: no prediction, no fetch
    STALLED,  # all stalls so far
    BLOCKS,  # addresses of the arrays
    BLOCK_SLOTS,
    EDGES,
    EDGE_SLOTS,
    CODE,
    REGIONS,
    REGION_COUNT,
    PAGES,
    PATHS,
    CACHES,
    LINES,
    HINTS,
    PREDICTORS,
    PREDICTOR_COUNT,
    MISPREDICT,  # cycles
    INDIRECT,
    UNKNOWN,
    UNALIGNED,
    DIVIDES,
    REGISTERS,  # addresses of the core's registers and IT state: hil/virtual/engine_state.py
    IT_STATE,
    KEEPS_PC,
    NEW_BLOCK,  # address of a function: is told of a new block, says which of its accesses overlap
    HAS_BUSES,  # whether that matters
    ACCESSES,  # of the current block so far
    LAST_MEMORY,  # which one the last one reached, as its data path
) = range(35)
HEADER_WORDS = 40

# Words of a block's row (128 bytes: two cache lines of the host). Index 0 is never a block: nothing
# has run yet, or the core came from elsewhere (reset, exception).
(
    ADDRESS,
    SIZE,
    CODE_AT,
    CHECKED_EPOCH,
    EDGE_A,  # the edge over which it was left last
    EDGE_B,  # and the one before that
    END_KIND,
    CODE_PATH,  # row of PATHS; 0: not in memory
    FETCH,  # stalls by cause
    DATA,
    BRANCH,
    DIVIDE,
    ALIGNMENT,
    BUS,
    OVERLAPS,  # bit k: access k goes out with the data of the access before it, if from one memory
) = range(15)
STALL_CAUSES = (FETCH, DATA, BRANCH, DIVIDE, ALIGNMENT, BUS)
BLOCK_WORDS = 16
NO_BLOCK = 0

# How a block ends.
PLAIN, CONDITIONAL, DIRECT, INDIRECT_END = range(4)

# Words of an edge.
SOURCE, TARGET, COUNT = range(3)
EDGE_WORDS = 4

# Words of a memory region.
ORIGIN, END, HOST, IS_RAM = range(4)
REGION_WORDS = 4

# Words of a path: what an access to a region costs on one side of the core. Region r has its code
# path in row 2 * r + 2 and its data path in the row after that. Row 0 and 1: no memory.
(
    CACHE,  # 0: none
    HIT,
    FILL,
    SEQUENTIAL,
    WRITE_HIT,
    WRITE_MISS,
    EVICT,
    ACTIVE,  # 0: costs nothing, is not looked at
    LAST_LINE,
    HITS,  # how often
    FILLS,
    SEQUENTIALS,
    IS_PLAIN,  # of a data path: 0 no memory, READ_ONLY flash, WRITABLE RAM
) = range(13)
PATH_WORDS = 16
READ_ONLY, WRITABLE = 1, 2

# Words of a cache.
LINE_SHIFT, SET_MASK, WAYS, IS_RANDOM, WRITE_ALLOCATE, FIRST_LINE, TICK, RANDOM = range(8)
CACHE_WORDS = 8
# Words of a cache line.
TAG, STAMP, DIRTY = range(3)  # tag: line number + 1, 0 is empty
LINE_WORDS = 4
HINT_COUNT = 4096  # where a line was seen last, by its lower bits

# Words of a predictor's entry.
BRANCH_OF, COUNTER, GOES_TO = range(3)
PREDICTOR_WORDS = 4

ONE_CYCLE = 256
MAX_BLOCKS = 1 << 17  # an 1 MiB flash holds fewer blocks; code that keeps rewriting itself does not
MAX_EDGES = 1 << 18
BLOCK_SLOT_COUNT = 1 << 19
EDGE_SLOT_COUNT = 1 << 20
MAX_CODE_BYTES = 1 << 23
MAX_REGIONS = 16
MAX_CACHES = 8
MAX_LINES = 1 << 12
MAX_PREDICTORS = 1 << 10
PAGE_SHIFT = 12
PAGE_COUNT = 1 << 20
DIVIDE_BITS = 33  # of a dividend's magnitude
DIVISOR_BITS = 34  # of a divisor, behind its sign: 0 is 0 only, 33 is -1
MAX_OVERLAPS = 63
_WRITE = 17  # UC_MEM_WRITE


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, source: Any) -> Any:
    """An integer as a pointer, for carray."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(source), generate


@intrinsic  # type: ignore[untyped-decorator]
def _ask(typing_context: Any, function: Any, argument: Any) -> Any:
    """Calls the C function at this address: int64 to int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])

    return types.int64(function, argument), generate


@njit(inline="always")  # type: ignore[untyped-decorator]
def _array(header: Any, word: Any, shape: Any) -> Any:
    return carray(_pointer(header[word]), shape, np.int64)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _region_of(header: Any, address: Any) -> Any:
    """Number of the region that holds an address, or -1."""
    regions = _array(header, REGIONS, (MAX_REGIONS, REGION_WORDS))
    for r in range(header[REGION_COUNT]):
        if regions[r, ORIGIN] <= address and address < regions[r, END]:
            return r
    return -1


@njit  # type: ignore[untyped-decorator]
def _is_same(header: Any, row: Any) -> Any:
    """Whether memory still holds the bytes of a block."""
    if row[CHECKED_EPOCH] == header[FLASH_EPOCH]:
        return True
    r = _region_of(header, row[ADDRESS])
    if r < 0:
        return False
    regions = _array(header, REGIONS, (MAX_REGIONS, REGION_WORDS))
    at = regions[r, HOST] + row[ADDRESS] - regions[r, ORIGIN]
    now = carray(_pointer(at), MAX_CODE_BYTES, np.uint8)
    code = carray(_pointer(header[CODE]), MAX_CODE_BYTES, np.uint8)
    for i in range(row[SIZE]):
        if now[i] != code[row[CODE_AT] + i]:
            return False
    if regions[r, IS_RAM] == 0:
        row[CHECKED_EPOCH] = header[FLASH_EPOCH]
    return True


@njit(inline="always")  # type: ignore[untyped-decorator]
def _half(code: Any, at: Any) -> Any:
    return np.int64(code[at]) | np.int64(code[at + 1]) << 8


@njit  # type: ignore[untyped-decorator]
def _end_kind(code: Any, start: Any, size: Any) -> Any:
    """How the block in code[start : start + size] ends, from its last instruction.

    Encodings: Armv7-M Architecture Reference Manual, A5.2 (16 bits) and A5.3.4 (branches).
    """
    at, first, second = 0, 0, 0
    while at < size:
        first = _half(code, start + at)
        is_wide = first >> 11 >= 0b11101 and at + 2 < size
        second = _half(code, start + at + 2) if is_wide else -1
        at += 4 if is_wide else 2
    if second < 0:
        if first >> 12 == 0b1101 and first >> 9 & 7 != 7:  # B<c>, not UDF and SVC
            return CONDITIONAL
        if first & 0xF500 == 0xB100:  # CBZ, CBNZ
            return CONDITIONAL
        if first >> 11 == 0b11100:  # B
            return DIRECT
        if first & 0xFF00 == 0x4700 or first & 0xFF00 == 0xBD00:  # BX, BLX; POP with pc
            return INDIRECT_END
        if first & 0xFC87 == 0x4487 and first & 0x0300 != 0x0100:  # ADD, MOV to pc
            return INDIRECT_END
        return PLAIN
    if first >> 11 == 0b11110 and second >> 15 == 1:
        if second & 0x5000 == 0x0000:
            return CONDITIONAL if first >> 7 & 7 != 7 else PLAIN  # B<c>.W; else MSR, hints
        return DIRECT  # B.W, BL
    if first & 0xFFF0 == 0xE8D0 and second & 0xFFE0 == 0xF000:  # TBB, TBH
        return INDIRECT_END
    if first & 0xFFD0 == 0xE890 or first & 0xFFD0 == 0xE910:  # LDMIA, LDMDB
        return INDIRECT_END if second >> 15 == 1 else PLAIN
    if first & 0xFF70 == 0xF850 and second >> 12 == 15:  # LDR to pc
        return INDIRECT_END
    return PLAIN


@njit  # type: ignore[untyped-decorator]
def _add_block(header: Any, address: Any, size: Any) -> Any:
    """A row for a block that has not run before; NO_BLOCK when the table is full."""
    blocks = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))
    code = carray(_pointer(header[CODE]), MAX_CODE_BYTES, np.uint8)
    index, code_at = header[BLOCKS_USED], header[CODE_USED]
    if index >= MAX_BLOCKS or code_at + size > MAX_CODE_BYTES:
        header[OVERFLOW] = 1
        return NO_BLOCK
    header[BLOCKS_USED] = index + 1
    header[CODE_USED] = code_at + size
    row = blocks[index]
    row[:] = 0
    row[ADDRESS], row[SIZE], row[CODE_AT] = address, size, code_at
    r = _region_of(header, address)
    if r >= 0:
        regions = _array(header, REGIONS, (MAX_REGIONS, REGION_WORDS))
        at = regions[r, HOST] + address - regions[r, ORIGIN]
        now = carray(_pointer(at), MAX_CODE_BYTES, np.uint8)
        for i in range(size):
            code[code_at + i] = now[i]
        if regions[r, IS_RAM] == 0:
            row[CHECKED_EPOCH] = header[FLASH_EPOCH]
        row[CODE_PATH] = 2 * r + 2
        row[END_KIND] = _end_kind(code, code_at, size)
    row[OVERLAPS] = _ask(header[NEW_BLOCK], index)
    return index


@njit  # type: ignore[untyped-decorator]
def _find_block(header: Any, address: Any, size: Any) -> Any:
    blocks = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))
    slots = carray(_pointer(header[BLOCK_SLOTS]), BLOCK_SLOT_COUNT, np.int32)
    slot = (address >> 1) * 0x9E3779B1 + size
    while True:
        slot &= BLOCK_SLOT_COUNT - 1
        index = slots[slot]
        if index == NO_BLOCK:
            break
        row = blocks[index]
        if row[ADDRESS] == address and row[SIZE] == size and _is_same(header, row):
            return np.int64(index)
        slot += 1
    added = _add_block(header, address, size)
    slots[slot] = added
    return added


@njit  # type: ignore[untyped-decorator]
def _find_edge(header: Any, source: Any, address: Any, size: Any) -> Any:
    """The edge from a block to the one with these bytes; 0 when a table is full."""
    target = _find_block(header, address, size)
    edges = _array(header, EDGES, (MAX_EDGES, EDGE_WORDS))
    slots = carray(_pointer(header[EDGE_SLOTS]), EDGE_SLOT_COUNT, np.int32)
    slot = source * 0x9E3779B1 + target * 0x85EBCA6B
    while True:
        slot &= EDGE_SLOT_COUNT - 1
        index = np.int64(slots[slot])
        if index == 0:
            break
        if edges[index, SOURCE] == source and edges[index, TARGET] == target:
            return index
        slot += 1
    index = header[EDGES_USED]
    if index >= MAX_EDGES or target == NO_BLOCK:
        header[OVERFLOW] = 1
        return np.int64(0)
    header[EDGES_USED] = index + 1
    slots[slot] = index
    edges[index, SOURCE], edges[index, TARGET], edges[index, COUNT] = source, target, 0
    return index


@njit(inline="always")  # type: ignore[untyped-decorator]
def _leads_to(header: Any, blocks: Any, edges: Any, edge: Any, address: Any, size: Any) -> Any:
    if edge == 0:
        return False
    row = blocks[edges[edge, TARGET]]
    return row[ADDRESS] == address and row[SIZE] == size and _is_same(header, row)


@njit  # type: ignore[untyped-decorator]
def _predict(header: Any, row: Any, address: Any) -> Any:
    """Cycles lost because the branch at the end of this block was not foreseen to go here."""
    kind = row[END_KIND]
    behind = row[ADDRESS] + row[SIZE]
    branch = behind - 2
    table = _array(header, PREDICTORS, (MAX_PREDICTORS, PREDICTOR_WORDS))
    entry = table[branch >> 1 & header[PREDICTOR_COUNT] - 1]
    known = entry[BRANCH_OF] == branch
    taken = address != behind or kind != CONDITIONAL
    if kind == CONDITIONAL:
        lost = header[MISPREDICT] if (known and entry[COUNTER] >= 2) != taken else 0
        if known:
            entry[COUNTER] = min(entry[COUNTER] + 1, 3) if taken else max(entry[COUNTER] - 1, 0)
            return lost
    elif kind == DIRECT:
        lost = 0 if known else header[UNKNOWN]
    else:
        lost = 0 if known and entry[GOES_TO] == address else header[INDIRECT]
    if taken:
        entry[BRANCH_OF], entry[COUNTER], entry[GOES_TO] = branch, 2, address
    return lost


@njit  # type: ignore[untyped-decorator]
def _access(header: Any, path: Any, address: Any, is_write: Any) -> Any:
    """Stall of one access over an active path, and what it does to the cache."""
    number = path[CACHE]
    if number == 0:
        path[HITS] += 1
        return path[WRITE_HIT] if is_write else path[HIT]
    cache = _array(header, CACHES, (MAX_CACHES, CACHE_WORDS))[number]
    lines = _array(header, LINES, (MAX_CACHES * MAX_LINES, LINE_WORDS))
    hints = carray(_pointer(header[HINTS]), (MAX_CACHES, HINT_COUNT), np.int32)
    line = address >> cache[LINE_SHIFT]
    follows = line == path[LAST_LINE] + 1
    path[LAST_LINE] = line
    cache[TICK] += 1
    hint = hints[number, line & HINT_COUNT - 1]
    found = np.int64(hint)
    if lines[found, TAG] != line + 1:
        first = cache[FIRST_LINE] + (line & cache[SET_MASK]) * cache[WAYS]
        found = np.int64(-1)
        for way in range(cache[WAYS]):
            if lines[first + way, TAG] == line + 1:
                found = first + way
                break
    if found >= 0:
        row = lines[found]
        row[STAMP] = cache[TICK]
        hints[number, line & HINT_COUNT - 1] = found
        path[HITS] += 1
        if is_write:
            row[DIRTY] = 1
            return path[WRITE_HIT]
        return path[HIT]
    if is_write:
        stall = path[WRITE_MISS]
        if cache[WRITE_ALLOCATE] == 0:
            return stall
    elif follows:
        path[SEQUENTIALS] += 1
        stall = path[SEQUENTIAL]
    else:
        path[FILLS] += 1
        stall = path[FILL]
    first = cache[FIRST_LINE] + (line & cache[SET_MASK]) * cache[WAYS]
    victim = first
    if cache[IS_RANDOM] != 0:
        cache[RANDOM] = cache[RANDOM] * 1103515245 + 12345 & 0x7FFFFFFF
        victim = first + (cache[RANDOM] >> 16) % cache[WAYS]
    for way in range(cache[WAYS]):
        if lines[first + way, TAG] == 0:
            victim = first + way
            break
        if cache[IS_RANDOM] == 0 and lines[first + way, STAMP] < lines[victim, STAMP]:
            victim = first + way
    row = lines[victim]
    if row[DIRTY] != 0:
        stall += path[EVICT]
    row[TAG], row[STAMP], row[DIRTY] = line + 1, cache[TICK], 1 if is_write else 0
    hints[number, line & HINT_COUNT - 1] = victim
    return stall


_ON_BLOCK = types.void(types.voidptr, types.uint64, types.uint32, types.voidptr)


@cfunc(_ON_BLOCK, cache=True)  # type: ignore[untyped-decorator]
def on_block(engine: Any, start: Any, length: Any, user: Any) -> None:
    """Unicorn enters a block."""
    header = carray(user, HEADER_WORDS, np.int64)
    blocks = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))
    edges = _array(header, EDGES, (MAX_EDGES, EDGE_WORDS))
    address, size = np.int64(start), np.int64(length)
    carray(_pointer(header[KEEPS_PC]), 1, np.uint8)[0] = 1
    source = header[CURRENT]
    left = blocks[source]
    edge = left[EDGE_A]
    if not _leads_to(header, blocks, edges, edge, address, size):
        edge = left[EDGE_B]
        if not _leads_to(header, blocks, edges, edge, address, size):
            edge = _find_edge(header, source, address, size)
        left[EDGE_B] = left[EDGE_A]
        left[EDGE_A] = edge
    edges[edge, COUNT] += 1
    target = edges[edge, TARGET]
    header[CURRENT], header[CURRENT_EDGE], header[ACCESSES] = target, edge, 0
    if header[QUIET] != 0:
        header[QUIET] = 0
        return
    if header[PREDICTOR_COUNT] != 0 and left[END_KIND] != PLAIN:
        lost = _predict(header, left, address)
        left[BRANCH] += lost
        header[STALLED] += lost
    row = blocks[target]
    path = _array(header, PATHS, (2 * MAX_REGIONS + 2, PATH_WORDS))[row[CODE_PATH]]
    if path[ACTIVE] != 0:
        caches = _array(header, CACHES, (MAX_CACHES, CACHE_WORDS))
        step = np.int64(1) << caches[path[CACHE], LINE_SHIFT]
        stall = np.int64(0)
        at = address & -step
        while at < address + size:
            stall += _access(header, path, at, False)
            at += step
        row[FETCH] += stall
        header[STALLED] += stall


_ON_ACCESS = types.void(
    types.voidptr, types.int32, types.uint64, types.int32, types.int64, types.voidptr
)


@cfunc(_ON_ACCESS, cache=True)  # type: ignore[untyped-decorator]
def on_access(engine: Any, kind: Any, start: Any, length: Any, value: Any, user: Any) -> None:
    """The core loads or stores."""
    header = carray(user, HEADER_WORDS, np.int64)
    carray(_pointer(header[IT_STATE]), 1, np.uint32)[0] = 0
    address, size = np.int64(start), np.int64(length)
    is_write = kind == _WRITE
    if address & size - 1:
        tables = _array(header, UNALIGNED, (2, 4, 8))
        extra = tables[1 if is_write else 0, (size >> 1) - (size >> 3), address & 7]
        if extra != 0:
            row = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))[header[CURRENT]]
            row[ALIGNMENT] += extra
            header[STALLED] += extra
    pages = carray(_pointer(header[PAGES]), PAGE_COUNT, np.uint8)
    reached = np.int64(pages[address >> PAGE_SHIFT & PAGE_COUNT - 1])
    if header[HAS_BUSES] != 0:
        number = header[ACCESSES]
        header[ACCESSES] = number + 1
        if reached != header[LAST_MEMORY]:
            header[LAST_MEMORY] = reached
            row = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))[header[CURRENT]]
            if number < MAX_OVERLAPS and row[OVERLAPS] >> number & 1:
                row[BUS] += ONE_CYCLE
                header[STALLED] += ONE_CYCLE
    path = _array(header, PATHS, (2 * MAX_REGIONS + 2, PATH_WORDS))[reached]
    if path[IS_PLAIN] == 0 or (is_write and path[IS_PLAIN] == READ_ONLY):
        carray(_pointer(header[KEEPS_PC]), 1, np.uint8)[0] = 0
    if path[ACTIVE] == 0:
        return
    stall = _access(header, path, address, is_write)
    if stall != 0:
        row = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))[header[CURRENT]]
        row[DATA] += stall
        header[STALLED] += stall


@njit  # type: ignore[untyped-decorator]
def _bits(value: Any) -> Any:
    """Bit length of a value that is not negative."""
    count = 0
    while value != 0:
        value >>= 1
        count += 1
    return count


_ON_DIVIDE = types.void(types.voidptr, types.uint64, types.uint32, types.voidptr)


@cfunc(_ON_DIVIDE, cache=True)  # type: ignore[untyped-decorator]
def on_divide(engine: Any, start: Any, length: Any, user: Any) -> None:
    """The core is about to execute an SDIV or a UDIV (Armv7-M ARM, A7.7.127 and A7.7.195)."""
    header = carray(user, HEADER_WORDS, np.int64)
    blocks = _array(header, BLOCKS, (MAX_BLOCKS, BLOCK_WORDS))
    row = blocks[header[CURRENT]]
    code = carray(_pointer(header[CODE]), MAX_CODE_BYTES, np.uint8)
    at = row[CODE_AT] + np.int64(start) - row[ADDRESS]
    if at < row[CODE_AT] or at + 4 > row[CODE_AT] + row[SIZE]:
        return
    is_unsigned = _half(code, at) & 0x20 != 0
    first, second = _half(code, at) & 0xF, _half(code, at + 2) & 0xF
    registers = carray(_pointer(header[REGISTERS]), 16, np.uint32)
    dividend, divisor = np.int64(registers[first]), np.int64(registers[second])
    bits = _bits(divisor)
    if not is_unsigned:
        dividend = 0x100000000 - dividend if dividend >> 31 else dividend
        if divisor >> 31:
            bits = _bits(0xFFFFFFFF - divisor) if divisor != 0xFFFFFFFF else DIVISOR_BITS - 1
    table = _array(header, DIVIDES, (2, DIVIDE_BITS, DIVISOR_BITS))
    extra = table[0 if is_unsigned else 1, _bits(dividend), bits]
    row[DIVIDE] += extra
    header[STALLED] += extra
