"""What every place of a rig does now: a table at the bottom of the terminal, kept up to date.

Lines that are printed meanwhile scroll by above it. Where stderr is no terminal there is no table;
the lines are all there is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hil.console import printable

if TYPE_CHECKING:
    from hil.rig import Rig, View

_PER_SECOND = 4
_STYLES = {"quarantined": "red", "retrying": "yellow", "waiting": "yellow", "idle": "dim"}


@contextlib.contextmanager
def watching(rig: Rig) -> Iterator[None]:
    """Shows the rig's places until the block ends; the table then disappears."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(
        console=console,
        get_renderable=lambda: places_table(rig.views()),
        refresh_per_second=_PER_SECOND,
        transient=True,
    ):
        yield


def places_table(views: Sequence[View]) -> RenderableType:
    """One line for each place."""
    now = time.monotonic()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("place", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=len("quarantined"))
    table.add_column("job")  # the one column that gives way on a narrow terminal
    for heading in ("since", "done", "failed", "faults"):
        table.add_column(heading, justify="right", no_wrap=True)
    for view in views:
        table.add_row(
            Text(printable(view.place)),
            Text(view.state, style=_STYLES.get(view.state, "green")),
            Text(printable(view.job), no_wrap=True, overflow="ellipsis"),
            Text(_duration(now - view.since)),
            Text(f"{view.done:,}"),
            Text(f"{view.failed:,}", style="red" if view.failed else ""),
            Text(f"{view.faults:,}", style="yellow" if view.faults else ""),
        )
    return table


def _duration(seconds: float) -> str:
    """Such as 7 s, 3 min 07 s, 2 h 05 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"
