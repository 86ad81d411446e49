"""Write a quantised graph as a .tflite that TFLM, LiteRT and `import_tflite` load.

Not here: quantisation (the graph comes with its scales) and optimisation. Equal graphs give equal
bytes. Where the format cannot say what the graph says, ops are added that compute the same:
explicit padding that is neither SAME nor VALID becomes a PAD before the op.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tflite
from numpy.typing import NDArray

from codegen import ir
from codegen.errors import UnsupportedOp
from codegen.tflite_writer import Operator, write_tflite

_ACTIVATIONS = {
    ir.Activation.NONE: tflite.ActivationFunctionType.NONE,
    ir.Activation.RELU: tflite.ActivationFunctionType.RELU,
    ir.Activation.RELU_N1_TO_1: tflite.ActivationFunctionType.RELU_N1_TO_1,
    ir.Activation.RELU6: tflite.ActivationFunctionType.RELU6,
}


def export_tflite(graph: ir.Graph) -> bytes:
    """The graph as a .tflite.

    Raises:
        UnsupportedOp: the format cannot express an op, such as an average pool with padding on one
            side only.
    """
    exporter = _Exporter(list(graph.tensors))
    for op in graph.ops:
        _WRITERS[type(op)](exporter, op)
    return write_tflite(
        exporter.tensors,
        exporter.operators,
        inputs=graph.inputs,
        outputs=graph.outputs,
        description=graph.name,
    )


@dataclass(slots=True)
class _Exporter:
    """Tensors and operators of the file: the graph's own, then what the format needs."""

    tensors: list[ir.Tensor]
    operators: list[Operator] = field(default_factory=list)

    def add_tensor(self, tensor: ir.Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_constant(self, name: str, values: NDArray[np.int32]) -> int:
        """An s32 constant: axes, shapes, paddings."""
        return self.add_tensor(ir.Tensor(name, values.shape, ir.DType.S32, data=values))

    def write(
        self,
        op: ir.Op,
        code: int,
        version: int,
        options_table: str = "",
        options: dict[str, int | float] | None = None,
        *,
        more_inputs: tuple[int, ...] = (),
    ) -> None:
        """Add the operator of an op, with constants that it takes after its own inputs."""
        inputs = op.inputs + more_inputs
        # An absent optional input at the end is left out: TFLM wants it so.
        while inputs and inputs[-1] < 0:
            inputs = inputs[:-1]
        self.operators.append(
            Operator(code, version, inputs, op.outputs, options_table, options or {})
        )


def _with_bias_scale(
    exporter: _Exporter, op: ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected
) -> None:
    """Write the scale that a bias has by definition; a graph may leave it out, TFLM checks it."""
    if len(op.inputs) < 3 or op.inputs[2] < 0 or exporter.tensors[op.inputs[2]].quant is not None:
        return
    x, weight, bias = (exporter.tensors[i] for i in op.inputs)
    assert weight.quant is not None
    scale = tuple(x.scale * weight_scale for weight_scale in weight.quant.scale)
    axis = 0 if len(scale) > 1 else None
    exporter.tensors[op.inputs[2]] = replace(bias, quant=ir.Quant(scale, (0,) * len(scale), axis))


# --- padding ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Window:
    """One axis of a sliding window: input length, output length, and what lies between."""

    length: int
    out_length: int
    kernel: int
    stride: int
    dilation: int
    before: int

    @property
    def is_valid(self) -> bool:
        """Whether VALID gives the same windows."""
        reach = (self.kernel - 1) * self.dilation + 1
        return self.before == 0 and self.out_length == (self.length - reach) // self.stride + 1

    @property
    def is_same(self) -> bool:
        """Whether SAME gives the same windows. Padding behind the last window does not matter."""
        if self.out_length != math.ceil(self.length / self.stride):
            return False
        reach = (self.kernel - 1) * self.dilation + 1
        total = max((self.out_length - 1) * self.stride + reach - self.length, 0)
        return self.before == total // 2


WindowOp = ir.Conv2D | ir.DepthwiseConv2D | ir.AveragePool2D | ir.MaxPool2D


def _windows(exporter: _Exporter, op: WindowOp) -> tuple[_Window, _Window]:
    """The windows of an op along height and width."""
    _, h, w, _ = exporter.tensors[op.inputs[0]].shape
    _, out_h, out_w, _ = exporter.tensors[op.outputs[0]].shape
    if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D):
        _, kh, kw, _ = exporter.tensors[op.inputs[1]].shape
        dilation_h, dilation_w = op.dilation_h, op.dilation_w
    else:
        kh, kw, dilation_h, dilation_w = op.kh, op.kw, 1, 1
    return (
        _Window(h, out_h, kh, op.stride_h, dilation_h, op.padding.top),
        _Window(w, out_w, kw, op.stride_w, dilation_w, op.padding.left),
    )


