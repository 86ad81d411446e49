"""`hil search` and `hil demo`: settings from file and options, and the run on open places.

Part of the command line: the rest of the rig knows nothing of searches.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hil.bench import board_limits, measure_jobs, open_rig
from hil.console import say
from hil.errors import HilError, UsageError
from hil.lab import read_lab
from hil.live import watching
from hil.store import Store
from hil.where import board_asked, find_places
from search.data import load_data
from search.finish import finish_study
from search.loop import Progress, run_study
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
    wheres = {place: find_places(place, lab) for place in settings.places}
    limits = {place: board_limits(board_asked(place, lab)) for place in settings.places}
    data = load_data(settings.data, Path(settings.data_dir) if settings.data_dir else None)
    settings.check()

    def progress(line: Progress) -> None:
        say(f"[{line.done}/{line.trials}] trial {line.number} {line.state}: {line.text}")

    say(
        f"study {settings.name}: {settings.trials} networks of space {settings.space} on "
        f"{settings.data}, measured on {', '.join(settings.places)}"
    )
    measure_job = measure_jobs(objective=settings.engine_objective)
    with open_rig(measure_job, say=say) as rig, watching(rig):
        result = run_study(
            settings,
            data=data.search,
            store=store,
            boards=limits,
            rig=rig,
            wheres=wheres,
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
            rig=rig,
            wheres=wheres,
            progress=say,
        )
    return True
