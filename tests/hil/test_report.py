from __future__ import annotations

import csv
import json

import pytest
from records import make_record
from rich.console import Console

from hil.bench import Row
from hil.errors import UsageError
from hil.fronts import place_fronts, search_cost
from hil.record import EnergyUj, FlashBytes, LatencyCycles, LayerCycles, ModelId, SramBytes
from hil.report import (
    bench_tables,
    layer_table,
    pareto_json,
    pareto_notes,
    pareto_table,
    write_pareto,
)
from hil.store import Store

NRF, F746 = "virtual:nrf52840_dk", "virtual:stm32f746g_disco"
CONFIG = {"space": "mini_nas", "strategy": "tpe", "data": "digits", "seed": 1, "engine": "tiny"}


def shown(renderable, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    console.file.close()
    return console.export_text()


def record(cycles, sram=3000, place=NRF, engine="tiny"):
    return make_record(
        cycles=cycles,
        place=place,
        engine=engine,
        sram_bytes=SramBytes(sram - 800, 100, 500, 300, sram),
        flash_bytes=FlashBytes(9000, 4000, 13000),
    )


@pytest.fixture
def study(tmp_path):
    """0 is accurate and slow, 1 fast, 2 dominated on the nRF only, 3 does not fit, 4 failed."""
    with Store(tmp_path / "hil.sqlite") as store:
        study = store.open_study("s1", CONFIG)
        on_board = [(64_000, 20_000), (6_400, 4_000), (32_000, 3_000)]
        for number, (accuracy, (nrf, f746)) in enumerate(
            zip([0.95, 0.85, 0.80], on_board, strict=True)
        ):
            study.add_trial(number, {}, f"h{number}")
            outcome = {
                "summary": f"{number + 3} layers | [bold]",
                "accuracy": accuracy,
                "train_s": 2.5,
                "train_device": "cpu",
            }
            study.update_trial(number, state="trained", outcome=outcome, model=b"TFL3")
            study.attach_record(number, record(nrf), board_s=1.5)
            study.attach_record(number, record(f746, place=F746), board_s=0.5)
            study.update_trial(number, state="measured")
        study.attach_record(0, record(320_000, sram=5000, engine="reference"))
        study.set_test_accuracy(0, 0.94, 360)
        study.add_trial(3, {}, "h3", state="infeasible", outcome={"reason": "too big"})
        study.add_trial(4, {}, "h4", state="failed", outcome={"reason": "boom"})
        yield study


def test_each_place_has_a_front_of_its_own(study):
    nrf, f746 = place_fronts(study)

    assert [found.number for found in nrf.front] == [1, 0]
    assert [found.number for found in nrf.dominated] == [2]
    assert [found.number for found in f746.front] == [2, 1, 0]  # 2 is the fastest there
    assert (nrf.board, nrf.source) == ("nrf52840_dk", "virtual")


def test_equal_networks_are_both_on_the_front(study):
    study.add_trial(5, {}, "h5")
    study.update_trial(5, state="measured", outcome={"accuracy": 0.95})
    study.attach_record(5, record(64_000))

    assert [found.number for found in place_fronts(study)[0].front] == [1, 0, 5]


def test_a_network_stands_beside_its_reference(study):
    slow = place_fronts(study)[0].front[1]

    assert slow.speedup == pytest.approx(5.0)
    assert slow.test_accuracy == 0.94
    assert place_fronts(study)[0].front[0].speedup is None


def test_only_one_board_can_be_asked_for(study):
    assert [front.board for front in place_fronts(study, "stm32f746g_disco")] == [
        "stm32f746g_disco"
    ]
    with pytest.raises(UsageError, match="nothing on 'z80', only on nrf52840_dk"):
        place_fronts(study, "z80")


def test_a_study_without_measurements_has_no_front(tmp_path):
    with (
        Store(tmp_path / "empty.sqlite") as store,
        pytest.raises(UsageError, match="no measured trial yet"),
    ):
        place_fronts(store.open_study("s2", CONFIG))


def test_the_cost_counts_seconds_and_trials(study):
    cost = search_cost(study)

    assert (cost.cpu_s, cost.gpu_s, cost.board_s) == (7.5, 0.0, 6.0)
    assert (cost.proposed, cost.trained, cost.measured) == (5, 3, 3)
    assert (cost.infeasible, cost.failed) == (1, 1)


@pytest.mark.parametrize("width", [80, 120])
def test_a_pareto_table_shows_whole_numbers_at_any_width(study, width):
    text = shown(pareto_table(place_fronts(study)[0], width=width), width)

    for number in ("94.0", "95.0", "1.000", "3,000", "13,000", "5.000", "5.0"):
        assert number in text
    assert "(virtual, cycles by cortex-m4 1)" in text.replace("\n", " ")


def test_markup_in_a_network_is_text(study):
    assert "[bold]" in shown(pareto_table(place_fronts(study)[0]))


def test_the_notes_tell_the_search_and_what_is_counted(study):
    notes = " ".join(pareto_notes(study, search_cost(study), place_fronts(study)))

    for part in ("mini_nas", "tpe", "seed 1", "8 CPU s", "6 board s", "estimate", "arena"):
        assert part in notes


def test_a_table_tells_a_measured_energy_from_an_estimated_one():
    metered = EnergyUj(61.77, 10, "measured:ppk2", 61.58, 62.09, 8400.4, 3000)
    measured = make_record(energy_uj=metered)

    estimate, text = (
        shown(bench_tables([Row("net", "desk", "tiny", result)]))
        for result in (make_record(), measured)
    )

    assert "est." in estimate and "idle" not in estimate
    assert "est." not in text
    assert "61.77 µJ an inference (5 to 95 % of 10: 61.58 to 62.09), 8.40 mW while idle" in text
    assert "3,000 mV; measured by ppk2" in text


def test_files_are_written_beside_each_other(study, tmp_path):
    paths = write_pareto(tmp_path / "out", study, place_fronts(study), search_cost(study))

    assert [path.name for path in paths] == [
        "pareto.md",
        "pareto.csv",
        "pareto.json",
        "pareto_virtual_nrf52840_dk.png",
        "pareto_virtual_stm32f746g_disco.png",
    ]
    markdown = paths[0].read_text()
    assert "| 5 layers \\| [bold] |" in markdown
    assert "](pareto_virtual_nrf52840_dk.png)" in markdown
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["source"] for row in rows} == {"virtual"}
    assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_the_json_holds_whole_records(study):
    values = json.loads(json.dumps(pareto_json(study, place_fronts(study), search_cost(study))))

    assert values["schema"] == 1
    assert [place["place"] for place in values["places"]] == [NRF, F746]
    front = values["places"][0]["front"]
    assert front[1]["record"]["latency_cycles"]["samples"] == [64_000, 64_000, 64_002]
    assert front[1]["reference"]["engine"] == "reference"


