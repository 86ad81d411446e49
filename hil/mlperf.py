"""MLPerf Tiny's measurement by the benchmark's rules: performance, accuracy, energy.

The firmware answers the benchmark's own commands (`db load`, `infer`, ...); what they say without a
CRC is compared with what the rig's commands say with one. Every input's outputs must equal the
oracle's before anything is timed. Where the benchmark's public runner is lenient this is not: every
window lasts as long as the rules say and holds as many inferences, and the clocks must agree.

A virtual board's seconds are its own (emulated) ones, and what it says is labelled virtual. Not
here: data sets and scores (mlperf_data), what is written (mlperf_files).

Source: github.com/mlcommons/tiny, benchmark/MLPerfTiny_Rules.adoc and benchmark/runner.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codegen.engines import EngineOptions
from hil.bench import build_model
from hil.build import Firmware
from hil.energy import label, measure_window
from hil.errors import ClockMismatch, OutputMismatch, UsageError, WireError
from hil.lab import Place
from hil.manifest import Manifest
from hil.meters.window import EnergyWindow
from hil.mlperf_data import (
    BENCHMARKS,
    Accuracy,
    Benchmark,
    DataSet,
    Item,
    accuracy,
    decode,
    find_benchmark,
    form_of,
    must_show_every_class,
    random_items,
    sent_bytes,
)
from hil.mlperf_files import (
    Mode,
    SessionFolder,
    row_of,
    write_accuracy,
    write_energy,
    write_throughput,
)
from hil.oracle import Oracle
from hil.session import (
    SLOW_VIRTUAL_HZ,
    booted,
    check_clocks,
    check_identity,
    check_outputs,
    inference_s,
    telling_faults,
)
from hil.wire import CHUNK_BYTES, REPLY_S, Hello, Wire

#: How far the clocks may disagree.
TOLERANCE = 0.01
#: An inference right behind another may be that much quicker than a single one: caches are warm.
WARM_GAIN = 0.1
#: In a window each inference also copies its inputs, which takes at most so many cycles.
COPY_CYCLES_PER_BYTE = 4
COPY_CYCLES = 1000
WINDOW_SLACK_S = 0.01  # the first time stamp is printed inside the window
LINK_SLACK_S = 0.25  # until the host has read what came

_LAP = re.compile(r"m-lap-us-([0-9]{1,20})")
_RESULTS = re.compile(r"m-results-\[([^\]]+)\]")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the benchmark asks of performance and energy mode.

    Attributes:
        inputs: different ones, each with a window of its own.
        window_s: least duration of a window, in seconds of the board.
        inferences: least number in a window.
        warm_ups: inferences before each window.
    """

    inputs: int = 5
    window_s: float = 10.0
    inferences: int = 10
    warm_ups: int = 10


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Window:
    """One answer to `infer`.

    `results` are what it printed, with three decimals. `true_s` is how long window, warm-ups and
    printing took by a clock that does not hang on the board's crystal; `serial_s` is what the
    printing took at most.
    """

    item: Item
    inferences: int
    warm_ups: int
    start_us: int
    end_us: int
    results: tuple[float, ...]
    true_s: float
    serial_s: float
    energy: EnergyWindow | None = None

    @property
    def duration_s(self) -> float:
        """By the board's microsecond timer."""
        return (self.end_us - self.start_us) / 1e6


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished session.

    Attributes:
        mode: performance, accuracy or energy.
        benchmark: which of the benchmark's models it is; None: another one, with random inputs.
        place: its name.
        source: "virtual" or "hardware".
        folder: where log.txt, results.txt and results.json lie.
        windows: all of them; in accuracy mode one for each input.
        throughput: median inferences per second; None in accuracy mode.
        accuracy: only in accuracy mode.
        energy_uj: median of one inference; only in energy mode.
        idle_uw: median power between the windows; only in energy mode.
        energy_source: as in a record; only in energy mode.
        has_random_inputs: whether the inputs are no files of a data set.
    """

    mode: Mode
    benchmark: Benchmark | None
    place: str
    source: str
    folder: Path
    windows: tuple[Window, ...]
    throughput: float | None = None
    accuracy: Accuracy | None = None
    energy_uj: float | None = None
    idle_uw: float | None = None
    energy_source: str | None = None
    has_random_inputs: bool = False


@dataclass(frozen=True, slots=True)
class Narrator:
    """How people follow a session: lines that stay, and what is under way."""

    say: Callable[[str], None] = field(default=lambda _: None)
    status: Callable[[str], None] = field(default=lambda _: None)


def run_mlperf(
    tflite: bytes,
    name: str,
    place: Place,
    *,
    mode: Mode,
    out: Path,
    data: Path | None = None,
    engine: str = "tiny",
    options: EngineOptions | None = None,
    rules: Rules = RULES,
    narrator: Narrator | None = None,
    models_dir: Path | None = None,
) -> Outcome:
    """One session of the benchmark.

    Args:
        tflite: the model file, untrusted.
        name: what the user calls it; one that starts with `ic01` or the like tells the benchmark.
        place: an open place.
        mode: performance, accuracy or energy.
        out: folder that gets the session's folder.
        data: folder of data sets; without it performance and energy take random inputs.
        engine: a name of codegen.engines.
        options: of the engine.
        rules: windows; the benchmark's by default.
        narrator: told how it goes.
        models_dir: as in `measure_model`.

    Raises:
        UsageError: no data set where one is needed, none that fits, or no meter for energy.
        OutputMismatch: an output differs from the oracle's.
        ClockMismatch: the board's clocks disagree.
        HilError: building, flashing, the link, the protocol or the meter failed.
        CodegenError: the engine cannot take the model.
    """
    narrator = narrator or Narrator()
    if mode == "energy" and place.meter is None:
        raise UsageError(
            f"energy mode needs a meter, and {place.name} has none; name it in lab.toml, or take a "
            "virtual board with one: virtual:ID?meter=ppk2"
        )
    with Oracle(tflite) as oracle:
        benchmark = _benchmark(name, oracle)
        if mode == "accuracy" and benchmark is None:
            known = ", ".join(f"{known.id} ({known.task})" for known in BENCHMARKS)
            raise UsageError(
                f"{name!r} has the tensors of none of the benchmark's models, so its results have "
                f"no meaning; a file name that starts with one says which it is: {known}"
            )
        if mode == "accuracy" and data is None:
            raise UsageError("accuracy mode needs a data set: --data")
        if data is not None and benchmark is None:
            raise UsageError(f"{name!r} is none of the benchmark's models: no data set is its own")
        model_name = name
        if benchmark is not None and not name.startswith(benchmark.id):
            model_name = benchmark.id  # the firmware knows its data and its results by that name
        narrator.status(f"building {model_name} for {place.name}")
        firmware, manifest = build_model(
            tflite,
            model_name,
            place.board,
            engine=engine,
            options=options or EngineOptions(),
            mlperf=True,
            models_dir=models_dir,
        )
        form = form_of(benchmark, manifest)
        files = None
        if data is not None and benchmark is not None:
            files = DataSet(data, benchmark, sent_bytes(form, manifest))
            if mode == "accuracy":
                _check_labels(files, manifest, benchmark)
        items = [] if mode == "accuracy" else _inputs(files, rules, form, manifest)
        with SessionFolder(out) as folder:
            folder.log(_about(place, firmware, manifest, benchmark))
            narrator.status(f"flashing {place.name}")
            with telling_faults(place), booted(place, firmware) as wire:
                hello = wire.hello()
                check_identity(hello, place, firmware, manifest)
                board = _Board(wire, place, manifest, hello, form, oracle, folder)
                if files is not None and mode == "accuracy":
                    windows = _answers(board, files, narrator)
                else:
                    windows = _windows(board, items, rules, mode, narrator)
            return _finish(folder, windows, mode, benchmark, place, manifest, files is None, rules)


def _benchmark(name: str, oracle: Oracle) -> Benchmark | None:
    return find_benchmark(
        name,
        [math.prod(details.shape) for details in oracle.input_details],
        [math.prod(details.shape) for details in oracle.output_details],
    )


def _check_labels(files: DataSet, manifest: Manifest, benchmark: Benchmark) -> None:
    """Before hours of inference rather than after."""
    answers = math.prod(manifest.outputs[0].shape)
    must_show_every_class(files.labels, 2 if benchmark.reconstructs else answers)


def _inputs(files: DataSet | None, rules: Rules, form: str, manifest: Manifest) -> list[Item]:
    """The inputs of the windows: the first files of the data set, of sounds their first part."""
    if files is None:
        return random_items(rules.inputs, form, manifest)
    if len(files) < rules.inputs:
        raise UsageError(f"the data set has {len(files)} files; the rules ask for {rules.inputs}")
    items = [files.items(number)[0] for number in range(rules.inputs)]
    if len({item.data for item in items}) < len(items):
        raise UsageError(f"the first {rules.inputs} files of the data set are not all different")
    return items


def _about(
    place: Place, firmware: Firmware, manifest: Manifest, benchmark: Benchmark | None
) -> str:
    return (
        f"{manifest.model_name} ({benchmark.task if benchmark else 'no model of the benchmark'}), "
        f"model {manifest.model_sha256}, engine {manifest.engine}, firmware {firmware.sha256}, "
        f"on {_origin(place)}"
    )


def _origin(place: Place) -> str:
    if place.source == "virtual":
        return f"{place.name}: virtual (emulated, timing {place.timing_model}); no submission"
    return f"{place.name}: hardware, {place.board.name}"


class _Board:
    """The benchmark's commands, each checked against what the rig's own commands say."""

    def __init__(
        self,
        wire: Wire,
        place: Place,
        manifest: Manifest,
        hello: Hello,
        form: str,
        oracle: Oracle,
        folder: SessionFolder,
    ) -> None:
        if hello.store_bytes < sent_bytes(form, manifest) + manifest.in_bytes * (form == "floats"):
            raise UsageError(
                f"{manifest.model_name} leaves no RAM on {place.board.id} to keep its inputs for "
                "more than one inference; the benchmark's rules cannot be followed"
            )
        self.wire, self.place, self.manifest, self.folder = wire, place, manifest, folder
        self.clock_hz = hello.clock_hz
        self._form, self._oracle = form, oracle
        # as mlperf_data.c decides it
        self._reconstructs = form == "floats" and [
            (tensor.dtype, tensor.size_bytes) for tensor in manifest.outputs[:1]
        ] == [("s8", manifest.in_bytes)]
        self._one_s = inference_s(place, manifest)
        self._rate_hz = SLOW_VIRTUAL_HZ if place.source == "virtual" else hello.clock_hz
        self._expected = self._inputs = b""
        self._loaded: Item | None = None

    def load(self, item: Item, number: int, segment: int = 0) -> None:
        """Sends an input, and asks the oracle for its outputs."""
        self.folder.note(f"Loading file {item.file} segment {segment}")
        size = len(item.data)
        announced = self.wire.mlperf(f"db load {size}", timeout_s=REPLY_S)
        _must_be(announced, [f"m-[Expecting {size} bytes]"])
        for offset in range(0, size, CHUNK_BYTES):
            chunk = item.data[offset : offset + CHUNK_BYTES]
            done = ["m-load-done"] if offset + len(chunk) == size else []
            _must_be(self.wire.mlperf(f"db {chunk.hex()}", timeout_s=REPLY_S), done)
        self.folder.note("Load complete.")
        arrays = decode(item.data, self._form, self.manifest.inputs)
        self._inputs = b"".join(array.tobytes() for array in arrays)
        self._expected = b"".join(array.tobytes() for array in self._oracle.outputs(arrays))
        self._loaded, self._number = item, number

    def infer(self, inferences: int, warm_ups: int, cycles: int | None = None) -> Window:
        """Runs the input that was loaded, and checks outputs and results.

        Args:
            inferences: in the window.
            warm_ups: before it.
            cycles: of one inference, for the deadline; None: not known yet.

        Raises:
            OutputMismatch: it computed something else than the oracle.
            WireError: the lines do not agree with what the CRCs protect.
        """
        assert self._loaded is not None, "an input is loaded first"
        one_s = self._one_s if cycles is None else 2 * cycles / self._rate_hz
        self.folder.note(
            f"Running inference with {warm_ups}/{inferences} (warmup/measured) iterations ..."
        )
        started_s = self.place.now()
        lines = self.wire.mlperf(
            f"infer {inferences} {warm_ups}",
            timeout_s=REPLY_S + self._one_s + max(inferences, warm_ups) * one_s,
        )
        true_s = self.place.now() - started_s
        for line in lines:
            self.folder.log(line)
        start_us, end_us = self._window_us(lines, inferences, warm_ups)
        outputs = self._outputs()
        results = self._results(lines[-1], outputs)
        bits = 10 * sum(len(line) + 2 for line in lines)
        return Window(
            self._loaded,
            inferences,
            warm_ups,
            start_us,
            end_us,
            results,
            true_s,
            bits / self.place.board.link.baud,
        )

    def _outputs(self) -> bytes:
        """Those of the last inference, which must be the oracle's."""
        outputs = self.wire.outputs(self.manifest.out_bytes)
        try:
            check_outputs(self.manifest, self._number, self._expected, outputs)
        except OutputMismatch:
            # `db` has no CRC: is it the model, or what became of its inputs on the way?
            self.wire.feed(self._inputs)
            self.wire.run(1, timeout_s=self._one_s)
            if self.wire.outputs(self.manifest.out_bytes) == self._expected:
                raise WireError(
                    "inputs that did not arrive as they were sent; with a CRC their outputs are "
                    "the oracle's",
                    "m-load-done",
                ) from None
            raise
        return outputs

    def _window_us(self, lines: list[str], inferences: int, warm_ups: int) -> tuple[int, int]:
        laps = [match for line in lines if (match := _LAP.fullmatch(line))]
        start_us, end_us = (int(match[1]) for match in laps) if len(laps) == 2 else (0, 0)
        expected = [
            f"m-warmup-start-{warm_ups}",
            "m-warmup-done",
            f"m-infer-start-{inferences}",
            f"m-lap-us-{start_us}",
            f"m-lap-us-{end_us}",
            "m-infer-done",
        ]
        _must_be(lines[:-1], expected)
        known = self.wire.window()
        if known != (inferences, start_us, end_us):
            raise WireError(
                f"the window was {known[0]} inferences from {known[1]} to {known[2]} us",
                " ".join(lines[2:5]),
            )
        return start_us, end_us

    def _results(self, line: str, outputs: bytes) -> tuple[float, ...]:
        """What the line says, which must be what the outputs mean."""
        match = _RESULTS.fullmatch(line)
        try:
            printed = tuple(float(text) for text in match[1].split(",")) if match else ()
        except ValueError:
            printed = ()
        meant = self._meaning(outputs)
        if len(printed) != len(meant) or any(
            abs(a - b) > 0.00051 + 1e-4 * abs(b) for a, b in zip(printed, meant, strict=True)
        ):
            shown = ",".join(f"{value:.3f}" for value in meant[:10])
            raise WireError(f"results other than the outputs, which are [{shown}]", line[:200])
        return printed

    def _meaning(self, outputs: bytes) -> list[float]:
        values: list[float] = []
        offset = 0
        for tensor in self.manifest.outputs:
            data = np.frombuffer(outputs[offset : offset + tensor.size_bytes], tensor.numpy)
            offset += tensor.size_bytes
            if tensor.dtype == "f32":
                values += data.tolist()
            else:
                real = (data.astype(np.float64) - tensor.zero_point) * np.float32(tensor.scale)
                values += real.tolist()
        if self._reconstructs and self._loaded is not None:
            sent = np.frombuffer(self._loaded.data, "<f4").astype(np.float64)
            return [float(np.mean((np.array(values) - sent) ** 2))]
        return values


