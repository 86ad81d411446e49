"""The integer arithmetic of TFLM's reference kernels, and the constants that each op computes with.

Two layers. The first is numbers: Q31 multiplication and rounding shifts (gemmlowp's definitions),
and the fixed-point exponential, logistic and tanh built from them. The second is what an op
computes with: one frozen dataclass per family of ops, derived from the scales and zero points in a
graph exactly as TFLM's Prepare functions do. Factors are quotients and products of scales in double
precision, but a real value is divided by a scale in single precision: the last bit depends on it.

Both the numpy reference and the C generator take their constants from here. What loops over tensors
is in `reference`.

Rounding is TFLM's default, "double rounding": the product is rounded to 31 bits, and then again by
the shift. Accumulators wrap around like int32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen import ir

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

#: Lowest and highest value of the quantised types.
RANGES = {
    ir.DType.S8: (-128, 127),
    ir.DType.U8: (0, 255),
    ir.DType.S16: (-(2**15), 2**15 - 1),
    ir.DType.S32: (INT32_MIN, INT32_MAX),
}


# --- Q31 numbers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A real factor as value * 2**(shift - 31); value is 0 or in [2**30, 2**31) in magnitude."""

    value: int
    shift: int


def round_half_away(value: float) -> int:
    """The nearest integer, halves away from zero, as C's round()."""
    whole = math.floor(abs(value))
    # abs(value) - whole is exact, where adding 0.5 to value might not be.
    return int(math.copysign(whole + (abs(value) - whole >= 0.5), value))


def quantize_multiplier(factor: float) -> Multiplier:
    """The Q31 multiplier and shift nearest to a double; factors below 2**-32 become 0."""
    if factor == 0.0:
        return Multiplier(0, 0)
    mantissa, shift = math.frexp(factor)
    value = round_half_away(mantissa * 2**31)
    if value == 2**31:
        value, shift = 2**30, shift + 1
    if shift < -31:
        return Multiplier(0, 0)
    return Multiplier(value, shift)


def wrap_int32(values: Int64s | Int32s) -> Int64s:
    """The value that a C int32 would hold, as int64."""
    return np.asarray(values).astype(np.int32).astype(np.int64)


