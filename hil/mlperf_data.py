"""MLPerf Tiny's models and data sets: what their files hold, and how well outputs fit their labels.

A data set is a folder as the benchmark's runner reads it: `y_labels.csv`, without a header, with
the columns file, classes, class, bytes to send, stride; and the files that it names. The firmware
(firmware/src/mlperf.c) turns what it is sent into the model's input; `decode` does the same here,
so that the oracle can be asked.

Source: github.com/mlcommons/tiny, benchmark/MLPerfTiny_Rules.adoc, benchmark/runner and
benchmark/reference_submissions, as of May 2026.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.errors import UsageError
from hil.inputs import random_inputs
from hil.manifest import Manifest, Tensor

LABELS_FILE = "y_labels.csv"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of the benchmark's models.

    Attributes:
        id: as `profile` says it, and how the names of its models start.
        task: what it is for.
        folder: of its data set.
        form: what its files hold: bytes of the input tensor, pixels from 0 to 255, or little-endian
            float32 values.
        elements: of input and output; they tell it from the others when the name does not.
        reconstructs: the result is the mean squared difference of output and input.
    """

    id: str
    task: str
    folder: str
    form: Literal["tensor", "pixels", "floats"]
    elements: tuple[int, int]
    reconstructs: bool = False


#: The streaming wake word is another kind of benchmark: it needs an interface board that plays
#: sound.
BENCHMARKS = (
    Benchmark("ad01", "anomaly detection", "ad01", "floats", (640, 640), reconstructs=True),
    Benchmark("ic01", "image classification", "ic01", "pixels", (32 * 32 * 3, 10)),
    Benchmark("kws01", "keyword spotting", "kws01", "tensor", (49 * 10, 12)),
    Benchmark("vww01", "visual wake words", "vww01", "pixels", (96 * 96 * 3, 2)),
    # the larger network for the same images: only its name tells it
    Benchmark("ic02", "image classification", "ic01", "pixels", (32 * 32 * 3, 10)),
)


@dataclass(frozen=True, slots=True)
class Item:
    """One input: a file of a data set or, of sounds, a part of it; `data` is what is sent."""

    file: str
    classes: int
    label: int
    bytes_to_send: int
    stride: int
    segments: int
    data: bytes


def find_benchmark(name: str, inputs: Sequence[int], outputs: Sequence[int]) -> Benchmark | None:
    """Which of the benchmark's models this is, by its name or by the elements of its tensors."""
    for benchmark in BENCHMARKS:
        if name.startswith(benchmark.id):
            return benchmark
    for benchmark in BENCHMARKS:
        if (*inputs, *outputs) == benchmark.elements:
            return benchmark
    return None


def form_of(
    benchmark: Benchmark | None, manifest: Manifest
) -> Literal["tensor", "pixels", "floats"]:
    """What the firmware takes `db` bytes for: conversions are to one int8 tensor only."""
    converts = len(manifest.inputs) == 1 and manifest.inputs[0].dtype == "s8"
    return benchmark.form if benchmark and converts else "tensor"