def _must_be(lines: Sequence[str], expected: Sequence[str]) -> None:
    if list(lines) != list(expected):
        seen = next((a for a, b in zip(lines, expected, strict=False) if a != b), " ".join(lines))
        wanted = next(
            (b for a, b in zip(lines, expected, strict=False) if a != b), " ".join(expected)
        )
        raise WireError(f"expected {wanted!r}", seen)


def _answers(board: _Board, files: DataSet, narrator: Narrator) -> list[Window]:
    """One inference of every input of the data set."""
    windows = []
    for number in range(len(files)):
        narrator.status(f"file {number + 1} of {len(files)} on {board.place.name}")
        for segment, item in enumerate(files.items(number)):
            board.load(item, number, segment)
            windows.append(board.infer(1, 0))
    narrator.say(f"{len(files)} files, {len(windows)} inferences: every output as the oracle's")
    return windows


def _windows(
    board: _Board, items: Sequence[Item], rules: Rules, mode: Mode, narrator: Narrator
) -> list[Window]:
    """All outputs checked, then one window for each input."""
    narrator.status(f"checking {len(items)} outputs on {board.place.name}")
    for number, item in enumerate(items):
        board.load(item, number)
        board.infer(1, 0)
    (cycles,) = board.wire.run(1, timeout_s=inference_s(board.place, board.manifest))
    seconds = cycles / board.clock_hz
    inferences = max(rules.inferences, math.ceil(rules.window_s / (1 - WARM_GAIN) / seconds))
    narrator.say(
        f"{len(items)} outputs as the oracle's; {inferences} inferences of {seconds * 1e3:.3f} ms "
        f"in each window"
    )
    windows = []
    for number, item in enumerate(items):
        narrator.status(f"window {number + 1} of {len(items)} on {board.place.name}")
        board.load(item, number)
        window = _window(board, inferences, cycles, rules, mode)
        windows.append(window)
        rate = window.inferences / window.duration_s
        text = f"window {number + 1}: {window.duration_s:.3f} s, {rate:.3f} inf./sec."
        if window.energy is not None:
            text += f", {window.energy.energy_uj / window.inferences:.3f} uJ/inf."
        narrator.say(text)
        board.folder.note(f"Performance results for window {number + 1}:")
        board.folder.note(f"  # Inferences : {window.inferences:>13}")
        board.folder.note(f"  Runtime      : {window.duration_s:>10.3f} sec.")
        board.folder.note(f"  Throughput   : {rate:>10.3f} inf./sec.")
    return windows


