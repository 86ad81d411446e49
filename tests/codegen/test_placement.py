"""Where constants lie: what the default asks for, what is refused, what reaches the C."""

import dataclasses

import numpy as np
import pytest
from graphs import Builder
from model_runner import LIMITS

from codegen.choice import ops_with_kernels, planned
from codegen.engines import EngineOptions, Job
from codegen.engines.tiny import emit_model
from codegen.errors import DoesNotFit, PlanRefused
from codegen.kernels import choose
from codegen.kernels.context import Array, Context
from codegen.placement import Placement, default_placements, placed, require_room

BOARD = dataclasses.replace(
    LIMITS,
    ram_bytes=64 << 10,
    quick_ram_bytes=64 << 10,
    flash_fill_cycles=16.0,
    flash_line_bytes=32,
    stream_offset=0xF820_0000,
)


def layer(size_bytes: int, macs: int) -> Context:
    values = np.zeros(size_bytes // 4, np.uint32)
    arrays = (
        Array("a_weight", "uint32_t", values, "weights"),
        Array("a_channel", "folded_t", np.zeros((2, 2), np.int32), "table"),
    )
    return Context(
        symbol=f"layer_{size_bytes}",
        kind="CONV_2D",
        in_shape=(1,),
        out_shape=(1,),
        macs=macs,
        scratch_bytes=0,
        source=0,
        operands=(0,),
        arrays=arrays,
    )


def test_what_is_used_most_is_copied_first_while_there_is_room():
    layers = {0: layer(12_000, 12_000), 1: layer(12_000, 1_200_000), 2: layer(400, 40_000)}

    placements = default_placements(layers, BOARD, "latency", arena_bytes=1000)

    assert placements == {1: Placement("ram"), 2: Placement("ram")}


@pytest.mark.parametrize("objective", ["sram", "flash"])
def test_no_objective_but_latency_spends_ram(objective):
    layers = {0: layer(400, 40_000), 1: layer(12_000, 12_000)}

    assert default_placements(layers, BOARD, objective, 0) == {}


def test_nothing_is_copied_where_the_arena_leaves_no_quick_ram():
    assert default_placements({0: layer(400, 40_000)}, BOARD, "latency", 60 << 10) == {}


def test_nothing_is_copied_from_quick_flash():
    quick_flash = dataclasses.replace(BOARD, flash_fill_cycles=13.0)

    assert default_placements({0: layer(2000, 2000)}, quick_flash, "latency", 0) == {}


def test_only_the_largest_array_is_streamed_and_all_are_copied():
    streamed = placed(layer(4000, 1), Placement("stream"))
    copied = placed(layer(4000, 1), Placement("ram"))

    assert [array.memory for array in streamed.arrays] == ["stream", "flash"]
    assert [array.memory for array in copied.arrays] == ["ram", "ram"]


def test_copies_that_do_not_fit_are_refused_with_the_layer_that_needs_most():
    layers = {0: layer(40_000, 1), 1: layer(30_000, 1)}
    placements = {0: Placement("ram"), 1: Placement("ram")}

    with pytest.raises(DoesNotFit, match="copies of constants") as error:
        require_room(layers, placements, BOARD, arena_bytes=1000)

    assert error.value.op == "layer_40000"


def test_an_alias_that_the_board_lacks_is_refused():
    board = dataclasses.replace(BOARD, stream_offset=0)

    with pytest.raises(PlanRefused, match="no address to stream"):
        require_room({0: layer(400, 1)}, {0: Placement("stream")}, board, arena_bytes=0)


def test_the_c_says_where_each_array_lies():
    builder = Builder(np.random.default_rng(1))
    first = builder.fully_connected(builder.input((1, 8)), 8)
    second = builder.fully_connected(first, 8)
    graph = builder.graph([builder.fully_connected(second, 8)])
    kernels = {i: choose(graph, op, "latency", BOARD) for i, op in ops_with_kernels(graph)}
    memory = planned(graph, kernels, BOARD)
    placements = {0: Placement("ram"), 1: Placement("stream")}

    sources = emit_model(
        Job(b"", graph, BOARD, EngineOptions()),
        graph,
        kernels,
        memory,
        {"objective": "latency"},
        placements,
    ).sources

    names = [op.name for op in graph.ops]
    definitions = sources["model_weights.c"]
    assert f"{names[0]}_weight[16] MODEL_WEIGHTS_RAM =" in definitions
    assert f"#undef {names[1]}_weight\n" in definitions
    assert f"{names[2]}_weight[16] MODEL_WEIGHTS =" in definitions
    streamed = f"#define {names[1]}_weight MODEL_STREAMED(uint32_t, {names[1]}_weight, 0xF8200000u)"
    assert streamed in sources["model_weights.h"]
