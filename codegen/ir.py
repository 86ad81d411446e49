"""The quantised network as codegen sees it: tensors and ops as frozen dataclasses.

Not here: where it comes from (import_tflite), whether we can run it (check), what its arithmetic is
(reference). Layouts: activations NHWC, convolution weights OHWI (out_c, kh, kw, in_c), depthwise
weights (1, kh, kw, out_c) with out_c = in_c * depth_multiplier, dense weights (out_features,
in_features). All attributes are resolved: explicit padding in elements, no SAME or VALID; negative
axes made positive.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class DType(enum.Enum):
    """Element type; the value is the field's short name."""

    S8 = "s8"
    U8 = "u8"
    S16 = "s16"
    S32 = "s32"
    F32 = "f32"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type of one element, little endian."""
        return np.dtype(
            {"s8": "i1", "u8": "u1", "s16": "<i2", "s32": "<i4", "f32": "<f4"}[self.value]
        )

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize


@dataclass(frozen=True, slots=True)
class Quant:
    """real = scale * (q - zero_point); one entry, or one per slice along `axis`.

    Scales are the float32 values of the file as Python floats (exact); zero points are in the range
    of the dtype.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    @property
    def is_per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return len(self.scale) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor. `data` is set (read-only, of `shape`) for constants; batch is part of `shape`."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    quant: Quant | None = None
    data: NDArray[np.generic] | None = None

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes, without alignment."""
        return self.elements * self.dtype.item_bytes

    @property
    def is_constant(self) -> bool:
        """Whether the value is known when code is generated."""
        return self.data is not None

    @property
    def scale(self) -> float:
        """The scale of a per-tensor quantised tensor."""
        assert self.quant is not None and not self.quant.is_per_channel
        return self.quant.scale[0]

    @property
    def zero_point(self) -> int:
        """The zero point of a per-tensor quantised tensor."""
        assert self.quant is not None
        return self.quant.zero_point[0]


class Activation(enum.Enum):
    """Fused activation; the value is TFLite's name."""

    NONE = "NONE"
    RELU = "RELU"
    RELU_N1_TO_1 = "RELU_N1_TO_1"
    RELU6 = "RELU6"


@dataclass(frozen=True, slots=True)
class Padding:
    """Elements added on each side of h and w; the value is the input's zero point."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation.

    `inputs` and `outputs` are indices into Graph.tensors; -1 is an absent optional input.
    `name` is unique in the graph, a C identifier, and what users see; `source` is the operator's
    index in the .tflite.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: int = -1

    #: TFLite's name of the op; set by each subclass.
    kind: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2D(Op):
    """inputs: x (n, h, w, in_c), weight OHWI s8, optional bias (out_c,) s32."""

    kind = "CONV_2D"
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseConv2D(Op):
    """inputs: x NHWC, weight (1, kh, kw, in_c * depth_multiplier) s8, optional bias s32."""

    kind = "DEPTHWISE_CONV_2D"
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    depth_multiplier: int = 1
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class FullyConnected(Op):
    """inputs: x (..., in_features), weight (out_features, in_features) s8, optional bias s32."""

    kind = "FULLY_CONNECTED"
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool2D(Op):
    """inputs: x NHWC. Padded elements are not counted; scales of input and output are equal."""

    kind = "AVERAGE_POOL_2D"
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool2D(Op):
    """inputs: x NHWC."""

    kind = "MAX_POOL_2D"
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(Op):
    """inputs: x. Mean over `axes` (sorted, positive)."""

    kind = "MEAN"
    axes: tuple[int, ...]
    keep_dims: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Op):
    """inputs: a, b with numpy broadcasting."""

    kind = "ADD"
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Sub(Op):
    """inputs: a, b with numpy broadcasting; a - b."""

    kind = "SUB"
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Mul(Op):
    """inputs: a, b with numpy broadcasting."""

    kind = "MUL"
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(Op):
    """inputs: x.

    `pads` is (before, after) per axis; the value is `value`, quantised as the output is.
    """

    kind = "PAD"
    pads: tuple[tuple[int, int], ...]
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Concatenation(Op):
    """inputs: two or more tensors of one scale, joined along `axis`."""

    kind = "CONCATENATION"
    axis: int
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape(Op):
    """inputs: x.

    The new shape is the output's; the bytes do not change. SQUEEZE and EXPAND_DIMS become this too.
    """

    kind = "RESHAPE"


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Op):
    """inputs: x. The output is a run of x's bytes: those from `offset_bytes` on. Nothing moves.

    No file holds these; passes make them, such as rows of an image.
    """

    kind = "VIEW"
    offset_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Op):
    """inputs: tensors whose bytes, one after the other, are the output's. Nothing moves.

    Whoever writes an input writes into the output. No file holds these; passes make them.
    """

    kind = "JOIN"


#: Ops that move nothing: their output is bytes of their inputs, so they need no kernel.
Alias = Reshape | View | Join


@dataclass(frozen=True, slots=True, kw_only=True)
class Transpose(Op):
    """inputs: x. Output axis i is input axis `perm[i]`."""

    kind = "TRANSPOSE"
    perm: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StridedSlice(Op):
    """inputs: x.

    begin/end/stride per axis, masks resolved; axes in `shrink` have length 1 and are dropped.
    """

    kind = "STRIDED_SLICE"
    begin: tuple[int, ...]
    end: tuple[int, ...]
    stride: tuple[int, ...]
    shrink: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Op):
    """inputs: x; over the last axis. Output s8, scale 1/256, zero point -128."""

    kind = "SOFTMAX"
    beta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logistic(Op):
    """inputs: x. Output s8, scale 1/256, zero point -128."""

    kind = "LOGISTIC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh(Op):
    """inputs: x. Output s8, scale 1/128, zero point 0."""

    kind = "TANH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relu(Op):
    """inputs: x. Stand-alone RELU, RELU6 or RELU_N1_TO_1, which may also change the scale."""

    kind = "RELU"
    activation: Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyRelu(Op):
    """inputs: x."""

    kind = "LEAKY_RELU"
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSwish(Op):
    """inputs: x."""

    kind = "HARD_SWISH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize(Op):
    """inputs: x f32 (quantise) or s8, u8, s16 (change of scale or type); output s8 or u8."""

    kind = "QUANTIZE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dequantize(Op):
    """inputs: x s8 or u8; output f32."""

    kind = "DEQUANTIZE"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network: ops in a valid order of execution over an indexed list of tensors.

    `name` is sanitised ([A-Za-z0-9_]+); `sha256` is that of the .tflite; `nominal_macs` is fixed at
    import, before any pass, so that cycles per MAC of different engines can be compared.
    """

    name: str
    sha256: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nominal_macs: int = 0

    def with_ops(self, ops: tuple[Op, ...], tensors: tuple[Tensor, ...] | None = None) -> Graph:
        """The same graph with other ops (and tensors); passes return these."""
        return replace(self, ops=ops, tensors=self.tensors if tensors is None else tensors)


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op; 0 for all but convolutions and dense layers."""
    out = graph.tensors[op.outputs[0]]
    if isinstance(op, Conv2D):
        _, kh, kw, in_c = graph.tensors[op.inputs[1]].shape
        return out.elements * kh * kw * in_c
    if isinstance(op, DepthwiseConv2D):
        _, kh, kw, _ = graph.tensors[op.inputs[1]].shape
        return out.elements * kh * kw
    if isinstance(op, FullyConnected):
        return out.elements * graph.tensors[op.inputs[1]].shape[1]
    return 0


def graph_macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference."""
    return sum(op_macs(graph, op) for op in graph.ops)
