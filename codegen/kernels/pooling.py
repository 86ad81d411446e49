"""Average and maximum pooling, and means over any axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from codegen import fixed_point
from codegen.ir import AveragePool2D, Graph, MaxPool2D, Mean, Op
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.kernels.overlap import forward_overlap
from codegen.kernels.strides import Axes, collapsed, row_major_strides
from codegen.kernels.window import Window
from codegen.limits import BoardLimits
from codegen.requantization import Product, Scaling, averages, scaling

#: Elements whose sum fits 16 bits.
MAX_TAPS = 256
#: Elements of a window that reaches over the edge: there is a divisor for each count.
MAX_COUNTS = 64


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
        flash_bytes=180,
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
class PoolWordsContext(Context):
    """pool_words_s8: as pool_s8, and means over adjoining pixels, four channels at a time.

    `scaling` makes an average of a sum: one struct for all windows, or, where windows reach over
    the edge of the image, one for each number of elements from 1 on. None: the maximum.
    """

    window: Window
    scaling: Scaling | None
    act_min: int
    act_max: int

    @property
    def is_clamped(self) -> bool:
        """Whether an activation limits the maximum."""
        return (self.act_min, self.act_max) != (-128, 127)


def _averages(graph: Graph, op: AveragePool2D, shape: Window) -> Scaling | None:
    taps = shape.kh * shape.kw
    first = 1 if shape.is_padded else taps
    return averages(first, taps, fixed_point.pool_quant(graph, op))


def _refuse_pool_words(graph: Graph, op: Op) -> str | None:
    shape = _window(graph, op)
    reason = _refuse_few_channels(shape)
    if reason is None and isinstance(op, AveragePool2D):
        reason = _refuse_many_taps(shape)
        if reason is None and _averages(graph, op, shape) is None:
            reason = "the division by the number of elements is not proved to be exact"
    return reason


def _refuse_few_channels(shape: Window) -> str | None:
    return "needs four channels at least" if shape.in_c < 4 else None


def _refuse_many_taps(shape: Window) -> str | None:
    most = MAX_COUNTS if shape.is_padded else MAX_TAPS
    if shape.kh * shape.kw > most:
        return f"a window may have {most} elements"
    return None


def _pool_words_cost(shape: Window) -> Cost:
    pixel = np.arange(shape.all_pixels, dtype=np.int64)
    overlap = forward_overlap(
        shape.lowest_read(pixel), (pixel + 1) * shape.out_c, reads_first=False
    )
    words = -(-shape.out_c // 4)
    taps = shape.kh * shape.kw
    row_cycles = 8 if shape.kw > 1 else 0
    window_cycles = 5 * taps + row_cycles * shape.kh + 45
    return Cost(
        cycles=shape.all_pixels * (words * window_cycles + 30),
        flash_bytes=230 + (8 * taps if shape.is_padded else 0),
        overlaps=(overlap,),
    )


def _pool_words_context(graph: Graph, op: Op) -> PoolWordsContext:
    assert isinstance(op, AveragePool2D | MaxPool2D)
    shape = _window(graph, op)
    quant = fixed_point.pool_quant(graph, op)
    return PoolWordsContext(
        **common(graph, op),
        window=_with_adjoining_rows(shape),
        scaling=_averages(graph, op, shape) if isinstance(op, AveragePool2D) else None,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


def _with_adjoining_rows(shape: Window) -> Window:
    """A window that is the whole image as one row; any other as it is."""
    if shape.pixels != 1 or shape.is_padded or (shape.kh, shape.kw) != (shape.in_h, shape.in_w):
        return shape
    taps = shape.kh * shape.kw
    return replace(shape, in_h=1, in_w=taps, kh=1, kw=taps, stride_h=1, stride_w=1)


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
    return Cost(cycles=8 * elements + 40 * graph.tensors[op.outputs[0]].elements, flash_bytes=120)


def _mean_context(graph: Graph, op: Op) -> MeanContext:
    assert isinstance(op, Mean)
    kept, reduced = _mean_axes(graph, op)
    return MeanContext(
        **common(graph, op),
        kept=kept,
        reduced=reduced,
        quant=fixed_point.mean_quant(graph, op),
    )


def _mean_window(graph: Graph, op: Mean) -> Window | None:
    """The mean as a pooling of all pixels of images, or None if it is no such thing."""
    kept, reduced = _mean_axes(graph, op)
    (taps, channels), *more = reduced.axes
    inner, *images = reversed(kept.axes)
    if more or inner != (channels, 1) or (images and images != [(images[0][0], taps * channels)]):
        return None
    return Window(
        batch=images[0][0] if images else 1,
        in_h=1,
        in_w=taps,
        in_c=channels,
        out_h=1,
        out_w=1,
        out_c=channels,
        kh=1,
        kw=taps,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        pad_top=0,
        pad_left=0,
    )


def _mean_scaling(graph: Graph, op: Mean) -> Scaling:
    """A mean is a product with weights of 1, whose scale includes the division."""
    quant = fixed_point.mean_quant(graph, op)
    return scaling(
        Product(
            np.ones((1, quant.count), np.int8),
            np.zeros(1, np.int64),
            fixed_point.ConvQuant(
                in_zp=quant.in_zp,
                out_zp=quant.out_zp,
                multiplier=np.array([quant.out.value], np.int32),
                shift=np.array([quant.out.shift], np.int32),
                act_min=-128,
                act_max=127,
            ),
        )
    )


def _refuse_mean_words(graph: Graph, op: Op) -> str | None:
    assert isinstance(op, Mean)
    shape = _mean_window(graph, op)
    if shape is None:
        return "needs means over adjoining pixels"
    if not _mean_scaling(graph, op).weights.all():
        return "the output is constant"
    return _refuse_few_channels(shape) or _refuse_many_taps(shape)


def _mean_words_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    assert isinstance(op, Mean)
    shape = _mean_window(graph, op)
    assert shape is not None, "refused"
    return _pool_words_cost(shape)


def _mean_words_context(graph: Graph, op: Op) -> PoolWordsContext:
    assert isinstance(op, Mean)
    shape = _mean_window(graph, op)
    assert shape is not None, "refused"
    return PoolWordsContext(
        **common(graph, op),
        window=shape,
        scaling=_mean_scaling(graph, op),
        act_min=-128,
        act_max=127,
    )


register(
    Kernel(
        name="pool_words_s8",
        op=(AveragePool2D, MaxPool2D),
        template="pool_words_s8.c.j2",
        refuse=_refuse_pool_words,
        cost=lambda graph, op, board: _pool_words_cost(_window(graph, op)),
        context=_pool_words_context,
    )
)
register(
    Kernel(
        name="mean_words_s8",
        op=(Mean,),
        template="pool_words_s8.c.j2",
        refuse=_refuse_mean_words,
        cost=_mean_words_cost,
        context=_mean_words_context,
    )
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
