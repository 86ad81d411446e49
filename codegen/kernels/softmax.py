"""SOFTMAX over the last axis."""

from __future__ import annotations

from dataclasses import dataclass

from codegen import fixed_point
from codegen.ir import Graph, Op, Softmax
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.overlap import IN_PLACE
from codegen.limits import BoardLimits


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SoftmaxContext(Context):
    """softmax_s8."""

    rows: int
    classes: int
    cutoff: int


def _cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    tensor = graph.tensors[op.inputs[0]]
    return Cost(cycles=60 * tensor.elements + 200, flash_bytes=1300, overlaps=(IN_PLACE,))


def _context(graph: Graph, op: Op) -> SoftmaxContext:
    assert isinstance(op, Softmax)
    quant = fixed_point.softmax_quant(graph, op)
    shape = graph.tensors[op.inputs[0]].shape
    table = Array(
        f"{op.name}_exp",
        "int32_t",
        quant.exp[: quant.cutoff],
        "exp(-difference * scale * beta), Q0.31",
    )
    classes = shape[-1] if shape else 1
    return SoftmaxContext(
        **common(graph, op, (table,)),
        rows=graph.tensors[op.inputs[0]].elements // classes,
        classes=classes,
        cutoff=quant.cutoff,
    )


register(
    Kernel(
        name="softmax_s8",
        op=(Softmax,),
        template="softmax_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_cost,
        context=_context,
    )
)
