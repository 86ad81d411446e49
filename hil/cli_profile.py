"""`hil profile`: where the cycles of a model or of any ELF go. Part of the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hil.console import (
    must_be_file,
    must_be_writable,
    printable,
    read_model,
    say,
    split_names,
    status_line,
    stdout_console,
    writing,
)
from hil.errors import UsageError

if TYPE_CHECKING:
    from hil.profile import Profile
    from hil.profile_report import View

_ELF = b"\x7fELF"


def profile(
    file: Annotated[
        Path, typer.Argument(metavar="MODEL.tflite|ELF", help="A model, or an ELF for the board.")
    ],
    board: Annotated[
        str, typer.Option("--board", metavar="virtual:ID", help="hil boards lists them.")
    ],
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="Of a model: tiny, reference, tflm.")
    ] = "tiny",
    objective: Annotated[
        Literal["latency", "sram", "flash"],
        typer.Option("--objective", help="What engine tiny chooses kernels for."),
    ] = "latency",
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="VIEW[,VIEW]", help="layer, memory, function, line, instruction."
        ),
    ] = "layer,memory,function,line",
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Rows of a table.")] = 20,
    annotate: Annotated[
        list[str] | None,
        typer.Option(
            "--annotate",
            metavar="NAME",
            help="Listing of a function, a layer or a source file instead of tables; repeatable.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="In listings also blocks that hardly cost anything.")
    ] = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TEXT", help="Stop an ELF when it prints this.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.1, help="Longest run of an ELF.")
    ] = 60.0,
    speedscope_path: Annotated[
        Path | None,
        typer.Option("--speedscope", metavar="FILE", help="A file for https://speedscope.app."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The whole profile as JSON.")
    ] = None,
) -> None:
    """Show where the cycles go: by layer, function, source line and instruction.

    Of a model one of the inferences that hil bench measures, to the cycle; of an ELF the whole run.
    Columns: "each" is cycles per execution (0.00: issued beside the instruction before), "waits"
    is what part of the row's cycles was waiting, and for what.
    """
    from hil.profile_report import VIEWS

    views = split_names(by, "--by")
    for view in views:
        if view not in VIEWS:
            raise UsageError(f"--by {printable(view)!r} is not known; known: {', '.join(VIEWS)}")
    must_be_file(file)
    for path in (speedscope_path, json_path):
        must_be_writable(path, file)
    with status_line() as status:
        status(f"profiling {printable(file.name)}")
        if _is_elf(file):
            found, is_complete = _profile_elf(file, board, until, timeout)
        else:
            from codegen.engines import get_engine
            from hil.profile_run import profile_model

            get_engine(engine)
            found, _ = profile_model(
                read_model(file), printable(file.stem), board, engine=engine, objective=objective
            )
            is_complete = True
    _show(found, [view for view in VIEWS if view in views], top, annotate, everything)
    _write(found, speedscope_path, json_path)
    if not is_complete:
        raise typer.Exit(1)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def _profile_elf(
    elf: Path, board: str, until: str | None, timeout_s: float
) -> tuple[Profile, bool]:
    """The profile, and whether the program came to its end; what it prints goes to stderr."""
    from hil.profile_run import profile_elf

    def write(data: bytes) -> None:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    found, report = profile_elf(elf, board, until=until, timeout_s=timeout_s, on_output=write)
    say(report.sentence(elf.name))
    return found, report.reason not in ("timeout", "fault")


def _show(
    found: Profile, views: list[View], top: int, annotate: list[str] | None, everything: bool
) -> None:
    from hil.profile_annotate import annotated
    from hil.profile_report import profile_tables
    from hil.profile_text import Sources

    console = stdout_console()
    sources = Sources()
    if not annotate:
        tables = profile_tables(found, views, top=top, sources=sources, width=console.width)
        console.print(tables)
    for name in split_names(",".join(annotate), "--annotate") if annotate else ():
        lines = annotated(found, name, sources=sources, width=console.width, everything=everything)
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)
    sys.stdout.flush()


def _write(found: Profile, speedscope_path: Path | None, json_path: Path | None) -> None:
    from hil.profile_report import profile_json
    from hil.report import write_json
    from hil.speedscope import speedscope

    for path, make in ((speedscope_path, speedscope), (json_path, profile_json)):
        if path is not None:
            with writing(path):
                write_json(path, make(found))
            say(f"written: {printable(str(path))}")
