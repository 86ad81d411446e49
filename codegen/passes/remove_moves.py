"""Ops that move no byte become aliases (Reshape) or vanish.

Alias: a Transpose that only moves axes of size 1, a slice of everything, a Pad by nothing, a
Concatenation of one tensor, a mean or maximum of one element each; one or more ops of single
values, such as a Relu, or a Quantize there and one back, that map every value that there can be to
itself. Vanishes: an alias whose two sides have one shape, type and scale. A Transpose of a
Transpose, or a Reshape of a Reshape, reads the first one's input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codegen import ir, reference
from codegen.intervals import Interval, channel_intervals
from codegen.passes.rewrite import substitute, without, writer

#: Ops that map each value by itself.
_ByValue = (
    ir.Relu | ir.LeakyRelu | ir.HardSwish | ir.Logistic | ir.Tanh | ir.Quantize | ir.Dequantize
)
#: More ops by value in a row are not looked at.
_MAX_CHAIN = 4


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with fewer moves."""
    graph = _skip_transposes_of_transposes(graph)
    intervals = channel_intervals(graph)
    graph = graph.with_ops(tuple(_as_alias(graph, op, intervals) for op in graph.ops))
    graph = _skip_reshapes_of_reshapes(graph)
    position = 0
    while position < len(graph.ops):
        op = graph.ops[position]
        shorter = without(graph, position) if _is_identity(graph, op) else graph
        position += len(shorter.ops) == len(graph.ops)
        graph = shorter
    return graph


def _skip_transposes_of_transposes(graph: ir.Graph) -> ir.Graph:
    ops: list[ir.Op] = []
    for op in graph.ops:
        if isinstance(op, ir.Transpose) and (source := writer(ops, op.inputs[0])) != -1:
            first = ops[source]
            if isinstance(first, ir.Transpose):
                perm = tuple(first.perm[axis] for axis in op.perm)
                op = replace(op, inputs=first.inputs, perm=perm)
        ops.append(op)
    return graph.with_ops(tuple(ops))


def _as_alias(graph: ir.Graph, op: ir.Op, intervals: dict[int, Interval]) -> ir.Op:
    """A Reshape in the place of an op that moves nothing."""
    source = op.inputs[0] if _moves_nothing(graph, op) else _same_values(graph, op, intervals)
    if source is None:
        return op
    return ir.Reshape(name=op.name, inputs=(source,), outputs=op.outputs, source=op.source)


def _same_values(graph: ir.Graph, op: ir.Op, intervals: dict[int, Interval]) -> int | None:
    """The tensor that ops by value, of which this is the last, give again; None without one."""
    y = graph.tensors[op.outputs[0]]
    chain: list[ir.Op] = []
    while isinstance(op, _ByValue) and len(chain) < _MAX_CHAIN:
        chain.insert(0, op)
        source = op.inputs[0]
        x = graph.tensors[source]
        if (x.dtype, x.quant) == (y.dtype, y.quant) and x.dtype in (ir.DType.S8, ir.DType.U8):
            low, high = intervals[source].low.min(), intervals[source].high.max()
            values = before = np.arange(low, high + 1).astype(x.dtype.numpy)
            for each in chain:
                values = reference.run_op(graph, each, [values])
            if np.array_equal(values, before):
                return source
        position = writer(graph.ops, source)
        if position == -1:
            return None
        op = graph.ops[position]
    return None


def _moves_nothing(graph: ir.Graph, op: ir.Op) -> bool:
    """Whether the output's bytes are the input's, in the same order."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if isinstance(op, ir.Transpose):
        long_axes = [axis for axis in op.perm if x.shape[axis] > 1]
        return long_axes == sorted(long_axes)
    if isinstance(op, ir.StridedSlice):
        return x.elements == y.elements and min(op.stride) > 0
    if isinstance(op, ir.Pad):
        return x.shape == y.shape
    if isinstance(op, ir.Mean):
        return x.elements == y.elements and x.quant == y.quant
    if isinstance(op, ir.AveragePool2D | ir.MaxPool2D):
        is_single = (op.kh, op.kw, op.activation) == (1, 1, ir.Activation.NONE)
        return is_single and x.shape == y.shape and x.quant == y.quant
    if isinstance(op, ir.Concatenation):
        return len(op.inputs) == 1
    return False


def _skip_reshapes_of_reshapes(graph: ir.Graph) -> ir.Graph:
    ops: list[ir.Op] = []
    for op in graph.ops:
        source = writer(ops, op.inputs[0])
        if isinstance(op, ir.Reshape) and source != -1 and isinstance(ops[source], ir.Reshape):
            op = substitute(op, op.inputs[0], ops[source].inputs[0])
        ops.append(op)
    return graph.with_ops(tuple(ops))


def _is_identity(graph: ir.Graph, op: ir.Op) -> bool:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    return isinstance(op, ir.Reshape) and (x.shape, x.dtype, x.quant) == (y.shape, y.dtype, y.quant)
