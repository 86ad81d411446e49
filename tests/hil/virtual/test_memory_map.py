"""The core sees exactly the memory of the board file: every range to its ends, nothing beside."""

from __future__ import annotations

import dataclasses

import pytest

from hil.board import get_board
from hil.errors import BoardFileError, TargetFault
from hil.virtual.memory import MemoryMap
from hil.virtual.program import run_program


def _read(board, assemble, address, instruction="ldrb"):
    text = f"start: ldr r1, ={address:#x}\n{instruction} r0, [r1]\nmovs r0, #1\nEXIT\n"
    return run_program(board, assemble(board, text, f"at_{address:x}").read_bytes())


def test_the_ends_of_every_memory_can_be_read(board, assemble):
    for memory in board.memory:
        for address in (memory.origin, memory.end - 1):
            assert _read(board, assemble, address).exit_code == 1


def test_what_lies_beside_a_memory_is_a_fault(board, assemble):
    inside = [(m.origin, m.end) for m in board.memory]
    beside = {a for m in board.memory for a in (m.origin - 1, m.end)}
    outside = sorted(a for a in beside if a >= 0 and not any(s <= a < e for s, e in inside))
    assert outside

    for address in outside:
        with pytest.raises(
            TargetFault, match=f"read of 1 bytes at 0x{address:08x} outside the memory map"
        ):
            _read(board, assemble, address)


def test_ram_takes_writes_up_to_its_end_and_flash_takes_none(board, assemble):
    start, size_bytes = board.ram
    assert _read(board, assemble, start + size_bytes - 4, "str").exit_code == 1

    with pytest.raises(TargetFault, match="flash is written while"):
        _read(board, assemble, board.flash_memory.end - 4, "str")


def test_flash_that_nobody_wrote_is_erased(board, assemble):
    last_word = board.flash_memory.end - 4
    text = f"start: ldr r1, ={last_word:#x}\nldr r0, [r1]\nlsrs r0, r0, #24\nEXIT\n"

    assert run_program(board, assemble(board, text, "erased").read_bytes()).exit_code == 0xFF


def test_ram_is_one_piece_for_an_access_across_a_border(board, assemble):
    """Unaligned words across DTCM and SRAM1, SRAM1 and SRAM2."""
    borders = [m.end for m in board.memory if any(o.origin == m.end for o in board.memory)]

    for border in borders:
        assert _read(board, assemble, border - 2, "ldr").exit_code == 1


def test_memory_among_the_peripherals_is_refused():
    nrf = get_board("nrf52840_dk")
    memory = tuple(
        dataclasses.replace(m, origin=0x4000_0000) if m.name == "ram" else m for m in nrf.memory
    )

    with pytest.raises(BoardFileError, match="'ram' reaches into the peripherals"):
        MemoryMap(dataclasses.replace(nrf, memory=memory))