def saturating_rounding_doubling_high_mul(a: Int64s, b: Int64s | int) -> Int64s:
    """(a * b) / 2**31, rounded to nearest; halves go up, ties of negative products toward zero.

    Both factors are in the range of int32; -2**31 times itself saturates.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    total = product + np.where(product >= 0, 2**30, 1 - 2**30)
    # C divides toward zero.
    rounded: Int64s = np.where(total >= 0, total >> 31, -((-total) >> 31))
    return np.minimum(rounded, INT32_MAX)


def rounding_divide_by_pot(x: Int64s, exponent: int | Int64s) -> Int64s:
    """The quotient x / 2**exponent for 0..31, rounded to nearest, halves away from zero."""
    x = np.asarray(x, np.int64)
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    rounded: Int64s = (x >> exponent) + (remainder > threshold)
    return rounded


def multiply_by_quantized_multiplier(
    x: Int64s | Int32s, value: int | Int64s | Int32s, shift: int | Int64s | Int32s
) -> Int64s:
    """The product x * value * 2**(shift - 31), rounded as TFLM does.

    The value and the shift may be arrays that broadcast with x. A left shift wraps like an int32.
    """
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = wrap_int32(np.asarray(x, np.int64) << left)
    product = saturating_rounding_doubling_high_mul(shifted, np.asarray(value, np.int64))
    return rounding_divide_by_pot(product, right)


def apply(multiplier: Multiplier, x: Int64s | Int32s) -> Int64s:
    """`multiply_by_quantized_multiplier` with one multiplier."""
    return multiply_by_quantized_multiplier(x, multiplier.value, multiplier.shift)


# --- fixed-point functions (gemmlowp) --------------------------------------------------------
# A value of format Qm.n (m integer bits, n = 31 - m) is a raw int32; Q0.31 spans [-1, 1).

_mul = saturating_rounding_doubling_high_mul  # the product of Qa and Qb is Q(a + b)


def saturating_shift_left(x: Int64s, exponent: int) -> Int64s:
    """The product x * 2**exponent, saturated to int32."""
    saturated: Int64s = np.clip(x << exponent, INT32_MIN, INT32_MAX)
    return saturated


def _exp_near_minus_one_eighth(a: Int64s) -> Int64s:
    """exp(a) in Q0.31 for a in [-1/4, 0): Taylor series of order 4 around -1/8."""
    at_center = round_half_away(math.exp(-1 / 8) * 2**31)
    one_third = round_half_away(2**31 / 3)
    x = a + 2**28
    x2 = _mul(x, x)
    x3 = _mul(x2, x)
    x4_over_4 = rounding_divide_by_pot(_mul(x2, x2), 2)
    # x**4/24 + x**3/6 + x**2/2
    tail = rounding_divide_by_pot(_mul(x4_over_4 + x3, one_third) + x2, 1)
    return at_center + _mul(x + tail, at_center)


def exp_on_negative_values(a: Int64s, integer_bits: int) -> Int64s:
    """exp(a) in Q0.31 for a <= 0 in Qm with m = integer_bits, at most 5."""
    assert integer_bits <= 5, "more integer bits would need the result to be clamped to 0"
    a = np.asarray(a, np.int64)
    fraction_bits = 31 - integer_bits
    one_quarter = 1 << (fraction_bits - 2)
    a_mod_quarter = (a & (one_quarter - 1)) - one_quarter
    result = _exp_near_minus_one_eighth(saturating_shift_left(a_mod_quarter, integer_bits))
    remainder = a_mod_quarter - a
    # The rest is a sum of powers of two: multiply by exp(-2**exponent) for each bit that is set.
    for exponent in range(-2, integer_bits):
        factor = round_half_away(math.exp(-(2.0**exponent)) * 2**31)
        is_set = (remainder >> (fraction_bits + exponent)) & 1
        result = np.where(is_set == 1, _mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _newton_reciprocal(a: Int64s) -> Int64s:
    """2 / (1 + a) in Q2.29 for a in [0, 1) in Q0.31: three Newton-Raphson steps."""
    half_denominator = (a + INT32_MAX + 1) >> 1  # a and one are >= 0: their half sum, rounded up
    forty_eight_17ths = round_half_away(48 / 17 * 2**29)
    minus_thirty_two_17ths = -round_half_away(32 / 17 * 2**29)
    one = 1 << 29
    x = forty_eight_17ths + _mul(half_denominator, minus_thirty_two_17ths)
    for _ in range(3):
        correction = one - _mul(half_denominator, x)
        x = x + saturating_shift_left(_mul(x, correction), 2)
    return x


def one_over_one_plus_x(a: Int64s) -> Int64s:
    """1 / (1 + a) in Q0.31 for a in [0, 1) in Q0.31."""
    return saturating_shift_left(_newton_reciprocal(a), 1)


def logistic_q4(a: Int64s) -> Int64s:
    """1 / (1 + exp(-a)) in Q0.31 for a in Q4.27."""
    a = np.asarray(a, np.int64)
    positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(a), 4))
    return np.where(a > 0, positive, np.where(a == 0, 2**30, INT32_MAX - positive))


def tanh_q4(a: Int64s) -> Int64s:
    """tanh(a) in Q0.31 for a in Q4.27."""
    a = np.asarray(a, np.int64)
    # (1 - e) / (1 + e) with e = exp(-2|a|); twice the value is the same raw number in Q5.26.
    e = exp_on_negative_values(-np.abs(a), 5)
    magnitude = saturating_shift_left(_newton_reciprocal(e) - (1 << 29), 2)
    return np.where(a == 0, 0, np.where(a < 0, -magnitude, magnitude))


def input_radius(integer_bits: int, shift: int) -> int:
    """The largest input difference that a left shift by `shift` keeps inside Q(integer_bits)."""
    return math.floor(((1 << integer_bits) - 1) * math.ldexp(1.0, 31 - integer_bits - shift))


# --- parameters of ops -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ConvQuant:
    """CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED.

    out = clamp(requantize(sum((x - in_zp) * w) + bias) + out_zp). `multiplier` and `shift` have one
    entry per output channel, also where the weights have one scale.
    """

    in_zp: int
    out_zp: int
    multiplier: Int32s
    shift: Int32s
    act_min: int
    act_max: int


@dataclass(frozen=True, slots=True)
class AddQuant:
    """ADD and SUB: both inputs are brought to a common scale, `left_shift` bits finer."""

    a_zp: int
    b_zp: int
    out_zp: int
    left_shift: int
    a: Multiplier
    b: Multiplier
    out: Multiplier
    act_min: int
    act_max: int


@dataclass(frozen=True, slots=True)
class MulQuant:
    """MUL: out = clamp(requantize((a - a_zp) * (b - b_zp)) + out_zp)."""

    a_zp: int
    b_zp: int
    out_zp: int
    out: Multiplier
    act_min: int
    act_max: int


@dataclass(frozen=True, slots=True)
class PoolQuant:
    """AVERAGE_POOL_2D and MAX_POOL_2D: no change of scale, only a clamp."""

    act_min: int
    act_max: int


@dataclass(frozen=True, slots=True)
class MeanQuant:
    """MEAN: out = clamp(requantize(sum(x) - count * in_zp) + out_zp).

    `out` includes the division by `count`, the number of elements behind one output.
    """

    in_zp: int
    out_zp: int
    count: int
    out: Multiplier


@dataclass(frozen=True, slots=True, eq=False)
class SoftmaxQuant:
    """SOFTMAX over the last axis of s8.

    `exp[d]` is exp(-d * scale * beta) in Q0.31 for a difference of d = max - x, or 0 where TFLM
    leaves the element out: from d = `cutoff` on.
    """

    exp: Int32s
    cutoff: int


@dataclass(frozen=True, slots=True)
class RequantizeQuant:
    """QUANTIZE between integer types: out = clamp(requantize(x - in_zp) + out_zp)."""

    in_zp: int
    out_zp: int
    out: Multiplier
    out_min: int
    out_max: int


def quantized(value: float, tensor: ir.Tensor) -> int:
    """A real value in a tensor's quantisation, unclamped; a float division, as TFLM's."""
    return tensor.zero_point + round_half_away(float(np.float32(value) / np.float32(tensor.scale)))


def activation_range(activation: ir.Activation, output: ir.Tensor) -> tuple[int, int]:
    """The values that a fused activation clamps an output to: its type's range, or less."""
    low, high = RANGES[output.dtype]
    bounds: dict[ir.Activation, tuple[float | None, float | None]] = {
        ir.Activation.NONE: (None, None),
        ir.Activation.RELU: (0.0, None),
        ir.Activation.RELU6: (0.0, 6.0),
        ir.Activation.RELU_N1_TO_1: (-1.0, 1.0),
    }
    lower, upper = bounds[activation]
    return (
        low if lower is None else max(low, quantized(lower, output)),
        high if upper is None else min(high, quantized(upper, output)),
    )


