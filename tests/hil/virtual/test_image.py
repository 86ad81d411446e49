"""ELF files: what is refused, why, and what programming does to the flash."""

from __future__ import annotations

import contextlib
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.board import board_ids, get_board
from hil.virtual.image import (
    Image,
    ImageError,
    Segment,
    load_elf,
    parse_elf,
    sector_ranges,
    write_image,
)
from hil.virtual.memory import MemoryMap

NRF = get_board("nrf52840_dk")
DISCO = get_board("stm32f746g_disco")


def _elf(segments, *, machine=40, kind=2, entry=1, ident=b"\x7fELF\x01\x01\x01", offsets=None):
    """An ELF file with these (address, data) segments."""
    header_bytes, table_bytes = 52, 32 * len(segments)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        ident,
        kind,
        machine,
        1,
        entry,
        header_bytes,
        0,
        0,
        header_bytes,
        32,
        len(segments),
        0,
        0,
        0,
    )
    table, body = b"", b""
    for number, (address, data) in enumerate(segments):
        offset = header_bytes + table_bytes + len(body) if offsets is None else offsets[number]
        table += struct.pack("<8I", 1, offset, address, address, len(data), len(data), 5, 4)
        body += data
    return header + table + body


GOOD = _elf([(0x0, b"abcd" * 8), (0x2000_0000, b"data")])


def test_segments_go_to_their_physical_addresses():
    image = load_elf(GOOD, MemoryMap(NRF))

    assert [(s.address, s.data) for s in image.segments] == [
        (0, b"abcd" * 8),
        (0x2000_0000, b"data"),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an ELF file: it starts with nothing"),
        (b"\x7fEL", "not an ELF file"),
        (GOOD[:40], "the ELF header is cut off after 40 B"),
        (GOOD[:80], "program headers at offset 52 do not lie in the file"),
        (GOOD[:-1], "is it cut off"),
        (_elf([(0, b"x")], machine=62), "made for ELF machine 62, not for Arm"),
        (_elf([(0, b"x")], kind=1), "ELF type 1 is not an executable"),
        (_elf([(0, b"x")], ident=b"\x7fELF\x02\x01\x01"), "not a 32-bit little-endian ELF file"),
        (_elf([(0, b"x")], offsets=[0xFFFF_FFFF]), "wants 1 B from offset 4,294,967,295"),
        (_elf([]), "nothing to load"),
        (
            _elf([(0x3000_0000, b"x" * 8)]),
            "segment 0x30000000-0x30000007 leaves the memory of nrf52840_dk at 0x30000000",
        ),
        (_elf([(0x000F_FFFC, b"x" * 8)]), "leaves the memory of nrf52840_dk at 0x00100000"),
        (_elf([(0xFFFF_FFFC, b"x" * 8)]), "leaves the memory"),
    ],
)
def test_what_cannot_be_loaded_is_named(data, reason):
    with pytest.raises(ImageError) as caught:
        load_elf(data, MemoryMap(NRF))

    assert reason in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_named_error(tail):
    for data in (tail, GOOD[:20] + tail, GOOD[:52] + tail):
        with contextlib.suppress(ImageError):
            parse_elf(data)


def test_adjoining_memories_take_one_segment():
    """DTCM, SRAM1 and SRAM2 of the F746 are one run of RAM."""
    memory = MemoryMap(DISCO)
    data = bytes(range(256)) * 8
    start = 0x2001_0000 - 1024

    write_image(load_elf(_elf([(start, data)]), memory), memory)

    assert memory.read(start, len(data)) == data


def test_programming_erases_the_sectors_that_it_touches_and_no_others():
    memory = MemoryMap(DISCO)
    flash = memory.find(0x0800_0000)
    flash.data[:] = bytes(len(flash.data))

    write_image(Image(1, (Segment(0x0800_8000, b"new", 0x0800_8000),)), memory)

    assert bytes(flash.data[0x8000:0x8003]) == b"new"
    assert bytes(flash.data[0x8003:0x10000]) == b"\xff" * (0x8000 - 3)
    assert not any(flash.data[:0x8000])
    assert not any(flash.data[0x10000:])


def test_an_alias_shows_and_takes_the_same_bytes():
    memory = MemoryMap(DISCO)

    write_image(Image(1, (Segment(0x0020_0010, b"itcm", 0x0020_0010),)), memory)

    assert memory.read(0x0800_0010, 4) == b"itcm"


@pytest.mark.parametrize("board_id", board_ids())
def test_erase_units_cover_the_flash(board_id):
    ranges = sector_ranges(get_board(board_id).flash_memory)

    assert ranges[0][0] == 0
    assert ranges[-1][1] == get_board(board_id).flash_bytes
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
