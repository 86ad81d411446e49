"""Dense layers, and convolutions whose window is the whole image: weights are read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from codegen.ir import Conv2D, FullyConnected, Graph, Op, op_macs
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.conv2d import PLAIN_BYTES
from codegen.kernels.packing import (
    Layout,
    column_order,
    pack_tiles,
    pack_words,
    pair_segment,
    refuse_pairs,
)
from codegen.kernels.window import conv_weights, window
from codegen.limits import BoardLimits
from codegen.requantization import Product, Scaling, plain_table, product, scaling

#: Outputs whose sums are computed together.
TILE = 8
#: Cycles for four activations times the weights of a tile, and of a pair; measured.
_STEP_CYCLES = {
    ("cortex-m4", Layout.PAIRS): (41.2, 13),
    ("cortex-m4", Layout.BYTES): (54, 15),
    ("cortex-m7", Layout.PAIRS): (18.5, 7),
    ("cortex-m7", Layout.BYTES): (26, 9),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DenseContext(Context):
    """fully_connected_s8 and fully_connected_plain_s8.

    `rows` is the batch; `layout` and `scaling` are for the former.
    """

    layout: Layout | None
    scaling: Scaling | None
    rows: int
    in_features: int
    out_features: int
    in_zp: int
    out_zp: int
    act_min: int
    act_max: int

    @property
    def tiled_features(self) -> int:
        """Outputs in tiles of eight."""
        return self.out_features // TILE * TILE

    @property
    def features_left(self) -> int:
        """Outputs after the last tile: 0 to 7."""
        return self.out_features % TILE

    @property
    def whole_words(self) -> int:
        """Words of four activations; what is left is `tail`."""
        return self.in_features // 4

    @property
    def tail(self) -> int:
        """Activations after the last whole word: 0 to 3."""
        return self.in_features % 4

    def output_a(self, sum_a: str, channel: str) -> str:
        """C: the first output of a pair."""
        assert self.scaling is not None
        return self.scaling.clamp(self.scaling.call(sum_a, channel))

    def output_b(self, sum_b: str, sum_a: str, channel: str) -> str:
        """C: the second output of a pair, from sums as dot_8x1 leaves them."""
        assert self.scaling is not None
        if self.layout is Layout.PAIRS:
            called = self.scaling.call_high(f"dot_difference({sum_b}, {sum_a})", channel)
        else:
            called = self.scaling.call(sum_b, channel)
        return self.scaling.clamp(called)


def _features(graph: Graph, op: Op) -> tuple[int, int, int]:
    """(rows, in_features, out_features)."""
    out_features = graph.tensors[op.inputs[1]].shape[0]
    in_features = graph.tensors[op.inputs[1]].elements // out_features
    return graph.tensors[op.outputs[0]].elements // out_features, in_features, out_features


def _layer(graph: Graph, op: Op) -> Product:
    assert isinstance(op, Conv2D | FullyConnected)
    weights = conv_weights(graph, op)
    return product(graph, op, weights.reshape(weights.shape[0], -1))


def _refuse_small_window(graph: Graph, op: Op) -> str | None:
    """A convolution is a dense layer if it has one output pixel that sees every input once."""
    if isinstance(op, FullyConnected):
        return None
    assert isinstance(op, Conv2D)
    shape = window(graph, op)
    if shape.pixels != 1 or shape.is_padded or (shape.kh, shape.kw) != (shape.in_h, shape.in_w):
        return "the window of the convolution is not the whole image"
    return None


def _refuse_words(graph: Graph, op: Op, *, layout: Layout) -> str | None:
    reason = _refuse_small_window(graph, op)
    if reason is None and layout is Layout.PAIRS:
        weights = scaling(_layer(graph, op)).weights
        reason = refuse_pairs(weights)
        if reason is None and pair_segment(weights) < weights.shape[1]:
            reason = "the sum of a channel may need more than 24 bits"
    return reason


def _words_cost(graph: Graph, op: Op, board: BoardLimits, *, layout: Layout) -> Cost:
    rows, in_features, out_features = _features(graph, op)
    words = -(-in_features // 4)
    tiles, left = divmod(out_features, TILE)
    pairs_left = -(-left // 2)
    step, pair_step = _STEP_CYCLES[board.core, layout]
    sum_cycles = tiles * (step * words + 40) + pairs_left * (pair_step * words + 20)
    weight_bytes = 8 * (TILE // 2 * tiles + pairs_left) * words
    table_bytes = 8 * out_features
    flash_cycles = board.flash_byte_cycles * (weight_bytes + table_bytes)
    output_cycles = out_features * (scaling(_layer(graph, op)).cycles + 4)
    return Cost(
        cycles=rows * round(sum_cycles + flash_cycles + output_cycles),
        flash_bytes=weight_bytes + table_bytes + 700,
    )


def _words_context(graph: Graph, op: Op, *, layout: Layout) -> DenseContext:
    layer = _layer(graph, op)
    scales = scaling(layer)
    out_features, in_features = layer.weights.shape
    padded = np.pad(scales.weights, ((0, 0), (0, -in_features % 4)))
    words = pack_words(padded[:, column_order((padded.shape[1],))], layout)
    arrays = (
        Array(
            f"{op.name}_weight",
            "uint32_t",
            pack_tiles(words, tiles=out_features // TILE, tile_pairs=TILE // 2, step=1),
            f"outputs in pairs ({layout}); tiles of four pairs that take turns (dense.h)",
        ),
        Array(f"{op.name}_channel", scales.c_type, scales.rows, scales.comment),
    )
    return _context(graph, op, layer, arrays, layout, scales)


def _plain_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    _, in_features, out_features = _features(graph, op)
    return Cost(
        cycles=6 * op_macs(graph, op) + 40 * out_features,
        flash_bytes=out_features * (in_features + 12) + PLAIN_BYTES,
    )


def _plain_context(graph: Graph, op: Op) -> DenseContext:
    layer = _layer(graph, op)
    out_features, in_features = layer.weights.shape
    arrays = (
        Array(
            f"{op.name}_weight",
            "int8_t",
            layer.weights.reshape(-1),
            f"({out_features}, {in_features}), one row per output",
        ),
        Array(
            f"{op.name}_channel",
            "scale_t",
            plain_table(layer),
            "bias, multiplier, shift of each output",
        ),
    )
    return _context(graph, op, layer, arrays, None, None)


def _context(
    graph: Graph,
    op: Op,
    layer: Product,
    arrays: tuple[Array, ...],
    layout: Layout | None,
    scales: Scaling | None,
) -> DenseContext:
    rows, in_features, out_features = _features(graph, op)
    quant = layer.quant
    return DenseContext(
        **common(graph, op, arrays),
        layout=layout,
        scaling=scales,
        rows=rows,
        in_features=in_features,
        out_features=out_features,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


for _layout in Layout:
    register(
        Kernel(
            name=f"fully_connected_s8_{_layout.name.lower()}",
            op=(FullyConnected, Conv2D),
            template="fully_connected_s8.c.j2",
            refuse=partial(_refuse_words, layout=_layout),
            cost=partial(_words_cost, layout=_layout),
            context=partial(_words_context, layout=_layout),
        )
    )
register(
    Kernel(
        name="fully_connected_plain_s8",
        op=(FullyConnected, Conv2D),
        template="fully_connected_plain_s8.c.j2",
        refuse=_refuse_small_window,
        cost=_plain_cost,
        context=_plain_context,
    )
)
