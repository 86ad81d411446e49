"""Every rule that a Graph keeps, as one table of ops; run after import and between passes.

A graph that passes `check` can be planned and generated: shapes agree, types and scales are ones
for which our kernels give the same bytes as TFLM's reference kernels. What a rule refuses is named
by op, output tensor and reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from codegen import ir
from codegen.errors import GraphInvalid, UnsupportedOp
from codegen.liveness import ALIGNMENT, bytes_of_tensors
from codegen.names import MAX_IDENTIFIER

#: Scales outside cannot be multiplied by each other within float32, as TFLite does.
MIN_SCALE, MAX_SCALE = 2.0**-60, 2.0**60
_ZERO_POINTS = {
    ir.DType.S8: (-128, 127),
    ir.DType.U8: (0, 255),
    ir.DType.S16: (-32768, 32767),
    ir.DType.S32: (-(2**31), 2**31 - 1),
}
_MAX_RANK = 6
_MAX_CONCATENATED = 10  # TFLM's limit
_REQUANTIZED = {("f32", "s8"), ("s8", "s8"), ("s8", "u8"), ("u8", "s8"), ("s16", "s8")}
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")

Shape = tuple[int, ...]


class Operands:
    """One op with its tensors at hand, for the rules below."""

    def __init__(self, graph: ir.Graph, op: ir.Op) -> None:
        self.op = op
        self.inputs = [graph.tensors[i] for i in op.inputs]
        self.output = graph.tensors[op.outputs[0]]
        self.where = f"op {op.name}"

    def invalid(self, rule: str) -> GraphInvalid:
        """An error that names this op."""
        return GraphInvalid(rule, self.where)

    def unsupported(self, reason: str) -> UnsupportedOp:
        """An error that names this op."""
        return UnsupportedOp(self.op.kind, self.where, reason)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one op demands.

    `types` lists its operands: a dtype or several joined by `|`, with `?` for an optional and `+`
    for one or more. `shape` gives the output's shape; `scales` checks quantisation and attributes,
    None where any is fine.
    """

    types: tuple[str, ...]
    output: str
    shape: Callable[[Operands], Shape]
    scales: Callable[[Operands], None] | None = None


def check(graph: ir.Graph) -> None:
    """Checks every invariant of a graph.

    Raises:
        GraphInvalid: shapes, wiring, data or quantisation break a rule.
        UnsupportedOp: an op is sound but of a type or form that no kernel runs.
    """
    for tensor in graph.tensors:
        _check_tensor(tensor)
    _check_wiring(graph)
    _check_names(graph)
    for op in graph.ops:
        operands = Operands(graph, op)
        rule = RULES.get(type(op))
        if rule is None:
            raise operands.unsupported("it has no rule in codegen/check.py")
        _check_types(operands, rule)
        _check_quantised(operands)
        shape = rule.shape(operands)
        if shape != operands.output.shape:
            raise operands.invalid(
                f"its output is declared as {list(operands.output.shape)}, "
                f"but its inputs give {list(shape)}"
            )
        if rule.scales is not None:
            rule.scales(operands)
    check_joins(graph)


def _check_tensor(tensor: ir.Tensor) -> None:
    where = f"tensor {tensor.name}"
    if len(tensor.shape) > _MAX_RANK:
        raise GraphInvalid(
            f"it has {len(tensor.shape)} dimensions; the limit is {_MAX_RANK}", where
        )
    if any(size < 1 for size in tensor.shape):
        raise GraphInvalid(f"its shape {list(tensor.shape)} has a size below 1", where)
    if tensor.data is not None and (
        tensor.data.shape != tensor.shape or tensor.data.dtype != tensor.dtype.numpy
    ):
        raise GraphInvalid("its data has another shape or type than it declares", where)
    if tensor.quant is not None:
        _check_quant(tensor, tensor.quant, where)


