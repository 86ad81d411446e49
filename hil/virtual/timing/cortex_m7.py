"""Cortex-M7: in-order issue of up to two instructions a cycle.

A scoreboard in the order of the program. `cortex_m7_units` says which units an instruction uses,
where it reads its operands and what makes its results; this file lets it issue: as the younger one
of a pair if its partner leaves it the units it needs and all its operands are ready, otherwise in
the first cycle in which they are. The state behind a block is all of this that still matters,
relative to the block's end: blocks chain as if they were one.

Instructions come from a prefetch queue of four doublewords, into which one aligned doubleword a
cycle is fetched (TRM DDI 0489, prefetch unit). A predicted branch redirects the fetch without a
gap, so it costs nothing unless its target begins late in a doubleword or the queue has run dry;
with instructions in the queue it forms a pair with the one at its target (jnk0le: measured).
Branches do not wait for their condition; mispredictions, which `core.predictor` describes, are
counted while the program runs.

Not modelled: a full store buffer (five unaligned stores, or many of bytes and halfwords: jnk0le),
and that STM wants a stack aligned to 8 bytes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from hil.virtual.timing import ALIGNED_ONLY, BlockTiming, CoreTiming, Predictor, Stall
from hil.virtual.timing import cortex_m7_units as units
from hil.virtual.timing.armv7m import Instruction
from hil.virtual.timing.cortex_m7_units import LATENCIES, Demand, demand

QUEUED = 3  # doublewords in the queue behind the one being issued: it holds 4 (TRM)
AFTER_MAC_CYCLES = 3  # jnk0le: in these cycles the FPU restricts what follows a MAC
STORE_TO_LOAD = (
    4  # a load of what was just stored (LLVM, ARMLatencyMutations), or beside it (SLOTHY)
)
_LONGEST_BY = tuple(max(row) for row in LATENCIES)
_LONGEST = max(_LONGEST_BY)
_BY_STORE = -1  # what a load waits for that reads what was just stored
_LOADED = {units.BY_WORD_LOAD, units.BY_PART_LOAD, units.BY_FP_LOAD}


class State(NamedTuple):
    """What is under way at the end of a block; cycles are negative, -1 the last one."""

    open_to: int | None  # what the last instruction blocks for a younger partner; None: no pair
    queued: int  # doublewords fetched behind the one the next instruction is in
    made: tuple[tuple[str, int, int], ...]  # register, cycle, what made it
    stored: tuple[tuple[str, int, int], ...]  # base register, doubleword, cycle


_EMPTY = State(None, 0, (), ())


class CortexM7:
    """The model described above."""

    name = "cortex-m7"
    version = 2
    core: CoreTiming

    def pass_block(
        self, block: Sequence[Instruction], before: Hashable | None, taken: bool
    ) -> BlockTiming:
        """See TimingModel.pass_block."""
        state = before if isinstance(before, State) else _EMPTY
        passage = _Passage(state, taken or before is None)
        for instruction in block:
            passage.issue(instruction, demand(instruction))
        return passage.timing()


class _Passage:
    """One passage of a block; cycle 0 is the first one that the block before has not paid for."""

    def __init__(self, state: State, jumped: bool) -> None:
        self.open_to, self.queued = state.open_to, state.queued
        self.made = {register: (cycle, by) for register, cycle, by in state.made}
        self.stored = {(base, number): cycle for base, number, cycle in state.stored}
        self.entered = self.jumped = jumped  # the next instruction is in a doubleword to be fetched
        self.now = -1  # last cycle in which something was issued
        self.entry_cycles = 0
        self.cycles: list[int] = []
        self.stalls: list[Stall] = []

    def issue(self, instruction: Instruction, wants: Demand) -> None:
        """Lets the next instruction of the block issue."""
        ready, made_by, read_at = self._operands_ready(wants)
        fetches = self._fetches(instruction)
        before = self.now
        paired = ready <= before and fetches <= self.queued and self._may_pair(wants)
        if paired:
            cycle = before
        else:
            fetched = before + max(1, fetches - self.queued)
            cycle = max(fetched, ready)
            if cycle > before + 1:
                cause = "fetch" if fetched >= ready else _cause(made_by, read_at)
                self._waited(cycle - before - 1, cause)
        self.queued = min(QUEUED, self.queued + cycle - before) - fetches
        self._complete(wants, cycle, paired)
        if wants.cycles > 1:
            self.queued = min(QUEUED, self.queued + wants.cycles - 1)
        self.now = cycle + wants.cycles - 1
        self.cycles.append(self.now - before)

    def timing(self) -> BlockTiming:
        """What the passage cost."""
        cycles = self.cycles
        if self.entry_cycles:
            cycles = [cycles[0] - self.entry_cycles, *cycles[1:]]
        return BlockTiming(self.entry_cycles, tuple(cycles), tuple(self.stalls), self._state())

    def _operands_ready(self, wants: Demand) -> tuple[int, int, int]:
        """First cycle in which all operands are there; what made and where is read the last one."""
        latest = made_by = read_at = -_LONGEST
        for register, column in wants.needs:
            made = self.made.get(register)
            if made is not None:
                ready = made[0] + LATENCIES[made[1]][column]
                if ready > latest:
                    latest, made_by, read_at = ready, made[1], column
        if wants.loads in self.stored:
            ready = self.stored[wants.loads] + STORE_TO_LOAD
            if ready > latest:
                latest, made_by, read_at = ready, _BY_STORE, units.LATE
        return latest, made_by, read_at

    def _may_pair(self, wants: Demand) -> bool:
        """Whether the instruction before leaves it a place and the units it needs."""
        if self.open_to is None or wants.alone or self.open_to & wants.uses:
            return False
        if self.open_to & units.EX2_SHIFTER and wants.uses & units.SHIFT:
            return self._is_early(wants, self.now, paired=True)
        return True

    def _fetches(self, instruction: Instruction) -> int:
        """Doublewords that must be fetched before this instruction can issue."""
        offset = instruction.address & 7
        fetches = 1 if self.jumped or offset == 0 else 0
        self.jumped = False
        return fetches + (offset + instruction.size_bytes > 8)

    def _waited(self, cycles: int, cause: str) -> None:
        if cause == "fetch" and self.entered and not self.cycles:
            self.entry_cycles = cycles
        else:
            self.stalls.append(Stall(len(self.cycles), cause, cycles))

    def _complete(self, wants: Demand, cycle: int, paired: bool) -> None:
        """Notes the results of an instruction that issues in `cycle`."""
        last_mac = self.made.get("fpmac", (-_LONGEST, 0))[0]
        early = self._is_early(wants, cycle, paired)
        for register, by, later in wants.makes:
            if early and register != "flags":
                by = units.BY_EARLY_ALU
            self.made[register] = (cycle + later, by)
        if self.stored:
            for register, _, _ in wants.makes:
                for address in [a for a in self.stored if a[0] == register]:
                    del self.stored[address]
        if wants.stores is not None:
            self.stored[wants.stores] = cycle
        self.open_to = None if paired or wants.alone else wants.blocks
        if self.open_to is not None:
            if 1 <= cycle - last_mac <= AFTER_MAC_CYCLES:
                self.open_to |= wants.after_mac
            if wants.uses & units.SHIFT and not early:
                self.open_to |= units.EX2_SHIFTER

    def _is_early(self, wants: Demand, cycle: int, paired: bool) -> bool:
        """Whether an ALU operation goes through the early ALU."""
        if wants.early == units.NOT_EARLY:
            return False
        if paired and (
            wants.early == units.EARLY_AS_OLDER or (self.open_to or 0) & units.EX1_SHIFTER
        ):
            return False
        for register, _ in wants.needs:
            made = self.made.get(register)
            if made is not None and made[0] + LATENCIES[made[1]][units.EARLY_ALU] > cycle:
                return False
        return True

    def _state(self) -> State:
        now = self.now + 1
        made = sorted(
            (register, cycle - now, by)
            for register, (cycle, by) in self.made.items()
            if cycle + _LONGEST_BY[by] >= now
        )
        stored = sorted(
            (base, number, cycle - now)
            for (base, number), cycle in self.stored.items()
            if cycle + STORE_TO_LOAD >= now
        )
        return State(self.open_to, self.queued, tuple(made), tuple(stored))


def _cause(made_by: int, read_at: int) -> str:
    if read_at in (units.BASE, units.INDEX):
        return "address"
    if made_by == _BY_STORE:
        return "store-to-load"
    if made_by in _LOADED:
        return "load-use"
    return "unit" if read_at in (units.AFTER_MAC, units.AFTER_MLA) else "result"


def divide_cycles(dividend: int, divisor: int, signed: bool) -> int:
    """Cycles of SDIV and UDIV, a function of the operands' bit lengths.

    Estimate: two bits of the quotient a cycle behind a constant part. No measurement is published;
    the constant is GCC's figure (4), and LLVM's and SLOTHY's typical 7 is a quotient of 6 bits.
    """
    if signed:
        dividend, divisor = abs(dividend), abs(divisor)
    if not divisor or not dividend:
        return units.DIVIDE_CYCLES_LEAST
    quotient_bits = max(0, dividend.bit_length() - divisor.bit_length() + 1)
    return units.DIVIDE_CYCLES_LEAST + (quotient_bits + 1) // 2


# jnk0le: an unaligned load takes 3 more cycles (4 as the younger one of a pair), by whatever
# amount; an unaligned store waits in the store buffer. LDRD and LDM must be aligned to words.
_UNALIGNED_READ = (
    (0,) * 8,
    (0, 3) * 4,
    (0, 3, 3, 3) * 2,
    (0,) * 8,
)

# jnk0le measures 8 cycles for a loop that is mispredicted when entered and when left, 6 if the
# flags were set three cycles before the branch: 4 and 3 for one misprediction. His AES functions
# agree (3), and LLVM ("4 works better"). The TRM knows a branch target cache and no return stack;
# its size is an estimate: with fewer entries those functions, and CoreMark, lose cycles to branches
# in the same entry that the chips do not lose. So are the costs of indirect branches, and of direct
# ones met for the first time (found while decoding).
CortexM7.core = CoreTiming(
    unaligned_read=_UNALIGNED_READ,
    unaligned_write=ALIGNED_ONLY,
    divide_cycles=divide_cycles,
    predictor=Predictor(entries=256, mispredict_cycles=4, indirect_cycles=5, unknown_cycles=3),
)

MODEL = CortexM7()
