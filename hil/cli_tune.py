"""`hil tune`, and its plans as options of other commands. Part of the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from codegen.errors import PlanRefused
from codegen.plan_file import MAX_BYTES, TunedPlan, parse_plan, require_for
from hil.console import must_be_file, printable
from hil.errors import UsageError


def read_plan(path: Path) -> TunedPlan:
    """The plan in a file; raises UsageError or PlanRefused with the file's name."""
    must_be_file(path)
    shown = printable(str(path))
    try:
        with path.open("rb") as file:
            return parse_plan(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from None
    except PlanRefused as error:
        raise PlanRefused(f"{shown}: {error.reason}") from None


def chosen_plan(
    path: Path | None,
    objective: str | None,
    engines: Sequence[str],
    models: Sequence[bytes],
    boards: Sequence[str],
) -> TunedPlan | None:
    """The plan of option --plan; refused unless it can be used for everything that is asked for.

    Args:
        path: what was given, if anything.
        objective: what was given beside it, if anything.
        engines: that will run.
        models: the bytes of each .tflite.
        boards: id of each board.

    Raises:
        UsageError: it makes no sense beside the other options.
        PlanRefused: it is broken, or for another model or board.
    """
    if path is None:
        return None
    if objective is not None:
        raise UsageError("--plan and --objective exclude each other: a plan is chosen already")
    if "tiny" not in engines:
        raise UsageError(f"--plan is for engine tiny, not for {', '.join(engines)}")
    plan = read_plan(path)
    try:
        for model in models:
            for board in boards:
                require_for(plan, hashlib.sha256(model).hexdigest(), board)
    except PlanRefused as error:
        raise PlanRefused(f"{printable(str(path))}: {error.reason}") from None
    return plan
