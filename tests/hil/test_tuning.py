"""Layers alone: which kernels are measured, how they are put into firmwares, what is kept."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest
from graphs import Builder

from codegen import cases, ir
from codegen.engines.tiny import ops_with_kernels
from codegen.kernels import Cost, Kernel, candidates
from hil import tuning
from hil.bench import board_limits, keep_place
from hil.board import get_board
from hil.errors import WrongKernel
from hil.store import Store
from hil.timings import Conditions, LayerTiming, timing_key
from hil.tuning import LayerBench, Option, Progress, ahead, batched, worth_measuring

NRF = "virtual:nrf52840_dk"
LIMITS = board_limits(get_board("nrf52840_dk"))
CONDITIONS = Conditions(
    board="b", source="virtual", timing_model="m/1", compiler="gcc", flags=("-O3",), build="f" * 16
)


def kernel(name: str) -> Kernel:
    return dataclasses.replace(candidates(*dense_graph())[0], name=name)


def dense_graph():
    builder = Builder(np.random.default_rng(3), name="net")
    graph = builder.graph([builder.fully_connected(builder.input((1, 8)), 4)])
    return graph, graph.ops[0]


def option(name: str, cycles: int, working_bytes: int, flash_bytes: int) -> Option:
    return Option(0, kernel(name), Cost(cycles, flash_bytes), working_bytes)


def names(options) -> set[str]:
    return {each.kernel.name for each in options}


def test_a_kernel_that_is_much_slower_and_no_smaller_is_not_measured():
    options = [
        option("fast", 100, 64, 1000),
        option("close", 149, 64, 1000),
        option("hopeless", 151, 64, 1000),
        option("less arena", 900, 63, 1000),
        option("less flash", 900, 64, 999),
    ]

    assert names(worth_measuring(options)) == {"fast", "close", "less arena", "less flash"}


@pytest.mark.parametrize("seed", range(20))
def test_pruning_keeps_whatever_is_best_at_something(seed):
    rng = np.random.default_rng(seed)
    options = [
        option(f"k{i}", *(int(n) for n in rng.integers(1, 1000, 3)))
        for i in range(int(rng.integers(1, 12)))
    ]

    kept = worth_measuring(options)

    for best in (
        lambda o: (o.cost.cycles, o.working_bytes, o.cost.flash_bytes),
        lambda o: (o.working_bytes, o.cost.cycles, o.cost.flash_bytes),
        lambda o: (o.cost.flash_bytes, o.cost.cycles, o.working_bytes),
    ):
        assert min(options, key=best) in kept


def test_a_timing_is_only_for_the_kernel_shape_and_conditions_that_it_was_measured_under():
    shape = {"op": "CONV_2D", "tensors": [["s8", [1, 2, 2, 3], False]]}
    keys = {timing_key("k", shape, CONDITIONS), timing_key("other", shape, CONDITIONS)}
    keys.add(timing_key("k", {**shape, "op": "ADD"}, CONDITIONS))
    for change in (
        {"board": "c"},
        {"source": "hardware"},
        {"timing_model": "m/2"},
        {"compiler": "gcc 13"},
        {"flags": ("-O2",)},
        {"build": "0" * 16},
    ):
        keys.add(timing_key("k", shape, dataclasses.replace(CONDITIONS, **change)))

    assert len(keys) == 9


def test_timings_come_back_from_the_store(tmp_path):
    rows = [(f"k{i}", {"n": i}, LayerTiming(1000 + i, 10)) for i in range(3)]
    with Store(tmp_path / "s.sqlite") as store:
        store.add_layer_timings(rows, CONDITIONS)
        store.add_layer_timings([("k0", {"n": 0}, LayerTiming(7, 8))], CONDITIONS)

    with Store(tmp_path / "s.sqlite") as store:
        found = store.layer_timings([(name, shape) for name, shape, _ in rows], CONDITIONS)
        others = store.layer_timings(
            [("k1", {"n": 1})], dataclasses.replace(CONDITIONS, timing_model="m/2")
        )

    assert found == {
        timing_key("k0", {"n": 0}, CONDITIONS): LayerTiming(7, 8),
        timing_key("k1", {"n": 1}, CONDITIONS): LayerTiming(1001, 10),
        timing_key("k2", {"n": 2}, CONDITIONS): LayerTiming(1002, 10),
    }
    assert others == {}


def twins():
    """Two layers of one shape with other weights, multipliers and zero points, and a third one."""
    builder = Builder(np.random.default_rng(5), name="net")
    x = builder.input((1, 6, 6, 4), ir.Quant((0.05,), (3,)))
    x = builder.conv2d(x, 4, (1, 1), out_quant=ir.Quant((0.2,), (5,)))
    y = builder.conv2d(x, 4, (1, 1), out_quant=ir.Quant((0.5,), (-7,)))
    return builder.graph([builder.conv2d(y, 8, (1, 1))])


def test_layers_of_one_shape_are_one_case_whatever_their_numbers():
    graph = twins()
    kernels = candidates(graph, graph.ops[0])

    for each in kernels:
        first, second, third = (cases.shape_of(graph, cases.Case(i, each)) for i in range(3))
        assert first == second
        assert first != third


def test_batches_keep_to_the_memories_of_the_board():
    graph = twins()
    all_cases = [
        cases.Case(index, each)
        for index, op in ops_with_kernels(graph)
        for each in candidates(graph, op)
    ] * 20
    small = dataclasses.replace(LIMITS, flash_bytes=8000)

    batches = batched(graph, all_cases, small)

    assert [case for batch in batches for case in batch] == all_cases
    for batch in batches:
        needed = sum(c.kernel.cost(graph, graph.ops[c.op], small).flash_bytes for c in batch)
        assert len(batch) == 1 or needed <= 6000
        assert len(batch) <= tuning.MAX_CASES
    assert batched(graph, all_cases, dataclasses.replace(LIMITS, ram_bytes=4096 + 64)) == []


def test_results_come_in_order_and_are_computed_ahead():
    started = []

    def slow(number: int) -> int:
        started.append(number)
        time.sleep(0.01 * (3 - number % 3))
        return number * number

    assert list(ahead(slow, range(9))) == [(i, i * i) for i in range(9)]
    assert sorted(started) == list(range(9))


def test_what_a_thread_raises_is_raised():
    def broken(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError
        return number

    with pytest.raises(ZeroDivisionError):
        list(ahead(broken, range(5)))


@pytest.fixture(scope="module")
def board():
    with keep_place(NRF) as kept:
        yield kept


def bench(graph, place, store, tmp_path) -> LayerBench:
    return LayerBench(graph, place, LIMITS, store, models_dir=tmp_path)


def all_options(layer_bench: LayerBench) -> list[Option]:
    return list(itertools.chain(*layer_bench.options().values()))


def test_layers_are_measured_once_and_then_known(board, tmp_path):
    graph = twins()
    seen: list[Progress] = []
    with Store(tmp_path / "s.sqlite") as store:
        layer_bench = bench(graph, board, store, tmp_path)
        options = all_options(layer_bench)
        timings = layer_bench.timings(options, "fast", progress=seen.append)

        def refuse(*_):
            raise AssertionError("measured again")

        again = bench(graph, board, store, tmp_path)
        again._measure = refuse
        assert again.timings(options, "fast") == timings

    assert set(timings) == {each.name for each in options}
    assert seen[0].done == 0
    assert seen[-1].done == seen[-1].total < len(options)  # the twins share theirs
    for (op, name, weights), timing in timings.items():
        assert timing.cycles > 0
        assert timing.flash_bytes >= graph.tensors[graph.ops[op].inputs[1]].size_bytes
        if op == 1:
            assert timing == timings[0, name, weights]


def test_a_wrong_byte_is_an_error_that_names_kernel_and_layer(board, tmp_path, monkeypatch):
    graph = twins()
    right = tuning.expected_output

    def wrong(graph, batch, data):
        answer = bytearray(right(graph, batch, data))
        answer[4] ^= 1
        return bytes(answer)

    monkeypatch.setattr(tuning, "expected_output", wrong)
    with Store(tmp_path / "s.sqlite") as store:
        layer_bench = bench(graph, board, store, tmp_path)
        options = all_options(layer_bench)

        with pytest.raises(WrongKernel) as caught:
            layer_bench.timings(options, "fast")

        monkeypatch.undo()
        assert (
            store.layer_timings(
                [(o.kernel.name, layer_bench._shape(cases.Case(o.op, o.kernel))) for o in options],
                layer_bench._conditions("fast"),
            )
            == {}
        )
    assert caught.value.layer in {op.name for op in graph.ops}
    assert caught.value.exit_code == 1


def test_a_firmware_that_is_too_large_is_made_two(board, tmp_path, monkeypatch):
    limits = dataclasses.replace(LIMITS, flash_bytes=1 << 30)  # the estimate never splits
    builder = Builder(np.random.default_rng(1), name="net")
    x = builder.input((1, 4000))
    graph = builder.graph([builder.fully_connected(x, n) for n in (120, 121, 122, 123)])
    with Store(tmp_path / "s.sqlite") as store:
        layer_bench = LayerBench(graph, board, limits, store, models_dir=tmp_path)
        options = [options[0] for options in layer_bench.options().values()]

        timings = layer_bench.timings(options, "fast")

    assert len(timings) == 4


def test_constants_are_measured_in_every_memory_that_the_board_has(tmp_path):
    limits = board_limits(get_board("stm32f746g_disco"))
    builder = Builder(np.random.default_rng(1), name="net")
    graph = builder.graph([builder.fully_connected(builder.input((1, 256)), 64)])
    with Store(tmp_path / "s.sqlite") as store, keep_place("virtual:stm32f746g_disco") as place:
        layer_bench = LayerBench(graph, place, limits, store, models_dir=tmp_path)
        [options] = layer_bench.options().values()
        in_flash = layer_bench.timings(options, "fast")
        cycles = {name: timing.cycles for name, timing in in_flash.items()}
        others = tuning.other_memories(graph, options, cycles, limits)
        elsewhere = layer_bench.timings(others, "fast")

    best = min(cycles, key=cycles.__getitem__)
    assert {weights for _, _, weights in elsewhere} == {"stream", "ram"}
    assert elsewhere[(*best[:2], "ram")].cycles < elsewhere[(*best[:2], "stream")].cycles
    assert elsewhere[(*best[:2], "stream")].cycles < in_flash[best].cycles
    for option in others:
        assert (option.copy_bytes >= 256 * 64) == (option.weights == "ram")


def test_a_fault_of_the_board_is_met_by_measuring_the_batch_again(tmp_path):
    graph = twins()
    with Store(tmp_path / "s.sqlite") as store, keep_place(f"{NRF}?fault=garbage@1") as kept:
        layer_bench = bench(graph, kept, store, tmp_path)
        [option] = all_options(layer_bench)[:1]

        timings = layer_bench.timings([option], "fast")

    with Store(tmp_path / "t.sqlite") as store, keep_place(NRF) as undisturbed:
        assert timings == bench(graph, undisturbed, store, tmp_path).timings([option], "fast")
    assert kept.faults == 1