def _with_padding(exporter: _Exporter, op: WindowOp) -> tuple[WindowOp, int]:
    """The op to write and its padding; adds a PAD where it is neither SAME nor VALID."""
    windows = _windows(exporter, op)
    if all(window.is_valid for window in windows):
        return op, tflite.Padding.VALID
    if all(window.is_same for window in windows):
        return op, tflite.Padding.SAME
    if isinstance(op, ir.AveragePool2D):
        raise UnsupportedOp(
            op.kind,
            op.name,
            f"a .tflite has no way to say {op.padding}; padding as in SAME or none can be written",
        )
    x = exporter.tensors[op.inputs[0]]
    n, h, w, c = x.shape
    p = op.padding
    shape = (n, h + p.top + p.bottom, w + p.left + p.right, c)
    padded = exporter.add_tensor(replace(x, name=f"{op.name}_padded", shape=shape))
    # A padded element never wins a maximum, and adds zero to a sum.
    value = -128 if isinstance(op, ir.MaxPool2D) else x.zero_point
    _pad(
        exporter,
        ir.Pad(
            name=f"{op.name}_pad",
            inputs=op.inputs[:1],
            outputs=(padded,),
            pads=((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0)),
            value=value,
        ),
    )
    return replace(op, inputs=(padded, *op.inputs[1:]), padding=ir.Padding()), tflite.Padding.VALID


# --- one function per kind of op ---------------------------------------------------------------
# The versions are the lowest whose kernels take int8, as LiteRT's registrations have them.


def _conv2d(exporter: _Exporter, op: ir.Conv2D) -> None:
    _with_bias_scale(exporter, op)
    written, padding = _with_padding(exporter, op)
    options: dict[str, int | float] = {
        "Padding": padding,
        "StrideH": op.stride_h,
        "StrideW": op.stride_w,
        "DilationHFactor": op.dilation_h,
        "DilationWFactor": op.dilation_w,
        "FusedActivationFunction": _ACTIVATIONS[op.activation],
    }
    exporter.write(written, tflite.BuiltinOperator.CONV_2D, 3, "Conv2DOptions", options)


def _depthwise_conv2d(exporter: _Exporter, op: ir.DepthwiseConv2D) -> None:
    _with_bias_scale(exporter, op)
    written, padding = _with_padding(exporter, op)
    options: dict[str, int | float] = {
        "Padding": padding,
        "StrideH": op.stride_h,
        "StrideW": op.stride_w,
        "DilationHFactor": op.dilation_h,
        "DilationWFactor": op.dilation_w,
        "DepthMultiplier": op.depth_multiplier,
        "FusedActivationFunction": _ACTIVATIONS[op.activation],
    }
    code = tflite.BuiltinOperator.DEPTHWISE_CONV_2D
    exporter.write(written, code, 3, "DepthwiseConv2DOptions", options)


def _fully_connected(exporter: _Exporter, op: ir.FullyConnected) -> None:
    _with_bias_scale(exporter, op)
    options: dict[str, int | float] = {
        "KeepNumDims": len(exporter.tensors[op.outputs[0]].shape) > 2,
        "FusedActivationFunction": _ACTIVATIONS[op.activation],
    }
    weights = exporter.tensors[op.inputs[1]]
    assert weights.quant is not None
    version = 12 if weights.quant.is_per_channel else 4
    code = tflite.BuiltinOperator.FULLY_CONNECTED
    exporter.write(op, code, version, "FullyConnectedOptions", options)


def _pool(code: int) -> Callable[[_Exporter, ir.AveragePool2D | ir.MaxPool2D], None]:
    def write(exporter: _Exporter, op: ir.AveragePool2D | ir.MaxPool2D) -> None:
        written, padding = _with_padding(exporter, op)
        options: dict[str, int | float] = {
            "Padding": padding,
            "StrideH": op.stride_h,
            "StrideW": op.stride_w,
            "FilterHeight": op.kh,
            "FilterWidth": op.kw,
            "FusedActivationFunction": _ACTIVATIONS[op.activation],
        }
        exporter.write(written, code, 2, "Pool2DOptions", options)

    return write


def _mean(exporter: _Exporter, op: ir.Mean) -> None:
    axes = exporter.add_constant(f"{op.name}_axes", np.array(op.axes, np.int32))
    options: dict[str, int | float] = {"KeepDims": op.keep_dims}
    code = tflite.BuiltinOperator.MEAN
    exporter.write(op, code, 2, "ReducerOptions", options, more_inputs=(axes,))


def _elementwise(
    code: int, options_table: str
) -> Callable[[_Exporter, ir.Add | ir.Sub | ir.Mul], None]:
    def write(exporter: _Exporter, op: ir.Add | ir.Sub | ir.Mul) -> None:
        options: dict[str, int | float] = {"FusedActivationFunction": _ACTIVATIONS[op.activation]}
        exporter.write(op, code, 2, options_table, options)

    return write


def _pad(exporter: _Exporter, op: ir.Pad) -> None:
    pads = exporter.add_constant(f"{op.name}_paddings", np.array(op.pads, np.int32))
    out = exporter.tensors[op.outputs[0]]
    if op.value == out.zero_point:
        code = tflite.BuiltinOperator.PAD
        exporter.write(op, code, 2, "PadOptions", more_inputs=(pads,))
        return
    value = exporter.add_tensor(
        ir.Tensor(
            f"{op.name}_value", (1,), out.dtype, out.quant, np.array([op.value], out.dtype.numpy)
        )
    )
    code = tflite.BuiltinOperator.PADV2
    exporter.write(op, code, 2, "PadV2Options", more_inputs=(pads, value))


