"""The native side: caches against a plain model of one, unaligned accesses, divides, branches."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as with_fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import Uc, unicorn_const

from hil.board import get_board
from hil.board_timing import Timing
from hil.virtual import native
from hil.virtual.blocks import BlockCounter, CacheShape, PathCosts
from hil.virtual.cpu import Cpu
from hil.virtual.image import load_elf
from hil.virtual.memory import MemoryMap
from hil.virtual.program import MemoryConsole
from hil.virtual.timing import ALIGNED_ONLY, CoreTiming, Predictor
from hil.virtual.timing.cortex_m7 import CortexM7

DISCO = with_fields(get_board("stm32f746g_disco"), timing=Timing())
SRAM = 0x2001_0000
COSTS = PathCosts(cache=1, hit=0.5, fill=10, sequential=4.25, write_hit=0.25, write_miss=3, evict=7)
READ, WRITE = unicorn_const.UC_MEM_READ, unicorn_const.UC_MEM_WRITE


@dataclass
class PlainCache:
    """The same cache, written as one reads about it: a list of lines for each set, oldest first."""

    shape: CacheShape
    costs: PathCosts
    sets: list[list[tuple[int, bool]]] = field(default_factory=list)
    last: int = -1

    def __post_init__(self) -> None:
        self.sets = [[] for _ in range(self.shape.lines // self.shape.ways)]

    def access(self, address: int, is_write: bool) -> float:
        line = address // self.shape.line_bytes
        follows, self.last = line == self.last + 1, line
        held = self.sets[line % len(self.sets)]
        for entry in held:
            if entry[0] == line:
                held.remove(entry)
                held.append((line, entry[1] or is_write))
                return self.costs.write_hit if is_write else self.costs.hit
        if is_write and not self.shape.write_allocate:
            return self.costs.write_miss
        stall = self.costs.write_miss
        if not is_write:
            stall = self.costs.sequential if follows else self.costs.fill
        if len(held) == self.shape.ways:
            stall += self.costs.evict if held.pop(0)[1] else 0
        held.append((line, is_write))
        return stall


def counter_of(core: CoreTiming) -> BlockCounter:
    engine = Uc(
        unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
    )
    return BlockCounter(engine, MemoryMap(DISCO), "cortex-m7", core)


COUNTER = counter_of(CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, lambda dividend, divisor, signed: 2))
REGION = next(i for i, r in enumerate(MemoryMap(DISCO).regions) if r.memory.name == "sram1")


def access(counter: BlockCounter, address: int, size: int, is_write: bool) -> None:
    kind = WRITE if is_write else READ
    native.on_access.ctypes(None, kind, address, size, 0, counter._header.ctypes.data)


@settings(max_examples=200, deadline=None)
@given(
    line_bytes=st.sampled_from([8, 16, 32]),
    set_bits=st.integers(0, 3),
    ways=st.integers(1, 5),
    write_allocate=st.booleans(),
    accesses=st.lists(st.tuples(st.integers(0, 1023), st.booleans()), max_size=200),
)
def test_a_cache_does_what_a_plain_model_does(line_bytes, set_bits, ways, write_allocate, accesses):
    shape = CacheShape(line_bytes, ways << set_bits, ways, "lru", write_allocate)
    COUNTER.reset()
    COUNTER.set_cache(1, shape)
    COUNTER.set_path(REGION, "data", COSTS)
    plain = PlainCache(shape, COSTS)

    expected = 0.0
    for offset, is_write in accesses:
        expected += plain.access(SRAM + offset, is_write)
        access(COUNTER, SRAM + offset, 1, is_write)

    assert COUNTER.stalled_cycles == int(expected)


def test_a_random_cache_is_the_same_each_time_and_never_worse_than_its_size():
    shape = CacheShape(32, 128, 4, "random")
    stalls = []
    for _ in range(2):
        COUNTER.reset()
        COUNTER.set_cache(1, shape)
        COUNTER.set_path(REGION, "data", PathCosts(cache=1, fill=1, sequential=1))
        for _ in range(3):
            for offset in range(0, 8192, 32):
                access(COUNTER, SRAM + offset, 4, False)
        stalls.append(COUNTER.stalled_cycles)

    assert stalls[0] == stalls[1]
    # 256 lines through 128 places: least recently used would miss each time, random sometimes hits
    assert 256 + 2 * 128 <= stalls[0] < 3 * 256


def test_a_path_counts_its_accesses():
    COUNTER.reset()
    COUNTER.set_cache(1, CacheShape(32, 4, 4))
    COUNTER.set_path(REGION, "data", COSTS)
    for offset in (0, 4, 32, 96, 0):
        access(COUNTER, SRAM + offset, 4, False)

    assert COUNTER.path_counts(REGION, "data") == (2, 2, 1)


def test_an_uncached_path_costs_each_time():
    COUNTER.reset()
    COUNTER.set_path(REGION, "data", PathCosts(hit=6, write_hit=2.5))
    for is_write in (False, True, True, False):
        access(COUNTER, SRAM, 4, is_write)

    assert COUNTER.stalled_cycles == 17


def test_unaligned_accesses_cost_what_the_core_says():
    """A word at an odd address takes three accesses: 8, 16, 8 bits."""
    table = ((0,) * 8, (0, 1) * 4, (0, 2, 1, 2) * 2, (0,) * 8)
    counter = counter_of(CoreTiming(table, ALIGNED_ONLY, lambda *_: 2))
    for address, size in ((1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (4, 4), (3, 4)):
        access(counter, 0x2000_0000 + address, size, False)
        access(counter, 0x2000_0000 + address, size, True)

    assert counter.stalled_cycles == 0 + 1 + 0 + 2 + 1 + 0 + 2


class Model(CortexM7):
    """The pipeline of the Cortex-M7 with other tables."""

    def __init__(self, core: CoreTiming) -> None:
        self.core = core


def _cpu(monkeypatch: pytest.MonkeyPatch, core: CoreTiming) -> Cpu:
    monkeypatch.setattr("hil.virtual.cpu.timing_model", lambda name: Model(core))
    return Cpu(DISCO, MemoryConsole())


def _run(cpu: Cpu, elf: bytes) -> None:
    cpu.load(load_elf(elf, cpu.memory))
    assert cpu.run().reason == "exit"


@pytest.mark.parametrize(
    ("divide", "dividend", "divisor", "cycles"),
    [
        ("udiv", "0", "1", 1),
        ("udiv", "0xffffffff", "1", 32 * 40 + 1),
        ("udiv", "0x80000000", "0xff", 32 * 40 + 8),
        ("sdiv", "-1", "-8", 1 * 40 + 3),  # -8 is 000 behind its leading ones
        ("sdiv", "5", "-1", 3 * 40 + 39),
        ("sdiv", "0x80000000", "3", 32 * 40 + 2),
        ("udiv", "7", "0", 3 * 40),
    ],
)
def test_a_divide_is_priced_by_the_bits_of_its_operands(
    monkeypatch, assemble, divide, dividend, divisor, cycles
):
    def price(a: int, b: int, signed: bool) -> int:
        assert a >= 0 and (b >= 0 or (signed and b == -1))
        return 40 * a.bit_length() + (39 if b == -1 else b.bit_length())

    cpu = _cpu(monkeypatch, CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, price))
    text = f"start: ldr r4, ={dividend}\nldr r5, ={divisor}\n{divide} r6, r4, r5\nEXIT"
    _run(cpu, assemble(DISCO, text).read_bytes())

    assert sum(block.divide for block in cpu.stalls()) == pytest.approx(cycles, abs=1)


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        # 100 times around: unknown at first, then taken, and wrong once at the end
        ("ldr r4, =100\n1: subs r4, #1\nbne 1b", 10 + 10),
        # never taken: foreseen without an entry
        ("movs r4, #0\ncmp r4, #0\nbne start", 0),
        # a direct branch is unknown once
        ("ldr r4, =3\n1: b 2f\n.balign 64\n2: subs r4, #1\nbne 1b", 1 + 10 + 10),
        # a return to one place, four times, then to another
        (
            "ldr r4, =4\n1: bl f\nsubs r4, #1\nbne 1b\nbl f\nb 3f\n.balign 64\nf: bx lr\n3:",
            # bl, bx, bne taken, bne at the end, the other bl, bx to elsewhere, b
            1 + 100 + 10 + 10 + 1 + 100 + 1,
        ),
    ],
)
def test_branches_that_are_not_foreseen_cost(monkeypatch, assemble, body, lost):
    predictor = Predictor(64, mispredict_cycles=10, indirect_cycles=100, unknown_cycles=1)
    core = CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, lambda *_: 2, predictor)
    cpu = _cpu(monkeypatch, core)
    _run(cpu, assemble(DISCO, f"start: {body}\nmovs r0, #0\nEXIT").read_bytes())

    assert sum(block.branch for block in cpu.stalls()) == lost


def test_an_access_inside_an_it_block_leaves_the_next_block_alone(assemble):
    """Unicorn restores the IT state with the program counter of an access."""
    text = """start: ldr r4, =0x20008000
    movs r0, #0
    movs r5, #50
    1: cmp r5, #25
    ite hi
    ldrhi r6, [r4]
    strls r5, [r4]
    adds r0, #1
    subs r5, #1
    bne 1b
    EXIT"""
    cpu = Cpu(DISCO, MemoryConsole())
    cpu.load(load_elf(assemble(DISCO, text).read_bytes(), cpu.memory))

    assert cpu.run().exit_code == 50


@pytest.mark.parametrize("other", ["0x08001000", "0x20038000"])  # flash, another RAM
@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [("r4", "r4", 0), ("r5", "r5", 0), ("r4", "r5", 1), ("r5", "r4", 1)],
)
def test_loads_from_two_memories_do_not_overlap_on_the_m4(assemble, other, first, second, waits):
    board = with_fields(get_board("nucleo_l4r5zi"), timing=Timing())
    text = f"""start: ldr r4, =0x20008000
    ldr r5, ={other}
    nop
    ldr r0, [{first}]
    ldr r1, [{second}, #4]
    movs r0, #0
    EXIT"""
    cpu = Cpu(board, MemoryConsole())
    _run(cpu, assemble(board, text).read_bytes())

    assert sum(block.bus for block in cpu.stalls()) == waits


def test_a_divide_in_code_that_the_program_copied_is_priced(monkeypatch, assemble):
    """By its operands, 20 bits each; from the first time on, which finds it."""
    core = CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, lambda a, b, signed: a.bit_length())
    cpu = _cpu(monkeypatch, core)
    text = """start: ldr r4, =code
    ldr r5, =0x20008000
    ldm r4, {r0-r3}
    stm r5, {r0-r3}
    dsb
    isb
    movs r6, #5
    ldr r4, =0xfffff
    1: adds r0, r5, #1
    blx r0
    subs r6, #1
    bne 1b
    movs r0, #0
    EXIT
    .balign 4
    code: udiv r7, r4, r6
    bx lr
    nop
    nop
    nop
    nop"""
    _run(cpu, assemble(DISCO, text).read_bytes())

    assert sum(block.divide for block in cpu.stalls()) == 5 * 20
