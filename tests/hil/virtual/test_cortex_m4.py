"""The Cortex-M4's pipeline, rule by rule; figures of Arm DDI 0439 and of recorded hardware."""

from __future__ import annotations

import random

import pytest

from hil.virtual.timing import timing_model
from hil.virtual.timing.armv7m import decode
from hil.virtual.timing.cortex_m4 import divide_cycles

MODEL = timing_model("cortex-m4")


@pytest.fixture(scope="module")
def block(machine_code):
    """Instructions of a text, at an address."""

    def assembled(text, address=0):
        return tuple(decode(machine_code(text, MODEL.name), address, MODEL.name))

    return assembled


@pytest.fixture(scope="module")
def cycles(block):
    """Cycles of each instruction when fetch is well ahead."""
    before = MODEL.pass_block(block("udiv r8, r8, r8"), None, False).after

    def timed(text, address=4):
        return MODEL.pass_block(block(text, address), before, False).cycles

    return timed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adds r0, r1, r2", 1),
        ("add.w r0, r1, r2, lsl #3", 1),
        ("muls r0, r1, r0", 1),
        ("mla r0, r1, r2, r3", 1),
        ("umaal r0, r1, r2, r3", 1),
        ("smlad r0, r1, r2, r3", 1),
        ("sdiv r0, r1, r2", 2),
        ("ldr r0, [r1]", 2),
        ("ldrb r0, [r1, r2]", 2),
        ("ldr r0, [r1], #4", 2),
        ("str r0, [r1, #4]", 1),
        ("str r0, [r1], #4", 1),
        ("str r0, [r1, r2]", 2),
        ("ldrex r0, [r1]", 2),
        ("strex r0, r2, [r1]", 2),
        ("ldrd r0, r1, [r2]", 3),
        ("strd r0, r1, [r2]", 3),
        ("push {r4-r7, lr}", 6),
        ("ldm r0!, {r1-r4}", 5),
        ("stm r0!, {r1-r4}", 5),
        ("nop", 1),
        ("vadd.f32 s0, s1, s2", 1),
        ("vmov s0, r0", 1),
        ("vmov d0, r0, r1", 2),
        ("vldr s0, [r0]", 2),
        ("vldr d0, [r0]", 3),
        ("vldmia r0!, {s0-s7}", 9),
        ("vpush {d8-d9}", 5),
    ],
)
def test_one_instruction(cycles, text, expected):
    assert cycles(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "accesses"),
    [
        ("ldr r0, [r1]; ldr r2, [r3]; ldr r4, [r5]", [1, 2]),
        ("ldr r0, [r1]; ldr r2, [r0]; str r2, [r5]", [2]),  # an address that was loaded
        ("ldm r5, {r0-r3}; ldr r6, [r5]; str r7, [r5, #4]", [5]),
        ("ldrd r0, r1, [r5]; ldr r6, [r5]; adds r0, #1; ldr r7, [r5]", []),
        ("str r0, [r1]; ldr r2, [r3]", []),
        ("ldr r0, [r1]; nop; ldr r2, [r3]", []),
        ("ldr r0, [r1]; ldr r2, [r3]; it eq; ldreq r4, [r5]; ldr r6, [r7]; ldr r0, [r1]", [1]),
        ("adds r0, #1; bx lr", []),
    ],
)
def test_which_accesses_overlap(block, text, accesses):
    assert MODEL.core.overlaps(block(text)) == sum(1 << number for number in accesses)


