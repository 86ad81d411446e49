"""Decoding for the timing models: registers, addressing, branches, and what is not known."""

from __future__ import annotations

import pytest

from hil.virtual.timing import UnknownInstruction, model_id, timing_model
from hil.virtual.timing.armv7m import CLASS_OF, decode

M4, M7 = timing_model("cortex-m4"), timing_model("cortex-m7")


# instruction | reads | writes | registers of its address
REGISTERS = """
adds r0, r1, r2            | r1 r2       | r0 flags |
adds r0, #1                | r0          | r0 flags |
add.w r0, r1, r2, lsl #3   | r1 r2       | r0       |
adc.w r0, r1, r2           | r1 r2 flags | r0       |
cmp r0, r1                 | r0 r1       | flags    |
mov r0, r1                 | r1          | r0       |
movt r0, #1                | r0          | r0       |
lsls r0, r1                | r0 r1       | r0 flags |
rrx r0, r1                 | r1 flags    | r0       |
bfi r0, r1, #2, #3         | r0 r1       | r0       |
ubfx r0, r1, #2, #3        | r1          | r0       |
ssat r0, #8, r1, asr #2    | r1          | r0       |
sxtab r0, r1, r2           | r1 r2       | r0       |
muls r0, r1, r0            | r0 r1       | r0 flags |
mla r0, r1, r2, r3         | r1 r2 r3    | r0       |
umull r0, r1, r2, r3       | r2 r3       | r0 r1    |
smlal r0, r1, r2, r3       | r0 r1 r2 r3 | r0 r1    |
umaal r0, r1, r2, r3       | r0 r1 r2 r3 | r0 r1    |
smlabb r0, r1, r2, r3      | r1 r2 r3    | r0       |
smlad r0, r1, r2, r3       | r1 r2 r3    | r0       |
udiv r0, r1, r2            | r1 r2       | r0       |
ldr r0, [r1, #4]           | r1          | r0       | r1
ldr r0, [r1, r2, lsl #2]   | r1 r2       | r0       | r1 r2
ldr r0, [r1], #4           | r1          | r0 r1    | r1
ldr r0, [r1, #4]!          | r1          | r0 r1    | r1
ldr r0, [pc, #8]           | pc          | r0       | pc
ldr pc, [r0]               | r0          | pc       | r0
ldrd r0, r1, [r2], #8      | r2          | r0 r1 r2 | r2
str r0, [r1, r2]           | r0 r1 r2    |          | r1 r2
strd r0, r1, [r2, #8]!     | r0 r1 r2    | r2       | r2
strex r0, r1, [r2]         | r1 r2       | r0       | r2
push {r4, lr}              | r4 lr sp    | sp       | sp
pop {r4, pc}               | sp          | r4 pc sp | sp
ldmdb r3, {r0, r1}         | r3          | r0 r1    | r3
stm r3!, {r0, r1}          | r0 r1 r3    | r3       | r3
tbb [r1, r0]               | r0 r1       |          | r0 r1
bl .                       |             | lr       |
blx r3                     | r3          | lr       |
bx lr                      | lr          |          |
cbz r0, .+8                | r0          |          |
bne .                      | flags       |          |
mov pc, r0                 | r0          | pc       |
mrs r0, primask            |             | r0       |
msr apsr_nzcvq, r0         | r0          | flags    |
vmov r0, s3                | s3          | r0       |
vmov s3, r0                | r0          | s3       |
vmov r0, r1, d3            | s6 s7       | r0 r1    |
vmov d3, r0, r1            | r0 r1       | s6 s7    |
vmov r0, r1, s4, s5        | s4 s5       | r0 r1    |
vadd.f32 s0, s1, s2        | s1 s2       | s0       |
vfma.f32 s0, s1, s2        | s0 s1 s2    | s0       |
vcvt.s32.f32 s0, s1        | s1          | s0       |
vcmp.f32 s0, s1            | s0 s1       | fpscr    |
vmrs apsr_nzcv, fpscr      | fpscr       | flags    |
vldr d3, [r0]              | r0          | s6 s7    | r0
vstr s3, [r0]              | r0 s3       |          | r0
vldmia r0!, {d0}           | r0          | r0 s0 s1 | r0
vpush {s16}                | s16 sp      | sp       | sp
vseleq.f32 s0, s1, s2      | s1 s2 flags | s0       |
"""


