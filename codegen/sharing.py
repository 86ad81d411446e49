"""What the generated C holds once: functions that several ops call, constants that several read.

Strips of one stage (patching.py) and layers that repeat weights are such ops: equal but for the
tensors that they read and write.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from codegen import ir
from codegen.kernels import Kernel
from codegen.kernels.context import Array


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


def functions(
    graph: ir.Graph, kernels: Mapping[int, Kernel], order: Sequence[int]
) -> dict[int, list[int]]:
    """By the first op of each C function, in order of execution, all ops that call it."""
    found: dict[Hashable, list[int]] = {}
    for index in order:
        if index in kernels:
            key = kernels[index].name, signature(graph, graph.ops[index])
            found.setdefault(key, []).append(index)
    return {ops[0]: ops for ops in found.values()}


def unique_arrays(arrays: Iterable[Array]) -> tuple[list[Array], list[tuple[str, str]]]:
    """Arrays of different content, and the names of the others with the name of their equal."""
    first: dict[Hashable, str] = {}
    unique: list[Array] = []
    same: list[tuple[str, str]] = []
    for array in arrays:
        key = array.c_type, array.memory, array.values.tobytes()
        if key in first:
            same.append((array.name, first[key]))
        else:
            first[key] = array.name
            unique.append(array)
    return unique, same
