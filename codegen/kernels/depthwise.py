"""Depthwise convolutions by planes: images of some channels are gathered, padding around them.

Because a channel is gathered before its outputs are written, the output may take the input's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from codegen.ir import DepthwiseConv2D, Graph, Op, op_macs
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.conv2d import Window, window
from codegen.limits import BoardLimits
from codegen.planner import Overlap
from codegen.requantization import Product, Scaling, plain_table, product, scaling

#: Kernels are unrolled; beyond this a loop is better.
MAX_UNROLLED_WEIGHTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TapGroup:
    """Up to four adjoining taps of a kernel row, which are loaded as a word."""

    name: str
    plane_row: int
    first_tap: int
    taps: int
    weight_offset: int

    @property
    def multiply_even(self) -> str:
        """The C function for taps 0 and 2, or for tap 0 alone."""
        return "smlad" if self.taps > 2 else "smlabb"

    @property
    def multiply_odd(self) -> str:
        """The C function for taps 1 and 3, or for tap 1 alone."""
        return "smlad" if self.taps > 3 else "smlabb"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DepthwiseContext(Context):
    """depthwise_planes_s8 and depthwise_plain_s8.

    `planes` channels are gathered at once; that and `scaling` are for planes.
    """

    window: Window
    depth_multiplier: int
    scaling: Scaling | None
    planes: int
    in_zp: int
    out_zp: int
    act_min: int
    act_max: int

    @property
    def plane_w(self) -> int:
        """Columns of a plane."""
        return _plane_shape(self.window)[1]

    @property
    def plane_bytes(self) -> int:
        """Bytes of a plane."""
        return _plane_bytes(self.window)

    @property
    def image_start(self) -> int:
        """Offset of the first pixel in a plane."""
        return self.window.pad_top * self.plane_w + self.window.pad_left

    @property
    def channel_weights(self) -> int:
        """Bytes of weights of a channel, kernel rows filled up to whole words."""
        return self.window.kh * _row_weights(self.window)

    @property
    def tap_groups(self) -> tuple[TapGroup, ...]:
        """All taps, row by row, in groups of four."""
        shape = self.window
        return tuple(
            TapGroup(
                name=f"w{ky}_{first}",
                plane_row=ky * shape.dilation_h,
                first_tap=first,
                taps=min(4, shape.kw - first),
                weight_offset=ky * _row_weights(shape) + first,
            )
            for ky in range(shape.kh)
            for first in range(0, shape.kw, 4)
        )

    @property
    def is_two_at_once(self) -> bool:
        """Whether one word of a row holds the inputs of two outputs."""
        return self.window.kw == 3 and self.window.stride_w == 1


def _row_weights(shape: Window) -> int:
    """Bytes of a kernel row, filled up to whole words."""
    return -(-shape.kw // 4) * 4


def _plane_shape(shape: Window) -> tuple[int, int]:
    """(rows, columns) that hold the padded image and every window."""
    bottom = (shape.out_h - 1) * shape.stride_h + (shape.kh - 1) * shape.dilation_h + 1
    right = (shape.out_w - 1) * shape.stride_w + (shape.kw - 1) * shape.dilation_w + 1
    return max(shape.pad_top + shape.in_h, bottom), max(shape.pad_left + shape.in_w, right)


def _plane_bytes(shape: Window) -> int:
    """One plane; rows are read as words, up to three bytes past the last."""
    rows, columns = _plane_shape(shape)
    return (rows * columns + 3 + 3) // 4 * 4


def _layer(graph: Graph, op: DepthwiseConv2D) -> Product:
    """Weights as (out_c, kh * kw)."""
    data = graph.tensors[op.inputs[1]].data
    assert data is not None, "check has made sure that weights are constant"
    weights = data.astype(np.int8)[0].transpose(2, 0, 1)
    return product(graph, op, weights.reshape(weights.shape[0], -1))


def _refuse_planes(graph: Graph, op: Op, *, planes: int) -> str | None:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    if shape.dilation_w != 1:
        return "the taps of a kernel row must adjoin"
    if shape.batch != 1:
        return "needs a batch of 1"
    if shape.kh * _row_weights(shape) > MAX_UNROLLED_WEIGHTS:
        return f"a kernel of more than {MAX_UNROLLED_WEIGHTS} taps would make too much code"
    if shape.in_c % planes:
        return f"the number of input channels must be a multiple of {planes}"
    return None


def _planes_cost(graph: Graph, op: Op, board: BoardLimits, *, planes: int) -> Cost:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    gather_cycles = shape.in_h * shape.in_w * shape.in_c * (3 if planes == 4 else 5)
    row_cycles = shape.kh * (
        8 if shape.stride_w == 1 and shape.kw == 3 else 5 * -(-shape.kw // 4) + 2
    )
    output_cycles = (
        2
        + scaling(_layer(graph, op)).cycles
        + (row_cycles // 2 if shape.stride_w == 1 and shape.kw == 3 else row_cycles)
    )
    out_elements = shape.pixels * shape.out_c
    fits_in_place = op.depth_multiplier == 1 and shape.pixels <= shape.in_h * shape.in_w
    return Cost(
        cycles=gather_cycles + out_elements * output_cycles + shape.out_c * 60,
        flash_bytes=shape.out_c * (16 + shape.kh * _row_weights(shape)) + 500,
        scratch_bytes=planes * _plane_bytes(shape),
        overlaps=(Overlap(input=0, distance=0, is_exact=True),) if fits_in_place else (),
    )


def _planes_context(graph: Graph, op: Op, *, planes: int) -> DepthwiseContext:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    layer = _layer(graph, op)
    scales = scaling(layer)
    rows = scales.weights.reshape(-1, shape.kh, shape.kw)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, -shape.kw % 4)))
    arrays = (
        Array(
            f"{op.name}_weight",
            "int8_t",
            rows.reshape(-1),
            f"({shape.out_c}, {shape.kh}, {rows.shape[2]}): kernel rows filled up to whole words",
        ),
        Array(
            f"{op.name}_channel",
            scales.c_type,
            scales.rows,
            scales.comment,
        ),
    )
    return _context(graph, op, layer, arrays, scales, planes, planes * _plane_bytes(shape))


def _plain_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    return Cost(
        cycles=16 * op_macs(graph, op) + 60 * shape.batch * shape.pixels * shape.out_c,
        flash_bytes=shape.out_c * (shape.kh * shape.kw + 12) + 300,
    )


def _plain_context(graph: Graph, op: Op) -> DepthwiseContext:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    layer = _layer(graph, op)
    arrays = (
        Array(
            f"{op.name}_weight",
            "int8_t",
            layer.weights.reshape(-1),
            f"({shape.out_c}, {shape.kh}, {shape.kw})",
        ),
        Array(
            f"{op.name}_channel",
            "scale_t",
            plain_table(layer),
            "bias, multiplier, shift of each channel",
        ),
    )
    return _context(graph, op, layer, arrays, None, 0, 0)


def _context(
    graph: Graph,
    op: DepthwiseConv2D,
    layer: Product,
    arrays: tuple[Array, ...],
    scales: Scaling | None,
    planes: int,
    scratch_bytes: int,
) -> DepthwiseContext:
    quant = layer.quant
    return DepthwiseContext(
        **common(graph, op, arrays, scratch_bytes=scratch_bytes),
        window=window(graph, op),
        depth_multiplier=op.depth_multiplier,
        scaling=scales,
        planes=planes,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


for _planes, _tag in ((4, "planes4"), (1, "plane")):
    register(
        Kernel(
            name=f"depthwise_conv2d_s8_{_tag}",
            op=(DepthwiseConv2D,),
            template="depthwise_planes_s8.c.j2",
            refuse=partial(_refuse_planes, planes=_planes),
            cost=partial(_planes_cost, planes=_planes),
            context=partial(_planes_context, planes=_planes),
        )
    )
register(
    Kernel(
        name="depthwise_conv2d_plain_s8",
        op=(DepthwiseConv2D,),
        template="depthwise_plain_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_plain_cost,
        context=_plain_context,
    )
)