def _check_quant(tensor: ir.Tensor, quant: ir.Quant, where: str) -> None:
    if tensor.dtype not in _ZERO_POINTS:
        return
    if not quant.scale or len(quant.scale) != len(quant.zero_point):
        raise GraphInvalid(
            f"{len(quant.scale)} scales and {len(quant.zero_point)} zero points", where
        )
    for scale in quant.scale:
        # Written so that NaN is refused too.
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise GraphInvalid(f"scale {scale:.6g} is not between 2**-60 and 2**60", where)
    low, high = _ZERO_POINTS[tensor.dtype]
    for zero_point in quant.zero_point:
        if not low <= zero_point <= high:
            raise GraphInvalid(f"zero point {zero_point} is outside {low}..{high}", where)
    if quant.is_per_channel:
        axis = quant.axis
        if (
            axis is None
            or not 0 <= axis < len(tensor.shape)
            or tensor.shape[axis] != len(quant.scale)
        ):
            raise GraphInvalid(
                f"{len(quant.scale)} scales along axis {axis} of shape {list(tensor.shape)}", where
            )


def _check_wiring(graph: ir.Graph) -> None:
    count = len(graph.tensors)
    used = {
        *graph.inputs,
        *graph.outputs,
        *(i for op in graph.ops for i in (*op.inputs, *op.outputs)),
    }
    if not all(0 <= index < count for index in used):
        raise GraphInvalid("an op, input or output names a tensor that does not exist", "graph")
    written = set(graph.inputs)
    if len(written) != len(graph.inputs) or any(graph.tensors[i].is_constant for i in written):
        raise GraphInvalid("an input is listed twice or is a constant", "graph inputs")
    for op in graph.ops:
        for index in op.inputs:
            if index not in written and not graph.tensors[index].is_constant:
                raise GraphInvalid(
                    f"it reads {graph.tensors[index].name} before it is written", f"op {op.name}"
                )
        if len(op.outputs) != 1:
            raise GraphInvalid(f"it has {len(op.outputs)} outputs, expected 1", f"op {op.name}")
        for index in op.outputs:
            if index in written or graph.tensors[index].is_constant:
                raise GraphInvalid(
                    f"it writes {graph.tensors[index].name} a second time", f"op {op.name}"
                )
            written.add(index)
    for index in graph.outputs:
        if index not in written:
            raise GraphInvalid(f"no op writes {graph.tensors[index].name}", "graph outputs")


def check_joins(graph: ir.Graph) -> None:
    """What is joined lies side by side, and has its bytes to itself; no constant is in it."""
    places = bytes_of_tensors(graph)
    for op in graph.ops:
        if not isinstance(op, ir.Join):
            continue
        out = places[op.outputs[0]]
        start = out.start
        for index in op.inputs:
            tensor = graph.tensors[index]
            if start % ALIGNMENT or places[index][:2] != (out.storage, start):
                raise GraphInvalid(f"{tensor.name} cannot be joined with the others", op.name)
            start += tensor.size_bytes


def _check_names(graph: ir.Graph) -> None:
    seen: set[str] = set()
    for name in (*(tensor.name for tensor in graph.tensors), *(op.name for op in graph.ops)):
        if not _IDENTIFIER.fullmatch(name) or len(name) > MAX_IDENTIFIER:
            raise GraphInvalid(
                f"{name!r} is not a C identifier of at most {MAX_IDENTIFIER}", "graph"
            )
        if name in seen:
            raise GraphInvalid(f"the name {name!r} is used twice", "graph")
        seen.add(name)


def _check_types(operands: Operands, rule: Rule) -> None:
    found = [tensor.dtype.value for tensor in operands.inputs]
    pattern = "".join(
        f"((?:{types.rstrip('?+')}) ){types[-1] if types[-1] in '?+' else ''}"
        for types in rule.types
    )
    output = operands.output.dtype.value
    output_fits = output in rule.output.split("|") or (rule.output == "same" and output == found[0])
    if not re.fullmatch(pattern, "".join(f"{dtype} " for dtype in found)) or not output_fits:
        raise operands.unsupported(
            f"its types are {', '.join(found)} -> {output}, but our kernels take "
            f"{', '.join(rule.types)} -> {rule.output}; quantise the model to int8 in full"
        )


def _check_quantised(operands: Operands) -> None:
    """Every integer activation has one scale and one zero point; weights have their own rules."""
    is_weighted = isinstance(operands.op, ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected)
    activations = operands.inputs[:1] if is_weighted else operands.inputs
    for tensor in (*activations, operands.output):
        if tensor.dtype is ir.DType.F32:
            continue
        if tensor.quant is None:
            raise operands.invalid(
                f"{tensor.name} is {tensor.dtype.value} but lacks scale or zero point"
            )
        if tensor.quant.is_per_channel:
            raise operands.unsupported(
                f"{tensor.name} has one scale per channel; activations have one"
            )


