"""Post-training int8 quantisation: an architecture with float weights and ranges to a graph.

Follows TFLite's int8 specification: activations per tensor and asymmetric, with zero exactly
representable; convolution weights per output channel and symmetric in [-127, 127]; dense weights
symmetric per tensor; biases int32 with scale = input scale * weight scale. The output is the
logits, not their softmax: the class is the same, and probabilities near 1 would all become 127.
Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1; Nagel et al. 2021, arXiv:2106.08295,
section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen import ir
from codegen.export_tflite import export_tflite
from search.architecture import (
    Architecture,
    Conv,
    Dense,
    Depthwise,
    GlobalMean,
    Shape,
    Sum,
    same_padding,
)
from search.data import InputQuant

#: Largest magnitude of a quantised bias: far from overflow once products are added.
MAX_BIAS = 1 << 29


@dataclass(frozen=True, slots=True, eq=False)
class LayerWeights:
    """Weights of one layer in the graph's layout, and its bias (out_c,).

    Convolution (out_c, kh, kw, in_c), depthwise (1, kh, kw, c), dense (out, in); all float32.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def quantize(
    architecture: Architecture,
    weights: Mapping[int, LayerWeights],
    ranges: Sequence[tuple[float, float]],
    input_quant: InputQuant,
    *,
    name: str,
) -> ir.Graph:
    """The quantised graph, batch 1.

    Args:
        architecture: the network.
        weights: of its nodes, batch normalisation folded in.
        ranges: (low, high) of every value; the input's is not used.
        input_quant: how inputs become int8.
        name: of the graph.
    """
    builder = _GraphBuilder(input_quant, architecture.input_shape)
    for index, node in enumerate(architecture.nodes):
        shape = architecture.shapes[index + 1]
        out_quant = activation_quant(*ranges[index + 1])
        if isinstance(node, Conv):
            builder.conv(node, architecture.shapes[node.x], weights[index], shape, out_quant)
        elif isinstance(node, Depthwise):
            builder.depthwise(node, architecture.shapes[node.x], weights[index], shape, out_quant)
        elif isinstance(node, Sum):
            builder.op(ir.Add, (node.a, node.b), (1, *shape), out_quant)
        elif isinstance(node, GlobalMean):
            builder.op(ir.Mean, (node.x,), (1, shape[2]), out_quant, axes=(1, 2))
        elif isinstance(node, Dense):
            builder.dense(node, weights[index], out_quant)
    return builder.graph(name)


def to_tflite(graph: ir.Graph) -> bytes:
    """The graph as a .tflite file that TFLM and LiteRT load."""
    return export_tflite(graph)


