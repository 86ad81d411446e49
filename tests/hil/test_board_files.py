"""Every file in boards/, whoever added it, and what a bad one is told."""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path

import pytest

from hil import flash
from hil.board import BOARDS_DIR, board_ids, get_board, load_board
from hil.build import FIRMWARE_DIR
from hil.errors import BoardFileError, BoardNotFound

GOOD = (BOARDS_DIR / "nrf52840_dk.toml").read_text()


@pytest.fixture(params=board_ids())
def board_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_id_is_the_file_name(board_id: str) -> None:
    assert get_board(board_id).id == board_id


def test_platformio_has_an_environment_of_that_name(board_id: str) -> None:
    ini = configparser.ConfigParser()
    ini.read(FIRMWARE_DIR / "platformio.ini")

    assert f"env:{board_id}" in ini.sections()


def test_the_family_has_a_port(board_id: str) -> None:
    assert (FIRMWARE_DIR / "ports" / get_board(board_id).build.family / "port.c").is_file()


def test_a_port_reads_every_define_of_its_boards(board_id: str) -> None:
    build = get_board(board_id).build
    port = (FIRMWARE_DIR / "ports" / build.family / "port.c").read_text()

    assert [name for name in build.defines if not re.search(rf"\b{name}\b", port)] == []


def test_the_flashing_method_exists(board_id: str) -> None:
    assert get_board(board_id).flash.method in flash.method_names()


def test_sizes_are_plausible(board_id: str) -> None:
    board = get_board(board_id)

    assert 16 * 1024 <= board.ram_bytes <= 2 * 1024 * 1024
    assert 64 * 1024 <= board.flash_bytes <= 4 * 1024 * 1024
    assert 16_000_000 <= board.mcu.clock_hz <= 1_000_000_000
    assert 1_500 <= board.supply.voltage_mv <= 5_500
    assert 100 <= board.supply.active_ua <= 1_000_000
    assert len(board.supply.source) > 10


def test_memories_do_not_overlap_and_aliases_name_one(board_id: str) -> None:
    memories = get_board(board_id).memory

    ordered = sorted(memories, key=lambda memory: memory.origin)
    for below, above in itertools.pairwise(ordered):
        assert below.end <= above.origin, (below.name, above.name)
    names = [memory.name for memory in memories]
    assert len(set(names)) == len(names)
    for memory in memories:
        if memory.alias_of is not None:
            original = next(other for other in memories if other.name == memory.alias_of)
            assert original.size_bytes == memory.size_bytes


def test_erase_units_cover_the_flash(board_id: str) -> None:
    memory = get_board(board_id).flash_memory
    units = memory.erase_bytes

    assert units
    assert memory.size_bytes % units[0] == 0 if len(units) == 1 else sum(units) == memory.size_bytes


def test_usb_ids_are_four_hexadecimal_digits_twice(board_id: str) -> None:
    for usb_id in get_board(board_id).link.usb_ids:
        assert re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", usb_id)


def test_the_readme_describes_every_key(board_id: str) -> None:
    readme = (BOARDS_DIR / "README.md").read_text()
    keys = re.findall(r"^([a-z_]+) = ", (BOARDS_DIR / f"{board_id}.toml").read_text(), re.MULTILINE)

    assert [key for key in keys if f"`{key}`" not in readme] == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "clock_hz = 64_000_000",
            "clock_mhz = 64",
            r"board\.toml \[mcu\]: unknown key 'clock_mhz'; known keys are part, core, features",
        ),
        (
            "clock_hz = 64_000_000",
            'clock_hz = "64 MHz"',
            r"board\.toml \[mcu\]: key 'clock_hz' should be an integer, found '64 MHz'",
        ),
        ("clock_hz = 64_000_000", "", r"board\.toml \[mcu\]: missing key 'clock_hz'"),
        ("size_bytes = 262_144", "size_bytes = true", r"\[memory\]: key 'size_bytes' should be an"),
        ('core = "cortex-m4"', 'core = "cortex-m99"', r"known values are 'cortex-m4', 'cortex-m7'"),
        ('method = "pyocd"', 'method = "opencd"', r"\[flash\]: key 'method' is 'opencd'; known"),
        ("UART_TX_PIN = 6", 'UART_TX_PIN = "P0.06"', r"\[build\.defines\]: key 'UART_TX_PIN'"),
        ('id = "board"', 'id = "other"', r"id 'other' must equal the file name 'board'"),
        ('kind = "ram"', 'kind = "flash"', r"\[memory\]: no memory of kind 'ram'"),
        (
            "clock_hz = 64_000_000",
            "clock_hz = 0",
            r"\[mcu\]: key 'clock_hz' is 0; it should be more",
        ),
        (
            "size_bytes = 262_144",
            "size_bytes = 0",
            r"\[memory\]: memory 'ram' is 0 B at 0x20000000",
        ),
        ("size_bytes = 262_144", "size_bytes = -4096", r"memory 'ram' is -4,096 B"),
        ("size_bytes = 262_144", "size_bytes = 0x1_0000_0000", r"in the 32-bit address space"),
        ("origin = 0x2000_0000", "origin = 0x1000", r"memories 'flash' and 'ram' overlap"),
        ('name = "ram"', 'name = "flash"', r"two memories have one name"),
        ('alias_of = "ram"', 'alias_of = "x"', r"'code_ram': alias_of 'x' should name"),
        ("erase_bytes = [4096]", "erase_bytes = [0]", r"'flash': erase_bytes \[0\] should cover"),
        ("erase_bytes = [4096]", "erase_bytes = [4096, 4096]", r"should cover its 1,048,576 B"),
        ("baud = 115_200", "baud = 0", r"\[link\]: key 'baud' is 0"),
        ('"1366:1015"', '"1366"', r"\[link\]: USB id '1366' should be like '1366:1015'"),
        ("voltage_mv = 3000", "voltage_mv = -1", r"\[supply\]: key 'voltage_mv' is -1"),
        ('id = "board"', 'id = "my board"', r"id 'my board' should be lower-case letters"),
        ("[mcu]", "[mcu", r"board\.toml: is not valid TOML"),
        ("[supply]", "[power]", r"board\.toml: unknown key 'power'"),
    ],
)
def test_a_bad_file_names_file_table_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = GOOD.replace('id = "nrf52840_dk"', 'id = "board"')
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new))

    with pytest.raises(BoardFileError, match=message):
        load_board(path)


def test_an_unknown_board_lists_those_that_exist() -> None:
    with pytest.raises(BoardNotFound, match=", ".join(board_ids())):
        get_board("nrf52840")
