"""What a debugger can do to a virtual board: its debug port, its core, its memory, its locks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
import serial

from hil.board import Board, board_ids, get_board
from hil.virtual.debug_memory import AccessFault
from hil.virtual.debug_port import NoAnswer, TransferFault
from hil.virtual.server import Server
from tests.support.debuggers import (
    AIRCR,
    DEBUGEN,
    DEMCR,
    DFSR,
    DHCSR,
    FP_CTRL,
    FPSCR,
    HALT,
    KEY,
    MSP,
    PC,
    PSP,
    S0,
    S_HALT,
    S_LOCKUP,
    S_RESET_ST,
    SPECIAL,
    XPSR,
    Debugger,
    symbols,
)

NRF, DISCO = get_board("nrf52840_dk"), get_board("stm32f746g_disco")
RESET_REQUEST = 0x05FA0004
COUNT = "start: movs r0, #0\n1: adds r0, #1\nb 1b\n"
STEPS = """start: movs r0, #5
    adds r0, #1
    bl sub
    cmp r0, #12
    bne fail
    last: b last
    fail: b fail
    sub: lsls r0, #1
    bx lr
"""
# Counts CYCCNT over loops with and without peripherals in them; exits with 0.
TIMED = """start: ldr r4, =0xe000edfc
    ldr r0, =1 << 24
    str r0, [r4]
    ldr r4, =0xe0001000
    ldr r0, =0xc5acce55
    ldr r1, =0xe0001fb0
    str r0, [r1]
    movs r0, #1
    str r0, [r4]
    ldr r6, =40
    outer: ldr r5, =30000
    1: subs r5, #1
    bne 1b
    ldr r7, [r4, #4]
    ldr r5, =50
    2: ldr r0, [r4, #4]
    subs r5, #1
    bne 2b
    subs r6, #1
    bne outer
    movs r0, #0
    EXIT
"""


@pytest.fixture(scope="module")
def debuggers() -> dict[str, Debugger]:
    return {}


@pytest.fixture(params=board_ids())
def debugger(request: pytest.FixtureRequest, debuggers: dict[str, Debugger]) -> Iterator[Debugger]:
    """A board as it came from the factory."""
    yield from _fresh(request.param, debuggers)


@pytest.fixture
def nrf(debuggers: dict[str, Debugger]) -> Iterator[Debugger]:
    yield from _fresh(NRF.id, debuggers)


@pytest.fixture(params=["stm32f746g_disco", "nucleo_l4r5zi"])
def stm32(request: pytest.FixtureRequest, debuggers: dict[str, Debugger]) -> Iterator[Debugger]:
    yield from _fresh(request.param, debuggers)


def _fresh(board_id: str, debuggers: dict[str, Debugger]) -> Iterator[Debugger]:
    found = debuggers.setdefault(board_id, Debugger(get_board(board_id)))
    yield found
    found.core.give_up()
    assert found.cpu.flash_controller is not None
    found.cpu.flash_controller.erase_chip()
    found.debug.power_cycle()
    found.port.power_cycle()
    found.port.write_dp(4, 0x5000_0000)
    found.cpu.power_on()


def ram(board: Board) -> int:
    return board.ram[0] + 0x2000


# -- debug port and access ports


def test_the_port_says_what_it_is(debugger: Debugger) -> None:
    is_m7 = debugger.cpu.board.mcu.core == "cortex-m7"

    assert debugger.port.read_dp(0) == (0x5BA02477 if is_m7 else 0x2BA01477)
    assert debugger.port.read_ap(0, 0xFC) == (0x74770001 if is_m7 else 0x24770011)
    assert debugger.port.read_ap(7, 0xFC) == 0


def test_power_requests_are_acknowledged(debugger: Debugger) -> None:
    debugger.port.write_dp(4, 0)
    assert debugger.port.read_dp(4) >> 28 == 0

    debugger.port.write_dp(4, 0x5000_0000)
    assert debugger.port.read_dp(4) >> 28 == 0xF


def test_access_ports_need_power(debugger: Debugger) -> None:
    debugger.port.write_dp(4, 0)

    with pytest.raises(TransferFault, match="no power"):
        debugger.port.read_ap(0, 0xFC)


def test_a_fault_stays_until_it_is_cleared(debugger: Debugger) -> None:
    port = debugger.port
    port.write_ap(0, 0x04, 0x3000_0000)
    with pytest.raises(TransferFault):
        port.read_ap(0, 0x0C)
    with pytest.raises(TransferFault, match="earlier error"):
        port.read_ap(0, 0xFC)
    assert port.read_dp(4) & 1 << 5

    port.write_dp(0, 1 << 2)

    assert not port.read_dp(4) & 1 << 5
    assert port.read_ap(0, 0xFC)


def test_the_address_counts_up_and_wraps(debugger: Debugger) -> None:
    port, wrap = debugger.port, 0x400 if debugger.cpu.board.mcu.core == "cortex-m7" else 0x1000
    first = ram(debugger.cpu.board)
    at = first + wrap - 8
    port.write_ap(0, 0x00, 0x2300_0012)
    port.write_ap(0, 0x04, at)
    for value in (1, 2, 3):
        port.write_ap(0, 0x0C, value)

    assert [debugger.read(a) for a in (at, at + 4, first)] == [1, 2, 3]
    assert port.read_ap(0, 0x04) == first + 4
    port.write_ap(0, 0x04, at)
    assert port.read_ap_many(0, 0x0C, 3) == [1, 2, 3]
    port.write_ap(0, 0x04, at)
    port.write_ap_many(0, 0x0C, [4, 5, 6])
    assert [debugger.read(a) for a in (at, at + 4, first)] == [4, 5, 6]


def test_bytes_and_halves_are_in_their_lanes(debugger: Debugger) -> None:
    port, at = debugger.port, ram(debugger.cpu.board)
    debugger.write(at, 0x44332211)
    port.write_ap(0, 0x00, 0x2300_0000)
    port.write_ap(0, 0x04, at + 3)
    assert port.read_ap(0, 0x0C) >> 24 == 0x44
    port.write_ap(0, 0x0C, 0x99 << 24)

    port.write_ap(0, 0x00, 0x2300_0001)
    port.write_ap(0, 0x04, at + 2)
    assert port.read_ap(0, 0x0C) >> 16 == 0x9933


def test_banked_data_registers_reach_four_words(debugger: Debugger) -> None:
    port, at = debugger.port, ram(debugger.cpu.board)
    port.write_ap(0, 0x04, at + 4)
    for i in range(4):
        port.write_ap(0, 0x10 + 4 * i, 100 + i)

    assert [debugger.read(at + 4 * i) for i in range(4)] == [100, 101, 102, 103]


def test_rom_tables_lead_to_the_units_of_the_core(debugger: Debugger) -> None:
    parts = {}

    def walk(table: int) -> None:
        offset = 0
        while entry := debugger.read(table + offset):
            assert entry & 3 == 3
            at = table + (entry & ~0xFFF) & 0xFFFF_FFFF
            ids = [debugger.read(at + 0xFD0 + 4 * i) for i in range(12)]
            assert ids[8] == 0x0D and ids[10:] == [0x05, 0xB1]
            if ids[9] == 0x10:
                walk(at)
            else:
                parts[at] = ids[4] | (ids[5] & 0xF) << 8
            offset += 4

    walk(debugger.port.read_ap(0, 0xF8) & ~0xFFF)

    is_m7 = debugger.cpu.board.mcu.core == "cortex-m7"
    assert parts[0xE000E000] == 0x00C
    assert parts[0xE0001000] == 0x002
    assert parts[0xE0002000] == (0x00E if is_m7 else 0x003)
    assert debugger.read(FP_CTRL) >> 4 & 0xF == (8 if is_m7 else 6)
    assert debugger.read(0xE000ED00) == (0x411FC270 if is_m7 else 0x410FC241)


# -- the core


def test_a_board_that_never_ran_can_be_halted(debugger: Debugger) -> None:
    assert debugger.read(DHCSR) & S_LOCKUP

    debugger.halt()

    assert debugger.read(DFSR) & 1


@pytest.mark.parametrize("number", [0, 7, 12, 14, MSP, PSP, FPSCR, S0, S0 + 31])
def test_registers_hold_what_is_written(debugger: Debugger, number: int) -> None:
    debugger.halt()
    debugger.set_register(number, 0x1234_5678 & (0xF000_0000 if number == FPSCR else ~3))
    debugger.set_register(1, 0xFFFF_FFFF)

    kept = debugger.register(number)

    assert kept == 0x1234_5678 & (0xF000_0000 if number == FPSCR else ~3)


def test_special_registers_are_packed(debugger: Debugger) -> None:
    debugger.halt()
    debugger.set_register(SPECIAL, 0x04_01_20_01)  # CONTROL.FPCA, FAULTMASK, BASEPRI, PRIMASK

    assert debugger.register(SPECIAL) & 0xFF_00_FF_FF == 0x04_00_20_01


def test_a_halted_core_stands_still_and_goes_on(debugger: Debugger, assemble) -> None:
    debugger.run(assemble(debugger.cpu.board, COUNT))
    debugger.halt()
    first = debugger.register(0)
    time.sleep(0.01)
    assert debugger.register(0) == first

    debugger.go()
    time.sleep(0.01)
    debugger.halt()

    assert debugger.register(0) > first


def test_registers_of_a_running_core_are_not_reached(debugger: Debugger, assemble) -> None:
    debugger.run(assemble(debugger.cpu.board, COUNT))
    debugger.go()
    debugger.set_register(0, 0)

    assert not debugger.read(DHCSR) & S_HALT
    debugger.halt()
    assert debugger.register(0) > 0


def test_a_step_is_one_instruction(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, STEPS)
    at = symbols(elf)
    debugger.run(elf)
    debugger.halt()
    debugger.set_register(PC, at["start"])
    seen = []
    for _ in range(7):
        debugger.step()
        seen.append(debugger.register(PC))

    start = at["start"]
    assert seen[:3] == [start + 2, start + 4, at["sub"]]
    assert seen[3:] == [at["sub"] + 2, start + 8, start + 10, start + 12]
    assert debugger.register(0) == 12
    assert debugger.read(DFSR) & 1


def test_a_step_reads_a_peripheral_once(debugger: Debugger, assemble) -> None:
    text = "start: ldr r4, =0xe0001004\nhere: ldr r0, [r4]\nthen: b then\n"
    elf = assemble(debugger.cpu.board, text)
    debugger.run(elf)
    debugger.halt()
    debugger.set_register(PC, symbols(elf)["here"])
    debugger.set_register(0, 1)
    debugger.set_register(4, 0xE000_1004)

    debugger.step()

    assert debugger.register(PC) == symbols(elf)["then"]
    assert debugger.register(0) == 0


def test_a_breakpoint_halts_before_its_instruction(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, STEPS)
    at = symbols(elf)
    debugger.run(elf)
    debugger.halt()
    debugger.set_breakpoint(at["sub"])
    debugger.set_register(PC, at["start"])
    debugger.write(DFSR, 0x1F)
    debugger.go()
    debugger.wait_halted()

    assert debugger.register(PC) == at["sub"]
    assert debugger.register(0) == 6
    assert debugger.read(DFSR) == 1 << 1

    debugger.write(FP_CTRL, 2)  # off: the same place is passed now
    debugger.go()
    time.sleep(0.01)
    debugger.halt()
    assert debugger.register(PC) == at["last"]


IT_BLOCK = """start: movs r0, #1
    cmp r0, #1
    itte eq
    moveq r1, #5
    here: moveq r2, #6
    movne r2, #7
    behind: b behind
"""


def test_a_step_goes_over_an_it_block(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, IT_BLOCK)
    at = symbols(elf)
    debugger.run(elf)
    debugger.halt()
    debugger.set_register(PC, at["start"] + 4)
    debugger.set_register(XPSR, 1 << 30)  # Z
    debugger.step()

    assert debugger.register(PC) == at["behind"]
    assert [debugger.register(r) for r in (1, 2)] == [5, 6]


def test_a_breakpoint_in_an_it_block_halts_behind_it(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, IT_BLOCK)
    at = symbols(elf)
    debugger.run(elf)
    debugger.halt()
    debugger.set_breakpoint(at["here"])
    debugger.set_register(PC, at["start"])
    debugger.write(DFSR, 0x1F)
    debugger.go()
    debugger.wait_halted()

    assert debugger.register(PC) == at["behind"]
    assert debugger.read(DFSR) == 1 << 1


def test_a_breakpoint_is_set_while_the_core_runs(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, COUNT)
    debugger.run(elf)
    debugger.go()
    debugger.set_breakpoint(symbols(elf)["start"] + 2)
    debugger.wait_halted()

    assert debugger.register(PC) == symbols(elf)["start"] + 2


def test_bkpt_halts_under_a_debugger_only(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, "start: nop\nhere: movs r0, #0\nEXIT\n")
    debugger.load(elf)
    debugger.write(DHCSR, KEY | DEBUGEN)
    debugger.core.start()
    debugger.wait_halted()
    assert debugger.register(0) == 0x20
    assert debugger.read(debugger.register(PC), 2) == 0xBEAB

    debugger.detach()  # the core goes on, and the call is served
    debugger.wait_end()
    assert debugger.core.stop is not None
    assert debugger.core.stop.reason == "exit"


def test_a_reset_can_be_caught(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, COUNT)
    debugger.run(elf)
    debugger.halt()
    debugger.read(DHCSR)
    debugger.write(DEMCR, 1)
    debugger.write(AIRCR, RESET_REQUEST)

    assert debugger.read(DHCSR) & (S_RESET_ST | S_HALT) == S_RESET_ST | S_HALT
    assert not debugger.read(DHCSR) & S_RESET_ST
    assert debugger.register(PC) == symbols(elf)["start"]
    assert debugger.read(DFSR) & 1 << 3

    debugger.write(DEMCR, 0)
    debugger.write(AIRCR, RESET_REQUEST)
    assert not debugger.read(DHCSR) & S_HALT


def test_a_program_that_resets_itself_is_caught(debugger: Debugger, assemble) -> None:
    text = f"start: ldr r4, =0xe000ed0c\nldr r0, ={RESET_REQUEST}\nstr r0, [r4]\n1: b 1b\n"
    elf = assemble(debugger.cpu.board, text)
    debugger.load(elf)
    debugger.write(DHCSR, KEY | DEBUGEN)
    debugger.write(DEMCR, 1)
    debugger.core.start()
    debugger.wait_halted()

    assert debugger.register(PC) == symbols(elf)["start"]


@pytest.mark.parametrize(("catch", "caught"), [(1 << 10, True), (0, False)])
def test_a_hard_fault_can_be_caught(debugger: Debugger, assemble, catch, caught) -> None:
    text = "start: ldr r0, =0x30000000\nldr r1, [r0]\n1: b 1b\nhard_fault: b hard_fault\n"
    elf = assemble(debugger.cpu.board, text)
    debugger.load(elf)
    debugger.write(DHCSR, KEY | DEBUGEN)
    debugger.write(DEMCR, catch)
    debugger.core.start()
    if caught:
        debugger.wait_halted()
        assert debugger.register(PC) == symbols(elf)["hard_fault"]
        assert debugger.register(XPSR) & 0x1FF == 3
        assert debugger.read(DFSR) & 1 << 3
    else:
        time.sleep(0.05)
        assert not debugger.read(DHCSR) & S_HALT


def test_the_reset_line_holds_the_core(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, COUNT)
    debugger.run(elf)
    debugger.port.assert_reset(True)
    assert debugger.port.is_reset_asserted()
    assert debugger.read(DHCSR) & S_RESET_ST
    debugger.write(DEMCR, 1)
    debugger.write(DHCSR, KEY | DEBUGEN)
    debugger.port.assert_reset(False)

    assert debugger.read(DHCSR) & S_HALT
    assert debugger.register(PC) == symbols(elf)["start"]


def test_without_the_key_nothing_is_halted(debugger: Debugger, assemble) -> None:
    debugger.run(assemble(debugger.cpu.board, COUNT))

    debugger.write(DHCSR, DEBUGEN | HALT)

    assert not debugger.read(DHCSR) & (S_HALT | DEBUGEN)


# -- memory


@pytest.mark.parametrize("width", [1, 2, 4])
def test_ram_is_reached_in_every_width(debugger: Debugger, width: int) -> None:
    at = ram(debugger.cpu.board)
    debugger.write(at + 4, 0x11223344 & (1 << 8 * width) - 1, width)

    assert debugger.read(at + 4, width) == 0x11223344 & (1 << 8 * width) - 1
    assert debugger.port.memory.read_block(at + 3, 3)[0] == 0


def test_blocks_are_read_and_written_from_any_address(debugger: Debugger) -> None:
    at, data = ram(debugger.cpu.board) + 1, bytes(range(200)) * 7
    with debugger.core.lock:
        debugger.port.memory.write_block(at, data)
        assert debugger.port.memory.read_block(at, len(data)) == data


def test_peripherals_are_reached(debugger: Debugger) -> None:
    debugger.halt()
    debugger.write(0xE000ED08, 0x1234_5680)  # VTOR

    assert debugger.read(0xE000ED08) == 0x1234_5680
    assert debugger.read(0xE000ED09, 1) == 0x56


def test_what_is_not_there_is_a_fault(debugger: Debugger) -> None:
    with pytest.raises(AccessFault, match="0x30000000"):
        debugger.read(0x3000_0000)
    with pytest.raises(AccessFault, match="0x30000000"):
        debugger.write(0x3000_0000, 0)


def test_flash_is_written_through_its_controller_only(debugger: Debugger) -> None:
    origin = debugger.cpu.board.flash_memory.origin
    with pytest.raises(AccessFault, match="flash is written"):
        debugger.write(origin, 0)

    assert debugger.read(origin) == 0xFFFF_FFFF


def test_a_running_program_sees_what_is_written(debugger: Debugger, assemble) -> None:
    at = ram(debugger.cpu.board)
    text = f"start: ldr r4, ={at:#x}\n1: ldr r0, [r4]\ncmp r0, #7\nbne 1b\nmovs r0, #0\nEXIT\n"
    debugger.run(assemble(debugger.cpu.board, text))
    time.sleep(0.01)
    debugger.write(at, 7)
    debugger.wait_end()

    assert debugger.core.stop is not None
    assert debugger.core.stop.exit_code == 0


def test_code_in_ram_is_what_was_written_last(debugger: Debugger, machine_code) -> None:
    at = ram(debugger.cpu.board)
    debugger.halt()
    for value in (5, 9):
        with debugger.core.lock:
            debugger.port.memory.write_block(at, machine_code(f"movs r0, #{value}; bkpt 0"))
        debugger.set_register(PC, at)
        debugger.go()
        debugger.wait_halted()
        assert debugger.register(0) == value


# -- time


def test_halts_take_no_cycles(debugger: Debugger, assemble) -> None:
    elf = assemble(debugger.cpu.board, TIMED)
    debugger.run(elf)
    debugger.wait_end()
    alone = debugger.cpu.clock.total()

    debugger.run(elf)
    halts = 0
    while debugger.core.is_running:
        with debugger.core.at_rest():
            halts += 1
        time.sleep(0.002)

    assert halts > 3
    assert debugger.core.stop is not None
    assert debugger.core.stop.reason == "exit"
    assert debugger.cpu.clock.total() == alone


# UART0: sends every byte back
ECHO = """start: ldr r4, =0x40002000
    movs r0, #4
    str r0, [r4, #0x500]
    movs r0, #6
    str r0, [r4, #0x50c]
    movs r0, #8
    str r0, [r4, #0x514]
    movs r0, #1
    str r0, [r4]
    str r0, [r4, #8]
    next: ldr r0, [r4, #0x108]
    cmp r0, #0
    beq next
    movs r0, #0
    str r0, [r4, #0x108]
    ldr r0, [r4, #0x518]
    str r0, [r4, #0x51c]
    b next
"""


def test_halts_lose_no_byte_of_the_serial_port(assemble) -> None:
    server = Server(NRF)
    server._do_load({"path": str(assemble(NRF, ECHO)), "until": ""})
    sent, received = random.Random(3).randbytes(1400), b""
    with serial.Serial(server._do_ports({})["port"], timeout=20.0) as port:
        for i in range(0, len(sent), 7):
            port.write(sent[i : i + 7])
            with server.core.lock, server.core.at_rest():
                pass
            received += port.read(7)
    server.core.give_up()
    server.close()

    assert received == sent


def test_counts_start_anew_behind_a_debugger(debugger: Debugger, assemble, machine_code) -> None:
    elf = assemble(debugger.cpu.board, TIMED)
    debugger.run(elf)
    debugger.wait_end()
    alone, ever = debugger.cpu.clock.total(), debugger.cpu.cycles_ever()

    debugger.halt()
    at = ram(debugger.cpu.board)
    with debugger.core.lock:
        debugger.port.memory.write_block(at, machine_code("udiv r0, r1, r2; bkpt 0"))
    debugger.set_register(PC, at)
    debugger.go()
    debugger.wait_halted()
    debugger.detach()
    debugger.port.assert_reset(True)
    debugger.port.assert_reset(False)
    debugger.wait_end()

    assert debugger.cpu.clock.total() == alone
    assert debugger.cpu.cycles_ever() > ever + alone.cycles


def test_the_cycle_counter_stands_still_without_trcena(debugger: Debugger, assemble) -> None:
    debugger.run(assemble(debugger.cpu.board, TIMED.replace("bne outer", "b outer")))
    time.sleep(0.02)
    debugger.write(DEMCR, 0)
    first = debugger.read(0xE000_1004)
    time.sleep(0.02)
    assert debugger.read(0xE000_1004) == first > 0

    debugger.write(DEMCR, 1 << 24)
    time.sleep(0.02)
    assert debugger.read(0xE000_1004) != first


def test_power_off_forgets_ram_and_debugger(debugger: Debugger, assemble) -> None:
    at = ram(debugger.cpu.board)
    debugger.run(assemble(debugger.cpu.board, COUNT))
    debugger.halt()
    debugger.write(DEMCR, 1)
    debugger.write(at, 0x55)
    debugger.debug.power_cycle()
    debugger.port.power_cycle()
    debugger.cpu.power_on()
    debugger.core.start()

    assert debugger.read(at) == 0
    assert not debugger.read(DHCSR) & (S_HALT | DEBUGEN)
    assert debugger.read(DEMCR) == 0
    assert debugger.port.read_dp(4) == 0


# -- locks


def test_a_locked_nrf_lets_nobody_at_its_memory(nrf: Debugger) -> None:
    nrf.cpu.flash_controller.protect()

    assert nrf.port.read_ap(1, 0x0C) == 0
    assert not nrf.port.read_ap(0, 0x00) & 1 << 6
    with pytest.raises(TransferFault, match="locked"):
        nrf.port.read_ap(0, 0x0C)


def test_the_ctrl_ap_erases_and_unlocks(nrf: Debugger, assemble) -> None:
    nrf.run(assemble(NRF, COUNT))
    nrf.cpu.flash_controller.protect()
    nrf.port.write_ap(1, 0x04, 1)
    assert nrf.port.read_ap(1, 0x08) == 0
    nrf.port.write_ap(1, 0x00, 1)
    nrf.port.write_ap(1, 0x00, 0)

    assert nrf.port.read_ap(1, 0x0C) == 1
    assert nrf.read(0) == 0xFFFF_FFFF
    assert nrf.read(0x1000_1208) == 0xFFFF_FFFF


def test_user_settings_of_the_nrf_are_flash(nrf: Debugger) -> None:
    with pytest.raises(AccessFault, match="NVMC"):
        nrf.write(0x1000_1080, 0)
    nrf.write(0x4001_E504, 1)
    nrf.write(0x1000_1080, 0xF0F0_FFFF)
    nrf.write(0x1000_1080, 0xFF00_FFFF)
    nrf.write(0x1000_1208, 0xFFFF_FF00)
    assert nrf.port.protection == "open"

    nrf.port.assert_reset(True)
    nrf.port.assert_reset(False)

    assert nrf.port.protection == "memory"
    assert nrf.read(0x1000_1080) == 0xF000_FFFF


def test_a_protected_stm32_keeps_its_flash_to_itself(stm32: Debugger) -> None:
    stm32.cpu.flash_controller.protect()

    for region in stm32.cpu.board.memory:
        if region.kind == "flash":
            with pytest.raises(AccessFault, match="protected"):
                stm32.read(region.origin)
    assert stm32.read(stm32.cpu.board.ram[0]) == 0


OPTIONS = {  # option key register, register, lock and start: (register, bit), RDP's shift
    DISCO.id: (0x4002_3C08, 0x4002_3C14, 0x4002_3C14, 1 << 1, 8),
    "nucleo_l4r5zi": (0x4002_200C, 0x4002_2020, 0x4002_2014, 1 << 17, 0),
}


def set_protection(stm32: Debugger, level: int) -> None:
    keys, register, start_in, start, shift = OPTIONS[stm32.cpu.board.id]
    if stm32.cpu.board.id != DISCO.id:
        for key in (0x45670123, 0xCDEF89AB):
            stm32.write(0x4002_2008, key)
    for key in (0x08192A3B, 0x4C5D6E7F):
        stm32.write(keys, key)
    stm32.write(register, stm32.read(register) & ~(0xFF << shift) | level << shift)
    stm32.write(start_in, stm32.read(start_in) | start)
    stm32.port.assert_reset(True)
    stm32.port.assert_reset(False)


def test_option_bytes_lock_and_unlock_an_stm32(stm32: Debugger, assemble) -> None:
    origin = stm32.cpu.board.flash_memory.origin
    stm32.run(assemble(stm32.cpu.board, COUNT))
    set_protection(stm32, 0xBB)
    with pytest.raises(AccessFault, match="protected"):
        stm32.read(origin)

    set_protection(stm32, 0xAA)

    assert stm32.read(origin) == 0xFFFF_FFFF, "going back to level 0 erases the chip"


def test_locked_option_bytes_ignore_writes(stm32: Debugger) -> None:
    register = OPTIONS[stm32.cpu.board.id][1]
    before = stm32.read(register)

    stm32.write(register, 0)

    assert stm32.read(register) == before


def test_at_level_2_the_debug_port_is_dead(stm32: Debugger) -> None:
    set_protection(stm32, 0xCC)

    with pytest.raises(NoAnswer):
        stm32.port.read_dp(0)
