from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from links import READY, line

from boards import CYCLES, SIZE, FakePlace, fake_firmware, fake_manifest, fake_output
from hil import cli_mlperf, mlperf, session
from hil.errors import ClockMismatch, OutputMismatch, UsageError, WireError
from hil.manifest import Manifest
from hil.mlperf import Narrator, Outcome, Rules, run_mlperf
from hil.mlperf_data import Accuracy
from hil.mlperf_files import SessionFolder, write_accuracy, write_energy, write_throughput
from hil.oracle import TensorDetails

RULES = Rules(inputs=3, window_s=0.5, inferences=10, warm_ups=2)
INFERENCE_US = CYCLES // 64

#: What the benchmark's submission checker looks for in results.txt.
THROUGHPUT = re.compile(r".* Median throughput is\s+([\d.]+) inf\./sec\.")
ENERGY = re.compile(r".*Median energy cost is ([\d.]+) uJ/inf\.")
TOP1 = re.compile(r".* Top 1% = ([\d.]+)")
AUC = re.compile(r".* AUC = ([\d.]+)")


def found(pattern: re.Pattern[str], folder: Path) -> float:
    """The figure that a pattern finds in results.txt."""
    lines = (folder / "results.txt").read_text().splitlines()
    (match,) = (match for line in lines if (match := pattern.match(line)))
    return float(match[1])


