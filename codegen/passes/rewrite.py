"""What passes share: who reads a tensor, one put in the place of another, names for new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from codegen import ir
from codegen.names import MAX_IDENTIFIER


def readers(ops: Sequence[ir.Op], tensor: int) -> list[int]:
    """Positions of the ops that read a tensor."""
    return [i for i, op in enumerate(ops) if tensor in op.inputs]


def writer(ops: Sequence[ir.Op], tensor: int) -> int:
    """Position of the op that writes a tensor; -1 for model inputs and constants."""
    return next((i for i, op in enumerate(ops) if tensor in op.outputs), -1)


def substitute(op: ir.Op, old: int, new: int) -> ir.Op:
    """The op with one tensor in the place of another."""

    def put(tensors: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new if tensor == old else tensor for tensor in tensors)

    if old not in op.inputs and old not in op.outputs:
        return op
    return replace(op, inputs=put(op.inputs), outputs=put(op.outputs))


def without(graph: ir.Graph, position: int) -> ir.Graph:
    """The graph without an op that hands its first input on unchanged, where that is possible.

    The tensor of a model output keeps its place: then the op before writes it directly. From a
    model input straight to a model output the op stays.
    """
    op = graph.ops[position]
    kept, dropped = op.inputs[0], op.outputs[0]
    if dropped in graph.outputs:
        kept, dropped = dropped, kept
        is_fixed = dropped in graph.inputs or dropped in graph.outputs
        if is_fixed or graph.tensors[dropped].is_constant:
            return graph
    return graph.with_ops(
        tuple(
            substitute(other, dropped, kept) for i, other in enumerate(graph.ops) if i != position
        )
    )


def names(graph: ir.Graph) -> set[str]:
    """Every name in a graph."""
    return {tensor.name for tensor in graph.tensors} | {op.name for op in graph.ops}


def new_name(hint: str, taken: set[str]) -> str:
    """A name for a tensor or op: the hint, cut to length, with a number if it is taken."""
    name, number = hint[:MAX_IDENTIFIER], 1
    while name in taken:
        number += 1
        suffix = f"_{number}"
        name = hint[: MAX_IDENTIFIER - len(suffix)] + suffix
    return name
