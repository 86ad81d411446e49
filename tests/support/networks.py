"""Small random networks: blocks as searches and converters make them, one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from graphs import Builder, random_quant

from codegen import ir

Rng = np.random.Generator


def random_network(rng: Rng, *, blocks: int | None = None, size: int | None = None) -> ir.Graph:
    """A classifier of images: a few blocks, then a mean or pool, a dense layer and a softmax.

    Half of them have dead channels; some have more than one output.

    Args:
        rng: decides everything.
        blocks: number of blocks; 1 to 4 if not given.
        size: height and width of the input; 6 to 13 if not given.
    """
    b = Builder(rng, name="network")
    side = int(rng.integers(6, 14)) if size is None else size
    x = b.input((1, side, side, int(rng.choice([1, 3]))), random_quant(rng))
    x = b.conv2d(x, int(rng.choice([4, 6, 8])), (3, 3), stride=(2, 2), activation=_relu(rng))
    for _ in range(int(rng.integers(1, 5)) if blocks is None else blocks):
        x = _BLOCKS[rng.integers(len(_BLOCKS))](b, x)
    graph = b.graph(_head(b, x))
    return graph if rng.random() < 0.5 else with_dead_channels(rng, graph)


def _relu(rng: Rng) -> ir.Activation:
    return ir.Activation.RELU6 if rng.random() < 0.5 else ir.Activation.RELU


def _plain(b: Builder, x: int) -> int:
    """A convolution, perhaps with a stride or a rectangular kernel."""
    rng = b.rng
    kernel = ((1, 1), (3, 3), (5, 5), (3, 1), (1, 4))[rng.integers(5)]
    stride = (1, 1) if rng.random() < 0.6 else (2, 2)
    channels = int(rng.choice([4, 5, 8, 12]))
    return b.conv2d(x, channels, kernel, stride=stride, activation=_relu(rng))


def _inverted_residual(b: Builder, x: int) -> int:
    """Expand, filter each channel, project, and add the input."""
    in_c = b.shape(x)[3]
    y = b.conv2d(x, in_c * int(b.rng.choice([2, 3])), (1, 1), activation=_relu(b.rng))
    y = b.depthwise_conv2d(y, (3, 3), activation=_relu(b.rng))
    y = b.conv2d(y, in_c, (1, 1))
    return b.elementwise(ir.Add, x, y)


def _branches(b: Builder, x: int) -> int:
    """Two convolutions and a pool of the same input, joined along the channels."""
    quant = random_quant(b.rng, scale=b.tensors[x].scale)
    y = b.conv2d(x, 4, (1, 1), out_quant=quant, activation=_relu(b.rng))
    z = b.conv2d(x, 3, (3, 3), out_quant=quant, activation=_relu(b.rng))
    pooled = b.pool(ir.MaxPool2D, x, (3, 3), padding="SAME")
    pooled = b.quantize(pooled, ir.DType.S8, out_quant=quant)
    return b.concatenation([y, z, pooled], 3)


def _gated(b: Builder, x: int) -> int:
    """Squeeze and excite: each channel is scaled by a number in [0, 1] that depends on all."""
    in_c = b.shape(x)[3]
    gate = b.mean(x, (1, 2), keep_dims=True)
    gate = b.conv2d(gate, max(in_c // 2, 1), (1, 1), activation=ir.Activation.RELU)
    gate = b.logistic(b.conv2d(gate, in_c, (1, 1)))
    return b.elementwise(ir.Mul, x, gate)


def _padded(b: Builder, x: int) -> int:
    """An explicit PAD before a window that has none, as converters from other layouts write it."""
    y = b.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)))
    _, h, w, _ = b.shape(y)
    kernel = (min(h, 3), min(w, 3))
    choice = b.rng.integers(3)
    if choice == 0:
        return b.pool(ir.MaxPool2D, y, kernel, stride=(2, 2))
    if choice == 1:
        return b.depthwise_conv2d(y, kernel, stride=(2, 2), padding="VALID", depth_multiplier=2)
    return b.conv2d(y, 6, kernel, padding="VALID", activation=_relu(b.rng))


def _rows_apart(b: Builder, x: int) -> int:
    """The upper and the lower rows, each with weights of its own, joined again."""
    _, h, w, c = b.shape(x)
    middle = max(1, h // 2)
    quant = random_quant(b.rng, scale=b.tensors[x].scale)
    parts = [(0, middle), (middle, h)] if h > 1 else [(0, 1), (0, 1)]
    made = []
    for begin, end in parts:
        rows = b.strided_slice(x, (0, begin, 0, 0), (1, end, w, c), (1, 1, 1, 1))
        made.append(b.conv2d(rows, 4, (1, 3), out_quant=quant, activation=_relu(b.rng)))
    return b.concatenation(made, 1)


def _shuffled(b: Builder, x: int) -> int:
    """Channels dealt out anew: a reshape, a transpose and a reshape; then a depthwise layer."""
    n, h, w, c = b.shape(x)
    groups = next(g for g in (3, 2, 1) if c % g == 0)
    y = b.transpose(b.reshape(x, (n, h, w, groups, c // groups)), (0, 1, 2, 4, 3))
    return b.depthwise_conv2d(b.reshape(y, (n, h, w, c)), (3, 3), dilation=(1, 2))


def _by_value(b: Builder, x: int) -> int:
    """Activations that stand alone, a change of scale, and arithmetic with a constant."""
    c = b.shape(x)[3]
    y = (b.hard_swish, b.tanh, b.relu, lambda t: b.leaky_relu(t, 0.1))[b.rng.integers(4)](x)
    y = b.quantize(y, ir.DType.S8, out_quant=random_quant(b.rng, scale=b.tensors[y].scale))
    constant = b.constant(b.rng.integers(-128, 128, (c,)), ir.DType.S8, random_quant(b.rng))
    y = b.elementwise((ir.Mul, ir.Add)[b.rng.integers(2)], y, constant)
    return b.elementwise(ir.Sub, x, y, activation=_relu(b.rng))


_BLOCKS = (
    _plain, _inverted_residual, _branches, _gated, _padded, _rows_apart, _shuffled, _by_value,
)  # fmt: skip


def _head(b: Builder, x: int) -> list[int]:
    _, h, w, c = b.shape(x)
    choice = b.rng.integers(3)
    if choice == 0:
        y = b.mean(x, (1, 2))
    elif choice == 1:
        y = b.reshape(b.pool(ir.AveragePool2D, x, (h, w)), (1, c))
    else:
        y = b.reshape(x, (1, h * w * c))
    y = b.fully_connected(y, int(b.rng.choice([2, 10])), per_channel=False)
    outputs = [b.softmax(y)]
    return outputs if b.rng.random() < 0.8 else [*outputs, b.logistic(y)]


def with_dead_channels(rng: Rng, graph: ir.Graph) -> ir.Graph:
    """The graph with channels that are constant or that nobody reads, as sparse training leaves.

    Some weights become zero, by rows and by columns; some biases become zero or saturate the sum.
    """
    tensors = list(graph.tensors)
    for op in graph.ops:
        if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected):
            _, weight, *bias = op.inputs
            data = graph.tensors[weight].data.copy()
            # Rows are output channels; those of a depthwise convolution are its last axis.
            axes = (3,) if isinstance(op, ir.DepthwiseConv2D) else (0, data.ndim - 1)
            for axis in axes:
                is_dead = rng.random(data.shape[axis]) < rng.choice([0, 0.3, 0.8])
                np.moveaxis(data, axis, 0)[is_dead] = 0
            tensors[weight] = replace(graph.tensors[weight], data=data)
            for index in bias:
                values = graph.tensors[index].data.copy()
                values[rng.random(values.shape) < rng.choice([0, 0.5])] = 0
                values[rng.random(values.shape) < rng.choice([0, 0.3])] = rng.choice([-1, 1]) << 30
                tensors[index] = replace(graph.tensors[index], data=values)
    return graph.with_ops(graph.ops, tuple(tensors))
