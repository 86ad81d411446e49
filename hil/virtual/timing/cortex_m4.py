"""Cortex-M4: a scoreboard of its three stages, one instruction at a time.

Fetch, decode and execute are modelled as far as they can make an instruction wait; all times are
the cycle in which an instruction enters execute. Memory has no wait states here: those are added by
hil/virtual/native.py, as are the operands' part of a divide and unaligned accesses.

Sources, by the letter that stands beside each rule:

[T] Cortex-M4 Technical Reference Manual, Arm DDI 0439 = 100166, tables 3-1 and 7-1, section 3.3.2
    "Load/store timings"; republished by TI in SWCU185 and SWCU192.
[K] Arm knowledge article ka8521: three words of prefetch buffer, filled by aligned words.
[G] GCC's pipeline descriptions cortex-m4.md and cortex-m4-fpu.md (figures).
[J] J. Oleksiewicz, github.com/jnk0le/random, pipeline cycle test: measured on an STM32F407.
[C] compendium.i-0.nl: measured on an STM32 with a Cortex-M4; division, branches, FPU moves.
[M] CMEmu (github.com/mimuw-distributed-systems-group/cmemu): a cycle-exact model of the Cortex-M3
    and timings recorded on a CC2650 (Cortex-M3, also from code RAM without wait states) and a
    CC2652 (Cortex-M4, from flash and SRAM). Of 16,773 recorded sequences in code RAM without stores
    and long multiplies these rules give 99 % to the cycle.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

from hil.virtual.timing import ALIGNED_ONLY, BlockTiming, CoreTiming, Stall
from hil.virtual.timing.armv7m import Instruction

# Class of instruction -> cycles in execute; multiple transfers add one for each register [T].
_CYCLES = {
    "alu": 1,
    "shift": 1,
    "simd": 1,
    "mac": 1,  # the long multiplies and MLA, too
    "divide": 2,  # the least; `divide_cycles` has what the operands add
    "load": 2,
    "store": 1,  # its data phase lies behind the write buffer; with a register offset 2 [G, J]
    "load_pair": 3,
    "store_pair": 3,
    "load_multiple": 1,
    "store_multiple": 1,
    "branch": 1,
    "table_branch": 3,  # load and add: 6 with the refill [T]
    "it": 1,
    "nop": 1,
    "barrier": 1,  # 1 + B with B = 0: nothing outstanding
    "system": 2,  # table 3-1 says 1 or 2 for CPS, MRS and MSR: estimate
    "fp": 1,  # a VMOV of two core registers 2 [C]
    "fp_mac": 1,  # and the FPU is busy
    "fp_divide": 1,  # and the FPU is busy
    "fp_load": 2,
    "fp_store": 1,  # as the integer ones [G]
    "fp_load_multiple": 1,
    "fp_store_multiple": 1,
    "fp_system": 1,
}
# How long the FPU takes; integer instructions go on meanwhile [T; G for multiply-accumulate].
_FPU_CYCLES = {"fp_mac": 3, "fp_divide": 14}
# Arithmetic and conversions: whoever needs the result next waits one cycle more [T].
_FPU_LATE = {"vadd", "vsub", "vmul", "vnmul", "vcvt", "vcvtr", "vcvtb", "vcvtt"}

# When the first word of a branch's target can be executed. A fetch has an address and a data
# cycle, then the instruction is decoded; P of [T] is what remains of that behind the branch.
_FETCH_TO_EXECUTE = 3
_REFILL_BEHIND_LOAD = 3  # LDR, POP, LDM, ADD to the program counter, TBB [T, M]

_ACCESS = {
    "load": "load",
    "fp_load": "load",
    "store": "store",
    "fp_store": "store",
    "load_pair": "loads",
    "load_multiple": "loads",
    "fp_load_multiple": "loads",
    "table_branch": "loads",
    "store_pair": "stores",
    "store_multiple": "stores",
    "fp_store_multiple": "stores",
}
_NONE: frozenset[str] = frozenset()

# Extra cycles of a load, [log2 of its bytes][address modulo 8]: an unaligned one is split into
# aligned ones [T]. Those of a store lie behind the write buffer.
_SPLIT = ((0,) * 8, (0, 1) * 4, (0, 2, 1, 2) * 2, (0, 2, 1, 2) * 2)


class Left(NamedTuple):
    """What an instruction leaves for its successor, whatever came before it."""

    overlaps: bool = False  # a single load: the address of the next access goes out with its data
    loaded: frozenset[str] = _NONE  # but not an address that needs one of these
    stored: bool = False  # a store's data phase is under way: a load has to wait for it
    late: frozenset[str] = _NONE  # registers that no address can be formed with yet
    held: bool = False  # took several cycles: the prefetcher did not look past it
    foldable: bool = False  # an IT behind it costs nothing
    links: bool = False  # wrote LR: BX LR does not go ahead
    multiplied: bool = False  # MULS: its flags are late for a conditional branch


class Pipeline(NamedTuple):
    """The pipeline behind an instruction; times count from its end.

    Its end is the cycle in which a successor that needs nothing of it can execute.
    """

    words: tuple[int, int, int] = (0, 1, 2)  # when the next three words of code can be executed
    started: int = -1  # when it entered execute
    target: tuple[int, int] = (0, 1)  # when the first words of its target can, if it branches
    fpu_free: int = 0
    fpu_late: frozenset[str] = _NONE  # results of the FPU that are there a cycle after fpu_free
    left: Left = Left()


EMPTY = Pipeline()


class Step(NamedTuple):
    """What of an instruction matters for its timing."""

    cycles: int
    access: str  # "load", "store" (single: they overlap), "loads", "stores", or none
    addresses: frozenset[str]
    fpu_needs: frozenset[str] | None  # FPU registers it reads first; None: not for the FPU
    fpu_cycles: int
    fpu_late: frozenset[str]
    branch: str  # where its target is known: "decode", "link" (LR), "execute", "load", or none
    speculates: bool  # B<cond>: its target is fetched before it is known to be taken
    folds: bool  # IT
    vanishes: bool  # NOP
    flushes: bool  # ISB
    left: Left


class CortexM4:
    """The model."""

    name = "cortex-m4"
    version = 2

    @property
    def core(self) -> CoreTiming:
        """See CoreTiming."""
        return CoreTiming(_SPLIT, ALIGNED_ONLY, divide_cycles, overlaps=overlaps)

    def pass_block(
        self, block: Sequence[Instruction], before: Hashable | None, taken: bool
    ) -> BlockTiming:
        """See TimingModel.pass_block."""
        pipe = before if isinstance(before, Pipeline) else EMPTY
        entry = 0
        if taken:
            entry = pipe.target[_words(block[0]) - 1]
            pipe = _refilled(pipe, entry)
        cycles: list[int] = []
        stalls: list[Stall] = []
        for number, instruction in enumerate(block):
            pipe, cost, waited, cause = _execute(instruction, pipe)
            cycles.append(cost)
            if waited:
                stalls.append(Stall(number, cause, waited))
        return BlockTiming(entry, tuple(cycles), tuple(stalls), pipe)


def overlaps(block: Sequence[Instruction]) -> int:
    """See CoreTiming: accesses to two memories do not overlap, on two buses or on one [J, M].

    What follows an access that may have been skipped cannot be numbered any more.
    """
    mask = number = 0
    left = Left()
    for instruction in block:
        step = _step(instruction)
        if step.access and instruction.conditional:
            break
        if left.overlaps and step.access in ("load", "store"):
            mask |= (not step.addresses & (left.loaded | left.late)) << number
        number += _accesses(instruction) if step.access else 0
        left = step.left
    return mask


def _accesses(instruction: Instruction) -> int:
    """How many accesses a load or store makes: those of pairs and multiples one for each word."""
    if instruction.kind in ("load_pair", "store_pair"):
        return 2
    return instruction.registers or 1


def divide_cycles(dividend: int, divisor: int, signed: bool) -> int:
    """Cycles of SDIV and UDIV, 2 to 12 [C]; exact on 9,512 recorded divisions of a CC2652 [M].

    2 when an operand is 0, 3 when the dividend has fewer bits than the divisor, else 5 and one more
    for each 4 bits that it has more. A negative dividend counts as its magnitude, a negative
    divisor has the bits behind its leading ones (-8 has 3, 8 has 4).
    """
    if dividend == 0 or divisor == 0:
        return 2
    if signed:
        dividend, divisor = abs(dividend), divisor if divisor > 0 else -1 - divisor
    more_bits = 0
    while dividend:
        dividend >>= 1
        more_bits += 1
    while divisor:
        divisor >>= 1
        more_bits -= 1
    return 3 if more_bits < 0 else min(5 + more_bits // 4, 12)


def _execute(instruction: Instruction, pipe: Pipeline) -> tuple[Pipeline, int, int, str]:
    """(pipeline behind it, its cycles, those of them that it waited, for what)."""
    step = _step(instruction)
    fetched = pipe.words[_words(instruction) - 1]
    if fetched < 0 and (
        (step.folds and pipe.left.foldable)  # decoded along with its predecessor [T, M]
        or (step.vanishes and pipe.left.overlaps)  # beside the load's data phase [J, M]
    ):
        left = pipe.left._replace(foldable=False, overlaps=False)
        return pipe._replace(words=_consumed(instruction, pipe, -1), left=left), 0, 0, ""

    earliest, start, cause = _start(step, pipe)
    if fetched > start:
        start, cause = fetched, "fetch"
    end = start + step.cycles

    words = _consumed(instruction, pipe, start)
    decoded = max(pipe.started, fetched - 1)
    if cause == "flags":
        decoded = start - 1
    if step.speculates:
        words = _delayed(words, decoded + _FETCH_TO_EXECUTE)
    elif step.flushes:
        words = _sequence(start + _FETCH_TO_EXECUTE)
    free, late = pipe.fpu_free, pipe.fpu_late
    if step.fpu_needs is not None:
        free, late = start + step.fpu_cycles, step.fpu_late
    elif free < end:  # a cycle behind fpu_free is over, too
        late = _NONE
    after = Pipeline(
        _clipped(words, end),
        max(start - end, -2),
        _target(step, pipe, decoded - end, start - end) if step.branch else (0, 1),
        max(free - end, 0),
        late,
        step.left,
    )
    return after, end, start - earliest, cause


def _start(step: Step, pipe: Pipeline) -> tuple[int, int, str]:
    """(earliest start without hazards, start, what it waits for) once it is fetched."""
    left = pipe.left
    earliest = start = 0
    cause = ""
    if step.access:
        if left.overlaps and step.access in ("load", "store"):
            earliest = start = -1
            if step.addresses & left.loaded:  # [T]
                start, cause = 0, "load-use"
        if left.stored and step.access in ("load", "loads"):  # nothing overlaps a store [T, J, M]
            start, cause = 1, "store"
        if step.addresses & left.late:  # not forwarded to the address adder [T]
            start, cause = 1, "address"
    elif step.speculates and left.multiplied:  # [M]
        start, cause = 1, "flags"
    if step.fpu_needs is not None:
        free = pipe.fpu_free + bool(pipe.fpu_late & step.fpu_needs)
        if free > start:
            start, cause = free, "result" if free > pipe.fpu_free else "fpu"
    return earliest, start, cause


def _target(step: Step, pipe: Pipeline, decoded: int, start: int) -> tuple[int, int]:
    """When the first two words of its target can be executed, if it branches."""
    if step.branch == "load":
        first = _REFILL_BEHIND_LOAD
    elif step.branch == "execute" or (step.branch == "link" and pipe.left.links):
        first = start + _FETCH_TO_EXECUTE
    else:  # a branch that waits in decode behind a longer instruction fetches meanwhile [M]
        first = decoded + _FETCH_TO_EXECUTE
    return max(first, 1), max(first + 1, 1)


# The prefetch buffer holds three words [K]. A word is requested when the one three places before
# it is used up: in the very cycle of that, unless a longer instruction is executing then [M].


def _words(instruction: Instruction) -> int:
    """Words of code that it lies in: 1 or 2."""
    return (instruction.address % 4 + instruction.size_bytes + 3) // 4


def _sequence(first: int) -> tuple[int, int, int]:
    return first, first + 1, first + 2


def _consumed(instruction: Instruction, pipe: Pipeline, start: int) -> tuple[int, int, int]:
    """The words behind an instruction that starts in this cycle."""
    if instruction.address % 4 + instruction.size_bytes < 4:
        return pipe.words
    _, second, third = pipe.words
    requested = start if pipe.left.held else start - 1
    return second, third, max(third + 1, requested + _FETCH_TO_EXECUTE)


def _delayed(words: tuple[int, int, int], slot: int) -> tuple[int, int, int]:
    """The words when the fetch that would have filled this slot went elsewhere."""
    delayed: list[int] = []
    for word in words:
        at = word + (word == slot)
        delayed.append(max(at, delayed[-1] + 1) if delayed and at > slot else at)
    return delayed[0], delayed[1], delayed[2]


def _clipped(words: tuple[int, int, int], end: int) -> tuple[int, int, int]:
    """Seen from `end`; when a word was fetched long ago does not matter."""
    first, second, third = words
    return max(first - end, -1), max(second - end, -1), max(third - end, -1)


def _refilled(pipe: Pipeline, entry: int) -> Pipeline:
    """The pipeline behind a taken branch whose target starts after so many cycles."""
    free = pipe.fpu_free - entry
    return Pipeline(
        _clipped((*pipe.target, pipe.target[1] + 1), entry),
        max(-1 - entry, -2),
        (0, 1),
        max(free, 0),
        pipe.fpu_late if free >= 0 else _NONE,
        pipe.left if entry == 0 else Left(),
    )


@lru_cache(maxsize=1 << 16)
def _step(instruction: Instruction) -> Step:
    kind, name = instruction.kind, instruction.name
    access = _ACCESS.get(kind, "")
    cycles = _CYCLES[kind] + instruction.registers
    if name.startswith("strex"):  # as a load [T]
        access, cycles = "load", 2
    elif kind == "store" and instruction.has_register_offset:
        cycles = 2
    elif kind in ("fp_load", "fp_store") and instruction.operands.startswith("d"):
        access, cycles = access + "s", 3
    core_registers = [r for r in instruction.reads | instruction.writes if r[0] != "s" or r == "sp"]
    if name == "vmov" and len(core_registers) == 2:
        cycles = 2
    fpu_needs = None
    if kind.startswith("fp"):
        fpu_needs = instruction.reads
        if kind == "fp_mac":  # the addend is read a cycle later [G]
            fpu_needs -= instruction.writes
    late = name in _FPU_LATE or kind in _FPU_CYCLES
    branch = _branch(instruction)
    return Step(
        cycles,
        access,
        instruction.addresses,
        fpu_needs,
        _FPU_CYCLES.get(kind, 1),
        instruction.writes if late else _NONE,
        branch,
        branch == "decode" and instruction.conditional,
        kind == "it",
        name == "nop",
        name == "isb",
        Left(
            overlaps=access == "load" and not instruction.writes & {"pc", "sp"},
            loaded=instruction.writes if access == "load" else _NONE,
            stored=access == "store" and cycles == 1,
            late=_late_for_addresses(instruction, access),
            held=cycles > 1 or bool(access) or bool(branch),
            foldable=_folds_an_it(instruction, access, branch),
            links="lr" in instruction.writes and not branch,
            multiplied=name == "mul" and instruction.size_bytes == 2,
        ),
    )


def _late_for_addresses(instruction: Instruction, access: str) -> frozenset[str]:
    """Registers that the address of the next access would have to wait for.

    What data processing writes, and the base that a single store updates, is not forwarded to the
    address adder [T]. A loaded register is, unless the load updates its base as well: then the last
    one it loads is late; every 16-bit LDM is of that kind [M].
    """
    if access not in ("load", "loads"):
        return instruction.writes if access != "stores" else _NONE
    updates = instruction.writes_base or instruction.name == "pop" or instruction.size_bytes == 2
    if not updates or (access == "load" and not instruction.writes_base):
        return _NONE
    if access == "load":
        return instruction.writes - instruction.addresses
    loaded = instruction.operands.split("[")[0].rstrip("}, ").replace("{", " ").split()
    return frozenset(loaded[-1:])


def _branch(instruction: Instruction) -> str:
    if instruction.kind == "table_branch":
        return "load"
    if instruction.writes_pc:
        if instruction.kind == "alu":
            if instruction.name != "mov":
                return "load"  # a sum: as late as loaded data [M]
            return "link" if instruction.operands == "pc, lr" else "execute"
        return "load"
    if instruction.kind != "branch":
        return ""
    if instruction.is_direct:
        return "execute" if instruction.name in ("cbz", "cbnz") else "decode"
    return "link" if instruction.operands == "lr" else "execute"


def _folds_an_it(instruction: Instruction, access: str, branch: str) -> bool:
    """Whether an IT behind it is decoded along with it [T, M]."""
    return (
        instruction.size_bytes == 2
        and not access
        and not branch
        and instruction.kind not in ("it", "system", "nop")
        and "sp" not in instruction.writes
    )


MODEL = CortexM4()
