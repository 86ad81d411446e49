"""What would be copied is read, or written, where it lies.

A slice of neighbours becomes a View; a Concatenation along the outermost axis becomes a Join, whose
inputs are written right into the result. Copied is still what does not start at a whole word, and
what cannot lie in the result: a constant, a part of another tensor, what is joined elsewhere.
"""

from __future__ import annotations

import math

from codegen import ir
from codegen.check import check_joins
from codegen.errors import GraphInvalid
from codegen.liveness import ALIGNMENT


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with fewer copies."""
    for position, op in enumerate(graph.ops):
        if isinstance(op, ir.StridedSlice):
            graph = _replaced(graph, position, _view(graph, op))
        elif isinstance(op, ir.Concatenation):
            joined = _replaced(graph, position, _join(graph, op))
            graph = joined if _can_join(joined) else graph
    return graph


def _replaced(graph: ir.Graph, position: int, op: ir.Op) -> ir.Graph:
    return graph.with_ops((*graph.ops[:position], op, *graph.ops[position + 1 :]))


def _can_join(graph: ir.Graph) -> bool:
    try:
        check_joins(graph)
    except GraphInvalid:
        return False
    return True


def _join(graph: ir.Graph, op: ir.Concatenation) -> ir.Op:
    """The concatenation as a Join, if the bytes of each input are neighbours in the result."""
    if math.prod(graph.tensors[op.outputs[0]].shape[: op.axis]) > 1:
        return op
    return ir.Join(name=op.name, inputs=op.inputs, outputs=op.outputs, source=op.source)


def _view(graph: ir.Graph, op: ir.StridedSlice) -> ir.Op:
    """The slice as a View, if its elements are neighbours: one index, then a range, then all."""
    x = graph.tensors[op.inputs[0]]
    taken = [range(*part) for part in zip(op.begin, op.end, op.stride, strict=True)]
    first = next((axis for axis, part in enumerate(taken) if len(part) > 1), len(taken) - 1)
    are_neighbours = taken[first].step == 1 or len(taken[first]) == 1
    is_all_behind = all(
        part == range(size)
        for part, size in zip(taken[first + 1 :], x.shape[first + 1 :], strict=True)
    )
    offset = (
        sum(part.start * math.prod(x.shape[axis + 1 :]) for axis, part in enumerate(taken))
        * x.dtype.item_bytes
    )
    if x.is_constant or not are_neighbours or not is_all_behind or offset % ALIGNMENT:
        return op
    return ir.View(
        name=op.name, inputs=op.inputs, outputs=op.outputs, source=op.source, offset_bytes=offset
    )
