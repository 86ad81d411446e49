"""Which values each channel of a tensor can take, whatever the inputs of the model are.

The channel is the last axis. Intervals go through every op with its own integer arithmetic, which
is monotonic in each sum: a channel whose two ends agree has that value for every input. What is
found so: weights that are all zero, sums that always saturate, scales too small to tell values
apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point as fp
from codegen import ir

Int64s = fp.Int64s

#: Of all tensors of a graph together.
_MAX_CHANNELS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """(channels,) the lowest and the highest value of each channel; both can be out of reach."""

    low: Int64s
    high: Int64s

    @property
    def is_constant(self) -> NDArray[np.bool_]:
        """(channels,) whether a channel has one value."""
        return np.asarray(self.low == self.high)

    def __or__(self, other: Interval) -> Interval:
        """All values of both."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def __getitem__(self, channels: Any) -> Interval:
        return Interval(self.low[channels], self.high[channels])

    def shifted(self, amount: int | Int64s) -> Interval:
        """The interval with a number added to both ends."""
        return Interval(self.low + amount, self.high + amount)

    def clipped(self, low: int, high: int) -> Interval:
        """What a clamp leaves."""
        return Interval(np.clip(self.low, low, high), np.clip(self.high, low, high))

    def merged(self, channels: int) -> Interval:
        """(channels,) all values of any channel, for each."""
        return Interval(np.full(channels, self.low.min()), np.full(channels, self.high.max()))


def channel_count(tensor: ir.Tensor) -> int:
    """Length of the last axis; 1 for a scalar."""
    return tensor.shape[-1] if tensor.shape else 1


def is_too_wide(graph: ir.Graph) -> bool:
    """Whether there are more channels than is worth the work: no such graph fits a board."""
    return sum(map(channel_count, graph.tensors)) > _MAX_CHANNELS


def whole_range(tensor: ir.Tensor) -> Interval:
    """Everything that a tensor's integer type can hold."""
    low, high = fp.RANGES[tensor.dtype]
    channels = channel_count(tensor)
    return Interval(np.full(channels, low, np.int64), np.full(channels, high, np.int64))


def channel_intervals(graph: ir.Graph) -> dict[int, Interval]:
    """The interval of each tensor of integers, by its index; constants have theirs too.

    Of a graph that is too wide each tensor has one interval, that of its type.
    """
    found: dict[int, Interval] = {}
    if is_too_wide(graph):
        for index, tensor in enumerate(graph.tensors):
            if tensor.dtype is not ir.DType.F32:
                low, high = fp.RANGES[tensor.dtype]
                found[index] = Interval(np.array([low]), np.array([high]))
        return found
    for index, tensor in enumerate(graph.tensors):
        if tensor.dtype is ir.DType.F32:
            continue
        if tensor.data is not None:
            rows = tensor.data.reshape(-1, channel_count(tensor)).astype(np.int64)
            found[index] = Interval(rows.min(axis=0), rows.max(axis=0))
        elif index in graph.inputs:
            found[index] = whole_range(tensor)
    for op in graph.ops:
        out = graph.tensors[op.outputs[0]]
        if out.dtype is not ir.DType.F32:
            rule = _RULES.get(type(op))
            known = all(i in found for i in op.inputs)
            found[op.outputs[0]] = (
                rule(graph, op, [found[i] for i in op.inputs])
                if rule is not None and known
                else whole_range(out)
            )
    return found


Weighted = ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected


def is_padded(op: ir.Op) -> bool:
    """Whether some window of a convolution reaches over the edge, where it sees the zero point."""
    return isinstance(op, ir.Conv2D | ir.DepthwiseConv2D) and op.padding != ir.Padding()


def layer_bias(graph: ir.Graph, op: Weighted) -> Int64s | int:
    """(out_c,) the bias of a layer, or 0."""
    if len(op.inputs) < 3:
        return 0
    data = graph.tensors[op.inputs[2]].data
    assert data is not None, "check has made sure that a bias is constant"
    return data.reshape(-1).astype(np.int64)


