"""Single layers as one program: kernels of a network, each by itself, to be measured one by one.

A case is one op of the graph with one kernel. All cases of a program share one arena: the same
bytes are every case's input, each output takes the place of the last. After each case a second
layer of the program takes a checksum of the output, so that every byte of it can be compared with
codegen.reference although no output is kept; the output of the program is all checksums.

Not here: which cases are worth a measurement, and what follows from it (hil/tuning.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from codegen import reference
from codegen.emit import environment, render
from codegen.engines import Generated
from codegen.engines.tiny import Layer, compiler_flags
from codegen.ir import DType, Graph, Op
from codegen.kernels import Kernel
from codegen.kernels.context import Array, constant_name
from codegen.limits import BoardLimits
from codegen.liveness import aligned
from codegen.manifest import BuildEntry, LayerEntry, Manifest, ModelEntry, TensorEntry
from codegen.placement import Memory, Placement, placed
from codegen.plan_file import FlagSet
from codegen.sharing import unique_arrays

_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619  # FNV-1a, 32 bits: RFC 9923
_ALIGNMENT = 16

#: Layers of the program for each case: its function, and the checksum of its output.
LAYERS_PER_CASE = 2

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_NUMBER = re.compile(r"\b(?!0\b)(?:0[xX][0-9a-fA-F]+|\d+)[uU]?\b")
_SIGN = re.compile(r"([=(,] ?)-(?=#)")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One op of a graph, by its index, with one kernel and its constants in one memory."""

    op: int
    kernel: Kernel
    weights: Memory = "flash"


@dataclass(frozen=True, slots=True)
class _Arena:
    """Where the regions that all cases share begin; the checksums come last."""

    output: int
    scratch: int
    checksums: int
    size_bytes: int


def symbol(number: int) -> str:
    """The C function of a case; what belongs to it starts with this and an underscore."""
    return f"case{number}"


def can_be_case(graph: Graph, op: Op) -> bool:
    """Whether any bytes make sense as inputs of the op."""
    return all(graph.tensors[i].dtype is not DType.F32 for i in _variable_inputs(graph, op))


def arena_bytes(graph: Graph, cases: Sequence[Case], board: BoardLimits) -> int:
    """What the shared arena of these cases takes."""
    return _arena(graph, cases, board).size_bytes


def constant_bytes(graph: Graph, case: Case) -> int:
    """Bytes of a case's weights and tables."""
    return case.kernel.context(graph, graph.ops[case.op]).constant_bytes


def shape_of(graph: Graph, case: Case) -> dict[str, Any]:
    """What the cycles of a case depend on, besides the kernel's own C: plain JSON values.

    Two layers that differ only in their numbers (weights, multipliers, zero points other than 0)
    have the same shape: numbers in the C are masked, since those of the shape are here anyway.
    """
    op = graph.ops[case.op]
    context = case.kernel.context(graph, dataclasses.replace(op, name="layer"))
    text = environment().get_template(case.kernel.template).render(op=context, shared_functions={})
    masked = _SIGN.sub(r"\1", _NUMBER.sub("#", _COMMENT.sub("", text)))
    attributes = {
        field.name: _plain(getattr(op, field.name))
        for field in dataclasses.fields(op)
        if field.name not in ("name", "inputs", "outputs", "source")
    }
    tensors = [graph.tensors[i] if i >= 0 else None for i in (*op.inputs, *op.outputs)]
    return {
        "op": op.kind,
        "attributes": attributes,
        "tensors": [
            [tensor.dtype.value, list(tensor.shape), tensor.is_constant] if tensor else None
            for tensor in tensors
        ],
        "constants": [[array.c_type, array.values.size] for array in context.arrays],
        "weights": case.weights,
        "c": hashlib.sha256(masked.encode()).hexdigest(),
    }


