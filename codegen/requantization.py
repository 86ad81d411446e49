"""From the sums of a layer to its outputs: which C does it, and the constants it needs.

The C is firmware/kernels/requantize.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point, ir
from codegen.steps import Proof, Steps, ceil_divide, finest

Int8s = NDArray[np.int8]
Int64s = NDArray[np.int64]

#: Sums must stay below this where they are doubled.
SUM_LIMIT = 2**30
#: Scales below 2^-MAX_EXPONENT would shift the zero point out of 32 bits.
MAX_EXPONENT = 22
#: Scales above 2^-MIN_EXPONENT are left to "rescale".
MIN_EXPONENT = -7


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

    def _numbers(self) -> tuple[object, ...]:
        """All that makes two layers equal."""
        quant = self.quant
        arrays = (self.weights, self.layer_bias, quant.multiplier, quant.shift)
        ranges = (quant.in_zp, quant.out_zp, quant.act_min, quant.act_max)
        return (self.weights.shape, *(array.tobytes() for array in arrays), *ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Product) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash(self._numbers())

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
    """How the sums of a layer become outputs, by one of the structs of requantize.h.

    Args:
        name: what the names of the C type and its functions start with: "folded", "signed",
            "requantize" or "rescale", the quickest first.
        rows: (out_c, fields), the structs.
        comment: what is in them.
        weights: (out_c, depth), what the sums are made of.
        cycles: estimate for one output, its store included.
        act_min: lowest output.
        act_max: highest output.
        constant: of the layer, the last argument of the C function; none for some forms.
        places: how far left the output of `call` stands of its unit.
    """

    name: str
    rows: NDArray[np.int32]
    comment: str
    weights: Int8s
    cycles: int
    act_min: int
    act_max: int
    constant: int | None = None
    places: int = 0

    @property
    def c_type(self) -> str:
        """Of the table's elements."""
        return f"{self.name}_t"

    def call(self, total: str, channel: str) -> str:
        """C: the output, for `clamp`, of a sum without bias; `channel` is the table's element."""
        constant = "" if self.constant is None else f", {self.constant}"
        return f"{self.name}_channel({total}, {channel}{constant})"

    def call_high(self, difference: str, channel: str) -> str:
        """C: as `call`, of 256 times a sum."""
        if self.name == "folded":
            return f"folded_high({difference}, {channel}, {self.constant})"
        return self.call_multiple(difference, channel, 8)

    @property
    def left_shift(self) -> int:
        """How far `call` shifts a sum to the left."""
        return self.constant if self.name == "folded" and self.constant is not None else 0

    def call_multiple(self, multiple: str, channel: str, log2: int) -> str:
        """C: as `call`, of 2^log2 times a sum; only with left_shift it may have wrapped around."""
        if self.name == "folded":
            shift = self.left_shift - log2
            return f"folded_channel({_shifted(multiple, -shift)}, {channel}, {max(0, shift)})"
        if self.name in ("signed", "requantize") and log2:
            constant = "" if self.constant is None else f", {self.constant}"
            return f"{self.name}_doubled({_shifted(multiple, log2 - 1)}, {channel}{constant})"
        return self.call(_shifted(multiple, log2), channel)

    def clamp(self, value: str) -> str:
        """C: the int8 of what `call` gave."""
        if self.places:
            return f"folded_clamp({value}, {self.places}, {self.act_min}, {self.act_max})"
        return f"clamp_s8({value}, {self.act_min}, {self.act_max})"


def _shifted(value: str, right: int) -> str:
    """C: a value shifted to the right, if that changes it."""
    return f"({value}) >> {right}" if right > 0 else value


@lru_cache(maxsize=64)
def scaling(layer: Product) -> Scaling:
    """The quickest way from sums to outputs; every variant of a layer's kernels asks for it."""
    return _folded(layer) or _signed(layer) or _requantize(layer) or _rescale(layer)


