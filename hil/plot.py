"""A study's plots: accuracy over latency on one place, SRAM as the size of the dots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hil.fronts import Found, PlaceFront

FRONT = "#1b5e9b"
DOMINATED = "#b9c4cf"
BASELINE = "#c0562f"
SMALLEST_DOT, LARGEST_DOT = 30.0, 260.0  # points^2


def plot_front(front: PlaceFront, title: str, path: Path) -> None:
    """Writes a PNG: the front as a line over the dominated trials, the reference engine beside it.

    The line joins the trials that are best in accuracy and latency alone; a trial may be on the
    front for its memory and lie below it.

    Args:
        front: one place of a study.
        title: what the study is.
        path: of the PNG.
    """
    figure = Figure(figsize=(9.0, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    largest = max(found.record.sram_bytes.total for found in front.found)

    def scatter(found: Sequence[Found], color: str, label: str, order: int) -> None:
        axes.scatter(
            [f.record.latency_us / 1000 for f in found],
            [100 * f.accuracy for f in found],
            s=[_dot(f.record.sram_bytes.total, largest) for f in found],
            color=color,
            edgecolor="white",
            linewidth=0.8,
            label=label,
            zorder=order,
        )

    if front.dominated:
        scatter(front.dominated, DOMINATED, f"dominated ({len(front.dominated)})", 2)
    scatter(front.front, FRONT, f"front ({len(front.front)})", 4)
    stairs = _stairs(front.front)
    axes.step(
        [f.record.latency_us / 1000 for f in stairs],
        [100 * f.accuracy for f in stairs],
        where="post",
        color=FRONT,
        linewidth=1.4,
        zorder=3,
    )
    with_baseline = [f for f in front.front if f.baseline is not None]
    if with_baseline:
        axes.scatter(
            [f.baseline.latency_us / 1000 for f in with_baseline if f.baseline],
            [100 * f.accuracy for f in with_baseline],
            marker="x",
            s=36,
            linewidth=1.4,
            color=BASELINE,
            label="the same networks with engine 'reference'",
            zorder=3,
        )
    for found in _labelled(stairs):
        axes.annotate(
            f"#{found.number}",
            (found.record.latency_us / 1000, 100 * found.accuracy),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=FRONT,
            zorder=5,
        )

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(_minor))
    axes.tick_params(axis="x", which="both", length=4, pad=4)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel(f"latency of one inference, ms (median, {front.source} board)")
    axes.set_ylabel("accuracy on the validation samples, %")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_title(f"{front.board} · {front.source}", loc="right", fontsize=10, color="#555555")
    axes.grid(which="major", color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = figure.legend(loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([50.0])
    axes.text(
        1.0,
        -0.11,
        f"area of a dot: SRAM, largest {largest:,} B",
        ha="right",
        va="top",
        fontsize=8,
        color="#777777",
        transform=axes.transAxes,
    )
    figure.savefig(path, metadata={"Software": "hil"})


def _dot(sram_bytes: int, largest: int) -> float:
    return SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * sram_bytes / largest


def _stairs(front: Sequence[Found]) -> list[Found]:
    """Those that are more accurate than every faster one; `front` is by latency."""
    best: list[Found] = []
    for found in front:
        if not best or found.accuracy > best[-1].accuracy:
            best.append(found)
    return best


def _labelled(stairs: Sequence[Found]) -> Sequence[Found]:
    """At most eight from the most accurate on, so that labels do not cover each other."""
    step = -(-len(stairs) // 8)
    return stairs[::-1][::step] if stairs else stairs


def _minor(value: float, _position: int | None) -> str:
    """Labels 2, 3 and 5 of every decade: the axis often spans less than one."""
    digit = f"{value:e}"[0]
    return f"{value:g}" if digit in "235" else ""