class BenchmarkPlace(FakePlace):
    """A scripted board that answers the benchmark's commands, too.

    Args:
        lie: gets what `infer` would print, the lap lines and the results, and what is printed
            instead.
        slow: how often the window's duration by the coarse timer is that of its inferences.
        flip: what is changed in each byte that is loaded; 128 is what becomes of pixels.
    """

    def __init__(
        self,
        *,
        lie: Callable[[list[str]], list[str]] = lambda lines: lines,
        slow: float = 1.0,
        flip: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(answer=self._benchmark, **options)
        self._lie, self._slow, self._flip = lie, slow, flip
        self._window = (0, 0, 0)
        self.inferred: list[tuple[int, int]] = []

    def _benchmark(self, tokens: list[str]) -> list[bytes] | None:
        match tokens:
            case ["db", "load", size]:
                self._loaded = b""
                return [f"m-[Expecting {size} bytes]\r\n".encode(), READY]
            case ["db", digits]:
                self._loaded += bytes.fromhex(digits)
                self._input[: len(self._loaded)] = bytes(byte ^ self._flip for byte in self._loaded)
                return [b"m-load-done\r\n"] * (len(self._loaded) == SIZE) + [READY]
            case ["infer", count, warm_ups]:
                return self._infer(int(count), int(warm_ups))
            case ["rig", "window", _]:
                count, start_us, end_us = self._window
                text = f"m-rig-window inferences={count} start_us={start_us} end_us={end_us}"
                return [line(text), READY]
        return None

    def _infer(self, count: int, warm_ups: int) -> list[bytes]:
        self.inferred.append((count, warm_ups))
        start_us = self._us + warm_ups * INFERENCE_US
        self._us = start_us + int(count * INFERENCE_US * self._slow)
        self._window = (count, start_us, self._us)
        self.runs += count
        outputs = np.frombuffer(self._spoil(self.runs, fake_output(bytes(self._input))), np.int8)
        lines = [
            f"m-warmup-start-{warm_ups}",
            "m-warmup-done",
            f"m-infer-start-{count}",
            f"m-lap-us-{start_us}",
            f"m-lap-us-{self._us}",
            "m-infer-done",
            f"m-results-[{','.join(f'{value:.3f}' for value in outputs)}]",
        ]
        return [f"{text}\r\n".encode() for text in self._lie(lines)] + [READY]


class FakeOracle:
    """Knows what the scripted firmware computes."""

    def __init__(self, tflite: bytes) -> None:
        self.input_details = [TensorDetails((1, SIZE), np.dtype(np.int8), 1.0, 0)]
        self.output_details = [TensorDetails((1, SIZE), np.dtype(np.int8), 1.0, 0)]

    def __enter__(self) -> FakeOracle:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def outputs(self, arrays: list[Any]) -> list[Any]:
        return [np.frombuffer(fake_output(arrays[0].tobytes()), np.int8)]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is built, and the oracle knows the script."""

    def build(*_: object, **__: object) -> tuple[Any, Manifest]:
        return fake_firmware(tmp_path), fake_manifest()

    monkeypatch.setattr(mlperf, "build_model", build)
    monkeypatch.setattr(mlperf, "Oracle", FakeOracle)
    monkeypatch.setattr(session, "BOOT_S", 5.0)


def run(place: FakePlace, tmp_path: Path, **options: Any) -> Outcome:
    settings = {"mode": "performance", "out": tmp_path / "out", "rules": RULES} | options
    with place:
        return run_mlperf(b"", settings.pop("name", "plus_one"), place, **settings)


def images(tmp_path: Path, count: int, fill: Callable[[int], int] = lambda i: i) -> Path:
    folder = tmp_path / "data" / "ic01"
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(bytes([fill(number)]) * SIZE)
        rows.append(f"{number}.bin,10,{number % 10},{SIZE},0\n")
    (folder / "y_labels.csv").write_text("".join(rows))
    return folder.parent


def test_performance_is_the_median_of_windows_that_last_long_enough(tmp_path: Path) -> None:
    place = BenchmarkPlace()
    said: list[str] = []

    outcome = run(place, tmp_path, narrator=Narrator(said.append))

    windows = [(count, warm_ups) for count, warm_ups in place.inferred if count > 1]
    assert windows == [(5556, 2)] * 3  # 0.5 s of 100 us each, were they a tenth quicker
    assert place.inferred[:3] == [(1, 0)] * 3  # first every output is checked
    assert outcome.throughput == pytest.approx(1e6 / INFERENCE_US)
    assert {window.duration_s for window in outcome.windows} == {0.5556}
    assert len({window.item.data for window in outcome.windows}) == 3
    assert outcome.has_random_inputs
    assert [text.partition(":")[0] for text in said[1:]] == ["window 1", "window 2", "window 3"]


def test_its_files_are_those_of_the_runner(tmp_path: Path) -> None:
    outcome = run(BenchmarkPlace(), tmp_path)

    assert outcome.folder.parent == tmp_path / "out"
    assert re.fullmatch(r"\d{8}_\d{6}", outcome.folder.name)
    files = ["log.txt", "results.json", "results.txt"]
    assert sorted(path.name for path in outcome.folder.iterdir()) == files
    assert found(THROUGHPUT, outcome.folder) == 10000.0
    results = (outcome.folder / "results.txt").read_text()
    assert results.startswith("Measured on fake: virtual (emulated, timing fake/1); no submission")
    assert results.count("Runtime requirements have been met.") == 3
    rows = json.loads((outcome.folder / "results.json").read_text())
    assert len(rows) == 3
    infer = rows[1]["infer"]
    assert infer["elapsed_time"] == infer["end_time"] - infer["start_time"] == 555_600
    assert (infer["iterations"], infer["warmups"], len(infer["results"])) == (5556, 2, SIZE)
    assert infer["throughput"] == 10000.0
    assert (rows[1]["mode"], rows[1]["source"], rows[1]["place"]) == ("p", "virtual", "fake")
    log = (outcome.folder / "log.txt").read_text()
    assert log.count("m-infer-start-5556") == 3


def test_what_the_command_says_names_mode_place_and_source(tmp_path: Path) -> None:
    outcome = run(BenchmarkPlace(), tmp_path)
    told = replace(
        outcome,
        mode="energy",
        energy_uj=61.9291,
        idle_uw=8410.0,
        energy_source="estimate:power model",
    )
    judged = replace(
        outcome, mode="accuracy", throughput=None, accuracy=Accuracy(75.0, 0.9123, 4, ((0, 4, 3),))
    )

    assert cli_mlperf._lines(told) == [
        "MLPerf Tiny energy, no model of the benchmark, on fake (virtual)",
        "  median of 3: 10000.000 inf./sec.",
        "  median energy 61.929 uJ/inf., estimate:power model",
        "  idle power 8410.0 uW",
        "  random inputs: for a submission, --data names the benchmark's data sets",
        f"  {outcome.folder}",
    ]
    assert cli_mlperf._lines(judged)[1:4] == [
        "  class 0: 3 of 4 found",
        "  Top-1 75.0 %, 4 files",
        "  AUC 0.912",
    ]


def test_the_checker_finds_the_figures_of_every_mode(tmp_path: Path) -> None:
    with SessionFolder(tmp_path) as folder:
        write_accuracy(folder, Accuracy(100 * 2 / 3, 0.8766, 3, ((0, 3, 2),)))
        write_throughput(folder, [(100, 10.5), (99, 9.9)], 12345.6784, 10.0)
        write_energy(folder, [(100, 10.0, 2500.0)], 25.00004)
        folder.finish([])

    assert found(TOP1, folder.path) == 66.7
    assert found(AUC, folder.path) == 0.877
    assert found(THROUGHPUT, folder.path) == 12345.678
    assert found(ENERGY, folder.path) == 25.0
    text = (folder.path / "results.txt").read_text()
    assert text.count("Runtime requirements have been met.") == 1
    assert "  Power         : 0.2500 mW.\n" in text


def test_two_sessions_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {run(BenchmarkPlace(), tmp_path).folder for _ in range(3)}

    assert len(folders) == 3


def test_a_slow_model_runs_as_often_as_the_rules_say(tmp_path: Path) -> None:
    place = BenchmarkPlace()

    run(place, tmp_path, rules=Rules(inputs=2, window_s=0.0001, inferences=10, warm_ups=0))

    assert place.inferred[2:] == [(10, 0)] * 2


def test_a_wrong_output_is_no_result(tmp_path: Path) -> None:
    def spoil(number: int, data: bytes) -> bytes:
        return data if number < 3 else data[:7] + b"\x00" + data[8:]

    place = BenchmarkPlace(spoil=spoil)

    with pytest.raises(OutputMismatch) as caught:
        run(place, tmp_path)

    assert caught.value.input_number == 2
    assert place.inferred == [(1, 0)] * 3  # nothing was timed
    (folder,) = (tmp_path / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["log.txt"]


def test_inputs_that_arrive_changed_are_no_wrong_output(tmp_path: Path) -> None:
    place = BenchmarkPlace(flip=1)

    with pytest.raises(WireError, match="inputs that did not arrive as they were sent"):
        run(place, tmp_path)


def replaced(number: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:number], text, *lines[number + 1 :]]


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (replaced(3, "m-lap-us-17"), "the window was 1 inferences from"),
        (replaced(2, "m-infer-start-2"), "expected 'm-infer-start-1'"),
        (lambda lines: lines[:4] + lines[5:], "expected"),
        (replaced(6, "m-results-[1.000,2.000]"), "results other than the outputs"),
        (replaced(6, "m-results-[]"), "results other than the outputs"),
        (lambda lines: [*lines[:6], lines[6].replace("-[", "-[9", 1)], "results other"),
        (replaced(0, "e-[Inputs incomplete: 7 of 300 bytes]"), "'infer 1 0' was refused"),
    ],
)
def test_lines_without_a_crc_are_not_believed(
    tmp_path: Path, lie: Callable[[list[str]], list[str]], message: str
) -> None:
    with pytest.raises(WireError, match=re.escape(message)):
        run(BenchmarkPlace(lie=lie), tmp_path)


def test_inferences_in_a_row_may_be_quicker_than_one_alone(tmp_path: Path) -> None:
    outcome = run(BenchmarkPlace(slow=0.95), tmp_path)

    assert outcome.throughput == pytest.approx(1e6 / INFERENCE_US / 0.95, rel=1e-3)
    assert all(window.duration_s >= RULES.window_s for window in outcome.windows)


def test_a_window_that_its_cycles_do_not_fill_voids_the_session(tmp_path: Path) -> None:
    with pytest.raises(ClockMismatch, match="by the cycles of one inference"):
        run(BenchmarkPlace(slow=1.8), tmp_path)


@pytest.mark.parametrize("crystal", [0.9, 2.5])
def test_a_wrong_crystal_voids_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crystal: float
) -> None:
    monkeypatch.setattr(BenchmarkPlace, "now", lambda self: self._us * crystal * 1e-6)

    with pytest.raises(ClockMismatch, match="by a clock that is not the board's"):
        run(BenchmarkPlace(), tmp_path)


def test_a_model_that_leaves_no_room_for_its_inputs_cannot_follow_the_rules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves no RAM on nrf52840_dk"):
        run(BenchmarkPlace(store_bytes=0), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "energy"}, "energy mode needs a meter, and fake has none"),
        ({"mode": "accuracy"}, "none of the benchmark's models, so its results have no meaning"),
        ({"mode": "accuracy", "name": "ic01"}, "accuracy mode needs a data set: --data"),
        ({"data": Path("/nowhere")}, "'plus_one' is none of the benchmark's models"),
        ({"data": Path("/nowhere"), "name": "ic01"}, "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    place = BenchmarkPlace()

    with pytest.raises(UsageError, match=re.escape(message)):
        run(place, tmp_path, **options)

    assert place.flashed == []
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(UsageError, match="out cannot be written: File exists"):
        run(BenchmarkPlace(), tmp_path)


def test_windows_take_the_first_files_of_a_data_set(tmp_path: Path) -> None:
    place = BenchmarkPlace(flip=0x80)

    outcome = run(place, tmp_path, name="ic01_mine", data=images(tmp_path, 7))

    assert [window.item.file for window in outcome.windows] == ["0.bin", "1.bin", "2.bin"]
    assert not outcome.has_random_inputs


def test_too_few_files_or_equal_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 files; the rules ask for 3"):
        run(BenchmarkPlace(), tmp_path / "a", name="ic01", data=images(tmp_path / "a", 2))
    same = images(tmp_path / "b", 5, fill=lambda i: 7)
    with pytest.raises(UsageError, match="not all different"):
        run(BenchmarkPlace(), tmp_path / "b", name="ic01", data=same)
