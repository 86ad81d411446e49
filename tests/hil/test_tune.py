"""From a .tflite to a tuned plan on a virtual board, and what is refused on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder
from records import make_record

from codegen.export_tflite import export_tflite
from codegen.plan_file import parse_plan
from hil import bench, cli, tune
from hil.bench import keep_place
from hil.errors import LimitsOutOfReach
from hil.record import EnergyUj, LayerCycles, SramBytes
from hil.report import front_json, front_table
from hil.store import Store
from hil.tune import Limits, Point, Tuned, best_at, plan_of, tune_model

NRF, F746 = "virtual:nrf52840_dk", "virtual:stm32f746g_disco"


@pytest.fixture(scope="module")
def tflite() -> bytes:
    builder = Builder(np.random.default_rng(7), name="net")
    x = builder.conv2d(builder.input((1, 8, 8, 2)), 6, (3, 3))
    x = builder.reshape(builder.conv2d(x, 4, (1, 1)), (1, 256))
    return export_tflite(builder.graph([builder.softmax(builder.fully_connected(x, 5))]))


@pytest.fixture(scope="module")
def store_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store") / "s.sqlite"


@pytest.fixture
def models_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(bench, "MODELS_DIR", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def hil(capfd, models_dir):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli._guarded([str(a) for a in arguments], debug=False)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def model(tmp_path, tflite) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(tflite)
    return path


# --- a whole tuning, on a virtual board ------------------------------------------------------


@pytest.mark.slow
def test_a_tuned_network_is_no_worse_than_the_untuned_one_in_anything(
    tflite, store_path, models_dir
):
    lines: list[str] = []
    with Store(store_path) as store, keep_place(NRF) as place:
        tuned = tune_model(tflite, "net", place, store, progress=lines.append)

        def refuse(*_, **__):
            raise AssertionError("measured again")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune, "measure", refuse)
            patch.setattr("hil.tuning.LayerBench._measure", refuse)
            again = tune_model(tflite, "net", place, store, objective="energy")

    assert tuned.untuned is not None
    assert tuned.chosen.cycles <= tuned.untuned.cycles
    assert all(point.record.outputs_match for point in tuned.points)
    for point in tuned.points:
        assert any(
            all(a <= b for a, b in zip(best.quantities, point.quantities, strict=True))
            for best in tuned.front
        )
    assert {point.plan.sha256 for point in again.points} == {p.plan.sha256 for p in tuned.points}
    assert again.chosen.cycles == tuned.chosen.cycles
    assert any("layers alone" in line for line in lines)


@pytest.mark.slow
def test_the_command_writes_a_plan_that_bench_and_codegen_take(
    hil, model, store_path, tmp_path, models_dir
):
    plan_path, json_path = tmp_path / "p.json", tmp_path / "front.json"
    code, out, err = hil(
        *("tune", model, "--board", NRF, "--store", store_path),
        *("--out", plan_path, "--json", json_path),
    )
    assert code == 0, err
    assert "kernels of layers measured" in out

    plan = parse_plan(plan_path.read_bytes())
    networks = json.loads(json_path.read_text())["networks"]
    [chosen] = [network for network in networks if network["is_chosen"]]
    assert plan.measured["latency_cycles"] == chosen["record"]["latency_cycles"]
    code, _, err = hil(
        *("bench", model, "--board", NRF, "--plan", plan_path, "--store", store_path),
        *("--layers", "--json", tmp_path / "r.json"),
    )
    assert code == 0, err
    [record] = json.loads((tmp_path / "r.json").read_text())
    assert record["latency_cycles"]["median"] == plan.measured["latency_cycles"]["median"]
    assert record["engine_options"]["plan"] == plan.sha256
    assert {layer["name"]: layer["kernel"] for layer in record["layers"]} == {
        layer.name: layer.kernel for layer in plan.layers
    }

    code, _, err = hil(
        "codegen", model, "--board", NRF, "--plan", plan_path, "--out", tmp_path / "c"
    )
    assert code == 0, err
    assert f"plan {plan.sha256[:16]}" in (tmp_path / "c" / "model.c").read_text()

    for arguments, reason in (
        (["--board", F746], "it is for board 'nrf52840_dk', not for stm32f746g_disco"),
        (["--board", NRF, "--objective", "sram"], "exclude each other"),
        (["--board", NRF, "--engine", "reference"], "--plan is for engine tiny"),
    ):
        code, _, err = hil("bench", model, "--plan", plan_path, *arguments)
        assert code == 2
        assert reason in err
    other = tmp_path / "other.tflite"
    other.write_bytes(model.read_bytes() + b"\0")
    code, _, err = hil("bench", other, "--board", NRF, "--plan", plan_path)
    assert code == 2
    assert "it is for model 'net'" in err


@pytest.mark.slow
def test_a_tuning_that_was_killed_goes_on_with_what_was_measured(model, tmp_path):
    path = tmp_path / "s.sqlite"
    command = [sys.executable, "-m", "hil", "tune", str(model), "--board", NRF]
    command += ["--store", str(path), "--out", str(tmp_path / "p.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            line = process.stderr.readline().decode()
            if "layers alone, small code: 0" in line:
                break
        else:
            pytest.fail("no progress")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stderr.splitlines() if "fast code" in line)
    measured, total = (int(word) for word in first.rpartition(": ")[2].split(" of "))
    assert measured == total > 0
    assert (tmp_path / "p.json").is_file()


# --- choosing among measured networks, without a board ---------------------------------------


def point(cycles: int, sram: int, flash: int, label: str = "tuned") -> Point:
    record = make_record(cycles=cycles)
    record = dataclasses.replace(
        record,
        sram_bytes=SramBytes(sram - 100, 0, 60, 40, sram),
        flash_bytes=dataclasses.replace(record.flash_bytes, total=flash),
        layers=(LayerCycles("a", "CONV_2D", 10, cycles, "k"),),
    )
    plan = tune.TunedPlan(
        model_name="net",
        model_sha256="ab" * 32,
        board="nrf52840_dk",
        objective="latency",
        flags="fast",
        layers=(tune.LayerPlan("a", f"k{cycles}"),),
    )
    return Point(label, plan, record)


def search(*points: Point, objective="latency") -> tune._Search:
    each = tune._Search(None, None, objective)
    each._points = list(points)
    return each


QUICK, LEAN, SMALL = point(100, 9000, 50_000), point(200, 5000, 51_000), point(300, 9500, 40_000)


@pytest.mark.parametrize(
    ("objective", "limits", "best"),
    [
        ("latency", Limits(), QUICK),
        ("energy", Limits(), QUICK),
        ("sram", Limits(), LEAN),
        ("flash", Limits(), SMALL),
        ("latency", Limits(sram_bytes=8999), LEAN),
        ("latency", Limits(flash_bytes=49_999), SMALL),
        ("latency", Limits(sram_bytes=9000, flash_bytes=50_000), QUICK),
    ],
)
def test_the_best_within_the_limits_is_chosen(objective, limits, best):
    assert search(QUICK, LEAN, SMALL, objective=objective).result(limits, 3).chosen is best


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(sram_bytes=4999), "at most 4,999 B of SRAM, and the least is 5,000 B"),
        (Limits(flash_bytes=1), "at most 1 B of flash, and the least is 40,000 B"),
        (Limits(5000, 40_000), "the least is 5,000 B .*; at most 40,000 B of flash"),
    ],
)
def test_limits_out_of_reach_say_what_can_be_reached(limits, text):
    with pytest.raises(LimitsOutOfReach, match=text) as caught:
        search(QUICK, LEAN, SMALL).result(limits, 3)
    assert caught.value.exit_code == 2


def test_energy_that_was_not_measured_follows_the_cycles():
    assert best_at("energy", QUICK) < best_at("energy", LEAN)


def metered(network: Point, median_uj: float) -> Point:
    energy = EnergyUj(median_uj, 10, "measured:ppk2", median_uj, median_uj, 8400.0, 3000)
    record = dataclasses.replace(network.record, energy_uj=energy)
    return dataclasses.replace(network, record=record)


def test_measured_energy_decides_where_a_meter_can_tell_it_apart():
    quick, lean = metered(QUICK, 61.8), metered(LEAN, 50.0)
    assert best_at("energy", lean) < best_at("energy", quick)
    assert best_at("latency", quick) < best_at("latency", lean)

    noise = metered(LEAN, 61.79)
    assert best_at("energy", quick) < best_at("energy", noise), "fewer cycles win"


def test_a_plan_tells_what_it_took_and_with_which_tools():
    plan = plan_of(QUICK)

    assert plan.sha256 == QUICK.plan.sha256
    assert plan.measured["latency_cycles"]["median"] == 100
    assert plan.measured["energy_uj"]["source"].startswith("estimate:")
    assert plan.tools["timing_model"] == "cortex-m4 1"
    assert parse_plan(plan.to_json().encode()) == plan


def test_the_table_marks_the_chosen_one_and_the_json_holds_all(capsys):
    from rich.console import Console

    tuned = Tuned((QUICK, LEAN, SMALL), (QUICK, LEAN), LEAN, QUICK, 7)
    Console(width=110).print(front_table(tuned))
    out = capsys.readouterr().out

    assert "2 of 3 networks" in out
    assert [line.split()[0] for line in out.splitlines() if "tuned" in line] == ["tuned", "*"]
    values = front_json(tuned)
    assert [each["is_chosen"] for each in values["networks"]] == [False, True, False]
    assert [each["on_front"] for each in values["networks"]] == [True, True, False]


# --- what a user gets wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "none.tflite", "--board", NRF], "none.tflite does not exist"),
        (["tune", "{model}", "--board", "nowhere"], "no board or place 'nowhere'"),
        (["tune", "{model}", "--board", "nrf52840_dk"], "say where: virtual:nrf52840_dk"),
        (["tune", "{model}", "--board", NRF, "--objective", "speed"], "speed"),
        (["tune", "{model}", "--board", NRF, "--sram-limit", "0"], "--sram-limit"),
        (["tune", "{model}", "--board", NRF, "--out", "/nowhere/p.json"], "cannot be written"),
        (["tune", "{model}", "--board", NRF, "--out", "{model}"], "would be overwritten"),
        (["tune", "{model}", "--board", NRF, "--json", "{model}"], "would be overwritten"),
        (["tune", "{model}", "--board", NRF, "--out", "x", "--json", "x"], "overwritten"),
        (["bench", "{model}", "--board", NRF, "--json", "{model}"], "would be overwritten"),
        (["tune", "{junk}", "--board", NRF, "--store", "{store}"], "not a .tflite"),
        (["bench", "{model}", "--board", NRF, "--plan", "none.json"], "none.json does not exist"),
        (["bench", "{model}", "--board", NRF, "--plan", "{junk}"], "the plan cannot be used"),
        (["codegen", "{model}", "--board", NRF, "--plan", "{junk}", "--out", "x"], "the plan"),
    ],
)
def test_mistakes_are_sentences(hil, model, tmp_path, arguments, message):
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x00junk")
    names = {"model": model, "junk": junk, "store": tmp_path / "s.sqlite"}

    code, out, err = hil(*(argument.format(**names) for argument in arguments))

    assert code == 2
    assert out == ""
    assert message in err
    assert list(tmp_path.glob("*.plan.json")) == []
