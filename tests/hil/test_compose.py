"""Networks of measured layers: fronts, picks, prices, and that estimates are sums."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from graphs import Builder

from codegen.choice import choose_for, planned
from codegen.patching import WHOLE
from codegen.plan_file import TunedPlan, choices_of
from hil import compose
from hil.bench import board_limits
from hil.board import get_board
from hil.compose import Composer, Fixed, Measured, front_of, measured_layers, picked
from hil.timings import LayerTiming
from hil.tuning import equal_ops, options_of, other_memories

LIMITS = board_limits(get_board("nucleo_l4r5zi"))
FIXED = Fixed(sram_bytes=700, flash_bytes=9000)


@dataclasses.dataclass(frozen=True)
class Net:
    quantities: tuple[float, float, float]


def nets(*quantities) -> list[Net]:
    return [Net(each) for each in quantities]


def test_a_front_holds_what_nothing_else_beats():
    a, b, c, d = nets((1, 9, 9), (2, 8, 9), (2, 9, 9), (3, 1, 1))

    assert front_of([d, c, b, a]) == [a, b, d]


def test_of_networks_that_are_alike_one_is_on_the_front():
    a, b, c = nets((1000, 1000, 1000), (1001, 999, 1000), (1100, 900, 1000))

    assert front_of([a, b, c], alike=0.01) == [a, c]
    assert front_of([a, b, c]) == [a, b, c]


@pytest.mark.parametrize("seed", range(10))
def test_a_front_is_what_its_definition_says(seed):
    rng = np.random.default_rng(seed)
    some = [Net(tuple(row)) for row in rng.integers(0, 6, (40, 3)).tolist()]
    front = front_of(some)

    def beats(one: Net, other: Net) -> bool:
        return one.quantities != other.quantities and all(
            a <= b for a, b in zip(one.quantities, other.quantities, strict=True)
        )

    best = {net.quantities for net in some if not any(beats(other, net) for other in some)}
    assert {net.quantities for net in front} == best
    assert len(front) == len(best)


def test_picks_hold_the_best_of_each_kind():
    front = nets(*((i, 100 - i, (i * 37) % 100) for i in range(50)))

    some = picked(front, 8)

    assert len(some) == len(set(some)) == 8
    for i in range(3):
        assert min(net.quantities[i] for net in some) == min(n.quantities[i] for n in front)
    assert picked(front, 50) == front


@pytest.fixture(scope="module")
def graph():
    builder = Builder(np.random.default_rng(2), name="net")
    x = builder.conv2d(builder.input((1, 12, 12, 3)), 8, (3, 3))
    x = builder.depthwise_conv2d(x, (3, 3))
    x = builder.conv2d(x, 12, (1, 1))
    x = builder.conv2d(x, 8, (3, 3), stride=(2, 2))
    return builder.graph([builder.fully_connected(builder.reshape(x, (1, 288)), 10)])


def composer(graph, seed: int = 0, limits=LIMITS, strips=WHOLE) -> Composer:
    """Timings that the cost model would not expect, copies in RAM a little quicker."""
    rng = np.random.default_rng(seed)
    options = {first: options_of(graph, first, limits) for first in equal_ops(graph)}
    timings = {
        option.name: LayerTiming(int(rng.integers(1000, 9000)), option.cost.flash_bytes)
        for some in options.values()
        for option in some
    }
    for some in options.values():
        cycles = {option.name: timings[option.name].cycles for option in some}
        for option in other_memories(graph, list(some), cycles, limits):
            timings[option.name] = LayerTiming(
                timings[option.op, option.kernel.name, "flash"].cycles - 100,
                option.cost.flash_bytes,
            )
            some.append(option)
    return Composer(graph, strips, measured_layers(options, timings), "fast", limits)


def brute_force(each: Composer) -> list[tuple[float, float, float]]:
    """Quantities of every network there is."""
    found = []
    firsts = list(each._layers)
    for layers in itertools.product(*each._layers.values()):
        choice = each._choice(dict(zip(firsts, layers, strict=True)), FIXED)
        if choice is not None:
            found.append(choice.quantities)
    return found


def test_an_estimate_is_the_sum_of_the_layers_and_the_plans_arena(graph):
    each = composer(graph)

    for choice in each.choices(FIXED):
        plan = TunedPlan(
            model_name="net",
            model_sha256=graph.sha256,
            board=LIMITS.board,
            objective="latency",
            flags="fast",
            layers=choice.layers,
        )
        ops = [(i, graph.ops[i]) for i in equal_ops(graph)]
        kernels = {i: kernel for i, (kernel, _) in choices_of(plan, graph, ops).items()}
        copies = sum(
            layer.option.copy_bytes
            for layers in each._layers.values()
            for layer in layers
            if compose.LayerPlan(
                graph.ops[layer.option.op].name, layer.option.kernel.name, layer.option.weights
            )
            in choice.layers
        )
        arena = planned(graph, kernels, LIMITS).arena_bytes
        assert choice.sram_bytes == FIXED.sram_bytes + arena + copies
        assert choice.flash_bytes == FIXED.flash_bytes + each.flash_bytes_of(choice.layers)


def test_the_quickest_network_is_found_and_the_least_flash(graph, monkeypatch):
    monkeypatch.setattr(compose, "MAX_PLANS", 10**6)
    layers = {first: some[:4] for first, some in composer(graph)._layers.items()}
    for seed in range(3):
        each = composer(graph, seed)
        each._layers = {
            first: [
                layer
                for layer in some
                if layer.option.name in {o.option.name for o in layers[first]}
            ]
            for first, some in each._layers.items()
        }
        every = brute_force(each)
        found = [choice.quantities for choice in each.choices(FIXED)]

        for i in (0, 2):
            best = min(quantities[i] for quantities in every)
            assert min(quantities[i] for quantities in found) <= best * (1 + compose.ALIKE)
        least = min(quantities[1] for quantities in every)
        assert min(quantities[1] for quantities in found) <= 1.1 * least


def test_copies_never_take_more_ram_than_there_is(graph):
    tight = dataclasses.replace(LIMITS, ram_bytes=12_000, quick_ram_bytes=12_000)
    for choice in composer(graph, limits=tight).choices(Fixed()):
        assert choice.sram_bytes <= 12_000


def test_a_choice_like_an_untuned_one_takes_no_more_arena_for_any_op(graph):
    smallest = choose_for(graph, "sram", LIMITS)
    graph = smallest.graph
    each = composer(graph, strips=smallest.strips)

    lean, copied = each.like({op: k.name for op, k in smallest.kernels.items()}, Fixed())

    assert {layer.weights for layer in lean.layers} <= {"flash", "stream"}
    assert copied.cycles <= lean.cycles
    by_name = {layer.name: layer for layer in lean.layers}
    for first, options in each._layers.items():
        chosen = next(
            o for o in options if o.option.kernel.name == by_name[graph.ops[first].name].kernel
        )
        before = compose.working_bytes_of(options, smallest.kernels[first].name)
        assert chosen.option.working_bytes <= before


def test_what_was_not_measured_is_estimated(graph):
    options = {first: options_of(graph, first, LIMITS) for first in equal_ops(graph)}
    first = next(iter(options))
    timings = {options[first][0].name: LayerTiming(5, 6)}

    layers = measured_layers(options, timings)

    assert layers[first] == [layers[first][0]]
    assert (layers[first][0].cycles, layers[first][0].flash_bytes) == (5, 6)
    for other in list(options)[1:]:
        assert [layer.cycles for layer in layers[other]] == [
            option.cost.cycles for option in options[other]
        ]
    assert all(isinstance(layer, Measured) for some in layers.values() for layer in some)
