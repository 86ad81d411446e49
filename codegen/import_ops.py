"""One operator of a .tflite -> one ir.Op: a builder per op, with attributes resolved.

Resolved means: SAME and VALID as elements of padding, negative axes as positive, masks of slices as
begins and ends. Operands that only carry attributes (axes, paddings, shapes) must be constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import tflite

from codegen import ir
from codegen.errors import GraphInvalid, UnsupportedOp
from codegen.names import c_identifier, shown
from codegen.tflite_file import RawOp, RawTensor

_MAX_WINDOW = 1 << 15  # kernel, stride and dilated kernel, in elements
_MAX_PAD = 1 << 28
_MAX_OPERAND_ELEMENTS = 64
_ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: ir.Activation.NONE,
    tflite.ActivationFunctionType.RELU: ir.Activation.RELU,
    tflite.ActivationFunctionType.RELU_N1_TO_1: ir.Activation.RELU_N1_TO_1,
    tflite.ActivationFunctionType.RELU6: ir.Activation.RELU6,
}
_OP_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
_TYPE_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)
}
#: Where TFLite's name is too long for a table of layers or a C function.
_SHORT_KINDS = {
    "AVERAGE_POOL_2D": "avgpool2d",
    "CONCATENATION": "concat",
    "CONV_2D": "conv2d",
    "DEPTHWISE_CONV_2D": "dwconv2d",
    "FULLY_CONNECTED": "dense",
    "MAX_POOL_2D": "maxpool2d",
}

OpT = TypeVar("OpT", bound=ir.Op)


def type_name(code: int) -> str:
    """TFLite's name of an element type, for messages."""
    return _TYPE_NAMES.get(code, f"type {code}")


class Tensors(Protocol):
    """Where a builder finds and adds tensors and ops; the importer."""

    tensors: list[ir.Tensor]
    ops: list[ir.Op]

    def raw_tensor(self, index: int) -> RawTensor:
        """A tensor as stored in the file."""

    def tensor(self, index: int, where: str) -> int:
        """Graph index of a tensor of the file; imports it on first use."""

    def new_tensor(self, tensor: ir.Tensor) -> int:
        """Graph index of a tensor that the file does not have."""