def test_a_bench_table_compares_with_the_reference():
    rows = [
        Row("tiny_model", NRF, "tiny", record(1000)),
        Row("tiny_model", NRF, "reference", record(4500, engine="reference")),
        Row("other", NRF, "tiny", UsageError("no")),
        Row("tiny_model", F746, "tiny", record(500, place=F746)),
    ]

    text = shown(bench_tables(rows))

    nrf, f746 = text.split("stm32f746g_disco (virtual")
    assert "4.5" in nrf
    assert "50/50" in nrf
    assert "reference" not in f746
    assert "other" not in text


def test_repeats_that_differ_are_told():
    steady, unsteady = (
        make_record(latency_cycles=LatencyCycles.of(samples))
        for samples in ([1000, 1000, 1001], [1000, 1100, 1200])
    )

    assert "repeats differ" not in shown(bench_tables([Row("m", NRF, "tiny", steady)]))
    assert "repeats differ by 9.1%" in shown(bench_tables([Row("m", NRF, "tiny", unsteady)]))


def test_hardware_and_virtual_never_share_a_table():
    hardware = make_record(place="desk", board="nrf52840_dk", source="hardware", timing_model=None)
    text = shown(
        bench_tables([Row("m", "desk", "tiny", hardware), Row("m", NRF, "tiny", record(9))])
    )

    assert "nrf52840_dk (hardware, desk)" in text
    assert "nrf52840_dk (virtual" in text


def test_a_layer_table_shows_shares_of_the_sum():
    layers = (LayerCycles("a", "CONV_2D", 100, 300), LayerCycles("b", "SOFTMAX", 0, 100))

    text = shown(layer_table(make_record(layers=layers)))

    assert "75.0 %" in text
    assert "25.0 %" in text
    assert "3.00" in text


def test_a_layer_table_shows_kernels_memories_nominal_macs_and_the_cores_limit():
    layers = (
        LayerCycles("a", "CONV_2D", 100, 100, "conv_fast", 250, "ram"),
        LayerCycles("b", "SOFTMAX", 0, 100, "softmax"),
    )

    text = shown(layer_table(make_record(layers=layers)))

    [row] = [line.split() for line in text.splitlines() if line.strip().startswith("a ")]
    assert row == [
        "a",
        "CONV_2D",
        "conv_fast",
        "ram",
        "250",
        "100",
        "100",
        "50.0",
        "%",
        "1.00",
        "50",
    ]
    json_layers = make_record(layers=layers).to_json()["layers"]
    assert json_layers[0]["nominal_macs"] == 250
    assert json_layers[0]["percent_of_limit"] == 50
    assert json_layers[1] | {"nominal_macs": 0, "cycles_per_mac": None} == json_layers[1]


def test_a_model_without_macs_has_no_cycles_per_mac():
    free = make_record(model=ModelId("echo", "00" * 32, 0, 0))

    assert " - " in shown(bench_tables([Row("echo", NRF, "none", free)]))