def layer_sums(graph: ir.Graph, op: Weighted, x: Interval) -> Interval:
    """(out_c,) the sums of products of a layer, bias included, before they wrap around.

    Args:
        graph: where the op is.
        op: the layer.
        x: of its first input.
    """
    centred = x.shifted(-graph.tensors[op.inputs[0]].zero_point)
    if is_padded(op):
        nothing = np.zeros_like(x.low)
        centred |= Interval(nothing, nothing)
    weights = graph.tensors[op.inputs[1]].data
    assert weights is not None, "check has made sure that weights are constant"
    taps = (0, 1, 2) if isinstance(op, ir.DepthwiseConv2D) else tuple(range(1, weights.ndim - 1))
    # (out_c, in_c), or (out_c,) of a depthwise convolution
    positive = np.maximum(weights, 0).sum(axis=taps, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(axis=taps, dtype=np.int64)
    if isinstance(op, ir.DepthwiseConv2D):
        source = centred[np.arange(len(positive)) // op.depth_multiplier]
        low = positive * source.low + negative * source.high
        high = positive * source.high + negative * source.low
    else:
        low = positive @ centred.low + negative @ centred.high
        high = positive @ centred.high + negative @ centred.low
    return Interval(low, high).shifted(layer_bias(graph, op))


def _rescaled(sums: Interval, value: int | fp.Int32s, shift: int | fp.Int32s) -> Interval:
    """Sums times a multiplier; all of int32 where a sum that wraps around may give anything."""
    left = np.maximum(shift, 0)
    fits = (sums.low >= fp.INT32_MIN >> left) & (sums.high <= fp.INT32_MAX >> left)
    fits |= sums.is_constant
    low, high = (
        fp.multiply_by_quantized_multiplier(fp.wrap_int32(end), value, shift)
        for end in (sums.low, sums.high)
    )
    return Interval(np.where(fits, low, fp.INT32_MIN), np.where(fits, high, fp.INT32_MAX))


def _weighted(graph: ir.Graph, op: Weighted, inputs: list[Interval]) -> Interval:
    quant = fp.conv_quant(graph, op)
    scaled = _rescaled(layer_sums(graph, op, inputs[0]), quant.multiplier, quant.shift)
    return scaled.shifted(quant.out_zp).clipped(quant.act_min, quant.act_max)


def _pool(graph: ir.Graph, op: ir.AveragePool2D | ir.MaxPool2D, inputs: list[Interval]) -> Interval:
    """A window holds an element of the image, and the mean of some values lies between them."""
    quant = fp.pool_quant(graph, op)
    return inputs[0].clipped(quant.act_min, quant.act_max)


def _mean(graph: ir.Graph, op: ir.Mean, inputs: list[Interval]) -> Interval:
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    quant = fp.mean_quant(graph, op)
    values = inputs[0]
    if len(x.shape) - 1 in op.axes:
        values = values.merged(channel_count(out))
    centred = values.shifted(-quant.in_zp)
    sums = Interval(centred.low * quant.count, centred.high * quant.count)
    return (
        _rescaled(sums, quant.out.value, quant.out.shift).shifted(quant.out_zp).clipped(-128, 127)
    )


def _sum(graph: ir.Graph, op: ir.Add | ir.Sub, inputs: list[Interval]) -> Interval:
    quant = fp.add_quant(graph, op)
    a = _on_common_scale(inputs[0].shifted(-quant.a_zp), quant.a, quant.left_shift)
    b = _on_common_scale(inputs[1].shifted(-quant.b_zp), quant.b, quant.left_shift)
    if isinstance(op, ir.Sub):
        b = Interval(-b.high, -b.low)
    sums = Interval(a.low + b.low, a.high + b.high)
    scaled = _rescaled(sums, quant.out.value, quant.out.shift)
    return scaled.shifted(quant.out_zp).clipped(quant.act_min, quant.act_max)


def _on_common_scale(centred: Interval, multiplier: fp.Multiplier, left_shift: int) -> Interval:
    """An addend before the sum; its multiplier is at most 0.5, so nothing wraps around."""
    low, high = (fp.apply(multiplier, end << left_shift) for end in (centred.low, centred.high))
    return Interval(low, high)


def _product(graph: ir.Graph, op: ir.Mul, inputs: list[Interval]) -> Interval:
    quant = fp.mul_quant(graph, op)
    a, b = inputs[0].shifted(-quant.a_zp), inputs[1].shifted(-quant.b_zp)
    corners = [p * q for p in (a.low, a.high) for q in (b.low, b.high)]
    products = Interval(np.minimum.reduce(corners), np.maximum.reduce(corners))
    scaled = _rescaled(products, quant.out.value, quant.out.shift)
    return scaled.shifted(quant.out_zp).clipped(quant.act_min, quant.act_max)


def _table(graph: ir.Graph, op: ir.Op, inputs: list[Interval]) -> Interval:
    """An op of one 8-bit value; it need not be monotonic."""
    x = graph.tensors[op.inputs[0]]
    if x.dtype not in (ir.DType.S8, ir.DType.U8):
        return whole_range(graph.tensors[op.outputs[0]])
    table = fp.lut(graph, op).astype(np.int64)
    first = fp.RANGES[x.dtype][0]
    # Most channels have the same ends.
    ends, channels = np.unique(
        np.stack([inputs[0].low, inputs[0].high]), axis=1, return_inverse=True
    )
    parts = [table[low - first : high - first + 1] for low, high in ends.T]
    low, high = (np.array([end(part) for part in parts])[channels] for end in (np.min, np.max))
    return Interval(low, high)


def _pad(_: ir.Graph, op: ir.Pad, inputs: list[Interval]) -> Interval:
    values = inputs[0]
    if any(before or after for before, after in op.pads[:-1]):
        value = np.full_like(values.low, op.value)
        values |= Interval(value, value)
    last = op.pads[-1] if op.pads else (0, 0)
    return Interval(
        *(np.pad(end, last, constant_values=op.value) for end in (values.low, values.high))
    )


def _concatenation(graph: ir.Graph, op: ir.Concatenation, inputs: list[Interval]) -> Interval:
    if op.axis == len(graph.tensors[op.outputs[0]].shape) - 1:
        return Interval(
            np.concatenate([each.low for each in inputs]),
            np.concatenate([each.high for each in inputs]),
        )
    joined = inputs[0]
    for each in inputs[1:]:
        joined |= each
    return joined


def _reshape(graph: ir.Graph, op: ir.Reshape, inputs: list[Interval]) -> Interval:
    """Element i of the bytes is of channel i % channels, before and after."""
    before, after = len(inputs[0].low), channel_count(graph.tensors[op.outputs[0]])
    if after % before == 0:
        return inputs[0][np.arange(after) % before]
    if before % after == 0:
        low, high = inputs[0].low.reshape(-1, after), inputs[0].high.reshape(-1, after)
        return Interval(low.min(axis=0), high.max(axis=0))
    return inputs[0].merged(after)


def _transpose(graph: ir.Graph, op: ir.Transpose, inputs: list[Interval]) -> Interval:
    if op.perm[-1:] == (len(op.perm) - 1,):
        return inputs[0]
    return inputs[0].merged(channel_count(graph.tensors[op.outputs[0]]))


def _strided_slice(graph: ir.Graph, op: ir.StridedSlice, inputs: list[Interval]) -> Interval:
    last = len(op.begin) - 1
    taken = inputs[0][np.arange(op.begin[last], op.end[last], op.stride[last])]
    if last in op.shrink:
        return taken.merged(channel_count(graph.tensors[op.outputs[0]]))
    return taken


#: Ops that are not here can give every value of their type.
_RULES: dict[type[ir.Op], Callable[..., Interval]] = {
    ir.Conv2D: _weighted,
    ir.DepthwiseConv2D: _weighted,
    ir.FullyConnected: _weighted,
    ir.AveragePool2D: _pool,
    ir.MaxPool2D: _pool,
    ir.Mean: _mean,
    ir.Add: _sum,
    ir.Sub: _sum,
    ir.Mul: _product,
    ir.Pad: _pad,
    ir.Concatenation: _concatenation,
    ir.Reshape: _reshape,
    ir.Transpose: _transpose,
    ir.StridedSlice: _strided_slice,
    ir.Logistic: _table,
    ir.Tanh: _table,
    ir.Relu: _table,
    ir.LeakyRelu: _table,
    ir.HardSwish: _table,
    ir.Quantize: _table,
}
