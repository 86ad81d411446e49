"""What a calibration says: how far a twin is from its board, and the constants that fit.

Not here: measuring (calibrate), the least squares (fitting), what is printed (cli_timing).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hil.board import Board, with_constants
from hil.calibrate import Image, Reading, Twin
from hil.fitting import Fit, Parameter, fit
from hil.microbenchmarks import Microbenchmark

SCHEMA = 1

#: `hil calibrate --check` finds a twin too far from its board when the mean of the differences, or
#: the largest one, is more than this: what the twin promises for whole programs on a Cortex-M4.
MEAN_LIMIT = 0.10
WORST_LIMIT = 0.25

_DIGITS = 4  # of constants and residuals in a file: finer than the virtual board's 1/256 cycle


@dataclass(frozen=True, slots=True)
class Comparison:
    """One micro-benchmark: cycles of one body as expected, as measured and on the twin."""

    benchmark: Microbenchmark
    measured: float
    twin: float

    @property
    def expected(self) -> float | None:
        """What the source in the table says."""
        return self.benchmark.row.cycles

    @property
    def difference(self) -> float:
        """Of the twin, as a part of what was measured."""
        return (self.twin - self.measured) / self.measured

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.benchmark.name,
            "rule": self.benchmark.row.rule,
            "expected_cycles": self.expected,
            "source": self.benchmark.row.source or None,
            "measured_cycles": self.measured,
            "twin_cycles": self.twin,
            "difference": self.difference,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A measurement of all micro-benchmarks on a place, against a twin; with a fit, the fitted one.

    `worst` and `mean` are of the absolute differences of the twin.
    """

    place: str
    source: Literal["virtual", "hardware"]
    board: Board
    timing_model: str
    firmware_sha256: str
    measured_at: str
    comparisons: tuple[Comparison, ...]
    fit: Fit | None

    @property
    def mean(self) -> float:
        """Mean absolute difference of the twin."""
        return float(np.mean([abs(c.difference) for c in self.comparisons]))

    @property
    def worst(self) -> Comparison:
        """The micro-benchmark that the twin is farthest off at."""
        return max(self.comparisons, key=lambda c: abs(c.difference))

    @property
    def is_close(self) -> bool:
        """Whether the twin is within the limits."""
        return self.mean <= MEAN_LIMIT and abs(self.worst.difference) <= WORST_LIMIT

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        fitted = None
        if self.fit is not None:
            fitted = {
                "constants": self.fit.values,
                "standard_errors": self.fit.standard_errors,
                "undetermined": list(self.fit.undetermined),
            }
        return {
            "schema": SCHEMA,
            "place": self.place,
            "source": self.source,
            "board": self.board.id,
            "timing_model": self.timing_model,
            "firmware_sha256": self.firmware_sha256,
            "measured_at": self.measured_at,
            "mean_difference": self.mean,
            "worst_difference": self.worst.difference,
            "fit": fitted,
            "benchmarks": [comparison.to_json() for comparison in self.comparisons],
        }

    def timing_file(self) -> str:
        """The text of boards/<id>.timing.toml; only for a report with a fit."""
        assert self.fit is not None, "without a fit there are no constants to write"
        measured = {c.benchmark.name: round(c.twin - c.measured, _DIGITS) for c in self.comparisons}
        lines = [
            f"# Constants of {self.board.id} as `hil calibrate` fitted them; they override those "
            "of the board file.",
            f"source = {_text(self.source)}",
            f"place = {_text(self.place)}",
            f"measured_at = {_text(self.measured_at)}",
            f"firmware_sha256 = {_text(self.firmware_sha256)}",
            f"timing_model = {_text(self.timing_model)}",
            "# the micro-benchmarks say nothing about these, or nothing that the others do not:",
            f"undetermined = [{', '.join(map(_text, self.fit.undetermined))}]",
            "",
            "[constants] # cycles, or parts of the wait states",
            *_numbers(self.fit.values),
            "",
            "[standard_errors] # of the constants, from the scatter of the residuals",
            *_numbers(self.fit.standard_errors),
            "",
            "[residuals] # cycles of one body: the twin with these constants less the measurement",
            *_numbers(measured),
        ]
        return "\n".join(lines) + "\n"


def compare(readings: Sequence[Reading], twin: Sequence[Reading]) -> tuple[Comparison, ...]:
    """The same micro-benchmarks, measured and on the twin."""
    return tuple(
        Comparison(there.benchmark, there.cycles, here.cycles)
        for there, here in zip(readings, twin, strict=True)
    )


def fit_constants(image: Image, readings: Sequence[Reading]) -> Fit:
    """The board's constants with which its twin comes closest to the readings.

    From the micro-benchmarks that no manual gives cycles for. Differences count by their part of
    the measured cycles, those below one cycle as if they were of one cycle.
    """
    used = [reading for reading in readings if reading.benchmark.row.cycles is None]
    twin = Twin(image, [reading.benchmark for reading in used])
    measured = np.array([reading.cycles for reading in used])

    def model(values: dict[str, float]) -> Any:
        board = with_constants(image.board, values)
        return np.array([reading.cycles for reading in twin.measure(board)])

    parameters = {
        name: Parameter(constant.value, constant.lower, constant.upper)
        for name, constant in image.board.timing.constants().items()
    }
    return fit(parameters, measured, 1 / np.maximum(1.0, measured), model)


def calibrated(
    *,
    place: str,
    source: Literal["virtual", "hardware"],
    image: Image,
    readings: Sequence[Reading],
    timing_model: str,
    with_fit: bool,
) -> Report:
    """Everything that there is to say of the readings of a place."""
    found = fit_constants(image, readings) if with_fit else None
    board = with_constants(image.board, found.values) if found is not None else image.board
    return Report(
        place=place,
        source=source,
        board=board,
        timing_model=timing_model,
        firmware_sha256=image.firmware.sha256,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        comparisons=compare(readings, Twin(image).measure(board)),
        fit=found,
    )


def _numbers(values: dict[str, float]) -> list[str]:
    return [f"{_text(name)} = {round(float(value), _DIGITS)}" for name, value in values.items()]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a TOML basic string, for what names can hold
