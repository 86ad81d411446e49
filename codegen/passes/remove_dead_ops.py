"""Ops that no output depends on, and tensors that no op uses, are dropped."""

from __future__ import annotations

from dataclasses import replace

from codegen import ir


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with only what is needed; tensors are numbered anew, in the same order."""
    needed = set(graph.outputs)
    ops: list[ir.Op] = []
    for op in reversed(graph.ops):
        if not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
            ops.insert(0, op)
    used = sorted(needed.union(graph.inputs))
    place = {old: new for new, old in enumerate(used)}

    def renumbered(tensors: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[tensor] for tensor in tensors)

    return replace(
        graph,
        tensors=tuple(graph.tensors[tensor] for tensor in used),
        ops=tuple(
            replace(op, inputs=renumbered(op.inputs), outputs=renumbered(op.outputs)) for op in ops
        ),
        inputs=renumbered(graph.inputs),
        outputs=renumbered(graph.outputs),
    )
