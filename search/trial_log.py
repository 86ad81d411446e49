"""What the store keeps of a trial, in the terms of the search."""

from __future__ import annotations

import codegen.errors
import hil.errors
from hil.record import Record
from hil.store import TrialRow
from search.constraints import Violation
from search.reward import objectives
from search.study import StudySettings
from search.trial import Failed, Infeasible, Measured, Outcome

#: The generator, before the build, and the linker, after it, find that a model does not fit.
TOO_LARGE = (codegen.errors.DoesNotFit, hil.errors.DoesNotFit)


def trial_outcome(row: TrialRow, settings: StudySettings) -> Outcome | None:
    """How a stored trial ended, in the terms of a strategy; None while it is open."""
    if row.state == "infeasible":
        return Infeasible(float(row.outcome["violation"]))
    if row.state == "failed":
        return Failed(str(row.outcome["kind"]), str(row.outcome["reason"]))
    if row.state == "measured":
        records = study_records(row, settings)
        accuracy = float(row.outcome["accuracy"])
        wanted = objectives(settings.objectives, settings.places)
        return Measured(tuple(objective.value(accuracy, records) for objective in wanted))
    return None


def study_records(row: TrialRow, settings: StudySettings) -> dict[str, Record]:
    """Records of the study's engine by place."""
    found = {place: row.record(place, settings.engine) for place in settings.places}
    return {place: record for place, record in found.items() if record is not None}


def violation_of(error: Exception, place: str) -> Violation:
    """What the generator or the linker found too large."""
    if isinstance(error, hil.errors.DoesNotFit):
        board, memory = error.board, error.memory
    else:
        assert isinstance(error, codegen.errors.DoesNotFit), "one of TOO_LARGE"
        board, memory = place, error.what
    kind = "flash" if "flash" in memory.lower() else "sram"
    return Violation(board, kind, error.needed_bytes, error.have_bytes)