@pytest.mark.parametrize(
    ("text", "total"),
    [  # the examples of DDI 0439, 3.3.2; a store's data phase lies under what follows
        ("ldr r0, [r1]; ldr r1, [r2]", 3),
        ("ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]", 4),
        ("ldr r0, [r1, r2]; str r1, [r3, r2]", 3),
        ("ldr r0, [r1]; str r0, [r3, #20]; adds r4, #1", 3),
        ("ldr r0, [r1]; str r0, [r3, #20]; ldr r4, [r5]", 5),
    ],
)
def test_accesses_overlap(cycles, text, total):
    assert sum(cycles(text)) == total


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("ldr r0, [r1]; ldr r2, [r0]", 2),  # the address is not loaded yet
        ("ldr r0, [r1], #4; ldr r2, [r1], #4", 2),  # the base is written back meanwhile
        ("ldr r0, [r1], #4; ldr r2, [r3], #4", 1),
        ("ldr r0, [r1], #4; ldr r2, [r0]", 3),  # both written back: the loaded one later
        ("adds r1, #4; ldr r0, [r1]", 3),  # no forwarding to the address adder
        ("adds r1, #4; nop; ldr r0, [r1]", 2),
        ("adds r1, #4; str r1, [r2]", 1),  # data is forwarded
        ("str r0, [r1], #4; str r2, [r1], #4", 2),
        ("ldr r0, [pc, #8]; ldr r1, [pc, #8]", 1),
        ("str r0, [r1]; str r2, [r3]", 1),
        ("str r0, [r1]; ldr r2, [r3]", 3),  # nothing overlaps a store
        ("str r0, [r1]; adds r3, #1; ldr r2, [r4]", 2),
        ("ldr r0, [r1]; ldrd r2, r3, [r4]", 3),  # several words do not overlap
        ("ldrd r2, r3, [r4]; ldr r0, [r1]", 2),
        ("ldm r5!, {r1, r2}; ldr r0, [r2]", 3),
        ("ldm r5!, {r1, r2}; ldr r0, [r1]", 2),
        ("pop {r4, r5}; ldr r0, [sp]", 2),
        ("ldr r0, [r1]; nop", 0),  # beside the data phase
        ("ldr r0, [r1]; cmp r2, r3", 1),
        ("muls r0, r1, r0; bne .", 2),
        ("subs r0, #1; bne .", 1),
    ],
)
def test_the_last_of_them(cycles, text, last):
    assert cycles(text)[-1] == last


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("vadd.f32 s0, s1, s2; vadd.f32 s3, s4, s5", 2),
        ("vadd.f32 s0, s1, s2; vadd.f32 s3, s0, s5", 3),  # the result is a cycle late
        ("vadd.f32 s0, s1, s2; nop; vadd.f32 s3, s0, s5", 3),
        ("vmov.f32 s0, s1; vadd.f32 s3, s0, s5", 2),
        ("vfma.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 4),  # 3 each but for the last
        ("vmul.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 2),  # the addend is needed a cycle later
        ("vfma.f32 s0, s1, s2; adds r0, #1; adds r1, #1; vadd.f32 s3, s4, s5", 4),
        ("vdiv.f32 s0, s1, s2; adds r0, #1", 2),
        ("vdiv.f32 s0, s1, s2; vmov.f32 s3, s4", 15),
        ("vdiv.f32 s0, s1, s2; vmov.f32 s3, s0", 16),
    ],
)
def test_the_fpu(cycles, text, total):
    assert sum(cycles(text)) == total


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cmp r0, #0; it eq; addeq r1, #1", (1, 0, 1)),
        ("cmp.w r0, #0; it eq; addeq r1, #1", (1, 1, 1)),  # only behind a 16-bit instruction
        ("ldr r0, [r1]; it eq; addeq r1, #1", (2, 1, 1)),
        ("add sp, #4; it eq; addeq r1, #1", (1, 1, 1)),
    ],
)
def test_it_is_folded(cycles, text, expected):
    assert cycles(text) == expected


@pytest.mark.parametrize(
    ("branch", "refill"),
    [
        ("b .", 1),
        ("bne .", 1),
        ("bl .", 1),
        ("bx lr", 1),
        ("mov lr, r0; bx lr", 2),  # LR is not there while the branch is decoded
        ("bx r3", 2),
        ("blx r3", 2),
        ("mov pc, r0", 2),
        ("cbz r0, .+8", 2),
        ("add pc, r0", 3),
        ("ldr pc, [r0]", 3),
        ("pop {r4, pc}", 3),
        ("tbb [pc, r0]", 3),
    ],
)
@pytest.mark.parametrize(
    ("target", "address", "more"),
    [("adds r0, #1", 0, 0), ("adds r0, #1", 2, 0), ("add.w r0, #1", 0, 0), ("add.w r0, #1", 2, 1)],
)
def test_a_taken_branch_refills_the_pipeline(block, branch, refill, target, address, more):
    """One more for a 32-bit target that is not word-aligned (compendium.i-0.nl)."""
    before = MODEL.pass_block(block(branch), None, False).after

    timing = MODEL.pass_block(block(target, address), before, taken=True)

    assert (timing.entry_cycles, timing.cycles) == (refill + more, (1,))


