"""ADD, SUB and MUL of two tensors, with broadcasting."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codegen import fixed_point, reference
from codegen.ir import Add, Graph, Mul, Op, Sub
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.kernels.strides import Axes, collapsed_together, row_major_strides
from codegen.limits import BoardLimits
from codegen.planner import Overlap
from codegen.requantization import Scaling, product_scaling

#: Bits below the output in a scaled sum; fewer than the least are never exact.
MAX_PLACES, MIN_PLACES = 23, 12
#: What is added to the two factors of a sum in turns until they are exact.
CHANGES = sorted(
    itertools.product((0, *(sign << bit for bit in range(4, 10) for sign in (1, -1))), repeat=2),
    key=lambda pair: abs(pair[0]) + abs(pair[1]),
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairContext(Context):
    """What all of them know: how the two operands are walked."""

    a: Axes
    b: Axes

    @property
    def is_dense(self) -> bool:
        """Whether elements that adjoin in the output do so in both operands."""
        return _are_dense(self.a, self.b)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SumContext(PairContext):
    """sum_s8: ADD and SUB; `sign` is + or -."""

    sign: str
    quant: fixed_point.AddQuant


@dataclass(frozen=True, slots=True)
class Linear:
    """An output as (start + (a * factor_a >> 8) + (b * factor_b >> 8)) >> places, clamped."""

    factor_a: int
    factor_b: int
    start: int
    places: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LinearContext(PairContext):
    """sum_linear_s8: ADD and SUB."""

    linear: Linear
    act_min: int
    act_max: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProductContext(PairContext):
    """product_s8: MUL."""

    quant: fixed_point.MulQuant


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProductWordsContext(PairContext):
    """product_words_s8: MUL."""

    a_zp: int
    b_zp: int
    scaling: Scaling


def broadcast_strides(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor of `shape` walked as one of `out_shape`: 0 along axes that it repeats."""
    full = (1,) * (len(out_shape) - len(shape)) + shape
    strides = row_major_strides(full)
    return tuple(0 if size == 1 else stride for size, stride in zip(full, strides, strict=True))


def _axes(graph: Graph, op: Op) -> tuple[Axes, Axes]:
    out_shape = graph.tensors[op.outputs[0]].shape
    strides_a, strides_b = (broadcast_strides(graph.tensors[i].shape, out_shape) for i in op.inputs)
    return collapsed_together(out_shape, strides_a, strides_b)


def _are_dense(a: Axes, b: Axes) -> bool:
    return (a.inner_stride, b.inner_stride) == (1, 1)


def _word_elements(a: Axes, b: Axes) -> int:
    """Elements of a run that are taken four at a time."""
    return a.inner_size // 4 * 4 if _are_dense(a, b) else 0


@lru_cache(maxsize=64)
def linear(quant: fixed_point.AddQuant, sign: int) -> Linear | None:
    """The linear form of a sum, if it is exact: tried on all 65,536 pairs of inputs.

    Each pair whose output is not at the upper end leaves the scaled sum below the next output's
    lowest, and each that is not at the lower end lifts it to its own output's lowest: together an
    interval for `start`. Where scales are round numbers, sums lie exactly between two outputs;
    changed factors move them to the side to which they are rounded.
    """
    values = np.arange(-128, 128, dtype=np.int64)
    a, b = values[:, None], values[None, :]
    outputs = reference.add_s8(a.astype(np.int8), b.astype(np.int8), quant, sign=sign)
    wanted = outputs.astype(np.int64)
    scale = math.ldexp(_real(quant.out), quant.left_shift + 8)
    exact_a, exact_b = scale * _real(quant.a), scale * _real(quant.b) * sign
    low, high = wanted > quant.act_min, wanted < quant.act_max
    for places in range(MAX_PLACES, MIN_PLACES - 1, -1):
        for change_a, change_b in CHANGES:
            factor_a = round(math.ldexp(exact_a, places)) + change_a
            factor_b = round(math.ldexp(exact_b, places)) + change_b
            scaled = (a * factor_a >> 8) + (b * factor_b >> 8)
            least = (wanted << places) - scaled
            first = int(least[low].max(initial=-(2**31)))
            last = int(least[high].min(initial=2**31)) + (1 << places) - 1
            start = (first + last) // 2
            magnitude = abs(start) + (abs(factor_a) + abs(factor_b)) // 2 + 2
            if max(magnitude, abs(factor_a), abs(factor_b)) >= 2**31:
                break
            if first <= last:
                return Linear(factor_a, factor_b, start, places)
        else:
            # Fewer places are less exact.
            return None
    return None


