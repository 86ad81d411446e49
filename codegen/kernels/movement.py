"""Ops that move bytes: TRANSPOSE, STRIDED_SLICE, PAD and CONCATENATION."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from codegen.ir import Concatenation, Graph, Op, Pad, StridedSlice, Transpose
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Context, common
from codegen.kernels.strides import Axes, collapsed, collapsed_together, row_major_strides
from codegen.limits import BoardLimits
from codegen.planner import Overlap


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GatherContext(Context):
    """gather_s8: output elements in order, input elements from `start` by strides."""

    start: int
    axes: Axes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PadContext(Context):
    """pad_s8: the output is filled with `value`, the input copied to `start` and on by strides."""

    value: int
    out_bytes: int
    start: int
    axes: Axes


@dataclass(frozen=True, slots=True)
class Part:
    """What one operand of a concatenation gives per step, and where it goes in the output."""

    start: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ConcatenationContext(Context):
    """concatenation_s8: for each of `outer` steps, a run of bytes from each operand."""

    outer: int
    parts: tuple[Part, ...]

    @property
    def out_run(self) -> int:
        """Bytes of the output per step."""
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CopyContext(Context):
    """copy_s8: `size_bytes` bytes, by groups of four words, then words, then single bytes."""

    size_bytes: int

    @property
    def groups(self) -> int:
        """Groups of 16 bytes."""
        return self.size_bytes // 16

    @property
    def words(self) -> range:
        """Offsets of the words after the last group, from its end."""
        return range(0, self.size_bytes % 16 // 4 * 4, 4)

    @property
    def bytes(self) -> range:
        """Offsets of the bytes after the last word, from the last group's end."""
        return range(self.size_bytes % 16 // 4 * 4, self.size_bytes % 16)


def _transpose_context(graph: Graph, op: Op) -> GatherContext:
    assert isinstance(op, Transpose)
    shape = graph.tensors[op.inputs[0]].shape
    strides = row_major_strides(shape)
    axes = collapsed([(shape[axis], strides[axis]) for axis in op.perm])
    return GatherContext(**common(graph, op), start=0, axes=axes)


def _slice_context(graph: Graph, op: Op) -> GatherContext:
    assert isinstance(op, StridedSlice)
    strides = row_major_strides(graph.tensors[op.inputs[0]].shape)
    sizes = [len(range(*part)) for part in zip(op.begin, op.end, op.stride, strict=True)]
    steps = [stride * step for stride, step in zip(strides, op.stride, strict=True)]
    start = sum(first * stride for first, stride in zip(op.begin, strides, strict=True))
    axes = collapsed(list(zip(sizes, steps, strict=True)))
    return GatherContext(**common(graph, op), start=start, axes=axes)


def _pad_context(graph: Graph, op: Op) -> PadContext:
    assert isinstance(op, Pad)
    shape = graph.tensors[op.inputs[0]].shape
    out = graph.tensors[op.outputs[0]]
    out_strides = row_major_strides(out.shape)
    # Input and output are walked together, so that a run is dense in both.
    _, axes = collapsed_together(shape, row_major_strides(shape), out_strides)
    before = [amount for amount, _ in op.pads]
    return PadContext(
        **common(graph, op),
        value=op.value,
        out_bytes=out.size_bytes,
        start=sum(a * stride for a, stride in zip(before, out_strides, strict=True)),
        axes=axes,
    )


def _concatenation_context(graph: Graph, op: Op) -> ConcatenationContext:
    assert isinstance(op, Concatenation)
    shapes = [graph.tensors[i].shape for i in op.inputs]
    runs = [math.prod(shape[op.axis :]) for shape in shapes]
    starts = itertools.accumulate(runs, initial=0)
    return ConcatenationContext(
        **common(graph, op, operands=tuple(range(len(op.inputs)))),
        outer=math.prod(shapes[0][: op.axis]),
        parts=tuple(Part(start, run) for start, run in zip(starts, runs, strict=False)),
    )


def _copy_context(graph: Graph, op: Op) -> CopyContext:
    return CopyContext(**common(graph, op), size_bytes=graph.tensors[op.inputs[0]].size_bytes)


def _refuse_several(graph: Graph, op: Op) -> str | None:
    if len(op.inputs) > 1:
        return "several tensors cannot be copied at once"
    return _refuse_activation(graph, op)


def _move_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    size_bytes = graph.tensors[op.outputs[0]].size_bytes
    groups, rest = divmod(size_bytes, 16)
    # From the first byte to the last: the output may lie anywhere below the input.
    return Cost(cycles=20 + 16 * groups + rest, flash_bytes=60, overlaps=(Overlap(input=0),))


def _element_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    return Cost(cycles=8 * graph.tensors[op.outputs[0]].elements, flash_bytes=200)


def _copy_cost(graph: Graph, op: Op, board: BoardLimits) -> Cost:
    return Cost(cycles=2 * graph.tensors[op.outputs[0]].elements, flash_bytes=150)


def _refuse_activation(graph: Graph, op: Op) -> str | None:
    assert isinstance(op, Concatenation)
    if op.activation.value != "NONE":
        return "an activation fused into CONCATENATION"
    return None


register(
    Kernel(
        name="transpose_s8",
        op=(Transpose,),
        template="gather_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_element_cost,
        context=_transpose_context,
    )
)
register(
    Kernel(
        name="strided_slice_s8",
        op=(StridedSlice,),
        template="gather_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_element_cost,
        context=_slice_context,
    )
)
register(
    Kernel(
        name="pad_s8",
        op=(Pad,),
        template="pad_s8.c.j2",
        refuse=lambda graph, op: None,
        cost=_copy_cost,
        context=_pad_context,
    )
)
register(
    Kernel(
        name="copy_s8",
        op=(Concatenation,),
        template="copy_s8.c.j2",
        refuse=_refuse_several,
        cost=_move_cost,
        context=_copy_context,
    )
)
register(
    Kernel(
        name="concatenation_s8",
        op=(Concatenation,),
        template="concatenation_s8.c.j2",
        refuse=_refuse_activation,
        cost=_copy_cost,
        context=_concatenation_context,
    )
)
