"""The cycle tables, block by block."""

from __future__ import annotations

import subprocess

import pytest

from hil.virtual.timing import UnknownInstruction, model_id, timing_model
from hil.virtual.timing.armv7m import CLASS_OF, decode

M4 = timing_model("cortex-m4")


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """Bytes of some instructions."""
    folder = tmp_path_factory.mktemp("code")

    def assembled(text):
        (folder / "code.s").write_text(
            f".syntax unified\n.cpu cortex-m7\n.fpu fpv5-sp-d16\n.thumb\n{text}\n"
        )
        for command in (
            ["arm-none-eabi-as", "code.s", "-o", "code.o"],
            ["arm-none-eabi-objcopy", "-O", "binary", "code.o", "code.bin"],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (folder / "code.bin").read_bytes()

    return assembled


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("adds r0, r1, r2", 1),
        ("muls r0, r1, r0", 1),
        ("smlad r0, r1, r2, r3", 1),
        ("smlal r0, r1, r2, r3", 1),
        ("sdiv r0, r1, r2", 7),
        ("ldr r0, [r1]", 2),
        ("ldr r0, [r1]\nldr r2, [r3]\nldr r4, [r3, #4]", 4),
        ("ldr r0, [r1]\nldr r2, [r0]", 4),
        ("adds r1, r1, #4\nldr r0, [r1]", 4),
        ("str r0, [r1]", 1),
        ("ldrd r0, r1, [r2]", 3),
        ("push {r4-r7, lr}", 6),
        ("ldm r0!, {r1-r4}", 5),
        ("cmp r0, #0\nit eq\naddeq r1, #1", 2),
        ("cmp.w r0, #0\nit eq\naddeq r1, #1", 3),
        ("vadd.f32 s0, s1, s2", 1),
        ("vfma.f32 s0, s1, s2", 3),
        ("vdiv.f32 s0, s1, s2", 14),
        ("vldmia r0!, {s0-s7}", 9),
        ("tbb [pc, r0]", 6),
        ("ldr pc, [r0]", 5),
    ],
)
def test_cortex_m4_costs(code, text, cycles):
    assert M4.block_cost(code(text), 0).cycles == cycles


@pytest.mark.parametrize(
    ("text", "taken_cycles"),
    [
        ("b .", 2),
        ("bne .", 2),
        ("bx lr", 2),
        ("pop {r4, pc}", 2),
        ("mov pc, r0", 2),
        ("adds r0, #1", 0),
        ("tbb [pc, r0]", 0),
    ],
)
def test_cortex_m4_taken_branches_refill_the_pipeline(code, text, taken_cycles):
    assert M4.block_cost(code(text), 0).taken_cycles == taken_cycles


@pytest.mark.parametrize("model", [M4])
def test_every_class_has_a_cost(model, code):
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
        block = code(line.replace(";", "\n"))
        assert model.block_cost(block, 0).cycles > 0
        seen |= {instruction.kind for instruction in decode(block, 0, "any")}

    assert seen == set(CLASS_OF.values())


def test_an_unknown_instruction_is_named_with_its_address(code):
    with pytest.raises(
        UnknownInstruction, match=r"no entry for instruction 'mcr' at pc 0x00001002"
    ):
        M4.block_cost(code("nop\nmcr p14, 0, r0, c0, c0, 0"), 0x1000)


def test_bytes_that_are_no_instruction_are_shown(code):
    with pytest.raises(UnknownInstruction, match="not decoded"):
        M4.block_cost(bytes.fromhex("ffffffff"), 0)


def test_model_names_go_into_records():
    assert model_id(M4) == "cortex-m4-table/1"