# Shapes


def _same_shape(operands: Operands) -> Shape:
    return operands.inputs[0].shape


def _same_elements(operands: Operands) -> Shape:
    if operands.inputs[0].elements != operands.output.elements:
        return operands.inputs[0].shape
    return operands.output.shape


def _view_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.View)
    start, x = operands.op.offset_bytes, operands.inputs[0]
    if start < 0 or start % ALIGNMENT or start + operands.output.size_bytes > x.size_bytes:
        raise operands.invalid(
            f"byte {start} is no start for {operands.output.size_bytes} of {x.size_bytes} bytes"
        )
    return operands.output.shape


def _joined_shape(operands: Operands) -> Shape:
    joined = sum(tensor.elements for tensor in operands.inputs)
    return operands.output.shape if joined == operands.output.elements else (joined,)


def _image(operands: Operands, position: int) -> Shape:
    shape = operands.inputs[position].shape
    if len(shape) != 4:
        raise operands.invalid(
            f"input {position} has shape {list(shape)}, expected four dimensions"
        )
    return shape


def _windows(
    operands: Operands, size: int, pad: int, kernel: int, stride: int, dilation: int = 1
) -> int:
    """How many windows fit along one axis."""
    extent = (kernel - 1) * dilation + 1
    if min(kernel, stride, dilation) < 1 or size + pad < extent:
        raise operands.invalid(
            f"a window of {extent} with stride {stride} does not fit {size} elements "
            f"with {pad} of padding"
        )
    return (size + pad - extent) // stride + 1


def _check_padding(operands: Operands, padding: ir.Padding, kh: int, kw: int) -> None:
    """Each window holds at least one element of the image."""
    if min(padding.top, padding.bottom, padding.left, padding.right) < 0:
        raise operands.invalid("negative padding")
    if max(padding.top, padding.bottom) >= kh or max(padding.left, padding.right) >= kw:
        raise operands.invalid(f"{padding} is not smaller than the window of {kh} x {kw}")


def _convolved(operands: Operands, op: ir.Conv2D | ir.DepthwiseConv2D) -> tuple[int, int]:
    _, in_h, in_w, _ = _image(operands, 0)
    _, kh, kw, _ = _image(operands, 1)
    padding = op.padding
    _check_padding(operands, padding, (kh - 1) * op.dilation_h + 1, (kw - 1) * op.dilation_w + 1)
    return (
        _windows(operands, in_h, padding.top + padding.bottom, kh, op.stride_h, op.dilation_h),
        _windows(operands, in_w, padding.left + padding.right, kw, op.stride_w, op.dilation_w),
    )


def _conv2d_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.Conv2D)
    out_h, out_w = _convolved(operands, operands.op)
    n, _, _, in_c = operands.inputs[0].shape
    out_c, _, _, weight_c = operands.inputs[1].shape
    if weight_c != in_c:
        if in_c % weight_c == 0:
            raise operands.unsupported(f"{in_c // weight_c} groups; only one group is")
        raise operands.invalid(f"its weights are for {weight_c} channels, but its input has {in_c}")
    return (n, out_h, out_w, out_c)


def _depthwise_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.DepthwiseConv2D)
    out_h, out_w = _convolved(operands, operands.op)
    n, _, _, in_c = operands.inputs[0].shape
    one, _, _, out_c = operands.inputs[1].shape
    if one != 1 or out_c != in_c * operands.op.depth_multiplier:
        raise operands.invalid(
            f"its weights have shape {list(operands.inputs[1].shape)}, expected (1, kh, kw, "
            f"{in_c * operands.op.depth_multiplier})"
        )
    return (n, out_h, out_w, out_c)


def _dense_shape(operands: Operands) -> Shape:
    x, weight = operands.inputs[:2]
    if len(weight.shape) != 2 or x.shape[-1:] != weight.shape[1:]:
        raise operands.invalid(f"weights {list(weight.shape)} do not fit input {list(x.shape)}")
    rows, out_features = x.elements // weight.shape[1], weight.shape[0]
    declared = operands.output.shape
    # Leading axes may be kept or merged; the bytes are the same.
    if declared[-1:] == (out_features,) and math.prod(declared) == rows * out_features:
        return declared
    return (rows, out_features)


