"""Graphs to test with: one op each, and small random networks.

Every builder takes a numpy Generator first and gives a whole `ir.Graph` with random weights,
constants and quantisation. Output scales are chosen from the real values that random inputs give,
so that results spread over the range of the type instead of saturating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from codegen import ir

Shape = tuple[int, ...]
Array = np.ndarray

ZERO_POINTS = (-128, -127, -77, -1, 0, 1, 5, 63, 126, 127)

LOGISTIC_QUANT = ir.Quant((1 / 256,), (-128,))
TANH_QUANT = ir.Quant((1 / 128,), (0,))


def f32(value: float) -> float:
    """The nearest float32: scales in a file have no more digits."""
    return float(np.float32(value))


def random_quant(
    rng: np.random.Generator, *, scale: float | None = None, zero_point: int | None = None
) -> ir.Quant:
    """A per-tensor quantisation; scales span what real networks have."""
    if scale is None:
        scale = math.exp(rng.uniform(math.log(1e-3), math.log(0.5)))
    if zero_point is None:
        zero_point = int(rng.choice(ZERO_POINTS)) if rng.random() < 0.5 else _any_s8(rng)
    return ir.Quant((f32(scale),), (zero_point,))


def _any_s8(rng: np.random.Generator) -> int:
    return int(rng.integers(-128, 128))


def random_input(rng: np.random.Generator, tensor: ir.Tensor) -> Array:
    """A value for an input of a graph: all of the type's range, now and then mostly its ends."""
    if tensor.dtype is ir.DType.F32:
        return (rng.standard_normal(tensor.shape) * 3).astype(np.float32)
    info = np.iinfo(tensor.dtype.numpy)
    if rng.random() < 0.2:
        return rng.choice([info.min, info.max], tensor.shape).astype(tensor.dtype.numpy)
    return rng.integers(info.min, info.max + 1, tensor.shape).astype(tensor.dtype.numpy)


def random_inputs(rng: np.random.Generator, graph: ir.Graph) -> list[Array]:
    """One random value per input of the graph."""
    return [random_input(rng, graph.tensors[i]) for i in graph.inputs]


