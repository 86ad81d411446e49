"""Engine `reference`: the model's own bytes, for firmware/interpreter to walk at run time.

The baseline that is always there: built the way TFLM works, with plain loops as kernels. What is
decided here is little: which kinds of operators are linked, and how large the arena is. The
interpreter plans the arena again on the board, by the same algorithm, and refuses to run if it does
not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tflite

from codegen import ir
from codegen.embedded import embed
from codegen.emit import render
from codegen.engines import Generated, Job, register
from codegen.errors import DoesNotFit, GraphInvalid
from codegen.manifest import BuildEntry, LayerEntry, Manifest, model_entry, tensor_entry
from codegen.tflite_file import RawModel, RawTensor, read_tflite

ENGINE = "reference"

#: A baseline is worth as much as its flags. The quickest of 11 sets on AD, KWS, VWW and IC, on the
#: virtual nRF52840, L4R5 and F746 alike, and of 14 variations of it on the nRF52840 (-fno-tree-pre:
#: AD 2 % quicker, IC 1 % slower; the others gain nothing): unrolling is worth 9 to 30 %, no
#: scheduling before registers are allocated up to 5 %. Cycles per MAC on the nRF52840 with -O2, -O3
#: and these: AD 10.7, 9.7, 7.2; KWS 19.0, 20.0, 17.5; VWW 16.8, 17.8, 14.8; IC 11.5, 12.3, 9.7.
_FLAGS = ("-O3", "-funroll-loops", "-fno-schedule-insns")

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
_NAME_OF_CODE: dict[int, str] = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if name in KINDS
}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@register(ENGINE)
def reference(job: Job) -> Generated:
    """The C of a model for the interpreter: its bytes, the resolver table and the arena.

    Raises:
        GraphInvalid: the file's layout is not one that the interpreter can walk in place.
        DoesNotFit: arena or model are larger than the board's memory.
    """
    raw = read_tflite(job.tflite)
    # Where one operator gave two ops (a flattened dense layer), the last is its own.
    ops = {op.source: op for op in job.graph.ops}
    operators = sorted(ops)
    arena = arena_of(raw, operators)
    if arena.total_bytes > job.board.arena_limit_bytes:
        peak = ops[arena.peak_operator].name
        raise DoesNotFit("RAM", arena.total_bytes, job.board.arena_limit_bytes, peak)
    weights_source, weights_bytes = embed(job, ENGINE)

    kinds = {name: KINDS[name] for name in sorted({_name(raw, index) for index in operators})}
    context = {
        "graph": job.graph,
        "arena": arena,
        "operators": np.array(operators),
        "kinds": kinds,
        "struct_bytes": _STRUCT_BYTES
        | {kind.params: kind.params_bytes for kind in kinds.values() if kind.params},
    }
    return Generated(
        sources={
            "model.c": render(
                "reference_model.c.j2", context, graph=job.graph, engine=ENGINE, board=job.board
            ),
            "model_weights.c": weights_source,
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
                for op in map(ops.__getitem__, operators)
            ),
            arena_bytes=arena.total_bytes,
            scratch_bytes=0,
            weights_bytes=weights_bytes,
            build=BuildEntry(flags=_FLAGS, source_dirs=("interpreter",)),
        ),
    )


def _name(raw: RawModel, operator: int) -> str:
    """TFLite's name of an operator of the file."""
    return _NAME_OF_CODE[raw.ops[operator].code]


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
        name = _name(raw, index)
        persistent_bytes += _STRUCT_BYTES["op_t"] + KINDS[name].params_bytes
        if name in _WEIGHTED:
            persistent_bytes += (
                len(raw.tensors[raw.ops[index].inputs[1]].scale) * _STRUCT_BYTES["multiplier_t"]
            )

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
