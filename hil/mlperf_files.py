"""The files of an MLPerf Tiny session, named and formed as the benchmark's runner writes them.

A folder <date>_<time> with log.txt (the conversation), results.txt (the lines that the benchmark's
submission checker looks for) and results.json (every window). They say more than the runner's do:
where a result comes from. What an emulated board says is no submission.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from hil.console import writing
from hil.mlperf_data import Accuracy, Item

Mode = Literal["performance", "accuracy", "energy"]

_RULE = "-" * 57


class SessionFolder:
    """A new folder for one session; a context manager.

    Args:
        parent: made if it is not there.

    Raises:
        UsageError: a file cannot be written; `finish` raises it, too.
    """

    def __init__(self, parent: Path) -> None:
        with writing(parent):
            self.path = _new_folder(parent)
            self._log: IO[str] = open(self.path / "log.txt", "w", encoding="utf-8")  # noqa: SIM115
        self._results: list[str] = []

    def __enter__(self) -> SessionFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def log(self, text: str) -> None:
        """One line of log.txt, at once: what is there when it ends early says how far it came."""
        self._log.write(text + "\n")
        self._log.flush()

    def note(self, text: str) -> None:
        """One line of log.txt with the time in front."""
        self.log(f"{_stamp()} ulp-mlperf: {text}")

    def result(self, text: str) -> None:
        """One line of results.txt, and of log.txt."""
        self.log(text)
        self._results.append(text)

    def headline(self, text: str) -> None:
        """One line of results.txt with the time in front; the checker wants something there."""
        self.result(f"{_stamp()} ulp-mlperf: {text}")

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Writes results.txt and results.json; without this call there are no results."""
        with writing(self.path):
            (self.path / "results.json").write_text(json.dumps(rows), encoding="utf-8")
            text = "".join(f"{line}\n" for line in self._results)
            (self.path / "results.txt").write_text(text, encoding="utf-8")


def write_accuracy(folder: SessionFolder, accuracy: Accuracy) -> None:
    """The lines of accuracy mode."""
    for label, files, found in accuracy.by_class:
        folder.result(f"  Class {label}: {found} of {files} files found")
    folder.headline(f"Top 1% = {accuracy.top1_percent:2.1f}")
    folder.headline(f"AUC = {accuracy.auc:.3f}")


def write_throughput(
    folder: SessionFolder, windows: list[tuple[int, float]], median: float, least_s: float
) -> None:
    """The lines of performance mode.

    Args:
        folder: where to.
        windows: inferences and seconds of each.
        median: inferences per second.
        least_s: what the rules ask of a window.
    """
    for number, (count, seconds) in enumerate(windows, 1):
        folder.result(f"Performance results for window {number}")
        folder.result(f"    # Inferences : {count}")
        folder.result(f"    Runtime: {seconds:.6f} sec.")
        folder.result(f"    Throughput: {count / seconds} inf./sec.")
        if seconds >= least_s:
            folder.result("    Runtime requirements have been met.")
    _framed(folder.headline, f"Median throughput is {median:>10.3f} inf./sec.")


def write_energy(
    folder: SessionFolder, windows: list[tuple[int, float, float]], median_uj: float
) -> None:
    """The lines of energy mode.

    Args:
        folder: where to.
        windows: inferences, seconds and microjoules of each.
        median_uj: of one inference.
    """
    folder.result("Power Edition Output")
    for number, (count, seconds, uj) in enumerate(windows):
        folder.result(f"Energy data for trial {number}")
        folder.result(f"  Elapsed time  : {seconds:.6f}")
        folder.result(f"  Inferences    : {count}")
        folder.result(f"  Power         : {uj * 1e-3 / seconds:5.4f} mW.")
        folder.result(f"  Total Energy  : {uj:.3f} uJ")
        folder.result(f"  Energy/Inf    : {uj / count:.3f} uJ/inf")
    _framed(folder.headline, f"Median energy cost is {median_uj:5.4f} uJ/inf.")


def row_of(item: Item, infer: dict[str, Any], mode: Mode) -> dict[str, Any]:
    """An entry of results.json: the columns of y_labels.csv as text, and what `infer` answered."""
    return {
        "file": item.file,
        "classes": str(item.classes),
        "class": str(item.label),
        "bytes_to_send": str(item.bytes_to_send),
        "stride": str(item.stride),
        "total_length": item.segments if item.stride else None,
        "infer": infer,
        "mode": mode[0],
    }


def _framed(write: Callable[[str], None], text: str) -> None:
    for line in (_RULE, text, _RULE):
        write(line)


def _stamp() -> str:
    return f"{datetime.datetime.now():%m%d.%H%M%S}"


def _new_folder(parent: Path) -> Path:
    """Named by the second; a session that starts in the same one gets a number behind it."""
    parent.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.datetime.now():%Y%m%d_%H%M%S}"
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}_{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