def _pool_shape(operands: Operands) -> Shape:
    op = operands.op
    assert isinstance(op, ir.AveragePool2D | ir.MaxPool2D)
    n, in_h, in_w, c = _image(operands, 0)
    _check_padding(operands, op.padding, op.kh, op.kw)
    return (
        n,
        _windows(operands, in_h, op.padding.top + op.padding.bottom, op.kh, op.stride_h),
        _windows(operands, in_w, op.padding.left + op.padding.right, op.kw, op.stride_w),
        c,
    )


def _mean_shape(operands: Operands) -> Shape:
    op = operands.op
    assert isinstance(op, ir.Mean)
    shape = operands.inputs[0].shape
    _check_axes(operands, op.axes, len(shape))
    if op.keep_dims:
        return tuple(1 if axis in op.axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in op.axes)


def _check_axes(operands: Operands, axes: tuple[int, ...], rank: int) -> None:
    if list(axes) != sorted(set(axes)) or not all(0 <= axis < rank for axis in axes):
        raise operands.invalid(f"axes {list(axes)} are not sorted axes of {rank} dimensions")


def _broadcast_shape(operands: Operands) -> Shape:
    a, b = (tensor.shape for tensor in operands.inputs)
    rank = max(len(a), len(b))
    wide_a, wide_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(wide_a, wide_b, strict=True)):
        raise operands.invalid(f"shapes {list(a)} and {list(b)} cannot be broadcast")
    return tuple(max(x, y) for x, y in zip(wide_a, wide_b, strict=True))


def _pad_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.Pad)
    shape, pads = operands.inputs[0].shape, operands.op.pads
    if len(pads) != len(shape) or any(amount < 0 for pair in pads for amount in pair):
        raise operands.invalid(f"pads {pads} do not fit shape {list(shape)}")
    return tuple(before + size + after for size, (before, after) in zip(shape, pads, strict=True))


def _concatenation_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.Concatenation)
    axis, shapes = operands.op.axis, [tensor.shape for tensor in operands.inputs]
    first = shapes[0]
    for shape in shapes:
        if not axis < len(shape) == len(first) or any(
            shape[i] != first[i] for i in range(len(first)) if i != axis
        ):
            raise operands.invalid(
                f"shapes {list(first)} and {list(shape)} cannot be joined on axis {axis}"
            )
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _transpose_shape(operands: Operands) -> Shape:
    assert isinstance(operands.op, ir.Transpose)
    shape, perm = operands.inputs[0].shape, operands.op.perm
    if sorted(perm) != list(range(len(shape))):
        raise operands.invalid(f"{list(perm)} is not a permutation of {len(shape)} axes")
    return tuple(shape[axis] for axis in perm)


def _slice_shape(operands: Operands) -> Shape:
    op = operands.op
    assert isinstance(op, ir.StridedSlice)
    shape = operands.inputs[0].shape
    if not len(op.begin) == len(op.end) == len(op.stride) == len(shape) or 0 in op.stride:
        raise operands.invalid(f"begin, end and stride do not fit shape {list(shape)}")
    _check_axes(operands, op.shrink, len(shape))
    parts = [range(*part) for part in zip(op.begin, op.end, op.stride, strict=True)]
    for axis, (part, size) in enumerate(zip(parts, shape, strict=True)):
        if not part or not (0 <= part[0] < size and 0 <= part[-1] < size):
            raise operands.invalid(f"slice {part} leaves axis {axis} of {size}")
        if axis in op.shrink and len(part) != 1:
            raise operands.invalid(f"axis {axis} is dropped, but {len(part)} elements are taken")
    return tuple(len(part) for axis, part in enumerate(parts) if axis not in op.shrink)


# Scales


def _close(a: float, b: float) -> bool:
    """TFLite's own test for scales that an op does not change."""
    return abs(a - b) <= 1e-6


def _same_scale(operands: Operands) -> None:
    """The op moves or compares bytes; neither we nor TFLM rescale them, so scales must agree."""
    for tensor in operands.inputs:
        if tensor.zero_point != operands.output.zero_point or not _close(
            tensor.scale, operands.output.scale
        ):
            raise operands.unsupported(
                f"{tensor.name} has scale {tensor.scale:.6g}, zero point {tensor.zero_point}, but "
                f"its output {operands.output.scale:.6g}, {operands.output.zero_point}; "
                "they must be equal"
            )