def _window(board: _Board, inferences: int, cycles: int, rules: Rules, mode: Mode) -> Window:
    """One window, whose clocks agree."""
    before = board.wire.time()
    seen: list[Window] = []

    def run() -> float:
        seen.append(board.infer(inferences, rules.warm_ups, cycles))
        return seen[0].duration_s

    energy = None
    if mode == "energy":
        assert board.place.meter is not None, "looked at before anything was built"
        energy = measure_window(board.place.meter, run)
    else:
        run()
    (window,) = seen
    check_clocks(before, board.wire.time(), board.clock_hz, 0)
    copy_cycles = COPY_CYCLES + COPY_CYCLES_PER_BYTE * board.manifest.in_bytes
    check_window(window, cycles / board.clock_hz, copy_cycles / board.clock_hz, rules)
    return dataclasses.replace(window, energy=energy)


def check_window(window: Window, inference_s: float, copy_s: float, rules: Rules) -> None:
    """Raises ClockMismatch for a window that cannot be what it says.

    Args:
        window: as the board's microsecond timer tells it.
        inference_s: one inference by the cycle counter.
        copy_s: what its inputs take at most to be put in place.
        rules: of the window.
    """
    expected_s = window.inferences * inference_s
    longest_s = (1 + TOLERANCE) * window.inferences * (inference_s + copy_s) + WINDOW_SLACK_S
    if not (1 - WARM_GAIN) * expected_s < window.duration_s < longest_s:
        raise ClockMismatch(
            f"a window of {window.inferences} inferences took {window.duration_s:.3f} s by the "
            f"coarse timer, {expected_s:.3f} s by the cycles of one inference"
        )
    board_s = window.duration_s + window.warm_ups * inference_s
    latest_s = (1 + TOLERANCE) * (board_s + window.warm_ups * copy_s)
    latest_s += window.serial_s + LINK_SLACK_S
    if not (1 - TOLERANCE) * board_s < window.true_s < latest_s:
        raise ClockMismatch(
            f"{board_s:.3f} s of inferences by the board's timer took {window.true_s:.3f} s by a "
            "clock that is not the board's"
        )
    if window.duration_s < rules.window_s:
        raise ClockMismatch(
            f"a window of {window.inferences} inferences took {window.duration_s:.3f} s; by the "
            f"cycles of one inference it should be over {rules.window_s:g} s"
        )


