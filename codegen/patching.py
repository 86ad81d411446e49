"""The first ops of a network in strips of rows, so that their large tensors never exist as a whole.

The stage is a prefix of the ops: convolutions, pools, pads and ops element by element, on NHWC
images with a batch of 1. In each strip every op computes just the rows that the rows of the stage's
outputs need by then. Rows that the next strip reads again (a kernel higher than its stride) are
kept, not computed twice: a copy moves them in front of the new ones. So the strips do the work of
the whole ops, plus the copies, and

- an input of the stage is read through views of its rows, which die strip by strip;
- a tensor inside the stage has the rows of one strip: those kept, joined with the new ones;
- an output of the stage grows by the rows of each strip, which are joined with those before.

That the input dies while the outputs grow is what the planner makes use of (liveness.py). Strips of
the middle have one shape, so they share one C function per op and one set of constants.

The idea of patches: Lin et al., MCUNetV2: Memory-efficient patch-based inference for tiny deep
learning, NeurIPS 2021; they compute the shared rows again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codegen import ir
from codegen.liveness import ALIGNMENT
from codegen.names import MAX_IDENTIFIER

_WINDOWED = ir.Conv2D | ir.DepthwiseConv2D | ir.AveragePool2D | ir.MaxPool2D
_BY_ELEMENT = (
    ir.Add
    | ir.Sub
    | ir.Mul
    | ir.Relu
    | ir.LeakyRelu
    | ir.HardSwish
    | ir.Logistic
    | ir.Tanh
    | ir.Softmax
    | ir.Quantize
    | ir.Dequantize
)


#: Ops of a stage times strips: a limit on work.
MAX_STRIPED_OPS = 400


@dataclass(frozen=True, slots=True)
class Strips:
    """The first `ops` ops of a network in `count` strips; 1: as they are."""

    ops: int = 0
    count: int = 1


WHOLE = Strips()


def stage_limit(graph: ir.Graph) -> int:
    """The most ops that a stage can have: all before the first that does not work row by row."""
    return next(
        (i for i, op in enumerate(graph.ops) if not _works_by_rows(graph, op)), len(graph.ops)
    )


def stage_height(graph: ir.Graph, length: int) -> int:
    """Rows of the lowest output of a stage: more strips would leave some of them without work."""
    stage = _Stage(graph, length)
    return min((stage.height(tensor) for tensor in stage.outputs), default=0)


def in_strips(graph: ir.Graph, length: int, strips: int) -> ir.Graph | None:
    """The graph with its first ops in strips; None where rows do not start at whole words.

    Args:
        graph: after the passes, its ops in the order of execution.
        length: ops of the stage, from 1 to `stage_limit`.
        strips: from 2 to `stage_height`.
    """
    try:
        return _Stage(graph, length).in_strips(strips)
    except _Impossible:
        return None


class _Impossible(Exception):
    """A row that would have to start within a word, or a strip without rows."""


def _works_by_rows(graph: ir.Graph, op: ir.Op) -> bool:
    out = graph.tensors[op.outputs[0]]
    moving = [graph.tensors[i] for i in op.inputs if not graph.tensors[i].is_constant]
    if any(len(tensor.shape) != 4 or tensor.shape[0] != 1 for tensor in (*moving, out)):
        return False
    if isinstance(op, _WINDOWED):
        return True
    if isinstance(op, ir.Pad):
        return op.pads[0] == (0, 0)
    if isinstance(op, ir.Concatenation) and op.axis not in (2, 3):
        return False
    if not isinstance(op, _BY_ELEMENT | ir.Concatenation):
        return False
    fixed = [graph.tensors[i].shape for i in op.inputs if graph.tensors[i].is_constant]
    has_rows = any(len(shape) >= 3 and shape[-3] != 1 for shape in fixed)
    return not has_rows and all(tensor.shape[1] == out.shape[1] for tensor in moving)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which input rows an op reads: row r of the output begins at r * stride - top."""

    extent: int
    stride: int
    top: int

    def first(self, row: int) -> int:
        """The first input row of an output row; negative where it is padding."""
        return row * self.stride - self.top

    def end(self, row: int) -> int:
        """The row after the last one of an output row."""
        return self.first(row) + self.extent


