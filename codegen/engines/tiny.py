"""Engine `tiny`: one C function per op, specialised for its shape; one arena, fixed offsets.

Flow: passes, a kernel for each op, the plan, then the templates. What each kernel does is in
codegen/kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from codegen import passes
from codegen.calls import Argument, Call, blocks
from codegen.choice import choose_for, ops_with_kernels, planned
from codegen.emit import render
from codegen.engines import Generated, Job, register
from codegen.errors import DoesNotFit
from codegen.ir import Alias, DType, Graph, Op, Tensor, op_macs
from codegen.kernels import Kernel
from codegen.kernels.context import Array, Context, constant_name
from codegen.limits import STACK_RESERVE_BYTES
from codegen.manifest import (
    BufferEntry,
    BuildEntry,
    LayerEntry,
    Manifest,
    MemoryEntry,
    model_entry,
    tensor_entry,
)
from codegen.patching import WHOLE, Strips, stage_limit
from codegen.placement import Placement, default_placements, placed, require_room
from codegen.plan_file import FlagSet, choices_of, graph_of, require_for
from codegen.planner import Overlap, Plan, require_fit
from codegen.sharing import functions, unique_arrays

#: By name, for both cores. Scheduling before registers are allocated spills sums: `fast` is up to
#: 1.2 % quicker than `rescheduled` on AD, KWS, VWW and IC (virtual L4R5, nRF52840, F746); `aligned`
#: is within 0.1 % of it, `lean` takes up to 5 KB less code and 0.3 to 6 % more cycles. Each is the
#: best for some network, so hil tune tries them all.
_FLAGS: dict[FlagSet, tuple[str, ...]] = {
    "fast": ("-O3", "-fno-schedule-insns"),
    "aligned": ("-O3", "-fno-schedule-insns", "-falign-functions=16"),
    "rescheduled": ("-O3",),
    "lean": ("-O2", "-fno-schedule-insns"),
    "small": ("-Os",),
}

#: Tensors that are computed in strips are at most this many times larger than the RAM.
_LARGEST_IN_STRIPS = 8

_MODEL_DTYPES = {
    DType.S8: "MODEL_S8",
    DType.U8: "MODEL_U8",
    DType.S16: "MODEL_S16",
    DType.S32: "MODEL_S32",
    DType.F32: "MODEL_F32",
}


class Layer(NamedTuple):
    """One C function as model.c.j2 sees it: its kernel, and what the kernel's template needs."""

    op: Context
    kernel: Kernel
    aliasing: str