class Node:
    """One operator on its way to an ir.Op: its operands, and errors that name it."""

    def __init__(self, importer: Tensors, raw: RawOp) -> None:
        self.importer, self.raw = importer, raw
        self.kind = _OP_NAMES.get(raw.code, f"operator code {raw.code}")
        output_name = importer.raw_tensor(raw.outputs[0]).name
        self.where = f"op {raw.index} ({self.kind}, output {shown(output_name)})"
        self.name = c_identifier(_SHORT_KINDS.get(self.kind, self.kind), str(raw.index))

    def build(self) -> ir.Op:
        """The op.

        Raises:
            UnsupportedOp: no builder for it, or a form of it that we do not run.
            GraphInvalid: its operands or attributes make no sense.
        """
        if self.kind not in _BUILDERS:
            if self.raw.code == tflite.BuiltinOperator.CUSTOM:
                raise self.unsupported(f"it is the custom op {shown(self.raw.custom_code)}")
            raise self.unsupported(f"supported are {', '.join(sorted(_BUILDERS))}")
        return _BUILDERS[self.kind](self)

    def unsupported(self, reason: str) -> UnsupportedOp:
        """An error that names this op."""
        return UnsupportedOp(self.kind, self.where, reason)

    def invalid(self, rule: str) -> GraphInvalid:
        """An error that names this op."""
        return GraphInvalid(rule, self.where)

    def make(self, cls: type[OpT], inputs: tuple[int, ...] = (), **attributes: Any) -> OpT:
        """An op of this name and output; from its first input if none are given."""
        output = self.importer.tensor(self.raw.outputs[0], self.where)
        return cls(
            name=self.name,
            source=self.raw.index,
            inputs=inputs or (self.input(0),),
            outputs=(output,),
            **attributes,
        )

    def arity(self, least: int, most: int) -> None:
        """Refuses another number of inputs or outputs, or an absent one among the first `least`."""
        count = len(self.raw.inputs)
        if not least <= count <= most or -1 in self.raw.inputs[:least]:
            expected = str(least) if least == most else f"{least} to {most}"
            raise self.invalid(
                f"its inputs are {list(self.raw.inputs)}, expected {expected} tensors"
            )
        if len(self.raw.outputs) != 1:
            raise self.invalid(f"it has {len(self.raw.outputs)} outputs, expected 1")

    def input(self, position: int) -> int:
        """Graph index of an input tensor; -1 where it is absent."""
        if position >= len(self.raw.inputs) or self.raw.inputs[position] == -1:
            return -1
        return self.importer.tensor(self.raw.inputs[position], self.where)

    def shape(self, position: int) -> tuple[int, ...]:
        """Shape of an input that is there."""
        return self.importer.tensors[self.input(position)].shape

    def image_shape(self, position: int) -> tuple[int, int, int, int]:
        """The shape of an input that must have four dimensions."""
        shape = self.shape(position)
        if len(shape) != 4:
            raise self.unsupported(
                f"input {position} has shape {list(shape)}, expected 4 dimensions"
            )
        return shape

    def constants(self, position: int, what: str) -> tuple[int, ...]:
        """The integers of a constant s32 or s64 operand, flattened."""
        raw = self.importer.raw_tensor(self.raw.inputs[position])
        item_bytes = {tflite.TensorType.INT32: 4, tflite.TensorType.INT64: 8}.get(raw.type)
        if item_bytes is None:
            raise self.unsupported(f"its {what} are {type_name(raw.type)}, expected INT32 or INT64")
        if raw.data is None:
            raise self.unsupported(f"its {what} are computed at run time, expected constants")
        elements = math.prod(raw.shape)
        if raw.data.size != elements * item_bytes or elements > _MAX_OPERAND_ELEMENTS:
            raise self.invalid(
                f"its {what} have shape {list(raw.shape)} but {raw.data.size:,} B of data"
            )
        return tuple(raw.data.view(f"<i{item_bytes}").tolist())

    def activation(self, code: int) -> ir.Activation:
        """A fused activation by its code in the file."""
        if code not in _ACTIVATIONS:
            known = ", ".join(activation.value for activation in _ACTIVATIONS.values())
            raise self.unsupported(f"its fused activation is {code}; known are {known}")
        return _ACTIVATIONS[code]

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as a positive one."""
        if not -rank <= axis < rank:
            raise self.invalid(f"axis {axis} does not exist in a tensor of {rank} dimensions")
        return axis % rank


# Convolutions and pools


def _padding(
    node: Node,
    padding: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> ir.Padding:
    _, in_h, in_w, _ = node.image_shape(0)
    top, bottom = _padding_of_axis(node, padding, in_h, kernel[0], stride[0], dilation[0])
    left, right = _padding_of_axis(node, padding, in_w, kernel[1], stride[1], dilation[1])
    return ir.Padding(top=top, bottom=bottom, left=left, right=right)


def _padding_of_axis(
    node: Node, padding: int, in_size: int, kernel: int, stride: int, dilation: int
) -> tuple[int, int]:
    """Elements (before, after) that SAME or VALID add along one axis, as TFLite computes them."""
    if min(kernel, stride, dilation) < 1:
        raise node.invalid(
            f"kernel {kernel}, stride {stride}, dilation {dilation}: each must be at least 1"
        )
    extent = (kernel - 1) * dilation + 1
    if max(extent, stride) > _MAX_WINDOW:
        raise node.unsupported(
            f"a window of {extent:,} with stride {stride:,}; the limit is {_MAX_WINDOW:,}"
        )
    if padding == tflite.Padding.VALID:
        return 0, 0
    if padding != tflite.Padding.SAME:
        raise node.invalid(f"its padding is {padding}, expected SAME (0) or VALID (1)")
    out_size = -(-in_size // stride)
    total = max((out_size - 1) * stride + extent - in_size, 0)
    return total // 2, total - total // 2


def _bias(node: Node) -> tuple[int, ...]:
    """The bias as a tuple of one or no tensor; its scale follows from input and weight."""
    bias = node.input(2)
    if bias == -1:
        return ()
    node.importer.tensors[bias] = replace(node.importer.tensors[bias], quant=None)
    return (bias,)


def _conv2d(node: Node) -> ir.Op:
    node.arity(2, 3)
    padding, stride_h, stride_w, dilation_h, dilation_w, activation = node.raw.options(
        tflite.Conv2DOptions,
        "Padding",
        "StrideH",
        "StrideW",
        "DilationHFactor",
        "DilationWFactor",
        "FusedActivationFunction",
    )
    _, kh, kw, _ = node.image_shape(1)
    return node.make(
        ir.Conv2D,
        (node.input(0), node.input(1), *_bias(node)),
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        padding=_padding(node, padding, (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w)),
        activation=node.activation(activation),
    )


def _depthwise_conv2d(node: Node) -> ir.Op:
    node.arity(2, 3)
    padding, stride_h, stride_w, dilation_h, dilation_w, activation, multiplier = node.raw.options(
        tflite.DepthwiseConv2DOptions,
        "Padding",
        "StrideH",
        "StrideW",
        "DilationHFactor",
        "DilationWFactor",
        "FusedActivationFunction",
        "DepthMultiplier",
    )
    in_c = node.image_shape(0)[3]
    _, kh, kw, out_c = node.image_shape(1)
    if out_c != in_c * multiplier:
        raise node.invalid(
            f"{in_c} channels with a depth multiplier of {multiplier} do not give {out_c}"
        )
    return node.make(
        ir.DepthwiseConv2D,
        (node.input(0), node.input(1), *_bias(node)),
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        depth_multiplier=multiplier,
        padding=_padding(node, padding, (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w)),
        activation=node.activation(activation),
    )


def _pool(cls: type[ir.AveragePool2D] | type[ir.MaxPool2D]) -> Callable[[Node], ir.Op]:
    def build(node: Node) -> ir.Op:
        node.arity(1, 1)
        padding, stride_h, stride_w, kh, kw, activation = node.raw.options(
            tflite.Pool2DOptions,
            "Padding",
            "StrideH",
            "StrideW",
            "FilterHeight",
            "FilterWidth",
            "FusedActivationFunction",
        )
        return node.make(
            cls,
            kh=kh,
            kw=kw,
            stride_h=stride_h,
            stride_w=stride_w,
            padding=_padding(node, padding, (kh, kw), (stride_h, stride_w)),
            activation=node.activation(activation),
        )

    return build


# Dense layers and element-wise ops


def _fully_connected(node: Node) -> ir.Op:
    node.arity(2, 3)
    activation, weights_format = node.raw.options(
        tflite.FullyConnectedOptions, "FusedActivationFunction", "WeightsFormat"
    )
    if weights_format != 0:
        raise node.unsupported(f"its weights format is {weights_format}; only the default (0) is")
    if len(node.shape(1)) != 2:
        raise node.invalid(f"its weights have shape {list(node.shape(1))}, expected 2 dimensions")
    _check_bias_scale(node)
    x = _as_rows(node, node.input(0), in_features=node.shape(1)[1])
    return node.make(
        ir.FullyConnected,
        (x, node.input(1), *_bias(node)),
        activation=node.activation(activation),
    )


def _check_bias_scale(node: Node) -> None:
    """Refuses a bias whose scale is not that of input times weight, by TFLM's own test."""
    if node.input(2) == -1:
        return
    operands = (*node.raw.inputs, node.raw.outputs[0])
    scales = [node.importer.raw_tensor(index).scale for index in operands]
    if any(len(scale) != 1 for scale in scales):
        return
    (x,), (weight,), (bias,), (output,) = scales
    if not abs(x * weight - bias) <= 0.02 * output:
        raise node.invalid(f"its bias has scale {bias:.6g}, expected {x * weight:.6g}")


