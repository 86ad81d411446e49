"""Channels that no output depends on are computed no more.

A channel is dropped where every reader can do without it: its weights for it are zero, or the
channel has one value for all inputs (codegen.intervals), which then goes into the reader's bias.
Only convolutions and dense layers can drop a channel of their input and keep those of their output;
all other ops drop a channel on both sides or on none. What remains is the least set that holds the
model's outputs and what they need; a channel of one value that remains is computed from no input.

A constant other than the zero point cannot go into the bias of a convolution that pads: at the
edges some of its products are missing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point, ir
from codegen.intervals import (
    Interval,
    channel_count,
    channel_intervals,
    is_padded,
    is_too_wide,
    layer_bias,
    layer_sums,
)
from codegen.passes import remove_dead_ops
from codegen.passes.rewrite import names, new_name

Flags = NDArray[np.bool_]
Groups = NDArray[np.intp]
Mixing = ir.Conv2D | ir.FullyConnected
#: Ops whose output channel i is made of channel i of each input.
_CHANNEL_BY_CHANNEL = (
    ir.AveragePool2D
    | ir.MaxPool2D
    | ir.Logistic
    | ir.Tanh
    | ir.Relu
    | ir.LeakyRelu
    | ir.HardSwish
    | ir.Quantize
    | ir.Dequantize
)


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with live channels only; the same graph if all are."""
    if is_too_wide(graph):
        return graph
    intervals = channel_intervals(graph)
    live = _live_channels(graph, intervals)
    rewriter = _Rewriter(graph, intervals, live)
    ops = tuple(rewriter.rewritten(op) for op in graph.ops if live[op.outputs[0]].any())
    if ops == graph.ops:
        return graph
    return remove_dead_ops.run(graph.with_ops(ops, rewriter.shrunk_tensors()))


# Which channels


def _live_channels(graph: ir.Graph, intervals: dict[int, Interval]) -> list[Flags]:
    """For each tensor which channels are needed, (channels,): the least sets that agree."""
    live = [np.zeros(channel_count(tensor), np.bool_) for tensor in graph.tensors]
    for index in (*graph.inputs, *graph.outputs):
        live[index][:] = True
    while True:
        before = _count(live)
        for op in (*reversed(graph.ops), *graph.ops):
            if live[op.outputs[0]].any():
                _require_inputs(graph, op, intervals, live)
        if _count(live) == before:
            return live


def _count(live: list[Flags]) -> int:
    return sum(int(flags.sum()) for flags in live)


def _require_inputs(
    graph: ir.Graph, op: ir.Op, intervals: dict[int, Interval], live: list[Flags]
) -> None:
    """Marks what an op needs of its inputs, and what it then gives without being asked."""
    if isinstance(op, Mixing):
        _require_products(graph, op, intervals, live)
        return
    groups = _groups(graph, op)
    for tensor in {*op.inputs, *op.outputs} - groups.keys():
        live[tensor][:] = True
    if not groups:
        return
    is_live = np.zeros(1 + max(int(of_tensor.max()) for of_tensor in groups.values()), np.bool_)
    for tensor, of_tensor in groups.items():
        is_live[of_tensor[live[tensor]]] = True
    for tensor, of_tensor in groups.items():
        live[tensor] |= is_live[of_tensor]
        live[tensor][0] |= not live[tensor].any()


def _require_products(
    graph: ir.Graph, op: Mixing, intervals: dict[int, Interval], live: list[Flags]
) -> None:
    x, out = op.inputs[0], op.outputs[0]
    weights = _data(graph, op.inputs[1])
    rows = live[out] & ~intervals[out].is_constant
    read = np.any(weights[rows] != 0, axis=tuple(range(weights.ndim - 1)))
    live[x] |= read & ~_goes_into_bias(graph, op, intervals[x])
    if not live[x].any():
        live[x][np.argmax(intervals[x].is_constant)] = True


