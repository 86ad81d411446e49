"""The best networks that the kernels of a model's layers make on a place, by measurement.

First the layers alone (tuning), then whole networks. A network is a choice of one kernel for each
layer, and of the compiler's flags. The search starts from the fastest choice, with flash weighted
more and more, and lowers the arena at its peak step by step; what no other choice is estimated to
beat is measured as a whole, checked against the oracle like any model. Only measured networks are
results. Not here: files and tables (cli_tune, report).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import hil.errors
from codegen import passes, planner
from codegen.engines import EngineOptions, Objective
from codegen.errors import DoesNotFit
from codegen.import_tflite import import_tflite
from codegen.ir import Graph
from codegen.plan_file import FlagSet, LayerPlan, TunedFor, TunedPlan
from hil.bench import board_limits, build_model
from hil.errors import LimitsOutOfReach
from hil.expected import ExpectedOutputs
from hil.lab import Place
from hil.record import Record
from hil.session import Procedure, measure
from hil.store import Store
from hil.timings import LayerTiming
from hil.tuning import LayerBench, Option, Progress

#: How a whole network is measured.
PROCEDURE = Procedure(inputs=3, warmup=2, repeats=3, layers=True)

#: Whole networks that are measured at most, besides the untuned ones and the rounds that follow.
MAX_NETWORKS = 8
#: Rounds in which layers of measured networks are combined anew.
MAX_ROUNDS = 3
#: Prices of a byte of flash in cycles that are tried, spread over those at which a choice changes.
FLASH_PRICES = 6
#: Choices that differ by less than this in every quantity are taken for one.
ALIKE = 0.003

_FLAG_SETS: tuple[FlagSet, ...] = ("fast", "small")
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


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """An option and what it took, or is estimated to take where it could not be measured."""

    option: Option
    cycles: int
    flash_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One kernel for each op, by its name, and what the network is estimated to take with them."""

    flags: FlagSet
    kernels: Mapping[int, str]
    cycles: float
    sram_bytes: int
    flash_bytes: int

    @property
    def quantities(self) -> tuple[float, float, float]:
        """What a front is of."""
        return self.cycles, self.sram_bytes, self.flash_bytes


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a firmware takes besides its arena and its layers."""

    sram_bytes: int = 0
    flash_bytes: int = 0


_P = TypeVar("_P", Point, Choice)


def front_of(items: Iterable[_P], alike: float = 0.0) -> list[_P]:
    """Those that no other is at least as good as in everything, by the first quantity.

    Of several whose quantities all differ by less than the share `alike`, one is enough.
    """
    front: list[_P] = []
    for item in sorted(items, key=lambda item: item.quantities):
        if not any(
            all(
                a <= b * (1 + alike) for a, b in zip(other.quantities, item.quantities, strict=True)
            )
            for other in front
        ):
            front.append(item)
    return front


def best_at(objective: TunedFor, network: Point | Choice) -> tuple[float, ...]:
    """What is to be as small as possible; energy that was not measured goes with the cycles."""
    cycles, sram_bytes, flash_bytes = network.quantities
    if objective == "sram":
        return sram_bytes, cycles, flash_bytes
    if objective == "flash":
        return flash_bytes, cycles, sram_bytes
    if objective == "energy" and isinstance(network, Point) and network.record.energy_uj:
        cycles = network.record.energy_uj.median
    return cycles, sram_bytes, flash_bytes


class Composer:
    """Makes whole networks of measured layers.

    Args:
        graph: after the passes.
        layers: by op, what there is to choose from.
        flags: of the compiler.
    """

    def __init__(
        self, graph: Graph, layers: Mapping[int, Sequence[Measured]], flags: FlagSet
    ) -> None:
        self._graph, self._layers, self._flags = graph, layers, flags
        self._plans: dict[object, planner.Plan] = {}

    def choices(self, fixed: Fixed = Fixed()) -> list[Choice]:
        """Choices that no other one found is better than, by estimate; fastest first.

        Args:
            fixed: what is added to each.
        """
        found: list[Choice] = []
        for price in self.prices():
            for layers in self._descent(price):
                found.append(
                    Choice(
                        self._flags,
                        {op: layer.option.kernel.name for op, layer in layers.items()},
                        cycles=sum(layer.cycles for layer in layers.values()),
                        sram_bytes=fixed.sram_bytes + self._plan(layers).arena_bytes,
                        flash_bytes=fixed.flash_bytes
                        + sum(layer.flash_bytes for layer in layers.values()),
                    )
                )
        return front_of(found, ALIKE)

    def flash_bytes_of(self, kernels: Mapping[str, str]) -> int:
        """Of the layers of a network, by the names of ops and kernels; 0 for unknown ones."""
        return sum(
            layer.flash_bytes
            for op, options in self._layers.items()
            for layer in options
            if kernels.get(self._graph.ops[op].name) == layer.option.kernel.name
        )

    def prices(self) -> list[float]:
        """Cycles that a byte of flash may cost: 0, and some at which a layer's choice changes."""
        rates = sorted(
            {
                (slow.cycles - fast.cycles) / (fast.flash_bytes - slow.flash_bytes)
                for options in self._layers.values()
                for fast in options
                for slow in options
                if slow.cycles > fast.cycles and slow.flash_bytes < fast.flash_bytes
            }
        )
        if not rates:
            return [0.0]
        step = max(1, len(rates) // FLASH_PRICES)
        return [0.0, *(rate * 1.001 for rate in rates[step - 1 :: step]), 2 * rates[-1]]

    def _descent(self, price: float) -> Iterator[dict[int, Measured]]:
        """From the cheapest choice to ones with less arena, at its peak each time."""

        def cost(layer: Measured) -> float:
            return layer.cycles + price * layer.flash_bytes

        layers = {op: min(options, key=cost) for op, options in self._layers.items()}
        while True:
            yield layers
            peak = self._plan(layers).peak_op
            if peak not in layers:
                return
            now = layers[peak].option
            smaller = [
                layer
                for layer in self._layers[peak]
                if layer.option.working_bytes < now.working_bytes
            ]
            if not smaller:
                return
            layers = {**layers, peak: min(smaller, key=cost)}

    def _plan(self, layers: Mapping[int, Measured]) -> planner.Plan:
        costs = {op: layer.option.cost for op, layer in layers.items()}
        key = tuple((op, cost.scratch_bytes, cost.overlaps) for op, cost in costs.items())
        if key not in self._plans:
            self._plans[key] = planner.plan(
                self._graph,
                scratch={
                    op: cost.scratch_bytes for op, cost in costs.items() if cost.scratch_bytes
                },
                overlaps={op: cost.overlaps for op, cost in costs.items() if cost.overlaps},
            )
        return self._plans[key]


def picked(choices: Sequence[Choice], count: int) -> list[Choice]:
    """At most `count` of a front: the best in each quantity, and others evenly between."""
    if len(choices) <= count:
        return list(choices)
    best = [min(choices, key=lambda c: c.quantities[i]) for i in range(3)]
    step = (len(choices) - 1) / max(1, count - 1)
    spread = [choices[round(i * step)] for i in range(count)]
    return list(dict.fromkeys([*best, *spread]))[:count]


class NetworkBench:
    """Measures a model with one plan after the other, or finds the very firmware in the store."""

    def __init__(
        self,
        tflite: bytes,
        name: str,
        place: Place,
        store: Store,
        *,
        models_dir: Path | None = None,
        expected: ExpectedOutputs | None = None,
    ) -> None:
        self._tflite, self._name, self._place, self._store = tflite, name, place, store
        self.board_id = place.board.id
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
            self._place.board,
            engine="tiny",
            options=options,
            models_dir=self._models_dir,
        )
        for record in reversed(self._store.records(model_sha256=manifest.model_sha256)):
            if (
                record.firmware_sha256 == firmware.sha256
                and record.place == self._place.name
                and record.timing_model == self._place.timing_model
                and record.layers
            ):
                return record
        outputs = self._expected.of(self._tflite, manifest.inputs, PROCEDURE.seeds)
        record = measure(self._place, firmware, manifest, outputs, PROCEDURE)
        self._store.add_record(record)
        return record


