"""Depthwise convolutions in strips: a few rows of some channels are gathered as int16 pairs.

All that belongs to one channel is computed with its weights in registers. In each group of channels
a strip is gathered before its outputs are written, so that the output may take the input's place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from codegen.ir import DepthwiseConv2D, Graph, Op, op_macs
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.conv2d import PLAIN_BYTES
from codegen.kernels.depthwise_tile import Tile, Word, tile, weight_words
from codegen.kernels.overlap import IN_PLACE
from codegen.kernels.window import Window, window
from codegen.limits import BoardLimits
from codegen.requantization import (
    Product,
    Scaling,
    ShiftedWeights,
    plain_table,
    product,
    scaling,
    shifted_weights,
)

#: Kernels are unrolled; beyond this a loop is better.
MAX_UNROLLED_TAPS = 128
#: Words of four channels are gathered at once; fewer channels one by one.
GROUP = 4
#: A weight shifted by this fits int16.
MOST_SHIFT = 8
#: What layers whose weights are shifted count their outputs in, tried in turn: one for most layers
#: so that they share their function, then those that only scales from 2^-4 on need.
PLACES = (12, 11, 10, 9, 8)


@dataclass(frozen=True, slots=True)
class Steps:
    """Bytes from one row or column to the next, in the input and in the output."""

    in_row: int
    in_column: int
    out_row: int
    out_column: int


@dataclass(frozen=True, slots=True)
class Strip:
    """What is gathered at once; depthwise_strips.h names the fields of depthwise_t.

    Args:
        out_rows: rows of outputs.
        rows: rows of input for them.
        group: channels.
        blocks: pairs of columns.
        first_block: see depthwise_t, as the next three.
        starts_odd: ...
        inner_blocks: ...
        ends_odd: ...
    """

    out_rows: int
    rows: int
    group: int
    blocks: int
    first_block: int
    starts_odd: bool
    inner_blocks: int
    ends_odd: bool

    @property
    def size_bytes(self) -> int:
        """Of all words."""
        return 4 * self.rows * self.group * self.blocks


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How sums become outputs; `places` is for shifted weights, else -1."""

    scaling: ShiftedWeights | Scaling
    places: int = -1

    def assembly(self, shape: Window) -> str:
        """The function of depthwise.h that computes these layers, if there is one."""
        if self.places != PLACES[0] or (shape.kh, shape.kw) != (3, 3):
            return ""
        strides = (shape.stride_h, shape.stride_w)
        return {(1, 1): "depthwise_3x3", (2, 2): "depthwise_3x3_stride2"}.get(strides, "")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StripsContext(Context):
    """depthwise_strips_s8 and depthwise_function_s8; `window` is transposed if rows are columns."""

    window: Window
    depth_multiplier: int
    in_zp: int
    steps: Steps
    strip: Strip
    form: Form
    shared_name: str
    c_type: str

    @property
    def is_shifted(self) -> bool:
        """Whether weights are shifted, so that sums need not be."""
        return isinstance(self.form.scaling, ShiftedWeights)

    @property
    def places(self) -> int:
        """See Form."""
        return self.form.places

    @property
    def channel_weights(self) -> int:
        """Bytes of a channel's weights."""
        return self.window.kh * self.window.kw + self.is_shifted

    @property
    def weight_shift(self) -> str:
        """C of how far the weights are shifted."""
        return "weight[SHIFT]" if self.is_shifted else "0"

    @property
    def sum_start(self) -> str:
        """C of what a sum starts with."""
        return "channel.bias" if self.is_shifted else "0"

    def output(self, name: str) -> str:
        """C of the output of a sum."""
        if isinstance(self.form.scaling, ShiftedWeights):
            return f"(int8_t)saturate_s8(smmul({name}, channel.multiplier) >> PLACES)"
        return self.form.scaling.clamp(self.form.scaling.call(name, "channel"))

    @property
    def block_bytes(self) -> int:
        """Bytes of the words of two columns of input."""
        return 4 * self.strip.group * self.strip.rows

    @property
    def kept_rows(self) -> int:
        """Rows of a strip that the next one needs, too; below 0: some rows are needed by none."""
        return self.window.kh - self.window.stride_h

    @property
    def words(self) -> tuple[Word, ...]:
        """The weights in registers."""
        return weight_words(self.window)

    @property
    def pair_tile(self) -> Tile:
        """Two rows and two columns of outputs."""
        return tile(self.window, 2)

    @property
    def single_tile(self) -> Tile:
        """Two columns of outputs."""
        return tile(self.window, 1)

    @property
    def assembly(self) -> str:
        """The function of depthwise.h that computes pair_tile, if there is one."""
        return self.form.assembly(self.window)

    @property
    def in_image_bytes(self) -> int:
        """Bytes of one image of the input."""
        return self.window.in_h * self.window.in_w * self.window.in_c

    @property
    def out_image_bytes(self) -> int:
        """Bytes of one image of the output."""
        return self.window.pixels * self.window.out_c

    @property
    def padding(self) -> str:
        """C of the input's zero point in each byte of a word."""
        return f"0x{self.in_zp % 256 * 0x01010101:08X}u"


