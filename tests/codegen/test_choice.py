"""Kernels chosen together: small where the peak is, quick elsewhere; calls in loops."""

from __future__ import annotations

from dataclasses import replace

import model_runner
import numpy as np
import pytest
from graphs import Builder, random_inputs

from codegen import ir, reference
from codegen.calls import Argument, Call, blocks
from codegen.choice import Choice, Costs, choose_for, choose_within
from codegen.engines import EngineOptions, Job
from codegen.engines.tiny import generate_tiny
from codegen.limits import FLASH_RESERVE_BYTES
from codegen.sharing import functions

LIMITS = model_runner.LIMITS


def wide_then_narrow() -> ir.Graph:
    """A stage with large tensors, then layers with small ones, as in a network for images."""
    b = Builder(np.random.default_rng(0), "net")
    x = b.conv2d(b.input((1, 24, 24, 3)), 8, (3, 3), stride=(2, 2))
    x = b.conv2d(b.depthwise_conv2d(x, (3, 3)), 24, (1, 1))
    x = b.conv2d(b.depthwise_conv2d(x, (3, 3), stride=(2, 2)), 8, (1, 1))
    x = b.conv2d(x, 8, (3, 3))
    return b.graph([b.fully_connected(b.mean(x, (1, 2)), 4)])


@pytest.fixture(scope="module")
def chosen() -> dict[str, Choice]:
    graph = wide_then_narrow()
    return {objective: choose_for(graph, objective, LIMITS) for objective in ("latency", "sram")}


def cycles(choice: Choice) -> int:
    costs = Costs(LIMITS)
    ops = choice.graph.ops
    return sum(costs.of(choice.graph, ops[i], k).cycles for i, k in choice.kernels.items())


def test_strips_and_small_kernels_lower_the_peak(chosen):
    assert chosen["sram"].strips.count > 1
    assert chosen["sram"].memory.arena_bytes < 0.7 * chosen["latency"].memory.arena_bytes
    assert cycles(chosen["latency"]) <= cycles(chosen["sram"])


def test_ops_away_from_the_peak_have_the_quickest_kernel(chosen):
    choice, costs = chosen["sram"], Costs(LIMITS)
    last = max(choice.kernels)

    assert choice.kernels[last] is costs.choices(choice.graph, choice.graph.ops[last])[0][0]


def test_a_limit_between_is_kept_and_used(chosen):
    small, large = (chosen[name].memory.arena_bytes for name in ("sram", "latency"))
    limit = (small + large) // 2

    choice = choose_within(wide_then_narrow(), limit, LIMITS)

    assert choice.memory.arena_bytes <= limit
    assert cycles(choice) <= cycles(chosen["sram"])


def test_what_does_not_fit_as_it_is_runs_in_strips(chosen):
    small = chosen["sram"].memory.arena_bytes
    board = replace(LIMITS, ram_bytes=4096 + small, quick_ram_bytes=4096 + small)

    choice = choose_for(wide_then_narrow(), "latency", board)

    assert choice.is_fitted and choice.memory.arena_bytes <= small


def test_kernels_that_transform_weights_give_way_where_the_flash_is_small():
    b = Builder(np.random.default_rng(0), "net")
    graph = b.graph([b.conv2d(b.input((1, 16, 16, 64)), 64, (3, 3))])

    def weights_bytes(flash_bytes: int) -> int:
        board = replace(LIMITS, flash_bytes=flash_bytes)
        (kernel,) = choose_for(graph, "latency", board).kernels.values()
        return kernel.context(graph, graph.ops[0]).constant_bytes

    plenty, little = weights_bytes(1 << 20), weights_bytes(64 << 10)

    assert plenty > 64 << 10
    assert little + FLASH_RESERVE_BYTES <= 64 << 10
    assert weights_bytes(16 << 10) <= little  # hopeless: as small as it gets


def test_strips_share_functions(chosen):
    choice = chosen["sram"]
    shared = functions(choice.graph, choice.kernels, choice.memory.order)

    assert sum(map(len, shared.values())) == len(choice.kernels)
    assert len(shared) < len(choice.kernels)


@pytest.mark.parametrize("board", model_runner.BOARDS, ids=lambda board: board.mcu.core)
def test_strips_compute_what_the_network_computes(board, tmp_path):
    graph = wide_then_narrow()
    batch = [random_inputs(np.random.default_rng(seed), graph) for seed in range(3)]
    generated = generate_tiny(Job(b"", graph, LIMITS, EngineOptions("sram")))
    assert "strips" in generated.manifest.engine_options
    for name, text in generated.sources.items():
        (tmp_path / name).write_text(text)

    results = model_runner.run_model(tmp_path, generated.manifest, batch, board=board)

    for inputs, (got,) in zip(batch, results, strict=True):
        assert np.array_equal(got, reference.run(graph, inputs)[0])


def call(symbol: str, *places: str) -> Call:
    return Call(symbol, tuple(map(Argument, places)), 0)


def test_calls_that_come_again_are_a_loop_with_a_table_of_what_differs():
    once = [call("start", "A")]
    again = [call(name, f"{name}{i}", "S") for i in range(5) for name in "fg"]

    first, loop, last = blocks([*once, *again, call("end", "B")])

    assert first.rounds == last.rounds == ()
    assert [each.c for each in loop.calls] == ["f(at(place[0]), at(S))", "g(at(place[1]), at(S))"]
    assert loop.rounds == tuple((f"f{i}", f"g{i}") for i in range(5))


def test_calls_that_differ_are_no_loop():
    calls = [call(name, "A") for name in "abcab"]

    assert [block.calls for block in blocks(calls)] == [tuple(calls)]
