"""An untrusted .tflite -> Graph: attributes resolved, constants attached, names made C identifiers.

Not here: reading the bytes (tflite_file), and the rules of shapes, types and scales (check), which run at the end. Ops that
no output depends on are left out, so that the shape arithmetic that converters leave behind (SHAPE, PACK) does no harm.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import tflite

from codegen import ir
from codegen.check import check
from codegen.errors import GraphInvalid, UnsupportedOp
from codegen.names import c_identifier, graph_name, shown
from codegen.tflite_file import RawModel, RawOp, RawTensor, read_tflite

#: Larger tensors fit no board; keeps sizes and padding far from any integer's end.
MAX_TENSOR_ELEMENTS = 1 << 28
_MAX_WINDOW = 1 << 15  # kernel, stride and dilated kernel, in elements

_DTYPES = {
    tflite.TensorType.INT8: ir.DType.S8,
    tflite.TensorType.UINT8: ir.DType.U8,
    tflite.TensorType.INT16: ir.DType.S16,
    tflite.TensorType.INT32: ir.DType.S32,
    tflite.TensorType.FLOAT32: ir.DType.F32,
}
_ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: ir.Activation.NONE,
    tflite.ActivationFunctionType.RELU: ir.Activation.RELU,
    tflite.ActivationFunctionType.RELU_N1_TO_1: ir.Activation.RELU_N1_TO_1,
    tflite.ActivationFunctionType.RELU6: ir.Activation.RELU6,
}
_TYPE_NAMES = {
    value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)
}
_OP_NAMES = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}


def import_tflite(data: bytes, name: str) -> ir.Graph:
    """The graph of a .tflite file, checked.

    Args:
        data: the whole file; nothing about it is trusted.
        name: what to call the model, usually the file's stem; made harmless here.

    Raises:
        GraphInvalid: the file is corrupt or breaks a rule of the format.
        UnsupportedOp: it is sound, but uses an op, type or attribute that we do not run.
    """
    data = bytes(data)
    raw = read_tflite(data)
    _check_wiring(raw)
    needed = _needed_ops(raw)
    importer = _Importer(raw)
    for raw_op in raw.ops:
        if raw_op.index in needed:
            importer.add(raw_op)
    graph = importer.graph(graph_name(name), hashlib.sha256(data).hexdigest())
    check(graph)
    return replace(graph, nominal_macs=ir.graph_macs(graph))


def _check_wiring(raw: RawModel) -> None:
    """Refuses tensors that do not exist, are written twice, or are read before they are written."""
    count = len(raw.tensors)

    def exists(tensor: int, where: str) -> None:
        if not 0 <= tensor < count:
            raise GraphInvalid(f"tensor {tensor} does not exist; the file has {count}", where)

    if not raw.inputs or not raw.outputs or not raw.ops:
        raise GraphInvalid("it needs at least one input, one output and one op", "model")
    written: set[int] = set()
    for tensor in raw.inputs:
        exists(tensor, "model inputs")
        if tensor in written:
            raise GraphInvalid(f"tensor {tensor} is listed twice", "model inputs")
        if raw.tensors[tensor].data is not None:
            raise GraphInvalid(f"tensor {tensor} is an input and has constant data", "model inputs")
        written.add(tensor)
    for op in raw.ops:
        where = f"op {op.index}"
        if not op.outputs:
            raise GraphInvalid("it has no output", where)
        for tensor in op.inputs:
            if tensor == -1:
                continue
            exists(tensor, where)
            if raw.tensors[tensor].data is None and tensor not in written:
                raise GraphInvalid(
                    f"it reads tensor {tensor}, which no earlier op writes (a cycle, or ops out of order)",
                    where,
                )
        for tensor in op.outputs:
            exists(tensor, where)
            if raw.tensors[tensor].data is not None:
                raise GraphInvalid(f"it writes tensor {tensor}, which has constant data", where)
            if tensor in written:
                raise GraphInvalid(f"it writes tensor {tensor}, which is written already", where)
            written.add(tensor)
    for tensor in raw.outputs:
        exists(tensor, "model outputs")
        if tensor not in written:
            raise GraphInvalid(
                f"tensor {tensor} is an output, but no op writes it", "model outputs"
            )


def _needed_ops(raw: RawModel) -> set[int]:
    """Indices of the ops that an output depends on; a RESHAPE's shape operand does not count."""
    needed_tensors = set(raw.outputs)
    needed = set()
    for op in reversed(raw.ops):
        if needed_tensors.isdisjoint(op.outputs):
            continue
        needed.add(op.index)
        is_reshape = op.code == tflite.BuiltinOperator.RESHAPE
        needed_tensors.update(op.inputs[:1] if is_reshape else op.inputs)
    return needed


