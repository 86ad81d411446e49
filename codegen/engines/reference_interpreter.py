"""Engine `reference`: the model's own bytes, for firmware/interpreter to walk at run time.

The baseline that is always there: built the way TFLM works, with plain loops as kernels. What is
decided here is little: which kinds of operators are linked, and how large the arena is. The
interpreter plans the arena again on the board, by the same algorithm, and refuses to run if it does
not fit.

The interpreter checks no bounds. So every place of the flatbuffer that it reads is visited here
first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import tflite

from codegen import ir
from codegen.emit import banner, environment
from codegen.engines import Generated, Job, register
from codegen.errors import DoesNotFit, GraphInvalid
from codegen.manifest import BuildEntry, LayerEntry, Manifest, model_entry, tensor_entry
from codegen.tflite_file import RawModel, RawTensor, read_tflite

ENGINE = "reference"

#: What the interpreter's structures take on a 32-bit core; the generated model.c asserts it.
_STRUCT_BYTES = {"tensor_t": 12, "op_t": 20, "planned_buffer_t": 20, "multiplier_t": 8}
_TENSOR_ALIGNMENT = 16
_ITEM_BYTES = {
    tflite.TensorType.FLOAT32: 4,
    tflite.TensorType.INT32: 4,
    tflite.TensorType.INT16: 2,
    tflite.TensorType.UINT8: 1,
    tflite.TensorType.INT8: 1,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operator in firmware/interpreter/ops.h, and what it keeps in the arena."""

    symbol: str
    params: str = ""
    params_bytes: int = 0


_CONV = ("conv_params_t", 48)
_POOL = ("pool_params_t", 40)
_RESHAPE = Kind("op_reshape")
_PAD = Kind("op_pad", "pad_params_t", 28)
#: By TFLite's name, which is also that of the enum in schema.h.
KINDS = {
    "ADD": Kind("op_add", "add_params_t", 44),
    "AVERAGE_POOL_2D": Kind("op_average_pool2d", *_POOL),
    "CONCATENATION": Kind("op_concatenation"),
    "CONV_2D": Kind("op_conv2d", *_CONV),
    "DEPTHWISE_CONV_2D": Kind("op_dwconv2d", *_CONV),
    "DEQUANTIZE": Kind("op_dequantize", "dequantize_params_t", 8),
    "EXPAND_DIMS": _RESHAPE,
    "FULLY_CONNECTED": Kind("op_dense", *_CONV),
    "HARD_SWISH": Kind("op_hard_swish", "hard_swish_params_t", 24),
    "LEAKY_RELU": Kind("op_leaky_relu", "leaky_relu_params_t", 24),
    "LOGISTIC": Kind("op_logistic", "sigmoid_params_t", 16),
    "MAX_POOL_2D": Kind("op_max_pool2d", *_POOL),
    "MEAN": Kind("op_mean", "mean_params_t", 40),
    "MUL": Kind("op_mul", "mul_params_t", 28),
    "PAD": _PAD,
    "PADV2": _PAD,
    "QUANTIZE": Kind("op_quantize", "quantize_params_t", 20),
    "RELU": Kind("op_relu", "relu_params_t", 24),
    "RELU6": Kind("op_relu6", "relu6_params_t", 8),
    "RELU_N1_TO_1": Kind("op_relu_n1_to_1", "relu_params_t", 24),
    "RESHAPE": _RESHAPE,
    "SOFTMAX": Kind("op_softmax", "softmax_params_t", 12),
    "SQUEEZE": _RESHAPE,
    "STRIDED_SLICE": Kind("op_strided_slice", "slice_params_t", 52),
    "SUB": Kind("op_sub", "add_params_t", 44),
    "TANH": Kind("op_tanh", "sigmoid_params_t", 16),
    "TRANSPOSE": Kind("op_transpose", "slice_params_t", 52),
}
_NAME_OF_CODE = {code: name for name, code in vars(tflite.BuiltinOperator).items() if name in KINDS}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@register(ENGINE)
def reference(job: Job) -> Generated:
    """The C of a model for the interpreter: its bytes, the resolver table and the arena.

    Raises:
        GraphInvalid: the file's layout is not one that the interpreter can walk in place.
        DoesNotFit: arena or model are larger than the board's memory.
    """
    check_layout(job.tflite)
    raw = read_tflite(job.tflite)
    # Where one operator gave two ops (a flattened dense layer), the last is its own.
    ops = {op.source: op for op in job.graph.ops}
    arena = arena_of(raw, sorted(ops))
    words = flatbuffer_words(job.tflite)
    _require_fit(job, arena, 4 * len(words))

    names = sorted({_NAME_OF_CODE[raw.ops[index].code] for index in ops})
    context = {
        "graph": job.graph,
        "arena": arena,
        "operators": sorted(ops),
        "resolver": [(name, KINDS[name].symbol) for name in names],
        "struct_bytes": {
            **_STRUCT_BYTES,
            **{
                kind.params: kind.params_bytes
                for kind in map(KINDS.get, names)
                if kind and kind.params
            },
        },
        "words": words,
    }
    return Generated(
        sources={
            "model.c": _render("reference_model.c.j2", job, context),
            "model_weights.c": _render("reference_weights.c.j2", job, context),
        },
        manifest=Manifest(
            model=model_entry(job.graph, job.graph),
            engine=ENGINE,
            engine_options={},
            board=job.board.board,
            inputs=tuple(tensor_entry(job.graph.tensors[i]) for i in job.graph.inputs),
            outputs=tuple(tensor_entry(job.graph.tensors[i]) for i in job.graph.outputs),
            layers=tuple(
                LayerEntry(op.name, op.kind, ir.op_macs(job.graph, op))
                for _, op in sorted(ops.items())
            ),
            arena_bytes=arena.total_bytes,
            scratch_bytes=0,
            weights_bytes=4 * len(words),
            build=BuildEntry(flags=("-O3",), source_dirs=("interpreter",)),
        ),
    )


