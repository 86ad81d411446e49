"""A network before training: layers with shapes, and a hash that is equal for equal networks.

Spaces build it, training turns it into torch (network.py), quantisation into a graph (quantize.py).
A signal of length L with C channels is an image of height 1: (1, L, C). Not here: weights.

Values are numbered: 0 is the input image, node i gives value i + 1. Padding is TFLite's SAME
everywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass

from codegen.ir import Padding

#: (height, width, channels) of one image or feature map.
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution with bias (batch normalisation while training), then ReLU if `relu`."""

    x: int
    out_c: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    relu: bool


@dataclass(frozen=True, slots=True)
class Depthwise:
    """Depthwise convolution with bias (batch normalisation while training), then ReLU."""

    x: int
    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sum:
    """Element-wise a + b of two feature maps of one shape."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class GlobalMean:
    """Mean over height and width."""

    x: int


@dataclass(frozen=True, slots=True)
class Dense:
    """Fully connected layer; `out` logits."""

    x: int
    out: int


Node = Conv | Depthwise | Sum | GlobalMean | Dense


@dataclass(frozen=True, slots=True)
class Architecture:
    """Nodes in an order of execution, the last gives the output; `shapes[i]` is that of value i."""

    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]

    @property
    def input_shape(self) -> Shape:
        """Shape of the image."""
        return self.shapes[0]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.shapes[-1][2]

    @property
    def hash(self) -> str:
        """SHA-256: equal for points of any space exactly when they give the same network."""
        nodes = [[type(node).__name__, *dataclasses.astuple(node)] for node in self.nodes]
        return hashlib.sha256(json.dumps([self.input_shape, nodes]).encode()).hexdigest()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(self._macs_and_weights(i)[0] for i in range(len(self.nodes)))

    @property
    def weights(self) -> int:
        """Number of weights, biases not counted."""
        return sum(self._macs_and_weights(i)[1] for i in range(len(self.nodes)))

    @property
    def summary(self) -> str:
        """A few words for tables."""
        convs = [n for n in self.nodes if isinstance(n, Conv | Depthwise)]
        skips = sum(isinstance(n, Sum) for n in self.nodes)
        widest = max((shape[2] for shape in self.shapes[1:-1]), default=0)
        return (
            f"{len(convs)} conv, {widest} ch"
            + (f", {skips} skips" if skips else "")
            + f", {self.macs / 1e6:.2f} MMAC, {self.weights / 1e3:.1f} kweights"
        )

    def _macs_and_weights(self, index: int) -> tuple[int, int]:
        node = self.nodes[index]
        out_h, out_w, out_c = self.shapes[index + 1]
        if isinstance(node, Conv):
            weights = math.prod(node.kernel) * self.shapes[node.x][2] * out_c
        elif isinstance(node, Depthwise):
            weights = math.prod(node.kernel) * out_c
        elif isinstance(node, Dense):
            weights = self.shapes[node.x][2] * node.out
        else:
            weights = 0
        return weights * out_h * out_w, weights


def same_padding(in_shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Padding:
    """TFLite's SAME padding: ceil(in / stride) outputs, an odd element goes after."""
    (top, bottom), (left, right) = (
        _same_padding_1d(in_shape[axis], kernel[axis], stride[axis]) for axis in (0, 1)
    )
    return Padding(top, bottom, left, right)


def _same_padding_1d(size: int, kernel: int, stride: int) -> tuple[int, int]:
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Builder:
    """Adds layers one by one; every method returns the number of the value that it made.

    Layers are canonical: a kernel is cut to 2 * size - 1, since with SAME padding its other taps
    would only ever see padding, and an axis of one element has stride 1. So a 7x7 and a 5x5 kernel
    on a 2x2 map are the same 3x3 layer, and a signal (height 1) gets one-dimensional kernels
    without a rule of its own.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._nodes: list[Node] = []
        self._shapes: list[Shape] = [input_shape]

    def shape(self, x: int) -> Shape:
        """Shape of a value."""
        return self._shapes[x]

    def conv(self, x: int, out_c: int, kernel: int, *, stride: int = 1, relu: bool = True) -> int:
        """A square convolution with `out_c` channels."""
        kernel_hw, stride_hw, (h, w) = self._window(x, kernel, stride)
        return self._add(Conv(x, out_c, kernel_hw, stride_hw, relu), (h, w, out_c))

    def depthwise(self, x: int, kernel: int, *, stride: int = 1) -> int:
        """A square depthwise convolution."""
        kernel_hw, stride_hw, (h, w) = self._window(x, kernel, stride)
        return self._add(Depthwise(x, kernel_hw, stride_hw), (h, w, self._shapes[x][2]))

    def sum(self, a: int, b: int) -> int:
        """Element-wise sum."""
        assert self._shapes[a] == self._shapes[b], "a skip joins maps of one shape"
        return self._add(Sum(a, b), self._shapes[a])

    def classifier(self, x: int, classes: int) -> Architecture:
        """Global mean and a dense layer of logits; ends the network."""
        mean = self._add(GlobalMean(x), (1, 1, self._shapes[x][2]))
        self._add(Dense(mean, classes), (1, 1, classes))
        return Architecture(tuple(self._nodes), tuple(self._shapes))

    def _window(
        self, x: int, kernel: int, stride: int
    ) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        h, w, _ = self._shapes[x]
        stride_h, stride_w = (min(stride, size) for size in (h, w))
        kernel_h, kernel_w = (min(kernel, 2 * size - 1) for size in (h, w))
        return (kernel_h, kernel_w), (stride_h, stride_w), (-(-h // stride_h), -(-w // stride_w))

    def _add(self, node: Node, shape: Shape) -> int:
        self._nodes.append(node)
        self._shapes.append(shape)
        return len(self._shapes) - 1
