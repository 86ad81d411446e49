"""Exceptions that find the core in an unusual state; test_against_qemu.py has the same and more."""

from __future__ import annotations

from hil.virtual.program import run_program


def test_a_handler_returns_to_the_process_stack(board, assemble):
    elf = assemble(
        board,
        """
start:
    sub r0, sp, #256
    msr psp, r0
    movs r0, #2
    msr control, r0
    isb
    movs r0, #3
    movs r4, #40
    push {r4}
    svc #0
    pop {r5}
    add r0, r0, r5
    EXIT
.thumb_func
sv_call:
    ldr r1, [sp, #-8]!          // the handler's own stack
    add sp, #8
    movs r0, #99                // restored from the frame
    bx lr
""",
    )

    assert run_program(board, elf.read_bytes()).exit_code == 43


def test_one_instruction_reads_the_time_twice(board, assemble):
    elf = assemble(
        board,
        """
start:
    ldr r4, =0xe000e010         // SysTick: control and status, reload, current value
    ldr r1, =0xffffff
    movs r2, #5
    str r1, [r4, #4]
    str r2, [r4]
    nop
    ldm r4, {r1, r2, r3}        // the first and the third word depend on the time
    ldr r0, [r4, #8]
    subs r0, r3, r0
    EXIT
""",
    )

    assert 0 < run_program(board, elf.read_bytes(), timeout_s=5).exit_code < 10
