"""From the sums of a layer to its outputs: which C does it, and the constants it needs.

The C is firmware/kernels/requantize.h.
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
#: The output's zero point is added before the shift; beyond this it would not fit.
MAX_EXPONENT = 22


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
        act_min: lowest output.
        act_max: highest output.
    """

    name: str
    rows: NDArray[np.int32]
    comment: str
    weights: Int8s
    cycles: int
    act_min: int
    act_max: int

    @property
    def c_type(self) -> str:
        """Of the table's elements."""
        return f"{self.name}_t"

    def call(self, total: str, channel: str) -> str:
        """C: the output, for `clamp`, of a sum without bias; `channel` is the table's element."""
        return f"{self.name}_channel({total}, {channel})"

    def call_high(self, difference: str, channel: str) -> str:
        """C: as `call`, of 256 times a sum."""
        return self.call(f"({difference}) >> 8", channel)

    def clamp(self, value: str) -> str:
        """C: the int8 of what `call` gave."""
        return f"clamp_s8({value}, {self.act_min}, {self.act_max})"


def scaling(layer: Product) -> Scaling:
    """The quickest way from sums to outputs."""
    if _is_requantizable(layer):
        return Scaling(
            "requantize",
            _requantize_rows(layer),
            "bias, multiplier, round, exponent of each channel",
            layer.live_weights,
            12,
            layer.quant.act_min,
            layer.quant.act_max,
        )
    return Scaling(
        "rescale",
        _rescale_rows(layer),
        "bias, multiplier, shift, zero point of each channel",
        layer.weights,
        30,
        layer.quant.act_min,
        layer.quant.act_max,
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