def test_registers_read_written_and_addressed_with(machine_code):
    rows = [line.split("|") for line in REGISTERS.strip().splitlines()]
    decoded = list(decode(machine_code("\n".join(row[0] for row in rows)), 0x1000, "any"))
    names = {"r9": "sb", "r10": "sl", "r11": "fp", "r12": "ip"}

    assert len(decoded) == len(rows)
    for instruction, (text, *columns) in zip(decoded, rows, strict=True):
        expected = [{names.get(r, r) for r in column.split()} for column in columns]
        found = [instruction.reads, instruction.writes, instruction.addresses]
        assert found == expected, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bne .+8", "is_branch is_direct conditional"),
        ("bl .+8", "is_branch is_direct"),
        ("blx r3", "is_branch"),
        ("bx lr", "is_branch"),
        ("cbz r0, .+8", "is_branch is_direct conditional"),
        ("tbb [pc, r0]", "is_branch has_register_offset"),
        ("pop {r4, pc}", "is_branch writes_pc"),
        ("mov pc, r0", "is_branch writes_pc"),
        ("ldr r0, [r1, r1]", "has_register_offset"),
        ("ldr r0, [r1, r2]", "has_register_offset"),
        ("ldr r0, [r1], #4", "writes_base"),
        ("stm r1!, {r0, r2}", "writes_base"),
        ("add r0, r1, r2, lsl #3", "has_shifted_operand"),
        ("subs r0, #1", "sets_flags"),
        ("sub r0, #1", ""),
    ],
)
def test_properties(machine_code, text, said):
    names = [
        "is_branch",
        "is_direct",
        "conditional",
        "writes_pc",
        "has_register_offset",
        "writes_base",
        "has_shifted_operand",
        "sets_flags",
    ]
    instruction = next(decode(machine_code(text), 0x1000, "any"))

    assert {name for name in names if getattr(instruction, name)} == set(said.split())


def test_the_target_of_a_direct_branch(machine_code):
    assert [i.target for i in decode(machine_code("b .+8\nnop\ncbz r0, .+6"), 0x1000, "any")] == [
        0x1008,
        None,
        0x100A,
    ]


@pytest.mark.parametrize("model", [M4, M7])
def test_every_class_has_a_cost(model, machine_code):
    """Each class that the decoder knows, by one of its instructions."""
    examples = [
        "add r0,r1,r2;lsl.w r0,r1,#1;rev r0,r1;mla r0,r1,r2,r3;udiv r0,r1,r2;ldrh r0,[r1]",
        "strh r0,[r1];ldrd r0,r1,[r2];strd r0,r1,[r2];ldm r0,{r1,r2};stm r0!,{r1,r2};bl .",
        "tbh [pc,r0,lsl #1];nop;dmb;mrs r0,ipsr;vabs.f32 s0,s1;vmls.f32 s0,s1,s2",
        "vsqrt.f32 s0,s1;vldr s0,[r0];vstr s0,[r0];vpop {s0-s3};vpush {s0-s3};vmrs r0,fpscr",
        "it eq\nmoveq r0,r0",
    ]
    seen = set()
    for line in examples:
        block = tuple(decode(machine_code(line.replace(";", "\n")), 0, "any"))
        assert model.pass_block(block, None, False).total > 0
        seen |= {instruction.kind for instruction in block}

    assert seen == set(CLASS_OF.values())


def test_an_unknown_instruction_is_named_with_its_address(machine_code):
    with pytest.raises(
        UnknownInstruction, match=r"no entry for instruction 'mcr' at pc 0x00001002"
    ):
        list(decode(machine_code("nop\nmcr p14, 0, r0, c0, c0, 0"), 0x1000, "cortex-m4"))


def test_double_precision_is_unknown_to_a_single_precision_unit(machine_code):
    with pytest.raises(UnknownInstruction, match=r"vadd\.f64"):
        list(decode(bytes.fromhex("31ee020b"), 0, "cortex-m4"))


def test_bytes_that_are_no_instruction_are_shown():
    with pytest.raises(UnknownInstruction, match="not decoded"):
        list(decode(bytes.fromhex("ffffffff"), 0, "cortex-m4"))


def test_model_names_go_into_records():
    assert model_id(M4) == "cortex-m4/2"
    assert model_id(M7) == "cortex-m7/2"
