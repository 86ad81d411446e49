"""The best networks that the kernels of a model's layers make on a place, by measurement.

First the layers alone (tuning), then the networks of which no other is estimated to be better
(compose), then mixes of what was quickest within those. A whole network is checked against the
oracle like any model. Only measured networks are results. Not here: files and tables (cli_tune,
report).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import hil.errors
from codegen import passes
from codegen.choice import choose_within, ops_with_kernels
from codegen.engines import EngineOptions, Objective
from codegen.errors import DoesNotFit
from codegen.import_tflite import import_tflite
from codegen.ir import Graph
from codegen.limits import BoardLimits
from codegen.patching import WHOLE, Strips
from codegen.placement import Memory
from codegen.plan_file import FlagSet, LayerPlan, TunedFor, TunedPlan, choices_of, graph_of
from hil.bench import board_limits, build_model
from hil.compose import (
    ALIKE,
    Choice,
    Composer,
    Fixed,
    Kernels,
    Measured,
    front_of,
    measured_layers,
    picked,
)
from hil.errors import LimitsOutOfReach
from hil.expected import ExpectedOutputs
from hil.record import Record
from hil.recovery import KeptPlace
from hil.session import STANDARD, measure
from hil.store import Store
from hil.tuning import LayerBench, Progress, other_memories

#: How a whole network is measured: on the inputs of hil bench, as cycles depend on them a little.
PROCEDURE = dataclasses.replace(STANDARD, repeats=3, layers=True)

#: Whole networks that are measured at most, besides the untuned ones and the rounds that follow.
MAX_NETWORKS = 9
#: Rounds in which layers of measured networks are combined anew.
MAX_ROUNDS = 3
#: Arenas between the smallest and that of the quickest kernels for which strips are looked for.
ARENA_STEPS = 3

#: Flags that layers are measured with, and those that the best networks are tried with besides.
_FLAG_SETS: tuple[FlagSet, ...] = ("fast", "small")
_OTHER_FLAGS: tuple[FlagSet, ...] = ("aligned", "rescheduled", "lean")
#: Objectives of untuned networks, and the flags that they are compiled with.
_UNTUNED: dict[Objective, FlagSet] = {"latency": "fast", "sram": "fast", "flash": "small"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network may take: bytes of SRAM and flash of the whole firmware."""

    sram_bytes: int | None = None
    flash_bytes: int | None = None

    def allow(self, point: Point | Choice) -> bool:
        """Whether a network keeps them."""
        return (self.sram_bytes is None or point.sram_bytes <= self.sram_bytes) and (
            self.flash_bytes is None or point.flash_bytes <= self.flash_bytes
        )


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A measured network; `label` says where it comes from."""

    label: str
    plan: TunedPlan
    record: Record

    @property
    def cycles(self) -> float:
        """Of one inference."""
        return self.record.latency_cycles.median

    @property
    def sram_bytes(self) -> int:
        """Of the whole firmware: arena, static data, peak of the stack."""
        return self.record.sram_bytes.total

    @property
    def flash_bytes(self) -> int:
        """Of the whole firmware."""
        return self.record.flash_bytes.total

    @property
    def quantities(self) -> tuple[float, float, float]:
        """What a front is of."""
        return self.cycles, self.sram_bytes, self.flash_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What a tuning found.

    Args:
        points: all measured networks; those of the untuned choices come first.
        front: those that no other is better than, fastest first.
        chosen: the best for the objective within the limits.
        untuned: the untuned choice for that objective, if it fits the board.
        layers_measured: timings of layers that the choice was made from.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    chosen: Point
    untuned: Point | None
    layers_measured: int


#: Medians of ten windows of a millisecond differ by less than that between two measurements.
ENERGY_RESOLUTION = 0.005


def best_at(objective: TunedFor, network: Point | Choice) -> tuple[float, ...]:
    """What is to be as small as possible; energy that was not measured goes with the cycles.

    Measured energies that a meter cannot tell apart are equal, and fewer cycles win.
    """
    cycles, sram_bytes, flash_bytes = network.quantities
    if objective == "sram":
        return sram_bytes, cycles, flash_bytes
    if objective == "flash":
        return flash_bytes, cycles, sram_bytes
    energy = network.record.energy_uj if isinstance(network, Point) else None
    if objective == "energy" and energy is not None and energy.idle_uw is not None:
        steps = round(math.log(max(energy.median, 1e-6)) / ENERGY_RESOLUTION)
        return steps, cycles, sram_bytes, flash_bytes
    return cycles, sram_bytes, flash_bytes


class NetworkBench:
    """Measures a model with one plan after the other, or finds the very firmware in the store."""

    def __init__(
        self,
        tflite: bytes,
        name: str,
        kept: KeptPlace,
        store: Store,
        *,
        models_dir: Path | None = None,
        expected: ExpectedOutputs | None = None,
    ) -> None:
        self._tflite, self._name, self._kept, self._store = tflite, name, kept, store
        self._board = kept.open().board
        self.board_id = self._board.id
        self._models_dir = models_dir
        self._expected = expected or ExpectedOutputs()

    def record(self, options: EngineOptions) -> Record:
        """The record of the model with these options.

        Raises:
            HilError: OutputMismatch, DoesNotFit (linker) and others.
            CodegenError: DoesNotFit (planner) and others.
        """
        firmware, manifest = build_model(
            self._tflite,
            self._name,
            self._board,
            engine="tiny",
            options=options,
            models_dir=self._models_dir,
        )
        place = self._kept.open()
        is_metered = place.meter is not None
        for record in reversed(self._store.records(model_sha256=manifest.model_sha256)):
            energy = record.energy_uj
            if (
                record.firmware_sha256 == firmware.sha256
                and record.place == place.name
                and (energy is not None and energy.idle_uw is not None) == is_metered
                and record.timing_model == place.timing_model
                and record.layers
            ):
                return record
        outputs = self._expected.of(self._tflite, manifest.inputs, PROCEDURE.seeds)
        self._kept.give_way()
        record = self._kept.use(
            self._name, lambda place: measure(place, firmware, manifest, outputs, PROCEDURE)
        )
        self._store.add_record(record)
        return record


def tune_model(
    tflite: bytes,
    name: str,
    kept: KeptPlace,
    store: Store,
    *,
    objective: TunedFor = "latency",
    limits: Limits = Limits(),
    models_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Measures kernels and networks of a model on a place until the best ones are known.

    What was measured is in the store at once: a second call goes on where the first was stopped.

    Args:
        tflite: the model file, untrusted.
        name: what the user calls it.
        kept: the place.
        store: where timings and records are kept, and looked up.
        objective: what the chosen network is best at.
        limits: what it must keep.
        models_dir: where generated folders are kept.
        progress: told what is under way.

    Raises:
        LimitsOutOfReach: no measured network keeps the limits.
        WrongKernel: a kernel computes wrong bytes.
        HilError, CodegenError: as hil.bench.measure_model.
    """
    board = board_limits(kept.open().board)
    graph = passes.run(import_tflite(tflite, name))
    networks = NetworkBench(tflite, name, kept, store, models_dir=models_dir)
    search = _Search(graph, networks, objective)
    for untuned in _UNTUNED:
        progress(f"measuring the untuned network, objective {untuned}")
        search.measure_untuned(untuned)
    progress("looking for strips")
    composers: list[tuple[Composer, list[Kernels]]] = []
    count = 0
    for strips, (striped, kernels) in by_strips(graph, board, search.untuned).items():
        layer_bench = LayerBench(striped, kept, board, store, models_dir=models_dir)
        where = "layers alone" if strips == WHOLE else f"layers in {strips.count} strips alone"
        for flags in _FLAG_SETS:

            def show(done: Progress, what: str = f"{where}, {flags} code") -> None:
                progress(f"measuring {what}: {done.done} of {done.total}")

            # RAM for copies is worth its price where speed is what counts, if anywhere
            can_copy = flags == "fast" and strips == WHOLE
            layers, known = _measured_options(
                layer_bench, striped, board, flags, show, can_copy=can_copy
            )
            count += known
            composers.append((Composer(striped, strips, layers, flags, board), kernels))
    search.run(composers, limits, progress)
    return search.result(limits, count)


