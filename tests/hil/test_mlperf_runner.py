"""The benchmark's own runner, unmodified, drives our firmware on virtual boards.

HIL_MLPERF_RUNNER names benchmark/runner of github.com/mlcommons/tiny, which is not part of this
project, and HIL_MLPERF_PYTHON an interpreter that has what the runner imports (pyserial, pyyaml,
numpy, scikit-learn, matplotlib, pyusb); this one by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import tflm_outputs

from codegen.engines import EngineOptions
from hil.bench import build_model, measure_model
from hil.board import get_board
from hil.manifest import Manifest
from hil.mlperf_data import accuracy, decode
from hil.virtual.place import VirtualPlace

pytestmark = pytest.mark.slow

BOARD = get_board("nrf52840_dk")
RUN_S = 900.0

#: The runner finds boards by USB ids; a virtual board's port has none of its own.
SITE = """
import os
from serial.tools import list_ports, list_ports_common

def comports(include_links=False):
    port = list_ports_common.ListPortInfo(os.environ["VIRTUAL_BOARD_PORT"])
    port.vid, port.pid, port.description = 0x0483, 0x374B, "virtual board"
    return [port]

list_ports.comports = comports
"""


@pytest.fixture(scope="module")
def runner() -> list[str]:
    """The runner's command."""
    folder = os.environ.get("HIL_MLPERF_RUNNER")
    if not folder:
        pytest.skip("HIL_MLPERF_RUNNER does not name benchmark/runner of mlcommons/tiny")
    main = Path(folder) / "main.py"
    assert main.is_file(), f"HIL_MLPERF_RUNNER names {folder}, which has no main.py"
    python = os.environ.get("HIL_MLPERF_PYTHON", sys.executable)
    modules = "import serial, yaml, numpy, sklearn, matplotlib, usb.core"
    seen = subprocess.run([python, "-c", modules], capture_output=True, text=True, timeout=120)
    if seen.returncode:
        missing = seen.stderr.strip().splitlines()[-1]
        pytest.skip(f"{python} cannot run it ({missing}); HIL_MLPERF_PYTHON names another")
    return [python, str(main)]


