"""ADD, SUB and MUL of two tensors, with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass

from codegen import fixed_point
from codegen.ir import Add, Graph, Mul, Op, Sub
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.kernels.strides import Axes, collapsed_together, row_major_strides
from codegen.limits import BoardLimits
from codegen.planner import Overlap


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SumContext(Context):
    """sum_s8: ADD and SUB; `sign` is + or -."""

    a: Axes
    b: Axes
    sign: str
    quant: fixed_point.AddQuant


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProductContext(Context):
    """product_s8: MUL."""

    a: Axes
    b: Axes
    quant: fixed_point.MulQuant


def broadcast_strides(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor of `shape` walked as one of `out_shape`: 0 along axes that it repeats."""
    full = (1,) * (len(out_shape) - len(shape)) + shape
    strides = row_major_strides(full)
    return tuple(0 if size == 1 else stride for size, stride in zip(full, strides, strict=True))


def _axes(graph: Graph, op: Op) -> tuple[Axes, Axes]:
    out_shape = graph.tensors[op.outputs[0]].shape
    strides_a, strides_b = (broadcast_strides(graph.tensors[i].shape, out_shape) for i in op.inputs)
    return collapsed_together(out_shape, strides_a, strides_b)


def _cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    out = graph.tensors[op.outputs[0]]
    overlaps = tuple(
        Overlap(input=position, distance=0, is_exact=True)
        for position, index in enumerate(op.inputs)
        if graph.tensors[index].shape == out.shape and not graph.tensors[index].is_constant
    )
    return Cost(cycles=20 * out.elements, flash_bytes=300, overlaps=overlaps)


def _sum_context(graph: Graph, op: Op) -> SumContext:
    assert isinstance(op, Add | Sub)
    a, b = _axes(graph, op)
    return SumContext(
        **common(graph, op, operands=(0, 1)),
        a=a,
        b=b,
        sign="+" if isinstance(op, Add) else "-",
        quant=fixed_point.add_quant(graph, op),
    )


def _product_context(graph: Graph, op: Op) -> ProductContext:
    assert isinstance(op, Mul)
    a, b = _axes(graph, op)
    return ProductContext(
        **common(graph, op, operands=(0, 1)), a=a, b=b, quant=fixed_point.mul_quant(graph, op)
    )


register(
    Kernel(
        name="sum_s8",
        op=(Add, Sub),
        template="sum_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_cost,
        context=_sum_context,
    )
)
register(
    Kernel(
        name="product_s8",
        op=(Mul,),
        template="product_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_cost,
        context=_product_context,
    )
)
