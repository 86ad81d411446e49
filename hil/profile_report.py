"""A profile as tables for people and as JSON; percentages are of the whole run.

Not here: the annotated listing (profile_annotate), the flame graph (speedscope).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hil.profile import (
    BETWEEN,
    CAUSES,
    ONE_CYCLE,
    Cost,
    Profile,
    Where,
    by_function,
    by_line,
    decoded,
    total,
)
from hil.profile_dwarf import Line
from hil.profile_source import Frame, plain
from hil.profile_text import Sources, per, share, short_names, waits
from hil.report import titled_table

SCHEMA = 1

View = Literal["layer", "memory", "function", "line", "instruction"]
WAITING = "waits, %"
NARROW = 100  # columns that have room for the line of an instruction
WIDE = 110  # columns that have room for the op of a layer
VIEWS: tuple[View, ...] = get_args(View)


def profile_tables(
    profile: Profile, views: Sequence[View], *, top: int, sources: Sources, width: int
) -> RenderableType:
    """The summary, then a table for each view with its `top` dearest rows."""
    tables: dict[View, Callable[[], RenderableType]] = {
        "layer": lambda: _layer_table(profile, width),
        "memory": lambda: _memory_table(profile),
        "function": lambda: _function_table(profile, top),
        "line": lambda: _line_table(profile, top, sources, width),
        "instruction": lambda: _instruction_table(profile, top, width),
    }
    empty = {"layer": not profile.is_model, "memory": not profile.memories}
    shown = [view for view in views if not empty.get(view)]
    notes = [Text(note, style="yellow") for note in profile.notes]
    return Group(_summary(profile), *notes, *(tables[view]() for view in shown))


def _summary(profile: Profile) -> RenderableType:
    """What the cycles were spent on: running instructions, and waiting by cause."""
    whole = profile.whole
    engine = f", engine {profile.engine}" if profile.engine else ""
    title = f"{profile.name}{engine}, {profile.place} (virtual, cycles by {profile.timing_model})"
    table = titled_table(title)
    table.add_column("cycles", justify="right")
    table.add_column("%", justify="right")
    table.add_column("spent on", overflow="fold")
    running = whole.units - whole.stalled_units

    def row(units: int, text: str) -> None:
        table.add_row(_cycles(units), share(units / ONE_CYCLE, profile.cycles), Text(text))

    table.add_row(f"{profile.cycles:,}", "", Text(_sentence(profile, whole)), style="bold")
    row(running, f"running {whole.executions:,} instructions")
    for cause, units in sorted(whole.stalls.items(), key=lambda item: -item[1]):
        meaning = CAUSES.get(cause)
        row(units, f"{cause}: {meaning}" if meaning else cause)
    if abs(profile.beside_units) >= ONE_CYCLE:  # the clock shows whole cycles
        row(profile.beside_units, _beside(profile))
    return table


def _sentence(profile: Profile, whole: Cost) -> str:
    text = f"in all; {per(profile.cycles, whole.executions)} per instruction"
    macs = sum(layer.macs for layer in profile.layers)
    return f"{text}, {per(profile.cycles, macs)} per MAC" if macs else text


def _beside(profile: Profile) -> str:
    if profile.is_model:
        return "around the model: its call, less that of an empty function"
    return "in no instruction: exceptions"


def _layer_table(profile: Profile, width: int) -> Table:
    table = titled_table("by layer, in order of execution")
    table.add_column("layer", overflow="fold")
    if width >= WIDE:
        table.add_column("op")
    _right(table, "MACs", "cycles", "%", "cycles\nper MAC", "instruc-\ntions", "cycles\neach")
    table.add_column(WAITING, overflow="fold")
    for layer in profile.layers:
        cost = total(layer.costs)
        table.add_row(
            Text(layer.name),
            *([Text(layer.op)] if width >= WIDE else []),
            f"{layer.macs:,}",
            *_cost_cells(profile, cost, per(cost.cycles, layer.macs)),
        )
    if profile.between_layers:
        cost = total(profile.between_layers)
        blank = [""] * (2 if width >= WIDE else 1)
        table.add_row(Text(BETWEEN), *blank, *_cost_cells(profile, cost, ""))
    return table


def _cost_cells(profile: Profile, cost: Cost, *after_share: str) -> tuple[str | Text, ...]:
    return (
        _cycles(cost.units),
        share(cost.cycles, profile.cycles),
        *after_share,
        f"{cost.executions:,}",
        per(cost.cycles, cost.executions),
        Text(waits(cost)),
    )


def _memory_table(profile: Profile) -> Table:
    table = titled_table("by memory that lets the core wait; code in lines")
    table.add_column("memory")
    table.add_column("for")
    _right(table, "accesses", "hits, %", "fills, %", "prefetched, %")
    for use in profile.memories:
        shares = [share(n, use.accesses) for n in (use.hits, use.fills, use.sequentials)]
        table.add_row(Text(use.memory), use.side, f"{use.accesses:,}", *shares)
    return table


def _function_table(profile: Profile, top: int) -> Table:
    table = titled_table("by function of the source, inlined copies together")
    table.add_column("function", overflow="fold")
    table.add_column("inlined into", overflow="fold")
    _right(table, "cycles", "%", "instruc-\ntions", "cycles\neach")
    table.add_column(WAITING, overflow="fold")
    functions = by_function(profile)
    files = short_names(where.file for where in functions if where.file)
    counts = Counter(where.name for where in functions)
    for where in functions[:top]:
        name = where.name
        if counts[name] > 1 and where.file:
            name += f" ({files[where.file]})"
        cells = _cost_cells(profile, where.cost)
        table.add_row(Text(name), Text(_inlined_into(where)), *cells)
    _left_out(table, [where.cost for where in functions[top:]], profile)
    return table


def _inlined_into(where: Where) -> str:
    others = sorted({plain(place) for place in where.places} - {where.name})
    return others[0] if len(others) == 1 else f"{len(others)} functions" if others else ""


def _line_table(profile: Profile, top: int, sources: Sources, width: int) -> Table:
    table = titled_table(
        "by source line; an inlined function of one line is part of its caller's line"
    )
    table.add_column("line", no_wrap=True)
    table.add_column("source", no_wrap=True)
    _right(table, "cycles", "%", "cycles\neach")
    table.add_column(WAITING, overflow="fold")
    lines = by_line(profile)
    order = list(lines.items())
    names = short_names(frame.line.file for frame in lines if frame.line)
    shown = [
        (_place(frame.line, names) or frame.function, frame, _cost_cells(profile, cost))
        for frame, cost in order[:top]
    ]
    # what the other columns, and the spaces between them, leave for the source
    widths = [len(place) + max(len(str(cells[4])), 11) for place, _, cells in shown]
    room = max(20, width - max(widths, default=0) - 12 - 6 - 8 - 10)
    for place, frame, cells in shown:
        text = sources.text(frame.line) or f"in {frame.function}"
        text = text if len(text) <= room else text[: room - 1] + "…"
        table.add_row(Text(place), Text(text), *(cells[0], cells[1], cells[3], cells[4]))
    _left_out(table, [cost for _, cost in order[top:]], profile)
    return table


def _instruction_table(profile: Profile, top: int, width: int) -> Table:
    table = titled_table("by instruction")
    table.add_column("address", justify="right", no_wrap=True)
    table.add_column("instruction", no_wrap=True)
    if width >= NARROW:
        table.add_column("line", no_wrap=True)
    _right(table, "executed", "cycles", "%", "cycles\neach")
    table.add_column(WAITING, overflow="fold")
    order = sorted(profile.costs.items(), key=lambda item: (-item[1].units, item[0]))
    places = [profile.program.frames(i.address)[-1] for i, _ in order[:top]]
    names = short_names(frame.line.file for frame in places if frame.line)
    for (instruction, cost), frame in zip(order[:top], places, strict=True):
        table.add_row(
            f"{instruction.address:x}",
            Text(decoded(instruction).text),
            *([Text(_place(frame.line, names) or frame.function)] if width >= NARROW else []),
            f"{cost.executions:,}",
            _cycles(cost.units),
            share(cost.cycles, profile.cycles),
            per(cost.cycles, cost.executions),
            Text(waits(cost)),
        )
    _left_out(table, [cost for _, cost in order[top:]], profile)
    return table


def _left_out(table: Table, costs: Sequence[Cost], profile: Profile) -> None:
    """A last row for what is not shown."""
    if costs:
        cells = [""] * len(table.columns)
        first_text = next(n for n, column in enumerate(table.columns) if column.justify == "left")
        cells[first_text] = f"{len(costs):,} more"
        units = sum(cost.units for cost in costs)
        headings = [str(column.header) for column in table.columns]
        cells[headings.index("cycles")] = _cycles(units)
        cells[headings.index("%")] = share(units / ONE_CYCLE, profile.cycles)
        table.add_row(*cells, style="dim")


def _place(line: Line | None, names: Mapping[str, str]) -> str:
    return str(line._replace(file=names[line.file])) if line else ""


def _cycles(units: int) -> str:
    return f"{units / ONE_CYCLE:,.0f}"


def _right(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def profile_json(profile: Profile) -> dict[str, Any]:
    """The whole profile as plain JSON types; cycles may have fractions."""
    program = profile.program
    return {
        "schema": SCHEMA,
        "name": profile.name,
        "engine": profile.engine,
        "place": profile.place,
        "source": "virtual",
        "timing_model": profile.timing_model,
        "cycles": profile.cycles,
        "beside_cycles": profile.beside_units / ONE_CYCLE,
        "whole": _cost_json(profile.whole),
        "memories": [use._asdict() for use in profile.memories],
        "notes": list(profile.notes),
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "macs": layer.macs,
                **_cost_json(total(layer.costs)),
            }
            for layer in profile.layers
            if layer.name
        ],
        "between_layers": _cost_json(total(profile.between_layers)),
        "functions": [
            {
                "name": w.name,
                "file": w.file,
                "places": sorted(w.places),
                **_cost_json(w.cost),
            }
            for w in by_function(profile)
        ],
        "lines": [
            {**_frame_json(frame), **_cost_json(cost)} for frame, cost in by_line(profile).items()
        ],
        "instructions": [
            {
                "layer": name,
                "address": instruction.address,
                "code": instruction.code.hex(),
                "text": decoded(instruction).text,
                "frames": [_frame_json(frame) for frame in program.frames(instruction.address)],
                **_cost_json(cost),
            }
            for name, costs in profile.parts
            for instruction, cost in sorted(costs.items())
        ],
    }


def _frame_json(frame: Frame) -> dict[str, Any]:
    line = frame.line
    return {
        "function": frame.function,
        "file": line.file if line else None,
        "line": line.line if line else None,
    }


def _cost_json(cost: Cost) -> dict[str, Any]:
    stalls = {cause: units / ONE_CYCLE for cause, units in sorted(cost.stalls.items())}
    return {"cycles": cost.cycles, "instructions": cost.executions, "stalls": stalls}
