"""The end of a study: test accuracy, once, and the baseline for the trials on the fronts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hil.store import Store, Study, TrialRow
from search.candidate import int8_accuracy
from search.data import InputQuant, TestData
from search.measuring import MeasureDone, MeasureJob, OpenBench, PlaceThread
from search.pareto import non_dominated
from search.reward import objectives
from search.study import StudySettings

#: The baseline that is always there.
BASELINE_ENGINE = "reference"


def board_front(rows: list[TrialRow], settings: StudySettings, place: str) -> list[TrialRow]:
    """The trials that are non-dominated in the study's objectives at one place, by number."""
    wanted = objectives(settings.objectives, [place])
    measured = [
        (row, record)
        for row in rows
        if row.state == "measured" and (record := row.record(place, settings.engine)) is not None
    ]
    points = np.array(
        [
            [
                objective.value(float(row.outcome["accuracy"]), {place: record})
                for objective in wanted
            ]
            for row, record in measured
        ]
    )
    is_on_front = non_dominated(points)
    return [row for (row, _), on_front in zip(measured, is_on_front, strict=True) if on_front]


def finish_study(
    settings: StudySettings,
    *,
    test: TestData,
    input_quant: InputQuant,
    store: Store,
    open_bench: OpenBench,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Gives every trial on a board's front its test accuracy and the baseline's record there.

    What is stored already is not done again. Places work side by side.

    Raises:
        Exception: the first error of a measurement; what was measured before it is kept.
    """
    study = store.load_study(settings.name)
    with study.lock():
        rows = study.trials()
        fronts = {place: board_front(rows, settings, place) for place in settings.places}
        _measure_baseline(study, fronts, open_bench, progress)
        for row in {row.number: row for front in fronts.values() for row in front}.values():
            if row.test_accuracy is None:
                tflite = _model(study, row.number)
                accuracy = int8_accuracy(tflite, test.part(), input_quant)
                study.set_test_accuracy(row.number, accuracy, len(test.part()))
                progress(f"trial {row.number}: {accuracy:.1%} of the test set")


def _measure_baseline(
    study: Study,
    fronts: dict[str, list[TrialRow]],
    open_bench: OpenBench,
    progress: Callable[[str], None],
) -> None:
    errors: list[Exception] = []

    def report(done: MeasureDone) -> None:
        if done.record is not None:
            study.attach_record(done.number, done.record, board_s=done.board_s)
            progress(f"trial {done.number}: engine {BASELINE_ENGINE} on {done.place}")
        elif done.error is not None:
            errors.append(done.error)

    threads = []
    for place, front in fronts.items():
        thread = PlaceThread(place, open_bench, report)
        threads.append(thread)
        for row in front:
            if row.record(place, BASELINE_ENGINE) is None:
                name = f"{study.name}-{row.number:04d}"
                job = MeasureJob(row.number, name, _model(study, row.number), BASELINE_ENGINE)
                thread.submit(job)
    for thread in threads:
        thread.finish()
    if errors:
        raise errors[0]


def _model(study: Study, number: int) -> bytes:
    tflite = study.model(number)
    assert tflite is not None, "a measured trial has its model"
    return tflite
