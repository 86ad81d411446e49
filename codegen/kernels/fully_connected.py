"""Dense layers, and convolutions whose window is the whole image: weights are read once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen.ir import Conv2D, FullyConnected, Graph, Op, op_macs
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.conv2d import conv_weights, window
from codegen.kernels.packing import (
    Product,
    channel_table,
    column_order,
    pack_pairs,
    pack_tiles,
    plain_table,
    product,
    refuse_channel_table,
    refuse_pairs,
)

#: Outputs whose sums are computed together.
TILE = 8


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DenseContext(Context):
    """fully_connected_s8 and fully_connected_plain_s8. `rows` is the batch."""

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


def _refuse_pairs(graph: Graph, op: Op) -> str | None:
    reason = _refuse_small_window(graph, op)
    if reason is None:
        layer = _layer(graph, op)
        reason = refuse_pairs(layer) or refuse_channel_table(layer)
    return reason


def _pairs_cost(graph: Graph, op: Op) -> Cost:
    rows, in_features, out_features = _features(graph, op)
    words = -(-in_features // 4)
    tiles, left = divmod(out_features, TILE)
    pairs_left = -(-left // 2)
    channels = out_features + out_features % 2
    return Cost(
        cycles=rows * (tiles * (40 * words + 120) + pairs_left * (14 * words + 40)),
        flash_bytes=channels * words * 4 + 16 * out_features + 500,
    )


def _pairs_context(graph: Graph, op: Op) -> DenseContext:
    layer = _layer(graph, op)
    out_features, in_features = layer.weights.shape
    padded = np.pad(layer.live_weights, ((0, 0), (0, -in_features % 4)))
    words = pack_pairs(padded[:, column_order((padded.shape[1],))])
    arrays = (
        Array(
            f"{op.name}_weight",
            "uint32_t",
            pack_tiles(words, tiles=out_features // TILE, tile_pairs=TILE // 2, step=2),
            "outputs in pairs; tiles of four pairs, two words of each in turns (dot_8x1_step)",
        ),
        Array(
            f"{op.name}_channel",
            "requantize_t",
            channel_table(layer),
            "bias, multiplier, round, exponent of each output",
        ),
    )
    return _context(graph, op, layer, arrays)


def _plain_cost(graph: Graph, op: Op) -> Cost:
    _, in_features, out_features = _features(graph, op)
    return Cost(
        cycles=6 * op_macs(graph, op) + 40 * out_features,
        flash_bytes=out_features * (in_features + 12) + 150,
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
    return _context(graph, op, layer, arrays)


def _context(graph: Graph, op: Op, layer: Product, arrays: tuple[Array, ...]) -> DenseContext:
    rows, in_features, out_features = _features(graph, op)
    quant = layer.quant
    return DenseContext(
        **common(graph, op, arrays),
        rows=rows,
        in_features=in_features,
        out_features=out_features,
        in_zp=quant.in_zp,
        out_zp=quant.out_zp,
        act_min=quant.act_min,
        act_max=quant.act_max,
    )


register(
    Kernel(
        name="fully_connected_s8_pairs",
        op=(FullyConnected, Conv2D),
        template="fully_connected_s8.c.j2",
        refuse=_refuse_pairs,
        cost=_pairs_cost,
        context=_pairs_context,
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