class _Node:
    """One operator on its way to an ir.Op: its operands, and errors that name it."""

    def __init__(self, importer: _Importer, raw: RawOp) -> None:
        self.importer, self.raw = importer, raw
        self.kind = _OP_NAMES.get(raw.code, f"operator code {raw.code}")
        first_output = importer.raw.tensors[raw.outputs[0]].name
        self.where = f"op {raw.index} ({self.kind}, output {shown(first_output)})"
        self.name = c_identifier(_SHORT_KINDS.get(self.kind, self.kind), str(raw.index))

    def unsupported(self, reason: str) -> UnsupportedOp:
        return UnsupportedOp(self.kind, self.where, reason)

    def invalid(self, rule: str) -> GraphInvalid:
        return GraphInvalid(rule, self.where)

    def activation(self, value: int) -> ir.Activation:
        if value not in _ACTIVATIONS:
            known = ", ".join(activation.value for activation in _ACTIVATIONS.values())
            raise self.unsupported(f"fused activation {value}; known are {known}")
        return _ACTIVATIONS[value]

    def arity(self, least: int, most: int) -> None:
        """Refuses another number of inputs, or an absent one among the first `least`."""
        count = len(self.raw.inputs)
        if not least <= count <= most or -1 in self.raw.inputs[:least]:
            expected = str(least) if least == most else f"{least} to {most}"
            raise self.invalid(
                f"it has inputs {list(self.raw.inputs)}, expected {expected} tensors"
            )
        if len(self.raw.outputs) != 1:
            raise self.invalid(f"it has {len(self.raw.outputs)} outputs, expected 1")

    def input(self, position: int) -> int:
        """Graph index of an input tensor; -1 where it is absent."""
        if position >= len(self.raw.inputs) or self.raw.inputs[position] == -1:
            return -1
        return self.importer.tensor(self.raw.inputs[position], self.where)

    def output(self) -> int:
        return self.importer.tensor(self.raw.outputs[0], self.where)

    def shape(self, position: int) -> tuple[int, ...]:
        return self.importer.tensors[self.input(position)].shape

    def output_shape(self) -> tuple[int, ...]:
        return self.importer.tensors[self.output()].shape

    def image_shape(self, position: int) -> tuple[int, ...]:
        """The shape of a tensor that must have four dimensions."""
        shape = self.shape(position)
        if len(shape) != 4:
            raise self.unsupported(
                f"input {position} has shape {list(shape)}; four dimensions are expected"
            )
        return shape

    def constants(self, position: int, what: str) -> tuple[int, ...]:
        """The integers of a constant s32 or s64 operand, flattened."""
        index = self.raw.inputs[position]
        raw = self.importer.raw.tensors[index]
        item_bytes = {tflite.TensorType.INT32: 4, tflite.TensorType.INT64: 8}.get(raw.type)
        if item_bytes is None:
            raise self.unsupported(
                f"its {what} are {_type_name(raw.type)}, expected INT32 or INT64"
            )
        if raw.data is None:
            raise self.unsupported(f"its {what} are computed at run time; constants are expected")
        elements = math.prod(raw.shape)
        if raw.data.size != elements * item_bytes or elements > 64:
            raise self.invalid(
                f"its {what} have shape {list(raw.shape)} but {raw.data.size:,} B of data"
            )
        return tuple(raw.data.view(f"<i{item_bytes}").tolist())

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as a positive one."""
        if not -rank <= axis < rank:
            raise self.invalid(f"axis {axis} does not exist in a tensor of {rank} dimensions")
        return axis % rank


class _Importer:
    """Tensors and ops collected so far; file indices become graph indices on first use."""

    def __init__(self, raw: RawModel) -> None:
        self.raw = raw
        self.tensors: list[ir.Tensor] = []
        self.ops: list[ir.Op] = []
        self._graph_index: dict[int, int] = {}

    def tensor(self, index: int, where: str) -> int:
        """Graph index of a tensor of the file; imports it on first use."""
        if index not in self._graph_index:
            raw = self.raw.tensors[index]
            tensor = _import_tensor(raw, index, f"{where}: tensor {index} ({shown(raw.name)})")
            self._graph_index[index] = self.new_tensor(tensor)
        return self._graph_index[index]

    def new_tensor(self, tensor: ir.Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def replace_tensor(self, index: int, tensor: ir.Tensor) -> None:
        self.tensors[index] = tensor

    def add(self, raw_op: RawOp) -> None:
        """Imports one operator."""
        node = _Node(self, raw_op)
        if node.kind not in _BUILDERS:
            if raw_op.code == tflite.BuiltinOperator.CUSTOM:
                raise node.unsupported(f"custom op {shown(raw_op.custom_code)}")
            raise node.unsupported(f"supported are {', '.join(sorted(_BUILDERS))}")
        self.ops.append(_BUILDERS[node.kind](node))

    def graph(self, name: str, sha256: str) -> ir.Graph:
        """What was imported, with tensors in the order of the file: TFLM's planner breaks ties by it."""
        inputs = [self.tensor(i, "model inputs") for i in self.raw.inputs]
        outputs = [self.tensor(i, "model outputs") for i in self.raw.outputs]
        file_order = [self._graph_index[i] for i in sorted(self._graph_index)]
        made_here = [i for i in range(len(self.tensors)) if i not in set(file_order)]
        place = {old: new for new, old in enumerate((*file_order, *made_here))}
        return ir.Graph(
            name=name,
            sha256=sha256,
            inputs=tuple(place[i] for i in inputs),
            outputs=tuple(place[i] for i in outputs),
            tensors=tuple(self.tensors[i] for i in place),
            ops=tuple(
                replace(
                    op,
                    inputs=tuple(place[i] for i in op.inputs),
                    outputs=tuple(place[i] for i in op.outputs),
                )
                for op in self.ops
            ),
        )


