"""The command line: `hil <command>`. It puts search, codegen and the rig together.

Commands only read options, call the packages and show what comes back; everything heavy is imported
where it is used, so that `hil --help` is quick. Results go to stdout, progress and errors to
stderr. Errors are one or two sentences; exit code 2 for the user's mistakes, 1 for failures, 130
for Ctrl-C.
"""

from __future__ import annotations

import enum
import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hil.cli_lab import boards, lab
from hil.cli_mlperf import mlperf
from hil.cli_profile import profile
from hil.cli_serve import serve
from hil.cli_tune import tune
from hil.console import (
    mend_streams,
    must_be_file,
    must_be_writable,
    printable,
    read_model,
    say,
    split_names,
    status_line,
    stdout_console,
    write_bytes,
    writing,
)
from hil.errors import HilError, UsageError

if TYPE_CHECKING:
    from hil.store import Store

#: What the system may say of any file that is written: no failure of the program.
_SYSTEM_SAYS_NO = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

STOPPED = 128 + signal.SIGINT  # exit code after Ctrl-C, as shells give it

app = typer.Typer(
    name="hil",
    help="Finds and proves neural networks for microcontrollers by measuring them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Goal(enum.StrEnum):
    """What engine `tiny` chooses its kernels for."""

    LATENCY = "latency"
    SRAM = "sram"
    FLASH = "flash"


ObjectiveOption = Annotated[
    Goal | None,
    typer.Option("--objective", help="What engine tiny chooses kernels for.  [default: latency]"),
]

PlanOption = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="What hil tune chose, instead of --objective."),
]

StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="SQLite file or database URL.  [default: results/hil.sqlite]"),
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Finds and proves neural networks for microcontrollers by measuring them."""


@app.command()
def demo(
    trials: Annotated[int, typer.Option(help="Networks to try.", min=1)] = 16,
    study: Annotated[str, typer.Option(help="Name that the study is kept under.")] = "demo",
    store: StoreOption = None,
) -> None:
    """Search on scikit-learn's digits with both virtual boards, then the Pareto tables."""
    from hil.cli_search import search_and_finish
    from search.study import StudySettings, TrainSettings

    settings = StudySettings(
        name=study,
        places=("virtual:nrf52840_dk", "virtual:stm32f746g_disco"),
        trials=trials,
        workers=_spare_cores(),
        # small networks for 8 x 8 images, so that a training takes seconds
        space_options={"depth": (3, 4, 5, 6), "channels": (4, 8, 12, 16), "kernels": (3, 5)},
        training=TrainSettings(epochs=15, patience=5),
    )
    with _open_store(store) as opened:
        if not search_and_finish(settings, opened):
            raise typer.Exit(STOPPED)
        _show_pareto(opened, settings.name, board=None, json_path=None, out=None)


app.command()(boards)


app.add_typer(lab)


app.command()(serve)


