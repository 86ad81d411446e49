"""What a graph computes: every op in numpy, bit-exact with TFLM's reference kernels.

The generated C is checked against this, and this against TFLM. Readable first; quick enough to run
whole networks, because every op is a few array operations. Sums are taken in float64 or int64,
which are exact here, and then wrap around as an int32 accumulator does.

The constants of each op come from `fixed_point`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point as fp
from codegen import ir

Array = NDArray[Any]
Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]


def run(graph: ir.Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a graph for one array per input, each of its tensor's shape and type."""
    values = evaluate(graph, inputs)
    return [values[i] for i in graph.outputs]


def evaluate(graph: ir.Graph, inputs: Sequence[Array]) -> dict[int, Array]:
    """The value of every tensor of a graph, by its index: to find the first op that differs."""
    values = {i: t.data for i, t in enumerate(graph.tensors) if t.data is not None}
    for index, value in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[index]
        assert value.shape == tensor.shape and value.dtype == tensor.dtype.numpy, (
            f"input {tensor.name} is {tensor.dtype.value}{tensor.shape}, "
            f"not {value.dtype}{value.shape}"
        )
        values[index] = value
    for op in graph.ops:
        result = run_op(graph, op, [values[i] for i in op.inputs if i >= 0])
        out = graph.tensors[op.outputs[0]]
        assert result.shape == out.shape and result.dtype == out.dtype.numpy, (
            f"{op.name} gave {result.dtype}{result.shape}, not {out.dtype.value}{out.shape}"
        )
        values[op.outputs[0]] = result
    return values


def run_op(graph: ir.Graph, op: ir.Op, inputs: Sequence[Array]) -> Array:
    """The output of one op of a graph for the values of its inputs (absent ones left out)."""
    return _OPS[type(op)](graph, op, *inputs)


# --- convolutions ----------------------------------------------------------------------------


def conv2d_s8(
    x: Int8s,
    w: Int8s,
    bias: Int32s | None,
    q: fp.ConvQuant,
    *,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: ir.Padding,
) -> Int8s:
    """2-D convolution.

    Args:
        x: (n, h, w, in_c).
        w: (out_c, kh, kw, in_c), zero point 0.
        bias: (out_c,), or None.
        q: its constants.
        stride: (stride_h, stride_w).
        dilation: (dilation_h, dilation_w).
        padding: elements of value `q.in_zp` around x.

    Returns:
        (n, out_h, out_w, out_c), clamped to [q.act_min, q.act_max].
    """
    _, kh, kw, _ = w.shape
    centred = _padded(x.astype(np.float64) - q.in_zp, padding, 0.0)
    weights = w.astype(np.float64)
    acc = np.zeros((), np.float64)
    for i, j, taps in _windows(centred, (kh, kw), stride, dilation):
        acc = acc + taps @ weights[:, i, j, :].T  # (n, out_h, out_w, in_c) @ (in_c, out_c)
    return _requantized(acc, bias, q)


def depthwise_conv2d_s8(
    x: Int8s,
    w: Int8s,
    bias: Int32s | None,
    q: fp.ConvQuant,
    *,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: ir.Padding,
) -> Int8s:
    """Depthwise 2-D convolution; output channel c * multiplier + m comes from input channel c.

    Arguments as of `conv2d_s8`, but w is (1, kh, kw, in_c * multiplier).
    """
    _, kh, kw, out_c = w.shape
    in_c = x.shape[3]
    centred = _padded(x.astype(np.int64) - q.in_zp, padding, 0)
    weights = w.astype(np.int64).reshape(kh, kw, in_c, out_c // in_c)
    acc = np.zeros((), np.int64)
    for i, j, taps in _windows(centred, (kh, kw), stride, dilation):
        acc = acc + taps[..., None] * weights[i, j]  # (n, out_h, out_w, in_c, multiplier)
    return _requantized(acc.reshape(*acc.shape[:3], out_c), bias, q)


def fully_connected_s8(x: Int8s, w: Int8s, bias: Int32s | None, q: fp.ConvQuant) -> Int8s:
    """Dense layer: x is (batch..., in_features), w is (out_features, in_features)."""
    return _requantized((x.astype(np.float64) - q.in_zp) @ w.astype(np.float64).T, bias, q)


def _requantized(acc: Array, bias: Int32s | None, q: fp.ConvQuant) -> Int8s:
    """Accumulators, channels last, to int8."""
    total = acc.astype(np.int64) + (0 if bias is None else bias.astype(np.int64))
    scaled = fp.multiply_by_quantized_multiplier(fp.wrap_int32(total), q.multiplier, q.shift)
    return np.clip(scaled + q.out_zp, q.act_min, q.act_max).astype(np.int8)


def _padded(x: Array, padding: ir.Padding, value: float) -> Array:
    """An NHWC array x with `value` around h and w."""
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    return np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)