def _layer(graph: Graph, op: DepthwiseConv2D) -> Product:
    """Weights as (out_c, kh * kw)."""
    data = graph.tensors[op.inputs[1]].data
    assert data is not None, "check has made sure that weights are constant"
    weights = data.astype(np.int8)[0].transpose(2, 0, 1)
    return product(graph, op, weights.reshape(weights.shape[0], -1))


def _form(layer: Product) -> Form:
    """The quickest form that is exact."""
    if (layer.quant.act_min, layer.quant.act_max) == (-128, 127):
        for places in PLACES:
            shifted = shifted_weights(layer, places, MOST_SHIFT)
            if shifted is not None:
                return Form(shifted, places)
    return Form(scaling(layer))


def _filled(shape: Window) -> Window:
    """The kernel with zeros where dilation leaves taps out."""
    return replace(
        shape,
        kh=(shape.kh - 1) * shape.dilation_h + 1,
        kw=(shape.kw - 1) * shape.dilation_w + 1,
        dilation_h=1,
        dilation_w=1,
    )


def _transposed(shape: Window) -> Window:
    """Rows and columns swapped."""
    return replace(
        shape,
        in_h=shape.in_w,
        in_w=shape.in_h,
        out_h=shape.out_w,
        out_w=shape.out_h,
        kh=shape.kw,
        kw=shape.kh,
        stride_h=shape.stride_w,
        stride_w=shape.stride_h,
        pad_top=shape.pad_left,
        pad_left=shape.pad_top,
    )


def _shape(graph: Graph, op: Op, by_columns: bool) -> Window:
    assert isinstance(op, DepthwiseConv2D)
    shape = _filled(window(graph, op))
    return _transposed(shape) if by_columns else shape


