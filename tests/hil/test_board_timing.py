"""The `[timing]` of board files, its overrides, and what a bad one is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hil.board import BOARDS_DIR, board_ids, get_board, load_board, with_constants
from hil.board_timing import AccessPath, Cache, OperatingPoint, Timing
from hil.errors import BoardFileError
from hil.virtual.timing import timing_model

GOOD = (BOARDS_DIR / "nucleo_l4r5zi.toml").read_text().replace('"nucleo_l4r5zi"', '"board"')
FILL = "flash.code.icache.fill_waits"


@pytest.fixture(params=board_ids())
def board_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, board: str = GOOD, overrides: str | None = None) -> Path:
    (folder / "board.toml").write_text(board)
    if overrides is not None:
        (folder / "board.timing.toml").write_text(overrides)
    return folder / "board.toml"


def test_every_constant_lies_inside_its_bounds(board_id: str) -> None:
    for name, constant in get_board(board_id).timing.constants().items():
        assert constant.lower <= constant.value <= constant.upper, name


def test_every_constant_can_be_changed_by_its_name(board_id: str) -> None:
    timing = get_board(board_id).timing
    values = {name: c.value + 0.125 for name, c in timing.constants().items()}

    changed = timing.with_constants(values).constants()

    assert {name: c.value for name, c in changed.items()} == values


def test_every_number_cites_a_source_or_says_estimate(board_id: str) -> None:
    lines = (BOARDS_DIR / f"{board_id}.toml").read_text().split("[timing.operating_point]")[1]

    costs = [
        line for line in lines.splitlines() if line.split(" = ")[0].endswith(("_cycles", "_waits"))
    ]

    assert [line for line in costs if "#" not in line] == []


def test_a_cost_is_its_cycles_and_its_wait_states() -> None:
    path = AccessPath(fill_cycles=1.5, fill_waits=2.0)

    assert path.cycles("fill", wait_states=5) == 11.5
    assert path.cycles("hit", wait_states=5) == 0


def test_a_sequential_line_without_a_cost_is_a_fill() -> None:
    path = AccessPath(fill_cycles=3.0)

    assert path.cycles("sequential") == 3.0
    assert (
        dataclasses.replace(path, sequential_waits=0.5).cycles("sequential", wait_states=2) == 1.0
    )


def test_memories_are_reached_as_the_file_says() -> None:
    timing = get_board("nucleo_l4r5zi").timing

    assert timing.paths_of("flash_boot", "flash") == timing.paths["flash"]
    assert timing.paths_of("sram3") == timing.paths["sram1"]
    assert timing.paths_of("sram2_code", "sram2") == {}


def test_the_core_s_predictor_can_be_overridden() -> None:
    board = with_constants(get_board("stm32f746g_disco"), {"core.mispredict_cycles": 5.5})

    assert board.timing.core.mispredict_cycles == 5.5
    assert board.timing.constants()["core.mispredict_cycles"].value == 5.5


def test_what_a_file_says_of_its_core_is_what_the_model_says(board_id: str) -> None:
    """It is in the file to be fitted, not to differ."""
    board = get_board(board_id)
    predictor = timing_model(board.mcu.core).core.predictor

    for name, constant in board.timing.constants().items():
        if name.startswith("core."):
            assert constant.value == getattr(predictor, name.removeprefix("core."))


def test_other_constants_make_another_board() -> None:
    board = get_board("nucleo_l4r5zi")

    changed = with_constants(board, {FILL: 1.25})

    assert changed.timing.constants()[FILL].value == 1.25
    assert board.timing.constants()[FILL].value == 1.0
    assert changed.sha256 not in ("", board.sha256)
    assert changed.sha256 == with_constants(board, {FILL: 1.25}).sha256


def test_overrides_replace_constants_and_change_the_digest(tmp_path: Path) -> None:
    plain = load_board(write(tmp_path))
    text = f'source = "a board"\n[constants]\n"{FILL}" = 1.5\n[residuals]\nflash_miss = 0.25\n'

    board = load_board(write(tmp_path, overrides=text))

    assert board.timing.constants()[FILL].value == 1.5
    assert board.timing.operating_point == plain.timing.operating_point
    assert board.sha256 != plain.sha256
    assert board_ids(tmp_path) == ["board"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[constants]\n"flash.code.icache.fill" = 1.0', r"\[constants\]: no constant 'flash.code"),
        ('[constants]\n"rom.code.icache.fill_waits" = 1', r"no constant 'rom.code.icache"),
        (f'[constants]\n"{FILL}" = -0.5', r"key 'fill_waits' is -0.5; it should be from 0 to 4"),
        (f'[constants]\n"{FILL}" = nan', r"key 'fill_waits' is nan"),
        (f'[constants]\n"{FILL}" = "fast"', r"should be a number, found 'fast'"),
        ("[constant]", r"unknown key 'constant'; known keys are constants"),
        ("", r"missing key 'constants'"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BoardFileError, match=rf"board\.timing\.toml.*{message}"):
        load_board(write(tmp_path, overrides=text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wait_states = 5", "waits = 5", r"\[timing.operating_point\]: unknown key 'waits'"),
        ("[timing.caches.icache]", "[timing.cache.icache]", r"\[timing\]: unknown key 'cache'"),
        (
            "lines = 128\nways = 4",
            "lines = 96\nways = 4",
            r"\[timing.caches.icache\]: 96 lines in 4",
        ),
        ("lines = 1\n", "lines = 0\n", r"0 lines in 0 ways are no cache"),
        ("line_bytes = 8 ", "line_bytes = 12 ", r"line_bytes is 12; it should be a power of 2"),
        ("paths.flash.code.icache", "paths.rom.code.icache", r"timing: no memory 'rom'"),
        ("paths.flash.code.icache", "paths.flash.fetch.icache", r"'fetch' should be 'code' or"),
        ("paths.flash.code.icache", "paths.flash.code.l2", r"no cache 'l2'; known are dcache"),
        (
            "fill_waits = 1.0 ",
            "fill_waits = 5 ",
            r"key 'fill_waits' is 5; it should be from 0 to 4",
        ),
        ("fill_waits = 1.0 ", "fil_waits = 1.0 ", r"icache\]: unknown key 'fil_waits'"),
        ('sram2 = "sram1"', 'sram2 = "sram3"', r"same: sram2 = 'sram3' should name a memory"),
        ('"icache", "dcache"]\n', '"icache", "art"]\n', r"operating_point: no cache 'art'"),
    ],
)
def test_a_bad_timing_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    head, found, timing = GOOD.partition("[timing.operating_point]")
    assert old in found + timing

    with pytest.raises(BoardFileError, match=message):
        load_board(write(tmp_path, head + (found + timing).replace(old, new, 1)))


def test_a_buffer_cannot_be_switched_on() -> None:
    with pytest.raises(ValueError, match="no cache 'line'"):
        Timing(
            caches={"line": Cache(line_bytes=8, lines=1, always_on=True)},
            operating_point=OperatingPoint(caches_on=("line",)),
        )
