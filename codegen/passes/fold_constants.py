"""Ops whose inputs are all constants are computed now, by codegen.reference."""

from __future__ import annotations

from dataclasses import replace

from codegen import ir, reference

#: Larger results would cost more flash than computing them on the board costs time.
_MAX_ELEMENTS = 1 << 20


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with those ops replaced by their values; an op that writes a model output stays."""
    tensors = list(graph.tensors)
    ops: list[ir.Op] = []
    for op in graph.ops:
        values = [tensors[index].data for index in op.inputs]
        constants = [value for value in values if value is not None]
        result = op.outputs[0]
        is_small = tensors[result].elements <= _MAX_ELEMENTS
        if len(constants) < len(values) or result in graph.outputs or not is_small:
            ops.append(op)
            continue
        value = reference.run_op(graph, op, constants)
        value.setflags(write=False)
        tensors[result] = replace(tensors[result], data=value)
    return graph.with_ops(tuple(ops), tuple(tensors))
