"""QUANTIZE from float or 16 bits, and DEQUANTIZE to float. From 8 to 8 bits: see table.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codegen import fixed_point
from codegen.ir import Dequantize, DType, Graph, Op, Quantize
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.limits import BoardLimits


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QuantizeContext(Context):
    """quantize_f32: `scale` is a C float constant."""

    elements: int
    scale: str
    zero_point: int
    out_type: str
    out_min: int
    out_max: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RequantizeContext(Context):
    """requantize_s16."""

    elements: int
    out_type: str
    quant: fixed_point.RequantizeQuant


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DequantizeContext(Context):
    """dequantize_f32: `scale` is a C float constant."""

    elements: int
    scale: str
    zero_point: int
    in_type: str


_C_TYPES = {DType.S8: "int8_t", DType.U8: "uint8_t"}


def c_float(value: float) -> str:
    """A C constant of exactly this float32: hexadecimal, such as 0x1.8p-4f."""
    return f"{value.hex()}f"


def _refuse_but(dtype: DType) -> Callable[[Graph, Op], str | None]:
    def refuse(graph: Graph, op: Op) -> str | None:
        found = graph.tensors[op.inputs[0]].dtype
        return None if found is dtype else f"the input is {found.value}, not {dtype.value}"

    return refuse


def _cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    return Cost(cycles=20 * graph.tensors[op.outputs[0]].elements, flash_bytes=150)


def _quantize_context(graph: Graph, op: Op) -> QuantizeContext:
    out = graph.tensors[op.outputs[0]]
    out_min, out_max = fixed_point.RANGES[out.dtype]
    return QuantizeContext(
        **common(graph, op),
        elements=out.elements,
        scale=c_float(out.scale),
        zero_point=out.zero_point,
        out_type=_C_TYPES[out.dtype],
        out_min=out_min,
        out_max=out_max,
    )


def _requantize_context(graph: Graph, op: Op) -> RequantizeContext:
    assert isinstance(op, Quantize)
    out = graph.tensors[op.outputs[0]]
    return RequantizeContext(
        **common(graph, op),
        elements=out.elements,
        out_type=_C_TYPES[out.dtype],
        quant=fixed_point.requantize_quant(graph, op),
    )


def _dequantize_context(graph: Graph, op: Op) -> DequantizeContext:
    x = graph.tensors[op.inputs[0]]
    return DequantizeContext(
        **common(graph, op),
        elements=x.elements,
        scale=c_float(x.scale),
        zero_point=x.zero_point,
        in_type=_C_TYPES[x.dtype],
    )


register(
    Kernel(
        name="quantize_f32",
        op=(Quantize,),
        template="quantize_f32.c.j2",
        refuse=_refuse_but(DType.F32),
        cost=_cost,
        context=_quantize_context,
    )
)
register(
    Kernel(
        name="quantize_s16",
        op=(Quantize,),
        template="requantize_s16.c.j2",
        refuse=_refuse_but(DType.S16),
        cost=_cost,
        context=_requantize_context,
    )
)
register(
    Kernel(
        name="dequantize_f32",
        op=(Dequantize,),
        template="dequantize_f32.c.j2",
        refuse=lambda graph, op: None,
        cost=_cost,
        context=_dequantize_context,
    )
)