def _windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> list[tuple[int, int, Array]]:
    """For each tap (i, j) of a kernel: what it sees at every output position, a view of x."""
    _, h, w, _ = x.shape
    rows = range(0, h - (kernel[0] - 1) * dilation[0], stride[0])
    columns = range(0, w - (kernel[1] - 1) * dilation[1], stride[1])
    views = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            view = x[:, top : top + rows.stop : stride[0], left : left + columns.stop : stride[1]]
            views.append((i, j, view))
    return views


def _conv2d(graph: ir.Graph, op: ir.Conv2D, x: Int8s, w: Int8s, *bias: Int32s) -> Array:
    return conv2d_s8(
        x,
        w,
        bias[0] if bias else None,
        fp.conv_quant(graph, op),
        stride=(op.stride_h, op.stride_w),
        dilation=(op.dilation_h, op.dilation_w),
        padding=op.padding,
    )


def _depthwise_conv2d(
    graph: ir.Graph, op: ir.DepthwiseConv2D, x: Int8s, w: Int8s, *bias: Int32s
) -> Array:
    return depthwise_conv2d_s8(
        x,
        w,
        bias[0] if bias else None,
        fp.conv_quant(graph, op),
        stride=(op.stride_h, op.stride_w),
        dilation=(op.dilation_h, op.dilation_w),
        padding=op.padding,
    )


def _fully_connected(
    graph: ir.Graph, op: ir.FullyConnected, x: Int8s, w: Int8s, *bias: Int32s
) -> Array:
    features = x.reshape(-1, w.shape[1])
    result = fully_connected_s8(features, w, bias[0] if bias else None, fp.conv_quant(graph, op))
    return result.reshape(graph.tensors[op.outputs[0]].shape)


# --- pooling and means -----------------------------------------------------------------------


