"""Cortex-M7: in-order issue of up to two instructions a cycle, as one plain rule.

Sources: LLVM's ARMScheduleM7.td, SLOTHY's cortex_m7.py (figures, no text), A. Zonenberg's and
quinapalus.com/cm7cycles.html measurements on STM32H7. Caches, TCM or flash wait states,
mispredictions and the store-to-load hazard are not modelled: every branch counts as predicted. A
block starts with an empty pipeline.

The rule: instructions issue in order. One waits until its operands are ready (latencies below). It
issues in the same cycle as the one before it when that one did not itself join another, it needs
nothing that the other writes, both do not write the same register, neither is of a class that
issues alone, and they do not both need the same unit: there is one shifter, one multiplier, one
store port, one branch unit, one FPU; SIMD instructions only go first; two word loads only when the
same base register and immediate offsets show that they are in different banks (bit 2 of the address
differs).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from hil.virtual.timing import ALIGNED_ONLY, BlockTiming, CoreTiming
from hil.virtual.timing.armv7m import Instruction

# Cycles until another instruction can use the result.
_LATENCY = {
    "alu": 1,
    "shift": 1,
    "simd": 1,
    "mac": 2,  # 1 into the accumulator of the next one
    "divide": 7,  # data dependent: SLOTHY's figure
    "load": 1,  # word load into an ALU; 2 for bytes and halfwords and into addresses
    "load_pair": 2,
    "load_multiple": 2,
    "fp": 3,
    "fp_mac": 3,  # 6, but the accumulator is read 3 cycles late
    "fp_divide": 16,
    "fp_load": 2,
    "fp_load_multiple": 2,
    "fp_system": 1,
}
# Issues alone and holds the issue stage for so many cycles; multiple transfers one for each two
# registers.
_ALONE = {
    "divide": 1,
    "load_pair": 1,
    "store_pair": 1,
    "load_multiple": 1,
    "store_multiple": 1,
    "table_branch": 6,  # a load and an indirect branch
    "it": 1,
    "barrier": 1,
    "system": 1,
    "fp_divide": 1,
    "fp_load_multiple": 1,
    "fp_store_multiple": 1,
    "fp_system": 1,
}
_UNIT = {
    "shift": "shifter",
    "mac": "multiplier",
    "simd": "simd",
    "store": "store",
    "branch": "branch",
    "fp": "fpu",
    "fp_mac": "fpu",
    "fp_load": "load",
    "fp_store": "store",
    "load": "load",
}
_WORD_LOAD = re.compile(r"^\w+, \[(\w+)(?:, #(-?(?:0x)?[0-9a-f]+))?\]$")
_ACCUMULATES = ("mla", "smla", "umla", "mls", "smml", "smls", "umaal", "usada8")


class CortexM7:
    """The rule above, applied to a block."""

    name = "cortex-m7"
    version = 2
    core = CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, lambda dividend, divisor, signed: 7)

    def pass_block(
        self, block: Sequence[Instruction], before: Hashable | None, taken: bool
    ) -> BlockTiming:
        """See TimingModel.pass_block; a taken branch costs nothing more: it was predicted."""
        costs = []
        ready: dict[str, tuple[int, Instruction]] = {}  # register -> (cycle, who writes it)
        cycle = 0  # first cycle in which the next instruction can issue
        partner: Instruction | None = None  # issued in cycle - 1 with its second slot free
        for instruction in block:
            begin = cycle
            start = max(
                [0] + [_ready(instruction, register, ready) for register in instruction.reads]
            )
            if partner is not None and start < cycle and _pairs(partner, instruction):
                issued, partner = cycle - 1, None
            else:
                issued = max(cycle, start)
                held = _ALONE.get(instruction.kind, 1) + instruction.registers // 2
                cycle = issued + held
                partner = None if instruction.kind in _ALONE else instruction
            for register in instruction.writes:
                ready[register] = (issued + _latency(instruction, register), instruction)
            costs.append(cycle - begin)
        return BlockTiming(0, tuple(costs), (), None)


def _latency(instruction: Instruction, register: str) -> int:
    if register == "flags" or register in instruction.addresses:  # flags and written-back addresses
        return 1
    if instruction.kind == "load" and instruction.name not in ("ldr", "ldrt", "ldrex"):
        return 2
    return _LATENCY.get(instruction.kind, 1)


def _ready(
    instruction: Instruction, register: str, ready: dict[str, tuple[int, Instruction]]
) -> int:
    """Cycle in which `instruction` may issue as far as this register is concerned."""
    if register not in ready:
        return 0
    cycle, writer = ready[register]
    if register in instruction.addresses and writer.kind in ("alu", "shift", "simd", "load"):
        return cycle + 1  # addresses are needed one stage earlier
    if writer.kind == "mac" and instruction.name.startswith(_ACCUMULATES):
        operands = [part.strip() for part in instruction.operands.split(",")]
        if register == operands[-1] or register in instruction.writes:
            return cycle - 1  # forwarded into the accumulator
    if instruction.kind == "shift" or _is_shifted(instruction):
        return cycle + 1 if writer.kind in ("alu", "shift", "load") else cycle
    return cycle


def _is_shifted(instruction: Instruction) -> bool:
    return (
        instruction.kind == "alu"
        and re.search(r"\b(lsl|lsr|asr|ror|rrx)\b", instruction.operands) is not None
    )


def _unit(instruction: Instruction) -> str | None:
    return "shifter" if _is_shifted(instruction) else _UNIT.get(instruction.kind)


def _pairs(first: Instruction, second: Instruction) -> bool:
    """Whether `second` can issue in the same cycle as `first`."""
    if second.kind in _ALONE or second.kind == "simd":
        return False
    if first.writes & (second.reads | second.writes) or first.kind == "branch":
        return False
    unit = _unit(first)
    if unit is None or unit != _unit(second):
        return True
    return unit == "load" and _in_different_banks(first, second)


def _in_different_banks(first: Instruction, second: Instruction) -> bool:
    matches = [_WORD_LOAD.match(i.operands) for i in (first, second) if i.name == "ldr"]
    if len(matches) < 2 or matches[0] is None or matches[1] is None:
        return False
    (base_a, offset_a), (base_b, offset_b) = matches[0].groups(), matches[1].groups()
    return base_a == base_b and (int(offset_a or "0", 0) ^ int(offset_b or "0", 0)) & 4 != 0


MODEL = CortexM7()