@app.command()
def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.tflite", help="int8 models.")],
    board: Annotated[
        list[str],
        typer.Option(
            "--board",
            metavar="PLACE[,PLACE]",
            help="Where; hil boards lists places. A board: any place of lab.toml that has it.",
        ),
    ],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="NAME[,NAME]", help="tiny, reference, tflm.  [default: tiny]"
        ),
    ] = None,
    objective: ObjectiveOption = None,
    plan: PlanOption = None,
    layers: Annotated[bool, typer.Option("--layers", help="Cycles of every layer, too.")] = False,
    inputs: Annotated[
        int, typer.Option("--inputs", min=1, max=100_000, help="Random inputs to compare.")
    ] = 10,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=100_000, help="Measured inferences.")
    ] = 10,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31, help="Seed of the first input.")
    ] = 1,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100_000, help="How often all is measured.")
    ] = 1,
    flash: Annotated[
        str | None,
        typer.Option(
            "--flash",
            metavar="WAY",
            help="pyocd, openocd or jlink; pyocd or direct on virtual boards.  [default: the "
            "place's own]",
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="Keep what is done under a name: after a stop, the same command does the rest.",
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the records as JSON.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Measure models; exit code 0 only if every output matched the oracle's."""
    from dataclasses import asdict

    from codegen.engines import Objective, get_engine
    from hil.bench import Model, bench_jobs, measure_jobs
    from hil.cli_bench import last_rounds, round_notes, run_bench, sha256
    from hil.cli_tune import chosen_plan
    from hil.lab import check_flash_way, chosen_places, read_lab
    from hil.record import Record
    from hil.report import bench_tables, layer_table, write_json
    from hil.session import Procedure
    from hil.where import board_asked, find_places

    loaded = [Model(printable(path.stem), read_model(path)) for path in models]
    places = chosen_places(split_names(",".join(board), "--board"), read_lab())
    engines = split_names(",".join(engine or ["tiny"]), "--engine")
    boards = [board_asked(place, read_lab()).id for place in places]
    for asked in places:
        for place in find_places(asked, read_lab()).places:
            check_flash_way(place, flash, read_lab())
    for name in engines:
        get_engine(name)
    tuned = chosen_plan(plan, objective, engines, [model.tflite for model in loaded], boards)
    goal: Objective = (objective or Goal.LATENCY).value
    must_be_writable(json_path, *models, *([plan] if plan else []))
    procedure = Procedure(inputs=inputs, input_seed=seed, repeats=repeats, layers=layers)

    with _open_store(store) as opened:
        kept = None
        if queue is not None:
            models_of = [[model.name, sha256(model.tflite)] for model in loaded]
            settings = {"models": models_of, "places": places, "engines": engines}
            settings |= {"objective": goal, "plan": tuned.sha256 if tuned else None}
            kept = opened.open_queue(queue, {**settings, "procedure": asdict(procedure)})
        rows = run_bench(
            bench_jobs(loaded, places, engines, rounds=rounds),
            measure_jobs(objective=goal, plan=tuned, procedure=procedure),
            opened,
            kept,
            flash=flash,
        )

    order = {model.name: number for number, model in enumerate(loaded)}
    rows.sort(key=lambda row: (places.index(row.place), order[row.model]))
    console = stdout_console()
    console.print(bench_tables(last_rounds(rows), width=console.width))
    for note in round_notes(rows):
        console.print(note, markup=False, highlight=False)
    records = [row.result for row in rows if isinstance(row.result, Record)]
    if layers:
        for record in records:
            console.print(layer_table(record))
    failed = [(row, row.result) for row in rows if not isinstance(row.result, Record)]
    for row, error in failed:
        say(f"{row.model} {row.engine} on {row.place}: {error}")
    if json_path is not None:
        with writing(json_path):
            write_json(json_path, [record.to_json() for record in records])
    if failed:
        raise typer.Exit(min(error.exit_code for _, error in failed))


@app.command("codegen")
def generate_c(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="An int8 model.")],
    board: Annotated[str, typer.Option("--board", metavar="ID", help="Id of a board.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the C.")],
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="tiny, reference, tflm.")
    ] = "tiny",
    objective: ObjectiveOption = None,
    plan: PlanOption = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Also draw memory over time, for engine tiny.")
    ] = False,
) -> None:
    """Write the C of a model, and nothing else."""
    from codegen.emit import is_generated
    from codegen.generate import generate
    from hil.bench import board_limits, engine_options
    from hil.board import get_board
    from hil.cli_tune import chosen_plan
    from hil.lab import VIRTUAL

    if plot and engine != "tiny":
        raise UsageError(f"--plot draws the plan of engine tiny; engine {engine} has none")
    limits = board_limits(get_board(board.removeprefix(VIRTUAL)))
    tflite = read_model(model)
    tuned = chosen_plan(plan, objective, [engine], [tflite], [limits.board])
    with writing(out):
        manifest = generate(
            tflite,
            name=printable(model.stem),
            engine=engine,
            board=limits,
            out_dir=out,
            options=engine_options(engine, (objective or Goal.LATENCY).value, tuned),
        )
    typer.echo(
        f"{manifest.model.name} for {limits.board}, engine {manifest.engine}: "
        f"{len(manifest.layers)} layers, {manifest.model.effective_macs:,} MACs, "
        f"arena {manifest.arena_bytes:,} B (scratch {manifest.scratch_bytes:,} B), "
        f"weights {manifest.weights_bytes:,} B"
    )
    paths = [path for path in sorted(out.iterdir()) if path.is_file() and is_generated(path)]
    if plot:
        from hil.memory_plot import plot_memory

        with writing(out):
            paths += plot_memory(manifest, out)
    for path in paths:
        typer.echo(f"  {printable(str(path))}  {path.stat().st_size:,} B")


@app.command()
def run(
    elf: Annotated[Path, typer.Argument(metavar="ELF", help="Linked for the board.")],
    board: Annotated[
        str, typer.Option("--board", metavar="PLACE", help="Where; hil boards lists places.")
    ],
    until: Annotated[
        str | None, typer.Option("--until", metavar="TEXT", help="Stop when it prints this.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.1, help="Longest run, in seconds.")
    ] = 60.0,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="How it ended, as JSON.")
    ] = None,
) -> None:
    """Flash any ELF linked for the board and show what it prints.

    Exit code: that of the program if it exits, 0 if it printed the text of --until, else 1.
    """
    from hil.lab import open_place
    from hil.running import run_elf

    must_be_file(elf)
    must_be_writable(json_path, elf)
    with open_place(board) as place:
        result = run_elf(place, elf, until=until, timeout_s=timeout, on_output=write_bytes)
    if not result.output.endswith(b"\n"):
        typer.echo()
    if json_path is not None:
        with writing(json_path):
            json_path.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
    say(result.sentence(elf.name))
    raise typer.Exit(result.command_exit_code)


@app.command()
def flash(
    elf: Annotated[Path, typer.Argument(metavar="ELF", help="Linked for the board.")],
    board: Annotated[
        str, typer.Option("--board", metavar="PLACE", help="Where; hil boards lists places.")
    ],
) -> None:
    """Put an ELF onto a board and start it."""
    from hil.lab import open_place

    must_be_file(elf)
    with open_place(board) as place:
        place.flash(elf)
    typer.echo(f"{printable(elf.name)} runs on {board}")


app.command()(profile)