@dataclass(frozen=True, slots=True)
class Place:
    """A named offset of the arena."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class ModelIo:
    """One input or output as model.c.j2 sees it."""

    place: str
    size_bytes: int
    dtype: str
    scale: str
    zero_point: int


@register("tiny")
def generate_tiny(job: Job) -> Generated:
    """C for one model: model.c with the functions and model_weights.c with the constants.

    A tuned plan says which kernels; else the objective does (codegen/choice.py). Where that had to
    look for an arena that fits the board's RAM, and where ops run in strips, the manifest says so.

    Raises:
        PlanRefused: the plan is not for this model and board.
        UnsupportedOp: no kernel runs an op.
        DoesNotFit: the arena or the constants are larger than the board's memory.
    """
    graph = passes.run(job.graph)
    _require_each_tensor_fits(job, graph)
    options: dict[str, Any] = {"objective": job.options.objective}
    placements: dict[int, Placement] | None = None
    if (tuned := job.options.plan) is not None:
        require_for(tuned, graph.sha256, job.board.board)
        options = {"plan": tuned.sha256}
        graph = graph_of(tuned, graph)
        choices = choices_of(tuned, graph, ops_with_kernels(graph))
        kernels = {index: kernel for index, (kernel, _) in choices.items()}
        placements = {index: Placement(weights) for index, (_, weights) in choices.items()}
        memory = planned(graph, kernels, job.board, strips=tuned.strips)
        strips = tuned.strips
    else:
        choice = choose_for(graph, job.options.objective, job.board)
        graph, kernels, memory = choice.graph, choice.kernels, choice.memory
        strips = choice.strips
        if choice.is_fitted:
            options["kernels"] = "that fit"
    if strips != WHOLE:
        options["strips"] = asdict(strips)
    require_fit(graph, memory, job.board.arena_limit_bytes, _arena_words(job))
    return emit_model(job, graph, kernels, memory, options, placements)


def _arena_words(job: Job) -> str:
    return f"RAM for its arena on {job.board.board} (beside {STACK_RESERVE_BYTES:,} B of stack)"


def _require_each_tensor_fits(job: Job, graph: Graph) -> None:
    """Ends hopeless cases before kernels are compared, whose estimates walk over all pixels.

    What is computed in strips may be larger than the RAM, within reason.
    """
    limit_bytes = job.board.arena_limit_bytes
    in_strips = {op.outputs[0] for op in graph.ops[: stage_limit(graph)]} - {*graph.outputs}
    for op in graph.ops:
        for i in (*op.inputs, *op.outputs):
            tensor = graph.tensors[i]
            most_bytes = _LARGEST_IN_STRIPS * limit_bytes if i in in_strips else limit_bytes
            if not tensor.is_constant and tensor.size_bytes > most_bytes:
                raise DoesNotFit(_arena_words(job), tensor.size_bytes, limit_bytes, op.name)


def emit_model(
    job: Job,
    graph: Graph,
    kernels: Mapping[int, Kernel],
    memory: Plan,
    options: Mapping[str, Any],
    placements: Mapping[int, Placement] | None = None,
) -> Generated:
    """C for a graph that has been planned.

    Args:
        job: the model, the board, the objective that the compiler's flags follow.
        graph: after the passes.
        kernels: by index of the op; RESHAPE has none, because its output is its input.
        memory: offsets of tensors and scratch.
        options: how kernels and plan were chosen; for the banner and the manifest.
        placements: memories of the constants by index of the op; by default those of the objective.

    Raises:
        DoesNotFit: the constants are larger than the board's flash, or copies than its RAM.
    """
    shared = functions(graph, kernels, memory.order)
    contexts = {index: kernels[index].context(graph, graph.ops[index]) for index in shared}
    if placements is None:
        placements = default_placements(
            contexts, job.board, options["objective"], memory.arena_bytes
        )
    require_room(contexts, placements, job.board, memory.arena_bytes)
    layers: list[Layer] = []
    calls: dict[int, Call] = {}
    for first, ops in shared.items():
        context = placed(contexts[first], placements.get(first, Placement()))
        for index in ops:
            calls[index] = _call(graph, graph.ops[index], context, len(layers))
        aliasing = _aliasing(kernels[first].cost(graph, graph.ops[first], job.board).overlaps)
        layers.append(Layer(context, kernels[first], aliasing))
    ordered_calls = [calls[index] for index in memory.order if index in calls]
    arrays, same = unique_arrays(array for layer in layers for array in layer.op.arrays)
    weights_bytes = sum(array.size_bytes for array in arrays)
    if weights_bytes > job.board.flash_bytes:
        raise DoesNotFit(
            f"flash for its constants on {job.board.board}",
            weights_bytes,
            job.board.flash_bytes,
            max(layers, key=lambda layer: layer.op.constant_bytes).op.symbol,
        )
    return Generated(
        sources=_sources(job, graph, memory, options, layers, ordered_calls, arrays, same),
        manifest=_manifest(job, graph, memory, options, layers, ordered_calls, weights_bytes),
    )


def _call(graph: Graph, op: Op, context: Context, layer: int) -> Call:
    """The call of an op's function, whose constants are those of the function's first op."""
    arguments = []
    for position in context.operands:
        tensor = graph.tensors[op.inputs[position]]
        if tensor.is_constant:
            name = constant_name(replace(op, name=context.symbol), position)
            arguments.append(Argument(name, is_place=False))
        else:
            arguments.append(Argument(_tensor_place(tensor)))
    arguments += [Argument(_tensor_place(graph.tensors[i])) for i in op.outputs]
    if context.scratch_bytes:
        arguments.append(Argument(_scratch_place(op)))
    return Call(context.symbol, tuple(arguments), layer)


def _aliasing(overlaps: tuple[Overlap, ...]) -> str:
    """What the C comment says about output and inputs sharing bytes."""
    if not overlaps:
        return "Input and output do not overlap."
    first = overlaps[0]
    if first.is_exact:
        return "The output may take the place of an input of its size."
    return (
        f"The output may lie over the input if it starts {first.distance:,} or more bytes below it."
    )


def _tensor_place(tensor: Tensor) -> str:
    return f"AT_{tensor.name.upper()}"


def _scratch_place(op: Op) -> str:
    return f"SCRATCH_{op.name.upper()}"


def _places(graph: Graph, memory: Plan) -> list[Place]:
    """Offsets of every tensor and scratch buffer that a call names."""
    used = {
        *graph.inputs,
        *graph.outputs,
        *(
            i
            for op in graph.ops
            if not isinstance(op, Alias)
            for i in (*op.inputs, *op.outputs)
            if i >= 0 and not graph.tensors[i].is_constant
        ),
    }
    tensors = [Place(_tensor_place(graph.tensors[i]), memory.offsets[i]) for i in sorted(used)]
    scratch = [
        Place(_scratch_place(op), offset)
        for op, offset in zip(graph.ops, memory.scratch_offsets, strict=True)
        if offset >= 0
    ]
    return tensors + scratch


def _model_io(tensors: Iterable[Tensor]) -> list[ModelIo]:
    result = []
    for tensor in tensors:
        entry = tensor_entry(tensor)
        result.append(
            ModelIo(
                _tensor_place(tensor),
                tensor.size_bytes,
                _MODEL_DTYPES[tensor.dtype],
                f"{entry.scale.hex()}f",
                entry.zero_point,
            )
        )
    return result


def _sources(
    job: Job,
    graph: Graph,
    memory: Plan,
    options: Mapping[str, Any],
    layers: list[Layer],
    calls: list[Call],
    arrays: list[Array],
    same: list[tuple[str, str]],
) -> dict[str, str]:
    if "plan" in options:
        choice = f"plan {options['plan'][:16]}"
    else:
        choice = f"objective {options['objective']}"
    if "kernels" in options:
        choice += f", kernels {options['kernels']}"
    if "strips" in options:
        strips = Strips(**options["strips"])
        choice += f", {strips.count} strips of the first {strips.ops} ops"

    source = partial(render, graph=graph, engine=f"tiny, {choice}", board=job.board)
    model = {
        "graph": graph,
        "memory": memory,
        "board": job.board,
        "layers": layers,
        "blocks": blocks(calls),
        "places": _places(graph, memory),
        "inputs": _model_io(graph.tensors[i] for i in graph.inputs),
        "outputs": _model_io(graph.tensors[i] for i in graph.outputs),
        "is_small": _flag_set(job) == "small",
    }
    weights = {"arrays": arrays, "same": same, "stream_offset": job.board.stream_offset}
    return {
        "model.c": source("model.c.j2", model),
        "model_weights.c": source("model_weights.c.j2", weights),
        "model_weights.h": source("model_weights.h.j2", weights),
    }


def compiler_flags(flags: FlagSet) -> tuple[str, ...]:
    """The compiler's flags of that name."""
    return _FLAGS[flags]


