"""Random graphs of one op each: every attribute, odd shapes, every kind of quantisation.

`SINGLE_OPS` maps a name to a function of a numpy Generator; equal seeds give equal graphs. Each of
them is one that TFLM can run; `LITERT_ONLY` has the one that it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from graphs import Builder, f32, random_quant

from codegen import ir

Rng = np.random.Generator
GraphOf = Callable[[Rng], ir.Graph]

ACTIVATIONS = list(ir.Activation)


def image_shape(rng: Rng, low: int = 1, high: int = 9) -> tuple[int, int, int, int]:
    """A random (n, h, w, c); mostly one image."""
    return (
        int(rng.choice([1, 1, 2])),
        int(rng.integers(low, high)),
        int(rng.integers(low, high)),
        int(rng.integers(1, 9)),
    )


def pair(rng: Rng, low: int, high: int) -> tuple[int, int]:
    """Two numbers in [low, high)."""
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def _activation(rng: Rng) -> ir.Activation:
    return ACTIVATIONS[rng.integers(len(ACTIVATIONS))]


def _window(rng: Rng, shape: tuple[int, ...]) -> dict[str, object]:
    """Stride, dilation and padding for a random kernel; SAME where VALID would leave nothing."""
    kernel = pair(rng, 1, 6)
    stride, dilation = pair(rng, 1, 4), (1, 1)
    if _chance(rng, 0.3):
        # TensorFlow forbids strides and dilation together; no converter writes both.
        stride, dilation = (1, 1), pair(rng, 1, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    fits = reach[0] <= shape[1] and reach[1] <= shape[2]
    padding = "VALID" if fits and _chance(rng, 0.5) else "SAME"
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def _conv2d(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng, 3, 12))
    y = b.conv2d(
        x,
        int(rng.integers(1, 9)),
        **_window(rng, b.shape(x)),
        activation=_activation(rng),
        bias=_chance(rng, 0.8),
        per_channel=_chance(rng, 0.7),
    )
    return b.graph([y])


def _depthwise_conv2d(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng, 3, 12))
    y = b.depthwise_conv2d(
        x,
        **_window(rng, b.shape(x)),
        depth_multiplier=int(rng.choice([1, 1, 2, 3])),
        activation=_activation(rng),
        bias=_chance(rng, 0.8),
        per_channel=_chance(rng, 0.7),
    )
    return b.graph([y])


def _fully_connected(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    features = int(rng.integers(1, 300))
    shape = (1, 2, features) if _chance(rng, 0.2) else (int(rng.integers(1, 4)), features)
    y = b.fully_connected(
        b.input(shape),
        int(rng.integers(1, 40)),
        activation=_activation(rng),
        bias=_chance(rng, 0.8),
        per_channel=_chance(rng, 0.5),
    )
    return b.graph([y])


def _pool(cls: type[ir.AveragePool2D] | type[ir.MaxPool2D]) -> GraphOf:
    def make(rng: Rng) -> ir.Graph:
        b = Builder(rng)
        x = b.input(image_shape(rng, 1, 12))
        _, h, w, _ = b.shape(x)
        y = b.pool(
            cls,
            x,
            (int(rng.integers(1, min(h, 5) + 1)), int(rng.integers(1, min(w, 5) + 1))),
            stride=pair(rng, 1, 4),
            padding="SAME" if _chance(rng, 0.5) else "VALID",
            activation=_activation(rng),
        )
        return b.graph([y])

    return make


def _elementwise(cls: type[ir.Add] | type[ir.Sub] | type[ir.Mul]) -> GraphOf:
    def make(rng: Rng) -> ir.Graph:
        b = Builder(rng)
        a_shape = image_shape(rng)
        b_shape: tuple[int, ...] = tuple(n if _chance(rng, 0.6) else 1 for n in a_shape)
        if _chance(rng, 0.3):
            b_shape = b_shape[int(rng.integers(0, 3)) :]
        one = b.input(a_shape)
        if _chance(rng, 0.6):
            other = b.input(b_shape)
        else:
            other = b.constant(rng.integers(-128, 128, b_shape), ir.DType.S8, random_quant(rng))
        if _chance(rng, 0.4):
            one, other = other, one
        return b.graph([b.elementwise(cls, one, other, activation=_activation(rng))])

    return make


def _mean(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng))
    axes = rng.choice(4, int(rng.integers(1, 5)), replace=False)
    axes = tuple(sorted(int(axis) for axis in axes))
    return b.graph([b.mean(x, axes, keep_dims=_chance(rng, 0.5))])


def _pad(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng))
    pads = tuple((int(before), int(after)) for before, after in rng.integers(0, 4, (4, 2)))
    value = None if _chance(rng, 0.5) else int(rng.integers(-128, 128))
    return b.graph([b.pad(x, pads, value=value)])


def _concatenation(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    axis = int(rng.integers(0, 4))
    shape, quant = list(image_shape(rng)), random_quant(rng)
    inputs = []
    for _ in range(int(rng.integers(2, 6))):
        shape[axis] = int(rng.integers(1, 5))
        inputs.append(b.input(tuple(shape), quant))
    return b.graph([b.concatenation(inputs, axis)])


def _reshape(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    n, h, w, c = image_shape(rng)
    return b.graph([b.reshape(b.input((n, h, w, c)), (n * h, w * c))])


def _transpose(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng))
    return b.graph([b.transpose(x, tuple(int(i) for i in rng.permutation(4)))])


def _strided_slice(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = b.input(image_shape(rng))
    bounds = []
    for length in b.shape(x):
        stride = int(rng.choice([1, 1, 2, 3, -1, -2]))
        begin, end = sorted(int(i) for i in rng.integers(0, length + 1, 2))
        if begin == end:
            begin, end = 0, length
        bounds.append((begin, end, stride) if stride > 0 else (end - 1, begin - 1, stride))
    shrink: tuple[int, ...] = ()
    if _chance(rng, 0.3):
        axis = int(rng.integers(0, 4))
        bounds[axis] = (bounds[axis][0], bounds[axis][0] + 1, 1)
        shrink = (axis,)
    begins, ends, strides = zip(*bounds, strict=True)
    return b.graph([b.strided_slice(x, begins, ends, strides, shrink)])


def _softmax(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    shape = image_shape(rng) if _chance(rng, 0.5) else (1, int(rng.integers(1, 200)))
    x = b.input(shape, _quant_of_scale(rng, 1e-5, 8))
    return b.graph([b.softmax(x, beta=float(rng.choice([1.0, 0.5, 2.0, 0.1])))])


def _quant_of_scale(rng: Rng, low: float, high: float) -> ir.Quant:
    return random_quant(rng, scale=math.exp(rng.uniform(math.log(low), math.log(high))))


def _every_value(b: Builder, low: float, high: float) -> int:
    """An input with room for each of the 256 values, of a scale in [low, high]."""
    return b.input((1, 256), _quant_of_scale(b.rng, low, high))


def _other_scale(b: Builder, x: int) -> ir.Quant:
    return random_quant(b.rng, scale=b.tensors[x].scale * b.rng.uniform(0.2, 5))


def _logistic(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    return b.graph([b.logistic(_every_value(b, 1e-4, 5))])


def _tanh(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    return b.graph([b.tanh(_every_value(b, 1e-4, 5))])


def _relu(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = _every_value(b, 1e-3, 2)
    return b.graph([b.relu(x, out_quant=_other_scale(b, x))])


def _relu6(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    return b.graph([b.relu(_every_value(b, 1e-2, 2), ir.Activation.RELU6)])


def _relu_n1_to_1(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    return b.graph([b.relu(_every_value(b, 1e-3, 2), ir.Activation.RELU_N1_TO_1)])


def _leaky_relu(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = _every_value(b, 1e-3, 2)
    alpha = float(rng.choice([0.1, 0.3, 1.5, -0.5, 0.01]))
    return b.graph([b.leaky_relu(x, alpha, out_quant=_other_scale(b, x))])


def _hard_swish(rng: Rng) -> ir.Graph:
    b = Builder(rng)
    x = _every_value(b, 1e-3, 2)
    return b.graph([b.hard_swish(x, out_quant=_other_scale(b, x))])


def _quantize(source: ir.DType, target: ir.DType) -> GraphOf:
    def make(rng: Rng) -> ir.Graph:
        b = Builder(rng)
        x = b.input((1, 256), dtype=source)
        if source is ir.DType.F32:
            scale = 0.05
        else:
            scale = b.tensors[x].scale * (200 if source is ir.DType.S16 else 1)
        # Equal scales take a path of their own in TFLM.
        if _chance(rng, 0.5):
            scale *= rng.uniform(0.1, 10)
        zero_point = int(rng.integers(-128, 128)) + (128 if target is ir.DType.U8 else 0)
        return b.graph([b.quantize(x, target, out_quant=ir.Quant((f32(scale),), (zero_point,)))])

    return make


def _dequantize(source: ir.DType) -> GraphOf:
    def make(rng: Rng) -> ir.Graph:
        b = Builder(rng)
        return b.graph([b.dequantize(b.input((1, 256), dtype=source))])

    return make


SINGLE_OPS: dict[str, GraphOf] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "fully_connected": _fully_connected,
    "average_pool2d": _pool(ir.AveragePool2D),
    "max_pool2d": _pool(ir.MaxPool2D),
    "mean": _mean,
    "add": _elementwise(ir.Add),
    "sub": _elementwise(ir.Sub),
    "mul": _elementwise(ir.Mul),
    "pad": _pad,
    "concatenation": _concatenation,
    "reshape": _reshape,
    "transpose": _transpose,
    "strided_slice": _strided_slice,
    "softmax": _softmax,
    "logistic": _logistic,
    "tanh": _tanh,
    "relu": _relu,
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
    "hard_swish": _hard_swish,
    "quantize_f32_s8": _quantize(ir.DType.F32, ir.DType.S8),
    "quantize_s8_s8": _quantize(ir.DType.S8, ir.DType.S8),
    "quantize_s8_u8": _quantize(ir.DType.S8, ir.DType.U8),
    "quantize_u8_s8": _quantize(ir.DType.U8, ir.DType.S8),
    "quantize_s16_s8": _quantize(ir.DType.S16, ir.DType.S8),
    "dequantize_s8": _dequantize(ir.DType.S8),
    "dequantize_u8": _dequantize(ir.DType.U8),
}

LITERT_ONLY: dict[str, GraphOf] = {"relu_n1_to_1": _relu_n1_to_1}