def average_pool2d_s8(
    x: Int8s,
    q: fp.PoolQuant,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: ir.Padding,
) -> Int8s:
    """Mean over each window of (n, h, w, c), rounded half away from zero; padding not counted."""
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    total, count = (
        sum(taps for _, _, taps in _windows(_padded(values, padding, 0), kernel, stride))
        for values in (x.astype(np.int64), ones)
    )
    magnitude = (np.abs(total) + count // 2) // count
    return np.clip(np.sign(total) * magnitude, q.act_min, q.act_max).astype(np.int8)


def max_pool2d_s8(
    x: Int8s,
    q: fp.PoolQuant,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: ir.Padding,
) -> Int8s:
    """Maximum over each window of (n, h, w, c)."""
    windows = _windows(_padded(x, padding, -128), kernel, stride)
    highest: Int8s = np.max(np.stack([taps for _, _, taps in windows]), axis=0)
    return np.minimum(np.maximum(highest, np.int8(q.act_min)), np.int8(q.act_max))


def mean_s8(x: Int8s, q: fp.MeanQuant, *, axes: tuple[int, ...], keep_dims: bool) -> Int8s:
    """Mean over axes; the sum without zero points is rescaled once."""
    total = x.astype(np.int64).sum(axis=axes, keepdims=keep_dims) - q.count * q.in_zp
    return np.clip(fp.apply(q.out, fp.wrap_int32(total)) + q.out_zp, -128, 127).astype(np.int8)


def _average_pool2d(graph: ir.Graph, op: ir.AveragePool2D, x: Int8s) -> Array:
    return average_pool2d_s8(
        x,
        fp.pool_quant(graph, op),
        kernel=(op.kh, op.kw),
        stride=(op.stride_h, op.stride_w),
        padding=op.padding,
    )


def _max_pool2d(graph: ir.Graph, op: ir.MaxPool2D, x: Int8s) -> Array:
    return max_pool2d_s8(
        x,
        fp.pool_quant(graph, op),
        kernel=(op.kh, op.kw),
        stride=(op.stride_h, op.stride_w),
        padding=op.padding,
    )


def _mean(graph: ir.Graph, op: ir.Mean, x: Int8s) -> Array:
    return mean_s8(x, fp.mean_quant(graph, op), axes=op.axes, keep_dims=op.keep_dims)


# --- element by element ----------------------------------------------------------------------


def add_s8(a: Int8s, b: Int8s, q: fp.AddQuant, *, sign: int = 1) -> Int8s:
    """A + b, or a - b for a sign of -1, with broadcasting."""
    a_common = fp.apply(q.a, (a.astype(np.int64) - q.a_zp) << q.left_shift)
    b_common = fp.apply(q.b, (b.astype(np.int64) - q.b_zp) << q.left_shift)
    total = fp.apply(q.out, a_common + sign * b_common) + q.out_zp
    return np.clip(total, q.act_min, q.act_max).astype(np.int8)


def mul_s8(a: Int8s, b: Int8s, q: fp.MulQuant) -> Int8s:
    """A * b with broadcasting."""
    product = (a.astype(np.int64) - q.a_zp) * (b.astype(np.int64) - q.b_zp)
    return np.clip(fp.apply(q.out, product) + q.out_zp, q.act_min, q.act_max).astype(np.int8)


def requantize(x: Array, q: fp.RequantizeQuant) -> fp.Int64s:
    """Another scale, zero point or integer type; the caller casts."""
    scaled = fp.apply(q.out, x.astype(np.int64) - q.in_zp) + q.out_zp
    return np.minimum(np.maximum(scaled, q.out_min), q.out_max)


def quantize_f32(x: NDArray[np.float32], out: ir.Tensor) -> Array:
    """Nearest values of a tensor's type, halves away from zero; beyond its range saturates."""
    quotient = x / np.float32(out.scale)
    whole = np.trunc(quotient)
    # quotient - whole is exact in float32, where adding 0.5 would not be.
    rounded = whole + np.copysign(np.abs(quotient - whole) >= 0.5, quotient)
    low, high = fp.RANGES[out.dtype]
    shifted: Array = np.clip(rounded.astype(np.float64) + out.zero_point, low, high)
    return shifted.astype(out.dtype.numpy)


def dequantize(x: Array, tensor: ir.Tensor) -> NDArray[np.float32]:
    """Real values; the product is a double, rounded once to float."""
    centred = x.astype(np.int64) - tensor.zero_point
    return (tensor.scale * centred.astype(np.float64)).astype(np.float32)


def _add(graph: ir.Graph, op: ir.Add, a: Int8s, b: Int8s) -> Array:
    return add_s8(a, b, fp.add_quant(graph, op))


def _sub(graph: ir.Graph, op: ir.Sub, a: Int8s, b: Int8s) -> Array:
    return add_s8(a, b, fp.add_quant(graph, op), sign=-1)


def _mul(graph: ir.Graph, op: ir.Mul, a: Int8s, b: Int8s) -> Array:
    return mul_s8(a, b, fp.mul_quant(graph, op))


def _table(graph: ir.Graph, op: ir.Op, x: Array) -> Array:
    low = fp.RANGES[graph.tensors[op.inputs[0]].dtype][0]
    result: Array = fp.lut(graph, op)[x.astype(np.int64) - low]
    return result


def _quantize(graph: ir.Graph, op: ir.Quantize, x: Array) -> Array:
    out = graph.tensors[op.outputs[0]]
    if graph.tensors[op.inputs[0]].dtype is ir.DType.F32:
        return quantize_f32(x, out)
    return requantize(x, fp.requantize_quant(graph, op)).astype(out.dtype.numpy)


def _dequantize(graph: ir.Graph, op: ir.Dequantize, x: Array) -> Array:
    return dequantize(x, graph.tensors[op.inputs[0]])


# --- softmax ---------------------------------------------------------------------------------


def softmax_s8(x: Int8s, q: fp.SoftmaxQuant) -> Int8s:
    """Softmax over the last axis; the output has scale 1/256 and zero point -128."""
    difference = x.max(axis=-1, keepdims=True).astype(np.int64) - x
    exp = q.exp.astype(np.int64)[difference]
    # The sum is Q12.19, so 4096 terms fit.
    total = fp.wrap_int32(fp.rounding_divide_by_pot(exp, 12).sum(axis=-1, keepdims=True))
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # leading zeros
    fraction = (total << headroom) - 2**31  # total = (1 + fraction) * 2**(12 - headroom)
    reciprocal = fp.one_over_one_plus_x(fraction)
    product = fp.saturating_rounding_doubling_high_mul(reciprocal, exp)
    scaled = fp.rounding_divide_by_pot(product, 12 - headroom + 31 - 8) - 128
    return np.where(difference < q.cutoff, np.clip(scaled, -128, 127), -128).astype(np.int8)


def _softmax(graph: ir.Graph, op: ir.Softmax, x: Int8s) -> Array:
    return softmax_s8(x, fp.softmax_quant(graph, op))


# --- moving values ---------------------------------------------------------------------------


def _pad(_: ir.Graph, op: ir.Pad, x: Array) -> Array:
    return np.pad(x, op.pads, constant_values=op.value)


def _concatenation(_: ir.Graph, op: ir.Concatenation, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=op.axis)


def _reshape(graph: ir.Graph, op: ir.Reshape, x: Array) -> Array:
    return x.reshape(graph.tensors[op.outputs[0]].shape)


def _view(graph: ir.Graph, op: ir.View, x: Array) -> Array:
    out = graph.tensors[op.outputs[0]]
    first = op.offset_bytes // out.dtype.item_bytes
    return x.reshape(-1)[first : first + out.elements].reshape(out.shape)


def _join(graph: ir.Graph, op: ir.Join, *inputs: Array) -> Array:
    joined = np.concatenate([x.reshape(-1) for x in inputs])
    return joined.reshape(graph.tensors[op.outputs[0]].shape)


def _transpose(_: ir.Graph, op: ir.Transpose, x: Array) -> Array:
    return x.transpose(op.perm)


def _strided_slice(graph: ir.Graph, op: ir.StridedSlice, x: Array) -> Array:
    for axis, bounds in enumerate(zip(op.begin, op.end, op.stride, strict=True)):
        x = x.take(np.arange(*bounds), axis=axis)
    return x.reshape(graph.tensors[op.outputs[0]].shape)


_OPS: dict[type[ir.Op], Callable[..., Array]] = {
    ir.Conv2D: _conv2d,
    ir.DepthwiseConv2D: _depthwise_conv2d,
    ir.FullyConnected: _fully_connected,
    ir.AveragePool2D: _average_pool2d,
    ir.MaxPool2D: _max_pool2d,
    ir.Mean: _mean,
    ir.Add: _add,
    ir.Sub: _sub,
    ir.Mul: _mul,
    ir.Pad: _pad,
    ir.Concatenation: _concatenation,
    ir.Reshape: _reshape,
    ir.View: _view,
    ir.Join: _join,
    ir.Transpose: _transpose,
    ir.StridedSlice: _strided_slice,
    ir.Softmax: _softmax,
    ir.Logistic: _table,
    ir.Tanh: _table,
    ir.Relu: _table,
    ir.LeakyRelu: _table,
    ir.HardSwish: _table,
    ir.Quantize: _quantize,
    ir.Dequantize: _dequantize,
}