@pytest.mark.parametrize(
    ("text", "address", "total"),
    [
        ("subs r0, #1; bne .", 0, 3),  # the usual delay loop
        ("ldr r0, [r1]; subs r0, #1; bne .", 0, 5),
        ("tbb [pc, r0]", 0, 6),
        ("ldr pc, [r0]", 0, 5),
        ("pop {r4, pc}", 0, 6),
    ],
)
def test_loops_and_jumps(block, text, address, total):
    loop = block(text, address)
    first = MODEL.pass_block(loop, None, False)

    assert MODEL.pass_block(loop, first.after, taken=True).total == total


def test_wide_instructions_off_word_boundaries_outrun_the_prefetcher_once(cycles):
    """The third behind an instruction of several cycles waits (eprint.iacr.org/2025/523)."""
    wide = "; add.w r0, r0, r1" * 5

    assert sum(cycles("ldr.w r2, [r3]" + wide, address=0)) == 7
    assert sum(cycles("ldr.w r2, [r3]" + wide, address=2)) == 8


def test_stalls_say_what_was_waited_for(block):
    timing = MODEL.pass_block(block("adds r1, #4; ldr r0, [r1]; ldr r2, [r0]"), None, False)

    assert [tuple(stall) for stall in timing.stalls] == [(1, "address", 1), (2, "load-use", 1)]


@pytest.mark.parametrize(
    ("dividend", "divisor", "signed", "expected"),
    [
        (0, 7, False, 2),
        (7, 0, False, 2),
        (1, 2, False, 3),
        (1, 1, False, 5),
        (15, 1, False, 5),
        (16, 1, False, 6),
        (0xFFFFFFFF, 1, False, 12),
        (-1, 1, True, 5),
        (-(1 << 31), 1, True, 12),
        (100, -7, True, 6),
        (7, -8, True, 5),
        (7, 8, True, 3),
    ],
)
def test_divides_end_early(dividend, divisor, signed, expected):
    assert divide_cycles(dividend, divisor, signed) == expected


@pytest.mark.parametrize(
    ("bytes_", "address", "extra"),
    [(1, 3, 0), (2, 0, 0), (2, 1, 1), (2, 3, 1), (4, 0, 0), (4, 1, 2), (4, 2, 1), (4, 7, 2)],
)
def test_unaligned_loads_are_split(bytes_, address, extra):
    column = bytes_.bit_length() - 1

    assert MODEL.core.unaligned_read[column][address] == extra
    assert MODEL.core.unaligned_write[column][address] == 0


_POOL = """adds r1, #4; add.w r1, r2, r3; muls r0, r1, r0; umull r0, r1, r2, r3; sdiv r1, r2, r3
ldr r0, [r1]; ldr.w r0, [r1], #4; ldr.w r2, [r0, r1]; ldrd r0, r1, [r2]; ldm r1!, {r0, r2}
str r0, [r1]; str.w r0, [r1, #4]!; str.w r0, [r1, r2]; stm r1!, {r0, r2}; push {r0, r1}; nop
nop.w; vadd.f32 s0, s1, s2; vfma.f32 s0, s1, s2; vdiv.f32 s1, s0, s2; vldr s0, [r1]
vmov r1, s0; vmrs r0, fpscr; mrs r0, primask; dmb; bne .+4; cbz r0, .+4; mov lr, r0"""


@pytest.fixture(scope="module")
def programs(block):
    """Random sequences of instructions."""
    rng = random.Random(4)
    pool = _POOL.replace("\n", ";").split(";")
    texts = ["; ".join(rng.choices(pool, k=12)) for _ in range(60)]
    return [block(text, rng.choice((0, 2))) for text in texts]


def test_a_block_may_be_cut_anywhere(programs):
    for program in programs:
        whole = MODEL.pass_block(program, None, False)
        for at in range(1, len(program)):
            first = MODEL.pass_block(program[:at], None, False)
            second = MODEL.pass_block(program[at:], first.after, False)

            assert first.cycles + second.cycles == whole.cycles
            assert second.after == whole.after


def test_no_instruction_takes_less_than_nothing(programs):
    for program in programs:
        for taken in (False, True):
            timing = MODEL.pass_block(program, MODEL.pass_block(program, None, False).after, taken)

            assert timing.entry_cycles >= 0
            assert min(timing.cycles) >= 0
            assert all(0 < stall.cycles <= timing.cycles[stall.number] for stall in timing.stalls)


def test_few_states_are_left_behind(programs):
    """However a block is entered, it soon leaves one of a few states."""
    before = {MODEL.pass_block(program, None, False).after for program in programs}

    for program in programs:
        after = {
            MODEL.pass_block(program, b, taken).after for b in before for taken in (False, True)
        }
        assert len(after) <= 4