def _pad_scales(operands: Operands) -> None:
    assert isinstance(operands.op, ir.Pad)
    _same_scale(operands)
    _rank_limit(5)(operands)
    low, high = _ZERO_POINTS[operands.output.dtype]
    if not low <= operands.op.value <= high:
        raise operands.invalid(f"the value {operands.op.value} is outside {low}..{high}")


def _output_scale(scale: float, zero_point: int) -> Callable[[Operands], None]:
    def fixed(operands: Operands) -> None:
        output = operands.output
        if (output.scale, output.zero_point) != (scale, zero_point):
            raise operands.unsupported(
                f"its output has scale {output.scale:.6g}, zero point {output.zero_point}; "
                f"expected 1/{round(1 / scale)}, {zero_point}"
            )

    return fixed


def _softmax_scales(operands: Operands) -> None:
    assert isinstance(operands.op, ir.Softmax)
    if not 2.0**-20 <= operands.op.beta <= 2.0**20:
        raise operands.invalid(f"beta is {operands.op.beta!r}, expected a positive number")
    # TFLM stops where the exponent, with 26 bits behind the point, needs a multiplier below 1.
    if operands.op.beta * operands.inputs[0].scale * (1 << 26) <= 1:
        raise operands.unsupported(f"its input's scale {operands.inputs[0].scale:.6g} is too small")
    _output_scale(1 / 256, -128)(operands)


def _leaky_relu_scales(operands: Operands) -> None:
    assert isinstance(operands.op, ir.LeakyRelu)
    alpha = operands.op.alpha
    if alpha != 0 and not 2.0**-60 <= abs(alpha) <= 2.0**20:
        raise operands.invalid(f"alpha is {alpha!r}, expected a finite number")
    _rescale(operands)
    _check_multiplier(operands, operands.inputs[0].scale * abs(alpha) / operands.output.scale)


def _hard_swish_scales(operands: Operands) -> None:
    """TFLM works with the input 128 times finer; its shifts of 16-bit values bound both ends."""
    fine_scale = operands.inputs[0].scale / 128
    if fine_scale / operands.output.scale >= 1:
        raise operands.unsupported(
            f"its output's scale {operands.output.scale:.6g} is too small for an input of "
            f"{operands.inputs[0].scale:.6g}"
        )
    if fine_scale / operands.output.scale < 2.0**-16:
        raise operands.unsupported(
            f"its output's scale {operands.output.scale:.6g} is too large for an input of "
            f"{operands.inputs[0].scale:.6g}"
        )
    if fine_scale / (3 / 32768) < 2.0**-15:
        raise operands.unsupported(f"its input's scale {operands.inputs[0].scale:.6g} is too small")


def _relu_scales(operands: Operands) -> None:
    assert isinstance(operands.op, ir.Relu)
    if operands.op.activation is ir.Activation.NONE:
        raise operands.invalid("it has no activation")
    _rescale(operands)
    if operands.op.activation is not ir.Activation.RELU:
        _same_scale(operands)


def _sum_scales(operands: Operands) -> None:
    """The output multiplier of ADD and SUB must be below 1, or TFLM stops."""
    widest = 2 * max(tensor.scale for tensor in operands.inputs)
    if widest / ((1 << 20) * operands.output.scale) >= 1:
        raise operands.unsupported(
            f"its output's scale {operands.output.scale:.6g} is too small "
            f"for inputs of {widest / 2:.6g}"
        )


def _product_scales(operands: Operands) -> None:
    a, b = operands.inputs
    _check_multiplier(operands, a.scale * b.scale / operands.output.scale)


def _rescale(operands: Operands) -> None:
    _check_multiplier(operands, operands.inputs[0].scale / operands.output.scale)


def _quantize_scales(operands: Operands) -> None:
    x, y = operands.inputs[0].dtype, operands.output.dtype
    if (x.value, y.value) not in _REQUANTIZED:
        raise operands.unsupported(f"{x.value} -> {y.value}; TFLM does not run it either")
    if x is not ir.DType.F32:
        _rescale(operands)


def _concatenation_scales(operands: Operands) -> None:
    assert isinstance(operands.op, ir.Concatenation)
    _same_scale(operands)
    if operands.op.activation is not ir.Activation.NONE:
        raise operands.unsupported("it has a fused activation; TFLM does not run it either")
    if len(operands.inputs) > _MAX_CONCATENATED:
        raise operands.unsupported(
            f"it has {len(operands.inputs)} inputs; the limit is {_MAX_CONCATENATED}, as in TFLM"
        )