def decode(data: bytes, form: str, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The input tensors that `data` becomes: as mlperf.c computes them, bit for bit."""
    if form == "pixels":
        data = bytes(byte ^ 0x80 for byte in data)
    elif form == "floats":
        (tensor,) = tensors
        steps = np.frombuffer(data, "<f4") / np.float32(tensor.scale)
        steps = np.clip(np.nan_to_num(steps, nan=-512.0), -512.0, 512.0)
        whole = np.trunc(steps)
        rest = steps - whole  # exact
        whole = whole + (rest >= 0.5) - (rest <= -0.5) + tensor.zero_point
        data = np.clip(whole, -128, 127).astype(np.int8).tobytes()
    arrays: list[NDArray[Any]] = []
    offset = 0
    for tensor in tensors:
        chunk = data[offset : offset + tensor.size_bytes]
        arrays.append(np.frombuffer(chunk, tensor.numpy).reshape(tensor.shape))
        offset += tensor.size_bytes
    return arrays


def sent_bytes(form: str, manifest: Manifest) -> int:
    """How many bytes one input is on the wire."""
    return manifest.in_bytes * (4 if form == "floats" else 1)


def random_items(count: int, form: str, manifest: Manifest) -> list[Item]:
    """Inputs from seeds 1, 2, ...: for the time of an inference, not for its answer."""
    items = []
    for seed in range(1, count + 1):
        arrays = random_inputs(manifest.inputs, seed)
        data = b"".join(array.tobytes() for array in arrays)
        if form == "floats":
            (tensor,) = manifest.inputs
            steps = arrays[0].astype(np.float32) - np.float32(tensor.zero_point)
            data = (steps * np.float32(tensor.scale)).astype("<f4").tobytes()
        items.append(Item(f"random seed {seed}", 0, 0, len(data), 0, 1, data))
    return items


class DataSet:
    """A folder in the layout of the benchmark's runner; files are read when they are asked for.

    Args:
        root: folder that holds one folder for each benchmark.
        benchmark: whose data set.
        item_bytes: what one input must have.

    Raises:
        UsageError: no such folder, or a line of y_labels.csv that makes no sense.
    """

    def __init__(self, root: Path, benchmark: Benchmark, item_bytes: int) -> None:
        self._folder = root / benchmark.folder
        self._item_bytes = item_bytes
        self._cuts = benchmark.reconstructs
        path = self._folder / LABELS_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no text"
            raise UsageError(
                f"{path} cannot be read ({why}); --data names the folder that the benchmark's "
                f"runner calls dataset_path, with {benchmark.folder}/{LABELS_FILE} in it"
            ) from None
        rows = [row for row in csv.reader(text.splitlines()) if row]
        self._rows = [self._row(path, number, row) for number, row in enumerate(rows, 1)]
        if not self._rows:
            raise UsageError(f"{path} names no file")

    @staticmethod
    def _row(path: Path, number: int, row: list[str]) -> tuple[str, int, int, int, int]:
        try:
            file, *texts = row[:5]
            classes, label, size, stride = (int(text) for text in texts)
            if not file or not 0 <= label < classes or size < 1 or stride < 0:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"{path} line {number}: {','.join(row)!r} should be file, classes, class, bytes to "
                "send, stride, with class below classes"
            ) from None
        return file, classes, label, size, stride

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> list[int]:
        """The class of each file."""
        return [row[2] for row in self._rows]

    def items(self, number: int) -> list[Item]:
        """The inputs of file `number`: one, or for anomalies one for each window over the sound."""
        file, classes, label, size, stride = self._rows[number]
        path = self._folder / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        parts = [data]
        if self._cuts:
            starts = range(0, len(data) - size + 1, stride or len(data))
            parts = [data[start : start + size] for start in starts]
        if not parts or len(parts[0]) != self._item_bytes:
            seen = len(parts[0]) if parts else len(data)
            raise UsageError(
                f"{path} gives inputs of {seen:,} B; the model takes {self._item_bytes:,} B"
            )
        return [Item(file, classes, label, size, stride, len(parts), part) for part in parts]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well the answers fit the labels, as the benchmark computes it.

    Attributes:
        top1_percent: files whose class was found; for anomalies the best mean of precision and
            recall over a hundred thresholds.
        auc: area under the ROC curve, one class against the rest.
        by_class: (label, files, of them found) for each class; none for anomalies.
    """

    top1_percent: float
    auc: float
    files: int
    by_class: tuple[tuple[int, int, int], ...]


def accuracy(answers: Sequence[tuple[int, Sequence[Sequence[float]]]]) -> Accuracy:
    """The figures of a whole data set.

    Args:
        answers: for each file its label, and the results of its inputs.

    Raises:
        UsageError: the labels or the results cannot give an AUC.
    """
    from sklearn.metrics import roc_auc_score  # takes a second to load

    labels = np.array([label for label, _ in answers])
    scores: Floats = np.array([np.mean([_shares(r) for r in results], 0) for _, results in answers])
    columns = scores.shape[1]
    must_show_every_class(labels.tolist(), max(columns, 2))
    if columns == 1:
        errors = scores[:, 0]
        auc = float(roc_auc_score(labels, errors))
        return Accuracy(_best_threshold_percent(errors, labels), auc, len(labels), ())
    found = np.argmax(scores, axis=1) == labels
    if columns == 2:
        auc = float(roc_auc_score(labels, scores[:, 1]))
    else:
        auc = float(roc_auc_score(labels, scores, multi_class="ovr"))
    by_class = tuple(
        (label, int(np.sum(labels == label)), int(np.sum(found[labels == label])))
        for label in range(columns)
    )
    return Accuracy(100.0 * float(np.mean(found)), auc, len(labels), by_class)


def must_show_every_class(labels: Sequence[int], classes: int) -> None:
    """Raises UsageError unless each class has a file, and no file another one: AUC needs both."""
    if set(labels) != set(range(classes)):
        seen = ", ".join(map(str, sorted(set(labels))))
        raise UsageError(
            f"the data set has files of the classes {seen}; for its AUC it needs some of each of "
            f"0 to {classes - 1}"
        )


def _shares(results: Sequence[float]) -> Floats:
    """Results as shares of their sum; three decimals of each do not add up to 1."""
    values = np.array(results, np.float64)
    if len(values) == 1:
        return values
    total = float(values.sum())
    if not math.isfinite(total) or total == 0:
        raise UsageError(f"results {list(results)} are no probabilities: their sum is {total}")
    return values / total


def _best_threshold_percent(errors: Floats, labels: NDArray[Any]) -> float:
    low, high = float(errors.min()), float(errors.max())
    best = 0.0
    for step in range(100):
        flagged = errors > low + step / 100 * (high - low)
        true_positives = int(np.sum(flagged & (labels == 1)))
        precision = true_positives / (int(np.sum(flagged)) + 1e-8)
        recall = true_positives / (int(np.sum(labels == 1)) + 1e-8)
        best = max(best, 100 * (precision + recall) / 2)
    return best