def _type_name(code: int) -> str:
    return _TYPE_NAMES.get(code, f"type {code}")


def _import_tensor(raw: RawTensor, index: int, where: str) -> ir.Tensor:
    if raw.type not in _DTYPES:
        known = ", ".join(_type_name(code) for code in _DTYPES)
        raise GraphInvalid(f"its type is {_type_name(raw.type)}; known are {known}", where)
    if raw.is_variable:
        raise GraphInvalid("it keeps its value between inferences; that is not supported", where)
    if raw.is_sparse:
        raise GraphInvalid("it is stored sparse; that is not supported", where)
    if any(size < 1 for size in raw.shape):
        raise GraphInvalid(
            f"its shape is {list(raw.shape)}; every size must be fixed and positive", where
        )
    elements = math.prod(raw.shape)
    if elements > MAX_TENSOR_ELEMENTS:
        raise GraphInvalid(
            f"its shape {list(raw.shape)} has more than {MAX_TENSOR_ELEMENTS:,} elements", where
        )
    dtype = _DTYPES[raw.type]
    data = None
    if raw.data is not None:
        if raw.data.size != elements * dtype.item_bytes:
            raise GraphInvalid(
                f"it has {raw.data.size:,} B of data, but shape {list(raw.shape)} of {dtype.value} needs "
                f"{elements * dtype.item_bytes:,} B",
                where,
            )
        data = raw.data.view(dtype.numpy).reshape(raw.shape)
    return ir.Tensor(
        name=c_identifier(raw.name, f"t{index}"),
        shape=raw.shape,
        dtype=dtype,
        quant=_import_quant(raw, where),
        data=data,
    )


def _import_quant(raw: RawTensor, where: str) -> ir.Quant | None:
    if not raw.scale:
        return None
    zero_point = raw.zero_point or (0,) * len(raw.scale)
    if len(zero_point) != len(raw.scale):
        raise GraphInvalid(
            f"it has {len(raw.scale)} scales but {len(zero_point)} zero points", where
        )
    return ir.Quant(raw.scale, zero_point, raw.axis if len(raw.scale) > 1 else None)


