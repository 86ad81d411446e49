"""A network's memory over time: what lies where in the arena at each call of model_run."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

from codegen.manifest import BufferEntry, Manifest, MemoryEntry

_TINTS = ("#a9c7e3", "#cfe0c3", "#f0d9b5", "#d8cbe4", "#c5dedb", "#e9c9c3", "#d9d9cf")
_GIVEN = "#7fa8d1"  # model inputs
_SCRATCH = "#e4e4e4"
_ARENA, _BOUND = "#1d2a36", "#c0562f"
_FONT_POINTS = (7.5, 6.5, 5.5)
_MOST_TICKS = 64
_SHOWN_CHARS = 22


def plot_memory(manifest: Manifest, folder: Path) -> list[Path]:
    """Writes memory.png and memory.svg: calls along x, bytes of the arena along y.

    One area per buffer, for as long as its bytes are needed; a buffer whose rows die one after the
    other has steps. Scratch is hatched. Lines show the size of the arena, and the size that no plan
    for these calls can go below.

    Args:
        manifest: of engine `tiny`.
        folder: where the files go.

    Returns:
        Their paths.
    """
    memory = manifest.memory
    assert memory is not None, "only engine tiny plans"
    n_calls = len(memory.calls)
    width = min(30.0, max(8.0, 2.5 + 0.22 * n_calls))
    figure = Figure(figsize=(width, 6.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_buffers(axes, memory)
    _draw_limits(axes, manifest, memory)
    axes.set_xlim(-1.5, n_calls + 0.5)
    axes.set_ylim(0, 1.12 * max(1, manifest.arena_bytes))
    step = -(-(n_calls + 2) // _MOST_TICKS)
    ticks = [-1, *range(0, n_calls, step), n_calls]
    if n_calls - ticks[-2] < step and len(ticks) > 3:
        del ticks[-2]
    axes.set_xticks(ticks, [_tick(memory, call) for call in ticks], rotation=90, fontsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("offset in the arena, bytes")
    axes.set_xlabel("calls, in order of execution")
    axes.set_title(
        f"{manifest.model.name} on {manifest.board}, engine {manifest.engine}: memory over time",
        loc="left",
        fontsize=11,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.draw_without_rendering()
    _label_buffers(axes, memory)
    paths = [folder / "memory.png", folder / "memory.svg"]
    with matplotlib.rc_context({"svg.hashsalt": "memory"}):
        figure.savefig(paths[0], metadata={"Software": "hil"})
        figure.savefig(paths[1], metadata={"Creator": "hil", "Date": None})
    return paths


def _tick(memory: MemoryEntry, call: int) -> str:
    if call == -1:
        return "inputs"
    return memory.calls[call] if call < len(memory.calls) else "outputs"


def _draw_buffers(axes: Axes, memory: MemoryEntry) -> None:
    tints: dict[str, str] = {}
    # What begins later lies on top, where an op writes over what it reads.
    for buffer in sorted(memory.buffers, key=lambda buffer: buffer.first):
        is_scratch = buffer.kind == "scratch"
        if not is_scratch and buffer.name not in tints:
            tints[buffer.name] = _GIVEN if buffer.first == -1 else _TINTS[len(tints) % len(_TINTS)]
        # Edges of pieces of one buffer are in its own colour, so that it is one area.
        tint = _SCRATCH if is_scratch else tints[buffer.name]
        axes.add_patch(
            Rectangle(
                (buffer.first - 0.5, buffer.offset),
                buffer.last - buffer.first + 1,
                buffer.size_bytes,
                facecolor=tint,
                edgecolor="#9a9a9a" if is_scratch else tint,
                hatch="//////" if is_scratch else None,
                linewidth=0.3,
            )
        )


def _draw_limits(axes: Axes, manifest: Manifest, memory: MemoryEntry) -> None:
    arena, bound = manifest.arena_bytes, memory.lower_bound_bytes
    end = len(memory.calls) + 0.5
    label = f"arena {arena:,} B" + (", the lower bound" if arena == bound else "")
    axes.axhline(arena, color=_ARENA, linewidth=1.2)
    axes.text(end, 1.01 * arena, label, ha="right", va="bottom", fontsize=8.5, color=_ARENA)
    if bound < arena:
        axes.axhline(bound, color=_BOUND, linewidth=1.0, linestyle="--")
        axes.text(
            -1.5,
            1.01 * arena,
            f" lower bound {bound:,} B (dashed)",
            ha="left",
            va="bottom",
            fontsize=8.5,
            color=_BOUND,
        )


def _label_buffers(axes: Axes, memory: MemoryEntry) -> None:
    """The name of each buffer in its largest piece, where it fits: along it, or upright."""
    pieces: dict[tuple[str, str], list[BufferEntry]] = defaultdict(list)
    for buffer in memory.buffers:
        pieces[buffer.name, buffer.kind].append(buffer)
    for same in pieces.values():
        buffer = max(same, key=lambda piece: piece.size_bytes * (piece.last - piece.first + 1))
        name = buffer.name.removesuffix(" scratch")
        if buffer.kind == "tensor":
            shown = name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}…"
            _label(axes, buffer, _last_seen(memory, buffer), shown)


def _last_seen(memory: MemoryEntry, buffer: BufferEntry) -> int:
    """The last call at which nothing lies on top of a buffer."""
    end = buffer.offset + buffer.size_bytes
    covering = (
        other.first - 1
        for other in memory.buffers
        if buffer.first < other.first <= buffer.last
        and other.offset < end
        and buffer.offset < other.offset + other.size_bytes
    )
    return min(covering, default=buffer.last)


def _label(axes: Axes, buffer: BufferEntry, last: int, name: str) -> None:
    corners = axes.transData.transform(
        [
            (buffer.first - 0.5, buffer.offset),
            (last + 0.5, buffer.offset + buffer.size_bytes),
        ]
    )
    (width, height) = corners[1] - corners[0]
    middle = (buffer.first + last) / 2, buffer.offset + buffer.size_bytes / 2
    for points in _FONT_POINTS:
        for rotation in (0, 90):
            text = axes.text(
                *middle, name, ha="center", va="center", fontsize=points, rotation=rotation
            )
            if _fits(text, width, height):
                return
            text.remove()


def _fits(text: Text, width: float, height: float) -> bool:
    box = text.get_window_extent()
    return bool(box.width + 4 <= width and box.height + 2 <= height)
