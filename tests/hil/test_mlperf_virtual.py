"""`hil mlperf` on virtual boards: networks with the tensors of the benchmark's, by its rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import Builder
from oracles import tflm_outputs

from codegen.export_tflite import export_tflite
from hil import cli
from hil.board import board_ids
from hil.errors import ClockMismatch, HilError
from hil.lab import open_place
from hil.manifest import Tensor
from hil.mlperf import Outcome, Rules, run_mlperf
from hil.mlperf_data import accuracy, decode

NRF = "virtual:nrf52840_dk"
SHORT = Rules(window_s=0.02, warm_ups=1)


@pytest.fixture(scope="module")
def images() -> bytes:
    """A classifier of 32 x 32 x 3 pixels with ten classes."""
    builder = Builder(np.random.default_rng(7), name="images")
    x = builder.input((1, 32, 32, 3))
    x = builder.conv2d(x, 4, (3, 3), stride=(2, 2))
    x = builder.fully_connected(builder.reshape(x, (1, 1024)), 10)
    return export_tflite(builder.graph([builder.softmax(x)]))


@pytest.fixture(scope="module")
def sounds() -> bytes:
    """An autoencoder of 640 values."""
    builder = Builder(np.random.default_rng(8), name="sounds")
    x = builder.fully_connected(builder.input((1, 640)), 8)
    return export_tflite(builder.graph([builder.fully_connected(x, 640)]))


def run(place_name: str, tflite: bytes, tmp_path: Path, **options: Any) -> Outcome:
    with open_place(place_name) as place:
        return run_mlperf(
            tflite,
            options.pop("name", "net"),
            place,
            out=tmp_path / "out",
            models_dir=tmp_path / "models",
            **{"rules": SHORT} | options,
        )


def data_set(root: Path, name: str, files: list[tuple[bytes, int]], columns: str) -> Path:
    """A data set; `columns` are classes, %d for the class, bytes to send, stride."""
    folder = root / name
    folder.mkdir(parents=True)
    for number, (data, _) in enumerate(files):
        (folder / f"{number}.bin").write_bytes(data)
    rows = [f"{number}.bin,{columns % label}\n" for number, (_, label) in enumerate(files)]
    (folder / "y_labels.csv").write_text("".join(rows))
    return root


@pytest.mark.parametrize(
    "board",
    [
        pytest.param(board, marks=[] if board == "nrf52840_dk" else pytest.mark.slow)
        for board in board_ids()
    ],
)
def test_performance_on_each_board(board: str, images: bytes, tmp_path: Path) -> None:
    outcome = run(f"virtual:{board}", images, tmp_path, mode="performance")

    assert outcome.benchmark is not None
    assert outcome.benchmark.id == "ic01"  # told by its tensors
    assert outcome.source == "virtual"
    assert len(outcome.windows) == 5
    assert all(window.duration_s >= SHORT.window_s for window in outcome.windows)
    assert all(window.inferences >= SHORT.inferences for window in outcome.windows)
    rates = [window.inferences / window.duration_s for window in outcome.windows]
    assert outcome.throughput == sorted(rates)[2]


def test_accuracy_of_images_is_that_of_the_oracle(images: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = [(rng.integers(0, 256, 3072, np.uint8).tobytes(), i % 10) for i in range(20)]
    root = data_set(tmp_path / "data", "ic01", files, "10,%d,3072,0")

    outcome = run(NRF, images, tmp_path, mode="accuracy", data=root)

    tensor = Tensor("in", "s8", (1, 32, 32, 3), 1.0, 0)
    outputs = tflm_outputs(images, [decode(data, "pixels", [tensor]) for data, _ in files])
    shares = [np.round((output[0] + 128.0) / 256, 3).tolist() for output in outputs]
    expected = accuracy([(label, [s]) for (_, label), s in zip(files, shares, strict=True)])
    assert outcome.accuracy is not None
    assert outcome.accuracy.top1_percent == expected.top1_percent
    assert outcome.accuracy.auc == pytest.approx(expected.auc)
    results = (outcome.folder / "results.txt").read_text()
    assert f" Top 1% = {expected.top1_percent:.1f}\n" in results
    assert f" AUC = {expected.auc:.3f}\n" in results


@pytest.mark.slow
def test_an_anomaly_is_the_mean_error_over_a_sound(sounds: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    files = []
    for number in range(6):
        label = number % 2
        values = rng.normal(0, 1 + 3 * label, (5 + 2) * 128).astype("<f4")  # three windows
        files.append((values.tobytes(), label))
    root = data_set(tmp_path / "data", "ad01", files, "2,%d,2560,512")

    outcome = run(NRF, sounds, tmp_path, mode="accuracy", data=root)

    assert outcome.accuracy is not None
    assert len(outcome.windows) == 18
    assert outcome.accuracy.auc == 1.0  # louder ones cannot be reproduced
    rows = json.loads((outcome.folder / "results.json").read_text())
    assert {row["total_length"] for row in rows} == {3}
    assert all(len(row["infer"]["results"]) == 1 for row in rows)


@pytest.mark.parametrize("meter", ["ppk2", pytest.param("lpm01a", marks=pytest.mark.slow)])
def test_energy_is_labelled_as_the_estimate_it_is(
    meter: str, sounds: bytes, tmp_path: Path
) -> None:
    rules = Rules(inputs=2, window_s=0.1, warm_ups=0)

    outcome = run(f"{NRF}?meter={meter}", sounds, tmp_path, mode="energy", rules=rules)

    assert outcome.energy_source == f"estimate:power model through a virtual {meter}"
    assert outcome.energy_uj is not None
    assert outcome.idle_uw is not None
    # 3 mA at 3 V while computing, by the data sheet
    active_uw = outcome.energy_uj * (outcome.throughput or 0)
    assert 0 < outcome.idle_uw < active_uw < 100_000
    results = (outcome.folder / "results.txt").read_text()
    assert f"Median energy cost is {outcome.energy_uj:.4f} uJ/inf." in results


@pytest.mark.slow
def test_a_slow_crystal_voids_the_session(sounds: bytes, tmp_path: Path) -> None:
    rules = Rules(inputs=1, window_s=3.0, warm_ups=0)

    with pytest.raises(ClockMismatch):
        run(f"{NRF}?fault=slow_clock@always", sounds, tmp_path, mode="performance", rules=rules)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["garbage", "lost_bytes", "doubled_bytes", "lost_lines"])
def test_a_bad_line_gives_no_result(fault: str, images: bytes, tmp_path: Path) -> None:
    with pytest.raises(HilError):
        run(f"{NRF}?fault={fault}@always", images, tmp_path, mode="performance")

    assert not list((tmp_path / "out").glob("*/results.*"))


@pytest.mark.slow
def test_the_command_keeps_the_benchmarks_rules(
    sounds: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "sounds.tflite"
    model.write_bytes(sounds)

    code = cli._guarded(
        ["mlperf", str(model), "--board", NRF, "--out", str(tmp_path / "out")], debug=False
    )

    out, err = capfd.readouterr()
    assert code == 0, err
    assert out.startswith(f"MLPerf Tiny performance, ad01, on {NRF} (virtual)\n")
    (results,) = (tmp_path / "out").glob("*/results.json")
    rows = json.loads(results.read_text())
    assert len(rows) == 5
    assert all(row["infer"]["elapsed_time"] >= 10_000_000 for row in rows)
