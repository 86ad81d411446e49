"""Functions of one 8-bit value, as a table of 256 bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen import fixed_point
from codegen.ir import DType, Graph, HardSwish, LeakyRelu, Logistic, Op, Quantize, Relu, Tanh
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.overlap import IN_PLACE
from codegen.limits import BoardLimits


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TableContext(Context):
    """table_8bit."""

    elements: int


def _refuse(graph: Graph, op: Op) -> str | None:
    if graph.tensors[op.inputs[0]].dtype not in (DType.S8, DType.U8):
        return "the input is not of 8 bits"
    return None


def _cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    elements = graph.tensors[op.inputs[0]].elements
    cycles = (3 if board.core == "cortex-m7" else 7) * elements
    return Cost(cycles=cycles, flash_bytes=330, overlaps=(IN_PLACE,))


def _context(graph: Graph, op: Op) -> TableContext:
    lowest_first = fixed_point.lut(graph, op)
    # The C indexes with the value's byte: for s8 the negative values come second.
    is_signed = graph.tensors[op.inputs[0]].dtype is DType.S8
    by_byte = np.roll(lowest_first, -128) if is_signed else lowest_first
    table = Array(
        f"{op.name}_table", "uint8_t", by_byte.view(np.uint8), "result for each byte of the input"
    )
    return TableContext(
        **common(graph, op, (table,)), elements=graph.tensors[op.inputs[0]].elements
    )


register(
    Kernel(
        name="table_8bit",
        op=(Relu, LeakyRelu, HardSwish, Logistic, Tanh, Quantize),
        template="table_8bit.c.j2",
        refuse=_refuse,
        cost=_cost,
        context=_context,
    )
)