def _finish(
    folder: SessionFolder,
    windows: Sequence[Window],
    mode: Mode,
    benchmark: Benchmark | None,
    place: Place,
    manifest: Manifest,
    is_random: bool,
    rules: Rules,
) -> Outcome:
    """The figures, and the files."""
    folder.result(f"Measured on {_origin(place)}")
    if is_random:
        folder.result("Inputs: random; the benchmark asks for files of its data set")
    outcome = Outcome(
        mode,
        benchmark,
        place.name,
        place.source,
        folder.path,
        tuple(windows),
        has_random_inputs=is_random,
    )
    fields: dict[str, Any] = {}
    if mode == "accuracy":
        fields["accuracy"] = accuracy(_by_file(windows))
        write_accuracy(folder, fields["accuracy"])
    else:
        rates = [window.inferences / window.duration_s for window in windows]
        fields["throughput"] = statistics.median(rates)
    if mode == "performance":
        told = [(window.inferences, window.duration_s) for window in windows]
        write_throughput(folder, told, fields["throughput"], rules.window_s)
    if mode == "energy":
        energies = [
            (window.energy, window.inferences, window.duration_s)
            for window in windows
            if window.energy is not None
        ]
        fields["energy_uj"] = statistics.median(e.energy_uj / n for e, n, _ in energies)
        fields["idle_uw"] = statistics.median(e.idle_uw for e, _, _ in energies)
        fields["energy_source"] = label(place)
        folder.result(f"Energy is {fields['energy_source']}")
        folder.result(f"Idle power: {fields['idle_uw'] * 1e-3:.4f} mW")
        write_energy(folder, [(n, s, e.energy_uj) for e, n, s in energies], fields["energy_uj"])
    facts = {
        "source": place.source,
        "place": place.name,
        "board": place.board.id,
        "engine": manifest.engine,
        "model_sha256": manifest.model_sha256,
        "timing_model": place.timing_model,
    }
    folder.finish([_row(window, mode) | facts for window in windows])
    return dataclasses.replace(outcome, **fields)


def _by_file(windows: Sequence[Window]) -> list[tuple[int, list[tuple[float, ...]]]]:
    """Label and results of each file, in the order in which they came."""
    files: dict[str, tuple[int, list[tuple[float, ...]]]] = {}
    for window in windows:
        files.setdefault(window.item.file, (window.item.label, []))[1].append(window.results)
    return list(files.values())


def _row(window: Window, mode: Mode) -> dict[str, Any]:
    infer: dict[str, Any] = {
        "start_time": window.start_us,
        "end_time": window.end_us,
        "results": list(window.results),
        "elapsed_time": window.end_us - window.start_us,
        "total_inferences": 1,
        "iterations": window.inferences,
        "warmups": window.warm_ups,
    }
    if mode == "performance":
        infer["throughput"] = window.inferences / window.duration_s
    row = row_of(window.item, infer, mode)
    if window.energy is not None:
        row["power"] = {
            "voltage": window.energy.supply_mv / 1000,
            "energy_uj": window.energy.energy_uj,
            "idle_uw": window.energy.idle_uw,
        }
    return row