def _rank_limit(limit: int) -> Callable[[Operands], None]:
    def limited(operands: Operands) -> None:
        rank = len(operands.inputs[0].shape)
        if rank > limit:
            raise operands.unsupported(
                f"its input has {rank} dimensions; the limit is {limit}, as in TFLM"
            )

    return limited


def _check_multiplier(operands: Operands, multiplier: float) -> None:
    """A requantisation multiplier that TFLM can express: a left shift of at most 30."""
    if multiplier >= 2.0**30:
        raise operands.unsupported(
            f"its scales give a multiplier of {multiplier:.6g}; the limit is 2**30"
        )


def _weight_scales(axis: int) -> Callable[[Operands], None]:
    def weighted(operands: Operands) -> None:
        x, weight = operands.inputs[:2]
        out_c = weight.shape[axis]
        if not weight.is_constant:
            raise operands.unsupported(
                "its weights are computed at run time; constants are expected"
            )
        if weight.quant is None:
            raise operands.invalid("its weights have no scale")
        if any(weight.quant.zero_point):
            raise operands.unsupported("its weights have a zero point other than 0")
        if weight.quant.is_per_channel and weight.quant.axis != axis:
            raise operands.unsupported(
                f"its weights have scales along axis {weight.quant.axis}, expected axis {axis}"
            )
        for scale in weight.quant.scale:
            _check_multiplier(operands, x.scale * scale / operands.output.scale)
        for bias in operands.inputs[2:]:
            if not bias.is_constant:
                raise operands.unsupported(
                    "its bias is computed at run time; a constant is expected"
                )
            if bias.elements != out_c:
                raise operands.invalid(
                    f"its bias has {bias.elements} values for {out_c} output channels"
                )

    return weighted


RULES: dict[type[ir.Op], Rule] = {
    # types of inputs, type of output, shape of output, scales
    ir.Conv2D: Rule(("s8", "s8", "s32?"), "s8", _conv2d_shape, _weight_scales(0)),
    ir.DepthwiseConv2D: Rule(("s8", "s8", "s32?"), "s8", _depthwise_shape, _weight_scales(3)),
    ir.FullyConnected: Rule(("s8", "s8", "s32?"), "s8", _dense_shape, _weight_scales(0)),
    ir.AveragePool2D: Rule(("s8",), "s8", _pool_shape, _same_scale),
    ir.MaxPool2D: Rule(("s8",), "s8", _pool_shape, _same_scale),
    ir.Mean: Rule(("s8",), "s8", _mean_shape, _rescale),
    ir.Add: Rule(("s8", "s8"), "s8", _broadcast_shape, _sum_scales),
    ir.Sub: Rule(("s8", "s8"), "s8", _broadcast_shape, _sum_scales),
    ir.Mul: Rule(("s8", "s8"), "s8", _broadcast_shape, _product_scales),
    ir.Pad: Rule(("s8",), "s8", _pad_shape, _pad_scales),
    ir.Concatenation: Rule(("s8+",), "s8", _concatenation_shape, _concatenation_scales),
    ir.Reshape: Rule(("s8|u8|s16|s32|f32",), "same", _same_elements),
    ir.View: Rule(("s8|u8|s16|s32|f32",), "same", _view_shape),
    ir.Join: Rule(("s8+",), "s8", _joined_shape, _same_scale),
    ir.Transpose: Rule(("s8",), "s8", _transpose_shape, _rank_limit(5)),
    ir.StridedSlice: Rule(("s8",), "s8", _slice_shape, _rank_limit(4)),
    ir.Softmax: Rule(("s8",), "s8", _same_shape, _softmax_scales),
    ir.Logistic: Rule(("s8",), "s8", _same_shape, _output_scale(1 / 256, -128)),
    ir.Tanh: Rule(("s8",), "s8", _same_shape, _output_scale(1 / 128, 0)),
    ir.Relu: Rule(("s8",), "s8", _same_shape, _relu_scales),
    ir.LeakyRelu: Rule(("s8",), "s8", _same_shape, _leaky_relu_scales),
    ir.HardSwish: Rule(("s8",), "s8", _same_shape, _hard_swish_scales),
    ir.Quantize: Rule(("f32|s8|u8|s16",), "s8|u8", _same_shape, _quantize_scales),
    ir.Dequantize: Rule(("s8|u8",), "f32", _same_shape),
}
