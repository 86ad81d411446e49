"""Ops that one C function computes: equal but for the tensors that they read and write.

Strips of one stage (patching.py) and layers that repeat weights are such ops.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from codegen import ir


def signature(graph: ir.Graph, op: ir.Op) -> Hashable:
    """Ops of one graph with equal signatures get equal C from a kernel, but for names.

    It holds everything that kernels look at: the op's attributes, its constants, and the shapes,
    types and scales of what it reads and writes.
    """
    activations: dict[int, int] = {}
    operands: list[Hashable] = []
    for i in (*op.inputs, *op.outputs):
        tensor = graph.tensors[i]
        if tensor.is_constant:
            operands.append(tensor)
        else:
            # The same tensor twice is not the same as two tensors.
            number = activations.setdefault(i, len(activations))
            operands.append((number, tensor.shape, tensor.dtype, tensor.quant))
    return replace(op, name="", inputs=(), outputs=(), source=-1), tuple(operands)
