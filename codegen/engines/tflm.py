"""Engine `tflm`: the real TensorFlow Lite Micro, linked from the user's own build of it.

What is generated is the application: the model's bytes, a resolver with exactly the operators that
the model uses, and model.h on top of MicroInterpreter. TFLM itself is neither part of this project
nor downloaded; lab.toml says where its library and its headers are.

TFLM tells the arena that it needs only by failing on a smaller one. `smallest_arena_bytes` finds it
with as few runs on the board as it can.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import tflite

from codegen import ir
from codegen.embedded import embed
from codegen.emit import render
from codegen.engines import EngineOptions, Generated, Job, register
from codegen.errors import CodegenError, DoesNotFit, UnsupportedOp
from codegen.manifest import BuildEntry, LayerEntry, Manifest, model_entry, tensor_entry
from codegen.tflite_file import RawModel, RawOp, read_tflite

ENGINE = "tflm"

#: Found in the include directories, so that a wrong one is noticed before the compiler runs.
HEADER = Path("tensorflow/lite/micro/micro_interpreter.h")

#: Arenas are a multiple of this: TFLM aligns its buffers to it.
ARENA_STEP_BYTES = 16

#: Methods of MicroMutableOpResolver, by TFLite's name of the op. The last two appear where a
#: converter left shape arithmetic behind, which TFLM runs and our own engines leave out.
ADDERS = {
    "ADD": "AddAdd",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "CONCATENATION": "AddConcatenation",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "DEQUANTIZE": "AddDequantize",
    "EXPAND_DIMS": "AddExpandDims",
    "FULLY_CONNECTED": "AddFullyConnected",
    "HARD_SWISH": "AddHardSwish",
    "LEAKY_RELU": "AddLeakyRelu",
    "LOGISTIC": "AddLogistic",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "MUL": "AddMul",
    "PAD": "AddPad",
    "PADV2": "AddPadV2",
    "QUANTIZE": "AddQuantize",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
    "RESHAPE": "AddReshape",
    "SOFTMAX": "AddSoftmax",
    "SQUEEZE": "AddSqueeze",
    "STRIDED_SLICE": "AddStridedSlice",
    "SUB": "AddSub",
    "TANH": "AddTanh",
    "TRANSPOSE": "AddTranspose",
    "PACK": "AddPack",
    "SHAPE": "AddShape",
}
_OP_NAMES: dict[int, str] = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)
}


@register(ENGINE)
def tflm(job: Job) -> Generated:
    """The TFLM application of a model.

    Without `arena_bytes` in the options the arena is all the RAM that a model may have.

    Raises:
        CodegenError: the options do not name a build of TFLM.
        UnsupportedOp: TFLM has no such operator.
        DoesNotFit: the file is larger than flash, or the wanted arena larger than RAM.
    """
    library, include_dirs = tflm_build(job.options)
    limit = job.board.arena_limit_bytes // ARENA_STEP_BYTES * ARENA_STEP_BYTES
    arena_bytes = limit if job.options.arena_bytes is None else job.options.arena_bytes
    if arena_bytes > limit:
        raise DoesNotFit("RAM", arena_bytes, limit)
    raw = read_tflite(job.tflite)
    weights_source, weights_bytes = embed(job, ENGINE)
    context = {
        "graph": job.graph,
        "adders": sorted({_adder(op) for op in raw.ops}),
        "layer_count": len(raw.ops),
        "arena_bytes": arena_bytes,
    }
    source = partial(render, graph=job.graph, engine=ENGINE, board=job.board)
    return Generated(
        sources={
            "model.cc": source("tflm_model.cc.j2", context),
            "model_system.c": source("tflm_system.c.j2", {}),
            "model_weights.c": weights_source,
        },
        manifest=Manifest(
            model=model_entry(job.graph, job.graph),
            engine=ENGINE,
            engine_options={"arena_bytes": arena_bytes},
            board=job.board.board,
            inputs=tuple(tensor_entry(job.graph.tensors[i]) for i in job.graph.inputs),
            outputs=tuple(tensor_entry(job.graph.tensors[i]) for i in job.graph.outputs),
            layers=_layers(job.graph, raw),
            arena_bytes=arena_bytes,
            scratch_bytes=0,
            weights_bytes=weights_bytes,
            build=BuildEntry(
                flags=("-O2",),
                include_dirs=tuple(str(path) for path in include_dirs),
                libraries=(str(library),),
            ),
        ),
    )


def tflm_build(options: EngineOptions) -> tuple[Path, tuple[Path, ...]]:
    """(library, include directories) of the user's build of TFLM, as absolute paths.

    Raises:
        CodegenError: one is not set or not there; says which key of lab.toml to set.
    """
    if options.tflm_library is None or not options.tflm_include_dirs:
        missing = "library" if options.tflm_library is None else "include_dirs"
        raise CodegenError(
            "engine 'tflm' links TensorFlow Lite Micro as you built it, and lab.toml does not say"
            f" where that is: [tflm] {missing} is not set; set library to libtensorflow-microlite.a"
            " and include_dirs to the folders of its headers (the root of the source tree, and"
            " flatbuffers, gemmlowp and ruy among what its Makefile downloaded)"
        )
    library = options.tflm_library.absolute()
    if not library.is_file():
        raise CodegenError(f"lab.toml [tflm]: library {str(library)!r} is not a file")
    include_dirs = tuple(path.absolute() for path in options.tflm_include_dirs)
    for path in include_dirs:
        if not path.is_dir():
            raise CodegenError(f"lab.toml [tflm]: include_dirs: {str(path)!r} is no folder")
    if not any((path / HEADER).is_file() for path in include_dirs):
        raise CodegenError(
            f"lab.toml [tflm]: no folder of include_dirs holds {HEADER}; one of them must be the"
            " root of TFLM's source tree"
        )
    return library, include_dirs


def _adder(op: RawOp) -> str:
    name = _OP_NAMES.get(op.code, f"operator code {op.code}")
    if name not in ADDERS:
        raise UnsupportedOp(name, f"op {op.index}", "TFLM, or this engine, has no kernel for it")
    return ADDERS[name]


def _layers(graph: ir.Graph, raw: RawModel) -> tuple[LayerEntry, ...]:
    """Every operator of the file: TFLM leaves none out, the graph does."""
    ops = {op.source: op for op in graph.ops}
    return tuple(
        LayerEntry(ops[op.index].name, ops[op.index].kind, ir.op_macs(graph, ops[op.index]))
        if op.index in ops
        else LayerEntry(f"{_OP_NAMES[op.code].lower()}_{op.index}", _OP_NAMES[op.code], 0)
        for op in raw.ops
    )


def smallest_arena_bytes(
    runs: Callable[[int], bool], *, low: int = 0, high: int, step: int = ARENA_STEP_BYTES
) -> int:
    """The smallest arena with which a model runs, by bisection.

    Args:
        runs: builds, flashes and starts the model with that arena; False if it refused (model_init
            gave a message) or faulted. Each call costs a build, so there are few calls.
        low: an arena that is too small, in bytes; a multiple of `step`.
        high: the largest arena to try, in bytes.
        step: the answer is a multiple of this.

    Raises:
        DoesNotFit: it does not run with `high` either.
    """
    low_steps, high_steps = low // step, high // step
    if not runs(high_steps * step):
        raise DoesNotFit("RAM, or more, for the arena of TFLM", high_steps * step + step, high)
    while high_steps - low_steps > 1:
        middle = (low_steps + high_steps) // 2
        if runs(middle * step):
            high_steps = middle
        else:
            low_steps = middle
    return high_steps * step
