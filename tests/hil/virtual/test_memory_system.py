"""Registers govern what memory costs; whether the costs are the chip's own, calibration says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hil.board import Board, get_board, with_constants
from hil.build import FIRMWARE_DIR
from hil.virtual.cpu import Cpu
from hil.virtual.image import load_elf
from hil.virtual.memory_system import MemorySystem
from hil.virtual.program import MemoryConsole, run_program

NRF = get_board("nrf52840_dk")
NUCLEO = get_board("nucleo_l4r5zi")
DISCO = get_board("stm32f746g_disco")

FLASH_ACR = {NUCLEO.id: 0x4002_2000, DISCO.id: 0x4002_3C00}
CCR = 0xE000_ED14


def cpu_of(board: Board) -> Cpu:
    console = MemoryConsole()
    cpu = Cpu(board, console)
    console.restart(cpu, b"")
    return cpu


def store(cpu: Cpu, address: int, value: int) -> None:
    """What a store of the program does to a register."""
    cpu._bus.write(address, 4, value)


def load(cpu: Cpu, address: int) -> int:
    peripheral = next(p for p in cpu._peripherals if p.base <= address < p.base + p.SIZE_BYTES)
    return peripheral.read(address - peripheral.base, 4)


def state(memory: MemorySystem) -> tuple[int, bool, frozenset[str]]:
    return memory.wait_states, memory.prefetch, memory.caches_on


def operating_point(board: Board) -> tuple[int, bool, frozenset[str]]:
    point = board.timing.operating_point
    return point.wait_states, point.prefetch, frozenset(point.caches_on)


# -- states


def test_after_reset_as_the_manuals_say() -> None:
    assert state(cpu_of(NRF).memory_system) == (0, False, frozenset())
    assert state(cpu_of(DISCO).memory_system) == (0, False, frozenset())
    both = frozenset({"icache", "dcache"})
    assert state(cpu_of(NUCLEO).memory_system) == (0, False, both)  # FLASH_ACR is 0x600


@pytest.fixture
def port_elf(board: Board, tmp_path: Path) -> Path:
    """A program that does nothing but the port's set-up."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    main = '#include "port.h"\nint main(void) { port_init(); return 0; }\n'
    (tmp_path / "main.c").write_text(main)
    fpu = "fpv5-sp-d16" if "fpv5-sp" in board.mcu.features else "fpv4-sp-d16"
    defines = {**board.build.defines, "HIL_CLOCK_HZ": board.mcu.clock_hz}
    defines["HIL_BAUD"] = board.link.baud
    elf = tmp_path / "port.elf"
    command = [
        *("arm-none-eabi-gcc", f"-mcpu={board.mcu.core}", "-mthumb", "-mfloat-abi=hard"),
        *(f"-mfpu={fpu}", "-O2", "--specs=rdimon.specs", "-std=c11"),
        *(f"-D{name}={value}" for name, value in defines.items()),
        *(f"-I{FIRMWARE_DIR / folder}" for folder in ("include", "src")),
        f"-Wl,-Ttext-segment={board.ram[0]:#x},--no-warn-rwx-segments",
        *(str(tmp_path / "main.c"), str(FIRMWARE_DIR / "ports" / board.build.family / "port.c")),
        *("-o", str(elf)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return elf


def test_the_port_sets_up_the_operating_point(board: Board, port_elf: Path) -> None:
    cpu = cpu_of(board)
    cpu.load(load_elf(port_elf.read_bytes(), cpu.memory))
    cpu._bus.reset()  # as after the reset pin, not as for a debugger
    assert state(cpu.memory_system) != operating_point(board)

    stop = cpu.run()

    assert stop.reason == "exit", stop.detail
    assert state(cpu.memory_system) == operating_point(board)


def test_a_program_for_a_debugger_starts_at_the_operating_point(
    board: Board, compile_c: Any
) -> None:
    elf = compile_c(board, "int main(void) { return 0; }")
    cpu = cpu_of(board)

    cpu.load(load_elf(elf.read_bytes(), cpu.memory))

    assert state(cpu.memory_system) == operating_point(board)


def test_a_program_with_a_vector_table_starts_as_after_reset(assemble: Any) -> None:
    cpu = cpu_of(NUCLEO)
    cpu.memory_system.set(wait_states=3)

    cpu.load(load_elf(assemble(NUCLEO, "start: b start").read_bytes(), cpu.memory))

    assert cpu.memory_system.wait_states == 0


# -- registers


def test_flash_acr_of_the_l4() -> None:
    cpu = cpu_of(NUCLEO)
    memory = cpu.memory_system

    store(cpu, FLASH_ACR[NUCLEO.id], 0x304)

    assert state(memory) == (4, True, frozenset({"icache"}))
    assert memory.costs("flash", "code").fill == 4.0
    assert memory.costs("flash", "code").sequential == pytest.approx(1.6)
    store(cpu, FLASH_ACR[NUCLEO.id], 0x204)
    assert memory.costs("flash", "code").sequential == 4.0, "without prefetch a miss is a miss"
    assert memory.costs("flash_boot", "code") == memory.costs("flash", "code")


def test_flash_acr_of_the_f7_governs_the_itcm_side_and_ccr_the_axi_side() -> None:
    cpu = cpu_of(DISCO)
    memory = cpu.memory_system

    store(cpu, FLASH_ACR[DISCO.id], 0x307)
    assert state(memory) == (7, True, frozenset({"art"}))
    slow = memory.costs("flash", "code")
    assert memory.costs("flash_itcm", "code").hit == 0
    store(cpu, CCR, 0x30200)

    assert memory.caches_on == {"art", "icache", "dcache"}
    assert memory.costs("flash", "code").cache != slow.cache
    assert memory.costs("sram1", "data").hit == 0
    assert memory.costs("flash_itcm", "data").fill == 7.0, "the ART keeps no data"
    for tcm in ("itcm", "dtcm"):
        for side in ("code", "data"):
            assert not any(memory.costs(tcm, side))


def test_ccr_of_an_m4_switches_no_cache() -> None:
    cpu = cpu_of(NUCLEO)
    store(cpu, FLASH_ACR[NUCLEO.id], 0)

    store(cpu, CCR, 0x30200)

    assert cpu.memory_system.caches_on == frozenset()


def test_icachecnf_of_the_nrf() -> None:
    cpu = cpu_of(NRF)
    off = cpu.memory_system.costs("flash", "code")

    store(cpu, 0x4001_E540, 1)

    assert cpu.memory_system.caches_on == {"icache"}
    assert cpu.memory_system.costs("flash", "code").cache != off.cache
    assert cpu.memory_system.costs("flash", "data").cache == off.cache, "data is not cached"


# -- what programs see

# Reads the word at r4 and the cycle counter around it: r0 = cycles.
TIME_A_LOAD = """
    .macro TIMED_LOAD
    isb
    ldr r2, [r5, #4]
    ldr r3, [r4]
    ldr r0, [r5, #4]
    subs r0, r0, r2
    .endm
"""
COUNTER_ON = """
    ldr r5, =0xe0001000
    ldr r1, =0xc5acce55
    str r1, [r5, #0xfb0]
    ldr r0, =0xe000edfc
    mov r1, #1 << 24
    str r1, [r0]
    movs r1, #1
    str r1, [r5]
"""


def cycles_of(board: Board, elf: Path) -> int:
    return run_program(board, elf.read_bytes(), set_up=False).exit_code


def test_wait_states_count_for_code_in_flash(assemble: Any) -> None:
    """A long run of code over lines that were never used."""
    text = """start: ldr r4, =0x40022000
    ldr r0, ={acr}
    str r0, [r4]
    b 1f
    .balign 256
    1: .rept 512
    nop
    .endr
    movs r0, #0
    EXIT"""
    runs = [
        run_program(NUCLEO, elf.read_bytes(), set_up=False).cycles
        for elf in (assemble(NUCLEO, text.format(acr=acr)) for acr in (0x600, 0x605, 0x705))
    ]

    fast, slow, prefetched = runs

    assert slow - fast == pytest.approx(512 * 2 / 8 * 5, rel=0.1)
    assert prefetched - fast == pytest.approx(512 * 2 / 8 * 5 * 0.4, rel=0.15)


def test_a_loop_that_fits_costs_its_wait_states_once(assemble: Any) -> None:
    text = """start: ldr r4, =0x40022000
    ldr r0, ={acr}
    str r0, [r4]
    ldr r1, =10000
    1: nop
    nop
    nop
    nop
    subs r1, #1
    bne 1b
    movs r0, #0
    EXIT"""
    fast, slow, uncached = (
        run_program(NUCLEO, elf.read_bytes(), set_up=False).cycles
        for elf in (assemble(NUCLEO, text.format(acr=acr)) for acr in (0x600, 0x605, 0x005))
    )

    assert 0 < slow - fast < 100
    assert uncached - fast >= 10_000 * 5


@pytest.mark.parametrize(
    ("after", "again"),
    [
        ("nop", "hits"),
        ("ldr r0, =0xe000ef5c\nldr r1, =0x08080000\nstr r1, [r0]", "misses"),  # DCIMVAC
        ("ldr r0, =0xe000ef5c\nldr r1, =0x08080040\nstr r1, [r0]", "hits"),
        ("ldr r0, =0xe000ef74\nmovs r1, #0\nstr r1, [r0]", "misses"),  # DCCISW
        ("ldr r0, =0xe000ef50\nmovs r1, #0\nstr r1, [r0]", "hits"),  # ICIALLU: not of the data
    ],
)
def test_cache_maintenance_of_the_m7(assemble: Any, after: str, again: str) -> None:
    text = f"""{TIME_A_LOAD}
    start: {COUNTER_ON}
    ldr r0, =0xe000ed14
    ldr r1, =0x30200
    str r1, [r0]
    ldr r4, =0x08080000
    TIMED_LOAD
    mov r6, r0
    {after}
    TIMED_LOAD
    subs r0, r6, r0
    EXIT"""

    gained = cycles_of(DISCO, assemble(DISCO, text))

    fill = DISCO.timing.paths["flash"]["data"]["dcache"].cycles("fill", wait_states=0)
    assert gained == pytest.approx(fill if again == "hits" else 0, abs=1)


def test_one_flash_two_paths(assemble: Any) -> None:
    """The same bytes over AXI and over ITCM, data uncached: different times."""
    text = f"""{TIME_A_LOAD}
    start: {COUNTER_ON}
    ldr r0, =0x40023c00
    movs r1, #7
    str r1, [r0]
    ldr r0, =0xe000ed14
    ldr r1, =0x20200
    str r1, [r0]
    ldr r4, ={{address}}
    TIMED_LOAD
    EXIT"""
    axi, itcm = (
        cycles_of(DISCO, assemble(DISCO, text.format(address=address)))
        for address in ("0x08080004", "0x00280004")
    )

    paths = DISCO.timing.paths
    expected = paths["flash"]["data"]["flash_line"].cycles("fill", 7)
    expected -= paths["flash_itcm"]["data"]["itcm_line"].cycles("fill", 7)
    assert axi - itcm == pytest.approx(expected, abs=1)


def test_cache_counters_of_the_nrf(assemble: Any) -> None:
    text = """start: ldr r4, =0x4001e000
    ldr r0, =0x101
    str r0, [r4, #0x540]
    movs r1, #100
    1: subs r1, #1
    bne 1b
    ldr r0, [r4, #{register:#x}]
    {then}
    EXIT"""
    hits, misses, cleared = (
        cycles_of(NRF, assemble(NRF, text.format(register=register, then=then)))
        for register, then in (
            (0x548, ""),
            (0x54C, ""),
            (0x548, "str r1, [r4, #0x548]\nldr r0, [r4, #0x548]"),
        )
    )

    assert 95 <= hits <= 205
    assert 1 <= misses <= 8
    assert 0 <= cleared < 4


def test_constants_of_the_board_are_what_the_program_waits(assemble: Any) -> None:
    text = """start: ldr r4, =0x80000
    ldr r1, =1000
    1: ldr r0, [r4], #16
    subs r1, #1
    bne 1b
    movs r0, #0
    EXIT"""
    elf = assemble(NRF, text).read_bytes()
    name = "flash.data.read_buffer.fill_cycles"

    plain = run_program(NRF, elf).cycles
    slower = run_program(with_constants(NRF, {name: 2.5}), elf).cycles

    assert slower - plain == pytest.approx(500, abs=10)


def test_two_runs_take_the_same_time(board: Board, compile_c: Any) -> None:
    elf = compile_c(board, '#include <stdio.h>\nint main(void) { puts("x"); return 0; }')

    first = run_program(board, elf.read_bytes())

    assert run_program(board, elf.read_bytes()) == first
