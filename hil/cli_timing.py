"""`hil calibrate`: micro-benchmarks on a place, its twin beside them, and the constants that fit.

Part of the command line. Progress and where files went go to stderr, tables to stdout.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hil.bench import keep_place
from hil.board import BOARDS_DIR
from hil.board_timing import overrides_path
from hil.calibrate import build_image, measure
from hil.calibration import MEAN_LIMIT, WORST_LIMIT, Report, calibrated
from hil.console import must_be_writable, printable, say, status_line, stdout_console, writing
from hil.errors import UsageError
from hil.report import write_json

_EXACT = 0.005  # cycles: what a table's two decimals cannot show


def calibrate_place(
    place_name: str, *, check: bool, json_path: Path | None, out: Path | None
) -> bool:
    """Measures, compares and fits; False when `check` found the twin too far from the board."""
    if check and out is not None:
        raise UsageError("--check writes no constants: leave --out away, or --check")
    must_be_writable(json_path)
    must_be_writable(out)
    with status_line() as status, keep_place(place_name, say=say) as kept:
        place = kept.open()
        status(f"building the micro-benchmarks of {place.board.id}")
        image = build_image(place.board)
        status(f"measuring {len(image.benchmarks)} micro-benchmarks on {place_name}")
        readings = kept.use("micro-benchmarks", lambda place: measure(place, image))
        place = kept.open()
        status("asking the twin" if check else "fitting")
        report = calibrated(
            place=place.name,
            source=place.source,
            image=image,
            readings=readings,
            timing_model=place.timing_model or _model_of(place.board.mcu.core),
            with_fit=not check,
        )
    console = stdout_console()
    console.print(benchmark_table(report))
    if report.fit is not None:
        console.print(constants_table(report))
    console.print(verdict(report), markup=False, highlight=False)
    if json_path is not None:
        with writing(json_path):
            write_json(json_path, report.to_json())
    if check:
        return report.is_close
    path = out or _default_path(report)
    if path is None:
        say("a virtual board says nothing of a real one: constants are written with --out only")
        return True
    with writing(path):
        path.write_text(report.timing_file(), encoding="utf-8")
    say(f"written: {printable(str(path))}")
    return True


def benchmark_table(report: Report) -> RenderableType:
    """What was measured and what the twin takes: rules with a source, then paths."""
    rules = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rules.add_column("rule", no_wrap=True)
    for heading in ("expected", "measured", "twin", "difference"):
        rules.add_column(heading, justify="right", no_wrap=True)
    rules.add_column("source of what is expected", overflow="fold")
    paths = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    paths.add_column("no source says", overflow="fold")
    for heading in ("measured", "twin", "difference"):
        paths.add_column(heading, justify="right", no_wrap=True)
    for comparison in report.comparisons:
        name, source = Text(comparison.benchmark.name), Text(comparison.benchmark.row.source)
        differs = abs(comparison.twin - comparison.measured) >= _EXACT
        both = (
            f"{comparison.measured:.2f}",
            f"{comparison.twin:.2f}",
            f"{comparison.difference:+.1%}" if differs else "",
        )
        if comparison.expected is None:
            paths.add_row(name, *both)
        else:
            rules.add_row(name, f"{comparison.expected:.2f}", *both, source)
    title = f"{report.board.id} ({report.source}, {report.place}), cycles of one body"
    return Group(Text(title, style="bold"), rules, "", paths, "")


def constants_table(report: Report) -> RenderableType:
    """The fitted constants, and those that nothing determines."""
    assert report.fit is not None, "only a fit has constants"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("constant", overflow="fold")
    for heading in ("fitted", "standard error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, value in report.fit.values.items():
        error = report.fit.standard_errors.get(name)
        shown = "not determined" if error is None else f"{error:.3f}"
        table.add_row(Text(name), f"{value:.3f}", shown)
    return table


def verdict(report: Report) -> str:
    """How far the twin is from the place, in a sentence or two."""
    timed = [c for c in report.comparisons if c.expected is not None]
    exact = [c for c in timed if abs(c.measured - (c.expected or 0.0)) < _EXACT]
    text = (
        f"{len(exact)} of {len(timed)} rules with a source: measured as expected. Twin "
        f"({report.timing_model}) against {report.place}: {report.mean:.1%} off on average, "
        f"at most {abs(report.worst.difference):.1%} ({report.worst.benchmark.name})."
    )
    if report.fit is None and not report.is_close:
        text += f" More than {MEAN_LIMIT:.0%} on average or {WORST_LIMIT:.0%} at most: too far."
    return text


def _default_path(report: Report) -> Path | None:
    """boards/<id>.timing.toml for hardware; None for a virtual place."""
    if report.source == "virtual":
        return None
    return overrides_path(BOARDS_DIR / f"{report.board.id}.toml")


def _model_of(core: str) -> str:
    from hil.virtual.timing import model_id, timing_model

    return model_id(timing_model(core))
