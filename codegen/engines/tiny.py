"""Engine `tiny`: one C function per op, specialised for its shape; one arena, fixed offsets.

Flow: passes, a kernel for each op, the plan, then the templates. What each kernel does is in
codegen/kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from codegen import passes
from codegen.emit import banner, environment
from codegen.engines import Generated, Job, Objective, register
from codegen.errors import DoesNotFit
from codegen.ir import Alias, DType, Graph, Op, Tensor, op_macs
from codegen.kernels import Kernel, choose
from codegen.kernels.context import Array, Context, constant_name
from codegen.limits import STACK_RESERVE_BYTES, BoardLimits
from codegen.manifest import BuildEntry, LayerEntry, Manifest, model_entry, tensor_entry
from codegen.plan_file import FlagSet, kernels_of, require_for
from codegen.planner import Overlap, Plan, plan, require_fit

#: Measured on the four MLPerf Tiny models and person_detect (virtual boards): -O3 needs up to 20 %
#: fewer cycles than -O2. Scheduling before register allocation spills sums on the M4 (up to 7 %
#: slower), but pays on the M7, which issues two instructions at once (up to 4 %).
_FAST_FLAGS = {"cortex-m4": ("-O3", "-fno-schedule-insns"), "cortex-m7": ("-O3",)}
_SMALL_FLAGS = ("-Os",)

_MODEL_DTYPES = {
    DType.S8: "MODEL_S8",
    DType.U8: "MODEL_U8",
    DType.S16: "MODEL_S16",
    DType.S32: "MODEL_S32",
    DType.F32: "MODEL_F32",
}


class Layer(NamedTuple):
    """One op as model.c.j2 sees it: its kernel, what the kernel's template needs, and the call."""

    op: Context
    kernel: Kernel
    arguments: str
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

    A tuned plan says which kernels; else the objective does. Where the arena of the objective's
    kernels is larger than the board's RAM, the kernels are those with the least scratch, and the
    manifest says so.

    Raises:
        PlanRefused: the plan is not for this model and board.
        UnsupportedOp: no kernel runs an op.
        DoesNotFit: the arena or the constants are larger than the board's memory.
    """
    graph = passes.run(job.graph)
    _require_each_tensor_fits(job, graph)
    options: dict[str, str] = {"objective": job.options.objective}
    if (tuned := job.options.plan) is not None:
        require_for(tuned, graph.sha256, job.board.board)
        options = {"objective": tuned.objective, "plan": tuned.sha256}
        kernels = kernels_of(tuned, graph, ops_with_kernels(graph))
        memory = planned(graph, kernels, job.board)
    else:
        kernels, memory = _chosen_for(graph, job.options.objective, job.board)
        if memory.arena_bytes > job.board.arena_limit_bytes and job.options.objective != "sram":
            kernels, memory = _chosen_for(graph, "sram", job.board)
            options["kernels"] = "sram"
    require_fit(graph, memory, job.board.arena_limit_bytes, _arena_words(job))
    return emit_model(job, graph, kernels, memory, options)


def _chosen_for(
    graph: Graph, objective: Objective, board: BoardLimits
) -> tuple[dict[int, Kernel], Plan]:
    """The kernel of each op that is best for an objective, and the plan with these kernels."""
    kernels = {index: choose(graph, op, objective, board) for index, op in ops_with_kernels(graph)}
    return kernels, planned(graph, kernels, board)


def ops_with_kernels(graph: Graph) -> list[tuple[int, Op]]:
    """Ops that need a kernel, with their indices: all but those that are only views."""
    return [(index, op) for index, op in enumerate(graph.ops) if not isinstance(op, Alias)]


def planned(graph: Graph, kernels: Mapping[int, Kernel], board: BoardLimits) -> Plan:
    """The plan of a graph whose ops run with these kernels."""
    costs = {
        index: kernel.cost(graph, graph.ops[index], board) for index, kernel in kernels.items()
    }
    return plan(
        graph,
        scratch={index: cost.scratch_bytes for index, cost in costs.items() if cost.scratch_bytes},
        overlaps={index: cost.overlaps for index, cost in costs.items() if cost.overlaps},
    )


def _arena_words(job: Job) -> str:
    return f"RAM for its arena on {job.board.board} (beside {STACK_RESERVE_BYTES:,} B of stack)"


def _require_each_tensor_fits(job: Job, graph: Graph) -> None:
    """Ends hopeless cases before kernels are compared, whose estimates walk over all pixels."""
    for op in graph.ops:
        for i in (*op.inputs, *op.outputs):
            tensor = graph.tensors[i]
            if not tensor.is_constant and tensor.size_bytes > job.board.arena_limit_bytes:
                raise DoesNotFit(
                    _arena_words(job), tensor.size_bytes, job.board.arena_limit_bytes, op.name
                )


def emit_model(
    job: Job,
    graph: Graph,
    kernels: Mapping[int, Kernel],
    memory: Plan,
    options: Mapping[str, str],
) -> Generated:
    """C for a graph that has been planned.

    Args:
        job: the model, the board, the objective that the compiler's flags follow.
        graph: after the passes.
        kernels: by index of the op; RESHAPE has none, because its output is its input.
        memory: offsets of tensors and scratch.
        options: how kernels and plan were chosen; for the banner and the manifest.

    Raises:
        DoesNotFit: the constants are larger than the board's flash.
    """
    layers = [
        _layer(job.board, graph, memory, index, kernels[index])
        for index in memory.order
        if index in kernels
    ]
    arrays = [array for layer in layers for array in layer.op.arrays]
    weights_bytes = sum(array.size_bytes for array in arrays)
    if weights_bytes > job.board.flash_bytes:
        raise DoesNotFit(
            f"flash for its constants on {job.board.board}",
            weights_bytes,
            job.board.flash_bytes,
            max(layers, key=lambda layer: layer.op.constant_bytes).op.symbol,
        )
    return Generated(
        sources=_sources(job, graph, memory, options, layers, arrays),
        manifest=_manifest(job, graph, memory, options, layers, weights_bytes),
    )


def _layer(board: BoardLimits, graph: Graph, memory: Plan, index: int, kernel: Kernel) -> Layer:
    op = graph.ops[index]
    context = kernel.context(graph, op)
    arguments = [_operand(graph, op, position) for position in context.operands]
    arguments += [f"at({_tensor_place(graph.tensors[i])})" for i in op.outputs]
    if context.scratch_bytes:
        arguments.append(f"at({_scratch_place(op)})")
    aliasing = _aliasing(kernel.cost(graph, op, board).overlaps)
    return Layer(context, kernel, ", ".join(arguments), aliasing)


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


def _operand(graph: Graph, op: Op, position: int) -> str:
    tensor = graph.tensors[op.inputs[position]]
    if tensor.is_constant:
        return constant_name(op, position)
    return f"at({_tensor_place(tensor)})"


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
    options: Mapping[str, str],
    layers: list[Layer],
    arrays: list[Array],
) -> dict[str, str]:
    env = environment()
    choice = f"objective {options['objective']}"
    if "kernels" in options:
        choice += f", kernels for {options['kernels']}"
    if "plan" in options:
        choice += f", plan {options['plan'][:16]}"

    def render(template: str, **names: object) -> str:
        head = banner(
            template=f"codegen/templates/{template}",
            model_name=graph.name,
            sha256=graph.sha256,
            engine=f"tiny, {choice}",
            board=job.board.board,
        )
        return head + env.get_template(template).render(**names)

    return {
        "model.c": render(
            "model.c.j2",
            graph=graph,
            memory=memory,
            board=job.board,
            layers=layers,
            places=_places(graph, memory),
            inputs=_model_io(graph.tensors[i] for i in graph.inputs),
            outputs=_model_io(graph.tensors[i] for i in graph.outputs),
        ),
        "model_weights.c": render("model_weights.c.j2", arrays=arrays),
        "model_weights.h": render("model_weights.h.j2", arrays=arrays),
    }


def compiler_flags(flags: FlagSet, board: BoardLimits) -> tuple[str, ...]:
    """The compiler's flags of that name for a board's core."""
    return _SMALL_FLAGS if flags == "small" else _FAST_FLAGS[board.core]


def _build_flags(job: Job) -> tuple[str, ...]:
    if (tuned := job.options.plan) is not None:
        return compiler_flags(tuned.flags, job.board)
    return compiler_flags("small" if job.options.objective == "flash" else "fast", job.board)


def _manifest(
    job: Job,
    graph: Graph,
    memory: Plan,
    options: Mapping[str, str],
    layers: list[Layer],
    weights_bytes: int,
) -> Manifest:
    return Manifest(
        model=model_entry(job.graph, graph),
        engine="tiny",
        engine_options=dict(options),
        board=job.board.board,
        inputs=tuple(tensor_entry(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(tensor_entry(graph.tensors[i]) for i in graph.outputs),
        layers=_layer_entries(job.graph, layers),
        arena_bytes=memory.arena_bytes,
        scratch_bytes=memory.scratch_bytes,
        weights_bytes=weights_bytes,
        build=BuildEntry(flags=_build_flags(job)),
    )


def _layer_entries(imported: Graph, layers: list[Layer]) -> tuple[LayerEntry, ...]:
    """The manifest's layers; an operator that became several ops is shared out by their MACs."""
    nominal: dict[int, int] = {}
    for op in imported.ops:
        nominal[op.source] = nominal.get(op.source, 0) + op_macs(imported, op)
    computed: dict[int, int] = {}
    for layer in layers:
        computed[layer.op.source] = computed.get(layer.op.source, 0) + layer.op.macs
    entries = []
    for layer in layers:
        context = layer.op
        macs = nominal.get(context.source, 0) * context.macs // max(1, computed[context.source])
        entries.append(
            LayerEntry(
                context.symbol,
                context.kind,
                context.macs,
                layer.kernel.name,
                None if macs == context.macs else macs,
            )
        )
    return tuple(entries)
