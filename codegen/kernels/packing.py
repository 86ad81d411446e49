"""Weights and requantisation constants in the form that firmware/kernels multiplies with.

The C side of each layout is described in firmware/kernels/{column,dot_s8,requantize}.h.
"""

from __future__ import annotations

import enum
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
        """(out_c,), bias - in_zp * sum(weights), for activations that are used as they are."""
        sums = self.weights.sum(axis=1, dtype=np.int64)
        folded: Int64s = self.layer_bias - self.quant.in_zp * sums
        return folded

    @property
    def sum_range(self) -> tuple[Int64s, Int64s]:
        """(out_c,) lowest and highest sum of each channel, bias included, over all activations."""
        positive = np.maximum(self.weights, 0).sum(axis=1, dtype=np.int64)
        negative = np.minimum(self.weights, 0).sum(axis=1, dtype=np.int64)
        lowest: Int64s = self.bias - 128 * positive + 127 * negative
        highest: Int64s = self.bias + 127 * positive - 128 * negative
        return lowest, highest

    def outputs(self, sums: Int64s) -> Int64s:
        """(out_c,) the output of each channel for one sum of it."""
        quant = self.quant
        scaled = fixed_point.multiply_by_quantized_multiplier(
            fixed_point.wrap_int32(sums), quant.multiplier, quant.shift
        )
        clamped: Int64s = np.clip(scaled + quant.out_zp, quant.act_min, quant.act_max)
        return clamped

    @property
    def is_constant(self) -> NDArray[np.bool_]:
        """(out_c,) whether a channel gives one value for all inputs: no weights, a tiny scale."""
        lowest, highest = self.sum_range
        # A sum that wraps around may give anything in between.
        is_monotonic = (lowest >= fixed_point.INT32_MIN) & (highest <= fixed_point.INT32_MAX)
        is_monotonic &= (self.quant.shift <= 0) | (lowest == highest)
        has_one_value = self.outputs(lowest) == self.outputs(highest)
        return np.asarray((lowest == highest) | (is_monotonic & has_one_value))

    @property
    def live_weights(self) -> Int8s:
        """The weights with those of constant channels set to 0, which requantize_t makes up for."""
        live: Int8s = np.where(self.is_constant[:, None], np.int8(0), self.weights)
        return live


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


class Layout(enum.StrEnum):
    """How a word holds two elements of two channels, by its name in dot_s8.h."""

    PAIRS = "DOT_PAIRS"
    BYTES = "DOT_BYTES"


def refuse_pairs(weights: Int8s) -> str | None:
    """Why weights (out_c, depth) cannot be laid out as PAIRS, or None."""
    low, high = _channel_pairs(weights)
    if np.any((high == -128) & (low < 0)):
        return "a weight of -128 stands beside a negative one in the pair of channels"
    return None


def pair_segment(weights: Int8s) -> int:
    """The most elements whose sums fit 24 bits in every pair: all of them, or a power of two.

    Args:
        weights: (out_c, depth) in the order in which they are multiplied.
    """
    _, high = _channel_pairs(weights)
    magnitudes = np.abs(high.astype(np.int16))
    depth = int(weights.shape[1])
    segment = depth
    starts = np.array([0])
    while np.any(_sums(magnitudes, starts) * MAX_MAGNITUDE >= PAIR_SUM_LIMIT):
        segment = 1 << ((segment - 1).bit_length() - 1)
        starts = np.arange(0, depth, segment)
    return segment


def _sums(rows: NDArray[np.int16], starts: NDArray[np.intp]) -> Int64s:
    """The sum of each row from each start to the next."""
    sums: Int64s = np.add.reduceat(rows, starts, axis=1, dtype=np.int64)
    return sums


def _channel_pairs(weights: Int8s) -> tuple[Int8s, Int8s]:
    """Channels 0, 2, 4, ... and 1, 3, 5, ...; an odd number is filled up with zeros."""
    out_c = weights.shape[0]
    padded = np.pad(weights, ((0, out_c % 2), (0, 0)))
    return padded[0::2], padded[1::2]


