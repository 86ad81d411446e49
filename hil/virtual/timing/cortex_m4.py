"""Cortex-M4: a plain table of instruction costs.

Sources: the Cortex-M4 TRM (Arm DDI 0439, tables 3-1 and 7-1 as TI republishes them in SWCU185 and
SWCU192) and the public measurements named below. Zero-wait-state memory: flash wait states and the
instruction cache are not modelled, neither is contention between literal loads and fetches. Where
the TRM gives a range the number taken is said beside it.

Rules beyond the table, all within one basic block:
* a load that directly follows another single load or store costs 1 instead of 2, unless its address
  needs that load's result;
* an address register written by the directly preceding ALU instruction costs 1 more;
* IT costs nothing when the preceding instruction is a 16-bit one (it is folded);
* a conditional instruction inside an IT block costs the same whether it is executed or skipped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hil.virtual.timing import ALIGNED_ONLY, BlockTiming, CoreTiming
from hil.virtual.timing.armv7m import Instruction

PIPELINE_REFILL = (
    2  # P of the TRM, 1 to 3 depending on alignment and width of the target: the middle
)

# Class of instruction -> cycles; multiple transfers add one for each register.
_CYCLES = {
    "alu": 1,
    "shift": 1,
    "simd": 1,
    "mac": 1,  # also the long multiplies: 1 on the M4 (they are 3 to 5 on the M3)
    "divide": 7,  # 2 to 12, ends early on small quotients: the middle
    "load": 2,
    "store": 1,  # through the write buffer
    "load_pair": 3,
    "store_pair": 3,
    "load_multiple": 1,
    "store_multiple": 1,
    "branch": 1,  # + PIPELINE_REFILL when taken
    "table_branch": 6,  # measured, compendium.i-0.nl; the TRM says 2 + P
    "it": 1,
    "nop": 1,
    "barrier": 1,  # 1 + B, B = outstanding writes: the write buffer is taken as empty
    "system": 2,
    "fp": 1,
    "fp_mac": 3,
    "fp_divide": 14,
    "fp_load": 2,
    "fp_store": 2,
    "fp_load_multiple": 1,
    "fp_store_multiple": 1,
    "fp_system": 1,
}
LOAD_PC_CYCLES = 5  # LDR to the program counter: at least 5, compendium.i-0.nl
_PIPELINED = {"load", "store"}


class CortexM4:
    """The table above, summed over a block."""

    name = "cortex-m4"
    version = 2
    core = CoreTiming(ALIGNED_ONLY, ALIGNED_ONLY, lambda dividend, divisor, signed: 7)

    def pass_block(
        self, block: Sequence[Instruction], before: Hashable | None, taken: bool
    ) -> BlockTiming:
        """See TimingModel.pass_block."""
        previous = before if isinstance(before, Instruction) else None
        cycles = []
        for instruction in block:
            cycles.append(_cost(instruction, previous))
            previous = instruction
        return BlockTiming(PIPELINE_REFILL if taken else 0, tuple(cycles), (), previous)


def _cost(instruction: Instruction, previous: Instruction | None) -> int:
    kind = instruction.kind
    cycles = _CYCLES[kind] + instruction.registers
    if kind == "load" and instruction.writes_pc:
        return LOAD_PC_CYCLES
    if previous is None:
        return cycles
    if kind == "it" and previous.size_bytes == 2:
        return 0
    needs_previous = bool(instruction.addresses & previous.writes)
    if kind == "load" and previous.kind in _PIPELINED and not needs_previous:
        return cycles - 1
    if needs_previous and previous.kind in ("alu", "shift", "simd", "mac"):
        return cycles + 1
    return cycles


MODEL = CortexM4()
