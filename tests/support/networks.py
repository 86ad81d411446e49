"""Small random networks: chains with residual adds and concatenated branches, as a search makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from graphs import Builder, random_quant

from codegen import ir

Rng = np.random.Generator


def random_network(rng: Rng, *, blocks: int | None = None, size: int | None = None) -> ir.Graph:
    """A classifier of images: a few blocks, then a mean or pool, a dense layer and a softmax.

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
        block = (_plain, _inverted_residual, _branches, _gated)[rng.integers(4)]
        x = block(b, x)
    return b.graph([_head(b, x)])


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


def _head(b: Builder, x: int) -> int:
    _, h, w, c = b.shape(x)
    if b.rng.random() < 0.5:
        x = b.mean(x, (1, 2))
    else:
        x = b.reshape(b.pool(ir.AveragePool2D, x, (h, w)), (1, c))
    return b.softmax(b.fully_connected(x, int(b.rng.choice([2, 10])), per_channel=False))


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