class Builder:
    """Collects tensors and ops; `graph` makes them a Graph. Tensors are named by their index."""

    def __init__(self, rng: np.random.Generator, name: str = "test") -> None:
        self.rng = rng
        self.name = name
        self.tensors: list[ir.Tensor] = []
        self.ops: list[ir.Op] = []
        self.inputs: list[int] = []

    def activation(
        self, shape: Shape, quant: ir.Quant | None = None, dtype: ir.DType = ir.DType.S8
    ) -> int:
        """A tensor that an op computes; float ones have no quantisation."""
        if quant is None and dtype is not ir.DType.F32:
            quant = random_quant(self.rng)
            if dtype is ir.DType.U8:
                quant = ir.Quant(quant.scale, (quant.zero_point[0] + 128,))
            elif dtype is ir.DType.S16:
                quant = ir.Quant(quant.scale, (0,))
        self.tensors.append(ir.Tensor(f"t{len(self.tensors)}", shape, dtype, quant))
        return len(self.tensors) - 1

    def input(
        self, shape: Shape, quant: ir.Quant | None = None, dtype: ir.DType = ir.DType.S8
    ) -> int:
        """An input of the graph."""
        index = self.activation(shape, quant, dtype)
        self.inputs.append(index)
        return index

    def constant(self, data: Array, dtype: ir.DType, quant: ir.Quant | None = None) -> int:
        """A constant tensor."""
        data = data.astype(dtype.numpy)
        data.setflags(write=False)
        self.tensors.append(ir.Tensor(f"t{len(self.tensors)}", data.shape, dtype, quant, data))
        return len(self.tensors) - 1

    def weights(self, shape: Shape, axis: int, *, per_channel: bool = True) -> int:
        """Symmetric s8 weights, quantised along `axis`; some channels may be all zero."""
        count = shape[axis] if per_channel else 1
        scales = tuple(f32(s) for s in np.exp(self.rng.uniform(-6.5, -3, count)))
        data = self.rng.integers(-127, 128, shape)
        if shape[axis] > 2 and self.rng.random() < 0.2:
            np.moveaxis(data, axis, 0)[self.rng.integers(shape[axis])] = 0
        quant = ir.Quant(scales, (0,) * count, axis if count > 1 else None)
        return self.constant(data, ir.DType.S8, quant)

    def bias(self, x: int, weight: int, channels: int, spread: float) -> int:
        """s32 bias whose values are of the order of `spread` accumulator units."""
        w = self.tensors[weight].quant
        assert w is not None
        scale = tuple(self.tensors[x].scale * s for s in w.scale)
        data = np.rint(self.rng.standard_normal(channels) * spread)
        quant = ir.Quant(scale, (0,) * len(scale), 0 if len(scale) > 1 else None)
        return self.constant(data, ir.DType.S32, quant)

    def add(self, op: ir.Op) -> int:
        """Append an op; returns its output tensor."""
        self.ops.append(op)
        return op.outputs[0]

    def op_name(self, kind: str) -> str:
        """A unique name for the next op."""
        return f"{kind}_{len(self.ops)}"

    def shape(self, tensor: int) -> Shape:
        """Shape of a tensor."""
        return self.tensors[tensor].shape

    def graph(self, outputs: Sequence[int]) -> ir.Graph:
        """All of it as a graph; constants take no part in its inputs."""
        made = ir.Graph(
            name=self.name,
            sha256="0" * 64,
            tensors=tuple(self.tensors),
            ops=tuple(self.ops),
            inputs=tuple(self.inputs),
            outputs=tuple(outputs),
        )
        return ir.Graph(
            name=made.name,
            sha256=made.sha256,
            tensors=made.tensors,
            ops=made.ops,
            inputs=made.inputs,
            outputs=made.outputs,
            nominal_macs=ir.graph_macs(made),
        )

    # --- ops; each returns the index of its output ---

    def conv2d(
        self,
        x: int,
        out_c: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str | ir.Padding = "SAME",
        activation: ir.Activation = ir.Activation.NONE,
        bias: bool = True,
        per_channel: bool = True,
        out_quant: ir.Quant | None = None,
    ) -> int:
        """CONV_2D with random weights."""
        n, h, w, in_c = self.shape(x)
        weight = self.weights((out_c, *kernel, in_c), 0, per_channel=per_channel)
        pads = resolve_padding(padding, (h, w), kernel, stride, dilation)
        out_h, out_w = out_size((h, w), kernel, stride, dilation, pads)
        taps = kernel[0] * kernel[1] * in_c
        return self._convolution(
            ir.Conv2D, x, weight, (n, out_h, out_w, out_c), taps, bias, activation, out_quant,
            stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0],
            dilation_w=dilation[1], padding=pads,
        )  # fmt: skip

    def depthwise_conv2d(
        self,
        x: int,
        kernel: tuple[int, int],
        *,
        depth_multiplier: int = 1,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str | ir.Padding = "SAME",
        activation: ir.Activation = ir.Activation.NONE,
        bias: bool = True,
        per_channel: bool = True,
        out_quant: ir.Quant | None = None,
    ) -> int:
        """DEPTHWISE_CONV_2D with random weights."""
        n, h, w, in_c = self.shape(x)
        out_c = in_c * depth_multiplier
        weight = self.weights((1, *kernel, out_c), 3, per_channel=per_channel)
        pads = resolve_padding(padding, (h, w), kernel, stride, dilation)
        out_h, out_w = out_size((h, w), kernel, stride, dilation, pads)
        taps = kernel[0] * kernel[1]
        return self._convolution(
            ir.DepthwiseConv2D, x, weight, (n, out_h, out_w, out_c), taps, bias, activation,
            out_quant, stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0],
            dilation_w=dilation[1], padding=pads, depth_multiplier=depth_multiplier,
        )  # fmt: skip

    def fully_connected(
        self,
        x: int,
        out_features: int,
        *,
        activation: ir.Activation = ir.Activation.NONE,
        bias: bool = True,
        per_channel: bool = False,
        out_quant: ir.Quant | None = None,
    ) -> int:
        """FULLY_CONNECTED with random weights over the last axis of x."""
        *batch, features = self.shape(x)
        weight = self.weights((out_features, features), 0, per_channel=per_channel)
        return self._convolution(
            ir.FullyConnected, x, weight, (*batch, out_features), features, bias, activation,
            out_quant,
        )  # fmt: skip

    def _convolution(
        self,
        cls: type[ir.Op],
        x: int,
        weight: int,
        out_shape: Shape,
        taps: int,
        bias: bool,
        activation: ir.Activation,
        out_quant: ir.Quant | None,
        **attributes: object,
    ) -> int:
        # Standard deviation of a sum of `taps` products of uniform values.
        spread = 73 * 73 * math.sqrt(taps)
        inputs = (x, weight)
        if bias:
            inputs += (self.bias(x, weight, out_shape[-1], spread / 2),)
        if out_quant is None:
            w = self.tensors[weight].quant
            assert w is not None
            real = spread * self.tensors[x].scale * float(np.median(w.scale))
            out_quant = random_quant(self.rng, scale=real / 50 * self.rng.uniform(0.5, 2))
        out = self.activation(out_shape, out_quant)
        return self.add(
            cls(
                name=self.op_name(cls.kind.lower()), inputs=inputs, outputs=(out,),
                activation=activation, **attributes,
            )  # type: ignore[call-arg]
        )  # fmt: skip

    def pool(
        self,
        cls: type[ir.AveragePool2D] | type[ir.MaxPool2D],
        x: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: str | ir.Padding = "VALID",
        activation: ir.Activation = ir.Activation.NONE,
    ) -> int:
        """AVERAGE_POOL_2D or MAX_POOL_2D; the output keeps the quantisation of x."""
        n, h, w, c = self.shape(x)
        pads = resolve_padding(padding, (h, w), kernel, stride)
        out = self.activation(
            (n, *out_size((h, w), kernel, stride, (1, 1), pads), c), self.tensors[x].quant
        )
        return self.add(
            cls(
                name=self.op_name(cls.kind.lower()), inputs=(x,), outputs=(out,),
                kh=kernel[0], kw=kernel[1], stride_h=stride[0], stride_w=stride[1],
                padding=pads, activation=activation,
            )
        )  # fmt: skip

    def elementwise(
        self,
        cls: type[ir.Add] | type[ir.Sub] | type[ir.Mul],
        a: int,
        b: int,
        *,
        activation: ir.Activation = ir.Activation.NONE,
        out_quant: ir.Quant | None = None,
    ) -> int:
        """ADD, SUB or MUL with broadcasting."""
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        a_real, b_real = (self.tensors[i].scale * 100 for i in (a, b))
        real = a_real * b_real if cls is ir.Mul else a_real + b_real
        if out_quant is None:
            out_quant = random_quant(self.rng, scale=real / 100 * self.rng.uniform(0.5, 2))
        out = self.activation(shape, out_quant)
        return self.add(
            cls(name=self.op_name(cls.kind.lower()), inputs=(a, b), outputs=(out,),
                activation=activation)
        )  # fmt: skip

    def mean(
        self, x: int, axes: tuple[int, ...], *, keep_dims: bool = False,
        out_quant: ir.Quant | None = None,
    ) -> int:  # fmt: skip
        """MEAN over axes."""
        shape = self.shape(x)
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        dropped = tuple(n for i, n in enumerate(shape) if i not in axes)
        count = math.prod(shape[i] for i in axes)
        if out_quant is None:
            real = 73 * self.tensors[x].scale / math.sqrt(count)
            out_quant = random_quant(self.rng, scale=real / 50 * self.rng.uniform(0.5, 2))
        out = self.activation(kept if keep_dims else dropped, out_quant)
        return self.add(
            ir.Mean(name=self.op_name("mean"), inputs=(x,), outputs=(out,), axes=axes,
                    keep_dims=keep_dims)
        )  # fmt: skip

    def pad(self, x: int, pads: tuple[tuple[int, int], ...], *, value: int | None = None) -> int:
        """PAD with the zero point, or with `value`."""
        tensor = self.tensors[x]
        shape = tuple(
            n + before + after for n, (before, after) in zip(tensor.shape, pads, strict=True)
        )
        out = self.activation(shape, tensor.quant)
        value = tensor.zero_point if value is None else value
        return self.add(
            ir.Pad(name=self.op_name("pad"), inputs=(x,), outputs=(out,), pads=pads, value=value)
        )

    def concatenation(self, inputs: Sequence[int], axis: int) -> int:
        """CONCATENATION of tensors of one quantisation."""
        shape = list(self.shape(inputs[0]))
        shape[axis] = sum(self.shape(i)[axis] for i in inputs)
        out = self.activation(tuple(shape), self.tensors[inputs[0]].quant)
        return self.add(
            ir.Concatenation(
                name=self.op_name("concat"), inputs=tuple(inputs), outputs=(out,), axis=axis
            )
        )

    def reshape(self, x: int, shape: Shape) -> int:
        """RESHAPE."""
        assert math.prod(shape) == math.prod(self.shape(x))
        out = self.activation(shape, self.tensors[x].quant)
        return self.add(ir.Reshape(name=self.op_name("reshape"), inputs=(x,), outputs=(out,)))

    def transpose(self, x: int, perm: tuple[int, ...]) -> int:
        """TRANSPOSE."""
        shape = tuple(self.shape(x)[i] for i in perm)
        out = self.activation(shape, self.tensors[x].quant)
        return self.add(
            ir.Transpose(name=self.op_name("transpose"), inputs=(x,), outputs=(out,), perm=perm)
        )

    def strided_slice(
        self,
        x: int,
        begin: tuple[int, ...],
        end: tuple[int, ...],
        stride: tuple[int, ...],
        shrink: tuple[int, ...] = (),
    ) -> int:
        """STRIDED_SLICE; indices resolved as in the IR (an end of -1 with a negative stride)."""
        lengths = [len(range(b, e, s)) for b, e, s in zip(begin, end, stride, strict=True)]
        shape = tuple(n for i, n in enumerate(lengths) if i not in shrink)
        out = self.activation(shape, self.tensors[x].quant)
        return self.add(
            ir.StridedSlice(
                name=self.op_name("slice"), inputs=(x,), outputs=(out,), begin=begin, end=end,
                stride=stride, shrink=shrink,
            )
        )  # fmt: skip

    def softmax(self, x: int, *, beta: float = 1.0) -> int:
        """SOFTMAX over the last axis."""
        out = self.activation(self.shape(x), LOGISTIC_QUANT)
        return self.add(
            ir.Softmax(name=self.op_name("softmax"), inputs=(x,), outputs=(out,), beta=f32(beta))
        )

    def logistic(self, x: int) -> int:
        """LOGISTIC."""
        out = self.activation(self.shape(x), LOGISTIC_QUANT)
        return self.add(ir.Logistic(name=self.op_name("logistic"), inputs=(x,), outputs=(out,)))

    def tanh(self, x: int) -> int:
        """TANH."""
        out = self.activation(self.shape(x), TANH_QUANT)
        return self.add(ir.Tanh(name=self.op_name("tanh"), inputs=(x,), outputs=(out,)))

    def relu(
        self,
        x: int,
        activation: ir.Activation = ir.Activation.RELU,
        *,
        out_quant: ir.Quant | None = None,
    ) -> int:
        """RELU, which may change the scale, or RELU6, which keeps it."""
        if out_quant is None:
            out_quant = self.tensors[x].quant
        out = self.activation(self.shape(x), out_quant)
        return self.add(
            ir.Relu(name=self.op_name("relu"), inputs=(x,), outputs=(out,), activation=activation)
        )

    def leaky_relu(self, x: int, alpha: float, *, out_quant: ir.Quant | None = None) -> int:
        """LEAKY_RELU."""
        if out_quant is None:
            out_quant = random_quant(
                self.rng, scale=self.tensors[x].scale * self.rng.uniform(0.5, 2)
            )
        out = self.activation(self.shape(x), out_quant)
        return self.add(
            ir.LeakyRelu(
                name=self.op_name("leaky_relu"), inputs=(x,), outputs=(out,), alpha=f32(alpha)
            )
        )

    def hard_swish(self, x: int, *, out_quant: ir.Quant | None = None) -> int:
        """HARD_SWISH."""
        if out_quant is None:
            out_quant = random_quant(
                self.rng, scale=self.tensors[x].scale * self.rng.uniform(0.5, 2)
            )
        out = self.activation(self.shape(x), out_quant)
        return self.add(ir.HardSwish(name=self.op_name("hard_swish"), inputs=(x,), outputs=(out,)))

    def quantize(self, x: int, dtype: ir.DType, *, out_quant: ir.Quant | None = None) -> int:
        """QUANTIZE from float or from another quantised type."""
        out = self.activation(self.shape(x), out_quant, dtype)
        return self.add(ir.Quantize(name=self.op_name("quantize"), inputs=(x,), outputs=(out,)))

    def dequantize(self, x: int) -> int:
        """DEQUANTIZE to float."""
        out = self.activation(self.shape(x), None, ir.DType.F32)
        return self.add(ir.Dequantize(name=self.op_name("dequantize"), inputs=(x,), outputs=(out,)))


def resolve_padding(
    padding: str | ir.Padding,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> ir.Padding:
    """The elements that SAME or VALID stand for; explicit padding is passed through."""
    if isinstance(padding, ir.Padding):
        return padding
    if padding == "VALID":
        return ir.Padding()
    (top, bottom), (left, right) = (
        _same(n, k, s, d) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return ir.Padding(top=top, bottom=bottom, left=left, right=right)


def _same(length: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    out = -(-length // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def out_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: ir.Padding,
) -> tuple[int, int]:
    """Height and width of what a window op gives."""
    sums = (padding.top + padding.bottom, padding.left + padding.right)
    h, w = (
        (n + p - (k - 1) * d - 1) // s + 1
        for n, p, k, d, s in zip(size, sums, kernel, dilation, stride, strict=True)
    )
    assert h > 0 and w > 0, "the window is larger than the padded input"
    return h, w