def _render(template: str, job: Job, context: dict[str, object]) -> str:
    head = banner(
        template=template,
        model_name=job.graph.name,
        sha256=job.graph.sha256,
        engine=ENGINE,
        board=job.board.board,
    )
    return head + environment().get_template(template).render(context)


def _require_fit(job: Job, arena: Arena, weights_bytes: int) -> None:
    if arena.total_bytes > job.board.arena_limit_bytes:
        peak = next(op.name for op in reversed(job.graph.ops) if op.source == arena.peak_operator)
        raise DoesNotFit("RAM", arena.total_bytes, job.board.arena_limit_bytes, peak)
    if weights_bytes > job.board.flash_bytes:
        raise DoesNotFit("flash", weights_bytes, job.board.flash_bytes)


# --- the arena -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arena:
    """Where the bytes of the arena go: tensors in front, then what the interpreter keeps.

    `planned_bytes` is the front; it also has to hold the interpreter's table of buffers while it
    plans. `peak_operator` is the operator at which most bytes of tensors are alive.
    """

    planned_bytes: int
    persistent_bytes: int
    peak_operator: int

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole arena."""
        return self.planned_bytes + self.persistent_bytes


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A tensor in the arena, alive from step `first` to `last`; operators begin at step 1."""

    size_bytes: int
    first: int
    last: int

    def is_alive_with(self, other: _Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


def arena_of(raw: RawModel, operators: list[int]) -> Arena:
    """The arena that the interpreter needs to run these operators of a model.

    Raises:
        GraphInvalid: a tensor that an operator touches has no fixed size.
    """
    persistent_bytes = len(raw.tensors) * _STRUCT_BYTES["tensor_t"]
    for index in operators:
        op = raw.ops[index]
        name = _NAME_OF_CODE[op.code]
        persistent_bytes += _STRUCT_BYTES["op_t"] + KINDS[name].params_bytes
        if name in _WEIGHTED:
            persistent_bytes += len(raw.tensors[op.inputs[1]].scale) * _STRUCT_BYTES["multiplier_t"]

    buffers = _buffers(raw, operators)
    table_bytes = _STRUCT_BYTES["planned_buffer_t"] * sum(t.data is None for t in raw.tensors)
    live = [
        sum(buffer.size_bytes for buffer in buffers if buffer.first <= step <= buffer.last)
        for step in range(1, len(operators) + 1)
    ]
    return Arena(
        planned_bytes=max(plan_greedy(buffers), table_bytes),
        persistent_bytes=persistent_bytes,
        peak_operator=operators[live.index(max(live))],
    )


def _buffers(raw: RawModel, operators: list[int]) -> list[_Buffer]:
    """Lifetimes of all tensors that are no constants, in the file's order."""
    steps: dict[int, list[int]] = {}

    def touch(tensors: tuple[int, ...], step: int) -> None:
        for index in tensors:
            if index >= 0 and raw.tensors[index].data is None:
                steps.setdefault(index, []).append(step)

    touch(raw.inputs, 0)
    for step, index in enumerate(operators, start=1):
        touch(raw.ops[index].inputs, step)
        touch(raw.ops[index].outputs, step)
    touch(raw.outputs, len(operators))
    return [
        _Buffer(_arena_bytes(raw.tensors[index], index), min(used), max(used))
        for index, used in sorted(steps.items())
    ]


def _arena_bytes(tensor: RawTensor, index: int) -> int:
    elements = math.prod(tensor.shape)
    if min(tensor.shape, default=1) < 1 or elements >= 1 << 28:
        raise GraphInvalid(
            f"an operator touches it, and its shape is {list(tensor.shape)}", f"tensor {index}"
        )
    size_bytes = elements * _ITEM_BYTES.get(tensor.type, 1)
    return -(-size_bytes // _TENSOR_ALIGNMENT) * _TENSOR_ALIGNMENT


def plan_greedy(buffers: list[_Buffer]) -> int:
    """Bytes of the plan that firmware/interpreter/planner.c makes.

    Largest buffer first, each at the lowest offset where it fits; of equally large ones the later
    comes first.
    """
    placed: list[tuple[int, _Buffer]] = []  # by offset
    for buffer in sorted(reversed(buffers), key=lambda b: -b.size_bytes):
        offset = 0
        for other_offset, other in placed:
            if not other.is_alive_with(buffer):
                continue
            if other_offset >= offset + buffer.size_bytes:
                break
            offset = max(offset, other_offset + other.size_bytes)
        placed.append((offset, buffer))
        placed.sort(key=lambda entry: entry[0])
    return max((offset + buffer.size_bytes for offset, buffer in placed), default=0)


# --- the flatbuffer --------------------------------------------------------------------------


def flatbuffer_words(data: bytes) -> list[str]:
    """The bytes as little-endian words in C's notation; quicker to compile than single bytes.

    Zeros are added, so that a read of four bytes that begins in the file stays inside the array.
    """
    padded = data + bytes(8 - len(data) % 4)
    return [f"0x{word:08x}" for word in struct.unpack(f"<{len(padded) // 4}I", padded)]


class _Walker:
    """Follows offsets as firmware/interpreter/flatbuffer.c does, and checks every one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def _number(self, code: str, at: int, where: str) -> int:
        size = struct.calcsize(code)
        if at < 0 or at + size > len(self._data):
            raise GraphInvalid(f"it points to byte {at:,} of {len(self._data):,}", where)
        return int(struct.unpack_from(code, self._data, at)[0])

    def root(self) -> int:
        return self._number("<I", 0, "file")

    def field(self, table: int, slot: int, where: str) -> int | None:
        """Position of a field; None where the table leaves it out."""
        vtable = table - self._number("<i", table, where)
        entry = 4 + 2 * slot
        if entry >= self._number("<H", vtable, where):
            return None
        offset = self._number("<H", vtable + entry, where)
        if offset == 0:
            return None
        self._number("<B", table + offset, where)
        return table + offset

    def integer(self, table: int, slot: int, where: str) -> int:
        at = self.field(table, slot, where)
        return 0 if at is None else self._number("<i", at, where)

    def table(self, table: int, slot: int, where: str) -> int | None:
        at = self.field(table, slot, where)
        return None if at is None else at + self._number("<I", at, where)

    def vector(self, table: int, slot: int, item_bytes: int, where: str) -> tuple[int, int]:
        """(first item's position, number of items) of a vector, which must be aligned to 4 bytes."""
        at = self.table(table, slot, where)
        if at is None:
            return 0, 0
        length, items = self._number("<I", at, where), at + 4
        if items + length * item_bytes > len(self._data):
            raise GraphInvalid(
                f"{length:,} items of {item_bytes} B are more than the file has left", where
            )
        if items % 4:
            raise GraphInvalid(
                f"its items begin at byte {items:,}; a multiple of 4 is expected", where
            )
        return items, length

    def tables(self, table: int, slot: int, where: str) -> Iterator[tuple[int, str]]:
        """(position, where) of each table of a vector."""
        items, length = self.vector(table, slot, 4, where)
        for index in range(length):
            at = items + 4 * index
            yield at + self._number("<I", at, where), f"{where} {index}"


def check_layout(data: bytes) -> None:
    """Visits every place that the interpreter reads.

    Args:
        data: a file that import_tflite has accepted. Values are not looked at again, only where
            they lie.

    Raises:
        GraphInvalid: an offset points outside the file, or a vector is not aligned to 4 bytes.
    """
    walk = _Walker(data)
    model = walk.root()
    walk.field(model, 0, "model")  # version
    for code, where in walk.tables(model, 1, "operator code"):
        for slot in (0, 3):
            walk.field(code, slot, where)
    buffers = list(walk.tables(model, 4, "buffer"))
    for subgraph, _ in walk.tables(model, 2, "subgraph"):
        for tensor, where in walk.tables(subgraph, 0, "tensor"):
            walk.vector(tensor, 0, 4, where)  # shape
            walk.field(tensor, 1, where)  # type
            buffer = walk.integer(tensor, 2, where)
            walk.vector(buffers[buffer][0], 0, 1, where)  # data
            quantization = walk.table(tensor, 4, where)
            if quantization is not None:
                walk.vector(quantization, 2, 4, where)  # scale
                walk.vector(quantization, 3, 8, where)  # zero_point
        for slot in (1, 2):  # inputs, outputs
            walk.vector(subgraph, slot, 4, "model")
        for operator, where in walk.tables(subgraph, 3, "operator"):
            walk.field(operator, 0, where)  # opcode_index
            for slot in (1, 2):  # inputs, outputs
                walk.vector(operator, slot, 4, where)
            options = walk.table(operator, 4, where)
            if options is not None:
                for slot in range(7):  # no options that are read have more
                    walk.field(options, slot, where)
