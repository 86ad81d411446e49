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
    pack_words,
    pair_segment,
    refuse_pairs,
)
from codegen.kernels.window import Window, conv_weights, window
from codegen.limits import BoardLimits
from codegen.planner import Overlap
from codegen.requantization import Product, Scaling, folded, plain_table, product, scaling

#: Pixels whose sums are computed together.
TILE_PIXELS = 2
#: Steps of two elements in a pass of dot_4x2's loop (DOT_4X2_UNROLLED).
DOT_UNROLLED = 8
#: Columns of a block, at the most where they are not those of two pairs.
BLOCK_BYTES = 2048
MOST_BLOCK_PIXELS = 64
#: Of the padded rows that are there together, where a variant is for speed.
MOST_BAND_BYTES = 2048
#: Constants of tile_s8.h. The shift is that of the second channel of a pair; every convolution of
#: the MLPerf Tiny models with outputs on one side of the zero point is exact with these.
TILE_SHIFT = 8
TILE_PLACES = 12
#: Flash of a layer that tile_s8.h runs, and of its functions, though layers share most of them.
PRODUCT_BYTES = 1700
#: Flash of a layer that plain.h runs, beside its arrays; its functions are there once for all.
PLAIN_BYTES = 80
#: What dot_4x2 reads behind the columns and does not use.
DOT_READ_AHEAD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Core:
    """What the parts of a product cost on a core, in cycles; measured on the virtual boards.

    Args:
        step: two elements of four channels and two pixels.
        loop: a pass of dot_4x2's loop without its steps.
        outputs: the eight outputs of a tile, and going to the next pair of pixels.
        tile: going to the next tile.
        column: building columns, relative to the Cortex-M4.
    """

    step: float
    loop: float
    outputs: float
    tile: float
    column: float


