"""The end of a study: test accuracy, once, and the baseline for the trials on the fronts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from hil.fronts import BASELINE, place_fronts
from hil.rig import Done, Job, Rig
from hil.store import Store, Study, TrialRow
from hil.where import Where
from search.candidate import int8_accuracy
from search.data import InputQuant, TestData
from search.study import StudySettings
from search.trial_log import TOO_LARGE


def finish_study(
    settings: StudySettings,
    *,
    test: TestData,
    input_quant: InputQuant,
    store: Store,
    rig: Rig,
    wheres: Mapping[str, Where],
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Gives every trial on a board's front its test accuracy and the baseline's record there.

    What is stored already is not done again. Places work side by side. A baseline that does not fit
    is said and left out.

    Raises:
        Exception: the first error of a measurement; what was measured before it is kept.
    """
    study = store.load_study(settings.name)
    with study.lock():
        if not study.trials(state="measured"):
            return
        fronts = {
            front.place: [study.trial(found.number) for found in front.front]
            for front in place_fronts(study)
        }
        on_any = {row.number: row for front in fronts.values() for row in front}
        for number, row in sorted(on_any.items()):
            if row.test_accuracy is None:
                accuracy = int8_accuracy(_model(study, number), test.part(), input_quant)
                study.set_test_accuracy(number, accuracy, len(test.part()))
                progress(f"trial {number}: {accuracy:.1%} of the test set")
        _measure_baseline(study, fronts, rig, wheres, progress)


def _measure_baseline(
    study: Study,
    fronts: dict[str, list[TrialRow]],
    rig: Rig,
    wheres: Mapping[str, Where],
    progress: Callable[[str], None],
) -> None:
    errors: list[Exception] = []

    def report(done: Done) -> None:
        number, asked = cast(int, done.job.key), done.job.where.asked
        if done.record is not None:
            study.attach_record(number, done.record, asked=asked, board_s=done.board_s)
            progress(f"trial {number}: engine {BASELINE} on {done.place}")
        elif isinstance(done.error, TOO_LARGE):
            progress(f"trial {number}: engine {BASELINE} on {done.place}: {done.error}")
        elif done.error is not None:
            errors.append(done.error)

    try:
        for place, front in fronts.items():
            for row in front:
                if row.record(place, BASELINE) is None:
                    name = f"{study.name}-{row.number:04d}"
                    tflite = _model(study, row.number)
                    job = Job(study.name, row.number, wheres[place], name, tflite, BASELINE)
                    rig.submit(job, report)
        rig.wait(study.name)
    finally:
        rig.withdraw(study.name)
    if errors:
        raise errors[0]


def _model(study: Study, number: int) -> bytes:
    tflite = study.model(number)
    assert tflite is not None, "a measured trial has its model"
    return tflite