def _as_rows(node: Node, x: int, in_features: int) -> int:
    """The input with `in_features` as its last axis; TFLite flattens it silently, we say so."""
    tensor = node.importer.tensors[x]
    if tensor.shape[-1:] == (in_features,) or tensor.elements % in_features:
        return x
    rows = replace(
        tensor,
        name=f"{node.name}_rows",
        shape=(tensor.elements // in_features, in_features),
        data=None,
    )
    index = node.importer.new_tensor(rows)
    node.importer.ops.append(
        ir.Reshape(
            name=f"{node.name}_flatten", source=node.raw.index, inputs=(x,), outputs=(index,)
        )
    )
    return index


def _elementwise(cls: type[ir.Add | ir.Sub | ir.Mul], accessor: type) -> Callable[[Node], ir.Op]:
    def build(node: Node) -> ir.Op:
        node.arity(2, 2)
        (activation,) = node.raw.options(accessor, "FusedActivationFunction")
        return node.make(
            cls, (node.input(0), node.input(1)), activation=node.activation(activation)
        )

    return build


def _unary(cls: type[ir.Op]) -> Callable[[Node], ir.Op]:
    def build(node: Node) -> ir.Op:
        node.arity(1, 1)
        return node.make(cls)

    return build


def _relu(activation: ir.Activation) -> Callable[[Node], ir.Op]:
    def build(node: Node) -> ir.Op:
        node.arity(1, 1)
        return node.make(ir.Relu, activation=activation)

    return build


def _leaky_relu(node: Node) -> ir.Op:
    node.arity(1, 1)
    (alpha,) = node.raw.options(tflite.LeakyReluOptions, "Alpha")
    return node.make(ir.LeakyRelu, alpha=alpha)


def _softmax(node: Node) -> ir.Op:
    node.arity(1, 1)
    (beta,) = node.raw.options(tflite.SoftmaxOptions, "Beta")
    return node.make(ir.Softmax, beta=beta)


def _mean(node: Node) -> ir.Op:
    node.arity(2, 2)
    (keep_dims,) = node.raw.options(tflite.ReducerOptions, "KeepDims")
    rank = len(node.shape(0))
    axes = {node.axis(axis, rank) for axis in node.constants(1, "axes")}
    return node.make(ir.Mean, axes=tuple(sorted(axes)), keep_dims=bool(keep_dims))


# Moving bytes


def _pad(node: Node) -> ir.Op:
    has_value = node.kind == "PADV2"
    node.arity(2 + has_value, 2 + has_value)
    flat = node.constants(1, "paddings")
    rank = len(node.shape(0))
    if len(flat) != 2 * rank:
        raise node.invalid(f"it has {len(flat)} paddings, expected {2 * rank}")
    if min(flat, default=0) < 0 or max(flat, default=0) > _MAX_PAD:
        raise node.invalid(f"its paddings {list(flat)} are negative or too large")
    pad = node.make(ir.Pad, pads=tuple(zip(flat[0::2], flat[1::2], strict=True)), value=0)
    output = node.importer.tensors[pad.outputs[0]]
    if output.quant is None or output.quant.is_per_channel:
        raise node.invalid("its output needs one scale and one zero point")
    if not has_value:
        return replace(pad, value=output.zero_point)
    constant = node.importer.tensors[node.input(2)]
    if constant.data is None or constant.elements != 1:
        raise node.unsupported("its value is computed at run time, expected one constant")
    if constant.dtype != output.dtype or constant.quant != output.quant:
        raise node.unsupported("its value has another type, scale or zero point than its output")
    return replace(pad, value=int(constant.data.item()))


def _concatenation(node: Node) -> ir.Op:
    count = len(node.raw.inputs)
    node.arity(max(1, count), count)
    axis, activation = node.raw.options(
        tflite.ConcatenationOptions, "Axis", "FusedActivationFunction"
    )
    return node.make(
        ir.Concatenation,
        tuple(node.input(position) for position in range(count)),
        axis=node.axis(axis, len(node.shape(0))),
        activation=node.activation(activation),
    )


def _reshape(node: Node) -> ir.Op:
    # The new shape is the output's own, as in TFLM; the shape operand only says it again.
    node.arity(1, 2)
    return node.make(ir.Reshape)


def _transpose(node: Node) -> ir.Op:
    node.arity(2, 2)
    perm = node.constants(1, "permutation")
    rank = len(node.shape(0))
    if sorted(perm) != list(range(rank)):
        raise node.invalid(f"{list(perm)} is not a permutation of {rank} axes")
    return node.make(ir.Transpose, perm=perm)


def _strided_slice(node: Node) -> ir.Op:
    node.arity(4, 4)
    begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_mask, is_offset = node.raw.options(
        tflite.StridedSliceOptions,
        "BeginMask",
        "EndMask",
        "EllipsisMask",
        "NewAxisMask",
        "ShrinkAxisMask",
        "Offset",
    )
    if ellipsis_mask or new_axis_mask:
        raise node.unsupported("it has an ellipsis or a new axis")
    shape = node.shape(0)
    begins, ends, strides = (
        node.constants(position, what)
        for position, what in ((1, "begins"), (2, "ends"), (3, "strides"))
    )
    if not len(begins) == len(ends) == len(strides) == len(shape):
        raise node.unsupported(
            f"it has {len(begins)} begins, {len(ends)} ends and {len(strides)} strides "
            f"for {len(shape)} dimensions"
        )
    shrink = tuple(axis for axis in range(len(shape)) if shrink_mask >> axis & 1)
    parts = [
        _slice_of_axis(
            node,
            size,
            begin=None if begin_mask >> axis & 1 else begins[axis],
            end=None if end_mask >> axis & 1 else ends[axis] + is_offset * begins[axis],
            stride=strides[axis],
            is_shrunk=axis in shrink,
        )
        for axis, size in enumerate(shape)
    ]
    return node.make(
        ir.StridedSlice,
        begin=tuple(part.start for part in parts),
        end=tuple(part.stop for part in parts),
        stride=tuple(part.step for part in parts),
        shrink=shrink,
    )


def _slice_of_axis(
    node: Node, size: int, *, begin: int | None, end: int | None, stride: int, is_shrunk: bool
) -> range:
    """The indices of one axis that a slice takes; None is a masked begin or end."""
    if stride == 0:
        raise node.invalid("it has a stride of 0")
    if is_shrunk:
        index = 0 if begin is None else begin
        index += size if index < 0 else 0
        if not 0 <= index < size or stride < 0:
            raise node.invalid(f"it takes index {begin} of an axis of {size}")
        return range(index, index + 1, 1)
    indices = range(*slice(begin, end, stride).indices(size))
    if not indices:
        raise node.invalid(f"its slice [{begin}:{end}:{stride}] of an axis of {size} is empty")
    return indices


_BUILDERS: dict[str, Callable[[Node], ir.Op]] = {
    "ADD": _elementwise(ir.Add, tflite.AddOptions),
    "AVERAGE_POOL_2D": _pool(ir.AveragePool2D),
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv2d,
    "DEQUANTIZE": _unary(ir.Dequantize),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _unary(ir.HardSwish),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _unary(ir.Logistic),
    "MAX_POOL_2D": _pool(ir.MaxPool2D),
    "MEAN": _mean,
    "MUL": _elementwise(ir.Mul, tflite.MulOptions),
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _unary(ir.Quantize),
    "RELU": _relu(ir.Activation.RELU),
    "RELU6": _relu(ir.Activation.RELU6),
    "RELU_N1_TO_1": _relu(ir.Activation.RELU_N1_TO_1),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _elementwise(ir.Sub, tflite.SubOptions),
    "TANH": _unary(ir.Tanh),
    "TRANSPOSE": _transpose,
}