def _tensors(graph: ir.Graph, op: ir.Op) -> tuple[list[ir.Tensor], ir.Tensor]:
    """Inputs (those that are present) and the first output of an op."""
    return [graph.tensors[i] for i in op.inputs if i >= 0], graph.tensors[op.outputs[0]]


def conv_quant(
    graph: ir.Graph, op: ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected
) -> ConvQuant:
    """Parameters of a convolution or dense layer."""
    (x, w, *_), out = _tensors(graph, op)
    assert w.quant is not None, "weights are quantised, which check has made sure of"
    channels = w.shape[-1] if isinstance(op, ir.DepthwiseConv2D) else w.shape[0]
    multipliers = [quantize_multiplier(x.scale * s / out.scale) for s in w.quant.scale]
    if len(multipliers) == 1:
        multipliers *= channels
    act_min, act_max = activation_range(op.activation, out)
    return ConvQuant(
        in_zp=x.zero_point,
        out_zp=out.zero_point,
        multiplier=np.array([m.value for m in multipliers], np.int32),
        shift=np.array([m.shift for m in multipliers], np.int32),
        act_min=act_min,
        act_max=act_max,
    )


def add_quant(graph: ir.Graph, op: ir.Add | ir.Sub) -> AddQuant:
    """Parameters of ADD and SUB."""
    (a, b), out = _tensors(graph, op)
    left_shift = 20
    twice_max = 2 * max(a.scale, b.scale)
    act_min, act_max = activation_range(op.activation, out)
    return AddQuant(
        a_zp=a.zero_point,
        b_zp=b.zero_point,
        out_zp=out.zero_point,
        left_shift=left_shift,
        a=quantize_multiplier(a.scale / twice_max),
        b=quantize_multiplier(b.scale / twice_max),
        out=quantize_multiplier(twice_max / ((1 << left_shift) * out.scale)),
        act_min=act_min,
        act_max=act_max,
    )