def _goes_into_bias(graph: ir.Graph, op: Mixing, x: Interval) -> Flags:
    """(in_c,) whether a channel adds the same to each sum of an output channel."""
    constant = x.is_constant
    if is_padded(op):
        constant &= x.low == graph.tensors[op.inputs[0]].zero_point
    return constant


def _groups(graph: ir.Graph, op: ir.Op) -> dict[int, Groups]:
    """For each tensor of an op, the group of each channel: a group is dropped as a whole.

    Tensors that are left out keep all of their channels.
    """
    x, out = op.inputs[0], op.outputs[0]
    rank = len(graph.tensors[x].shape)
    in_c, out_c = channel_count(graph.tensors[x]), channel_count(graph.tensors[out])
    one_by_one = {x: np.arange(in_c), out: np.arange(in_c)}
    if isinstance(op, _CHANNEL_BY_CHANNEL):
        return one_by_one
    if isinstance(op, ir.DepthwiseConv2D):
        return {x: np.arange(in_c), out: np.arange(out_c) // op.depth_multiplier}
    if isinstance(op, ir.Add | ir.Sub | ir.Mul):
        wide = [i for i in (*op.inputs, out) if channel_count(graph.tensors[i]) == out_c]
        return {i: np.arange(out_c) for i in wide}
    if isinstance(op, ir.Reshape):
        channels = min(in_c, out_c)
        if max(in_c, out_c) % channels == 0:
            return {x: np.arange(in_c) % channels, out: np.arange(out_c) % channels}
    if isinstance(op, ir.Mean) and rank - 1 not in op.axes:
        return one_by_one
    if isinstance(op, ir.Pad) and op.pads[-1:] == ((0, 0),):
        return one_by_one
    if isinstance(op, ir.Transpose) and op.perm[-1:] == (rank - 1,):
        return one_by_one
    if isinstance(op, ir.StridedSlice) and rank - 1 not in op.shrink:
        begin, end, stride = op.begin[-1], op.end[-1], op.stride[-1]
        if (begin, end, stride) == (0, in_c, 1):
            return one_by_one
    if isinstance(op, ir.Concatenation):
        return _joined_groups(graph, op)
    return {}


def _joined_groups(graph: ir.Graph, op: ir.Concatenation) -> dict[int, Groups]:
    out = op.outputs[0]
    groups = np.arange(channel_count(graph.tensors[out]))
    if op.axis != len(graph.tensors[out].shape) - 1:
        return {i: groups for i in (*op.inputs, out)}
    if len(set(op.inputs)) < len(op.inputs):
        return {}
    joined = {out: groups}
    start = 0
    for i in op.inputs:
        end = start + channel_count(graph.tensors[i])
        joined[i] = groups[start:end]
        start = end
    return joined


# The graph without the others


def _data(graph: ir.Graph, tensor: int) -> NDArray[np.generic]:
    data = graph.tensors[tensor].data
    assert data is not None, "check has made sure that weights and biases are constant"
    return data


class _Rewriter:
    """Makes the ops over fewer channels, each with constants of its own."""

    def __init__(self, graph: ir.Graph, intervals: dict[int, Interval], live: list[Flags]) -> None:
        self._graph = graph
        self._intervals = intervals
        self._live = live
        self._made: list[ir.Tensor] = []
        self._names = names(graph)

    def shrunk_tensors(self) -> tuple[ir.Tensor, ...]:
        """All tensors, then the constants made; constants of before stay as they were."""
        shrunk = (
            tensor
            if tensor.is_constant or live.all()
            else replace(tensor, shape=(*tensor.shape[:-1], int(live.sum())))
            for tensor, live in zip(self._graph.tensors, self._live, strict=True)
        )
        return (*shrunk, *self._made)

    def rewritten(self, op: ir.Op) -> ir.Op:
        """The op on live channels."""
        if isinstance(op, Mixing):
            return self._mixing(op)
        kept = self._live[op.outputs[0]]
        if isinstance(op, ir.DepthwiseConv2D) and not kept.all():
            constants = [self._sliced(op, i, kept) for i in range(1, len(op.inputs))]
            return replace(op, inputs=(op.inputs[0], *constants))
        if isinstance(op, ir.StridedSlice) and not self._live[op.inputs[0]].all():
            return replace(op, end=(*op.end[:-1], int(self._live[op.inputs[0]].sum())))
        inputs = tuple(
            self._sliced(op, i, self._live[tensor]) if self._is_cut(tensor) else tensor
            for i, tensor in enumerate(op.inputs)
        )
        return op if inputs == op.inputs else replace(op, inputs=inputs)

    def _is_cut(self, tensor: int) -> bool:
        """Whether a constant loses channels."""
        return self._graph.tensors[tensor].is_constant and not self._live[tensor].all()

    def _sliced(self, op: ir.Op, position: int, kept: Flags) -> int:
        """The kept channels of a constant operand; its only or last axis has them."""
        tensor = self._graph.tensors[op.inputs[position]]
        data = _data(self._graph, op.inputs[position])[..., kept]
        return self._constant(op, position, data, _kept_scales(tensor.quant, kept))

    def _mixing(self, op: Mixing) -> ir.Op:
        """A convolution or dense layer: rows, columns, and the bias with the constants in it."""
        x, out = op.inputs[0], op.outputs[0]
        columns, rows = self._live[x], self._live[out]
        weights = _data(self._graph, op.inputs[1])
        is_constant = self._intervals[out].is_constant
        idle = is_constant & np.any(weights != 0, axis=tuple(range(1, weights.ndim)))
        if columns.all() and rows.all() and not idle.any():
            return op
        values = self._intervals[x]
        centred = values.low - self._graph.tensors[x].zero_point
        folded = ~columns & _goes_into_bias(self._graph, op, values)
        per_channel = weights.sum(axis=tuple(range(1, weights.ndim - 1)), dtype=np.int64)
        bias = layer_bias(self._graph, op) + per_channel[:, folded] @ centred[folded]
        # Any sum that a constant channel can reach gives its value.
        bias = np.where(is_constant, layer_sums(self._graph, op, values).low, bias)
        weights = np.where(is_constant.reshape(-1, *(1,) * (weights.ndim - 1)), 0, weights)
        quant = self._graph.tensors[op.inputs[1]].quant
        live_weights = weights[rows][..., columns].astype(np.int8)
        # A bias wraps around as the sum does that it is part of.
        live_bias = fixed_point.wrap_int32(bias)[rows].astype(np.int32)
        return replace(
            op,
            inputs=(
                x,
                self._constant(op, 1, live_weights, _kept_scales(quant, rows)),
                self._constant(op, 2, live_bias, None),
            ),
        )

    def _constant(
        self, op: ir.Op, position: int, data: NDArray[np.generic], quant: ir.Quant | None
    ) -> int:
        """A new constant for an operand; returns its index."""
        data = np.ascontiguousarray(data)
        data.setflags(write=False)
        dtype = ir.DType.S32 if data.dtype == np.int32 else ir.DType.S8
        name = new_name(f"{op.name}_operand{position}", self._names)
        self._names.add(name)
        self._made.append(ir.Tensor(name, data.shape, dtype, quant, data))
        return len(self._graph.tensors) + len(self._made) - 1


def _kept_scales(quant: ir.Quant | None, kept: Flags) -> ir.Quant | None:
    """The quantisation of a constant that keeps these slices of its axis."""
    if quant is None or not quant.is_per_channel:
        return quant
    scales = tuple(np.array(quant.scale)[kept].tolist())
    zero_points = tuple(np.array(quant.zero_point)[kept].tolist())
    return ir.Quant(scales, zero_points, quant.axis if len(scales) > 1 else None)
