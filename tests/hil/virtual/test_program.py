"""Programs on a core in this process: semihosting, time, faults."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hil.board import get_board
from hil.board_timing import Timing
from hil.errors import TargetFault
from hil.virtual.program import run_program
from hil.virtual.timing import UnknownInstruction
from hil.virtual.timing.armv7m import CLASS_OF

NRF = get_board("nrf52840_dk")
NO_WAITING = replace(NRF, timing=Timing())  # all memory answers at once


def test_a_newlib_program_prints_and_exits(board, compile_c):
    elf = compile_c(
        board,
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "int main(void) { void *p = malloc(100);"
        ' printf("n=%d f=%.3f %s\\n", 42, 2.5, p ? "heap" : "none");'
        ' fputs("err\\n", stderr); return 7; }',
    )

    run = run_program(board, elf.read_bytes())

    assert run.exit_code == 7
    assert run.output == b"n=42 f=2.500 heap\nerr\n"


def test_two_runs_give_the_same_cycles(board, compile_c):
    elf = compile_c(
        board,
        "int main(void) { volatile int s = 0; for (int i = 0; i < 1000; i++) s += i; return 0; }",
    ).read_bytes()

    assert run_program(board, elf) == run_program(board, elf)


def test_clock_follows_the_cycles(board, compile_c):
    elf = compile_c(
        board,
        "#include <time.h>\n#include <stdio.h>\nint main(void) { clock_t a = clock();"
        " for (volatile int i = 0; i < 2000000; i++) {} clock_t b = clock();"
        ' printf("%ld %d\\n", (long)(b - a), (int)CLOCKS_PER_SEC); return 0; }',
    )

    run = run_program(board, elf.read_bytes())

    ticks, per_second = map(int, run.output.split())
    seconds = run.cycles / board.mcu.clock_hz
    assert ticks / per_second == pytest.approx(seconds, abs=0.02)


def test_asm_program_counts_exactly(assemble):
    """movs 1; 100 times adds 1, subs 1, bne 1 (+1 if taken); EXIT: ldr 2, str 1, movs 1, bkpt 2."""
    elf = assemble(
        NRF, "start: movs r0, #100\n1: adds r2, #1\nsubs r0, #1\nbne 1b\nmovs r0, #0\nEXIT\n"
    )

    run = run_program(NO_WAITING, elf.read_bytes())

    assert run.instructions == 1 + 100 * 3 + 1 + 4
    assert run.cycles == 1 + 100 * 3 + 99 + 1 + (2 + 1 + 1 + 2)


def test_a_branch_to_the_next_instruction_is_taken(assemble):
    near, far = (
        run_program(NO_WAITING, assemble(NRF, f"start: {jump}\nmovs r0, #0\nEXIT").read_bytes())
        for jump in ("b 1f\n1: nop", "b 1f\nnop\nnop\n1: nop")
    )

    assert near.cycles == far.cycles


def test_cycle_counter_is_exact_inside_a_block(assemble):
    """Between the two reads stand 5 ALU instructions and the first read itself (LDR, 2 cycles)."""
    elf = assemble(
        NRF,
        """start: ldr r1, =0xe000edfc
        mov r0, #1 << 24
        str r0, [r1]
        ldr r1, =0xe0001000
        movs r0, #1
        str r0, [r1]
        ldr r2, [r1, #4]
        adds r0, #1
        adds r0, #1
        adds r0, #1
        adds r0, #1
        adds r0, #1
        ldr r3, [r1, #4]
        subs r0, r3, r2
        EXIT
        """,
    )

    assert run_program(NO_WAITING, elf.read_bytes()).exit_code == 7


def test_it_block_survives_a_read_of_the_time(assemble):
    """The core stops before a conditional instruction and must still know that it is one."""
    elf = assemble(
        NRF,
        """start: ldr r1, =0xe0001000
        movs r0, #0
        cmp r0, #1
        ite ne
        addne r0, #1
        ldreq r2, [r1, #4]
        cmp r0, #1
        itte eq
        ldreq r2, [r1, #4]
        addeq r0, #2
        addne r0, #16
        EXIT
        """,
    )

    assert run_program(NRF, elf.read_bytes()).exit_code == 3


def test_code_that_rewrites_itself_is_counted_as_it_ran(assemble):
    """The body runs twice; in between a store makes `adds` a slower `ldr`."""
    text = """start: ldr r4, =patch
        mov r6, r4
        movs r5, #2
        ldr r0, =body + 1
        bx r0
        .pushsection .data
        .align 2
        body: movs r2, #0
        patch: adds r0, #1
        movw r1, #PATCHED
        strh r1, [r4]
        subs r5, #1
        bne body
        movs r0, #0
        EXIT
        .ltorg
        .popsection
        """
    same = assemble(NRF, text.replace("PATCHED", "0x3001"), "same")
    changed = assemble(NRF, text.replace("PATCHED", "0x6830"), "changed")

    before, after = (run_program(NO_WAITING, elf.read_bytes()) for elf in (same, changed))

    assert after.instructions == before.instructions
    assert after.cycles > before.cycles


@pytest.mark.parametrize(
    ("body", "report"),
    [
        (
            "ldr r1, =0x30000000\nhere: ldr r0, [r1]\n",
            "read of 4 bytes at 0x30000000 outside the memory map",
        ),
        (
            "ldr r1, =0x30000001\nhere: strb r0, [r1]\n",
            "write of 1 bytes at 0x30000001 outside the memory map",
        ),
        (
            "ldr r1, =0x40000700\nhere: ldr r0, [r1]\n",
            "read of 4 bytes at 0x40000700: CLOCK/POWER has no register",
        ),
        (
            "ldr r1, =0x40000700\nhere: str r0, [r1]\n",
            "write of 4 bytes at 0x40000700: CLOCK/POWER has no register",
        ),
        (
            "ldr r1, =0x4001f000\nhere: str r0, [r1]\n",
            "write of 4 bytes at 0x4001f000 outside the memory map",
        ),
        (
            "ldr r1, =0x1000\nhere: str r0, [r1]\n",
            "write of 4 bytes at 0x00001000: flash is written while NVMC",
        ),
        ("here: udf #1\n", "undefined instruction de01"),
        ("here: bkpt 3\n", "breakpoint (BKPT 03) without a debugger"),
    ],
)
def test_a_fault_names_what_where_and_the_pc(assemble, body, report):
    elf = assemble(NRF, f"start: movs r0, #0\n{body}EXIT\n.global here\n")

    with pytest.raises(TargetFault) as caught:
        run_program(NRF, elf.read_bytes())

    assert report in str(caught.value)
    assert f"pc 0x{_address(elf, 'here'):08x}" in str(caught.value)


def test_a_jump_outside_the_memory_is_a_fault(board, assemble):
    elf = assemble(board, "start: ldr r0, =0x30000001\nbx r0\n")

    with pytest.raises(
        TargetFault, match="instruction fetch from 0x30000000 outside the memory map"
    ):
        run_program(board, elf.read_bytes())


def test_the_hard_fault_handler_sees_frame_and_status(board, assemble):
    """Exit code: number of checks that hold.

    r0 to r3, pc in the frame; CFSR, BFAR, HFSR; LR is EXC_RETURN.
    """
    elf = assemble(
        board,
        """start: movs r0, #10
        movs r1, #11
        ldr r2, =0x30000010
        movs r3, #13
        bad: ldr r4, [r2]
        b .
        hard_fault:
        movs r7, #0
        ldr r0, [sp]
        cmp r0, #10
        it eq
        addeq r7, #1
        ldr r0, [sp, #12]
        cmp r0, #13
        it eq
        addeq r7, #1
        ldr r0, [sp, #24]
        ldr r1, =bad
        cmp r0, r1
        it eq
        addeq r7, #1
        ldr r5, =0xe000ed00
        ldr r0, [r5, #0x28]
        ldr r1, =0x8200
        cmp r0, r1
        it eq
        addeq r7, #1
        ldr r0, [r5, #0x38]
        cmp r0, r2
        it eq
        addeq r7, #1
        ldr r0, [r5, #0x2c]
        cmp r0, #1 << 30
        it eq
        addeq r7, #1
        cmn lr, #7
        it eq
        addeq r7, #1
        mrs r0, ipsr
        cmp r0, #3
        it eq
        addeq r7, #1
        movs r0, r7
        EXIT
        """,
    )

    assert run_program(board, elf.read_bytes()).exit_code == 8


def test_a_fault_inside_an_it_block_does_not_reach_into_the_handler(board, assemble):
    """What the IT block would skip next is the start of the handler, which must run in full."""
    elf = assemble(
        board,
        """start: ldr r1, =0x30000000
        movs r0, #0
        cmp r0, #0
        itee eq
        ldreq r2, [r1]
        movne r0, #1
        movne r0, #1
        hard_fault: movs r0, #3
        adds r0, #4
        EXIT
        """,
    )

    assert run_program(board, elf.read_bytes()).exit_code == 7


def test_a_handler_may_return(board, assemble):
    elf = assemble(
        board,
        """start: movs r0, #1
        movs r1, #5
        svc 0
        adds r0, r1
        EXIT
        sv_call: movs r1, #100
        push {r1, lr}
        ldr r2, [sp, #8]
        adds r2, #40
        str r2, [sp, #8]
        pop {r1, pc}
        """,
    )

    assert run_program(board, elf.read_bytes()).exit_code == 46


def test_a_fault_inside_the_fault_handler_stops_the_core(assemble):
    elf = assemble(NRF, "start: udf #1\nhard_fault: udf #2\n")

    with pytest.raises(
        TargetFault,
        match=r"instruction de01.*then undefined instruction de02.*a fault inside the HardFault",
    ):
        run_program(NRF, elf.read_bytes())


def test_a_stack_outside_ram_still_reaches_the_handler(board, assemble):
    elf = assemble(
        board,
        "start: ldr r0, =0x10\nmov sp, r0\nudf #1\n"
        f"hard_fault: ldr r0, ={board.ram[0] + 0x1000:#x}\nmov sp, r0\n"
        "movs r0, #9\nEXIT\n",
    )

    assert run_program(board, elf.read_bytes()).exit_code == 9


def test_an_instruction_without_a_cost_is_named(board, assemble, monkeypatch):
    elf = assemble(
        board, "start: movs r0, #6\nmovs r1, #2\nodd: sdiv r2, r0, r1\nEXIT\n.global odd\n"
    )
    monkeypatch.delitem(CLASS_OF, "sdiv")

    with pytest.raises(
        UnknownInstruction, match=f"{board.mcu.core} has no entry for instruction 'sdiv'"
    ) as caught:
        run_program(board, elf.read_bytes())

    assert caught.value.address == _address(elf, "odd")


def test_waiting_for_an_interrupt_is_reported(assemble):
    elf = assemble(NRF, "start: wfi\nb start\n")

    with pytest.raises(TargetFault, match="waits for an interrupt"):
        run_program(NRF, elf.read_bytes())


def test_an_endless_program_ends_at_the_timeout(assemble):
    elf = assemble(NRF, "start: b start\n")

    with pytest.raises(TargetFault, match=r"no exit within 0\.3 s"):
        run_program(NRF, elf.read_bytes(), timeout_s=0.3)


def test_hints_do_not_stop_the_core(assemble):
    elf = assemble(NRF, "start: wfe\nyield\nsev\ndsb\nisb\nnop.w\nmovs r0, #4\nEXIT\n")

    assert run_program(NRF, elf.read_bytes()).exit_code == 4


def test_the_fpu_is_off_until_the_program_enables_it(board, assemble):
    text = "start: {}\nvmov.f32 s0, #2.0\nvadd.f32 s0, s0, s0\n"
    text += "vcvt.s32.f32 s0, s0\nvmov r0, s0\nEXIT\n"
    enable = "ldr r1, =0xe000ed88\nldr r0, [r1]\norr r0, #0xf00000\nstr r0, [r1]\ndsb\nisb\n"

    on = run_program(board, assemble(board, text.format(enable), "on").read_bytes(), set_up=False)
    with pytest.raises(
        TargetFault, match=r"floating-point instruction at 0x0.* while CPACR has the FPU off"
    ):
        run_program(board, assemble(board, text.format(""), "off").read_bytes(), set_up=False)

    assert on.exit_code == 4


def test_what_is_received_and_sent_on_the_uart(assemble):
    """Three bytes are read by polling and sent back, each plus one."""
    elf = assemble(
        NRF,
        """start: ldr r4, =0x40002000
        movs r0, #4
        str r0, [r4, #0x500]
        movs r0, #6
        str r0, [r4, #0x50c]
        movs r0, #8
        str r0, [r4, #0x514]
        movs r0, #1
        str r0, [r4]
        str r0, [r4, #8]
        movs r5, #3
        next: ldr r0, [r4, #0x108]
        cmp r0, #0
        beq next
        movs r0, #0
        str r0, [r4, #0x108]
        str r0, [r4, #0x11c]
        ldr r0, [r4, #0x518]
        adds r0, #1
        str r0, [r4, #0x51c]
        sent: ldr r0, [r4, #0x11c]
        cmp r0, #0
        beq sent
        subs r5, #1
        bne next
        movs r0, #0
        EXIT
        """,
    )

    assert run_program(NRF, elf.read_bytes(), input_bytes=b"\x00A\xfe").output == b"\x01B\xff"


def _address(elf, symbol):
    from elftools.elf.elffile import ELFFile

    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return table.get_symbol_by_name(symbol)[0]["st_value"] & ~1
