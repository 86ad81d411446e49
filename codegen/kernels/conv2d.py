"""Convolutions, and depthwise ones of a single input channel, as products of weights and columns.

Variants: the 1x1 product over adjoining pixels, the column of any window, and plain loops that run
every shape and scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from codegen.ir import Conv2D, DepthwiseConv2D, Graph, Op, op_macs
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.overlap import forward_overlap
from codegen.kernels.packing import (
    Layout,
    column_order,
    pack_tiles,
    pack_words,
    pair_segment,
    refuse_pairs,
)
from codegen.limits import BoardLimits
from codegen.planner import Overlap
from codegen.requantization import Product, Scaling, plain_table, product, scaling

#: Pixels whose sums are computed together.
TILE_PIXELS = 2


@dataclass(frozen=True, slots=True)
class Window:
    """The shape of a convolution or pooling op."""

    batch: int
    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.out_h * self.out_w

    @property
    def all_pixels(self) -> int:
        """Output pixels of all images."""
        return self.batch * self.pixels

    @property
    def is_pointwise(self) -> bool:
        """Whether output pixel i depends on input pixel i alone."""
        is_same = (self.in_h, self.in_w) == (self.out_h, self.out_w)
        return (self.kh, self.kw, self.stride_h, self.stride_w) == (1, 1, 1, 1) and is_same

    def lowest_read(self, pixel: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offset of the first input byte in each output pixel's window; pixels of all images."""
        image, in_image = pixel // self.pixels, pixel % self.pixels
        top = np.maximum(in_image // self.out_w * self.stride_h - self.pad_top, 0)
        left = np.maximum(in_image % self.out_w * self.stride_w - self.pad_left, 0)
        return ((image * self.in_h + top) * self.in_w + left) * self.in_c

    @property
    def run_taps(self) -> int:
        """Taps of a kernel row whose inputs adjoin each other."""
        return self.kw if self.dilation_w == 1 else 1

    @property
    def is_padded(self) -> bool:
        """Whether any window reaches over the edge of the image."""
        bottom = (self.out_h - 1) * self.stride_h + (self.kh - 1) * self.dilation_h - self.pad_top
        right = (self.out_w - 1) * self.stride_w + (self.kw - 1) * self.dilation_w - self.pad_left
        reaches_over = bottom >= self.in_h or right >= self.in_w
        return reaches_over or self.pad_top > 0 or self.pad_left > 0


def window(graph: Graph, op: Conv2D | DepthwiseConv2D) -> Window:
    """The shape of `op`."""
    n, in_h, in_w, in_c = graph.tensors[op.inputs[0]].shape
    _, out_h, out_w, out_c = graph.tensors[op.outputs[0]].shape
    _, kh, kw, _ = graph.tensors[op.inputs[1]].shape
    return Window(
        batch=n,
        in_h=in_h,
        in_w=in_w,
        in_c=in_c,
        out_h=out_h,
        out_w=out_w,
        out_c=out_c,
        kh=kh,
        kw=kw,
        stride_h=op.stride_h,
        stride_w=op.stride_w,
        dilation_h=op.dilation_h,
        dilation_w=op.dilation_w,
        pad_top=op.padding.top,
        pad_left=op.padding.left,
    )


def conv_weights(graph: Graph, op: Op) -> NDArray[np.int8]:
    """Weights as (out_c, kh, kw, in_c) int8; those of a depthwise op with one input channel too."""
    data = graph.tensors[op.inputs[1]].data
    assert data is not None, "check has made sure that weights are constant"
    weights = data.astype(np.int8)
    return weights.transpose(3, 1, 2, 0) if isinstance(op, DepthwiseConv2D) else weights


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ConvContext(Context):
    """conv2d_pointwise_s8, conv2d_column_s8 and conv2d_plain_s8.

    `depth` is the length of a column. The next three are for the first two: `segment` is how many
    elements are summed up before sums are carried over.
    """

    window: Window
    depth: int
    layout: Layout | None
    segment: int
    scaling: Scaling | None
    in_zp: int
    out_zp: int
    act_min: int
    act_max: int

    @property
    def copy_padded(self) -> str:
        """The function of column.h for a run that reaches over the edge of the image."""
        return "column_copy_padded" if self.window.in_c % 4 else "column_copy_padded_groups"

    @property
    def segments(self) -> str:
        """What the names of the functions end with that carry sums over, where they are needed."""
        return "_segments" if self.segment < self.depth else ""

    @property
    def dot_how(self) -> str:
        """The last argument of the functions that sum up."""
        return "SEGMENT" if self.segments else f"{self.layout}"

    @property
    def tiled_channels(self) -> int:
        """Channels in tiles of four."""
        return self.window.out_c // 4 * 4

    @property
    def channels_left(self) -> int:
        """Channels after the last tile of four: 0 to 3."""
        return self.window.out_c % 4

    @property
    def pairs_left(self) -> tuple[tuple[int, ...], ...]:
        """The channels left over, counted from the last tile's end: (0, 1), (2,) or a part."""
        left = range(self.channels_left)
        return tuple(tuple(left[i : i + 2]) for i in range(0, self.channels_left, 2))


def _as_convolution(graph: Graph, op: Op) -> tuple[Window, Product]:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    weights = conv_weights(graph, op)
    return shape, product(graph, op, weights.reshape(weights.shape[0], -1))


def _refuse_multichannel_depthwise(op: Op, shape: Window) -> str | None:
    if isinstance(op, DepthwiseConv2D) and shape.in_c != 1:
        return "a depthwise op with more than one input channel is no convolution"
    return None


def _refuse_column(graph: Graph, op: Op, *, layout: Layout) -> str | None:
    shape, layer = _as_convolution(graph, op)
    reason = _refuse_multichannel_depthwise(op, shape)
    if reason is None and layout is Layout.PAIRS:
        reason = refuse_pairs(scaling(layer).weights)
    return reason


def _refuse_pointwise(graph: Graph, op: Op, *, layout: Layout) -> str | None:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    if not window(graph, op).is_pointwise:
        return "needs a 1x1 kernel with stride 1 and no padding"
    return _refuse_column(graph, op, layout=layout)


def _depth(shape: Window) -> int:
    """Elements of a column: all taps, rounded up to whole words."""
    taps = shape.kh * shape.kw * shape.in_c
    return taps + taps % 2


def _scratch_bytes(shape: Window) -> int:
    return TILE_PIXELS * _depth(shape) * 2


def _product_cycles(graph: Graph, op: Op, layout: Layout) -> int:
    """Sums and requantisation of all outputs, without building the columns."""
    shape, layer = _as_convolution(graph, op)
    tiles, left = divmod(shape.out_c, 4)
    pixel_pairs = shape.batch * -(-shape.pixels // TILE_PIXELS)
    # BYTES expands each word twice.
    tile_cycles, left_cycles = (9, 7) if layout is Layout.PAIRS else (11, 8)
    sum_cycles = tiles * (tile_cycles * _depth(shape) + 14)
    sum_cycles += -(-left // 2) * (left_cycles * _depth(shape) + 12)
    return pixel_pairs * (sum_cycles + TILE_PIXELS * shape.out_c * scaling(layer).cycles)


def _product_flash_bytes(shape: Window) -> int:
    channels = shape.out_c + shape.out_c % 2
    return channels * _depth(shape) + 16 * shape.out_c


def _product_context(graph: Graph, op: Op, *, layout: Layout) -> ConvContext:
    shape, layer = _as_convolution(graph, op)
    scales = scaling(layer)
    runs = (shape.run_taps * shape.in_c,) * (shape.kh * shape.kw // shape.run_taps)
    ordered = scales.weights[:, column_order(runs)]
    depth = _depth(shape)
    columns = np.pad(ordered, ((0, 0), (0, depth - ordered.shape[1])))
    weight_words = pack_tiles(
        pack_words(columns, layout), tiles=shape.out_c // 4, tile_pairs=2, step=1
    )
    arrays = (
        Array(
            f"{op.name}_weight",
            "uint32_t",
            weight_words,
            f"{shape.out_c} channels in pairs ({layout}), {depth} deep; tiles of two pairs;"
            " order of dot_4x2",
        ),
        Array(f"{op.name}_channel", scales.c_type, scales.rows, scales.comment),
    )
    return _context(
        graph,
        op,
        layer,
        arrays,
        layout=layout,
        segment=pair_segment(columns) if layout is Layout.PAIRS else depth,
        scaling=scales,
        scratch_bytes=_scratch_bytes(shape),
    )


def _context(
    graph: Graph,
    op: Op,
    layer: Product,
    arrays: tuple[Array, ...],
    *,
    layout: Layout | None = None,
    segment: int = 0,
    scaling: Scaling | None = None,
    scratch_bytes: int = 0,
) -> ConvContext:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    quant = layer.quant
    return ConvContext(
        **common(graph, op, arrays, scratch_bytes=scratch_bytes),
        window=shape,
        depth=_depth(shape),
        layout=layout,
        segment=segment,
        scaling=scaling,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


def _steps(shape: Window, pixels_per_step: int) -> Overlap:
    """The overlap of kernels that read whole windows of some pixels and then write those pixels."""
    pixel = np.arange(shape.batch * shape.pixels, dtype=np.int64)
    starts = pixel[::pixels_per_step]
    lowest_read = np.minimum.reduceat(shape.lowest_read(pixel), starts)
    written_end = np.minimum(starts + pixels_per_step, pixel.size) * shape.out_c
    return forward_overlap(lowest_read, written_end)


def _pointwise_cost(graph: Graph, op: Op, board: BoardLimits, *, layout: Layout) -> Cost:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    pixels = shape.batch * shape.pixels
    return Cost(
        cycles=_product_cycles(graph, op, layout) + pixels * (2 * shape.in_c + 8),
        flash_bytes=_product_flash_bytes(shape) + 700,
        scratch_bytes=_scratch_bytes(shape),
        overlaps=(_steps(shape, TILE_PIXELS),),
    )


def _column_cost(graph: Graph, op: Op, board: BoardLimits, *, layout: Layout) -> Cost:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    pixels = shape.batch * shape.pixels
    return Cost(
        cycles=_product_cycles(graph, op, layout)
        + pixels * (3 * _depth(shape) + 12 * shape.kh + 20),
        flash_bytes=_product_flash_bytes(shape) + 1000,
        scratch_bytes=_scratch_bytes(shape),
        overlaps=(_steps(shape, TILE_PIXELS),),
    )


def _plain_context(graph: Graph, op: Op) -> ConvContext:
    shape, layer = _as_convolution(graph, op)
    arrays = (
        Array(
            f"{op.name}_weight",
            "int8_t",
            layer.weights.reshape(-1),
            f"({shape.out_c}, {shape.kh}, {shape.kw}, {shape.in_c}), OHWI",
        ),
        Array(
            f"{op.name}_channel",
            "scale_t",
            plain_table(layer),
            "bias, multiplier, shift of each channel",
        ),
    )
    return _context(graph, op, layer, arrays)


def _plain_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    return Cost(
        cycles=10 * op_macs(graph, op) + 60 * shape.batch * shape.pixels * shape.out_c,
        flash_bytes=shape.out_c * (shape.kh * shape.kw * shape.in_c + 12) + 300,
    )


def _refuse_plain(graph: Graph, op: Op) -> str | None:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    return _refuse_multichannel_depthwise(op, window(graph, op))


for _layout in Layout:
    register(
        Kernel(
            name=f"conv2d_1x1_s8_{_layout.name.lower()}",
            op=(Conv2D, DepthwiseConv2D),
            template="conv2d_pointwise_s8.c.j2",
            refuse=partial(_refuse_pointwise, layout=_layout),
            cost=partial(_pointwise_cost, layout=_layout),
            context=partial(_product_context, layout=_layout),
        )
    )
    register(
        Kernel(
            name=f"conv2d_column_s8_{_layout.name.lower()}",
            op=(Conv2D, DepthwiseConv2D),
            template="conv2d_column_s8.c.j2",
            refuse=partial(_refuse_column, layout=_layout),
            cost=partial(_column_cost, layout=_layout),
            context=partial(_product_context, layout=_layout),
        )
    )
register(
    Kernel(
        name="conv2d_plain_s8",
        op=(Conv2D, DepthwiseConv2D),
        template="conv2d_plain_s8.c.j2",
        refuse=_refuse_plain,
        cost=_plain_cost,
        context=_plain_context,
    )
)
