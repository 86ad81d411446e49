"""What the kernels of a network's layers take, one by one, measured on a place.

A layer alone is measured in a firmware of many (codegen/cases.py), and never twice: the store keeps
what a kernel took for a shape. The cost model of codegen only says which kernels are not worth a
measurement. Not here: which of them make the best network (tune).
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

import codegen.errors
import hil.errors
from codegen.cases import (
    LAYERS_PER_CASE,
    Case,
    arena_bytes,
    can_be_case,
    constant_bytes,
    expected_output,
    generate_cases,
    shape_of,
    symbol,
)
from codegen.choice import ops_with_kernels
from codegen.engines.tiny import compiler_flags
from codegen.generate import write_generated
from codegen.ir import Graph
from codegen.kernels import Cost, Kernel, candidates, working_bytes
from codegen.limits import STACK_RESERVE_BYTES, STATIC_RESERVE_BYTES, BoardLimits
from codegen.placement import Memory, ram_bytes
from codegen.plan_file import FlagSet
from codegen.sharing import signature
from hil.bench import MODELS_DIR, locked
from hil.build import Firmware, build, compiler_version, forget_oldest, parts_id
from hil.errors import OutputMismatch, WrongKernel
from hil.inputs import random_inputs
from hil.lab import Place
from hil.manifest import Manifest, read_manifest
from hil.recipe import Recipe
from hil.recovery import KeptPlace
from hil.session import (
    Runner,
    booted,
    check_identity,
    check_outputs,
    inference_s,
    telling_faults,
)
from hil.store import Store
from hil.timings import Conditions, LayerTiming, timing_key

#: A kernel is left out if another one is estimated to be this many times as fast, and needs neither
#: more arena nor more flash: estimates are better than that.
HOPELESS = 1.5

#: Kernels of an op, the quickest first, that are tried with their constants in other memories.
PLACED_KERNELS = 2

#: Inputs of every case; the cycles are those of the last, when caches hold what they hold later.
SEEDS = (1, 2)

#: Cases of one firmware at most, so that progress is seen and kept, and the share of the flash that
#: their constants and code may take: estimates of code are rough, and the bench needs some.
MAX_CASES = 40
FLASH_SHARE = 0.75

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One kernel for one op and all its equals, with what it is estimated to need.

    `op` is the first of them; `weights` says where its constants lie, and `copy_bytes` what they
    take in RAM there.
    """

    op: int
    kernel: Kernel
    cost: Cost
    working_bytes: int
    weights: Memory = "flash"
    copy_bytes: int = 0

    @property
    def case(self) -> Case:
        """What is measured of it."""
        return Case(self.op, self.kernel, self.weights)

    @property
    def name(self) -> OptionName:
        """Tells the options of one graph apart."""
        return self.op, self.kernel.name, self.weights


