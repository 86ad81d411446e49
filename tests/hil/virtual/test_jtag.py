"""The JTAG chain of virtual STM32 boards, bit by bit and by the real OpenOCD."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil import flash
from hil.board import Board, Flash, get_board
from hil.errors import ChipLocked
from hil.virtual.jtag_server import CHAINS, JtagPort, JtagServer
from tests.support.debuggers import PC, Debugger, symbols

IDCODE, DPACC, APACC = 0xE, 0xA, 0xB
_DEADLINE_S = 20.0
needs_openocd = pytest.mark.skipif(
    shutil.which("openocd") is None, reason="needs openocd: apt-get install openocd"
)


@pytest.fixture(scope="module", params=["stm32f746g_disco", "nucleo_l4r5zi"])
def debugger(request: pytest.FixtureRequest) -> Debugger:
    return Debugger(get_board(request.param))


@pytest.fixture(autouse=True)
def fresh(debugger: Debugger) -> Iterator[None]:
    yield
    assert debugger.cpu.flash_controller is not None
    debugger.core.give_up()
    debugger.cpu.flash_controller.erase_chip()
    debugger.debug.power_cycle()
    debugger.port.power_cycle()
    debugger.cpu.power_on()


@pytest.fixture
def server(debugger: Debugger) -> Iterator[JtagServer]:
    server = JtagServer(debugger.port, CHAINS[debugger.cpu.board.build.family])
    yield server
    server.close()


class Wires:
    """A JTAG adapter."""

    def __init__(self, debugger: Debugger) -> None:
        self.port = JtagPort(debugger.port, CHAINS[debugger.cpu.board.build.family])
        for _ in range(5):
            self.port.clock(1, 0)
        self.port.clock(0, 0)

    def shift(self, bits: int, value: int) -> int:
        """Through the register that is selected, then to Update and Run-Test/Idle."""
        result = 0
        for i in range(bits):
            result |= self.port.tdo << i
            self.port.clock(int(i == bits - 1), value >> i & 1)
        self.port.clock(1, 0)
        self.port.clock(0, 0)
        return result

    def instruction(self, core: int, scan: int = 0x1F) -> int:
        for tms in (1, 1, 0, 0):
            self.port.clock(tms, 0)
        return self.shift(9, scan << 4 | core)

    def data(self, bits: int, value: int = 0) -> int:
        for tms in (1, 0, 0):
            self.port.clock(tms, 0)
        return self.shift(bits, value)

    def access(self, instruction: int, register: int, value: int | None = None) -> int:
        """What the access before this one gave, with its acknowledge in the lower three bits."""
        self.instruction(instruction)
        word = (value or 0) << 3 | register >> 1 | (value is None)
        return self.data(36, word) & (1 << 35) - 1


def test_both_taps_say_who_they_are(debugger: Debugger) -> None:
    chain = CHAINS[debugger.cpu.board.build.family]

    assert Wires(debugger).data(64) == chain.scan << 32 | chain.core


def test_an_instruction_register_starts_with_01(debugger: Debugger) -> None:
    assert Wires(debugger).instruction(IDCODE) == 0b00001_0001


def test_bypassed_taps_are_a_bit_each(debugger: Debugger) -> None:
    wires = Wires(debugger)
    wires.instruction(0xF)

    assert wires.data(10, 0b10_1101_1011) == 0b10_1101_1011 << 2 & 0x3FF


def test_memory_is_reached(debugger: Debugger) -> None:
    wires, at = Wires(debugger), debugger.cpu.board.ram[0] + 0x100
    wires.access(DPACC, 4, 0x5000_0000)
    wires.access(APACC, 0x0, 0x2300_0012)
    for value in (7, 9):
        wires.access(APACC, 0x4, at)
        wires.access(APACC, 0xC, value)
    wires.access(APACC, 0x4, at)
    wires.access(APACC, 0xC)

    assert wires.access(DPACC, 0xC) == 9 << 3 | 0b010
    assert debugger.read(at) == 9


def test_a_fault_is_a_flag_until_it_is_written(debugger: Debugger) -> None:
    wires = Wires(debugger)
    wires.access(DPACC, 4, 0x5000_0000)
    wires.access(APACC, 0x4, 0x3000_0000)
    wires.access(APACC, 0xC)
    wires.access(DPACC, 4)
    assert wires.access(DPACC, 0xC) >> 3 & 1 << 5

    wires.access(DPACC, 4, 0x5000_0020)
    wires.access(DPACC, 4)
    assert not wires.access(DPACC, 0xC) >> 3 & 1 << 5


def test_any_bytes_are_wires_or_nothing(debugger: Debugger, server: JtagServer) -> None:
    with socket.create_connection(("127.0.0.1", server.tcp_port), timeout=_DEADLINE_S) as client:
        client.sendall(bytes(range(256)) * 4 + b"R")
        client.shutdown(socket.SHUT_WR)
        answers = b""
        while data := client.recv(4096):
            answers += data

    assert set(answers) <= set(b"01")


@pytest.fixture
def bench(
    debugger: Debugger, server: JtagServer, tmp_path: Path, assemble
) -> tuple[Board, Path, int]:
    """The board as OpenOCD is told of it, a program of nothing but flash, and its only loop."""
    config = tmp_path / "board.cfg"
    config.write_text(
        "adapter driver remote_bitbang\nremote_bitbang host 127.0.0.1\n"
        f"remote_bitbang port {server.tcp_port}\n"
        f"source [find target/{debugger.cpu.board.build.family}x.cfg]\n"
        "gdb_port disabled\ntcl_port disabled\ntelnet_port disabled\n"
    )
    board = dataclasses.replace(debugger.cpu.board, flash=Flash("openocd", str(config)))
    elf = assemble(board, "start: movs r0, #42\nhere: b here\n")
    objcopy = ["arm-none-eabi-objcopy", "-R", ".data", str(elf), str(elf)]
    subprocess.run(objcopy, check=True, timeout=60)
    return board, elf, symbols(elf)["here"]


@needs_openocd
@pytest.mark.slow
def test_the_real_openocd_flashes_starts_and_skips(
    debugger: Debugger, bench: tuple[Board, Path, int]
) -> None:
    board, elf, loop = bench

    first = flash.program(board, elf, place="bitbang", method="openocd")
    second = flash.program(board, elf, place="bitbang", method="openocd")

    assert first.written_bytes > 0
    assert second.written_bytes == 0
    assert second.skipped_bytes > 0
    assert debugger.core.is_running
    debugger.halt()
    assert debugger.register(PC) == loop
    assert debugger.register(0) == 42


@needs_openocd
@pytest.mark.slow
def test_the_real_openocd_does_not_write_a_locked_chip(
    debugger: Debugger, bench: tuple[Board, Path, int]
) -> None:
    board, elf, _ = bench
    controller = debugger.cpu.flash_controller
    assert controller is not None
    controller.protect()

    with pytest.raises(ChipLocked):
        flash.program(board, elf, place="bitbang", method="openocd")

    assert set(debugger.cpu.memory.read(board.flash_memory.origin, 0x200) or b"") == {0xFF}
