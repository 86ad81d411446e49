"""Micro-benchmarks and the fit, on virtual boards: what they find has to be what was put in."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hil import cli_timing
from hil.board import board_ids, get_board, with_constants
from hil.board_timing import read_overrides
from hil.calibrate import Image, Reading, Twin, build_image, measure
from hil.calibration import calibrated, fit_constants
from hil.cli import app
from hil.fitting import Parameter, fit
from hil.microbenchmarks import microbenchmarks
from hil.virtual.place import VirtualPlace

M4_BOARDS = [b for b in board_ids() if get_board(b).mcu.core == "cortex-m4"]
M7_BOARDS = [b for b in board_ids() if get_board(b).mcu.core == "cortex-m7"]
RECOVERED = 0.02
SEEDS = {"cortex-m4": range(4), "cortex-m7": range(1)}
MORE_SEEDS = {"cortex-m4": range(4, 12), "cortex-m7": range(1, 5)}


@functools.cache
def image_of(board_id: str) -> Image:
    return build_image(get_board(board_id))


@functools.cache
def readings_of(board_id: str) -> list[Reading]:
    return Twin(image_of(board_id)).measure(get_board(board_id))


def inexact(board_id: str) -> tuple[list[str], int]:
    """(rules that the twin does not follow to the cycle, how many there are)."""
    timed = [r for r in readings_of(board_id) if r.benchmark.row.cycles is not None]
    wrong = [
        f"{r.benchmark.name}: {r.cycles:g} instead of {r.benchmark.row.cycles:g} "
        f"({r.benchmark.row.source})"
        for r in timed
        if r.cycles != r.benchmark.row.cycles
    ]
    return wrong, len(timed)


@pytest.mark.parametrize("board_id", M4_BOARDS)
def test_a_cortex_m4_follows_every_rule_to_the_cycle(board_id: str) -> None:
    wrong, count = inexact(board_id)

    assert count >= 50
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("board_id", M7_BOARDS)
def test_a_cortex_m7_follows_nine_rules_of_ten_to_the_cycle(board_id: str) -> None:
    wrong, count = inexact(board_id)

    print("\n".join(wrong))
    assert count >= 80
    assert len(wrong) <= 0.1 * count, "\n".join(wrong)


def test_every_expected_number_of_cycles_has_a_source() -> None:
    for board_id in board_ids():
        rows = {b.row.name: b.row for b in microbenchmarks(get_board(board_id))}
        assert all(row.source for row in rows.values() if row.cycles is not None)


def changed_constants(board_id: str, seed: int) -> dict[str, float]:
    """Anywhere in the lower half of their bounds."""
    random = np.random.default_rng(seed)
    constants = get_board(board_id).timing.constants()
    assert constants
    return {name: float(random.uniform(0.05, 0.5) * c.upper) for name, c in constants.items()}


def recovers(board_id: str, seed: int) -> None:
    """What the constants were changed to is found back from what was measured then."""
    board, image = get_board(board_id), image_of(board_id)
    true = changed_constants(board_id, seed)

    found = fit_constants(image, Twin(image).measure(with_constants(board, true)))

    assert not found.undetermined
    assert found.values == pytest.approx(true, rel=RECOVERED)


@pytest.mark.parametrize("board_id", M4_BOARDS)
def test_the_fit_finds_the_constants_of_a_board_behind_a_serial_port(board_id: str) -> None:
    board, image = get_board(board_id), image_of(board_id)
    true = changed_constants(board_id, 100)

    with VirtualPlace(with_constants(board, true)) as place:
        found = fit_constants(image, measure(place, image))

    assert found.values == pytest.approx(true, rel=RECOVERED)


@pytest.mark.parametrize(
    ("board_id", "seed"),
    [(b, seed) for b in board_ids() for seed in SEEDS[get_board(b).mcu.core]],
)
def test_the_fit_finds_changed_constants_back(board_id: str, seed: int) -> None:
    recovers(board_id, seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board_id", "seed"),
    [(b, seed) for b in board_ids() for seed in MORE_SEEDS[get_board(b).mcu.core]],
)
def test_the_fit_finds_changed_constants_back_with_more_seeds(board_id: str, seed: int) -> None:
    recovers(board_id, seed)


def test_a_constant_that_nothing_depends_on_stays_and_is_named() -> None:
    matrix = np.random.default_rng(1).uniform(0, 3, (9, 3))
    matrix[:, 2] = 0.0
    true = {"a": 4.0, "b": 0.0, "c": 7.0}
    start = {name: Parameter(2.0, 0.0, 64.0) for name in true}
    measured = matrix @ np.array(list(true.values()))

    found = fit(start, measured, np.ones(9), lambda v: matrix @ np.array(list(v.values())))

    assert found.undetermined == ("c",)
    assert found.values == pytest.approx({"a": 4.0, "b": 0.0, "c": 2.0}, abs=1e-6)
    assert set(found.standard_errors) == {"a", "b"}


def test_of_two_constants_that_only_occur_together_one_is_fitted() -> None:
    column = np.random.default_rng(1).uniform(1, 3, 9)
    start = {"a": Parameter(2.0, 0.0, 64.0), "b": Parameter(2.0, 0.0, 64.0)}

    found = fit(start, 5 * column, np.ones(9), lambda v: column * (v["a"] + v["b"]))

    assert len(found.undetermined) == 1
    assert found.values["a"] + found.values["b"] == pytest.approx(5.0)


def test_a_fit_stays_within_the_bounds() -> None:
    column = np.random.default_rng(1).uniform(1, 3, 9)

    found = fit({"a": Parameter(1.0, 0.0, 4.0)}, 9 * column, np.ones(9), lambda v: column * v["a"])

    assert found.values == {"a": pytest.approx(4.0)}


def test_the_timing_file_overrides_the_board_file(tmp_path: Path) -> None:
    board, image = get_board("nrf52840_dk"), image_of("nrf52840_dk")
    true = {name: 7.25 for name in board.timing.constants()}
    report = calibrated(
        place="desk",
        source="hardware",
        image=image,
        readings=Twin(image).measure(with_constants(board, true)),
        timing_model="cortex-m4/2",
        with_fit=True,
    )
    path = tmp_path / "nrf52840_dk.timing.toml"

    path.write_text(report.timing_file())

    constants = read_overrides(path, board.timing).constants()
    assert {name: c.value for name, c in constants.items()} == pytest.approx(true, rel=RECOVERED)
    assert report.mean < 0.01
    assert 'source = "hardware"' in path.read_text()


def test_the_command_measures_a_virtual_place_over_its_serial_port(tmp_path: Path) -> None:
    json_path, out = tmp_path / "found.json", tmp_path / "found.timing.toml"
    arguments = ["calibrate", "--board", "virtual:nrf52840_dk", "--json", str(json_path)]

    result = CliRunner().invoke(app, [*arguments, "--out", str(out)])

    assert result.exit_code == 0, result.output
    found = json.loads(json_path.read_text())
    assert found["source"] == "virtual"
    assert found["worst_difference"] == 0.0
    assert found["fit"]["undetermined"] == []
    assert 'source = "virtual"' in out.read_text()
    assert read_overrides(out, get_board("nrf52840_dk").timing)


def test_a_virtual_place_writes_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    written = get_board("nrf52840_dk").sha256

    result = CliRunner().invoke(app, ["calibrate", "--board", "virtual:nrf52840_dk"])

    assert result.exit_code == 0, result.output
    assert get_board("nrf52840_dk").sha256 == written
    assert not list(cli_timing.BOARDS_DIR.glob("nrf52840_dk.timing.toml"))


def test_check_fails_when_the_twin_is_too_far_from_the_board(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The twin has other constants than the virtual board that is measured."""
    board = get_board("nrf52840_dk")
    changed = with_constants(board, {name: 20.0 for name in board.timing.constants()})
    image = image_of("nrf52840_dk")
    monkeypatch.setattr(
        cli_timing, "build_image", lambda _: Image(changed, image.firmware, image.benchmarks)
    )

    result = CliRunner().invoke(app, ["calibrate", "--check", "--board", "virtual:nrf52840_dk"])

    assert result.exit_code == 1
    assert re.search(r"too\s+far", result.output)


def test_check_and_out_exclude_each_other(tmp_path: Path) -> None:
    arguments = ["calibrate", "--check", "--board", "virtual:nrf52840_dk"]

    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "x.toml")])

    assert "--check writes no constants" in str(result.exception)
