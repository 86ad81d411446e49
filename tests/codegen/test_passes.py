"""Passes: less to run, and not one bit of the outputs changed."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import random_network
from oracles import tflm_outputs

from codegen import ir, passes, reference
from codegen.check import check
from codegen.export_tflite import export_tflite
from codegen.import_tflite import import_tflite

Build = Callable[[graphs.Builder], list[int]]


def kinds(graph: ir.Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def made(build: Build, seed: int = 0) -> ir.Graph:
    b = graphs.Builder(np.random.default_rng(seed), "net")
    return b.graph(build(b))


def assert_same_outputs(before: ir.Graph, after: ir.Graph, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        inputs = graphs.random_inputs(rng, before)
        for old, new in zip(
            reference.run(before, inputs), reference.run(after, inputs), strict=True
        ):
            assert np.array_equal(old, new)


def shrunk(build: Build) -> list[str]:
    """Kinds of the ops that are left of a graph after all passes, which must compute the same."""
    before = made(build)
    after = passes.run(before)
    assert_same_outputs(before, after)
    return kinds(after)


def padded_by(b: graphs.Builder, *, value: int | None = None) -> int:
    return b.pad(b.input((1, 5, 6, 3)), ((0, 0), (1, 2), (0, 1), (0, 0)), value=value)


# What goes


def test_a_pad_by_the_zero_point_goes_into_the_convolution() -> None:
    assert shrunk(lambda b: [b.conv2d(padded_by(b), 4, (3, 3), padding="VALID")]) == ["CONV_2D"]
    assert shrunk(
        lambda b: [b.depthwise_conv2d(padded_by(b), (3, 3), stride=(2, 2), padding="VALID")]
    ) == ["DEPTHWISE_CONV_2D"]


def test_a_pad_below_every_value_goes_into_the_maximum() -> None:
    assert shrunk(lambda b: [b.pool(ir.MaxPool2D, padded_by(b, value=-128), (3, 3))]) == [
        "MAX_POOL_2D"
    ]


def test_a_pad_goes_into_the_maximum_of_what_is_nowhere_below_it() -> None:
    quant = ir.Quant((graphs.f32(0.05),), (-20,))

    def build(b: graphs.Builder, activation: ir.Activation) -> list[int]:
        x = b.conv2d(b.input((1, 5, 6, 3)), 4, (3, 3), out_quant=quant, activation=activation)
        return [b.pool(ir.MaxPool2D, b.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3))]

    assert shrunk(lambda b: build(b, ir.Activation.RELU)) == ["CONV_2D", "MAX_POOL_2D"]
    assert "PAD" in shrunk(lambda b: build(b, ir.Activation.NONE))


def test_a_pad_read_by_two_convolutions_goes_into_both() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = padded_by(b)
        y = b.conv2d(x, 2, (3, 3), padding="VALID")
        return [y, b.depthwise_conv2d(x, (3, 3), padding="VALID")]

    assert shrunk(build) == ["CONV_2D", "DEPTHWISE_CONV_2D"]


@pytest.mark.parametrize(
    "activation", [ir.Activation.RELU, ir.Activation.RELU6, ir.Activation.RELU_N1_TO_1]
)
def test_a_relu_of_the_same_scale_goes_into_the_op_before(activation: ir.Activation) -> None:
    quant = ir.Quant((graphs.f32(0.05),), (-20,))

    def convolved(b: graphs.Builder) -> list[int]:
        y = b.conv2d(b.input((1, 5, 5, 2)), 3, (3, 3), out_quant=quant)
        return [b.relu(y, activation)]

    def added(b: graphs.Builder) -> list[int]:
        y = b.elementwise(ir.Add, b.input((1, 9)), b.input((1, 9)), out_quant=quant)
        return [b.relu(y, activation)]

    assert shrunk(convolved) == ["CONV_2D"]
    assert shrunk(added) == ["ADD"]


def test_two_clamps_become_the_one_that_has_the_range_of_both() -> None:
    quant = ir.Quant((graphs.f32(0.05),), (-20,))

    def build(b: graphs.Builder, first: ir.Activation, second: ir.Activation) -> list[int]:
        y = b.conv2d(b.input((1, 5, 5, 2)), 3, (3, 3), out_quant=quant, activation=first)
        return [b.relu(y, second)]

    relu, relu6, relu1 = ir.Activation.RELU, ir.Activation.RELU6, ir.Activation.RELU_N1_TO_1
    assert shrunk(lambda b: build(b, relu, relu6)) == ["CONV_2D"]
    assert shrunk(lambda b: build(b, relu6, relu)) == ["CONV_2D"]
    assert shrunk(lambda b: build(b, relu1, relu)) == ["CONV_2D", "RELU"]


def test_values_that_go_there_and_back_are_left_alone() -> None:
    quant, of_bytes = ir.Quant((graphs.f32(0.1),), (-7,)), ir.Quant((graphs.f32(0.1),), (121,))

    def build(b: graphs.Builder) -> list[int]:
        x = b.tanh(b.input((1, 7)))
        y = b.quantize(b.dequantize(x), ir.DType.S8, out_quant=b.tensors[x].quant)
        y = b.leaky_relu(y, 0.1, out_quant=quant)
        y = b.quantize(y, ir.DType.U8, out_quant=of_bytes)
        return [b.logistic(b.quantize(y, ir.DType.S8, out_quant=quant))]

    def coarser(b: graphs.Builder) -> list[int]:
        x = b.leaky_relu(b.input((1, 7)), 0.1, out_quant=quant)
        y = b.quantize(x, ir.DType.S8, out_quant=ir.Quant((0.5,), (3,)))
        return [b.logistic(b.quantize(y, ir.DType.S8, out_quant=quant))]

    assert shrunk(build) == ["TANH", "LEAKY_RELU", "LOGISTIC"]
    assert shrunk(coarser) == ["LEAKY_RELU", "QUANTIZE", "QUANTIZE", "LOGISTIC"]


def test_a_mean_or_maximum_of_one_element_is_that_element() -> None:
    quant = ir.Quant((graphs.f32(0.3),), (17,))

    def build(b: graphs.Builder, one: int) -> list[int]:
        x = b.leaky_relu(b.input((1, 4, 4, 3)), 0.1, out_quant=quant)
        y = b.strided_slice(x, (0, 0, 0, 0), (1, one, one, 3), (1, 1, 1, 1))
        means = b.mean(y, (1, 2), keep_dims=True, out_quant=quant)
        pooled = b.pool(ir.AveragePool2D, b.pool(ir.MaxPool2D, means, (1, 1)), (1, 1))
        return [b.logistic(pooled)]

    assert shrunk(lambda b: build(b, 1)) == ["LEAKY_RELU", "VIEW", "LOGISTIC"]
    assert shrunk(lambda b: build(b, 2)) == ["LEAKY_RELU", "STRIDED_SLICE", "MEAN", "LOGISTIC"]


def test_a_transpose_of_a_transpose_is_one_or_none() -> None:
    def build(b: graphs.Builder, second: tuple[int, ...]) -> list[int]:
        x = b.transpose(b.tanh(b.input((1, 3, 4, 5))), (0, 3, 1, 2))
        return [b.logistic(b.transpose(x, second))]

    assert shrunk(lambda b: build(b, (0, 2, 3, 1))) == ["TANH", "LOGISTIC"]
    assert shrunk(lambda b: build(b, (0, 1, 3, 2))) == ["TANH", "TRANSPOSE", "LOGISTIC"]


def test_slices_of_neighbours_are_read_where_they_lie() -> None:
    def build(b: graphs.Builder, begin: tuple[int, ...], end: tuple[int, ...]) -> list[int]:
        x = b.tanh(b.input((2, 3, 4, 5)))
        return [b.logistic(b.strided_slice(x, begin, end, (1, 1, 1, 1)))]

    def kept(begin: tuple[int, ...], end: tuple[int, ...]) -> bool:
        return "STRIDED_SLICE" in shrunk(lambda b: build(b, begin, end))

    assert not kept((1, 0, 0, 0), (2, 3, 4, 5))
    assert not kept((0, 1, 0, 0), (1, 3, 4, 5))
    assert not kept((1, 2, 0, 0), (2, 3, 2, 5))
    assert not kept((1, 2, 3, 1), (2, 3, 4, 3)), "76 bytes from the start"
    assert kept((1, 2, 3, 2), (2, 3, 4, 3)), "not at the start of a word"
    assert kept((0, 1, 0, 0), (2, 3, 4, 5)), "two runs"
    assert kept((0, 0, 0, 0), (1, 3, 2, 5)), "three runs"


def test_what_is_joined_on_the_outermost_axis_is_written_in_its_place() -> None:
    def build(b: graphs.Builder, rows: int, *, axis: int = 1, shared: bool = False) -> list[int]:
        quant = ir.Quant((graphs.f32(0.05),), (-20,))
        x = b.input((1, 4, 4, 3))
        first = b.conv2d(x, 3, (5 - rows, 1), out_quant=quant, padding="VALID")
        second = b.conv2d(x, 3, (5 - rows, 1), out_quant=quant, padding="VALID")
        joined = [b.logistic(b.concatenation([first, second], axis))]
        return joined + ([b.tanh(b.concatenation([second, first], axis))] if shared else [])

    assert shrunk(lambda b: build(b, 2))[2:] == ["JOIN", "LOGISTIC"]
    assert shrunk(lambda b: build(b, 2, axis=3))[2:] == ["CONCATENATION", "LOGISTIC"]
    assert shrunk(lambda b: build(b, 2, axis=2))[2:] == ["CONCATENATION", "LOGISTIC"]
    assert sorted(shrunk(lambda b: build(b, 2, shared=True))[2:]) == [
        "CONCATENATION", "JOIN", "LOGISTIC", "TANH",
    ]  # fmt: skip


def test_aliases_in_the_middle_cost_nothing_and_those_of_one_shape_vanish() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.tanh(b.input((1, 3, 1, 4)))
        x = b.reshape(b.reshape(x, (12,)), (1, 3, 1, 4))
        x = b.strided_slice(x, (0, 0, 0, 0), (1, 3, 1, 4), (1, 1, 1, 1))
        x = b.transpose(x, (2, 1, 0, 3))
        return [b.logistic(b.concatenation([x], 1))]

    assert shrunk(build) == ["TANH", "LOGISTIC"]


def test_a_transpose_that_only_moves_axes_of_one_is_an_alias() -> None:
    def build(b: graphs.Builder) -> list[int]:
        return [b.softmax(b.transpose(b.tanh(b.input((1, 1, 5))), (2, 0, 1)))]

    assert shrunk(build) == ["TANH", "RESHAPE", "SOFTMAX"]


def test_what_maps_every_value_to_itself_vanishes() -> None:
    quant = ir.Quant((graphs.f32(0.1),), (-128,))

    def build(b: graphs.Builder) -> list[int]:
        x = b.leaky_relu(b.input((1, 7)), 0.1, out_quant=quant)
        return [b.tanh(b.quantize(b.relu(x), ir.DType.S8, out_quant=quant))]

    assert shrunk(build) == ["LEAKY_RELU", "TANH"]


def test_what_has_only_constant_inputs_is_computed_now() -> None:
    def build(b: graphs.Builder) -> list[int]:
        constant = b.constant(b.rng.integers(-128, 128, (1, 6)), ir.DType.S8, b.tensors[0].quant)
        moved = b.transpose(b.reshape(b.tanh(constant), (2, 3)), (1, 0))
        return [b.elementwise(ir.Add, 0, b.reshape(moved, (1, 6)))]

    before = made(lambda b: build(b) if b.input((1, 6)) == 0 else [])

    after = passes.run(before)

    assert kinds(after) == ["ADD"]
    assert_same_outputs(before, after)


def test_dead_ops_and_tensors_are_dropped() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.input((1, 8))
        b.fully_connected(x, 4)
        return [b.logistic(x)]

    after = passes.run(made(build))

    assert kinds(after) == ["LOGISTIC"]
    assert len(after.tensors) == 2


def test_a_model_output_keeps_its_tensor() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.tanh(b.input((1, 4)))
        return [b.reshape(x, (1, 4))]

    before = made(build)
    after = passes.run(before)

    assert kinds(after) == ["TANH"]
    assert after.tensors[after.outputs[0]].name == before.tensors[before.outputs[0]].name


# What stays


def test_what_would_change_a_bit_stays() -> None:
    assert "PAD" in shrunk(lambda b: [b.conv2d(padded_by(b, value=99), 2, (3, 3))])
    assert "PAD" in shrunk(lambda b: [b.pool(ir.AveragePool2D, padded_by(b), (3, 3))])
    assert "PAD" in shrunk(lambda b: [b.pool(ir.MaxPool2D, padded_by(b, value=-127), (3, 3))])
    assert "PAD" in shrunk(lambda b: [b.conv2d(padded_by(b), 2, (1, 1))])
    assert "PAD" in shrunk(
        lambda b: [b.conv2d(b.pad(b.input((1, 4, 4, 2)), ((0, 0),) * 3 + ((0, 1),)), 2, (3, 3))]
    )
    assert "TRANSPOSE" in shrunk(lambda b: [b.transpose(b.input((1, 3, 4)), (0, 2, 1))])
    assert "STRIDED_SLICE" in shrunk(lambda b: [b.strided_slice(b.input((4,)), (3,), (-1,), (-1,))])


def test_a_relu_that_changes_the_scale_or_has_company_stays() -> None:
    def rescaled(b: graphs.Builder) -> list[int]:
        y = b.conv2d(b.input((1, 4, 4, 2)), 2, (1, 1))
        return [b.relu(y, out_quant=ir.Quant((graphs.f32(0.011),), (-128,)))]

    def read_twice(b: graphs.Builder) -> list[int]:
        y = b.conv2d(b.input((1, 4, 4, 2)), 2, (1, 1), out_quant=ir.Quant((0.5,), (3,)))
        return [b.relu(y), b.tanh(y)]

    def after_an_activation(b: graphs.Builder) -> list[int]:
        quant = ir.Quant((0.5,), (3,))
        x = b.input((1, 4, 4, 2))
        y = b.conv2d(x, 2, (1, 1), activation=ir.Activation.RELU_N1_TO_1, out_quant=quant)
        return [b.relu(y)]

    for build in (rescaled, read_twice, after_an_activation):
        assert "RELU" in shrunk(build)


def test_a_reshape_straight_from_input_to_output_stays() -> None:
    assert shrunk(lambda b: [b.reshape(b.input((1, 4)), (1, 4))]) == ["RESHAPE"]


# All of them


def test_every_file_in_the_folder_is_a_pass_that_runs() -> None:
    files = {module.name for module in pkgutil.iter_modules(passes.__path__)} - {"rewrite"}

    assert {run.__module__.rsplit(".", 1)[1] for run in passes.PASSES} == files


def like(b: graphs.Builder, x: int, images: list[int]) -> list[int]:
    """The images that can be concatenated with x on any axis."""
    return [
        i for i in images if b.shape(i) == b.shape(x) and b.tensors[i].quant == b.tensors[x].quant
    ]


@st.composite
def networks(draw: st.DrawFn) -> ir.Graph:
    """Random ops one after another, many of them removable, read from anywhere before."""
    b = graphs.Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), "net")
    images = [
        b.input((1, draw(st.integers(3, 6)), draw(st.integers(3, 6)), draw(st.integers(1, 3))))
    ]
    for _ in range(draw(st.integers(1, 8))):
        x = draw(st.sampled_from(images))
        n, h, w, c = b.shape(x)
        choice = draw(st.integers(0, 14))
        if choice == 0:
            pads = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2)]
            value = draw(st.sampled_from([None, -128, 7]))
            y = b.pad(x, ((0, 0), *pads, (0, 0)), value=value)
        elif choice in (1, 2):
            keeps = draw(st.booleans())
            y = b.conv2d(
                x, c, (min(h, 3), min(w, 2)), out_quant=b.tensors[x].quant if keeps else None
            )
        elif choice == 3:
            y = b.depthwise_conv2d(x, (min(h, 2), min(w, 3)), padding="VALID")
        elif choice == 4:
            y = b.pool(ir.MaxPool2D, x, (min(h, 2), min(w, 2)))
        elif choice in (5, 6):
            y = b.relu(x, draw(st.sampled_from([ir.Activation.RELU, ir.Activation.RELU6])))
        elif choice == 7:
            y = b.transpose(x, (0, 1, 2, 3))
        elif choice == 8:
            y = b.reshape(b.reshape(x, (n * h * w * c,)), (n, h, w, c))
        elif choice == 9:
            y = b.strided_slice(x, (0, 0, 0, 0), (n, h, w, c), (1, 1, 1, 1))
        elif choice == 10:
            y = b.elementwise(ir.Add, x, x)
        elif choice == 11:
            y = b.concatenation(
                [x, draw(st.sampled_from(like(b, x, images)))], draw(st.integers(0, 3))
            )
        elif choice == 12:
            begin = draw(st.integers(0, h - 1))
            y = b.strided_slice(x, (0, begin, 0, 0), (n, h, w, c), (1, 1, 1, 1))
        elif choice == 13:
            y = b.transpose(b.transpose(x, (0, 2, 1, 3)), draw(st.permutations((0, 1, 2, 3))))
        else:
            y = b.quantize(x, ir.DType.S8, out_quant=b.tensors[x].quant)
        images.append(y)
    read = {tensor for op in b.ops for tensor in op.inputs}
    return b.graph([i for op in b.ops for i in op.outputs if i not in read])


@settings(max_examples=120, deadline=None)
@given(networks())
def test_random_networks_compute_the_same_after_every_pass(graph: ir.Graph) -> None:
    rng = np.random.default_rng(0)
    inputs = graphs.random_inputs(rng, graph)
    expected = reference.run(graph, inputs)

    for run_pass in passes.PASSES:
        graph = run_pass(graph)
        check(graph)
        for old, new in zip(expected, reference.run(graph, inputs), strict=True):
            assert np.array_equal(old, new)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(3, 13))
def test_random_networks_from_a_file_give_the_bytes_of_tflm(seed: int, size: int) -> None:
    tflite = export_tflite(random_network(np.random.default_rng(seed), size=size))
    graph = passes.run(import_tflite(tflite, "net"))
    batch = [graphs.random_inputs(np.random.default_rng(1), graph) for _ in range(2)]

    for inputs, expected in zip(batch, tflm_outputs(tflite, batch), strict=True):
        found, *_ = reference.run(graph, inputs)
        assert np.array_equal(found, expected)


def test_passes_find_nothing_more_the_second_time() -> None:
    once = passes.run(made(lambda b: [b.relu(b.conv2d(padded_by(b), 4, (3, 3), padding="VALID"))]))

    assert passes.run(once).ops == once.ops