def _concatenation(exporter: _Exporter, op: ir.Concatenation) -> None:
    options: dict[str, int | float] = {
        "Axis": op.axis,
        "FusedActivationFunction": _ACTIVATIONS[op.activation],
    }
    exporter.write(op, tflite.BuiltinOperator.CONCATENATION, 2, "ConcatenationOptions", options)


def _reshape(exporter: _Exporter, op: ir.Reshape) -> None:
    out = exporter.tensors[op.outputs[0]]
    shape = exporter.add_constant(f"{op.name}_shape", np.array(out.shape, np.int32))
    exporter.write(op, tflite.BuiltinOperator.RESHAPE, 1, "ReshapeOptions", more_inputs=(shape,))


def _transpose(exporter: _Exporter, op: ir.Transpose) -> None:
    perm = exporter.add_constant(f"{op.name}_perm", np.array(op.perm, np.int32))
    code = tflite.BuiltinOperator.TRANSPOSE
    exporter.write(op, code, 2, "TransposeOptions", more_inputs=(perm,))


def _strided_slice(exporter: _Exporter, op: ir.StridedSlice) -> None:
    # A negative end would count from the back: "before the first element" is said by a mask.
    end_mask = sum(1 << axis for axis, end in enumerate(op.end) if end < 0)
    constants = [
        exporter.add_constant(f"{op.name}_{name}", np.array(values, np.int32))
        for name, values in (("begin", op.begin), ("end", op.end), ("stride", op.stride))
    ]
    options: dict[str, int | float] = {
        "EndMask": end_mask,
        "ShrinkAxisMask": sum(1 << axis for axis in op.shrink),
    }
    code = tflite.BuiltinOperator.STRIDED_SLICE
    exporter.write(op, code, 2, "StridedSliceOptions", options, more_inputs=tuple(constants))


def _softmax(exporter: _Exporter, op: ir.Softmax) -> None:
    code = tflite.BuiltinOperator.SOFTMAX
    exporter.write(op, code, 2, "SoftmaxOptions", {"Beta": op.beta})


def _relu(exporter: _Exporter, op: ir.Relu) -> None:
    code, version = {
        ir.Activation.RELU: (tflite.BuiltinOperator.RELU, 2),
        ir.Activation.RELU6: (tflite.BuiltinOperator.RELU6, 2),
        ir.Activation.RELU_N1_TO_1: (tflite.BuiltinOperator.RELU_N1_TO_1, 1),
    }[op.activation]
    exporter.write(op, code, version)


def _leaky_relu(exporter: _Exporter, op: ir.LeakyRelu) -> None:
    code = tflite.BuiltinOperator.LEAKY_RELU
    exporter.write(op, code, 2, "LeakyReluOptions", {"Alpha": op.alpha})


def _unary(code: int, version: int, options_table: str = "") -> Callable[[_Exporter, ir.Op], None]:
    def write(exporter: _Exporter, op: ir.Op) -> None:
        exporter.write(op, code, version, options_table)

    return write


def _quantize(exporter: _Exporter, op: ir.Quantize) -> None:
    # Version 2 adds integer inputs.
    version = 1 if exporter.tensors[op.inputs[0]].dtype is ir.DType.F32 else 2
    exporter.write(op, tflite.BuiltinOperator.QUANTIZE, version, "QuantizeOptions")


_WRITERS: dict[type[ir.Op], Callable[..., None]] = {
    ir.Conv2D: _conv2d,
    ir.DepthwiseConv2D: _depthwise_conv2d,
    ir.FullyConnected: _fully_connected,
    ir.AveragePool2D: _pool(tflite.BuiltinOperator.AVERAGE_POOL_2D),
    ir.MaxPool2D: _pool(tflite.BuiltinOperator.MAX_POOL_2D),
    ir.Mean: _mean,
    ir.Add: _elementwise(tflite.BuiltinOperator.ADD, "AddOptions"),
    ir.Sub: _elementwise(tflite.BuiltinOperator.SUB, "SubOptions"),
    ir.Mul: _elementwise(tflite.BuiltinOperator.MUL, "MulOptions"),
    ir.Pad: _pad,
    ir.Concatenation: _concatenation,
    ir.Reshape: _reshape,
    ir.Transpose: _transpose,
    ir.StridedSlice: _strided_slice,
    ir.Softmax: _softmax,
    ir.Logistic: _unary(tflite.BuiltinOperator.LOGISTIC, 2),
    ir.Tanh: _unary(tflite.BuiltinOperator.TANH, 2),
    ir.Relu: _relu,
    ir.LeakyRelu: _leaky_relu,
    ir.HardSwish: _unary(tflite.BuiltinOperator.HARD_SWISH, 1, "HardSwishOptions"),
    ir.Quantize: _quantize,
    ir.Dequantize: _unary(tflite.BuiltinOperator.DEQUANTIZE, 2, "DequantizeOptions"),
}