def tune_model(
    tflite: bytes,
    name: str,
    place: Place,
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
        place: open.
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
    board = board_limits(place.board)
    graph = passes.run(import_tflite(tflite, name))
    networks = NetworkBench(tflite, name, place, store, models_dir=models_dir)
    search = _Search(graph, networks, objective)
    for untuned in _UNTUNED:
        progress(f"measuring the untuned network, objective {untuned}")
        search.measure_untuned(untuned)

    layer_bench = LayerBench(graph, place, board, store, models_dir=models_dir)
    options = layer_bench.options()
    composers: dict[FlagSet, Composer] = {}
    count = 0
    for flags in _FLAG_SETS:

        def show(done: Progress, flags: FlagSet = flags) -> None:
            progress(f"measuring layers alone, {flags} code: {done.done} of {done.total}")

        some = [option for options_of_op in options.values() for option in options_of_op]
        timings = layer_bench.timings(some, flags, progress=show)
        count += len(timings)
        composers[flags] = Composer(graph, measured_layers(options, timings), flags)
    search.run(composers, limits, progress)
    return search.result(limits, count)


class _Search:
    """Whole networks of one model, measured in the order in which they promise most."""

    def __init__(self, graph: Graph, networks: NetworkBench, objective: TunedFor) -> None:
        self._graph, self._networks, self._objective = graph, networks, objective
        self._points: list[Point] = []
        self._known: set[str] = set()  # digests of the plans that were tried
        self._untuned: dict[Objective, Point] = {}

    def measure_untuned(self, objective: Objective) -> None:
        """Measures the default for an objective, unless it does not fit the board."""
        try:
            record = self._networks.record(EngineOptions(objective=objective))
        except (DoesNotFit, hil.errors.DoesNotFit):
            return
        layers = tuple(LayerPlan(layer.name, layer.kernel) for layer in record.layers)
        plan = self._plan(_UNTUNED[objective], layers)
        self._known.add(plan.sha256)
        self._untuned[objective] = Point(f"untuned, {objective}", plan, record)
        self._points.append(self._untuned[objective])

    def run(
        self,
        composers: Mapping[FlagSet, Composer],
        limits: Limits,
        progress: Callable[[str], None],
    ) -> None:
        """Measures the most promising networks, then mixes of the layers of the best."""
        fixed = self._fixed_bytes(composers)
        choices = [
            choice
            for flags, each in composers.items()
            for choice in each.choices(fixed.get(flags, Fixed()))
        ]
        allowed = [choice for choice in choices if limits.allow(choice)]
        picks = list(
            dict.fromkeys(
                [
                    *sorted(allowed, key=lambda choice: best_at(self._objective, choice))[:2],
                    *picked(front_of(choices, ALIKE), MAX_NETWORKS),
                ]
            )
        )
        for number, choice in enumerate(picks, 1):
            progress(f"measuring tuned networks: {number} of {len(picks)}")
            self._measure(choice.flags, self._layer_plans(choice.kernels), "tuned")
        for number in range(MAX_ROUNDS):
            progress(f"measuring the best layers of all networks together: {number + 1}")
            if not self._measure_mix(limits):
                return

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

    def _measure(self, flags: FlagSet, layers: tuple[LayerPlan, ...], label: str) -> Point | None:
        """The network with these choices; None if it was tried, or does not fit the board."""
        plan = self._plan(flags, layers)
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
        """Measures the network of those layers that were fastest within any; whether it is new.

        A layer takes a few cycles more or less in a network than alone, because of where its code
        lies: what it took within networks decides between kernels that are close.
        """
        allowed = [point for point in self._points if limits.allow(point)]
        if not allowed:
            return False
        best = min(allowed, key=lambda point: best_at("latency", point))
        seen: dict[str, tuple[int, str]] = {}
        for point in allowed:
            if point.plan.flags != best.plan.flags or any(
                mine.name != other.name
                for mine, other in zip(point.plan.layers, best.plan.layers, strict=True)
            ):
                continue
            for layer in point.record.layers:
                seen[layer.name] = min(
                    seen.get(layer.name, (layer.cycles, layer.kernel)), (layer.cycles, layer.kernel)
                )
        layers = tuple(LayerPlan(layer.name, seen[layer.name][1]) for layer in best.plan.layers)
        return self._measure(best.plan.flags, layers, "tuned, mixed") is not None

    def _fixed_bytes(self, composers: Mapping[FlagSet, Composer]) -> dict[FlagSet, Fixed]:
        """What a firmware takes besides the arena and the layers, from the untuned ones."""
        fixed = {}
        for point in self._points:
            memory = point.record.sram_bytes
            kernels = {layer.name: layer.kernel for layer in point.plan.layers}
            known = composers[point.plan.flags].flash_bytes_of(kernels)
            fixed[point.plan.flags] = Fixed(
                memory.total - memory.arena, max(0, point.flash_bytes - known)
            )
        return fixed

    def _layer_plans(self, kernels: Mapping[int, str]) -> tuple[LayerPlan, ...]:
        return tuple(LayerPlan(self._graph.ops[op].name, name) for op, name in kernels.items())

    def _plan(self, flags: FlagSet, layers: tuple[LayerPlan, ...]) -> TunedPlan:
        return TunedPlan(
            model_name=self._graph.name,
            model_sha256=self._graph.sha256,
            board=self._networks.board_id,
            objective=self._objective,
            flags=flags,
            layers=layers,
        )


def plan_of(point: Point) -> TunedPlan:
    """The plan of a point with what was measured, and with what."""
    record = point.record
    values = record.to_json()
    keys = ("place", "source", "latency_cycles", "latency_us", "sram_bytes", "flash_bytes")
    measured = {key: values[key] for key in (*keys, "energy_uj", "outputs_checked")}
    tools = {key: values.get(key) for key in ("toolchain", "compiler_flags", "timing_model", "git")}
    return dataclasses.replace(point.plan, measured=measured, tools=tools)


def measured_layers(
    options: Mapping[int, Sequence[Option]], timings: Mapping[tuple[int, str], LayerTiming]
) -> dict[int, list[Measured]]:
    """By op, what was measured of its options; estimates of all where nothing was."""
    layers = {}
    for op, some in options.items():
        known = []
        for option in some:
            timing = timings.get((op, option.kernel.name))
            if timing is not None:
                known.append(Measured(option, timing.cycles, timing.flash_bytes))
        layers[op] = known or [
            Measured(option, option.cost.cycles, option.cost.flash_bytes) for option in some
        ]
    return layers