def _window_padding(
    node: _Node, padding: int, in_size: int, kernel: int, stride: int, dilation: int = 1
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
        raise node.invalid(f"padding is {padding}, expected SAME (0) or VALID (1)")
    out_size = -(-in_size // stride)
    total = max((out_size - 1) * stride + extent - in_size, 0)
    return total // 2, total - total // 2


def _padding(
    node: _Node,
    padding: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> ir.Padding:
    _, in_h, in_w, _ = node.image_shape(0)
    top, bottom = _window_padding(node, padding, in_h, kernel[0], stride[0], dilation[0])
    left, right = _window_padding(node, padding, in_w, kernel[1], stride[1], dilation[1])
    return ir.Padding(top=top, bottom=bottom, left=left, right=right)


def _bias(node: _Node) -> tuple[int, ...]:
    """The bias as a tuple of one or no tensor; its scale is implied by input and weight, so it is dropped."""
    bias = node.input(2)
    if bias == -1:
        return ()
    tensor = node.importer.tensors[bias]
    node.importer.replace_tensor(bias, replace(tensor, quant=None))
    return (bias,)


def _conv2d(node: _Node) -> ir.Op:
    node.arity(2, 3)
    padding, stride_w, stride_h, activation, dilation_w, dilation_h = node.raw.options(
        tflite.Conv2DOptions,
        "Padding",
        "StrideW",
        "StrideH",
        "FusedActivationFunction",
        "DilationWFactor",
        "DilationHFactor",
    )
    _, kh, kw, _ = node.image_shape(1)
    return ir.Conv2D(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0), node.input(1), *_bias(node)),
        outputs=(node.output(),),
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        padding=_padding(node, padding, (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w)),
        activation=node.activation(activation),
    )


def _depthwise_conv2d(node: _Node) -> ir.Op:
    node.arity(2, 3)
    padding, stride_w, stride_h, activation, dilation_w, dilation_h = node.raw.options(
        tflite.DepthwiseConv2DOptions,
        "Padding",
        "StrideW",
        "StrideH",
        "FusedActivationFunction",
        "DilationWFactor",
        "DilationHFactor",
    )
    in_c = node.image_shape(0)[3]
    _, kh, kw, out_c = node.image_shape(1)
    if out_c % in_c:
        raise node.invalid(f"{out_c} output channels are not a multiple of {in_c} input channels")
    return ir.DepthwiseConv2D(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0), node.input(1), *_bias(node)),
        outputs=(node.output(),),
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        # The file has a multiplier too, but TFLite computes it from the shapes.
        depth_multiplier=out_c // in_c,
        padding=_padding(node, padding, (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w)),
        activation=node.activation(activation),
    )


