"""`hil search` and `hil demo`: settings from file and options, and the run on open places.

Part of the command line: the rest of the rig knows nothing of searches.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hil.bench import board_limits, measure_model
from hil.console import say
from hil.errors import HilError, UsageError
from hil.expected import ExpectedOutputs
from hil.lab import board_of, open_place, read_lab
from hil.record import Record
from hil.store import Store
from search.data import load_data
from search.finish import finish_study
from search.loop import Progress, run_study
from search.measuring import Measure
from search.study import StudySettings, load_study_file


def study_settings(
    study_file: Path | None, options: dict[str, Any], epochs: int | None
) -> StudySettings:
    """The settings of a study file, of the options, or of both: options win.

    Raises:
        UsageError: neither a file nor the options that a study needs.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if study_file is not None:
        settings = dataclasses.replace(load_study_file(study_file), **given)
    else:
        for key, option in (("name", "--study"), ("places", "--board")):
            if key not in given:
                raise UsageError(f"hil search needs {option}, or a STUDY.toml")
        settings = StudySettings(**given)
    if epochs is not None:
        training = dataclasses.replace(settings.training, epochs=epochs)
        settings = dataclasses.replace(settings, training=training)
    return settings


def search_and_finish(settings: StudySettings, store: Store) -> bool:
    """Runs or resumes a study and finishes it; False if the user stopped it."""
    lab = read_lab()
    limits = {place: board_limits(board_of(place, lab)) for place in settings.places}
    data = load_data(settings.data, Path(settings.data_dir) if settings.data_dir else None)
    settings.check()
    expected = ExpectedOutputs()

    @contextlib.contextmanager
    def open_bench(place_name: str) -> Iterator[Measure]:
        with open_place(place_name) as place:

            def measure(tflite: bytes, name: str, engine: str) -> Record:
                return measure_model(
                    tflite,
                    name,
                    place,
                    engine=engine,
                    objective=settings.engine_objective,
                    expected=expected,
                )

            yield measure

    def progress(line: Progress) -> None:
        say(f"[{line.done}/{line.trials}] trial {line.number} {line.state}: {line.text}")

    say(
        f"study {settings.name}: {settings.trials} networks of space {settings.space} on "
        f"{settings.data}, measured on {', '.join(settings.places)}"
    )
    result = run_study(
        settings,
        data=data.search,
        store=store,
        boards=limits,
        open_bench=open_bench,
        progress=progress,
    )
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    say(f"study {settings.name}: {counts or 'no trials'}")
    if result.interrupted:
        say("stopped; the same command goes on from here")
        return False
    if not result.counts.get("measured"):
        raise HilError(f"no network of study {settings.name} could be measured; see above")
    finish_study(
        settings,
        test=data.test,
        input_quant=data.search.input_quant,
        store=store,
        open_bench=open_bench,
        progress=say,
    )
    return True