def _real(multiplier: fixed_point.Multiplier) -> float:
    return math.ldexp(multiplier.value, multiplier.shift - 31)


def _linear(graph: Graph, op: Op) -> Linear | None:
    assert isinstance(op, Add | Sub)
    return linear(fixed_point.add_quant(graph, op), 1 if isinstance(op, Add) else -1)


def _refuse_linear(graph: Graph, op: Op) -> str | None:
    return None if _linear(graph, op) else "no linear function gives the same outputs"


def _overlaps(graph: Graph, op: Op) -> tuple[Overlap, ...]:
    out = graph.tensors[op.outputs[0]]
    return tuple(
        Overlap(input=position, distance=0, is_exact=True)
        for position, index in enumerate(op.inputs)
        if graph.tensors[index].shape == out.shape and not graph.tensors[index].is_constant
    )


def _cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    elements = graph.tensors[op.outputs[0]].elements
    return Cost(cycles=20 * elements, flash_bytes=150, overlaps=_overlaps(graph, op))


def _linear_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    a, b = _axes(graph, op)
    whole = _word_elements(a, b)
    word_cycles = 4 if board.core == "cortex-m7" else 6
    cycles = a.outer_size * (word_cycles * whole + 12 * (a.inner_size - whole) + 60)
    return Cost(cycles=cycles, flash_bytes=300, overlaps=_overlaps(graph, op))


def _linear_context(graph: Graph, op: Op) -> LinearContext:
    assert isinstance(op, Add | Sub)
    a, b = _axes(graph, op)
    form = _linear(graph, op)
    assert form is not None, "refused"
    quant = fixed_point.add_quant(graph, op)
    return LinearContext(
        **common(graph, op, operands=(0, 1)),
        a=a,
        b=b,
        linear=form,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


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
        name="sum_linear_s8",
        op=(Add, Sub),
        template="sum_linear_s8.c.j2",
        refuse=_refuse_linear,
        cost=_linear_cost,
        context=_linear_context,
    )
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


def _refuse_product_words(graph: Graph, op: Op) -> str | None:
    assert isinstance(op, Mul)
    if product_scaling(fixed_point.mul_quant(graph, op)) is None:
        return "the scale of the product is 1 or more, or next to nothing"
    return None


def _product_words_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    a, b = _axes(graph, op)
    whole = _word_elements(a, b)
    cycles = a.outer_size * (9 * whole + 13 * (a.inner_size - whole) + 40)
    return Cost(cycles=cycles, flash_bytes=220, overlaps=_overlaps(graph, op))


def _product_words_context(graph: Graph, op: Op) -> ProductWordsContext:
    assert isinstance(op, Mul)
    a, b = _axes(graph, op)
    quant = fixed_point.mul_quant(graph, op)
    scales = product_scaling(quant)
    assert scales is not None, "refused"
    return ProductWordsContext(
        **common(graph, op, operands=(0, 1)),
        a=a,
        b=b,
        a_zp=quant.a_zp,
        b_zp=quant.b_zp,
        scaling=scales,
    )


register(
    Kernel(
        name="product_words_s8",
        op=(Mul,),
        template="product_words_s8.c.j2",
        refuse=_refuse_product_words,
        cost=_product_words_cost,
        context=_product_words_context,
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
