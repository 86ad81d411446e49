"""`hil mlperf`: MLPerf Tiny's measurement by the benchmark's rules. Part of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hil.console import printable, read_model, say, status_line

if TYPE_CHECKING:
    from hil.mlperf import Outcome


def mlperf(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="An int8 model.")],
    board: Annotated[
        str, typer.Option("--board", metavar="PLACE", help="Where; hil boards lists places.")
    ],
    mode: Annotated[
        Literal["performance", "accuracy", "energy"],
        typer.Option("--mode", help="Energy needs a meter at the place."),
    ] = "performance",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Data sets as the benchmark's runner takes them: DIR/ic01/y_labels.csv, ...",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="tiny, reference.")
    ] = "tiny",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Gets a folder for the session.")
    ] = Path("results/mlperf"),
) -> None:
    """Measure a model by the rules of MLPerf Tiny, and write the result files of its runner.

    Performance and energy: the median of 5 inputs, each run for 10 s of the board and 10 times at
    least. Without --data the inputs are random. Accuracy: every file of the data set.
    """
    from codegen.engines import get_engine
    from hil.bench import engine_options
    from hil.lab import open_place
    from hil.mlperf import Narrator, run_mlperf

    get_engine(engine)
    tflite = read_model(model)
    options = engine_options(engine, "latency")
    with open_place(board) as place, status_line() as status:
        outcome = run_mlperf(
            tflite,
            printable(model.stem),
            place,
            mode=mode,
            out=out,
            data=data,
            engine=engine,
            options=options,
            narrator=Narrator(say, status),
        )
    for line in _lines(outcome):
        typer.echo(line)


def _lines(outcome: Outcome) -> list[str]:
    """What the session found, and where its files are."""
    what = outcome.benchmark.id if outcome.benchmark else "no model of the benchmark"
    lines = [f"MLPerf Tiny {outcome.mode}, {what}, on {outcome.place} ({outcome.source})"]
    if outcome.accuracy is not None:
        for label, files, found in outcome.accuracy.by_class:
            lines.append(f"  class {label}: {found} of {files} found")
        lines.append(
            f"  Top-1 {outcome.accuracy.top1_percent:.1f} %, {outcome.accuracy.files} files"
        )
        lines.append(f"  AUC {outcome.accuracy.auc:.3f}")
    elif outcome.throughput is not None:
        lines.append(f"  median of {len(outcome.windows)}: {outcome.throughput:.3f} inf./sec.")
    if outcome.energy_uj is not None and outcome.idle_uw is not None:
        lines.append(f"  median energy {outcome.energy_uj:.3f} uJ/inf., {outcome.energy_source}")
        lines.append(f"  idle power {outcome.idle_uw:.1f} uW")
    if outcome.has_random_inputs:
        lines.append("  random inputs: for a submission, --data names the benchmark's data sets")
    return [*lines, f"  {printable(str(outcome.folder))}"]