CORES = {
    "cortex-m4": Core(step=15, loop=3.75, outputs=60, tile=36, column=1.0),
    "cortex-m7": Core(step=8, loop=2.5, outputs=38, tile=18, column=0.6),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """How a convolution is computed as a product of weights and columns.

    Args:
        layout: of the weights.
        in_blocks: whether the columns of many pixels are there together, so that each tile of
            weights is taken up once for all of them, instead of those of two.
    """

    layout: Layout
    in_blocks: bool = False

    @property
    def name(self) -> str:
        """The end of the kernel's name."""
        return f"{self.layout.name.lower()}{'_blocks' if self.in_blocks else ''}"

    def block(self, shape: Window) -> int:
        """Pixels whose columns are there together; even."""
        if not self.in_blocks:
            return TILE_PIXELS
        fitting = BLOCK_BYTES // (TILE_PIXELS * 2 * _depth(shape)) * TILE_PIXELS
        pixels = shape.pixels + shape.pixels % 2
        return min(max(fitting, 2 * TILE_PIXELS), MOST_BLOCK_PIXELS, pixels)


VARIANTS = (
    Variant(Layout.PAIRS),
    Variant(Layout.PAIRS, in_blocks=True),
    Variant(Layout.BYTES),
)


@dataclass(frozen=True, slots=True)
class Band:
    """Padded rows of the input in scratch, from which the windows of some rows of output are cut.

    Args:
        out_rows: rows of output.
        in_rows: rows of input that they need.
        lead: bytes before a row, so that its image lies as in the input, on words.
        left: bytes of padding before the image.
        copied: bytes of the image in a row.
        right: bytes of padding behind them.
        offset: bytes of scratch in front of the band.
    """

    out_rows: int
    in_rows: int
    lead: int
    left: int
    copied: int
    right: int
    offset: int

    @property
    def row_bytes(self) -> int:
        """From row to row."""
        used = self.lead + self.left + self.copied + self.right
        return used + -used % 4

    @property
    def size_bytes(self) -> int:
        """Of all rows."""
        return self.in_rows * self.row_bytes


def _band(shape: Window, offset: int, most_bytes: int) -> Band | None:
    """The band of as many rows of output as fit, at least one; None if no window needs padding."""
    if not shape.is_padded:
        return None
    reach = (
        (shape.out_w - 1) * shape.stride_w + (shape.kw - 1) * shape.dilation_w + 1
    ) * shape.in_c
    left = min(shape.pad_left * shape.in_c, reach)
    copied = max(min(shape.in_w * shape.in_c, reach - left), 0)

    def rows(out_rows: int) -> Band:
        in_rows = (out_rows - 1) * shape.stride_h + (shape.kh - 1) * shape.dilation_h + 1
        right = reach - left - copied
        return Band(out_rows, in_rows, -left % 4, left, copied, right, offset)

    # All pixels of a band can be paired, except in the last one.
    step = 1 + shape.out_w % 2
    out_rows = min(step, shape.out_h)
    while (
        out_rows < shape.out_h and rows(min(out_rows + step, shape.out_h)).size_bytes <= most_bytes
    ):
        out_rows = min(out_rows + step, shape.out_h)
    return rows(out_rows)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ConvContext(Context):
    """conv2d_pointwise_s8, conv2d_column_s8 and conv2d_plain_s8.

    `depth` is the length of a column. `variant` and `scaling` are for the first two.
    """

    window: Window
    depth: int
    variant: Variant | None
    scaling: Scaling | None
    band: Band | None
    in_zp: int
    out_zp: int
    act_min: int
    act_max: int

    @property
    def layout(self) -> Layout:
        """Of the weights."""
        assert self.variant is not None
        return self.variant.layout

    @property
    def block(self) -> int:
        """Pixels whose columns are there together."""
        assert self.variant is not None
        return self.variant.block(self.window)

    @property
    def rest(self) -> int:
        """See dot_4x2."""
        return (self.depth // 2 - 1) % DOT_UNROLLED

    @property
    def tiles_key(self) -> tuple[object, ...]:
        """All that the function depends on which conv2d_tiles_s8 makes."""
        return (self.layout, self.rest, self.window.out_c % 4, self.outputs("s", "t", "c"))

    @property
    def has_common_tiles(self) -> bool:
        """Whether the functions of tile_s8.h do all but the columns."""
        assert self.scaling is not None
        return self.layout is Layout.PAIRS and _is_common(self.scaling)

    def outputs(self, sum_a: str, sum_b: str, channel: str) -> tuple[str, str]:
        """C: the outputs of the two channels of a pair, from sums of dot_s8.h."""
        scaling = self.scaling
        assert scaling is not None
        if self.layout is Layout.PAIRS:
            b = scaling.call_high(f"dot_difference({sum_b}, {sum_a})", channel)
        else:
            b = scaling.call(sum_b, channel)
        return scaling.clamp(scaling.call(sum_a, channel)), scaling.clamp(b)

    @property
    def pairs_left(self) -> tuple[int, ...]:
        """How many channels each pair has after the last tile of four: (), (1,), (2,) or (2, 1)."""
        left = self.window.out_c % 4
        return (2,) * (left // 2) + (1,) * (left % 2)


def tile_scaling(layer: Product) -> Scaling:
    """How outputs leave their sums: as tile_s8.h does it, where that is exact."""
    common = folded(layer, TILE_SHIFT, TILE_PLACES)
    return common if common is not None and _is_common(common) else scaling(layer)


def _is_common(scales: Scaling) -> bool:
    """Whether tile_s8.h has the constants of these outputs."""
    constants = (scales.name, scales.constant, scales.places, scales.act_min, scales.act_max)
    return constants == ("folded", TILE_SHIFT, TILE_PLACES, -128, 127)


def _as_convolution(graph: Graph, op: Op) -> tuple[Window, Product]:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    weights = conv_weights(graph, op)
    return shape, product(graph, op, weights.reshape(weights.shape[0], -1))


def _refuse_multichannel_depthwise(op: Op, shape: Window) -> str | None:
    if isinstance(op, DepthwiseConv2D) and shape.in_c != 1:
        return "a depthwise op with more than one input channel is no convolution"
    return None


def _refuse_column(graph: Graph, op: Op, *, variant: Variant) -> str | None:
    shape, layer = _as_convolution(graph, op)
    reason = _refuse_multichannel_depthwise(op, shape)
    if reason is None and variant.in_blocks and shape.pixels <= TILE_PIXELS:
        reason = "has no more pixels than a pair"
    if reason is None and variant.layout is Layout.PAIRS:
        weights = tile_scaling(layer).weights
        reason = refuse_pairs(weights)
        if reason is None and pair_segment(weights) < weights.shape[1]:
            reason = "sums of the second channel of a pair may need more than 24 bits"
    return reason


def _refuse_pointwise(graph: Graph, op: Op, *, variant: Variant) -> str | None:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    if not window(graph, op).is_pointwise:
        return "needs a 1x1 kernel with stride 1 and no padding"
    return _refuse_column(graph, op, variant=variant)


def _depth(shape: Window) -> int:
    """Elements of a column: all taps, rounded up to whole words."""
    taps = shape.kh * shape.kw * shape.in_c
    return taps + taps % 2


def _columns_bytes(shape: Window, block: int) -> int:
    return block * _depth(shape) * 2 + DOT_READ_AHEAD_BYTES


def _scratch_bytes(shape: Window, variant: Variant) -> int:
    band = _variant_band(shape, variant)
    return _columns_bytes(shape, variant.block(shape)) + (band.size_bytes if band else 0)


def _variant_band(shape: Window, variant: Variant) -> Band | None:
    most_bytes = MOST_BAND_BYTES if variant.in_blocks else 0
    return _band(shape, _columns_bytes(shape, variant.block(shape)), most_bytes)


def _weight_words(shape: Window, scales: Scaling) -> int:
    """Words of the array that dot_4x2 runs through: weights, and the constants of each tile."""
    channels = shape.out_c + shape.out_c % 2
    words = channels * _depth(shape) // 4 + scales.rows.size
    return words + -words % 4


def _product_cycles(shape: Window, scales: Scaling, core: Core, variant: Variant) -> float:
    """Sums and outputs of all pixels, without building the columns."""
    steps = _depth(shape) // 2
    tiles, left = divmod(shape.out_c, 4)
    pairs = shape.batch * -(-shape.pixels // TILE_PIXELS)
    blocks = -(-shape.all_pixels // variant.block(shape))
    if variant.layout is Layout.PAIRS:
        tile = core.step * steps + core.loop * -(-steps // DOT_UNROLLED)
    else:
        tile = 1.5 * core.step * steps
    is_assembly = variant.layout is Layout.PAIRS and _is_common(scales)
    outputs = core.outputs if is_assembly else 8 * scales.cycles * core.outputs / 44
    pair_left = 0.7 * core.step * steps + 4 * scales.cycles * core.outputs / 44
    in_pairs = pairs * (tiles * (tile + outputs) + -(-left // 2) * pair_left)
    return in_pairs + blocks * (tiles * core.tile + 60)


def _tile_stream(
    weights: NDArray[np.int8], rows: NDArray[np.int32], layout: Layout
) -> NDArray[np.uint32]:
    """What conv2d_tiles_s8 reads: tiles of four channels, then pairs; behind each its constants."""
    out_c = weights.shape[0]
    words = pack_words(weights, layout)
    constants = np.ascontiguousarray(rows).view(np.uint32)
    parts: list[NDArray[np.uint32]] = []
    for first in range(0, out_c // 4 * 4, 4):
        parts += [words[first // 2 : first // 2 + 2].T.reshape(-1), constants[first : first + 4]]
    for first in range(out_c // 4 * 4, out_c, 2):
        parts += [words[first // 2], constants[first : first + 2]]
    stream = np.concatenate([part.reshape(-1) for part in parts])
    return np.pad(stream, (0, -stream.size % 4))


def _product_context(graph: Graph, op: Op, *, variant: Variant) -> ConvContext:
    shape, layer = _as_convolution(graph, op)
    scales = tile_scaling(layer)
    runs = (shape.run_taps * shape.in_c,) * (shape.kh * shape.kw // shape.run_taps)
    ordered = scales.weights[:, column_order(runs)]
    columns = np.pad(ordered, ((0, 0), (0, _depth(shape) - ordered.shape[1])))
    stream = _tile_stream(columns, scales.rows, variant.layout)
    array = Array(
        f"{op.name}_weight",
        "uint32_t",
        stream,
        f"{shape.out_c} channels in tiles of four, then in pairs ({variant.layout}, order of"
        f" dot_4x2), {_depth(shape)} deep; behind each tile its {scales.comment}",
    )
    return _context(
        graph,
        op,
        layer,
        (array,),
        variant=variant,
        scaling=scales,
        band=_variant_band(shape, variant),
        scratch_bytes=_scratch_bytes(shape, variant),
    )


def _context(
    graph: Graph,
    op: Op,
    layer: Product,
    arrays: tuple[Array, ...],
    *,
    variant: Variant | None = None,
    scaling: Scaling | None = None,
    band: Band | None = None,
    scratch_bytes: int = 0,
) -> ConvContext:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    shape = window(graph, op)
    quant = layer.quant
    return ConvContext(
        **common(graph, op, arrays, scratch_bytes=scratch_bytes),
        window=shape,
        depth=_depth(shape),
        variant=variant,
        scaling=scaling,
        band=band,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


def _steps(shape: Window, starts: NDArray[np.int64]) -> Overlap:
    """The overlap of kernels that read whole windows of some pixels and then write those pixels.

    Args:
        shape: of the layer.
        starts: first pixel of each step, of all images.
    """
    pixel = np.arange(shape.all_pixels, dtype=np.int64)
    lowest_read = np.minimum.reduceat(shape.lowest_read(pixel), starts)
    written_end = np.append(starts[1:], pixel.size) * shape.out_c
    return forward_overlap(lowest_read, written_end)


def _block_starts(shape: Window, variant: Variant, band: Band | None) -> NDArray[np.int64]:
    """The first pixel of each block of conv2d_column_s8: blocks end with a band or an image."""
    band_pixels = band.out_rows * shape.out_w if band else shape.pixels
    in_band = np.arange(shape.pixels) % band_pixels
    starts = np.flatnonzero(in_band % variant.block(shape) == 0)
    return (np.arange(shape.batch)[:, None] * shape.pixels + starts).reshape(-1)


def _pointwise_cost(graph: Graph, op: Op, board: BoardLimits, *, variant: Variant) -> Cost:
    shape, _ = _as_convolution(graph, op)
    starts = np.arange(0, shape.all_pixels, variant.block(shape))
    return _product_cost(graph, op, board, variant, starts, column_cycles=0)


def _column_cost(graph: Graph, op: Op, board: BoardLimits, *, variant: Variant) -> Cost:
    shape, _ = _as_convolution(graph, op)
    band = _variant_band(shape, variant)
    starts = _block_starts(shape, variant, band)
    pairs = shape.all_pixels / TILE_PIXELS
    runs = shape.kh * shape.kw // shape.run_taps
    rest = shape.run_taps * shape.in_c % 4
    cycles = pairs * (15 + runs * (4 + 5 * rest))
    if band:
        bands = shape.batch * -(-shape.out_h // band.out_rows)
        cycles += bands * band.in_rows * (30 + 0.8 * band.row_bytes)
    return _product_cost(graph, op, board, variant, starts, column_cycles=cycles)


def _product_cost(
    graph: Graph,
    op: Op,
    board: BoardLimits,
    variant: Variant,
    starts: NDArray[np.int64],
    *,
    column_cycles: float,
) -> Cost:
    shape, layer = _as_convolution(graph, op)
    scales = tile_scaling(layer)
    core = CORES[board.core]
    weight_bytes = 4 * _weight_words(shape, scales)
    copied = shape.all_pixels * (_depth(shape) + 8)
    return Cost(
        cycles=round(
            _product_cycles(shape, scales, core, variant)
            + core.column * (2 * copied + column_cycles)
            + board.flash_byte_cycles * weight_bytes
        ),
        flash_bytes=weight_bytes + PRODUCT_BYTES,
        scratch_bytes=_scratch_bytes(shape, variant),
        overlaps=(_steps(shape, starts),),
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
        flash_bytes=shape.out_c * (shape.kh * shape.kw * shape.in_c + 12) + PLAIN_BYTES,
    )


def _refuse_plain(graph: Graph, op: Op) -> str | None:
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    return _refuse_multichannel_depthwise(op, window(graph, op))


for _variant in VARIANTS:
    register(
        Kernel(
            name=f"conv2d_1x1_s8_{_variant.name}",
            op=(Conv2D, DepthwiseConv2D),
            template="conv2d_pointwise_s8.c.j2",
            refuse=partial(_refuse_pointwise, variant=_variant),
            cost=partial(_pointwise_cost, variant=_variant),
            context=partial(_product_context, variant=_variant),
        )
    )
    register(
        Kernel(
            name=f"conv2d_column_s8_{_variant.name}",
            op=(Conv2D, DepthwiseConv2D),
            template="conv2d_column_s8.c.j2",
            refuse=partial(_refuse_column, variant=_variant),
            cost=partial(_column_cost, variant=_variant),
            context=partial(_product_context, variant=_variant),
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
