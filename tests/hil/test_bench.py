"""From a .tflite to records on the virtual boards: generated, built, flashed, run, checked."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from graphs import Builder

import codegen.errors
from codegen.export_tflite import export_tflite
from hil import bench, expected, session
from hil.bench import Model, bench_jobs, engine_options, measure_jobs, measure_model
from hil.build import FIRMWARE_DIR, build
from hil.cli_bench import last_rounds, round_notes, run_bench
from hil.errors import HilError, OutputMismatch, UsageError
from hil.lab import open_place
from hil.manifest import read_manifest
from hil.record import Record
from hil.session import Procedure, measure
from hil.store import Store

NRF, F746 = "virtual:nrf52840_dk", "virtual:stm32f746g_disco"
L4R5 = "virtual:nucleo_l4r5zi"
PROCEDURE = Procedure(inputs=3, repeats=3, warmup=1, layers=True)


@pytest.fixture(scope="module")
def tflite():
    builder = Builder(np.random.default_rng(7), name="net")
    x = builder.input((1, 6, 6, 2))
    x = builder.conv2d(x, 4, (3, 3), padding="SAME")
    x = builder.depthwise_conv2d(x, (3, 3), stride=(2, 2), padding="SAME")
    x = builder.reshape(x, (1, 36))
    x = builder.fully_connected(x, 5)
    return export_tflite(builder.graph([builder.softmax(x)]))


@pytest.fixture
def models_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "MODELS_DIR", tmp_path)
    return tmp_path


@pytest.fixture
def run(models_dir, tmp_path):
    """Benches models, engines and places, without or with the name of a queue."""

    def run(models, places, engines, *, queue=None, rounds=1):
        jobs = bench_jobs(models, places, engines, rounds=rounds)
        with Store(tmp_path / "store" / "hil.sqlite") as store:
            opened = store.open_queue(queue, {}) if queue else None
            return run_bench(jobs, measure_jobs(procedure=PROCEDURE), store, opened)

    return run


def test_every_place_measures_every_model(tflite, run):
    rows = run([Model("net", tflite)], [NRF, F746], ["tiny"])

    records = {row.place: row.result for row in rows}
    for place in (NRF, F746):
        record = records[place]
        assert isinstance(record, Record)
        assert record.outputs_match
        assert record.outputs_checked == 3
        assert sum(layer.macs for layer in record.layers) == record.model.effective_macs


def test_copies_of_constants_are_counted_as_static_ram(tflite, models_dir):
    def record(objective):
        return measure_model(
            tflite, "net", L4R5, objective=objective, procedure=PROCEDURE, models_dir=models_dir
        )

    quick, small = record("latency"), record("sram")

    assert quick.outputs_match
    copied = quick.sram_bytes.static - small.sram_bytes.static
    assert 0 < copied <= quick.flash_bytes.weights
    assert quick.sram_bytes.total == (
        quick.sram_bytes.arena + quick.sram_bytes.static + quick.sram_bytes.stack_peak
    )


@pytest.mark.slow
def test_both_engines_on_both_boards_give_the_oracles_bytes(tflite, run):
    rows = run([Model("net", tflite)], [NRF, F746], ["tiny", "reference"])

    records = [row.result for row in rows if isinstance(row.result, Record)]
    assert len(records) == len(rows) == 4
    assert all(r.outputs_match and r.outputs_checked == 3 for r in records)
    assert {(r.place, r.engine) for r in records} == {
        (place, engine) for place in (NRF, F746) for engine in ("tiny", "reference")
    }
    by_engine = {(r.place, r.engine): r for r in records}
    for place in (NRF, F746):
        tiny, reference = by_engine[place, "tiny"], by_engine[place, "reference"]
        assert tiny.latency_cycles.median < reference.latency_cycles.median
        assert tiny.sram_bytes.arena - tiny.sram_bytes.scratch <= reference.sram_bytes.arena
        assert sum(layer.cycles for layer in tiny.layers) > 0
        assert sum(layer.macs for layer in tiny.layers) > 0


def test_two_measurements_give_the_same_cycles(tflite, models_dir):
    with open_place(NRF) as place:
        first, second = (
            measure_model(tflite, "net", place, procedure=PROCEDURE, models_dir=models_dir)
            for _ in range(2)
        )

    assert first.latency_cycles.samples == second.latency_cycles.samples
    assert first.firmware_sha256 == second.firmware_sha256


def test_a_wrong_output_is_an_error_and_no_record(tflite, models_dir, monkeypatch):
    def wrong(self, model, tensors, seeds):
        return [bytes(5) for _ in seeds]

    monkeypatch.setattr(expected.ExpectedOutputs, "of", wrong)

    with pytest.raises(OutputMismatch, match="differs from the oracle"):
        measure_model(tflite, "net", NRF, procedure=PROCEDURE, models_dir=models_dir)


def test_what_cannot_be_measured_is_a_row_and_the_others_go_on(tflite, run):
    broken = Model("broken", b"not a model")

    rows = run([broken, Model("net", tflite)], [NRF], ["tiny"])

    assert isinstance(rows[0].result, codegen.errors.CodegenError)
    assert isinstance(rows[1].result, Record)


def test_a_queue_is_gone_on_with_where_it_was_stopped(tflite, run, tmp_path, capsys):
    models = [Model("broken", b"not a model"), Model("net", tflite)]

    first = run(models, [NRF], ["tiny"], queue="night")
    capsys.readouterr()
    second = run(models, [NRF], ["tiny"], queue="night", rounds=2)

    assert "queue night: 1 of 4 measurements are there already" in capsys.readouterr().err
    assert [row.model for row in second] == ["broken", "net"] * 2
    assert second[1] == first[1]
    assert isinstance(second[0].result, codegen.errors.CodegenError)
    assert isinstance(second[3].result, Record)
    with Store(tmp_path / "store" / "hil.sqlite") as store:
        assert [r.model.name for r in store.records()] == ["net"] * 2
    assert last_rounds(second) == [second[2], second[3]]
    cycles = f"{second[1].result.latency_cycles.median:,.0f} cycles"
    assert round_notes(second) == [f"net tiny on {NRF}: 2 rounds, {cycles}"]


def test_a_model_that_does_not_fit_is_a_row_with_the_numbers(run):
    builder = Builder(np.random.default_rng(7), name="big")
    x = builder.input((1, 200, 200, 4))
    tflite = export_tflite(builder.graph([builder.conv2d(x, 8, (1, 1))]))

    (row,) = run([Model("big", tflite)], [NRF], ["tiny"])

    assert isinstance(row.result, codegen.errors.DoesNotFit)
    assert row.result.needed_bytes > row.result.have_bytes


def test_engine_tflm_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("HIL_LAB", str(tmp_path / "lab.toml"))

    with pytest.raises(UsageError, match=r"library and include_dirs under \[tflm\]"):
        engine_options("tflm", "latency")


@pytest.mark.parametrize(
    ("instead", "seen"),
    [
        ("*(volatile uint32_t *)0x50100000", "0x50100000"),
        ("for (;;) {}", "within"),
    ],
)
def test_a_firmware_that_goes_wrong_is_an_error_that_says_how(tmp_path, monkeypatch, instead, seen):
    folder = tmp_path / "wrong"
    shutil.copytree(FIRMWARE_DIR / "models" / "echo", folder)
    source = (folder / "model.c").read_text()
    (folder / "model.c").write_text(
        source.replace("void model_run(void)\n{", f"void model_run(void)\n{{\n    {instead};")
    )
    monkeypatch.setattr(session, "inference_s", lambda place, manifest: 1.0)
    manifest = read_manifest(folder)

    with open_place(NRF) as place, pytest.raises(HilError, match=seen):
        firmware = build(folder, place.board, builds_dir=tmp_path / "builds")
        measure(place, firmware, manifest, [bytes(64)], Procedure(inputs=1))