def generate_cases(
    graph: Graph, cases: Sequence[Case], board: BoardLimits, flags: FlagSet
) -> Generated:
    """The program of these cases; layer LAYERS_PER_CASE * i of its manifest is case i."""
    arena = _arena(graph, cases, board)
    layers: list[Layer] = []
    calls: list[str] = []
    arrays: list[Array] = []
    for number, case in enumerate(cases):
        op = dataclasses.replace(graph.ops[case.op], name=symbol(number))
        context = placed(case.kernel.context(graph, op), Placement(case.weights))
        offsets = _input_offsets(graph, op)
        arguments = [
            f"at({offsets[tensor]})"
            if (tensor := op.inputs[position]) in offsets
            else constant_name(op, position)
            for position in context.operands
        ]
        arguments.append(f"at({arena.output})")
        if context.scratch_bytes:
            arguments.append(f"at({arena.scratch})")
        layers.append(Layer(context, case.kernel, ""))
        calls.append(f"{context.symbol}({', '.join(arguments)})")
        arrays += context.arrays
    digest = hashlib.sha256(
        repr([(case.op, case.kernel.name, case.weights) for case in cases]).encode()
    )
    digest.update(graph.sha256.encode())
    sha256 = digest.hexdigest()
    unique, same = unique_arrays(arrays)
    source = partial(render, graph=graph, engine="tiny, single layers", board=board)
    model = {
        "graph": graph,
        "board": board,
        "arena": arena,
        "layers": layers,
        "calls": calls,
        "out_bytes": [graph.tensors[graph.ops[case.op].outputs[0]].size_bytes for case in cases],
        "sha256": sha256,
        "fnv_offset": _FNV_OFFSET,
        "fnv_prime": _FNV_PRIME,
    }
    weights = {"arrays": unique, "same": same, "stream_offset": board.stream_offset}
    sources = {
        "model.c": source("cases.c.j2", model),
        "model_weights.c": source("model_weights.c.j2", weights),
        "model_weights.h": source("model_weights.h.j2", weights),
    }
    entries: list[LayerEntry] = []
    for layer in layers:
        context = layer.op
        entries += [
            LayerEntry(context.symbol, context.kind, context.macs, layer.kernel.name),
            LayerEntry(f"{context.symbol}_checksum", "CHECKSUM", 0),
        ]
    macs = sum(entry.macs for entry in entries)
    manifest = Manifest(
        model=ModelEntry(graph.name, sha256, macs, macs),
        engine="tiny",
        engine_options={"cases": len(cases)},
        board=board.board,
        inputs=(TensorEntry("bytes", "s8", (arena.output,), 1.0, 0),),
        outputs=(TensorEntry("checksums", "s32", (len(cases),), 1.0, 0),),
        layers=tuple(entries),
        arena_bytes=arena.size_bytes,
        scratch_bytes=0,
        weights_bytes=sum(array.size_bytes for array in unique),
        build=BuildEntry(flags=compiler_flags(flags)),
    )
    return Generated(sources, manifest)


def expected_output(graph: Graph, cases: Sequence[Case], data: bytes) -> bytes:
    """The program's output for its input `data`: the checksum of what each op should compute."""
    known: dict[int, int] = {}
    for case in cases:
        if case.op not in known:
            op = graph.ops[case.op]
            offsets = _input_offsets(graph, op)
            inputs = []
            for i in (i for i in op.inputs if i >= 0):
                tensor = graph.tensors[i]
                if tensor.data is not None:
                    inputs.append(tensor.data)
                else:
                    chunk = data[offsets[i] : offsets[i] + tensor.size_bytes]
                    array = np.frombuffer(chunk, tensor.dtype.numpy)
                    inputs.append(array.reshape(tensor.shape))
            known[case.op] = checksum(reference.run_op(graph, op, inputs).tobytes())
    return b"".join(known[case.op].to_bytes(4, "little") for case in cases)


def checksum(data: bytes) -> int:
    """FNV-1a of 32 bits."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value


def _plain(value: object) -> Any:
    """An attribute of an op as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in dataclasses.asdict(value).items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | str | bool) else str(value)


def _variable_inputs(graph: Graph, op: Op) -> list[int]:
    """Tensors that the op reads and that are no constants, each once."""
    return list(dict.fromkeys(i for i in op.inputs if i >= 0 and not graph.tensors[i].is_constant))


def _input_offsets(graph: Graph, op: Op) -> dict[int, int]:
    """Where in the arena each input lies, by tensor."""
    offsets, end = {}, 0
    for i in _variable_inputs(graph, op):
        offsets[i] = end
        end += aligned(graph.tensors[i].size_bytes, _ALIGNMENT)
    return offsets


def _arena(graph: Graph, cases: Sequence[Case], board: BoardLimits) -> _Arena:
    in_bytes = out_bytes = scratch_bytes = 0
    for case in cases:
        op = graph.ops[case.op]
        sizes = [graph.tensors[i].size_bytes for i in _variable_inputs(graph, op)]
        in_bytes = max(in_bytes, sum(aligned(size, _ALIGNMENT) for size in sizes))
        size = graph.tensors[op.outputs[0]].size_bytes
        out_bytes = max(out_bytes, aligned(size, _ALIGNMENT))
        scratch_bytes = max(scratch_bytes, case.kernel.cost(graph, op, board).scratch_bytes)
    scratch = in_bytes + out_bytes
    checksums = scratch + aligned(scratch_bytes, _ALIGNMENT)
    return _Arena(in_bytes, scratch, checksums, checksums + 4 * len(cases))
