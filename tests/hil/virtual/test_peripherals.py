"""Peripherals as programs see them."""

from __future__ import annotations

import pytest

from hil.board import get_board
from hil.errors import TargetFault
from hil.virtual.program import run_program

NRF = get_board("nrf52840_dk")
DISCO = get_board("stm32f746g_disco")
NUCLEO = get_board("nucleo_l4r5zi")


def _exit_code(board, assemble, text, name="program"):
    return run_program(
        board, assemble(board, f"start: {text}\nEXIT\n", name).read_bytes()
    ).exit_code


def test_the_hf_oscillator_has_started_once_it_was_started(assemble):
    event = "ldr r4, =0x40000000\n{}ldr r0, [r4, #0x100]"

    assert _exit_code(NRF, assemble, event.format(""), "off") == 0
    assert _exit_code(NRF, assemble, event.format("movs r0, #1\nstr r0, [r4]\n"), "on") == 1


def test_the_pll_is_ready_only_when_its_source_is(assemble):
    """PLLCFGR selects HSE; r0 collects PLLRDY before and after HSEON."""
    text = """ldr r4, =0x40023800
    ldr r0, =0x29406c19
    str r0, [r4, #4]
    ldr r0, =0x01000081
    str r0, [r4]
    ldr r5, [r4]
    ldr r0, =0x01010081
    str r0, [r4]
    ldr r6, [r4]
    ubfx r0, r5, #25, #1
    ubfx r1, r6, #25, #1
    add r0, r1, r0, lsl #1"""

    assert _exit_code(DISCO, assemble, text) == 1


def test_the_system_clock_switches_only_to_a_source_that_is_ready(assemble):
    text = (
        "ldr r4, =0x40023800\nmovs r0, #2\nstr r0, [r4, #8]\nldr r0, [r4, #8]\nubfx r0, r0, #2, #2"
    )

    assert _exit_code(DISCO, assemble, text) == 0


def test_the_l4_system_clock_takes_a_pll_that_has_a_source_and_an_output(assemble):
    """PLLCFGR selects HSI16; SWS before HSION, without PLLREN, and with both."""
    switch = "movs r0, #3\nstr r0, [r4, #8]\nldr r0, [r4, #8]\nubfx {}, r0, #2, #2\n"
    text = f"""ldr r4, =0x40021000
    ldr r0, =0x00001e02
    str r0, [r4, #0xc]
    ldr r0, =0x01000061
    str r0, [r4]
    {switch.format("r5")}
    ldr r0, =0x01000161
    str r0, [r4]
    {switch.format("r6")}
    ldr r0, =0x01001e02
    str r0, [r4, #0xc]
    {switch.format("r7")}
    add r0, r7, r6, lsl #2
    add r0, r0, r5, lsl #4"""

    assert _exit_code(NUCLEO, assemble, text) == 3


def test_the_l4_msi_is_trimmed_once_the_backup_domain_was_opened_and_lse_runs(assemble):
    """r0 collects MSIPLLEN: with LSEON while BDCR is closed, then with it open."""
    trim = """movs r0, #1
    str r0, [r4, #0x90]
    ldr r0, [r4]
    orr r0, #4
    str r0, [r4]
    ldr r0, [r4]
    ubfx {}, r0, #2, #1
    """
    text = f"""ldr r4, =0x40021000
    {trim.format("r5")}
    mov r0, #1 << 28
    str r0, [r4, #0x58]
    ldr r3, =0x40007000
    ldr r0, [r3]
    orr r0, #1 << 8
    str r0, [r3]
    {trim.format("r6")}
    add r0, r6, r5, lsl #1"""

    assert _exit_code(NUCLEO, assemble, text) == 1


def test_l4_pins_are_analog_after_reset_and_can_be_cleared_by_brr(assemble):
    """Port G: PG0 an output, set with PG1, cleared alone; MODER after reset in the upper half."""
    text = """ldr r4, =0x4002104c
    movs r0, #1 << 6
    str r0, [r4]
    ldr r5, =0x48001800
    ldr r6, [r5]
    movs r0, #5
    str r0, [r5]
    movs r0, #3
    str r0, [r5, #0x18]
    movs r0, #1
    str r0, [r5, #0x28]
    ldr r0, [r5, #0x10]
    bfi r0, r6, #16, #8"""

    assert _exit_code(NUCLEO, assemble, text) == 0x00FF_0002


@pytest.mark.parametrize(
    ("board", "enable", "gpio_b"),
    [(DISCO, 0x4002_3830, 0x4002_0400), (NUCLEO, 0x4002_104C, 0x4800_0400)],
)
def test_a_peripheral_without_a_clock_reads_zero_and_takes_nothing(board, enable, gpio_b, assemble):
    text = f"""ldr r4, ={enable:#x}
    ldr r5, ={gpio_b:#x}
    movs r0, #85
    str r0, [r5]
    ldr r6, [r5]
    {{}}str r0, [r5]
    ldr r0, [r5]
    add r0, r6"""
    clock = "movs r1, #2\nstr r1, [r4]\n"

    assert _exit_code(board, assemble, text.format(""), "off") == 0
    assert _exit_code(board, assemble, text.format(clock), "on") == 85