def pack_words(weights: Int8s, layout: Layout) -> NDArray[np.uint32]:
    """Words of dot_s8.h: (ceil(out_c / 2), depth / 2), two elements of two channels each."""
    low, high = _channel_pairs(weights)
    if layout is Layout.PAIRS:
        halves = (high.astype(np.int32) << 8) + low
    else:
        halves = (high.astype(np.int32) << 8) | (low.astype(np.int32) & 0xFF)
    return np.ascontiguousarray(halves.astype("<i2")).view("<u4").astype(np.uint32)


def pack_tiles(
    words: NDArray[np.uint32], *, tiles: int, tile_pairs: int, step: int
) -> NDArray[np.uint32]:
    """Words in the order of use: in a tile its pairs take turns; then come single pairs.

    Args:
        words: (pairs, words of a pair); the number of words is a multiple of `step`.
        tiles: how many tiles there are.
        tile_pairs: pairs of channels in a tile, whose sums are computed together.
        step: words of one pair that are used one after another.
    """
    tiled = tiles * tile_pairs
    in_tiles = words[:tiled].reshape(tiles, tile_pairs, words.shape[1] // step, step)
    in_turns = in_tiles.transpose(0, 2, 1, 3).reshape(-1)
    return np.concatenate([in_turns, words[tiled:].reshape(-1)])


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """How the sums of a layer become outputs, by one of two structs of requantize.h.

    Args:
        name: what the names of the C type and its functions start with: "requantize" where it can
            be used, else "rescale", which is slower.
        rows: (out_c, 4), the structs.
        comment: what is in them.
        weights: (out_c, depth), what the sums are made of.
        cycles: estimate for one output.
    """

    name: str
    rows: NDArray[np.int32]
    comment: str
    weights: Int8s
    cycles: int

    @property
    def c_type(self) -> str:
        """Of the table's elements."""
        return f"{self.name}_t"


def scaling(layer: Product) -> Scaling:
    """The quickest way from sums to outputs."""
    if _is_requantizable(layer):
        return Scaling(
            "requantize",
            _requantize_rows(layer),
            "bias, multiplier, round, exponent of each channel",
            layer.live_weights,
            12,
        )
    return Scaling(
        "rescale",
        _rescale_rows(layer),
        "bias, multiplier, shift, zero point of each channel",
        layer.weights,
        30,
    )


def _is_requantizable(layer: Product) -> bool:
    """Whether requantize_channel is exact: sums of up to 31 bits, scales of 2^-22 to 0.5."""
    varies = ~layer.is_constant
    lowest, highest = layer.sum_range
    exponents = -layer.quant.shift[varies]
    fits = np.maximum(-lowest, highest)[varies] < SUM_LIMIT
    return bool(np.all(fits & (exponents >= 1) & (exponents <= MAX_EXPONENT)))


def _requantize_rows(layer: Product) -> NDArray[np.int32]:
    """(out_c, 4): bias, multiplier, round, exponent.

    A channel whose output is constant gets a multiplier of 0, and the value through `round`.
    """
    is_constant = layer.is_constant
    exponent = np.where(is_constant, 1, -layer.quant.shift).astype(np.int64)
    offset = np.where(is_constant, layer.outputs(layer.sum_range[0]), layer.quant.out_zp)
    rounding = (np.int64(1) << (exponent - 1)) + (offset << exponent)
    multiplier = np.where(is_constant, 0, layer.quant.multiplier)
    bias = np.where(is_constant, 0, layer.bias)
    return np.stack([bias, multiplier, rounding, exponent], axis=1).astype(np.int32)


def _rescale_rows(layer: Product) -> NDArray[np.int32]:
    """(out_c, 4): bias, multiplier, shift, zero point."""
    quant = layer.quant
    zero_point = np.full_like(quant.shift, quant.out_zp)
    bias = fixed_point.wrap_int32(layer.bias)
    return np.stack([bias, quant.multiplier, quant.shift, zero_point], axis=1).astype(np.int32)


def plain_table(layer: Product) -> NDArray[np.int32]:
    """(out_c, 3): bias as in the model, multiplier, shift of each channel, the struct scale_t."""
    quant = layer.quant
    return np.stack([layer.layer_bias, quant.multiplier, quant.shift], axis=1).astype(np.int32)