def _reach(graph: ir.Graph, op: ir.Op) -> _Reach:
    if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D):
        kh = graph.tensors[op.inputs[1]].shape[1]
        return _Reach((kh - 1) * op.dilation_h + 1, op.stride_h, op.padding.top)
    if isinstance(op, ir.AveragePool2D | ir.MaxPool2D):
        return _Reach(op.kh, op.stride_h, op.padding.top)
    return _Reach(1, 1, op.pads[1][0] if isinstance(op, ir.Pad) else 0)


@dataclass(slots=True)
class _Rows:
    """A tensor of the new graph that holds the rows first to end (excluded) of an old one."""

    tensor: int
    first: int
    end: int


class _Stage:
    """The first ops of a graph, and the new tensors and ops as they are made."""

    def __init__(self, graph: ir.Graph, length: int) -> None:
        self._graph = graph
        self._ops, self._rest = graph.ops[:length], graph.ops[length:]
        self._reach = {op.name: _reach(graph, op) for op in self._ops}
        written = [op.outputs[0] for op in self._ops]
        needed = {*graph.outputs, *(i for op in self._rest for i in op.inputs)}
        self.outputs = [tensor for tensor in written if tensor in needed]
        self._readers = {
            tensor: [op for op in self._ops if tensor in op.inputs] for tensor in written
        }
        self._tensors = list(graph.tensors)
        self._made: list[ir.Op] = []
        self._names = {tensor.name for tensor in graph.tensors} | {op.name for op in graph.ops}
        # By old tensor: the rows that there are.
        self._there: dict[int, _Rows] = {
            tensor: _Rows(tensor, 0, self.height(tensor))
            for tensor in graph.inputs
            if len(graph.tensors[tensor].shape) == 4
        }

    def height(self, tensor: int) -> int:
        """Rows of an image."""
        return self._graph.tensors[tensor].shape[1]

    def in_strips(self, strips: int) -> ir.Graph:
        """The graph with the stage in strips."""
        ends = self._ends(strips)
        for strip in range(strips):
            for op in self._ops:
                self._compute(op, strip, ends)
        for tensor in self.outputs:
            if self._there[tensor].end != self.height(tensor):
                raise _Impossible
        return self._graph.with_ops((*self._made, *self._rest), tuple(self._tensors))

    def _ends(self, strips: int) -> list[dict[int, int]]:
        """By strip and tensor, up to which row it is computed by then."""
        ends: list[dict[int, int]] = []
        for strip in range(1, strips + 1):
            end = dict.fromkeys(self._readers, 0)
            for tensor in self.outputs:
                step = ALIGNMENT // _common_factor(self._row_bytes(tensor))
                share = -(-self.height(tensor) * strip // strips)
                end[tensor] = min(self.height(tensor), -(-share // step) * step)
            for op in reversed(self._ops):
                last = end[op.outputs[0]] - 1
                for i in op.inputs:
                    if i in end and last >= 0:
                        reach = min(self._reach[op.name].end(last), self.height(i))
                        end[i] = max(end[i], reach)
            ends.append(end)
        return ends

    def _compute(self, op: ir.Op, strip: int, ends: list[dict[int, int]]) -> None:
        """The rows that an op adds in one strip."""
        out = op.outputs[0]
        before = self._there.get(out)
        first = before.end if before else 0
        end = ends[strip][out]
        if end <= first:
            return
        reach = self._reach[op.name]
        top, bottom = reach.first(first), reach.end(end - 1)
        inputs, padding = [], (0, 0)
        for i in op.inputs:
            if self._graph.tensors[i].is_constant:
                inputs.append(i)
                continue
            low, high = max(0, top), min(bottom, self.height(i))
            if low >= high:
                raise _Impossible
            padding = low - top, bottom - high
            inputs.append(self._view(f"{op.name}_s{strip}_in", i, low, high))
        kept = None if out in self.outputs else self._kept(op, strip, ends[-1])
        is_whole = out in self.outputs and (first, end) == (0, self.height(out))
        made = out if is_whole else self._tensor(f"{op.name}_s{strip}_rows", out, end - first)
        name = self._name(f"{op.name}_s{strip}")
        self._made.append(
            replace(_padded(op, *padding), name=name, inputs=tuple(inputs), outputs=(made,))
        )
        if out in self.outputs:
            self._there[out] = self._grown(op, strip, before, _Rows(made, first, end))
        elif kept is not None:
            self._there[out] = self._join(f"{op.name}_s{strip}_all", out, kept, made, end)
        else:
            self._there[out] = _Rows(made, first, end)

    def _kept(self, op: ir.Op, strip: int, last_ends: dict[int, int]) -> _Rows | None:
        """Rows of earlier strips that are read again, copied to where new ones can join them."""
        out = op.outputs[0]
        before = self._there.get(out)
        if before is None:
            return None
        reads = []
        for reader in self._readers[out]:
            result = reader.outputs[0]
            done = self._there[result].end if result in self._there else 0
            if done < last_ends[result]:
                reads.append(max(0, self._reach[reader.name].first(done)))
        first = min(reads, default=before.end)
        if first >= before.end:
            return None
        view = self._view(f"{op.name}_s{strip}_old", out, first, before.end)
        copy = self._tensor(f"{op.name}_s{strip}_kept", out, before.end - first)
        self._made.append(
            ir.Concatenation(
                name=self._name(f"{op.name}_s{strip}_keep"),
                inputs=(view,),
                outputs=(copy,),
                axis=1,
                source=op.source,
            )
        )
        return _Rows(copy, first, before.end)

    def _grown(self, op: ir.Op, strip: int, before: _Rows | None, new: _Rows) -> _Rows:
        """An output of the stage with the rows of one more strip."""
        if before is None:
            return new
        out = op.outputs[0]
        return self._join(f"{op.name}_s{strip}_all", out, before, new.tensor, new.end)

    def _join(self, name: str, old: int, rows: _Rows, more: int, end: int) -> _Rows:
        """Rows and more rows behind them; all rows of an output are the old tensor itself."""
        if (end - rows.first) * self._row_bytes(old) > 0 and (
            (rows.end - rows.first) * self._row_bytes(old) % ALIGNMENT
        ):
            raise _Impossible
        is_whole = old in self.outputs and (rows.first, end) == (0, self.height(old))
        joined = old if is_whole else self._tensor(name, old, end - rows.first)
        self._made.append(
            ir.Join(name=self._name(f"{name}_join"), inputs=(rows.tensor, more), outputs=(joined,))
        )
        return _Rows(joined, rows.first, end)

    def _view(self, name: str, old: int, first: int, end: int) -> int:
        """Some rows of an old tensor."""
        there = self._there.get(old)
        if there is None or not there.first <= first < end <= there.end:
            raise _Impossible
        if (first, end) == (there.first, there.end):
            return there.tensor
        offset = (first - there.first) * self._row_bytes(old)
        if offset % ALIGNMENT:
            raise _Impossible
        view = self._tensor(name, old, end - first)
        self._made.append(
            ir.View(
                name=self._name(f"{name}_view"),
                inputs=(there.tensor,),
                outputs=(view,),
                offset_bytes=offset,
            )
        )
        return view

    def _row_bytes(self, tensor: int) -> int:
        return self._graph.tensors[tensor].size_bytes // self.height(tensor)

    def _tensor(self, name: str, old: int, rows: int) -> int:
        """A new tensor of that many rows."""
        tensor = self._graph.tensors[old]
        shape = (1, rows, *tensor.shape[2:])
        self._tensors.append(replace(tensor, name=self._name(name), shape=shape))
        return len(self._tensors) - 1

    def _name(self, hint: str) -> str:
        """A name that is not taken."""
        name = hint[-MAX_IDENTIFIER:].lstrip("_0123456789")
        number = 2
        while name in self._names:
            suffix = f"_{number}"
            name = hint[-MAX_IDENTIFIER + len(suffix) :].lstrip("_0123456789") + suffix
            number += 1
        self._names.add(name)
        return name


def _padded(op: ir.Op, top: int, bottom: int) -> ir.Op:
    """The op with other padding above and below."""
    if isinstance(op, _WINDOWED):
        return replace(op, padding=replace(op.padding, top=top, bottom=bottom))
    if isinstance(op, ir.Pad):
        return replace(op, pads=(op.pads[0], (top, bottom), *op.pads[2:]))
    return op


def _common_factor(row_bytes: int) -> int:
    """The largest power of two up to ALIGNMENT that divides the bytes of a row."""
    return next(factor for factor in (4, 2, 1) if row_bytes % factor == 0)
