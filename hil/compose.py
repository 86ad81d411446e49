"""Whole networks of measured layers: which choices are worth measuring as a whole.

A choice is, for each layer, a kernel and the memory of its constants; for the network, its strips
and the compiler's flags. Its cycles and flash are the sums of its layers, its arena is what the
planner makes of it. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from codegen import planner
from codegen.ir import Graph
from codegen.limits import BoardLimits
from codegen.patching import WHOLE, Strips
from codegen.plan_file import FlagSet, LayerPlan
from hil.timings import LayerTiming
from hil.tuning import Option, OptionName, equal_ops, room_bytes

#: Prices of a byte of flash, and of RAM for copies, in cycles: so many are tried, spread over those
#: at which some layer's choice changes.
PRICES = 6
#: Plans of the arena that one composer makes.
MAX_PLANS = 80
#: Choices that differ by less than this share in every quantity are taken for one.
ALIKE = 0.003

#: By op, the name of its kernel.
Kernels = Mapping[int, str]

_NEVER = float("inf")


class Network(Protocol):
    """Anything with the three quantities that a front is of."""

    @property
    def quantities(self) -> tuple[float, float, float]:
        """Cycles, bytes of SRAM, bytes of flash."""


_N = TypeVar("_N", bound=Network)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """An option, what it took, and its flash: estimates where it could not be measured."""

    option: Option
    cycles: int
    flash_bytes: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a firmware takes besides its arena, its layers and their copies."""

    sram_bytes: int = 0
    flash_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A network and what it is estimated to take."""

    flags: FlagSet
    strips: Strips
    layers: tuple[LayerPlan, ...]
    cycles: float
    sram_bytes: int
    flash_bytes: int

    @property
    def quantities(self) -> tuple[float, float, float]:
        """Cycles, bytes of SRAM, bytes of flash."""
        return self.cycles, self.sram_bytes, self.flash_bytes


def measured_layers(
    options: Mapping[int, Sequence[Option]], timings: Mapping[OptionName, LayerTiming]
) -> dict[int, list[Measured]]:
    """By op, what was measured of its options; estimates of all where nothing was."""
    layers = {}
    for op, some in options.items():
        known = [
            Measured(option, timing.cycles, timing.flash_bytes)
            for option in some
            if (timing := timings.get(option.name)) is not None
        ]
        layers[op] = known or [
            Measured(option, option.cost.cycles, option.cost.flash_bytes) for option in some
        ]
    return layers


def front_of(items: Iterable[_N], alike: float = 0.0) -> list[_N]:
    """Those that no other is at least as good as in everything, by the first quantity.

    Of several whose quantities all differ by less than the share `alike`, one is enough.
    """
    front: list[_N] = []
    for item in sorted(items, key=lambda item: item.quantities):
        if not any(
            all(
                a <= b * (1 + alike) for a, b in zip(other.quantities, item.quantities, strict=True)
            )
            for other in front
        ):
            front.append(item)
    return front


def picked(front: Sequence[_N], count: int) -> list[_N]:
    """At most `count` of a front: the best in each quantity, and others evenly between."""
    if len(front) <= count:
        return list(front)
    best = [min(front, key=lambda network: network.quantities[i]) for i in range(3)]
    step = (len(front) - 1) / max(1, count - 1)
    spread = [front[round(i * step)] for i in range(count)]
    return list(dict.fromkeys([*best, *spread]))[:count]


class Composer:
    """Makes whole networks of one graph, in one kind of strips, with one kind of flags.

    Args:
        graph: after the passes, in its strips.
        strips: which.
        layers: by the first of equal ops, what there is to choose from.
        flags: of the compiler.
        board: its memories.
    """

    def __init__(
        self,
        graph: Graph,
        strips: Strips,
        layers: Mapping[int, Sequence[Measured]],
        flags: FlagSet,
        board: BoardLimits,
    ) -> None:
        self.strips, self.flags = strips, flags
        self._graph, self._board = graph, board
        self._layers, self._equal = layers, equal_ops(graph)
        self._first = {op: first for first, ops in self._equal.items() for op in ops}
        self._plans: dict[object, planner.Plan] = {}

    def choices(self, fixed: Fixed) -> list[Choice]:
        """Choices that no other one found is better than, by estimate; fastest first.

        Args:
            fixed: what is added to each.
        """
        found = []
        for flash_price, copy_price in self._prices():
            for layers in self._descent(flash_price, copy_price):
                choice = self._choice(layers, fixed)
                if choice is not None:
                    found.append(choice)
        return front_of(found, ALIKE)

    def like(self, kernels: Kernels, fixed: Fixed) -> list[Choice]:
        """The quickest kernels that take no more arena for any op than the given ones.

        Without copies in RAM, and with those that pay most.
        """
        found = []
        for copy_price in (_NEVER, 0.0):
            layers = {}
            for first, options in self._layers.items():
                most = working_bytes_of(options, kernels[first])
                able = [o for o in options if o.option.working_bytes <= most] or list(options)
                layers[first] = min(able, key=lambda layer: _cost(layer, 0.0, copy_price))
            choice = self._choice(layers, fixed)
            if choice is not None:
                found.append(choice)
        return found

    def flash_bytes_of(self, plans: Iterable[LayerPlan]) -> int:
        """Of the layers of a network, by their plans; 0 for unknown ones."""
        wanted = {(layer.name, layer.kernel, layer.weights) for layer in plans}
        return sum(
            layer.flash_bytes
            for options in self._layers.values()
            for layer in options
            if (self._name(layer), layer.option.kernel.name, layer.option.weights) in wanted
        )

    def _name(self, layer: Measured) -> str:
        return self._graph.ops[layer.option.op].name

    def _choice(self, layers: Mapping[int, Measured], fixed: Fixed) -> Choice | None:
        """The network of these layers; None if it does not fit, or too many were planned."""
        plan = self._plan(layers)
        if plan is None:
            return None
        copies = sum(layer.option.copy_bytes for layer in layers.values())
        if copies and plan.arena_bytes + copies > room_bytes(self._board):
            return None
        if plan.arena_bytes > self._board.arena_limit_bytes:
            return None
        return Choice(
            self.flags,
            self.strips,
            tuple(
                LayerPlan(self._name(layer), layer.option.kernel.name, layer.option.weights)
                for layer in layers.values()
            ),
            cycles=sum(layer.cycles * len(self._equal[first]) for first, layer in layers.items()),
            sram_bytes=fixed.sram_bytes + plan.arena_bytes + copies,
            flash_bytes=fixed.flash_bytes + sum(layer.flash_bytes for layer in layers.values()),
        )

    def _prices(self) -> list[tuple[float, float]]:
        """(cycles for a byte of flash, cycles for a byte of RAM) that are worth a descent."""
        flash = _spread(self._rates(lambda layer: layer.flash_bytes))
        copies = _spread(self._rates(lambda layer: layer.option.copy_bytes))
        both = [(0.0, _NEVER), (0.0, 0.0)]
        both += [(0.0, price) for price in copies]
        both += [(price, _NEVER) for price in flash]
        return both

    def _rates(self, size: Callable[[Measured], int]) -> list[float]:
        """Cycles for a byte at which a layer's choice changes, sorted."""
        return sorted(
            {
                (slow.cycles - fast.cycles) * len(self._equal[first]) / (size(fast) - size(slow))
                for first, options in self._layers.items()
                for fast in options
                for slow in options
                if slow.cycles > fast.cycles and size(slow) < size(fast)
            }
        )

    def _descent(self, flash_price: float, copy_price: float) -> Iterator[dict[int, Measured]]:
        """From the cheapest choice to ones with less arena, at its peak each time."""
        layers = {
            first: min(options, key=lambda layer: self._cost(layer, flash_price, copy_price))
            for first, options in self._layers.items()
        }
        while True:
            yield layers
            plan = self._plan(layers)
            if plan is None or plan.peak_op not in self._first:
                return
            peak = self._first[plan.peak_op]
            smaller = [
                layer
                for layer in self._layers[peak]
                if layer.option.working_bytes < layers[peak].option.working_bytes
            ]
            if not smaller:
                return
            best = min(smaller, key=lambda layer: self._cost(layer, flash_price, copy_price))
            layers = {**layers, peak: best}

    def _cost(self, layer: Measured, flash_price: float, copy_price: float) -> float:
        """Cycles of a layer and its equals, with what its bytes cost."""
        return _cost(layer, flash_price, copy_price, len(self._equal[layer.option.op]))

    def _plan(self, layers: Mapping[int, Measured]) -> planner.Plan | None:
        """The arena of these layers; None when as many as may be were planned."""
        costs = {
            op: layer.option.cost for first, layer in layers.items() for op in self._equal[first]
        }
        key = tuple((op, cost.scratch_bytes, cost.overlaps) for op, cost in costs.items())
        if key not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                return None
            self._plans[key] = planner.plan(
                self._graph,
                scratch={
                    op: cost.scratch_bytes for op, cost in costs.items() if cost.scratch_bytes
                },
                overlaps={op: cost.overlaps for op, cost in costs.items() if cost.overlaps},
                reorder=self.strips == WHOLE,
            )
        return self._plans[key]


def working_bytes_of(layers: Sequence[Measured], kernel: str) -> int:
    """Of a kernel among the options of an op, or the least of all if it is none of them."""
    every = {layer.option.kernel.name: layer.option.working_bytes for layer in layers}
    return every.get(kernel, min(every.values()))


def _cost(layer: Measured, flash_price: float, copy_price: float, times: int = 1) -> float:
    copies = layer.option.copy_bytes
    return (
        layer.cycles * times
        + flash_price * layer.flash_bytes
        + (copy_price * copies if copies else 0.0)
    )


def _spread(rates: Sequence[float]) -> list[float]:
    """Some of many prices, each a little above a rate; the highest among them."""
    if not rates:
        return []
    step = max(1, len(rates) // PRICES)
    return [rate * 1.001 for rate in dict.fromkeys([*rates[step - 1 :: step], rates[-1]])]
