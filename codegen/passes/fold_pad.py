"""A Pad by the zero point becomes the padding of the op behind it.

Into convolutions always: their padding is the zero point. Into MaxPool2D only where no element of
the image is below the value, so that no maximum notices it, as behind a RELU. Never into
AveragePool2D, which does not count its own padding.
"""

from __future__ import annotations

from dataclasses import replace

from codegen import ir
from codegen.intervals import Interval, channel_intervals
from codegen.passes.rewrite import writer


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with pads folded; a Pad that nobody reads any more goes with the dead ops."""
    intervals = channel_intervals(graph)
    return graph.with_ops(tuple(_folded(graph, op, intervals) for op in graph.ops))


def _folded(graph: ir.Graph, op: ir.Op, intervals: dict[int, Interval]) -> ir.Op:
    if not isinstance(op, ir.Conv2D | ir.DepthwiseConv2D | ir.MaxPool2D):
        return op
    source = writer(graph.ops, op.inputs[0])
    pad = graph.ops[source] if source != -1 else None
    if not isinstance(pad, ir.Pad) or not _is_hidden(graph, pad, op, intervals):
        return op
    (top, bottom), (left, right) = pad.pads[1:3]
    padding = ir.Padding(
        top=op.padding.top + top,
        bottom=op.padding.bottom + bottom,
        left=op.padding.left + left,
        right=op.padding.right + right,
    )
    kh, kw = _window(graph, op)
    if max(padding.top, padding.bottom) >= kh or max(padding.left, padding.right) >= kw:
        return op
    return replace(op, inputs=(pad.inputs[0], *op.inputs[1:]), padding=padding)


def _is_hidden(
    graph: ir.Graph,
    pad: ir.Pad,
    op: ir.Conv2D | ir.DepthwiseConv2D | ir.MaxPool2D,
    intervals: dict[int, Interval],
) -> bool:
    """Whether the op's own padding does what the pad does."""
    x, y = graph.tensors[pad.inputs[0]], graph.tensors[pad.outputs[0]]
    if len(pad.pads) != 4 or pad.pads[0] != (0, 0) or pad.pads[3] != (0, 0) or x.quant != y.quant:
        return False
    if isinstance(op, ir.MaxPool2D):
        return bool(pad.value <= intervals[pad.inputs[0]].low.min())
    return pad.value == y.zero_point


def _window(graph: ir.Graph, op: ir.Conv2D | ir.DepthwiseConv2D | ir.MaxPool2D) -> tuple[int, int]:
    """Height and width that one output element sees."""
    if isinstance(op, ir.MaxPool2D):
        return op.kh, op.kw
    _, kh, kw, _ = graph.tensors[op.inputs[1]].shape
    return (kh - 1) * op.dilation_h + 1, (kw - 1) * op.dilation_w + 1