app.command()(tune)


app.command()(mlperf)


@app.command("search")
def run_search(
    study_file: Annotated[
        Path | None,
        typer.Argument(metavar="STUDY.toml", help="Settings of a study; options override them."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="NAME", help="Which networks there are; an unknown name lists them."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", metavar="NAME", help="How they are chosen; an unknown name lists them."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="A data set, or signals in FILE.npz; an unknown name lists them.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Where data sets lie.")
    ] = None,
    board: Annotated[
        list[str] | None,
        typer.Option("--board", metavar="PLACE[,PLACE]", help="Where every network is measured."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="Networks to try in all.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="S", min=0, help="Of proposals and trainings.")
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="New, or to be resumed.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", min=1, help="Of each training.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Training processes.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Run or resume a study; Ctrl-C stops it, the same command goes on."""
    from hil.cli_search import search_and_finish, study_settings
    from hil.lab import chosen_places, read_lab

    settings = study_settings(
        study_file,
        {
            "name": study,
            "space": space,
            "strategy": strategy,
            "data": data,
            "data_dir": str(data_dir) if data_dir else None,
            "places": (
                tuple(chosen_places(split_names(",".join(board), "--board"), read_lab()))
                if board
                else None
            ),
            "trials": trials,
            "seed": seed,
            "workers": workers,
        },
        epochs,
    )
    with _open_store(store) as opened:
        if not search_and_finish(settings, opened):
            raise typer.Exit(STOPPED)
    typer.echo(f"hil pareto {settings.name} shows what was found")


@app.command()
def pareto(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study.")],
    board: Annotated[
        str | None, typer.Option("--board", metavar="ID", help="Only this board.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The tables as JSON.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for files.  [default: results/STUDY]"),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Tables and plots of what a study found: one for each board."""
    from hil.store import DEFAULT_PATH

    where = Path(store or DEFAULT_PATH)
    if "://" not in str(store) and not where.exists():
        raise UsageError(f"no result store {printable(str(where))}; hil search makes one")
    with _open_store(store) as opened:
        _show_pareto(opened, study, board=board, json_path=json_path, out=out)


@app.command()
def calibrate(
    board: Annotated[
        str, typer.Option("--board", metavar="PLACE", help="Where; hil boards lists places.")
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only say how far the twin is from the board; exit code 1 if too far."
        ),
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the constants there.  [default: boards/ID.timing.toml; for a virtual "
            "board nowhere]",
        ),
    ] = None,
) -> None:
    """Measure micro-benchmarks; fit the constants of the board's virtual twin to them."""
    from hil.cli_timing import calibrate_place

    if not calibrate_place(board, check=check, json_path=json_path, out=out):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """What is installed, attached and reachable; how to mend what is not."""
    from hil.doctor import examine

    with status_line() as status:
        status("looking around")
        findings = examine()
    for finding in findings:
        typer.echo(f"{finding.state:<9} {finding.what}: {finding.seen}")
        if finding.mend:
            typer.echo(f"          to mend: {finding.mend}")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line and ends the process; every foreseen error is a sentence on stderr."""
    mend_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(_guarded(arguments, debug=len(arguments) < len(sys.argv) - 1))


def _guarded(arguments: list[str], *, debug: bool) -> int:
    from codegen.errors import CodegenError
    from search.errors import SearchError

    try:
        code = app(arguments, prog_name="hil", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except typer.TyperException as error:
        if hasattr(error, "show"):
            error.show()  # the usage line of the command, then what was wrong
        return error.exit_code
    except (HilError, CodegenError, SearchError) as error:
        if debug:
            traceback.print_exc()
        say(f"hil: {error}")
        return error.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _SYSTEM_SAYS_NO:
            where = f"{error.filename}: " if error.filename else ""
            say(f"hil: {where}{error.strerror}")
            return 1
        say(
            f"hil: this should not have happened: {type(error).__name__}: {error}; "
            "run it again with --debug for the traceback"
        )
        return 1


def _spare_cores() -> int:
    """Training processes that leave a core for the boards."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _show_pareto(
    store: Store, name: str, *, board: str | None, json_path: Path | None, out: Path | None
) -> None:
    from hil.fronts import place_fronts, search_cost
    from hil.report import pareto_json, pareto_notes, pareto_table, write_json, write_pareto
    from hil.store import DEFAULT_PATH

    study = store.load_study(name)
    fronts, cost = place_fronts(study, board), search_cost(study)
    console = stdout_console()
    for front in fronts:
        console.print(pareto_table(front, width=console.width))
    for note in pareto_notes(study, cost, fronts):
        console.print(note, markup=False, highlight=False)
    folder = out or (store.path or DEFAULT_PATH).parent / name
    with writing(folder):
        paths = write_pareto(folder, study, fronts, cost)
    console.print("written:", markup=False)
    for path in paths:
        typer.echo(f"  {printable(str(path))}")
    if json_path is not None:
        with writing(json_path):
            write_json(json_path, pareto_json(study, fronts, cost))


def _open_store(where: str | None) -> Store:
    from hil.store import DEFAULT_PATH, Store

    return Store(where or DEFAULT_PATH)