def activation_quant(low: float, high: float) -> ir.Quant:
    """Scale and zero point of a range, widened to hold zero, which is exactly representable."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
    return ir.Quant((scale,), (zero_point,))


def quantized_weights(
    layer: LayerWeights, input_scale: float, *, axis: int | None
) -> tuple[NDArray[np.int8], NDArray[np.int32], ir.Quant, ir.Quant]:
    """(weights, bias, quantisation of the weights, quantisation of the bias).

    Args:
        layer: float weights and bias.
        input_scale: of the layer's input.
        axis: of the output channels for one scale each; None for one scale in all.
    """
    if axis is None:
        largest = np.abs(layer.weight).max(keepdims=True).reshape(1).astype(np.float64)
        least = np.abs(layer.bias).max(keepdims=True)
    else:
        other_axes = tuple(a for a in range(layer.weight.ndim) if a != axis)
        largest = np.abs(layer.weight).max(axis=other_axes).astype(np.float64)
        least = np.abs(layer.bias)
    # A channel whose weights (nearly) vanish keeps a scale that its bias can be expressed in.
    scale = np.maximum(largest / 127, least / (input_scale * MAX_BIAS))
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32).astype(np.float64)
    along = (
        scale
        if axis is None
        else scale.reshape([-1 if a == axis else 1 for a in range(layer.weight.ndim)])
    )
    weight = np.clip(np.rint(layer.weight / along), -127, 127).astype(np.int8)
    bias_scale = (scale * input_scale).astype(np.float32).astype(np.float64)
    bias = np.clip(np.rint(layer.bias / bias_scale), -MAX_BIAS, MAX_BIAS).astype(np.int32)
    zeros = (0,) * len(scale)
    return (
        weight,
        bias,
        ir.Quant(tuple(scale.tolist()), zeros, axis if len(scale) > 1 else None),
        ir.Quant(tuple(bias_scale.tolist()), zeros, 0 if len(scale) > 1 else None),
    )


class _GraphBuilder:
    """Adds tensors and ops; `_values[i]` is the tensor of value i of the architecture."""

    def __init__(self, input_quant: InputQuant, input_shape: Shape) -> None:
        quant = ir.Quant((input_quant.scale,), (input_quant.zero_point,))
        self._tensors = [ir.Tensor("input", (1, *input_shape), ir.DType.S8, quant)]
        self._ops: list[ir.Op] = []
        self._values = [0]

    def conv(
        self, node: Conv, in_shape: Shape, layer: LayerWeights, shape: Shape, out_quant: ir.Quant
    ) -> None:
        constants = self._constants(node.x, layer, axis=0)
        self._add_op(
            ir.Conv2D,
            (self._values[node.x], *constants),
            (1, *shape),
            out_quant,
            stride_h=node.stride[0],
            stride_w=node.stride[1],
            padding=same_padding(in_shape, node.kernel, node.stride),
            activation=ir.Activation.RELU if node.relu else ir.Activation.NONE,
        )

    def depthwise(
        self,
        node: Depthwise,
        in_shape: Shape,
        layer: LayerWeights,
        shape: Shape,
        out_quant: ir.Quant,
    ) -> None:
        constants = self._constants(node.x, layer, axis=3)
        self._add_op(
            ir.DepthwiseConv2D,
            (self._values[node.x], *constants),
            (1, *shape),
            out_quant,
            stride_h=node.stride[0],
            stride_w=node.stride[1],
            padding=same_padding(in_shape, node.kernel, node.stride),
            activation=ir.Activation.RELU,
        )

    def dense(self, node: Dense, layer: LayerWeights, out_quant: ir.Quant) -> None:
        constants = self._constants(node.x, layer, axis=None)
        inputs = (self._values[node.x], *constants)
        self._add_op(ir.FullyConnected, inputs, (1, node.out), out_quant)

    def op(
        self,
        cls: type[ir.Op],
        values: tuple[int, ...],
        shape: tuple[int, ...],
        out_quant: ir.Quant,
        **attributes: object,
    ) -> None:
        """An op without weights on values of the architecture."""
        inputs = tuple(self._values[value] for value in values)
        self._add_op(cls, inputs, shape, out_quant, **attributes)

    def graph(self, name: str) -> ir.Graph:
        graph = ir.Graph(
            name=name,
            sha256="",
            tensors=tuple(self._tensors),
            ops=tuple(self._ops),
            inputs=(0,),
            outputs=(self._values[-1],),
        )
        return graph

    def _constants(self, x: int, layer: LayerWeights, *, axis: int | None) -> tuple[int, int]:
        input_scale = self._tensors[self._values[x]].scale
        weight, bias, weight_quant, bias_quant = quantized_weights(layer, input_scale, axis=axis)
        prefix = f"layer_{len(self._ops)}"
        return (
            self._add_tensor(
                ir.Tensor(f"{prefix}_weight", weight.shape, ir.DType.S8, weight_quant, weight)
            ),
            self._add_tensor(
                ir.Tensor(f"{prefix}_bias", bias.shape, ir.DType.S32, bias_quant, bias)
            ),
        )

    def _add_op(
        self,
        cls: type[ir.Op],
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        out_quant: ir.Quant,
        **attributes: object,
    ) -> None:
        name = f"{cls.__name__.lower()}_{len(self._ops)}"
        out = self._add_tensor(ir.Tensor(name, shape, ir.DType.S8, out_quant))
        self._ops.append(cls(name=name, inputs=inputs, outputs=(out,), **attributes))  # type: ignore[arg-type]
        self._values.append(out)

    def _add_tensor(self, tensor: ir.Tensor) -> int:
        if tensor.data is not None:
            tensor.data.setflags(write=False)
        self._tensors.append(tensor)
        return len(self._tensors) - 1
