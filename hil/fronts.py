"""What a study found on each of its places, which of it is on the front, and what it cost.

Plain numbers for tables, files and plots (report, plot). Virtual and hardware never share one:
every place has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np

from hil.errors import UsageError
from hil.record import Record
from hil.store import Study, TrialRow

DEFAULT_OBJECTIVES = ("error", "latency_us", "sram_bytes")
BASELINE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One trial on one place; accuracies are shares, `baseline` is the reference engine's."""

    number: int
    summary: str
    accuracy: float
    test_accuracy: float | None
    record: Record
    baseline: Record | None
    is_on_front: bool

    @property
    def speedup(self) -> float | None:
        """How many times fewer cycles than the reference engine."""
        if self.baseline is None:
            return None
        return self.baseline.latency_cycles.median / self.record.latency_cycles.median


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFront:
    """All measured trials of one place, by latency; the front is one of `objectives`."""

    place: str
    board: str
    source: str
    objectives: tuple[str, ...]
    found: tuple[Found, ...]

    @property
    def front(self) -> list[Found]:
        """Those that no other trial beats in all objectives."""
        return [found for found in self.found if found.is_on_front]

    @property
    def dominated(self) -> list[Found]:
        """The others."""
        return [found for found in self.found if not found.is_on_front]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """What the numbers of a study have cost, in seconds and in trials."""

    cpu_s: float
    gpu_s: float
    board_s: float
    proposed: int
    trained: int
    measured: int
    infeasible: int
    failed: int


#: Values of the objectives, all to be minimised.
METRICS: dict[str, Callable[[float, Record], float]] = {
    "error": lambda accuracy, _: 1.0 - accuracy,
    "latency_us": lambda _, record: record.latency_us,
    "sram_bytes": lambda _, record: record.sram_bytes.total,
    "flash_bytes": lambda _, record: record.flash_bytes.total,
    "energy_uj": lambda _, record: record.energy_uj.median if record.energy_uj else np.nan,
}


def place_fronts(study: Study, board: str | None = None) -> list[PlaceFront]:
    """One front for each place of the study; only those with `board` if given.

    Raises:
        UsageError: no place of the study has that board, or nothing was measured yet.
    """
    trials = [trial for trial in study.trials() if trial.state == "measured"]
    engine = study.config.get("engine", "tiny")
    objectives = tuple(study.config.get("objectives", DEFAULT_OBJECTIVES))
    places = dict.fromkeys(
        place
        for trial in trials
        for place, record in zip(trial.asked, trial.records, strict=True)
        if record.engine == engine
    )
    if not places:
        raise UsageError(f"study {study.name!r} has no measured trial yet; hil search continues it")
    fronts = [_place_front(place, trials, engine, objectives) for place in places]
    if board is None:
        return fronts
    boards = sorted({front.board for front in fronts})
    if board not in boards:
        raise UsageError(
            f"study {study.name!r} has nothing on {board!r}, only on {', '.join(boards)}"
        )
    return [front for front in fronts if front.board == board]


def search_cost(study: Study) -> SearchCost:
    """What the study has used so far."""
    trials = study.trials()
    stored = study.cost()

    def train_s(device: str) -> float:
        seconds = (t.outcome for t in trials if t.outcome.get("train_device") == device)
        return sum(float(outcome.get("train_s", 0.0)) for outcome in seconds)

    def count(state: str) -> int:
        return sum(trial.state == state for trial in trials)

    return SearchCost(
        cpu_s=stored.cpu_s + train_s("cpu"),
        gpu_s=stored.gpu_s + train_s("cuda"),
        board_s=stored.board_s,
        proposed=len(trials),
        trained=sum(trial.has_model for trial in trials),
        measured=count("measured"),
        infeasible=count("infeasible"),
        failed=count("failed"),
    )


def _place_front(
    place: str, trials: Sequence[TrialRow], engine: str, objectives: tuple[str, ...]
) -> PlaceFront:
    measured = [
        (trial, record)
        for trial in trials
        if (record := trial.record(place, engine)) is not None and "accuracy" in trial.outcome
    ]
    values = np.array(
        [[METRICS[o](t.outcome["accuracy"], record) for o in objectives] for t, record in measured]
    )
    is_on_front = moocore.is_nondominated(values, keep_weakly=True)
    found = [
        Found(
            number=trial.number,
            summary=_text(trial.outcome.get("summary")) or f"trial {trial.number}",
            accuracy=float(trial.outcome["accuracy"]),
            test_accuracy=trial.test_accuracy,
            record=record,
            baseline=trial.record(place, BASELINE),
            is_on_front=bool(on_front),
        )
        for (trial, record), on_front in zip(measured, is_on_front, strict=True)
    ]
    record = measured[0][1]
    return PlaceFront(
        place=place,
        board=record.board,
        source=record.source,
        objectives=objectives,
        found=tuple(sorted(found, key=lambda f: (f.record.latency_us, f.number))),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