@pytest.mark.parametrize(
    ("board", "uart", "clock", "bit"),
    [
        (DISCO, 0x4001_1000, 0x4002_3844, 4),  # USART1
        (NUCLEO, 0x4000_8000, 0x4002_105C, 0),  # LPUART1
        (NUCLEO, 0x4000_4400, 0x4002_1058, 17),  # USART2
        (NUCLEO, 0x4001_3800, 0x4002_1060, 14),  # USART1
    ],
)
def test_a_uart_that_is_not_enabled_sends_nothing(board, uart, clock, bit, assemble):
    text = f"ldr r4, ={uart:#x}\nldr r3, ={clock:#x}\nmov r0, #1 << {bit}\nstr r0, [r3]\n"
    text += "{}movs r0, #65\nstr r0, [r4, #0x28]\nmovs r0, #0"
    enable = "movs r0, #13\nstr r0, [r4]\n"

    outputs = [
        run_program(board, assemble(board, f"start: {text.format(e)}\nEXIT\n").read_bytes()).output
        for e in ("", enable)
    ]

    assert outputs == [b"", b"A"]


def test_uarte_sends_and_receives_by_dma(assemble):
    """Sends 3 bytes from RAM, receives 2 into RAM and sends those."""
    text = """ldr r4, =0x40002000
    movs r0, #8
    str r0, [r4, #0x500]
    movs r0, #6
    str r0, [r4, #0x50c]
    str r0, [r4, #0x514]
    ldr r5, =0x20008000
    ldr r0, =0x00636261
    str r0, [r5]
    str r5, [r4, #0x544]
    movs r0, #3
    str r0, [r4, #0x548]
    movs r0, #1
    str r0, [r4, #8]
    str r5, [r4, #0x534]
    movs r0, #2
    str r0, [r4, #0x538]
    str r0, [r4, #0x548]
    movs r0, #1
    str r0, [r4]
    1: ldr r0, [r4, #0x110]
    cmp r0, #0
    beq 1b
    str r0, [r4, #8]
    ldr r0, [r4, #0x53c]"""
    elf = assemble(NRF, f"start: {text}\nEXIT\n").read_bytes()

    run = run_program(NRF, elf, input_bytes=b"xyz")

    assert (run.exit_code, run.output) == (2, b"abcxy")


def test_the_chip_timers_follow_the_cycles(assemble):
    """16,000 passes of 3 cycles on the M4 (64 a tick), of 1 on the M7 (16 a tick)."""
    nrf = """ldr r4, =0x40008000
    movs r0, #3
    str r0, [r4, #0x508]
    movs r0, #1
    str r0, [r4]
    ldr r5, =16000
    1: subs r5, #1
    bne 1b
    str r0, [r4, #0x40]
    ldr r0, [r4, #0x540]"""
    stm32 = """ldr r3, ={:#x}
    movs r0, #1
    str r0, [r3]
    movs r4, #0x40000000
    movs r0, #15
    str r0, [r4, #0x28]
    movs r0, #1
    str r0, [r4, #0x14]
    str r0, [r4]
    ldr r5, =16000
    1: subs r5, #1
    bne 1b
    ldr r0, [r4, #0x24]"""

    assert _exit_code(NRF, assemble, nrf, "nrf") == 16000 * 3 // 64
    disco = _exit_code(DISCO, assemble, stm32.format(0x4002_3840), "disco")
    assert 0 <= disco - 16000 // 16 <= 1  # its last branch is mispredicted
    assert _exit_code(NUCLEO, assemble, stm32.format(0x4002_1058), "nucleo") == 16000 * 3 // 16


def test_systick_counts_down_and_flags_its_end(board, assemble):
    text = """ldr r4, =0xe000e010
    ldr r0, =999
    str r0, [r4, #4]
    movs r0, #5
    str r0, [r4]
    ldr r5, =2000
    1: subs r5, #1
    bne 1b
    ldr r0, [r4]
    ldr r1, [r4]
    lsrs r0, r0, #16
    lsrs r1, r1, #16
    add r0, r0, r1, lsl #1"""

    assert _exit_code(board, assemble, text) == 1  # set once, cleared by reading


@pytest.mark.parametrize(("board", "locked"), [(NRF, False), (DISCO, True)])
def test_the_m7_cycle_counter_is_locked_until_it_is_unlocked(board, locked, assemble):
    text = """ldr r1, =0xe000edfc
    mov r0, #1 << 24
    str r0, [r1]
    ldr r1, =0xe0001000
    {}movs r0, #1
    str r0, [r1]
    ldr r0, [r1]"""
    key = "ldr r0, =0xc5acce55\nstr r0, [r1, #0xfb0]\n"

    assert _exit_code(board, assemble, text.format(""), "as_is") == (0 if locked else 1)
    assert _exit_code(board, assemble, text.format(key), "unlocked") == 1


def test_a_reset_by_the_program_restarts_it_and_keeps_ram(board, assemble):
    word = board.ram[0] + 0x4000
    text = f"""ldr r4, ={word:#x}
    ldr r0, [r4]
    adds r0, #1
    str r0, [r4]
    cmp r0, #3
    beq 1f
    ldr r1, =0xe000ed0c
    ldr r2, =0x05fa0004
    str r2, [r1]
    b .
    1: nop"""

    assert _exit_code(board, assemble, text) == 3


def test_a_program_that_waits_for_more_input_than_there_is_ends(assemble):
    text = "ldr r4, =0x40002000\nmovs r0, #4\nstr r0, [r4, #0x500]\nmovs r0, #8\n"
    text += "str r0, [r4, #0x514]\nmovs r0, #1\nstr r0, [r4]\n"
    text += "1: ldr r0, [r4, #0x108]\ncmp r0, #0\nbeq 1b"

    with pytest.raises(TargetFault, match="waits for input"):
        _exit_code(NRF, assemble, text)


def test_program_is_told_that_other_semihosting_files_do_not_exist(board, compile_c):
    elf = compile_c(
        board,
        "#include <stdio.h>\n#include <errno.h>\nint main(void) {"
        ' FILE *f = fopen("/etc/passwd", "r"); return f == NULL ? errno : 0; }',
    )

    assert run_program(board, elf.read_bytes()).exit_code == 2  # ENOENT
