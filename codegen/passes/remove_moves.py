"""Ops that move no byte become aliases (Reshape) or vanish.

Alias: a Transpose that only moves axes of size 1, a slice of everything, a Pad by nothing, a
Concatenation of one tensor, a Quantize or Relu that maps every value to itself. Vanishes: an alias
whose two sides have one shape, type and scale; a Reshape of a Reshape reads the first one's input.
"""

from __future__ import annotations

from codegen import ir
from codegen.passes.rewrite import substitute, without, writer


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with fewer moves."""
    graph = graph.with_ops(
        tuple(_as_reshape(op) if _moves_nothing(graph, op) else op for op in graph.ops)
    )
    graph = _skip_reshapes_of_reshapes(graph)
    position = 0
    while position < len(graph.ops):
        op = graph.ops[position]
        shorter = without(graph, position) if _is_identity(graph, op) else graph
        position += len(shorter.ops) == len(graph.ops)
        graph = shorter
    return graph


def _as_reshape(op: ir.Op) -> ir.Op:
    return ir.Reshape(name=op.name, inputs=op.inputs[:1], outputs=op.outputs, source=op.source)


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
    if isinstance(op, ir.Concatenation):
        return len(op.inputs) == 1
    if isinstance(op, ir.Quantize):
        return x.dtype is y.dtype and x.quant == y.quant
    if isinstance(op, ir.Relu):
        # Only RELU: its lower end is the zero point, and no value of an s8 lies below -128.
        return op.activation is ir.Activation.RELU and x.quant == y.quant and x.zero_point == -128
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