def strip(shape: Window, out_rows: int) -> Strip:
    """The strips of a layer; `shape` may be transposed."""
    rows = (out_rows - 1) * shape.stride_h + shape.kh
    out_columns = -(-shape.out_w // 2) * 2
    columns = (out_columns - 1) * shape.stride_w + shape.kw
    blocks = -(-columns // 2)
    gathered = max(0, min(shape.in_w, 2 * blocks - shape.pad_left))
    starts_odd = shape.pad_left % 2 == 1 and gathered > 0
    return Strip(
        out_rows=out_rows,
        rows=rows,
        group=GROUP if shape.in_c >= GROUP else 1,
        blocks=blocks,
        first_block=shape.pad_left // 2,
        starts_odd=starts_odd,
        inner_blocks=(gathered - starts_odd) // 2,
        ends_odd=(gathered - starts_odd) % 2 == 1,
    )


def _refuse_strips(graph: Graph, op: Op, *, out_rows: int, by_columns: bool) -> str | None:
    shape = _shape(graph, op, by_columns)
    if shape.kh * shape.kw > MAX_UNROLLED_TAPS:
        return f"a kernel of more than {MAX_UNROLLED_TAPS} taps would make too much code"
    if by_columns and _transposed(shape) == shape:
        return "columns and rows are alike"
    return None


def _overlap(shape: Window, op: DepthwiseConv2D, out_rows: int, by_columns: bool) -> bool:
    """Whether the output may take the input's place.

    An output lies in the place of the input pixel of its own index, of the same channel; that pixel
    must have been gathered by the strip that writes it, or be needed by none.
    """
    if op.depth_multiplier != 1 or shape.pixels > shape.in_h * shape.in_w:
        return False
    if shape.batch > 1 and shape.pixels != shape.in_h * shape.in_w:
        return False
    last_row = np.arange(shape.in_h) + shape.pad_top - (shape.kh - 1)
    gathered_by: NDArray[np.int64] = np.maximum(-(-last_row // shape.stride_h), 0) // out_rows
    # The first strip that needs a row gathers it, which may be earlier.
    gathered_by = np.minimum.accumulate(gathered_by[::-1])[::-1]
    in_strip = np.broadcast_to(gathered_by[:, None], (shape.in_h, shape.in_w))
    out_strip = np.broadcast_to(
        (np.arange(shape.out_h) // out_rows)[:, None], (shape.out_h, shape.out_w)
    )
    if by_columns:
        in_strip, out_strip = in_strip.T, out_strip.T
    return bool(np.all(in_strip.reshape(-1)[: shape.pixels] <= out_strip.reshape(-1)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Cycles of a core, measured on layers of one channel more or less (virtual boards).

    Args:
        gather_row: a row of the image, besides its pairs of pixels.
        gather_pair: two pixels of a group of channels.
        misaligned: more for these two if channels are no multiple of four.
        pad: a pair of columns of padding, or of rows that are kept for the next strip, each group.
        channel: a channel of a strip: weights, and where its outputs go.
        row: a row or a pair of rows of outputs, besides its tiles.
        tile: a tile of the 3x3 kernels in assembly, besides its loads and products.
        load: a word of inputs.
        product: two products, or one.
        output: of the other kernels: their stores and sums, besides the scaling.
    """

    gather_row: float
    gather_pair: float
    misaligned: float
    pad: float
    channel: float
    row: float
    tile: float
    load: float
    product: float
    output: float


_RATES = {
    "cortex-m4": Rates(50, 14.5, 2, 8, 190, 28, 24, 1.5, 1, 14),
    "cortex-m7": Rates(30, 9, 6, 6, 90, 14, 7, 0.3, 1, 9),
}
#: Of C instead of assembly: weights that wait on the stack.
_SPILLED_PRODUCT = 1.8


def _strips_cost(
    graph: Graph, op: Op, board: BoardLimits, *, out_rows: int, by_columns: bool
) -> Cost:
    assert isinstance(op, DepthwiseConv2D)
    shape = _shape(graph, op, by_columns)
    area = strip(shape, out_rows)
    layer = _layer(graph, op)
    form = _form(layer)
    in_place = _overlap(shape, op, out_rows, by_columns)
    channel_bytes = shape.kh * shape.kw + 8 + isinstance(form.scaling, ShiftedWeights)
    return Cost(
        cycles=round(shape.batch * _image_cycles(shape, area, form, _RATES[board.core])),
        flash_bytes=shape.out_c * channel_bytes + 80 + 1000,
        scratch_bytes=area.size_bytes,
        overlaps=(IN_PLACE,) if in_place else (),
    )


def _image_cycles(shape: Window, area: Strip, form: Form, rates: Rates) -> float:
    """An estimate for one image."""
    tops = range(0, shape.out_h, area.out_rows)
    strip_rows = [min(area.out_rows, shape.out_h - top) for top in tops]
    kept = max(shape.kh - shape.stride_h, 0) if len(tops) > 1 else 0
    gathered_rows = sum((rows - 1) * shape.stride_h + shape.kh for rows in strip_rows)
    gathered_rows = min(gathered_rows - kept * (len(tops) - 1), shape.in_h)
    pairs = area.starts_odd + area.inner_blocks + area.ends_odd
    pair = rates.gather_pair + (rates.misaligned if shape.in_c % 4 and area.group == GROUP else 0)
    group = gathered_rows * (rates.gather_row + pairs * pair) + 100 * len(tops)
    group += (len(tops) - 1) * kept * area.blocks * rates.pad
    tiles = -(-shape.out_w // 2)
    channel = sum(
        rates.channel
        + rows // 2 * (rates.row + tiles * _tile_cycles(shape, form, 2, rates))
        + rows % 2 * (rates.row + tiles * _tile_cycles(shape, form, 1, rates))
        for rows in strip_rows
    )
    return -(-shape.in_c // area.group) * group + shape.out_c * channel


def _tile_cycles(shape: Window, form: Form, rows: int, rates: Rates) -> float:
    """One tile of so many rows and two columns."""
    work = tile(shape, rows)
    products = sum(len(load.uses) for load in work.loads)
    if form.assembly(shape):
        loads = len(work.loads) * rates.load
        return rates.tile * (rows + 1) / 3 + loads + products * rates.product + 2 * rows
    spilled = products * rates.product * _SPILLED_PRODUCT + len(work.loads) * 2 * rates.load
    scaling_cycles = form.scaling.cycles if isinstance(form.scaling, Scaling) else 3
    return 12 + spilled + 2 * rows * (rates.output + scaling_cycles)


def _strips_context(graph: Graph, op: Op, *, out_rows: int, by_columns: bool) -> StripsContext:
    assert isinstance(op, DepthwiseConv2D)
    plain = window(graph, op)
    shape = _shape(graph, op, by_columns)
    layer = _layer(graph, op)
    form = _form(layer)
    area = strip(shape, out_rows)
    row, column = plain.in_w * plain.in_c, plain.in_c
    out_row, out_column = plain.out_w * plain.out_c, plain.out_c
    steps = Steps(row, column, out_row, out_column)
    if by_columns:
        steps = Steps(column, row, out_column, out_row)
    name = (
        f"dw_{shape.kh}x{shape.kw}_s{shape.stride_h}x{shape.stride_w}_rows{out_rows}"
        f"_by{area.group}_{_form_name(layer, form)}"
    )
    arrays = _arrays(op, plain, form, by_columns)
    return StripsContext(
        **common(graph, op, arrays, scratch_bytes=area.size_bytes),
        window=shape,
        depth_multiplier=op.depth_multiplier,
        in_zp=layer.quant.in_zp,
        steps=steps,
        strip=area,
        form=form,
        shared_name=name,
        c_type=arrays[1].c_type,
    )


def _form_name(layer: Product, form: Form) -> str:
    """What the names of functions for layers of this form end with."""
    if isinstance(form.scaling, ShiftedWeights):
        return f"places{form.places}"
    quant = layer.quant
    numbers = (quant.act_min, quant.act_max, form.scaling.constant or 0, form.scaling.places)
    return "_".join([form.scaling.name, *(f"{number}".replace("-", "m") for number in numbers)])


def _arrays(
    op: DepthwiseConv2D, plain: Window, form: Form, by_columns: bool
) -> tuple[Array, Array]:
    """The weights, with zeros where dilation leaves taps out, and how their sums are scaled."""
    shape = _filled(plain)
    filled = np.zeros((shape.out_c, shape.kh, shape.kw), np.int8)
    filled[:, :: plain.dilation_h, :: plain.dilation_w] = form.scaling.weights.reshape(
        -1, plain.kh, plain.kw
    )
    if by_columns:
        filled = filled.transpose(0, 2, 1)
    rows = filled.reshape(shape.out_c, -1)
    comment = f"{filled.shape}"
    if isinstance(form.scaling, ShiftedWeights):
        rows = np.concatenate([rows, form.scaling.shifts[:, None]], axis=1)
        comment += ", behind each channel how far it is shifted"
        table = ("folded_t", form.scaling.rows, "bias, multiplier of each channel")
    else:
        table = (form.scaling.c_type, form.scaling.rows, form.scaling.comment)
    return (
        Array(f"{op.name}_weight", "int8_t", rows.reshape(-1), comment),
        Array(f"{op.name}_channel", *table),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PlainContext(Context):
    """depthwise_plain_s8."""

    window: Window
    depth_multiplier: int
    in_zp: int
    out_zp: int
    act_min: int
    act_max: int


def _plain_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    return Cost(
        cycles=16 * op_macs(graph, op) + 60 * shape.batch * shape.pixels * shape.out_c,
        flash_bytes=shape.out_c * (shape.kh * shape.kw + 12) + PLAIN_BYTES,
    )


def _plain_context(graph: Graph, op: Op) -> PlainContext:
    assert isinstance(op, DepthwiseConv2D)
    shape = window(graph, op)
    layer = _layer(graph, op)
    quant = layer.quant
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
    return PlainContext(
        **common(graph, op, arrays),
        window=shape,
        depth_multiplier=op.depth_multiplier,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


for _out_rows in (2, 8):
    for _by_columns, _axis in ((False, "rows"), (True, "columns")):
        register(
            Kernel(
                name=f"depthwise_conv2d_s8_{_axis}{_out_rows}",
                op=(DepthwiseConv2D,),
                template="depthwise_strips_s8.c.j2",
                refuse=partial(_refuse_strips, out_rows=_out_rows, by_columns=_by_columns),
                cost=partial(_strips_cost, out_rows=_out_rows, by_columns=_by_columns),
                context=partial(_strips_context, out_rows=_out_rows, by_columns=_by_columns),
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
