"""Weights and requantisation constants in the form that firmware/kernels multiplies with.

The C side of each layout is described in firmware/kernels/{column,dot_s8,requantize}.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point, ir

Int8s = NDArray[np.int8]
Int64s = NDArray[np.int64]

#: requantize_channel needs |sum| below this: the sum is doubled.
SUM_LIMIT = 2**30
#: The second sum of a packed pair must fit 24 bits.
PAIR_SUM_LIMIT = 2**23
#: The output's zero point is added before the shift; beyond this it would not fit.
MAX_EXPONENT = 22
#: Largest magnitude of an int8 activation.
MAX_MAGNITUDE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A layer as rows of weights times columns of activations.

    Args:
        weights: (out_c, depth) int8.
        layer_bias: (out_c,), as in the model.
        quant: multipliers, output zero point and clamp.
    """

    weights: Int8s
    layer_bias: Int64s
    quant: fixed_point.ConvQuant

    @property
    def bias(self) -> Int64s:
        """(out_c,), bias - in_zp * sum(weights): what is left when activations are used as they are."""
        folded: Int64s = self.layer_bias - self.quant.in_zp * self.weights.astype(np.int64).sum(
            axis=1
        )
        return folded

    @property
    def sum_bounds(self) -> Int64s:
        """(out_c,): no sum of a channel, bias included, is larger in magnitude."""
        products = np.abs(self.weights.astype(np.int64)).sum(axis=1) * MAX_MAGNITUDE
        bounds: Int64s = products + np.abs(self.bias)
        return bounds


def product(
    graph: ir.Graph, op: ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected, weights: Int8s
) -> Product:
    """The layer `op` with its weights as rows; see Product."""
    quant = fixed_point.conv_quant(graph, op)
    bias = np.zeros(weights.shape[0], np.int64)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        data = graph.tensors[op.inputs[2]].data
        assert data is not None, "check has made sure that a bias is constant"
        bias = data.reshape(-1).astype(np.int64)
    return Product(weights, bias, quant)


def column_order(runs: tuple[int, ...]) -> NDArray[np.intp]:
    """Where column.h's column_copy puts what: entry i is the element that lands at position i.

    Args:
        runs: lengths of the runs that are copied one after another.
    """
    order: list[int] = []
    start = 0
    for run in runs:
        groups = run // 4 * 4
        for group in range(start, start + groups, 4):
            order += [group, group + 2, group + 1, group + 3]
        order += range(start + groups, start + run)
        start += run
    return np.array(order, np.intp)


def refuse_pairs(layer: Product) -> str | None:
    """Why these weights cannot be packed in pairs of channels, or None."""
    low, high = _channel_pairs(layer.weights)
    if np.any(high.astype(np.int64) - (low < 0) < -128):
        return "a weight of -128 stands beside a negative one in the pair of channels"
    if np.any(np.abs(high.astype(np.int64)).sum(axis=1) * MAX_MAGNITUDE >= PAIR_SUM_LIMIT):
        return "the sum of a channel may need more than 24 bits"
    return None


def _channel_pairs(weights: Int8s) -> tuple[Int8s, Int8s]:
    """Channels 0, 2, 4, ... and 1, 3, 5, ...; an odd number is filled up with zeros."""
    out_c = weights.shape[0]
    padded = np.pad(weights, ((0, out_c % 2), (0, 0)))
    return padded[0::2], padded[1::2]


def pack_pairs(weights: Int8s) -> NDArray[np.uint32]:
    """Words of dot_s8.h: (ceil(out_c / 2), depth / 2), two elements of two channels in each; depth is even."""
    low, high = _channel_pairs(weights)
    halves = ((high.astype(np.int32) << 8) + low.astype(np.int32)).astype(np.int16)
    return np.ascontiguousarray(halves).view("<u4").astype(np.uint32)


def pack_tiles(words: NDArray[np.uint32], tile_pairs: int, step: int) -> NDArray[np.uint32]:
    """Words in the order of use: tiles of `tile_pairs` pairs that take `step` words each in turns, then single pairs.

    Args:
        words: (pairs, words of a pair); the number of words is a multiple of `step`.
        tile_pairs: pairs of channels whose sums are computed together.
        step: words of one pair that are used one after another.
    """
    pairs, length = words.shape
    tiled = pairs // tile_pairs * tile_pairs
    tiles = words[:tiled].reshape(-1, tile_pairs, length // step, step).transpose(0, 2, 1, 3)
    return np.concatenate([tiles.reshape(-1), words[tiled:].reshape(-1)])


def refuse_channel_table(layer: Product) -> str | None:
    """Why requantize_channel cannot be used for this layer, or None."""
    if np.any(layer.sum_bounds >= SUM_LIMIT):
        return "a sum may need more than 31 bits"
    exponents = -layer.quant.shift[~_is_always_zero(layer)]
    if np.any(exponents < 1):
        return "a scale is 0.5 or more"
    if np.any(exponents > MAX_EXPONENT):
        return f"a scale is below 2^-{MAX_EXPONENT}"
    return None


def _is_always_zero(layer: Product) -> NDArray[np.bool_]:
    """(out_c,): whether a channel's scale is so small that every sum is rounded to 0."""
    bounds, quant = layer.sum_bounds, layer.quant
    largest = fixed_point.multiply_by_quantized_multiplier(bounds, quant.multiplier, quant.shift)
    smallest = fixed_point.multiply_by_quantized_multiplier(-bounds, quant.multiplier, quant.shift)
    return (quant.shift <= 0) & (largest == 0) & (smallest == 0)


def channel_table(layer: Product) -> NDArray[np.int32]:
    """(out_c, 4): bias, multiplier, round, exponent of each channel, the struct requantize_t."""
    is_zero = _is_always_zero(layer)
    multiplier = np.where(is_zero, 0, layer.quant.multiplier).astype(np.int64)
    exponent = np.where(is_zero, 1, -layer.quant.shift).astype(np.int64)
    rounding = (np.int64(1) << (exponent - 1)) + (np.int64(layer.quant.out_zp) << exponent)
    bias = np.where(is_zero, 0, layer.bias)
    return np.stack([bias, multiplier, rounding, exponent], axis=1).astype(np.int32)


def plain_table(layer: Product) -> NDArray[np.int32]:
    """(out_c, 3): bias as in the model, multiplier, shift of each channel, the struct scale_t."""
    quant = layer.quant
    return np.stack([layer.layer_bias, quant.multiplier, quant.shift], axis=1).astype(np.int32)
