"""Tables of results for people and files: what `hil bench` and `hil pareto` show and write.

Every table belongs to one place, so virtual and hardware are never mixed. Not here: which trials
are on a front (fronts), the picture (plot).
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from codegen.patching import WHOLE
from hil import stats
from hil.bench import Row
from hil.fronts import Found, PlaceFront, SearchCost
from hil.health import is_anonymous
from hil.record import PEAK_MACS_PER_CYCLE, Record
from hil.store import Study

if TYPE_CHECKING:
    from hil.tune import Tuned

PARETO_SCHEMA = 1
TUNED_SCHEMA = 1
UNSTEADY = 0.01  # spread of repeats that a reader should know of
WIDE = 105  # columns of a terminal that has room for all columns of a table

MEMORY_NOTE = (
    "SRAM is counted in full: arena (activations, inputs, outputs, scratch) + static data + peak "
    "of the stack; flash is everything that is programmed."
)
ESTIMATED, MEASURED = "energy\nµJ, est.", "energy\nµJ"


def energy_note(records: Iterable[Record]) -> str:
    """Where the energies of a table come from."""
    sources = sorted({record.energy_uj.source for record in records if record.energy_uj})
    kinds = [source.partition(":") for source in sources]
    texts = [
        f"an estimate: {how}" if kind == "estimate" else f"{kind} by {how}"
        for kind, _, how in kinds
    ]
    return f"Energy is {' or '.join(texts)}." if texts else "No energy was measured."


def place_title(records: Sequence[Record]) -> str:
    """Where the records of one place come from, such as "nrf52840_dk (virtual, cycles by ...)"."""
    first = records[0]
    named = sorted({record.place for record in records if not is_anonymous(record.place)})
    where = ", ".join([first.source, *named])
    if first.source == "hardware":
        return f"{first.board} ({where})"
    timing = ", ".join(sorted({record.timing_model or "" for record in records}))
    return f"{first.board} ({where}, cycles by {timing})"


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of a table; `heading` holds the unit, narrow terminals go without `wide_only`."""

    heading: str
    right: bool = True
    wide_only: bool = False


_BENCH_COLUMNS = (
    _Column("model", right=False),
    _Column("engine", right=False),
    _Column("cycles"),
    _Column("latency\nms"),
    _Column("cycles\nper MAC"),
    _Column("times\nfaster"),
    _Column("arena\nB", wide_only=True),
    _Column("SRAM\nB"),
    _Column("flash\nB"),
    _Column(ESTIMATED, wide_only=True),
    _Column("outputs\nequal"),
)


def bench_tables(rows: Sequence[Row], *, width: int = WIDE) -> RenderableType:
    """One table for each place that measured something, for a terminal of `width` columns."""
    measured = [(row, row.result) for row in rows if isinstance(row.result, Record)]
    tables = [
        _bench_table([record for row, record in measured if row.place == place], width)
        for place in dict.fromkeys(row.place for row, _ in measured)
    ]
    unsteady = [
        Text(
            f"{record.model.name} {record.engine} on {record.place}: repeats differ by {spread:.1%}"
        )
        for _, record in measured
        if (spread := _spread(record)) > UNSTEADY
    ]
    metered = [Text(text) for _, record in measured if (text := _metered(record))]
    return Group(*tables, *unsteady, *metered)


def _metered(record: Record) -> str:
    """What a meter told of an inference; empty without one."""
    energy = record.energy_uj
    if energy is None or energy.idle_uw is None or energy.p05 is None or energy.p95 is None:
        return ""
    kind, _, how = energy.source.partition(":")
    return (
        f"{record.model.name} {record.engine} on {record.place}: {energy.median:,.2f} µJ an "
        f"inference (5 to 95 % of {energy.n}: {energy.p05:,.2f} to {energy.p95:,.2f}), "
        f"{energy.idle_uw / 1000:,.2f} mW while idle, at {energy.supply_mv:,} mV; "
        f"{kind} by {how}"
    )


def _bench_table(records: Sequence[Record], width: int) -> Table:
    table = titled_table(place_title(records))
    columns = [column for column in _BENCH_COLUMNS if width >= WIDE or not column.wide_only]
    _add_columns(table, columns, records)
    baseline = {r.model.sha256: r for r in records if r.engine == "reference"}
    for record in records:
        reference = baseline.get(record.model.sha256)
        cells = _bench_cells(record, None if reference is record else reference)
        table.add_row(*(Text(cells[column.heading]) for column in columns))
    return table