def mul_quant(graph: ir.Graph, op: ir.Mul) -> MulQuant:
    """Parameters of MUL."""
    (a, b), out = _tensors(graph, op)
    act_min, act_max = activation_range(op.activation, out)
    return MulQuant(
        a_zp=a.zero_point,
        b_zp=b.zero_point,
        out_zp=out.zero_point,
        out=quantize_multiplier(a.scale * b.scale / out.scale),
        act_min=act_min,
        act_max=act_max,
    )


def pool_quant(graph: ir.Graph, op: ir.AveragePool2D | ir.MaxPool2D) -> PoolQuant:
    """Parameters of a pooling op."""
    _, out = _tensors(graph, op)
    return PoolQuant(*activation_range(op.activation, out))


def mean_quant(graph: ir.Graph, op: ir.Mean) -> MeanQuant:
    """Parameters of MEAN: the multiplier is divided by the count, as integers."""
    (x,), out = _tensors(graph, op)
    count = math.prod(x.shape[axis] for axis in op.axes)
    scale = quantize_multiplier(x.scale / out.scale)
    # As many bits as the count has go into the multiplier before it is divided.
    shift = min(count.bit_length() - 1, 32, 31 + scale.shift)
    return MeanQuant(
        in_zp=x.zero_point,
        out_zp=out.zero_point,
        count=count,
        out=Multiplier((scale.value << shift) // count, scale.shift - shift),
    )


def softmax_quant(graph: ir.Graph, op: ir.Softmax) -> SoftmaxQuant:
    """The table of exponentials that SOFTMAX sums and divides."""
    (x,), _ = _tensors(graph, op)
    integer_bits = 5
    factor = op.beta * x.scale * 2 ** (31 - integer_bits)
    multiplier = quantize_multiplier(min(factor, 2.0**31 - 1))
    cutoff = input_radius(integer_bits, multiplier.shift) + 1
    differences = np.arange(256, dtype=np.int64)
    scaled = saturating_rounding_doubling_high_mul(
        wrap_int32(-differences << multiplier.shift), multiplier.value
    )
    exp = exp_on_negative_values(scaled, integer_bits)
    return SoftmaxQuant(
        exp=np.where(differences < cutoff, exp, 0).astype(np.int32), cutoff=min(cutoff, 256)
    )


def requantize_quant(graph: ir.Graph, op: ir.Quantize) -> RequantizeQuant:
    """Parameters of QUANTIZE from an integer type."""
    (x,), out = _tensors(graph, op)
    out_min, out_max = RANGES[out.dtype]
    return RequantizeQuant(
        in_zp=x.zero_point,
        out_zp=out.zero_point,
        out=quantize_multiplier(x.scale / out.scale),
        out_min=out_min,
        out_max=out_max,
    )


# --- ops of one 8-bit input: a table of 256 values -------------------------------------------


def lut(graph: ir.Graph, op: ir.Op) -> NDArray[np.int8] | NDArray[np.uint8]:
    """The result for each value of an 8-bit input, lowest value first.

    For RELU, LEAKY_RELU, HARD_SWISH, LOGISTIC, TANH, and QUANTIZE from 8 to 8 bits.

    Returns:
        (256,), of the output's type: entry i is for the input value i - 128 (s8) or i (u8).
    """
    (x,), out = _tensors(graph, op)
    low, high = RANGES[x.dtype]
    q = np.arange(low, high + 1, dtype=np.int64)
    if isinstance(op, ir.Relu):
        result = _relu(q, x, out, op.activation)
    elif isinstance(op, ir.LeakyRelu):
        result = _leaky_relu(q, x, out, op.alpha)
    elif isinstance(op, ir.HardSwish):
        result = _hard_swish(q, x, out)
    elif isinstance(op, ir.Logistic):
        result = _squash(q, x, logistic_q4, fraction_bits=8, out_zp=-128)
    elif isinstance(op, ir.Tanh):
        result = _squash(q, x, tanh_q4, fraction_bits=7, out_zp=0)
    elif isinstance(op, ir.Quantize):
        p = requantize_quant(graph, op)
        result = apply(p.out, q - p.in_zp) + p.out_zp
    else:
        raise AssertionError(f"{op.kind} is not a function of one 8-bit value")
    return np.clip(result, *RANGES[out.dtype]).astype(out.dtype.numpy)


def _relu(q: Int64s, x: ir.Tensor, out: ir.Tensor, activation: ir.Activation) -> Int64s:
    """RELU may change the scale; TFLM's RELU6 only clamps, in the input's scale."""
    if activation is ir.Activation.RELU6:
        return np.clip(q, *activation_range(activation, x))
    ratio = quantize_multiplier(x.scale / out.scale)
    rescaled = apply(ratio, q - x.zero_point) + out.zero_point
    return np.clip(rescaled, *activation_range(activation, out))


def _leaky_relu(q: Int64s, x: ir.Tensor, out: ir.Tensor, alpha: float) -> Int64s:
    """LEAKY_RELU: one multiplier for each sign."""
    identity = quantize_multiplier(x.scale / out.scale)
    slope = quantize_multiplier(x.scale * abs(alpha) / out.scale)
    centred = q - x.zero_point
    negative = apply(slope, centred) * (-1 if alpha < 0 else 1)
    return np.where(centred >= 0, apply(identity, centred), negative) + out.zero_point


def _squash(
    q: Int64s,
    x: ir.Tensor,
    function: Callable[[Int64s], Int64s],
    *,
    fraction_bits: int,
    out_zp: int,
) -> Int64s:
    """LOGISTIC and TANH: a function of Q4.27, whose output scale is 2**-fraction_bits."""
    mantissa, shift = math.frexp(x.scale * 2**27)
    radius = input_radius(4, shift)
    centred = q - x.zero_point
    inside = np.abs(centred) < radius
    in_q4 = multiply_by_quantized_multiplier(
        np.where(inside, centred, 0), round_half_away(mantissa * 2**31), shift
    )
    result = rounding_divide_by_pot(function(in_q4), 31 - fraction_bits) + out_zp
    return np.where(inside, result, np.where(centred > 0, 127, -128))


def _int16_multiplier(factor: float) -> Multiplier:
    """A factor as value * 2**(shift - 15), with a value of 16 bits."""
    wide = quantize_multiplier(factor)
    value = min((wide.value + 2**15) >> 16, 2**15 - 1)
    return Multiplier(value, wide.shift)


def _high_mul_int16(a: Int64s, b: Int64s | int) -> Int64s:
    """(a * b) / 2**15, rounded to nearest; the 16-bit form of the doubling high product."""
    product = np.asarray(a * b, np.int64)
    total = product + np.where(product >= 0, 2**14, 1 - 2**14)
    return np.minimum(np.where(total >= 0, total >> 15, -((-total) >> 15)), 2**15 - 1)


def _hard_swish(q: Int64s, x: ir.Tensor, out: ir.Tensor) -> Int64s:
    """HARD_SWISH in 16-bit fixed point: x * relu6(x + 3) / 6."""

    def saturated(value: Int64s) -> Int64s:
        return np.clip(value, -(2**15), 2**15 - 1)

    fine = (q - x.zero_point) << 7
    to_output = _int16_multiplier(x.scale / 128 / out.scale)
    # 32768 stands for 3.0: the end of the interval where the result is neither 0 nor x.
    to_gate = _int16_multiplier(x.scale / 128 / (3 / 32768))
    on_output_scale = _high_mul_int16(fine, to_output.value)
    gate = fine
    if to_gate.shift > 0:
        gate = saturated(gate << (to_gate.shift - 1))
    gate = _high_mul_int16(gate, to_gate.value)
    if to_gate.shift > 0:
        gate = saturated(gate << 1)
    if to_gate.shift < 0:
        gate = rounding_divide_by_pot(gate, -to_gate.shift)
    gate = (gate + 2**15) >> 1  # [-1, 1] -> [0, 1]
    product = gate * on_output_scale
    # This product alone is rounded toward zero, to cancel the bias of the others.
    product = np.where(product >= 0, product >> 15, -((-product) >> 15))
    return rounding_divide_by_pot(product, -to_output.shift) + out.zero_point
