"""Measures models on places with engines: generates the C, builds it, and hands it to the session.

What fails is a row with its error; the other rows go on. Not here: how one firmware is measured
(session), which place does what when (rig), what is done about faults (recovery), printing
(report).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import hil.errors
from codegen.engines import EngineOptions, Objective
from codegen.engines.tflm import smallest_arena_bytes
from codegen.errors import CodegenError
from codegen.generate import generate
from codegen.limits import BoardLimits
from codegen.plan_file import TunedPlan
from hil.board import BOARDS_DIR, Board, Memory
from hil.build import Firmware, build, forget_oldest
from hil.errors import HilError, UsageError
from hil.expected import ExpectedOutputs
from hil.health import Ledger
from hil.lab import Place, lab_path, open_place, read_lab
from hil.manifest import Manifest, read_manifest
from hil.proof import prove
from hil.record import Record
from hil.recovery import KeptPlace
from hil.rig import Done, Job, MeasureJob, Rig, Stage
from hil.session import STANDARD, Procedure, measure, starts
from hil.where import find_places

MODELS_DIR = BOARDS_DIR.parent / "build" / "models"


@dataclass(frozen=True, slots=True)
class Model:
    """A .tflite with the name that the user knows it by."""

    name: str
    tflite: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one model, place and engine: a record, or why there is none.

    `place` is what was asked for: a place, or a board. The record says where it was measured.
    """

    model: str
    place: str
    engine: str
    result: Record | HilError | CodegenError


def board_limits(board: Board) -> BoardLimits:
    """What code generation must know of a board."""
    flash = board.flash_memory
    line_bytes, fill_cycles = board.timing.constant_reads(flash.name)
    return BoardLimits(
        board=board.id,
        core=board.mcu.core,
        features=board.mcu.features,
        ram_bytes=board.ram_bytes,
        flash_bytes=board.flash_bytes,
        flash_fill_cycles=fill_cycles,
        flash_line_bytes=line_bytes,
        quick_ram_bytes=_quick_ram_bytes(board),
        stream_offset=_stream_offset(board, flash, fill_cycles / line_bytes),
    )


def _quick_ram_bytes(board: Board) -> int:
    """The part of the image's RAM, from its start, where data are reached without waiting."""
    start, size_bytes = board.ram
    at = start
    for memory in sorted(board.memory, key=lambda memory: memory.origin):
        waits = board.timing.paths_of(memory.name, memory.alias_of).get("data")
        if memory.origin == at and memory.end <= start + size_bytes and not waits:
            at = memory.end
    return at - start


def _stream_offset(board: Board, flash: Memory, byte_cycles: float) -> int:
    """From the flash to its alias that gives constants in order quickest; 0: it is itself."""
    offset = 0
    for alias in board.memory:
        if alias.alias_of == flash.name:
            line_bytes, fill_cycles = board.timing.constant_reads(alias.name, flash.name)
            if fill_cycles / line_bytes < byte_cycles:
                byte_cycles = fill_cycles / line_bytes
                offset = (alias.origin - flash.origin) % (1 << 32)
    return offset


def engine_options(
    engine: str, objective: Objective, plan: TunedPlan | None = None
) -> EngineOptions:
    """Options of an engine, with the user's build of TFLM where it is needed.

    Raises:
        UsageError: engine `tflm`, but lab.toml does not say where TFLM is.
    """
    if engine != "tflm":
        return EngineOptions(objective=objective, plan=plan)
    tflm = read_lab().tflm
    if tflm is None:
        raise UsageError(
            "engine 'tflm' needs your own build of TFLM: set library and include_dirs under "
            f"[tflm] in {lab_path()}"
        )
    return EngineOptions(
        objective=objective,
        tflm_library=Path(tflm.library),
        tflm_include_dirs=tuple(Path(folder) for folder in tflm.include_dirs),
    )


def measure_model(
    tflite: bytes,
    name: str,
    place: str | Place,
    *,
    engine: str = "tiny",
    objective: Objective = "latency",
    plan: TunedPlan | None = None,
    procedure: Procedure = STANDARD,
    expected: ExpectedOutputs | None = None,
    models_dir: Path | None = None,
    stage: Stage = lambda _: None,
) -> Record:
    """The record of one model on one place with one engine.

    Args:
        tflite: the model file, untrusted.
        name: what the user calls it.
        place: name of a place, which is opened and closed, or an open place, which stays open.
        engine: a name of codegen.engines.
        objective: what engine `tiny` chooses its kernels for.
        plan: which kernels engine `tiny` takes, instead.
        procedure: inputs, repeats, layers.
        expected: keeps the oracle's answers for the next call; share one between places.
        models_dir: where generated folders are kept; MODELS_DIR by default.
        stage: told what is done now.

    Raises:
        HilError: OutputMismatch, DoesNotFit (linker), LinkTimeout and others.
        CodegenError: the model is broken, uses what the engine lacks, or DoesNotFit (planner).
    """
    with ExitStack() as stack:
        if isinstance(place, str):
            place = stack.enter_context(open_place(place))
        options = engine_options(engine, objective, plan)
        stage("building")

        def prepare(options: EngineOptions) -> tuple[Firmware, Manifest]:
            return build_model(
                tflite, name, place.board, engine=engine, options=options, models_dir=models_dir
            )

        if engine == "tflm":
            options = _with_smallest_arena(place, prepare, options)
        firmware, manifest = prepare(options)
        outputs = (expected or ExpectedOutputs()).of(tflite, manifest.inputs, procedure.seeds)
        return measure(place, firmware, manifest, outputs, procedure, stage=stage)