def _bench_cells(record: Record, baseline: Record | None) -> dict[str, str]:
    cycles = record.latency_cycles.median
    values = (
        record.model.name,
        record.engine,
        f"{cycles:,.0f}",
        f"{record.latency_us / 1000:,.3f}",
        _number(record.cycles_per_mac, "{:.2f}"),
        _number(baseline.latency_cycles.median / cycles if baseline else None, "{:.1f}"),
        f"{record.sram_bytes.arena:,}",
        f"{record.sram_bytes.total:,}",
        f"{record.flash_bytes.total:,}",
        _energy(record),
        f"{record.outputs_checked}/{record.outputs_checked}",
    )
    return {c.heading: value for c, value in zip(_BENCH_COLUMNS, values, strict=True)}


def layer_table(record: Record) -> Table:
    """Cycles of every layer, in execution order, beside those that the core's limit would allow.

    Columns that say nothing are left out: nominal MACs where all are computed, kernels of an engine
    that has no choice.
    """
    layers = record.layers
    table = titled_table(f"{record.model.name}, engine {record.engine}, {place_title([record])}")
    columns = [
        (_Column("layer", right=False), [layer.name for layer in layers]),
        (_Column("op", right=False), [layer.op for layer in layers]),
    ]
    if any(layer.kernel for layer in layers):
        columns.append((_Column("kernel", right=False), [layer.kernel for layer in layers]))
    if any(layer.weights != "flash" for layer in layers):
        columns.append((_Column("weights\nin", right=False), [layer.weights for layer in layers]))
    if any(layer.nominal_macs not in (None, layer.macs) for layer in layers):
        nominal = [layer.to_json()["nominal_macs"] for layer in layers]
        columns.append((_Column("nominal\nMACs"), [f"{macs:,}" for macs in nominal]))
    total = sum(layer.cycles for layer in layers) or 1
    limit = f"% of {PEAK_MACS_PER_CYCLE} MACs\na cycle"
    columns += [
        (_Column("MACs"), [f"{layer.macs:,}" for layer in layers]),
        (_Column("cycles"), [f"{layer.cycles:,}" for layer in layers]),
        (_Column("share"), [f"{100 * layer.cycles / total:.1f} %" for layer in layers]),
        (
            _Column("cycles\nper MAC"),
            [_number(layer.cycles_per_mac, "{:.2f}") for layer in layers],
        ),
        (_Column(limit), [_number(layer.percent_of_limit, "{:.0f}") for layer in layers]),
    ]
    _add_columns(table, [column for column, _ in columns])
    for cells in zip(*(values for _, values in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


_FRONT_COLUMNS = (
    _Column(""),
    _Column("network", right=False),
    _Column("code", right=False, wide_only=True),
    _Column("strips", wide_only=True),
    _Column("cycles"),
    _Column("latency\nms"),
    _Column("cycles\nper MAC"),
    _Column("arena\nB"),
    _Column("SRAM\nB"),
    _Column("flash\nB"),
    _Column(ESTIMATED),
)


def front_table(tuned: Tuned, *, width: int = WIDE) -> Table:
    """The front of one network on one place, fastest first; a star beside the chosen one."""
    first = tuned.chosen.record
    table = titled_table(
        f"{first.model.name}, {place_title([first])}: {len(tuned.front)} of "
        f"{len(tuned.points)} networks on the front of latency, SRAM and flash"
    )
    shown = [width >= WIDE or not column.wide_only for column in _FRONT_COLUMNS]
    records = [point.record for point in tuned.points]
    _add_columns(table, list(itertools.compress(_FRONT_COLUMNS, shown)), records)
    for point in dict.fromkeys([*tuned.front, tuned.chosen]):
        record = point.record
        cells = (
            "*" if point is tuned.chosen else "",
            point.label,
            point.plan.flags,
            "-" if point.plan.strips == WHOLE else str(point.plan.strips.count),
            f"{point.cycles:,.0f}",
            f"{record.latency_us / 1000:,.3f}",
            _number(record.cycles_per_mac, "{:.2f}"),
            f"{record.sram_bytes.arena:,}",
            f"{point.sram_bytes:,}",
            f"{point.flash_bytes:,}",
            _energy(record),
        )
        table.add_row(*map(Text, itertools.compress(cells, shown)))
    return table


def front_json(tuned: Tuned) -> dict[str, Any]:
    """All measured networks of a tuning as plain JSON types."""
    return {
        "schema": TUNED_SCHEMA,
        "layers_measured": tuned.layers_measured,
        "networks": [
            {
                "label": point.label,
                "on_front": point in tuned.front,
                "is_chosen": point is tuned.chosen,
                "plan": json.loads(point.plan.to_json()),
                "record": point.record.to_json(),
            }
            for point in tuned.points
        ],
    }


_PARETO_COLUMNS = (
    _Column("trial"),
    _Column("network", right=False, wide_only=True),
    _Column("test\nacc. %"),
    _Column("valid.\nacc. %"),
    _Column("latency\nms"),
    _Column("SRAM\nB"),
    _Column("flash\nB"),
    _Column(ESTIMATED),
    _Column("latency\nms, ref."),
    _Column("SRAM\nB, ref.", wide_only=True),
    _Column("flash\nB, ref.", wide_only=True),
    _Column("times\nfaster"),
)


def _pareto_cells(found: Found) -> list[str]:
    record, baseline = found.record, found.baseline
    return [
        str(found.number),
        found.summary,
        _number(found.test_accuracy, "{:.1f}", scale=100),
        f"{100 * found.accuracy:.1f}",
        f"{record.latency_us / 1000:,.3f}",
        f"{record.sram_bytes.total:,}",
        f"{record.flash_bytes.total:,}",
        _energy(record),
        _number(baseline.latency_us / 1000 if baseline else None, "{:,.3f}"),
        _number(baseline.sram_bytes.total if baseline else None, "{:,}"),
        _number(baseline.flash_bytes.total if baseline else None, "{:,}"),
        _number(found.speedup, "{:.1f}"),
    ]


def pareto_table(front: PlaceFront, *, width: int = WIDE) -> Table:
    """The front of one place, fastest first, for a terminal of `width` columns."""
    table = titled_table(
        f"{_front_title(front)}: {len(front.front)} of "
        f"{len(front.found)} networks on the front of {_objectives(front)}"
    )
    shown = [width >= WIDE or not column.wide_only for column in _PARETO_COLUMNS]
    records = [found.record for found in front.front]
    _add_columns(table, list(itertools.compress(_PARETO_COLUMNS, shown)), records)
    for found in front.front:
        table.add_row(*map(Text, itertools.compress(_pareto_cells(found), shown)))
    return table


def pareto_notes(study: Study, cost: SearchCost, fronts: Sequence[PlaceFront]) -> list[str]:
    """What a reader must know: how it was searched, what it cost, what is counted."""
    records = [found.record for front in fronts for found in front.front]
    config = study.config
    choices = "".join(
        f", {name} of {', '.join(map(str, values))}"
        for name, values in config.get("space_options", {}).items()
    )
    return [
        f"Search: space {config.get('space')}{choices}; strategy {config.get('strategy')}, "
        f"data {config.get('data')}, seed {config.get('seed')}.",
        f"Cost: {cost.cpu_s:,.0f} CPU s and {cost.gpu_s:,.0f} GPU s of training, "
        f"{cost.board_s:,.0f} board s; {cost.proposed} networks proposed, {cost.trained} trained, "
        f"{cost.measured} measured, {cost.infeasible} did not fit, {cost.failed} failed.",
        "ref.: the same network with engine 'reference', a plain interpreter. The test set was "
        "used once, for the networks of a front; validation accuracy guided the search.",
        f"{MEMORY_NOTE} {energy_note(records)}",
    ]


def pareto_markdown(
    study: Study, fronts: Sequence[PlaceFront], cost: SearchCost, plots: dict[str, str]
) -> str:
    """The whole report as Markdown; `plots` are the names of the pictures by place."""
    lines = [
        f"# Study {study.name}",
        "",
        *(f"* {note}" for note in pareto_notes(study, cost, fronts)),
    ]
    for front in fronts:
        title = _front_title(front)
        records = [found.record for found in front.front]
        headings = [_heading(c, records).replace("\n", " ") for c in _PARETO_COLUMNS]
        lines += [
            "",
            f"## {title}",
            "",
            f"{len(front.front)} of {len(front.found)} networks are on the front of "
            f"{_objectives(front)}.",
            "",
            _markdown_row(headings),
            _markdown_row(["---:" if column.right else "---" for column in _PARETO_COLUMNS]),
            *(_markdown_row(_pareto_cells(found)) for found in front.front),
            "",
            f"![accuracy over latency, {title}]({plots[front.place]})",
        ]
    return "\n".join(lines) + "\n"


def pareto_json(study: Study, fronts: Sequence[PlaceFront], cost: SearchCost) -> dict[str, Any]:
    """The whole report as plain JSON types."""
    return {
        "schema": PARETO_SCHEMA,
        "study": study.name,
        "created_at": study.created_at,
        "config": study.config,
        "cost": dataclasses.asdict(cost),
        "places": [
            {
                "place": front.place,
                "board": front.board,
                "source": front.source,
                "objectives": list(front.objectives),
                "front": [_found_json(found) for found in front.front],
                "dominated": [_found_json(found) for found in front.dominated],
            }
            for front in fronts
        ],
    }


def _found_json(found: Found) -> dict[str, Any]:
    return {
        "trial": found.number,
        "network": found.summary,
        "accuracy": found.accuracy,
        "test_accuracy": found.test_accuracy,
        "record": found.record.to_json(),
        "reference": found.baseline.to_json() if found.baseline else None,
    }


_CSV_COLUMNS = (
    *("place", "board", "source", "trial", "on_front", "network", "accuracy", "test_accuracy"),
    *("latency_cycles", "latency_us", "sram_bytes", "flash_bytes", "energy_uj", "energy_source"),
    *("reference_latency_us", "reference_sram_bytes", "reference_flash_bytes"),
)


def write_csv(path: Path, fronts: Sequence[PlaceFront]) -> None:
    """All measured trials of all places, one line each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_CSV_COLUMNS)
        for front in fronts:
            for found in front.found:
                record, baseline = found.record, found.baseline
                energy = record.energy_uj
                writer.writerow(
                    [
                        front.place,
                        front.board,
                        front.source,
                        found.number,
                        int(found.is_on_front),
                        found.summary,
                        found.accuracy,
                        found.test_accuracy,
                        record.latency_cycles.median,
                        record.latency_us,
                        record.sram_bytes.total,
                        record.flash_bytes.total,
                        energy.median if energy else None,
                        energy.source if energy else None,
                        baseline.latency_us if baseline else None,
                        baseline.sram_bytes.total if baseline else None,
                        baseline.flash_bytes.total if baseline else None,
                    ]
                )


def write_pareto(
    folder: Path, study: Study, fronts: Sequence[PlaceFront], cost: SearchCost
) -> list[Path]:
    """Writes pareto.md, pareto.csv, pareto.json and a picture per place; returns their paths."""
    from hil.plot import plot_front  # matplotlib takes a second to load

    folder.mkdir(parents=True, exist_ok=True)
    plots = {front.place: f"pareto_{_file_name(front.place)}.png" for front in fronts}
    for front in fronts:
        title = f"{study.name}: {study.config.get('data')}, {study.config.get('strategy')}"
        plot_front(front, title, folder / plots[front.place])
    markdown, table, values = (folder / f"pareto.{ending}" for ending in ("md", "csv", "json"))
    markdown.write_text(pareto_markdown(study, fronts, cost, plots), encoding="utf-8")
    write_csv(table, fronts)
    write_json(values, pareto_json(study, fronts, cost))
    return [markdown, table, values, *(folder / name for name in plots.values())]


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a line end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def titled_table(title: str) -> Table:
    """An empty table in the style of all."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _spread(record: Record) -> float:
    """Median absolute deviation of the repeats as a share of their median."""
    median = record.latency_cycles.median
    return stats.mad(record.latency_cycles.samples) / median if median else 0.0


def _heading(column: _Column, records: Iterable[Record]) -> str:
    """That of an energy that was measured throughout says so by saying nothing."""
    sources = [record.energy_uj.source for record in records if record.energy_uj]
    measured = bool(sources) and all(source.startswith("measured:") for source in sources)
    return MEASURED if column.heading == ESTIMATED and measured else column.heading


def _add_columns(table: Table, columns: Sequence[_Column], records: Iterable[Record] = ()) -> None:
    records = list(records)
    for column in columns:
        justify: JustifyMethod = "right" if column.right else "left"
        heading = _heading(column, records)
        table.add_column(heading, justify=justify, no_wrap=column.right, overflow="fold")


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(value * scale)


def _energy(record: Record) -> str:
    return f"{record.energy_uj.median:,.1f}" if record.energy_uj else "-"


def _front_title(front: PlaceFront) -> str:
    return place_title([found.record for found in front.found])


def _objectives(front: PlaceFront) -> str:
    return ", ".join(name.rpartition("_")[0] or name for name in front.objectives)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _file_name(place: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in place)
