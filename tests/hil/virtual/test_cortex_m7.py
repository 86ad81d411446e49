"""The Cortex-M7's pipeline: each rule with its measured figure, and what must hold for any code.

The table holds cycles of one copy of a sequence among many. Who measured them (in full in
cortex_m7_units.py): J jnk0le, Q quinapalus, F community.arm.com 9930, Z A. Zonenberg; L is LLVM.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.virtual.timing import CoreTiming, model_id
from hil.virtual.timing.armv7m import CLASS_OF, decode
from hil.virtual.timing.cortex_m7 import MODEL, divide_cycles

START = 0x1000

RULES = [
    ("nop.w; nop.w", 1),  # J: two NOPs are a pair
    ("eor.w r3,r4,r5; eor.w r6,r7,r8", 1),  # Q: two independent ALU operations are a pair
    ("eor.w r3,r3,r4", 1),  # J: ALU results that the next one needs
    ("adc.w r3,r4,r5; adc.w r6,r7,r8", 1),  # Q: two that read the carry are a pair
    ("adcs.w r3,r4,r5; adcs.w r6,r7,r8", 2),  # Q: carry from one to the next
    ("movw r3,#1; movt r3,#2", 1),  # J: MOVW and MOVT of one register are a pair
    (
        "add.w r3,r4,#1; eor.w r5,r3,r6",
        1,
    ),  # J: ADD in the early ALU, its result in the same cycle in the late one
    (
        "add.w r3,r3,r4; eor.w r6,r3,r6,ror #22; ldr.w r7,[r1,r3]; nop.w",
        2,
    ),  # J: ADD as the older one of a pair, address of the next cycle
    (
        "and.w r3,r3,r4; nop.w; ldr.w r5,[r1,r3]; nop.w",
        3,
    ),  # J L: AND (late ALU), address two cycles later
    ("add.w r3,r4,r5,ror #24; add.w r6,r7,r8,ror #24", 2),  # J Z: two shifted operands are no pair
    (
        "add.w r3,r4,r5,ror #24; lsr.w r6,r7,#3",
        1,
    ),  # J: shifted operand and, as the younger, a shift are a pair
    ("lsr.w r3,r4,#12; ror.w r5,r6,r7", 1),  # J: two shifts are a pair
    ("add.w r3,r4,#1; eor.w r5,r6,#255", 1),  # J: two constants of a byte are a pair
    (
        "eor.w r3,r4,#0x1b1b1b1b; eor.w r5,r6,#0x1b001b",
        1,
    ),  # J: two patterns of bytes as constants are a pair
    (
        "eor.w r3,r4,#0x1fc0; eor.w r5,r6,#0x1fc0",
        2,
    ),  # J Z: two shifted bytes as constants are no pair
    (
        "eor.w r3,r4,#0x1fc0; eor.w r5,r6,r7,ror #3",
        2,
    ),  # J: shifted byte as constant, shifted operand: no pair
    ("eor.w r3,r4,r3,ror #3", 2),  # J Z: the shifted operand is needed one cycle early
    ("eor.w r3,r3,r4,ror #3", 1),  # J: the operand beside a shifted one is not
    ("uxtb.w r3,r4; sxth.w r5,r6", 2),  # J: two extensions are no pair
    (
        "uxtb.w r3,r4; eor.w r5,r6,r7",
        1,
    ),  # J Z: extension and, as the younger, an ALU operation are a pair
    ("uadd8 r3,r4,r5; eor.w r6,r7,r8", 1),  # J Z: SIMD as the older of a pair
    ("uadd8 r3,r4,r5; sadd16 r6,r7,r8", 2),  # J: two SIMD operations are no pair
    ("uxtb.w r3,r4; eor.w r5,r6,r7,ror #16", 1),  # J: extension and shifted operand are a pair
    (
        "bfi r3,r4,#8,#8; eor.w r5,r6,r7,ror #16",
        2,
    ),  # J: bit field insertion and shifted operand are no pair
    ("uxtb.w r3,r3; nop.w; ldr.w r4,[r1,r3]; nop.w", 3),  # J: extension, address two cycles later
    ("ubfx r3,r3,#0,#31", 2),  # J: bit field extraction needs its source one cycle early
    ("rev.w r3,r3", 2),  # J: REV needs its source one cycle early
    ("rev.w r3,r4; eor.w r5,r3,r6", 1),  # J: REV forwards in the same cycle to the late ALU
    ("mul r3,r4,r5", 1),  # Q: independent multiplications, one a cycle
    ("mul r3,r4,r5; mul r6,r7,r8", 2),  # J Q: two multiplications are no pair
    ("umull r3,r4,r5,r6", 1),  # Q: 64-bit products, one a cycle
    ("umull r3,r4,r5,r6; eor.w r7,r8,r9", 1),  # Q: a long product and an ALU operation are a pair
    ("mul r3,r3,r4", 2),  # J Q: a product as factor of the next
    ("mul r3,r3,r4; eor.w r3,r3,r5", 3),  # J: a product in the ALU
    ("mla r3,r4,r5,r3", 1),  # J Q: an accumulator in the next MLA
    ("umlal r3,r4,r5,r6", 1),  # Q: a 64-bit accumulator in the next UMLAL
    ("smlad r3,r4,r5,r3", 1),  # J: an accumulator in the next SMLAD
    ("umaal r3,r4,r5,r6", 1),  # J: UMAAL into UMAAL
    (
        "uxtb.w r3,r4; smlabb r5,r6,r7,r5",
        1,
    ),  # J: extension and, as the younger, a halfword product are a pair
    ("mul r3,r4,r5; str.w r6,[r1]", 2),  # J: multiplication and store are no pair
    ("eor.w r3,r4,r5; mla r6,r7,r8,r3", 1),  # J: an ALU result as addend in the same cycle
    ("ldr.w r3,[r1]", 1),  # Q: a load
    ("ldr.w r3,[r1]; ldr.w r4,[r1,#8]", 2),  # J Q: two loads from one bank
    ("ldr.w r3,[r1]; ldr.w r4,[r1,#4]", 1),  # J: two loads from both banks are a pair
    ("ldr.w r3,[r1]; eor.w r4,r5,r6", 1),  # Q: load and ALU operation are a pair
    ("ldr.w r3,[r1]; mul r4,r5,r6", 1),  # Q: load and multiplication are a pair
    ("ldr.w r3,[r1]; eor.w r4,r3,r5", 1),  # J: a loaded word in the ALU, one cycle later
    ("ldrb.w r3,[r1]; eor.w r4,r3,r5", 2),  # J: a loaded byte in the ALU, two cycles later
    ("ldr.w r3,[r1]; mul r4,r3,r5", 2),  # J L: a loaded word in a multiplication, two cycles later
    (
        "ldr.w r3,[r1]; eor.w r4,r3,r5,ror #3",
        2,
    ),  # J L: a loaded word beside a shifted operand, two cycles later
    ("ldrb.w r3,[r1]; mla r4,r5,r6,r3", 1),  # J: a loaded byte as addend, one cycle later
    ("ldr.w r3,[r3]", 3),  # Q: a loaded word as base of the next load
    ("ldr.w r3,[r1,r3]", 3),  # Q L: a loaded word as index of the next load
    ("ldr.w r3,[r4],#4", 1),  # J: an address written back, used by the next load
    ("ldrd r3,r4,[r1]", 1),  # J: LDRD
    ("ldrd r3,r4,[r1]; eor.w r5,r6,r7", 2),  # J: LDRD and another instruction are no pair
    ("ldm r1,{r3-r6}", 2),  # J: LDM of 4
    ("ldm r1,{r3-r7}", 3),  # J: LDM of 5
    ("stm r1,{r3-r6}", 2),  # J: STM of 4, aligned to 8 bytes
    ("str.w r3,[r1]; str.w r4,[r1,#4]", 2),  # J: two stores are no pair
    ("str.w r3,[r1]; ldr.w r4,[r1,#68]", 1),  # J: store and load are a pair
    ("ldr.w r3,[r1]; str.w r3,[r1,#68]", 1),  # J: a loaded word stored in the same cycle
    ("beq.w 1f; 1: nop.w", 1),  # J: a branch that is not taken and the next instruction are a pair
    ("it eq; ldmeq r1,{r3-r6}", 3),  # J: a skipped LDM takes as long as an executed one
    ("vadd.f32 s0,s1,s2", 1),  # J Q: additions, one a cycle
    ("vadd.f32 s0,s0,s1", 3),  # J Q: sum in the next addition
    ("vmul.f32 s0,s0,s1", 3),  # J Q: product in the next multiplication
    ("vmul.f32 s0,s1,s2; vadd.f32 s3,s4,s5", 2),  # J F: multiplication and addition are no pair
    ("vadd.f32 s0,s1,s2; eor.w r3,r4,r5", 1),  # J: addition and integer operation are a pair
    ("vfma.f32 s0,s1,s2", 3),  # J Q: accumulator in the next VFMA
    ("vmla.f32 s0,s1,s2", 3),  # J Q: accumulator in the next VMLA
    (
        "vfma.f32 s0,s1,s2; vfma.f32 s3,s4,s5; vfma.f32 s6,s7,s8",
        3,
    ),  # J: three accumulators: one VFMA a cycle
    ("vfma.f32 s0,s1,s2; vmul.f32 s2,s0,s3", 8),  # J Q: result of VFMA as a factor
    ("vmla.f32 s0,s1,s2; vmul.f32 s2,s0,s3", 9),  # J Q: result of VMLA as a factor
    ("vfma.f32 s0,s1,s2; vadd.f32 s3,s4,s5", 5),  # J F: an addition after VFMA waits
    ("vldr s0,[r1]; vadd.f32 s1,s2,s3", 1),  # J: load and addition are a pair
    (
        "vldr s0,[r1]; vfma.f32 s3,s4,s5; vldr s1,[r1]; vfma.f32 s6,s7,s8; vldr s2,[r1]; "
        "vfma.f32 s9,s10,s11",
        6,
    ),  # J F: load and VFMA are no pair
    ("vldr s0,[r1]; vadd.f32 s1,s0,s2", 1),  # J: a loaded value in an addition, one cycle later
    ("vmov s0,r3; vmov r3,s0", 4),  # J: VMOV to a core register and back
    ("vmov.f32 s0,s1; vmov.f32 s1,s0", 6),  # J: VMOV between FPU registers
    ("vdiv.f32 s0,s1,s2; eor.w r3,r4,r5", 16),  # J: VDIV and an integer operation
    ("vsqrt.f32 s0,s1", 14),  # J: VSQRT
]


@pytest.fixture(scope="module")
def assembled(machine_code):
    """Instructions of an assembler text."""

    @cache
    def instructions(text, core="cortex-m7"):
        return tuple(decode(machine_code(f".balign 8;{text}", core), START, core))

    return instructions


def passed(block, before=None, taken=False):
    return MODEL.pass_block(block, before, taken)


def cycles_of_a_loop(block, times=40):
    """Mean cycles of a turn, the first ones left out."""
    state, totals = None, []
    for turn in range(times):
        timing = passed(block, state, taken=turn > 0)
        state = timing.after
        totals.append(timing.total)
    return sum(totals[10:]) / (times - 10)


@pytest.mark.parametrize(("text", "cycles"), RULES, ids=[text for text, _ in RULES])
def test_a_sequence_takes_the_measured_cycles(assembled, text, cycles):
    few, many = (passed(assembled("; ".join([text] * copies))).total for copies in (4, 24))

    assert (many - few) / 20 == cycles


@pytest.mark.parametrize(
    ("first", "second", "cycles"),
    [
        ("eor.w r3, r4, r5", "eor.w r6, r7, r8", 1),  # a pair over the edge
        ("mul r3, r4, r5", "eor.w r6, r3, r7", 3),  # a latency over the edge
        ("str.w r3, [r1]", "ldr.w r4, [r1]", 5),  # L: a load of what was just stored
        ("str.w r3, [r1]", "ldr.w r4, [r1, #4]", 5),  # SLOTHY: or from beside it
        ("str.w r3, [r1]", "ldr.w r4, [r1, #8]", 1),
        ("str.w r3, [r1], #8", "ldr.w r4, [r1]", 2),  # another address
    ],
)
def test_blocks_chain_as_if_they_were_one(assembled, first, second, cycles):
    both = assembled(f"{first}\n{second}")
    before = passed(both[:1])

    assert before.total + passed(both[1:], before.after).total == cycles == passed(both).total


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("nop.w\n" * 39 + "b.w .", 20),  # J: 20 pairs, the branch with its predecessor
        ("nop.w\n" * 38 + "b.w .", 20),  # J: no pair over the branch without two narrow ones
        ("nop.n\nnop.n\n" + "nop.w\n" * 36 + "b.w .", 19.5),  # J: with them it is one
    ],
)
def test_a_predicted_branch_pairs_with_its_target_if_the_queue_is_ahead(assembled, text, cycles):
    assert cycles_of_a_loop(assembled(text)) == cycles


def test_a_branch_to_the_end_of_a_doubleword_waits_for_the_next_one(assembled):
    """TRM: 64 bits are fetched in a cycle."""
    wide = assembled("nop.w\nnop.w\nnop.w")
    misplaced = [replace(i, address=i.address + 6) for i in wide]
    before = passed(assembled("nop.w\nb.w ."))

    timing = passed(misplaced, before.after, taken=True)

    assert timing.entry_cycles == 1
    assert passed(wide, before.after, taken=True).entry_cycles == 0


def test_waiting_has_a_cause(assembled):
    block = assembled("ldrb.w r3, [r1]\neor.w r4, r3, r5\nmul r4, r4, r4\neor.w r4, r4, r5")

    causes = [(s.number, s.cause, s.cycles) for s in passed(block).stalls]

    assert causes == [(1, "load-use", 1), (3, "result", 1)]


def test_of_two_shifts_one_needs_its_operand_early(assembled):
    """L: one shifter in EX1, one in EX2."""
    pair, late = "lsr.w r3, r3, #2\nlsr.w r4, r4, #2", "eor.w r3, r3, r5\neor.w r4, r4, r5\n"

    assert passed(assembled(pair)).total == 1
    assert passed(assembled(late + pair)).total == 3


def test_addresses_are_needed_early(assembled):
    block = assembled("and.w r3, r4, r5\nldr.w r6, [r3]\nldr.w r6, [r6]")

    assert [s.cause for s in passed(block).stalls] == ["address", "address"]


def test_a_conditional_result_is_late_outside_of_its_condition(assembled):
    """L: one cycle more than within the IT block."""
    inside = assembled("itt eq\neoreq r3, r4\neoreq r3, r5")
    outside = assembled("it eq\neoreq r3, r4\neor.w r3, r3, r5")

    assert passed(outside).total == passed(inside).total + 1


def test_a_register_list_arrives_two_registers_a_cycle(assembled):
    early = assembled("ldm r1, {r3-r8}\nubfx r9, r3, #0, #8")
    late = assembled("ldm r1, {r3-r8}\nubfx r9, r8, #0, #8")

    assert passed(late).total == passed(early).total + 1


def test_the_operands_of_a_division_decide_its_cycles():
    assert divide_cycles(1, 2, False) == 4 == divide_cycles(5, 0, True)
    assert divide_cycles(100, 3, False) == 7  # L
    assert divide_cycles(0xFFFFFFFF, 1, False) == 20
    assert divide_cycles(-100, 3, True) == divide_cycles(100, -3, True) == 7


def test_data_for_the_native_side():
    core = MODEL.core

    assert isinstance(core, CoreTiming) and model_id(MODEL) == "cortex-m7/2"
    assert core.unaligned_read[2] == (0, 3, 3, 3, 0, 3, 3, 3)  # J
    assert core.unaligned_read[0] == (0,) * 8 == core.unaligned_write[2]
    assert core.predictor is not None and core.predictor.mispredict_cycles == 4  # J


def test_every_class_of_instructions_passes(assembled):
    block = assembled(
        """
        add r0, r1, r2; lsl.w r0, r1, #1; rev r0, r1; mla r0, r1, r2, r3; udiv r0, r1, r2
        ldrh r0, [r1]; strh r0, [r1]; ldrd r0, r1, [r2]; strd r0, r1, [r2]; ldm r0, {r1, r2}
        stm r0!, {r1, r2}; nop; dmb; dsb; isb; mrs r0, ipsr; msr primask, r0; cpsid i
        vabs.f32 s0, s1; vmls.f32 s0, s1, s2; vsqrt.f32 s0, s1; vldr s0, [r0]; vstr s0, [r0]
        vpop {s0-s3}; vpush {s0-s3}; vmrs r0, fpscr; vcmp.f32 s0, s1; vmrs apsr_nzcv, fpscr
        vmov r0, r1, d0; vmov d0, r0, r1; vldr d0, [r0]; vseleq.f32 s0, s1, s2
        ldrex r0, [r1]; strex r0, r1, [r2]; usada8 r0, r1, r2, r3; qadd r0, r1, r2
        it eq; moveq r0, r0; pld [r0]; rrx r0, r1; sel r0, r1, r2; bfc r0, #1, #2; wfi
        vcvt.s32.f32 s0, s1; vmov.f32 s0, #1.0; ldr r0, [pc, #4]; pop {r0, pc}; ldr pc, [r0]
        bl .; tbh [pc, r0, lsl #1]
        """.replace("\n", ";").strip(" ;")
    )

    timing = passed(block)

    assert {i.kind for i in block} == set(CLASS_OF.values())
    assert len(timing.cycles) == len(block) and min(timing.cycles) >= 0


POOL = """
add.w r3, r4, r5; sub.w r4, r3, #1; eor.w r5, r3, r4, ror #3; lsrs r6, r5, #2; uxtb.w r4, r6
add r3, r4; mul r5, r3, r4; mla r6, r5, r4, r6; umlal r3, r4, r5, r6; ubfx r5, r6, #2, #3; nop
ldr.w r3, [r1]; ldr.w r4, [r1, #4]; ldr.w r5, [r1, r3]; ldrb.w r6, [r4], #1; str.w r3, [r1, #8]
ldr r6, [r1, #8]; ldrd r3, r4, [r1]; ldm r1, {r3-r6}; strh r5, [r4, #2]!; adcs r3, r5; beq.w .+8
vadd.f32 s0, s1, s2; vfma.f32 s3, s0, s1; vmla.f32 s3, s0, s1; vldr s1, [r1]; vstr s3, [r1, #8]
vmov r3, s3; vmov s2, r4; vmul.f32 s2, s0, s3; vdiv.f32 s1, s2, s0; rev.w r3, r3; movw r3, #5
"""
programs = st.lists(st.integers(0, 32), min_size=1, max_size=24)


def program(assembled, choices):
    """Instructions of the pool in the order of `choices`, one behind the other."""
    pool = assembled(POOL.replace("\n", ";").strip("; "))
    address, block = START, []
    for choice in choices:
        block.append(replace(pool[choice], address=address))
        address += block[-1].size_bytes
    return block


@settings(deadline=None)
@given(choices=programs, cut=st.integers(1, 23))
def test_cutting_a_block_anywhere_changes_nothing(assembled, choices, cut):
    block = program(assembled, choices)
    cut = min(cut, len(block))
    whole, front = passed(block), passed(block[:cut])

    assert whole.cycles[:cut] == front.cycles
    if cut < len(block):
        back = passed(block[cut:], front.after)
        assert whole.cycles == front.cycles + back.cycles
        assert whole.after == back.after


@settings(deadline=None)
@given(choices=programs)
def test_no_more_than_two_instructions_a_cycle(assembled, choices):
    block = program(assembled, choices)
    timing = passed(block)

    assert 2 * timing.total >= len(block)
    assert all(cycles >= 0 for cycles in timing.cycles)
    assert all(s.cycles <= timing.cycles[s.number] for s in timing.stalls)
    hash(timing.after)


def test_timing_does_not_depend_on_the_order_of_sets():
    """The same in processes that hash strings otherwise."""
    script = (
        "from hil.virtual.timing.armv7m import decode\n"
        "from hil.virtual.timing.cortex_m7 import MODEL\n"
        "code = bytes.fromhex('03fb0454835803eb35040cbc20b3')\n"
        "print(MODEL.pass_block(list(decode(code, 0, 'any')), None, False))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(told) == 1