def build_model(
    tflite: bytes,
    name: str,
    board: Board,
    *,
    engine: str,
    options: EngineOptions,
    mlperf: bool = False,
    models_dir: Path | None = None,
) -> tuple[Firmware, Manifest]:
    """The firmware of a model and the manifest of its C, as in `measure_model`."""
    digest = hashlib.sha256(b"\0".join([name.encode("utf-8", "replace"), tflite])).hexdigest()
    choice = f"plan-{options.plan.sha256[:16]}" if options.plan else options.objective
    folder = (models_dir or MODELS_DIR) / board.id
    model_dir = folder / f"{digest[:16]}_{engine}_{choice}"
    with locked(model_dir):
        model_dir.mkdir(exist_ok=True)
        os.utime(model_dir)  # used now: not the first to be forgotten
        generate(
            tflite,
            name=name,
            engine=engine,
            board=board_limits(board),
            out_dir=model_dir,
            options=options,
        )
        built = build(model_dir, board, mlperf=mlperf), read_manifest(model_dir)
    forget_oldest(folder)
    return built


@contextlib.contextmanager
def locked(model_dir: Path) -> Iterator[None]:
    """Keeps others from writing the folder while it is built; freed when a build must end."""
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    with open(model_dir.with_suffix(".lock"), "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _with_smallest_arena(
    place: Place,
    prepare: Callable[[EngineOptions], tuple[Firmware, Manifest]],
    options: EngineOptions,
) -> EngineOptions:
    """The options with the smallest arena that TFLM starts with: only running it tells."""

    def runs(arena_bytes: int) -> bool:
        firmware, _ = prepare(dataclasses.replace(options, arena_bytes=arena_bytes))
        return starts(place, firmware)

    limit = board_limits(place.board).arena_limit_bytes
    try:
        prepare(options)  # with an arena of all the RAM
    except hil.errors.DoesNotFit as error:
        if error.memory != "RAM":
            raise
        limit -= error.needed_bytes - error.have_bytes  # what the rest of the firmware takes
    return dataclasses.replace(options, arena_bytes=smallest_arena_bytes(runs, high=limit))


@contextlib.contextmanager
def open_rig(
    measure: MeasureJob,
    *,
    flash: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Rig]:
    """A rig on the places of the lab, with the lab's health ledger; `flash` as of `open_place`."""
    with (
        Ledger() as ledger,
        Rig(
            measure,
            open_place=lambda name, stop: open_place(name, flash=flash, stop=stop),
            ledger=ledger,
            prove=prove,
            say=say,
        ) as rig,
    ):
        yield rig


@contextlib.contextmanager
def keep_place(name: str, *, say: Callable[[str], None] = lambda _: None) -> Iterator[KeptPlace]:
    """One place of the lab, brought back after faults, for work that is not a rig's."""
    with Ledger() as ledger:
        kept = KeptPlace(name, open_place=open_place, ledger=ledger, prove=prove, say=say)
        with contextlib.closing(kept):
            kept.open()
            yield kept


def measure_jobs(
    *,
    objective: Objective = "latency",
    plan: TunedPlan | None = None,
    procedure: Procedure = STANDARD,
) -> MeasureJob:
    """How a rig measures its jobs; arguments as in `measure_model`."""
    expected = ExpectedOutputs()

    def measure_job(place: Place, job: Job, stage: Stage) -> Record:
        return measure_model(
            job.tflite,
            job.model,
            place,
            engine=job.engine,
            objective=objective,
            plan=plan,
            procedure=procedure,
            expected=expected,
            stage=stage,
        )

    return measure_job


def bench_jobs(
    models: Sequence[Model], places: Sequence[str], engines: Sequence[str], *, rounds: int = 1
) -> list[Job]:
    """Every model with every engine on every place, in order; numbered by their keys.

    Args:
        models: what is measured.
        places: names of places, or of boards: any place of the lab that has it.
        engines: names.
        rounds: how often everything is measured.
    """
    lab = read_lab()
    wheres = [find_places(place, lab) for place in places]
    wanted = itertools.product(range(rounds), models, engines, wheres)
    return [
        Job("bench", number, where, model.name, model.tflite, engine)
        for number, (_, model, engine, where) in enumerate(wanted)
    ]


def run_jobs(rig: Rig, jobs: Sequence[Job]) -> Iterator[Done]:
    """What comes of the jobs, in the order in which they are done.

    Raises:
        Exception: a mistake of ours; what a user can meet comes back in its Done.
    """
    ended: queue.SimpleQueue[Done] = queue.SimpleQueue()
    for job in jobs:
        rig.submit(job, ended.put)
    for _ in jobs:
        done = ended.get()
        if done.error is not None and not isinstance(done.error, HilError | CodegenError):
            raise done.error
        yield done


def row_of(done: Done) -> Row:
    """The row of a job."""
    result = done.record or done.error
    assert isinstance(result, Record | HilError | CodegenError), "run_jobs raises the others"
    return Row(done.job.model, done.job.where.asked, done.job.engine, result)