def _flag_set(job: Job) -> FlagSet:
    if (tuned := job.options.plan) is not None:
        return tuned.flags
    return "small" if job.options.objective == "flash" else "fast"


def _manifest(
    job: Job,
    graph: Graph,
    memory: Plan,
    options: Mapping[str, Any],
    layers: list[Layer],
    calls: list[Call],
    weights_bytes: int,
) -> Manifest:
    return Manifest(
        model=model_entry(job.graph, graph),
        engine="tiny",
        engine_options=dict(options),
        board=job.board.board,
        inputs=tuple(tensor_entry(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(tensor_entry(graph.tensors[i]) for i in graph.outputs),
        layers=_layer_entries(job.graph, layers, calls),
        arena_bytes=memory.arena_bytes,
        scratch_bytes=memory.scratch_bytes,
        weights_bytes=weights_bytes,
        build=BuildEntry(flags=compiler_flags(_flag_set(job))),
        memory=_memory_entry(graph, memory),
    )


def _memory_entry(graph: Graph, memory: Plan) -> MemoryEntry:
    """The arena map with times in calls: ops that move nothing take no time."""
    called = [not isinstance(graph.ops[index], Alias) for index in memory.order]
    calls = [-1, *itertools.accumulate(called, initial=0)]  # by position + 1: calls before it
    return MemoryEntry(
        calls=tuple(
            graph.ops[i].name for i, is_call in zip(memory.order, called, strict=True) if is_call
        ),
        lower_bound_bytes=memory.lower_bound_bytes,
        buffers=tuple(
            BufferEntry(
                piece.name,
                "scratch" if piece.is_scratch else "tensor",
                piece.offset,
                piece.size_bytes,
                calls[piece.live_from + 1],
                calls[piece.live_to + 1],
            )
            for piece in memory.pieces
        ),
    )


def _layer_entries(
    imported: Graph, layers: list[Layer], calls: list[Call]
) -> tuple[LayerEntry, ...]:
    """The manifest's layers; an operator that became several ops is shared out by their MACs."""
    nominal: dict[int, int] = {}
    for op in imported.ops:
        nominal[op.source] = nominal.get(op.source, 0) + op_macs(imported, op)
    macs = [0] * len(layers)
    computed: dict[int, int] = {}
    for call in calls:
        context = layers[call.layer].op
        macs[call.layer] += context.macs
        computed[context.source] = computed.get(context.source, 0) + context.macs
    entries = []
    for layer, layer_macs in zip(layers, macs, strict=True):
        context = layer.op
        share = nominal.get(context.source, 0) * layer_macs // max(1, computed[context.source])
        entries.append(
            LayerEntry(
                context.symbol,
                context.kind,
                layer_macs,
                layer.kernel.name,
                None if share == layer_macs else share,
                next(
                    (array.memory for array in context.arrays if array.memory != "flash"), "flash"
                ),
            )
        )
    return tuple(entries)