#: Index of the op, name of the kernel, memory of the constants.
OptionName = tuple[int, str, Memory]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the measuring of layers is."""

    done: int
    total: int


def equal_ops(graph: Graph) -> dict[int, list[int]]:
    """Ops that need a kernel: by the first of those that are equal, all of them."""
    found: dict[Hashable, list[int]] = {}
    for index, op in ops_with_kernels(graph):
        found.setdefault(signature(graph, op), []).append(index)
    return {indices[0]: indices for indices in found.values()}


def options_of(graph: Graph, index: int, board: BoardLimits) -> list[Option]:
    """Every kernel that runs an op, its constants in flash."""
    op, found = graph.ops[index], []
    for kernel in candidates(graph, op):
        cost = kernel.cost(graph, op, board)
        found.append(Option(index, kernel, cost, working_bytes(graph, op, cost)))
    return found


def other_memories(
    graph: Graph, options: Sequence[Option], cycles: Mapping[OptionName, int], board: BoardLimits
) -> list[Option]:
    """The quickest options of one op with their constants in other memories than flash.

    Args:
        graph: after the passes.
        options: of one op.
        cycles: what some of them took with their constants in flash.
        board: its memories.
    """
    known = sorted((o for o in options if o.name in cycles), key=lambda o: cycles[o.name])
    found = []
    for option in known[:PLACED_KERNELS]:
        context = option.kernel.context(graph, graph.ops[option.op])
        copy_bytes = ram_bytes(context)
        if copy_bytes and board.stream_offset:
            found.append(replace(option, weights="stream"))
        if copy_bytes and board.flash_fill_cycles and copy_bytes <= room_bytes(board):
            found.append(replace(option, weights="ram", copy_bytes=copy_bytes))
    return found


def room_bytes(board: BoardLimits) -> int:
    """Quick RAM that arena and copies can have together."""
    quick_bytes = min(board.quick_ram_bytes, board.ram_bytes)
    return quick_bytes - STACK_RESERVE_BYTES - STATIC_RESERVE_BYTES


def worth_measuring(options: Sequence[Option]) -> list[Option]:
    """Those of one op that could be best at something; never empty unless `options` is."""
    return [option for option in options if not any(_beats(o, option) for o in options)]


def _beats(one: Option, other: Option) -> bool:
    """Whether `other` is hopeless beside `one`."""
    return (
        HOPELESS * one.cost.cycles < other.cost.cycles
        and one.working_bytes <= other.working_bytes
        and one.cost.flash_bytes <= other.cost.flash_bytes
    )


class LayerBench:
    """Measures kernels of one network's layers on one place, or finds them in the store.

    Args:
        graph: after the passes.
        kept: the place; used by the thread that calls only.
        limits: of its board.
        store: where timings are kept.
        models_dir: where generated folders are kept; MODELS_DIR by default.
    """

    def __init__(
        self,
        graph: Graph,
        kept: KeptPlace,
        limits: BoardLimits,
        store: Store,
        *,
        models_dir: Path | None = None,
    ) -> None:
        self._graph, self._kept, self._limits, self._store = graph, kept, limits, store
        self._board = kept.open().board
        self._folder = (models_dir or MODELS_DIR) / self._board.id
        self._shapes: dict[OptionName, dict[str, Any]] = {}

    def options(self) -> dict[int, list[Option]]:
        """By op, the kernels that are worth a measurement; equal ops are one."""
        return {
            first: worth_measuring(options_of(self._graph, first, self._limits))
            for first in equal_ops(self._graph)
        }

    def timings(
        self,
        options: Iterable[Option],
        flags: FlagSet,
        *,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> dict[OptionName, LayerTiming]:
        """What options take, by their names; those that cannot be measured are left out.

        Every firmware's timings are in the store before the next one is measured.

        Raises:
            WrongKernel: a byte of an output differs from the reference's.
            HilError: building, flashing or the link failed.
        """
        conditions = self._conditions(flags)
        wanted = {
            option.name: option.case
            for option in options
            if can_be_case(self._graph, self._graph.ops[option.op])
        }
        keys = {
            name: timing_key(case.kernel.name, self._shape(case), conditions)
            for name, case in wanted.items()
        }
        known = self._store.layer_timings(
            [(case.kernel.name, self._shape(case)) for case in wanted.values()], conditions
        )
        missing = {keys[name]: case for name, case in wanted.items() if keys[name] not in known}
        total = len(set(keys.values()))
        progress(Progress(total - len(missing), total))
        for cases, found in self._measured(list(missing.values()), flags):
            rows = [
                (case.kernel.name, self._shape(case), timing)
                for case, timing in zip(cases, found, strict=True)
            ]
            self._store.add_layer_timings(rows, conditions)
            for kernel, shape, timing in rows:
                known[timing_key(kernel, shape, conditions)] = timing
            progress(Progress(len(known), total))
        return {name: known[key] for name, key in keys.items() if key in known}

    def _conditions(self, flags: FlagSet) -> Conditions:
        board, place = self._board, self._kept.open()
        compiler = compiler_flags(flags)
        return Conditions(
            board=board.id,
            source=place.source,
            timing_model=place.timing_model,
            compiler=compiler_version(),
            flags=compiler,
            build=parts_id(Recipe("", "tiny", flags=compiler), board),
        )

    def _shape(self, case: Case) -> dict[str, Any]:
        name = case.op, case.kernel.name, case.weights
        if name not in self._shapes:
            self._shapes[name] = shape_of(self._graph, case)
        return self._shapes[name]

    def _measured(
        self, cases: Sequence[Case], flags: FlagSet
    ) -> Iterator[tuple[Sequence[Case], list[LayerTiming]]]:
        """Batches of cases with their timings, as they come; the next ones are built meanwhile."""

        def prepare(batch: list[Case]) -> tuple[Firmware, Manifest] | None:
            try:
                return self._build(batch, flags)
            except (hil.errors.DoesNotFit, codegen.errors.DoesNotFit):
                return None

        batches = batched(self._graph, cases, self._limits)
        for batch, built in ahead(prepare, batches):
            if built is not None:
                yield batch, self._measure(batch, *built)
            elif len(batch) > 1:  # the estimate of code was too low: two firmwares
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    yield from self._measured(half, flags)

    def _build(self, batch: Sequence[Case], flags: FlagSet) -> tuple[Firmware, Manifest]:
        generated = generate_cases(self._graph, batch, self._limits, flags)
        digest = hashlib.sha256()
        for text in generated.sources.values():
            digest.update(text.encode())
        folder = self._folder / f"cases-{digest.hexdigest()[:16]}_{flags}"
        with locked(folder):
            write_generated(folder, generated)
            built = build(folder, self._board, jobs=1), read_manifest(folder)
        forget_oldest(self._folder)
        return built

    def _measure(
        self, batch: Sequence[Case], firmware: Firmware, manifest: Manifest
    ) -> list[LayerTiming]:
        self._kept.give_way()
        what = f"{len(batch)} kernels of {self._graph.name}"
        cycles = self._kept.use(what, lambda place: self._cycles(place, batch, firmware, manifest))
        code = code_bytes(firmware.elf, len(batch))
        return [
            LayerTiming(case_cycles, size + constant_bytes(self._graph, case))
            for case, case_cycles, size in zip(batch, cycles[::LAYERS_PER_CASE], code, strict=True)
        ]

    def _cycles(
        self, place: Place, batch: Sequence[Case], firmware: Firmware, manifest: Manifest
    ) -> list[int]:
        """Cycles of every layer of the firmware, the outputs of each seed checked."""
        with telling_faults(place), booted(place, firmware) as wire:
            hello = wire.hello()
            check_identity(hello, place, firmware, manifest)
            runner = Runner(wire, manifest, hello, inference_s(place, manifest))
            for number, seed in enumerate(SEEDS):
                [data] = random_inputs(manifest.inputs, seed)
                expected = expected_output(self._graph, batch, data.tobytes())
                runner.fill(seed)
                cycles = runner.layers()
                try:
                    outputs = wire.outputs(manifest.out_bytes)
                    check_outputs(manifest, number, expected, outputs)
                except OutputMismatch as error:
                    case = batch[error.index]
                    raise WrongKernel(
                        case.kernel.name, self._graph.ops[case.op].name, place.name
                    ) from None
        return cycles


def batched(graph: Graph, cases: Sequence[Case], board: BoardLimits) -> list[list[Case]]:
    """Cases by firmware: as many as the board's memories are estimated to take.

    A case that does not fit alone is left out.
    """
    batches: list[list[Case]] = []
    flash_bytes = copied_bytes = 0
    for case in cases:
        needed = case.kernel.cost(graph, graph.ops[case.op], board).flash_bytes
        copy_bytes = constant_bytes(graph, case) if case.weights == "ram" else 0
        joined = [*batches[-1], case] if batches else [case]
        if (
            batches
            and len(joined) <= MAX_CASES
            and flash_bytes + needed <= FLASH_SHARE * board.flash_bytes
            and _fit_ram(graph, joined, copied_bytes + copy_bytes, board)
        ):
            batches[-1].append(case)
            flash_bytes += needed
            copied_bytes += copy_bytes
        elif _fit_ram(graph, [case], copy_bytes, board):
            batches.append([case])
            flash_bytes, copied_bytes = needed, copy_bytes
    return batches


def _fit_ram(graph: Graph, cases: Sequence[Case], copied_bytes: int, board: BoardLimits) -> bool:
    """Whether an arena for these cases fits, with copies of constants into quick RAM."""
    arena = arena_bytes(graph, cases, board)
    return arena + copied_bytes <= (room_bytes(board) if copied_bytes else board.arena_limit_bytes)


def code_bytes(elf_path: Path, count: int) -> list[int]:
    """For each case of a firmware, the size of its function and of those named after it."""
    sizes = dict.fromkeys(map(symbol, range(count)), 0)
    with open(elf_path, "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection), "firmware is never stripped"
        for entry in table.iter_symbols():
            if entry["st_info"]["type"] == "STT_FUNC":
                case = entry.name.partition(".")[0].partition("_")[0]
                if case in sizes:
                    sizes[case] += entry["st_size"]
    return list(sizes.values())


def ahead(
    function: Callable[[_T], _R], items: Sequence[_T], workers: int = 2
) -> Iterator[tuple[_T, _R]]:
    """(item, result) in order, computed up to `workers` items ahead in threads.

    The threads are daemons: Ctrl-C need not wait for them. What a call raises is raised here.
    """
    results: list[queue.SimpleQueue[_R | BaseException]] = [queue.SimpleQueue() for _ in items]
    numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def serve() -> None:
        while (number := numbers.get()) is not None:
            try:
                results[number].put(function(items[number]))
            except BaseException as error:  # handed to the thread that asked
                results[number].put(error)

    for _ in range(workers):
        threading.Thread(target=serve, daemon=True).start()
    try:
        for number in range(min(workers, len(items))):
            numbers.put(number)
        for number, item in enumerate(items):
            result = results[number].get()
            if number + workers < len(items):
                numbers.put(number + workers)
            if isinstance(result, BaseException):
                raise result
            yield item, result
    finally:
        for _ in range(workers):
            numbers.put(None)