def thresholds(layer: Product, levels: Int64s) -> Int64s:
    """(out_c, levels) the lowest sum with bias whose output reaches a level, before clamping.

    In the order of the arithmetic, backwards: an output of at least `level` needs `wanted` = level
    - out_zp or more before the zero point is added; that needs `product` or more before the
    rounding shift, which takes halves away from zero; that needs the sum given here before the
    doubling high product, which takes halves up. A multiplier of 0 counts as 1.
    """
    quant = layer.quant
    left = np.maximum(quant.shift, 0).astype(np.int64)[:, None]
    exponent = np.maximum(-quant.shift, 0).astype(np.int64)[:, None]
    multiplier = np.maximum(quant.multiplier, 1).astype(np.int64)[:, None]
    wanted = (levels - quant.out_zp)[None, :]
    half = (np.int64(1) << exponent) >> 1
    product = (wanted << exponent) - half + ((wanted <= 0) & (half > 0))
    return ceil_divide((product << 31) - (1 << 30), multiplier << left)


def _folded(layer: Product) -> Scaling | None:
    """The form with one rounding for all, if it is exact.

    What exact means, and how it is proved: codegen/steps.py. The oracle's first sum of each level
    is known in closed form (`thresholds`). There is nearly always a proof where outputs lie on one
    side of the zero point (after a RELU): the shift leaves 8 bits and more below the sum, and
    multipliers have 31 bits. Where they lie on both sides there is none: halves are rounded away
    from zero, so that the levels below zero begin 1 to 2 sums late. Shift and places are one for
    the layer, so a channel whose scale is not the largest loses bits of its multiplier; neighbours
    of it are tried where the intersection is empty.
    """
    if not _fits(layer, MIN_EXPONENT):
        return None
    exponents = -layer.quant.shift[~layer.is_constant].astype(np.int64)
    largest_scale = int(exponents.min(initial=MAX_EXPONENT))
    nearest = _nearest(layer, exponents - largest_scale)
    proof = finest(largest_scale, nearest, *_first_sums(layer))
    if proof is None:
        return None
    bias = (layer.bias[~layer.is_constant] << proof.shift) + proof.offset
    rows = _folded_rows(layer, proof.places, bias, proof.multiplier)
    return _folded_scaling(layer.quant, rows, layer.live_weights, proof)


def folded(layer: Product, shift: int, places: int) -> Scaling | None:
    """The form "folded" with given constants, for C that serves several layers, if it is exact."""
    if not _fits(layer, MIN_EXPONENT):
        return None
    exponents = -layer.quant.shift[~layer.is_constant].astype(np.int64)
    lost = exponents + shift - places - 1
    if np.any(lost < 0):
        return None
    steps = Steps(*_first_sums(layer), shift, places)
    multiplier, offset, is_proved = steps.prove(_nearest(layer, lost))
    if not np.all(is_proved & steps.fit_32_bits(offset)):
        return None
    bias = (layer.bias[~layer.is_constant] << shift) + offset
    proof = Proof(multiplier, offset, shift, places)
    rows = _folded_rows(layer, places, bias, multiplier)
    return _folded_scaling(layer.quant, rows, layer.live_weights, proof)


