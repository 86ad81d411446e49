from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from pyocd.core.memory_map import MemoryType
from pyocd.target import TARGET

from hil.board import board_ids, get_board
from hil.pyocd_targets import Stm32, Stm32f746ng, Stm32l4r5zi, register
from hil.virtual.image import sector_ranges

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "firmware" / "flash_algorithms"


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


@pytest.mark.parametrize("board_id", board_ids())
def test_the_flash_of_a_target_is_that_of_its_board(board_id: str) -> None:
    board = get_board(board_id)
    flash = board.flash_memory
    target = TARGET[board.flash.target_of("pyocd")]
    memory_map = target.MAP if hasattr(target, "MAP") else target.MEMORY_MAP

    regions = memory_map.iter_matching_regions(type=MemoryType.FLASH)
    sectors = [
        (start - flash.origin, start - flash.origin + region.sector_size)
        for region in regions
        if flash.origin <= region.start < flash.end
        for start in range(region.start, region.end + 1, region.sector_size)
    ]

    assert sectors == sector_ranges(flash)


@pytest.mark.parametrize("board_id", ["stm32f746g_disco", "nucleo_l4r5zi"])
def test_algorithm_stack_buffers_and_checksums_share_no_bytes(board_id: str) -> None:
    board = get_board(board_id)
    regions = list(TARGET[board.flash.target].MAP.iter_matching_regions(type=MemoryType.FLASH))

    for region in regions:
        algorithm = region.algo
        code_bytes = 4 * len(algorithm["instructions"])
        page_bytes = region.page_size
        areas = [
            (algorithm["load_address"], code_bytes),
            (algorithm["begin_stack"] - 0x200, 0x200),
            *((buffer, page_bytes) for buffer in algorithm["page_buffers"]),
            (algorithm["analyzer_address"], 0x600),
        ]
        start, size = board.ram
        assert all(start <= at and at + length <= start + size for at, length in areas)
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(areas))
        # pyOCD packs an address in pages into the upper 16 bits of a word
        assert region.end // page_bytes < 1 << 16


@pytest.mark.parametrize(
    ("source", "target"), [("stm32f74x", Stm32f746ng), ("stm32l4plus", Stm32l4r5zi)]
)
def test_an_embedded_algorithm_is_that_of_its_source(
    source: str, target: type[Stm32], tmp_path: Path
) -> None:
    """Assembled, not compiled: every version of the assembler gives the same words."""
    assembled, binary = tmp_path / "a.o", tmp_path / "a.bin"
    subprocess.run(
        ["arm-none-eabi-as", "-o", assembled, SOURCES / f"{source}.S"], check=True, timeout=60
    )
    cut = ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", assembled, binary]
    subprocess.run(cut, check=True, timeout=60)
    listing = subprocess.run(
        ["arm-none-eabi-nm", "-g", assembled], check=True, capture_output=True, text=True
    ).stdout

    data = binary.read_bytes()
    words = list(struct.unpack(f"<{len(data) // 4}I", data))
    entries = {line.split()[2]: int(line.split()[0], 16) for line in listing.splitlines()}

    algorithm = next(iter(target.MAP.iter_matching_regions(type=MemoryType.FLASH))).algo
    assert algorithm["instructions"] == words
    for key, symbol in (
        ("pc_init", "init"),
        ("pc_unInit", "uninit"),
        ("pc_erase_sector", "erase_sector"),
        ("pc_program_page", "program_page"),
    ):
        assert algorithm[key] == algorithm["load_address"] + entries[symbol] + 1


@pytest.mark.parametrize("level", [0x00, 0xBB, 0xCC])
def test_any_level_but_0xaa_is_read_protection(level: int) -> None:
    target = Stm32l4r5zi.__new__(Stm32l4r5zi)
    target.read32 = lambda address: 0xFFEF_F800 | level  # type: ignore[method-assign]
    assert target.is_locked()

    target.read32 = lambda address: 0xFFEF_F8AA  # type: ignore[method-assign]
    assert not target.is_locked()


def test_pyocds_own_command_line_knows_the_targets() -> None:
    pyocd = Path(sys.executable).with_name("pyocd")

    listing = subprocess.run(
        [pyocd, "json", "--targets"], check=True, capture_output=True, text=True, timeout=120
    )

    names = {target["name"] for target in json.loads(listing.stdout)["targets"]}
    assert {"nrf52840", "stm32f746ng", "stm32l4r5zi"} <= names
