"""Average and maximum pooling, and means over any axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen import fixed_point
from codegen.ir import AveragePool2D, Graph, MaxPool2D, Mean, Op
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.kernels.conv2d import Window
from codegen.kernels.overlap import forward_overlap
from codegen.kernels.strides import Axes, collapsed, row_major_strides
from codegen.limits import BoardLimits


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PoolContext(Context):
    """pool_s8: windows over an image, each channel for itself."""

    window: Window
    is_average: bool
    act_min: int
    act_max: int


def _window(graph: Graph, op: Op) -> Window:
    assert isinstance(op, AveragePool2D | MaxPool2D)
    n, in_h, in_w, channels = graph.tensors[op.inputs[0]].shape
    _, out_h, out_w, _ = graph.tensors[op.outputs[0]].shape
    return Window(
        batch=n,
        in_h=in_h,
        in_w=in_w,
        in_c=channels,
        out_h=out_h,
        out_w=out_w,
        out_c=channels,
        kh=op.kh,
        kw=op.kw,
        stride_h=op.stride_h,
        stride_w=op.stride_w,
        dilation_h=1,
        dilation_w=1,
        pad_top=op.padding.top,
        pad_left=op.padding.left,
    )


def _pool_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    shape = _window(graph, op)
    pixel = np.arange(shape.batch * shape.pixels, dtype=np.int64)
    read = shape.lowest_read(pixel)
    overlap = forward_overlap(read, (pixel + 1) * shape.out_c, reads_first=False)
    outputs = shape.batch * shape.pixels * shape.out_c
    return Cost(
        cycles=outputs * (5 * shape.kh * shape.kw + 30),
        flash_bytes=250,
        overlaps=(overlap,),
    )


def _pool_context(graph: Graph, op: Op) -> PoolContext:
    assert isinstance(op, AveragePool2D | MaxPool2D)
    quant = fixed_point.pool_quant(graph, op)
    return PoolContext(
        **common(graph, op),
        window=_window(graph, op),
        is_average=isinstance(op, AveragePool2D),
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MeanContext(Context):
    """mean_s8: `kept` are the output's axes as they lie in the input, `reduced` are summed."""

    kept: Axes
    reduced: Axes
    quant: fixed_point.MeanQuant


def _mean_axes(graph: Graph, op: Mean) -> tuple[Axes, Axes]:
    shape = graph.tensors[op.inputs[0]].shape
    strides = row_major_strides(shape)
    axes = list(zip(shape, strides, strict=True))
    kept = [axis for i, axis in enumerate(axes) if i not in op.axes]
    return collapsed(kept), collapsed([axes[i] for i in op.axes])


def _mean_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    elements = graph.tensors[op.inputs[0]].elements
    return Cost(cycles=8 * elements + 40 * graph.tensors[op.outputs[0]].elements, flash_bytes=250)


def _mean_context(graph: Graph, op: Op) -> MeanContext:
    assert isinstance(op, Mean)
    kept, reduced = _mean_axes(graph, op)
    return MeanContext(
        **common(graph, op),
        kept=kept,
        reduced=reduced,
        quant=fixed_point.mean_quant(graph, op),
    )


register(
    Kernel(
        name="pool_s8",
        op=(AveragePool2D, MaxPool2D),
        template="pool_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_pool_cost,
        context=_pool_context,
    )
)
register(
    Kernel(
        name="mean_s8",
        op=(Mean,),
        template="mean_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_mean_cost,
        context=_mean_context,
    )
)