def _fully_connected(node: _Node) -> ir.Op:
    node.arity(2, 3)
    activation, weights_format = node.raw.options(
        tflite.FullyConnectedOptions, "FusedActivationFunction", "WeightsFormat"
    )
    if weights_format != 0:
        raise node.unsupported(f"weights format {weights_format}; only the default (0) is")
    x, weight = node.input(0), node.input(1)
    if len(node.shape(1)) != 2:
        raise node.invalid(f"its weights have shape {list(node.shape(1))}, expected two dimensions")
    in_features = node.shape(1)[1]
    tensor = node.importer.tensors[x]
    if tensor.shape[-1:] != (in_features,) and tensor.elements % in_features == 0:
        # TFLite flattens what it is given; the same bytes as a matrix.
        flat = replace(
            tensor,
            name=f"{node.name}_flat",
            shape=(tensor.elements // in_features, in_features),
        )
        flat_index = node.importer.new_tensor(flat)
        node.importer.ops.append(
            ir.Reshape(
                name=f"{node.name}_flatten",
                source=node.raw.index,
                inputs=(x,),
                outputs=(flat_index,),
            )
        )
        x = flat_index
    return ir.FullyConnected(
        name=node.name,
        source=node.raw.index,
        inputs=(x, weight, *_bias(node)),
        outputs=(node.output(),),
        activation=node.activation(activation),
    )


Pool = TypeVar("Pool", ir.AveragePool2D, ir.MaxPool2D)


def _pool(cls: type[Pool]) -> Callable[[_Node], ir.Op]:
    def build(node: _Node) -> ir.Op:
        node.arity(1, 1)
        padding, stride_w, stride_h, kw, kh, activation = node.raw.options(
            tflite.Pool2DOptions,
            "Padding",
            "StrideW",
            "StrideH",
            "FilterWidth",
            "FilterHeight",
            "FusedActivationFunction",
        )
        return cls(
            name=node.name,
            source=node.raw.index,
            inputs=(node.input(0),),
            outputs=(node.output(),),
            kh=kh,
            kw=kw,
            stride_h=stride_h,
            stride_w=stride_w,
            padding=_padding(node, padding, (kh, kw), (stride_h, stride_w)),
            activation=node.activation(activation),
        )

    return build


def _mean(node: _Node) -> ir.Op:
    node.arity(2, 2)
    (keep_dims,) = node.raw.options(tflite.ReducerOptions, "KeepDims")
    rank = len(node.shape(0))
    axes = {node.axis(axis, rank) for axis in node.constants(1, "axes")}
    return ir.Mean(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        axes=tuple(sorted(axes)),
        keep_dims=bool(keep_dims),
    )


Elementwise = TypeVar("Elementwise", ir.Add, ir.Sub, ir.Mul)


def _elementwise(cls: type[Elementwise], accessor: type) -> Callable[[_Node], ir.Op]:
    def build(node: _Node) -> ir.Op:
        node.arity(2, 2)
        (activation,) = node.raw.options(accessor, "FusedActivationFunction")
        return cls(
            name=node.name,
            source=node.raw.index,
            inputs=(node.input(0), node.input(1)),
            outputs=(node.output(),),
            activation=node.activation(activation),
        )

    return build


def _pad(node: _Node) -> ir.Op:
    is_v2 = node.kind == "PADV2"
    node.arity(3 if is_v2 else 2, 3 if is_v2 else 2)
    flat = node.constants(1, "paddings")
    rank = len(node.shape(0))
    if len(flat) != 2 * rank:
        raise node.invalid(f"{len(flat)} paddings, expected {2 * rank} for {rank} dimensions")
    if min(flat) < 0 or max(flat) > MAX_TENSOR_ELEMENTS:
        raise node.invalid(f"paddings {list(flat)} are negative or too large")
    output = node.importer.tensors[node.output()]
    if output.quant is None or output.quant.is_per_channel:
        raise node.invalid("its output needs one scale and one zero point")
    value = output.zero_point
    if is_v2:
        constant = node.importer.tensors[node.input(2)]
        if constant.data is None or constant.elements != 1:
            raise node.unsupported("its value is computed at run time; one constant is expected")
        if constant.dtype != output.dtype or constant.quant != output.quant:
            raise node.unsupported(
                "its value has another type, scale or zero point than its output"
            )
        value = int(constant.data.item())
    return ir.Pad(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        pads=tuple(zip(flat[0::2], flat[1::2], strict=True)),
        value=value,
    )


def _concatenation(node: _Node) -> ir.Op:
    node.arity(max(1, len(node.raw.inputs)), max(1, len(node.raw.inputs)))
    axis, activation = node.raw.options(
        tflite.ConcatenationOptions, "Axis", "FusedActivationFunction"
    )
    return ir.Concatenation(
        name=node.name,
        source=node.raw.index,
        inputs=tuple(node.input(i) for i in range(len(node.raw.inputs))),
        outputs=(node.output(),),
        axis=node.axis(axis, len(node.shape(0))),
        activation=node.activation(activation),
    )


def _reshape(node: _Node) -> ir.Op:
    # The new shape is the output's own; the shape operand says the same, and TFLM looks at the output too.
    node.arity(1, 2)
    return ir.Reshape(
        name=node.name, source=node.raw.index, inputs=(node.input(0),), outputs=(node.output(),)
    )


def _transpose(node: _Node) -> ir.Op:
    node.arity(2, 2)
    perm = node.constants(1, "permutation")
    rank = len(node.shape(0))
    if sorted(perm) != list(range(rank)):
        raise node.invalid(f"{list(perm)} is not a permutation of {rank} axes")
    return ir.Transpose(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        perm=perm,
    )


def _strided_slice(node: _Node) -> ir.Op:
    node.arity(4, 4)
    begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_mask, offset = node.raw.options(
        tflite.StridedSliceOptions,
        "BeginMask",
        "EndMask",
        "EllipsisMask",
        "NewAxisMask",
        "ShrinkAxisMask",
        "Offset",
    )
    if ellipsis_mask or new_axis_mask:
        raise node.unsupported("an ellipsis or a new axis in the slice")
    shape = node.shape(0)
    begins, ends, strides = (
        node.constants(i, what) for i, what in ((1, "begins"), (2, "ends"), (3, "strides"))
    )
    if not len(begins) == len(ends) == len(strides) == len(shape):
        raise node.unsupported(
            f"{len(begins)} begins, {len(ends)} ends and {len(strides)} strides for {len(shape)} dimensions"
        )
    shrink = tuple(axis for axis in range(len(shape)) if shrink_mask >> axis & 1)
    resolved = [
        _slice_of_axis(
            node,
            size,
            begin=None if begin_mask >> axis & 1 else begins[axis],
            end=None if end_mask >> axis & 1 else ends[axis] + (begins[axis] if offset else 0),
            stride=strides[axis],
            is_shrunk=axis in shrink,
        )
        for axis, size in enumerate(shape)
    ]
    return ir.StridedSlice(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        begin=tuple(part.start for part in resolved),
        end=tuple(part.stop for part in resolved),
        stride=tuple(part.step for part in resolved),
        shrink=shrink,
    )


def _slice_of_axis(
    node: _Node, size: int, *, begin: int | None, end: int | None, stride: int, is_shrunk: bool
) -> range:
    """The indices of one axis that a slice takes; None is a masked begin or end."""
    if stride == 0:
        raise node.invalid("a stride of 0")
    if is_shrunk:
        index = 0 if begin is None else begin
        index += size if index < 0 else 0
        if not 0 <= index < size or stride < 0:
            raise node.invalid(f"index {begin} with stride {stride} in an axis of {size}")
        return range(index, index + 1, 1)
    indices = range(*slice(begin, end, stride).indices(size))
    if not indices:
        raise node.invalid(f"an empty slice [{begin}:{end}:{stride}] of an axis of {size}")
    return indices


def _softmax(node: _Node) -> ir.Op:
    node.arity(1, 1)
    (beta,) = node.raw.options(tflite.SoftmaxOptions, "Beta")
    return ir.Softmax(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        beta=beta,
    )


def _relu(activation: ir.Activation) -> Callable[[_Node], ir.Op]:
    def build(node: _Node) -> ir.Op:
        node.arity(1, 1)
        return ir.Relu(
            name=node.name,
            source=node.raw.index,
            inputs=(node.input(0),),
            outputs=(node.output(),),
            activation=activation,
        )

    return build


def _leaky_relu(node: _Node) -> ir.Op:
    node.arity(1, 1)
    (alpha,) = node.raw.options(tflite.LeakyReluOptions, "Alpha")
    return ir.LeakyRelu(
        name=node.name,
        source=node.raw.index,
        inputs=(node.input(0),),
        outputs=(node.output(),),
        alpha=alpha,
    )


Unary = TypeVar("Unary", ir.Logistic, ir.Tanh, ir.HardSwish, ir.Quantize, ir.Dequantize)


def _unary(cls: type[Unary]) -> Callable[[_Node], ir.Op]:
    def build(node: _Node) -> ir.Op:
        node.arity(1, 1)
        return cls(
            name=node.name, source=node.raw.index, inputs=(node.input(0),), outputs=(node.output(),)
        )

    return build


def _squeeze(node: _Node) -> ir.Op:
    return _reshape(node)


def _expand_dims(node: _Node) -> ir.Op:
    node.arity(2, 2)
    return _reshape(node)


_BUILDERS: dict[str, Callable[[_Node], ir.Op]] = {
    "ADD": _elementwise(ir.Add, tflite.AddOptions),
    "AVERAGE_POOL_2D": _pool(ir.AveragePool2D),
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv2d,
    "DEQUANTIZE": _unary(ir.Dequantize),
    "EXPAND_DIMS": _expand_dims,
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
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _elementwise(ir.Sub, tflite.SubOptions),
    "TANH": _unary(ir.Tanh),
    "TRANSPOSE": _transpose,
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
