"""Write a quantised graph as a .tflite that TFLM, LiteRT and `import_tflite` load.

Not here: quantisation (the graph comes with its scales) and optimisation. Equal graphs give equal
bytes. Where the format cannot say what the graph says, ops are added that compute the same:
explicit padding that is neither SAME nor VALID becomes a PAD before the op.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

from codegen import ir
from codegen.errors import UnsupportedOp

#: Version of the schema, and how a file of it starts.
SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"

#: Alignment of constants in the file, which TFLM uses where they lie.
BUFFER_ALIGNMENT = 16

_TENSOR_TYPES = {
    ir.DType.S8: tflite.TensorType.INT8,
    ir.DType.U8: tflite.TensorType.UINT8,
    ir.DType.S16: tflite.TensorType.INT16,
    ir.DType.S32: tflite.TensorType.INT32,
    ir.DType.F32: tflite.TensorType.FLOAT32,
}

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
    return _serialise(graph, exporter.tensors, exporter.nodes)


@dataclass(frozen=True, slots=True)
class _Node:
    """One operator of the file. `options` are the scalar fields of the table `options_table`."""

    code: int
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_table: str = ""
    options: dict[str, int | float] = field(default_factory=dict)


@dataclass(slots=True)
class _Exporter:
    """Tensors and operators of the file: the graph's own, then what the format needs."""

    tensors: list[ir.Tensor]
    nodes: list[_Node] = field(default_factory=list)

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
        self.nodes.append(_Node(code, version, inputs, op.outputs, options_table, options or {}))


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


# --- the flatbuffer --------------------------------------------------------------------------


def _serialise(graph: ir.Graph, tensors: list[ir.Tensor], nodes: list[_Node]) -> bytes:
    """Tables of the file from the inside out, as flatbuffers are written."""
    builder = flatbuffers.Builder(1024)

    # Buffer 0 is empty by convention; tensors without data refer to it.
    contents = [b""] + [tensor.data.tobytes() for tensor in tensors if tensor.data is not None]
    buffers = _vector_of_tables(builder, [_buffer(builder, content) for content in contents])

    numbers: list[int] = []
    for tensor in tensors:
        numbers.append(sum(n > 0 for n in numbers) + 1 if tensor.data is not None else 0)
    written_tensors = _vector_of_tables(
        builder,
        [_tensor(builder, t, number) for t, number in zip(tensors, numbers, strict=True)],
    )

    kinds = sorted({(node.code, node.version) for node in nodes})
    operators = _vector_of_tables(
        builder,
        [_operator(builder, node, kinds.index((node.code, node.version))) for node in nodes],
    )
    operator_codes = _vector_of_tables(
        builder, [_operator_code(builder, code, version) for code, version in kinds]
    )

    inputs = builder.CreateNumpyVector(np.array(graph.inputs, np.int32))
    outputs = builder.CreateNumpyVector(np.array(graph.outputs, np.int32))
    subgraph_name = builder.CreateString("main")
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, written_tensors)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, operators)
    tflite.SubGraphAddName(builder, subgraph_name)
    subgraphs = _vector_of_tables(builder, [tflite.SubGraphEnd(builder)])

    description = builder.CreateString(graph.name)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, SCHEMA_VERSION)
    tflite.ModelAddOperatorCodes(builder, operator_codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddDescription(builder, description)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def _vector_of_tables(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _buffer(builder: flatbuffers.Builder, content: bytes) -> int:
    data = 0
    if content:
        # The library's own CreateByteVector aligns to 4 bytes only.
        builder.StartVector(1, len(content), BUFFER_ALIGNMENT)
        builder.head = builder.head - len(content)
        builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
        data = builder.EndVector()
    tflite.BufferStart(builder)
    if content:
        tflite.BufferAddData(builder, data)
    return int(tflite.BufferEnd(builder))


def _tensor(builder: flatbuffers.Builder, tensor: ir.Tensor, buffer: int) -> int:
    name = builder.CreateString(tensor.name)
    shape = builder.CreateNumpyVector(np.array(tensor.shape, np.int32))
    quantization = _quantization(builder, tensor.quant)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, _TENSOR_TYPES[tensor.dtype])
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddQuantization(builder, quantization)
    return int(tflite.TensorEnd(builder))


def _quantization(builder: flatbuffers.Builder, quant: ir.Quant | None) -> int:
    if quant is None:
        tflite.QuantizationParametersStart(builder)
        return int(tflite.QuantizationParametersEnd(builder))
    scale = builder.CreateNumpyVector(np.array(quant.scale, np.float32))
    zero_point = builder.CreateNumpyVector(np.array(quant.zero_point, np.int64))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
    tflite.QuantizationParametersAddQuantizedDimension(builder, quant.axis or 0)
    return int(tflite.QuantizationParametersEnd(builder))


def _operator(builder: flatbuffers.Builder, node: _Node, code_index: int) -> int:
    inputs = builder.CreateNumpyVector(np.array(node.inputs, np.int32))
    outputs = builder.CreateNumpyVector(np.array(node.outputs, np.int32))
    options = 0
    if node.options_table:
        getattr(tflite, f"{node.options_table}Start")(builder)
        for name, value in node.options.items():
            getattr(tflite, f"{node.options_table}Add{name}")(builder, value)
        options = getattr(tflite, f"{node.options_table}End")(builder)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code_index)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    if node.options_table:
        kind = getattr(tflite.BuiltinOptions, node.options_table)
        tflite.OperatorAddBuiltinOptionsType(builder, kind)
        tflite.OperatorAddBuiltinOptions(builder, options)
    return int(tflite.OperatorEnd(builder))


def _operator_code(builder: flatbuffers.Builder, code: int, version: int) -> int:
    tflite.OperatorCodeStart(builder)
    # Readers from before 2020 look at the byte field; all our codes fit it.
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    tflite.OperatorCodeAddVersion(builder, version)
    return int(tflite.OperatorCodeEnd(builder))