def run(
    runner: list[str], tmp_path: Path, tflite: bytes, name: str, mode: str, devices: str
) -> tuple[str, list[dict[str, object]], Manifest]:
    """results.txt and results.json of the runner, and the manifest of the model that it ran."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    folder = Path(runner[1]).parent
    tests = {"p": "tests_performance.yaml", "a": "tests_accuracy.yaml"}[mode]
    command = [*runner, "-d", str(folder / devices), "-t", str(folder / tests)]
    command += ["-s", str(tmp_path / "data"), "-m", mode]
    firmware, manifest = build_model(
        tflite,
        name,
        BOARD,
        engine="tiny",
        options=EngineOptions(),
        mlperf=True,
        models_dir=tmp_path / "models",
    )
    with VirtualPlace(BOARD) as place:
        place.flash(firmware.elf)
        environment = os.environ | {"PYTHONPATH": str(site), "VIRTUAL_BOARD_PORT": place.port}
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (session,) = (tmp_path / "sessions").iterdir()
    results = (session / "results.txt").read_text()
    return results, json.loads((session / "results.json").read_text()), manifest


def data_set(root: Path, name: str, files: list[tuple[bytes, int]], columns: str) -> None:
    (root / name).mkdir(parents=True)
    for number, (data, _) in enumerate(files):
        (root / name / f"{number:03}.bin").write_bytes(data)
    rows = [f"{number:03}.bin,{columns % label}\n" for number, (_, label) in enumerate(files)]
    (root / name / "y_labels.csv").write_text("".join(rows))


def sounds() -> list[tuple[bytes, int]]:
    """Six sounds of three windows of 640 values each."""
    rng = np.random.default_rng(1)
    spreads = (6.0, 8.0, 6.0, 7.0, 7.5, 9.0)
    return [
        (rng.normal(-30, spread, 7 * 128).astype("<f4").tobytes(), number % 2)
        for number, spread in enumerate(spreads)
    ]


def test_performance_mode(runner: list[str], tmp_path: Path, models_dir: Path) -> None:
    data_set(tmp_path / "data", "ad01", sounds(), "2,%d,2560,512")
    tflite = (models_dir / "ad01_int8.tflite").read_bytes()

    results, rows, _ = run(runner, tmp_path, tflite, "ad01", "p", "devices_ad.yaml")

    assert "ERROR" not in results
    (line,) = (line for line in results.splitlines() if "Median throughput is" in line)
    assert len(rows) == 5
    infers = [row["infer"] for row in rows]
    rates = sorted(infer["throughput"] for infer in infers)  # type: ignore[index]
    assert f"{rates[2]:.3f} inf./sec." in line
    # the rig's own figure for this model on this board, within the copying of inputs
    with VirtualPlace(BOARD) as place:
        record = measure_model(tflite, "ad01", place, models_dir=tmp_path / "models")
    assert rates[2] == pytest.approx(1e6 / record.latency_us, rel=0.01)


def test_accuracy_mode_for_sounds(runner: list[str], tmp_path: Path, models_dir: Path) -> None:
    files = sounds()
    data_set(tmp_path / "data", "ad01", files, "2,%d,2560,512")
    tflite = (models_dir / "ad01_int8.tflite").read_bytes()

    results, rows, manifest = run(runner, tmp_path, tflite, "ad01", "a", "devices_ad.yaml")

    assert len(rows) == 18
    (output,) = manifest.outputs
    answers = []
    for data, label in files:
        windows = [data[start : start + 2560] for start in (0, 512, 1024)]
        batch = [decode(window, "floats", manifest.inputs) for window in windows]
        errors = []
        for window, found in zip(windows, tflm_outputs(tflite, batch), strict=True):
            real = (found[0].astype(np.float64) - output.zero_point) * output.scale
            errors.append([float(np.mean((real - np.frombuffer(window, "<f4")) ** 2))])
        answers.append((label, errors))
    expect(results, answers)


def test_accuracy_mode_for_images(
    runner: list[str], tmp_path: Path, models_dir: Path, data_dir: Path
) -> None:
    batch_file = data_dir / "cifar-10-batches-bin" / "test_batch.bin"
    pictures = np.fromfile(batch_file, np.uint8).reshape(-1, 3073)
    chosen = [np.flatnonzero(pictures[:, 0] == label)[:3] for label in range(10)]
    files = []
    for number in np.concatenate(chosen):
        planes = pictures[number, 1:].reshape(3, 32, 32)
        files.append((planes.transpose(1, 2, 0).tobytes(), int(pictures[number, 0])))
    data_set(tmp_path / "data", "ic01", files, "10,%d,3072,0")
    tflite = (models_dir / "pretrainedResnet_quant.tflite").read_bytes()

    results, rows, manifest = run(runner, tmp_path, tflite, "ic01", "a", "devices_kws_ic_vww.yaml")

    assert len(rows) == 30
    (output,) = manifest.outputs
    outputs = tflm_outputs(tflite, [decode(data, "pixels", manifest.inputs) for data, _ in files])
    answers = []
    for (_, label), found in zip(files, outputs, strict=True):
        real = (found[0].astype(np.float64) - output.zero_point) * output.scale
        answers.append((label, [[round(value, 3) for value in real.tolist()]]))
    expect(results, answers)


def expect(results: str, answers: list[tuple[int, list[list[float]]]]) -> None:
    """The runner's figures are those that the oracle's outputs give by our own formulas."""
    expected = accuracy(answers)
    assert f"Top 1% = {expected.top1_percent:.1f}" in results
    assert f"AUC = {expected.auc:.3f}" in results