def by_strips(
    graph: Graph, board: BoardLimits, untuned: Sequence[Point]
) -> dict[Strips, tuple[Graph, list[Kernels]]]:
    """By strips, the graph in them, and kernels that were chosen for arenas of several sizes.

    Args:
        graph: after the passes.
        board: its memories.
        untuned: networks with the quickest kernels, with the smallest arena and so on.
    """
    found: dict[Strips, tuple[Graph, list[Kernels]]] = {WHOLE: (graph, [])}
    for point in untuned:
        striped = graph_of(point.plan, graph)
        choices = choices_of(point.plan, striped, ops_with_kernels(striped))
        kernels = {op: kernel.name for op, (kernel, _) in choices.items()}
        found.setdefault(point.plan.strips, (striped, []))[1].append(kernels)
    arenas = [point.record.sram_bytes.arena for point in untuned]
    low, high = (min(arenas), max(arenas)) if arenas else (0, 0)
    for limit in {low + (high - low) * i // ARENA_STEPS for i in range(1, ARENA_STEPS)} - {low}:
        choice = choose_within(graph, limit, board)
        kernels = {op: kernel.name for op, kernel in choice.kernels.items()}
        found.setdefault(choice.strips, (choice.graph, []))[1].append(kernels)
    return found


def _measured_options(
    layer_bench: LayerBench,
    graph: Graph,
    board: BoardLimits,
    flags: FlagSet,
    show: Callable[[Progress], None],
    *,
    can_copy: bool,
) -> tuple[dict[int, list[Measured]], int]:
    """By op, what its options take, in flash and in other memories; how many were measured."""
    options = layer_bench.options()
    every = [option for some in options.values() for option in some]
    timings = layer_bench.timings(every, flags, progress=show)
    cycles = {name: timing.cycles for name, timing in timings.items()}
    placed = {
        op: [
            option
            for option in other_memories(graph, some, cycles, board)
            if can_copy or not option.copy_bytes
        ]
        for op, some in options.items()
    }
    others = [option for some in placed.values() for option in some]
    if others:
        timings |= layer_bench.timings(others, flags, progress=show)
    options = {op: [*some, *placed[op]] for op, some in options.items()}
    return measured_layers(options, timings), len(timings)


class _Search:
    """Whole networks of one model, measured in the order in which they promise most."""

    def __init__(self, graph: Graph, networks: NetworkBench, objective: TunedFor) -> None:
        self._graph, self._networks, self._objective = graph, networks, objective
        self._points: list[Point] = []
        self._known: set[str] = set()  # digests of the plans that were tried
        self._untuned: dict[Objective, Point] = {}

    @property
    def untuned(self) -> list[Point]:
        """The untuned networks whose kernels were chosen for speed or a small arena."""
        return [point for name, point in self._untuned.items() if name != "flash"]

    def measure_untuned(self, objective: Objective) -> None:
        """Measures the default for an objective, unless it does not fit the board."""
        try:
            record = self._networks.record(EngineOptions(objective=objective))
        except (DoesNotFit, hil.errors.DoesNotFit):
            return
        strips = Strips(**record.engine_options.get("strips", {}))
        layers = [
            LayerPlan(each.name, each.kernel, cast("Memory", each.weights))
            for each in record.layers
        ]
        plan = self._plan(_UNTUNED[objective], strips, layers)
        self._known.add(plan.sha256)
        self._untuned[objective] = Point(f"untuned, {objective}", plan, record)
        self._points.append(self._untuned[objective])

    def run(
        self,
        composers: Sequence[tuple[Composer, Sequence[Kernels]]],
        limits: Limits,
        progress: Callable[[str], None],
    ) -> None:
        """Measures the most promising networks, then mixes of the layers of the best."""
        choices: list[Choice] = []
        for composer, some in composers:
            fixed = self._fixed(composer)
            if composer.strips == WHOLE:
                choices += composer.choices(fixed)
            for kernels in some:
                choices += composer.like(kernels, fixed)
        allowed = [choice for choice in choices if limits.allow(choice)]
        allowed.sort(key=lambda choice: best_at(self._objective, choice))
        picks = list(dict.fromkeys([*allowed[:2], *picked(front_of(choices, ALIKE), MAX_NETWORKS)]))
        for number, choice in enumerate(picks, 1):
            progress(f"measuring tuned networks: {number} of {len(picks)}")
            self._measure(choice.flags, choice.strips, choice.layers, "tuned")
        for number in range(MAX_ROUNDS):
            progress(f"measuring the quickest layers of all networks together: {number + 1}")
            if not self._measure_mix(limits):
                break
        kept = [point for point in self._points if limits.allow(point)]
        objectives: tuple[TunedFor, ...] = ("latency", self._objective) if kept else ()
        best = [min(kept, key=lambda p: best_at(name, p)) for name in objectives]
        for point in dict.fromkeys(best):
            for flags in _OTHER_FLAGS:
                progress(f"measuring the best networks with {flags} code")
                self._measure(flags, point.plan.strips, point.plan.layers, "tuned")

    def result(self, limits: Limits, layers_measured: int) -> Tuned:
        """What is best of all that was measured; raises LimitsOutOfReach."""
        allowed = [point for point in self._points if limits.allow(point)]
        if not allowed:
            raise LimitsOutOfReach(
                limits.sram_bytes,
                limits.flash_bytes,
                [(point.sram_bytes, point.flash_bytes) for point in self._points],
            )
        chosen = min(allowed, key=lambda point: best_at(self._objective, point))
        default: Objective = "latency" if self._objective == "energy" else self._objective
        return Tuned(
            points=tuple(self._points),
            front=tuple(front_of(self._points)),
            chosen=chosen,
            untuned=self._untuned.get(default),
            layers_measured=layers_measured,
        )

    def _measure(
        self, flags: FlagSet, strips: Strips, layers: Sequence[LayerPlan], label: str
    ) -> Point | None:
        """The network with these choices; None if it was tried, or does not fit the board."""
        plan = self._plan(flags, strips, layers)
        if plan.sha256 in self._known:
            return None
        self._known.add(plan.sha256)
        try:
            record = self._networks.record(EngineOptions(plan=plan))
        except (DoesNotFit, hil.errors.DoesNotFit):
            return None
        point = Point(label, plan, record)
        self._points.append(point)
        return point

    def _measure_mix(self, limits: Limits) -> bool:
        """Measures the network of those layers that were quickest within any; whether it is new.

        A layer takes a few cycles more or less in a network than alone, because of where its code
        lies: what it took within networks decides between kernels that are close.
        """
        allowed = [point for point in self._points if limits.allow(point)]
        if not allowed:
            return False
        best = min(allowed, key=lambda point: best_at("latency", point)).plan
        quickest: dict[str, tuple[int, LayerPlan]] = {}
        for point in allowed:
            if (point.plan.flags, point.plan.strips) == (best.flags, best.strips):
                cycles = {layer.name: layer.cycles for layer in point.record.layers}
                for layer in point.plan.layers:
                    took = cycles.get(layer.name)
                    if took is not None and took < quickest.get(layer.name, (took + 1, layer))[0]:
                        quickest[layer.name] = took, layer
        layers = [quickest.get(layer.name, (0, layer))[1] for layer in best.layers]
        return self._measure(best.flags, best.strips, layers, "tuned, mixed") is not None

    def _fixed(self, composer: Composer) -> Fixed:
        """What a firmware takes besides arena, copies and layers: as in the untuned ones."""
        points = [point for point in self._points if point.plan.flags == composer.flags]
        if not points:
            return Fixed()
        memories = [point.record.sram_bytes for point in points]
        flash = [point.flash_bytes - composer.flash_bytes_of(point.plan.layers) for point in points]
        return Fixed(
            sram_bytes=min(memory.static + memory.stack_peak for memory in memories),
            flash_bytes=max(0, min(flash)),
        )

    def _plan(self, flags: FlagSet, strips: Strips, layers: Sequence[LayerPlan]) -> TunedPlan:
        return TunedPlan(
            model_name=self._graph.name,
            model_sha256=self._graph.sha256,
            board=self._networks.board_id,
            objective=self._objective,
            flags=flags,
            layers=tuple(layers),
            strips=strips,
        )


def plan_of(point: Point) -> TunedPlan:
    """The plan of a point with what was measured, and with what."""
    record = point.record
    values = record.to_json()
    keys = ("place", "source", "latency_cycles", "latency_us", "sram_bytes", "flash_bytes")
    measured = {key: values[key] for key in (*keys, "energy_uj", "outputs_checked")}
    tools = {key: values.get(key) for key in ("toolchain", "compiler_flags", "timing_model", "git")}
    return dataclasses.replace(point.plan, measured=measured, tools=tools)
