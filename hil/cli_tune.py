"""`hil tune`, and its plans as options of other commands. Part of the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hil.console import (
    must_be_file,
    must_be_writable,
    printable,
    read_model,
    say,
    status_line,
    stdout_console,
    writing,
)
from hil.errors import UsageError

if TYPE_CHECKING:
    from codegen.plan_file import TunedPlan
    from hil.tune import Point, Tuned


def tune(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="An int8 model.")],
    board: Annotated[
        str, typer.Option("--board", metavar="PLACE", help="Where; hil boards lists places.")
    ],
    objective: Annotated[
        Literal["latency", "sram", "flash", "energy"],
        typer.Option("--objective", help="What the chosen network is best at."),
    ] = "latency",
    sram_limit: Annotated[
        int | None,
        typer.Option("--sram-limit", metavar="B", min=1, help="SRAM of the firmware, in bytes."),
    ] = None,
    flash_limit: Annotated[
        int | None,
        typer.Option("--flash-limit", metavar="B", min=1, help="Flash of the firmware, in bytes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where the plan goes.  [default: NAME.BOARD.plan.json]"
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the front as JSON.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="SQLite file or database URL.  [default: results/hil.sqlite]"),
    ] = None,
) -> None:
    """Choose kernels and memory of a model by measuring; --plan of bench and codegen takes it.

    What was measured is kept: a tuning that was stopped goes on where it was.
    """
    from hil.bench import keep_place
    from hil.lab import board_of, read_lab
    from hil.report import front_json, front_table, write_json
    from hil.store import DEFAULT_PATH, Store
    from hil.tune import Limits, plan_of, tune_model

    tflite = read_model(model)
    name = printable(model.stem)
    board_id = board_of(board, read_lab()).id
    path = out or Path(f"{name}.{board_id}.plan.json")
    must_be_writable(path, model)
    must_be_writable(json_path, model, path)
    with (
        Store(store or DEFAULT_PATH) as opened,
        status_line() as status,
        keep_place(board, say=say) as kept,
    ):

        def progress(text: str) -> None:
            status(text)
            say(text)

        tuned = tune_model(
            tflite,
            name,
            kept,
            opened,
            objective=objective,
            limits=Limits(sram_limit, flash_limit),
            progress=progress,
        )
    console = stdout_console()
    console.print(front_table(tuned, width=console.width))
    typer.echo(_gain(tuned))
    with writing(path):
        path.write_text(plan_of(tuned.chosen).to_json(), encoding="utf-8")
    typer.echo(f"plan written: {printable(str(path))}")
    if json_path is not None:
        with writing(json_path):
            write_json(json_path, front_json(tuned))


def _gain(tuned: Tuned) -> str:
    """How much better the chosen network is than the untuned one, in words."""
    chosen, untuned = tuned.chosen, tuned.untuned
    of = f"{len(tuned.points)} networks and {tuned.layers_measured} kernels of layers measured"
    objective = chosen.plan.objective
    if untuned is None:
        return f"{of}; the untuned network does not fit the board"
    what, unit, quantity = _QUANTITIES[objective]
    best, before = quantity(chosen), quantity(untuned)
    if best == before:
        return f"{of}; none is better in {what} than the untuned one ({before:,.0f} {unit})"
    more = "less" if best < before else "more, because of the limits,"
    return (
        f"{of}; {what} {best:,.0f} {unit}, {abs(1 - best / before):.2%} {more} than untuned "
        f"({before:,.0f} {unit})"
    )


def _energy_uj(point: Point) -> float:
    return point.record.energy_uj.median if point.record.energy_uj else 0.0


#: By objective: what it is called, its unit, and what it is of a point.
_QUANTITIES: dict[str, tuple[str, str, Callable[[Point], float]]] = {
    "latency": ("latency", "cycles", lambda point: point.cycles),
    "sram": ("SRAM", "B", lambda point: point.sram_bytes),
    "flash": ("flash", "B", lambda point: point.flash_bytes),
    "energy": ("energy", "µJ", _energy_uj),
}


def read_plan(path: Path) -> TunedPlan:
    """The plan in a file; raises UsageError or PlanRefused with the file's name."""
    from codegen.errors import PlanRefused
    from codegen.plan_file import MAX_BYTES, parse_plan

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
    from codegen.errors import PlanRefused
    from codegen.plan_file import require_for

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