def _folded_scaling(
    quant: fixed_point.ConvQuant | fixed_point.PoolQuant | fixed_point.MulQuant,
    rows: NDArray[np.int32],
    weights: Int8s,
    proof: Proof,
) -> Scaling:
    return Scaling(
        "folded",
        rows,
        f"bias * 2^{proof.shift} and all that rounding needs, multiplier of each channel",
        weights,
        5,
        quant.act_min,
        quant.act_max,
        constant=proof.shift,
        places=proof.places,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ShiftedWeights:
    """The form "folded" where weights, not sums, are shifted, each channel by its own count.

    Args:
        rows: (out_c, 2), the structs folded_t.
        weights: (out_c, depth), before they are shifted.
        shifts: (out_c,).
    """

    rows: NDArray[np.int32]
    weights: Int8s
    shifts: NDArray[np.int8]


@lru_cache(maxsize=64)
def shifted_weights(layer: Product, places: int, most_shift: int) -> ShiftedWeights | None:
    """The form "folded" with given places and with weights shifted, if it is exact.

    Args:
        layer: the layer.
        places: as in Scaling; a constant of the kernel, which may serve several layers.
        most_shift: how far weights may be shifted.
    """
    if not _fits(layer, MIN_EXPONENT):
        return None
    varies = ~layer.is_constant
    exponents = -layer.quant.shift[varies].astype(np.int64)
    shifts = np.full(len(exponents), -1, np.int64)
    multiplier, bias = np.zeros_like(shifts), np.zeros_like(shifts)
    for shift in range(most_shift + 1):
        lost = exponents + shift - places - 1
        steps = Steps(*_first_sums(layer), shift, places)
        tried, offset, is_proved = steps.prove(_nearest(layer, np.maximum(lost, 0)))
        is_exact = is_proved & steps.fit_32_bits(offset) & (lost >= 0)
        shifts[is_exact] = shift
        multiplier[is_exact] = tried[is_exact]
        bias[is_exact] = ((layer.bias[varies] << shift) + offset)[is_exact]
    if np.any(shifts < 0):
        return None
    all_shifts = np.zeros(len(varies), np.int8)
    all_shifts[varies] = shifts
    rows = _folded_rows(layer, places, bias, multiplier)
    return ShiftedWeights(rows, layer.live_weights, all_shifts)


def _first_sums(layer: Product) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """The first four fields of `Steps`, of the channels that vary."""
    varies = ~layer.is_constant
    lowest, highest = (bound[varies] for bound in layer.sum_range)
    levels = np.arange(layer.quant.act_min + 1, layer.quant.act_max + 1, dtype=np.int64)
    first_sums = thresholds(layer, levels)[varies]
    return levels, np.clip(first_sums, lowest[:, None], highest[:, None] + 1), lowest, highest


def _nearest(layer: Product, lost: Int64s) -> Int64s:
    """The multipliers of the channels that vary, rounded to so many bits less."""
    multiplier = layer.quant.multiplier[~layer.is_constant]
    rounded: Int64s = (multiplier + (np.int64(1) << lost >> 1)) >> lost
    return np.minimum(rounded, fixed_point.INT32_MAX)


def _folded_rows(
    layer: Product, places: int, bias: Int64s, multiplier: Int64s
) -> NDArray[np.int32]:
    """(out_c, 2), the structs folded_t from what was found for the channels that vary."""
    varies = ~layer.is_constant
    rows = np.empty((len(varies), 2), np.int64)
    # A constant channel's sum is 0: the middle of its output's interval.
    constant = layer.outputs(layer.sum_range[0])
    rows[:, 0] = (2 * constant + 1) << (1 + places)
    rows[:, 1] = 2**30
    rows[varies, 0] = bias
    rows[varies, 1] = multiplier
    return rows.astype(np.int32)


def _fits(layer: Product, min_exponent: int) -> bool:
    """Whether sums have up to 31 bits, and scales lie between 2^-22 and 2^-min_exponent."""
    varies = ~layer.is_constant
    lowest, highest = (bound[varies] for bound in layer.sum_range)
    exponents = -layer.quant.shift[varies].astype(np.int64)
    if not np.all((exponents >= min_exponent) & (exponents <= MAX_EXPONENT)):
        return False
    extreme = np.maximum(-lowest, highest) << np.maximum(-exponents, 0)
    return bool(np.all(extreme < SUM_LIMIT))


def _signed(layer: Product) -> Scaling | None:
    """The form for outputs on both sides of the zero point, if all scales have one exponent."""
    exponents = np.unique(layer.quant.shift)
    if len(exponents) > 1 or layer.is_constant.any() or not _fits(layer, 1):
        return None
    rows = np.stack([2 * layer.bias, layer.quant.multiplier], axis=1).astype(np.int32)
    return _signed_scaling(layer.quant, rows, layer.weights, -int(exponents[0]))


def _signed_scaling(
    quant: fixed_point.ConvQuant | fixed_point.MulQuant,
    rows: NDArray[np.int32],
    weights: Int8s,
    exponent: int,
) -> Scaling:
    return Scaling(
        "signed",
        rows,
        "bias * 2, multiplier of each channel",
        weights,
        6,
        quant.act_min,
        quant.act_max,
        constant=(1 << (exponent - 1)) + (quant.out_zp << exponent),
        places=exponent,
    )


def _requantize(layer: Product) -> Scaling | None:
    """The form for outputs on both sides of the zero point.

    A channel whose output is constant gets a multiplier of 0, and the value through `round`.
    """
    if not _fits(layer, 1):
        return None
    is_constant = layer.is_constant
    exponent = np.where(is_constant, 1, -layer.quant.shift).astype(np.int64)
    offset = np.where(is_constant, layer.outputs(layer.sum_range[0]), layer.quant.out_zp)
    rounding = (np.int64(1) << (exponent - 1)) + (offset << exponent)
    multiplier = np.where(is_constant, 0, layer.quant.multiplier)
    bias = np.where(is_constant, 0, 2 * layer.bias)
    return Scaling(
        "requantize",
        np.stack([bias, multiplier, rounding, exponent], axis=1).astype(np.int32),
        "bias * 2, multiplier, round, exponent of each channel",
        layer.live_weights,
        8,
        layer.quant.act_min,
        layer.quant.act_max,
    )


def _rescale(layer: Product) -> Scaling:
    """The form for every scale."""
    quant = layer.quant
    zero_point = np.full_like(quant.shift, quant.out_zp)
    bias = fixed_point.wrap_int32(layer.bias)
    rows = np.stack([bias, quant.multiplier, quant.shift, zero_point], axis=1).astype(np.int32)
    return Scaling(
        "rescale",
        rows,
        "bias, multiplier, shift, zero point of each channel",
        layer.weights,
        30,
        quant.act_min,
        quant.act_max,
    )


@lru_cache(maxsize=64)
def product_scaling(quant: fixed_point.MulQuant) -> Scaling | None:
    """The quickest way from (a - a_zp) * (b - b_zp) to the output of MUL; None for large scales."""
    exponent = -quant.out.shift
    if quant.out.value == 0 or not 1 <= exponent <= MAX_EXPONENT:
        return None
    layer = Product(
        np.ones((1, 1), np.int8),
        np.zeros(1, np.int64),
        fixed_point.ConvQuant(
            in_zp=0,
            out_zp=quant.out_zp,
            multiplier=np.array([quant.out.value], np.int32),
            shift=np.array([quant.out.shift], np.int32),
            act_min=quant.act_min,
            act_max=quant.act_max,
        ),
    )
    values = np.arange(-128, 128, dtype=np.int64)
    products = (values - quant.a_zp)[:, None] * (values - quant.b_zp)[None, :]
    lowest, highest = products.min(keepdims=True)[0], products.max(keepdims=True)[0]
    levels = np.arange(quant.act_min + 1, quant.act_max + 1, dtype=np.int64)
    first_sums = np.clip(thresholds(layer, levels), lowest, highest + 1)
    nearest = np.array([quant.out.value], np.int64)
    proof = finest(exponent, nearest, levels, first_sums, lowest, highest)
    if proof is None:
        rows = np.array([[0, quant.out.value]], np.int32)
        return _signed_scaling(quant, rows, layer.weights, exponent)
    rows = np.stack([proof.offset, proof.multiplier], axis=1).astype(np.int32)
    return _folded_scaling(quant, rows, layer.weights, proof)


@lru_cache(maxsize=64)
def averages(least: int, most: int, quant: fixed_point.PoolQuant) -> Scaling | None:
    """From the sum of `least` to `most` values to their mean, rounded half away from zero.

    One struct for each count; None if it is not exact for all of them. Always "folded": only exact
    halves are rounded away from zero, and a multiplier that is a little too large takes those below
    zero down as it takes the others up.
    """
    counts = np.arange(least, most + 1)
    levels = np.arange(quant.act_min + 1, quant.act_max + 1, dtype=np.int64)[None, :]
    count = counts[:, None]
    first = np.where(levels > 0, levels * count - count // 2, (levels - 1) * count + count // 2 + 1)
    lowest, highest = -128 * counts, 127 * counts
    multipliers = [fixed_point.quantize_multiplier(1 / int(count)) for count in counts]
    exponents = -np.array([multiplier.shift for multiplier in multipliers], np.int64)
    largest_scale = int(exponents.min())
    values = np.array([multiplier.value for multiplier in multipliers], np.int64)
    proof = finest(
        largest_scale,
        values >> (exponents - largest_scale),
        levels[0],
        np.clip(first, lowest[:, None], highest[:, None] + 1),
        lowest,
        highest,
    )
    if proof is None:
        return None
    rows = np.stack([proof.offset, proof.multiplier], axis=1).astype(np.int32)
    return _folded_scaling(quant, rows, np.ones((len(counts), 1), np.int8), proof)


def plain_table(layer: Product) -> NDArray[np.int32]:
    """(out_c, 3): bias as in the model, multiplier, shift of each channel, the struct scale_t."""
    quant = layer.quant
    return np.stack([layer.layer_bias, quant.multiplier, quant.shift], axis=1).astype(np.int32)
