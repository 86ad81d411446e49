"""Constant and dead channels: found, dropped, and not one bit of the outputs changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_runner import LIMITS
from networks import random_network, with_dead_channels

from codegen import ir, passes, reference
from codegen.check import check
from codegen.generate import generate
from codegen.import_tflite import import_tflite
from codegen.intervals import channel_intervals
from codegen.passes import remove_dead_channels

Build = Callable[[graphs.Builder], list[int]]
Change = Callable[[np.ndarray], None]
IN, OUT = ir.Quant((graphs.f32(0.05),), (-7,)), ir.Quant((graphs.f32(0.1),), (3,))


def changed(b: graphs.Builder, position: int, change: Change) -> None:
    """Changes a constant of the last op: 1 is its weights, 2 its bias."""
    index = b.ops[-1].inputs[position]
    data = b.tensors[index].data.copy()
    change(data)
    b.tensors[index] = replace(b.tensors[index], data=data)


def zeroed(channels: slice, axis: int = 0) -> Change:
    def change(data: np.ndarray) -> None:
        np.moveaxis(data, axis, 0)[channels] = 0

    return change


def filled(value: int) -> Change:
    return lambda data: data.fill(value)


def weighted(b: graphs.Builder) -> None:
    """Gives the last op weights of which each matters."""
    changed(b, 1, lambda data: np.copyto(data, b.rng.integers(50, 128, data.shape)))
    index = b.ops[-1].inputs[1]
    b.tensors[index] = replace(b.tensors[index], quant=ir.Quant((graphs.f32(0.002),), (0,)))


def mixed(b: graphs.Builder, x: int, channels: int, **keywords) -> int:
    """A 1x1 convolution whose channels all depend on all of its input."""
    y = b.conv2d(x, channels, (1, 1), out_quant=OUT, **keywords)
    weighted(b)
    return y


def live(build: Build) -> list[tuple[str, int]]:
    """The ops of a graph after the passes and the channels that they give; outputs must agree."""
    b = graphs.Builder(np.random.default_rng(0), "net")
    before = b.graph(build(b))
    after = passes.run(before)
    assert_same(before, after)
    assert remove_dead_channels.run(after) is after
    return [(op.kind, after.tensors[op.outputs[0]].shape[-1]) for op in after.ops]


def assert_same(before: ir.Graph, after: ir.Graph, count: int = 3) -> None:
    check(after)
    rng = np.random.default_rng(0)
    for _ in range(count):
        inputs = graphs.random_inputs(rng, before)
        for old, new in zip(
            reference.run(before, inputs), reference.run(after, inputs), strict=True
        ):
            assert np.array_equal(old, new)


# Constant channels


def test_channels_without_weights_go_into_the_bias_behind() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 4, 5, 3), IN), 8)
        changed(b, 1, zeroed(slice(0, 5)))
        return [mixed(b, x, 6)]

    assert live(build) == [("CONV_2D", 3), ("CONV_2D", 6)]


def test_a_layer_without_a_bias_gets_one() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.fully_connected(b.input((1, 7), IN), 4, out_quant=OUT)
        changed(b, 1, filled(9))
        changed(b, 1, zeroed(slice(1, 3)))
        return [b.fully_connected(x, 2, bias=False, per_channel=True)]

    assert live(build) == [("FULLY_CONNECTED", 2), ("FULLY_CONNECTED", 2)]


def test_channels_that_always_saturate_are_constant() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 4, 4, 3), IN), 5, activation=ir.Activation.RELU6)
        changed(b, 2, lambda data: np.copyto(data, [2**30, 0, -(2**30), 0, 2**30]))
        return [mixed(b, x, 2)]

    assert live(build) == [("CONV_2D", 2), ("CONV_2D", 2)]


def test_a_sum_that_wraps_around_is_not_constant() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 4, 4, 3), IN), 5)
        changed(b, 2, filled(2**31 - 1))
        return [mixed(b, x, 2)]

    assert live(build) == [("CONV_2D", 5), ("CONV_2D", 2)]


@pytest.mark.parametrize(("zero_point_bias", "channels"), [(True, 2), (False, 5)])
def test_a_padded_window_tells_a_constant_from_the_zero_point(
    zero_point_bias: bool, channels: int
) -> None:
    def build(b: graphs.Builder, window: Callable[[int], int]) -> list[int]:
        x = mixed(b, b.input((1, 5, 5, 3), IN), 5)
        changed(b, 1, zeroed(slice(0, 3)))
        changed(b, 2, filled(0 if zero_point_bias else 20_000))
        x = window(x)
        weighted(b)
        return [mixed(b, x, 4)]

    def depthwise(b: graphs.Builder) -> list[int]:
        return build(b, lambda x: b.depthwise_conv2d(x, (3, 3), out_quant=OUT))

    def full(b: graphs.Builder) -> list[int]:
        return build(b, lambda x: b.conv2d(x, 6, (3, 3), out_quant=OUT))

    assert live(depthwise) == [
        ("CONV_2D", channels),
        ("DEPTHWISE_CONV_2D", channels),
        ("CONV_2D", 4),
    ]
    assert live(full) == [("CONV_2D", channels), ("CONV_2D", 6), ("CONV_2D", 4)]


def test_what_follows_a_constant_channel_by_channel_is_constant_too() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 6, 6, 3), IN), 8)
        changed(b, 1, zeroed(slice(2, 8)))
        x = b.depthwise_conv2d(x, (2, 2), padding="VALID", depth_multiplier=2, out_quant=OUT)
        x = b.tanh(b.pool(ir.MaxPool2D, x, (2, 2), padding="SAME"))
        x = b.mean(b.pool(ir.AveragePool2D, x, (2, 2), padding="SAME"), (1, 2))
        return [b.fully_connected(x, 3, out_quant=OUT)]

    kinds = [kind for kind, _ in live(build)]
    assert live(build) == [
        *((kind, 4 if i else 2) for i, kind in enumerate(kinds[:-1])),
        (kinds[-1], 3),
    ]


def test_a_flattened_image_loses_a_column_for_each_pixel() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 3, 2, 3), IN), 4)
        changed(b, 1, zeroed(slice(0, 1)))
        return [b.fully_connected(b.reshape(x, (1, 24)), 3, out_quant=OUT)]

    assert live(build) == [("CONV_2D", 3), ("RESHAPE", 18), ("FULLY_CONNECTED", 3)]


def test_where_nothing_varies_one_channel_stays() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 4, 4, 3), IN), 8)
        changed(b, 1, zeroed(slice(None)))
        return [mixed(b, x, 3)]

    assert live(build) == [("CONV_2D", 1), ("CONV_2D", 3)]


# Channels that nobody uses


def test_what_has_no_weights_behind_it_is_not_computed_back_to_the_input() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = mixed(b, b.input((1, 4, 4, 3), IN), 7)
        x = mixed(b, x, 6)
        changed(b, 1, zeroed(slice(0, 2), axis=3))  # reads 5 of 7
        x = b.depthwise_conv2d(x, (3, 3), out_quant=OUT)
        x = mixed(b, x, 4)
        changed(b, 1, zeroed(slice(1, 4), axis=3))  # reads 3 of 6
        return [x]

    assert live(build) == [
        ("CONV_2D", 5),
        ("CONV_2D", 3),
        ("DEPTHWISE_CONV_2D", 3),
        ("CONV_2D", 4),
    ]


def test_a_sum_of_two_tensors_drops_what_no_reader_of_any_of_them_needs() -> None:
    def build(b: graphs.Builder, *, is_read: bool) -> list[int]:
        x = b.input((1, 4, 4, 3), IN)
        first, second = mixed(b, x, 6), mixed(b, x, 6)
        shift = b.constant(np.arange(6), ir.DType.S8, IN)
        scaled = b.elementwise(ir.Mul, first, shift, out_quant=OUT)
        joined = b.elementwise(ir.Add, scaled, second, out_quant=OUT)
        outputs = [mixed(b, joined, 2)]
        changed(b, 1, zeroed(slice(0, 4), axis=3))
        if is_read:
            outputs.append(mixed(b, second, 3))
            changed(b, 1, zeroed(slice(1, None), axis=3))
        return outputs

    alone = live(lambda b: build(b, is_read=False))
    shared = live(lambda b: build(b, is_read=True))
    assert [channels for _, channels in alone] == [2, 2, 2, 2, 2]
    assert [channels for _, channels in shared] == [3, 3, 3, 3, 2, 3]


def test_joined_channels_are_dropped_where_they_come_from() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.input((1, 4, 4, 3), IN)
        parts = [mixed(b, x, channels) for channels in (2, 3, 4)]
        y = mixed(b, b.concatenation(parts, 3), 2)
        changed(b, 1, zeroed(slice(1, 6), axis=3))
        return [y]

    assert [channels for _, channels in live(build)] == [1, 1, 3, 5, 2]


def test_shared_weights_are_cut_for_each_op_alone() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.input((1, 4, 4, 5), IN)
        first = mixed(b, x, 5)
        b.add(replace(b.ops[-1], name="again", outputs=(b.activation((1, 4, 4, 5), OUT),)))
        last = mixed(b, first, 3)
        changed(b, 1, zeroed(slice(0, 2), axis=3))
        return [last, b.ops[1].outputs[0]]

    assert [channels for _, channels in live(build)] == [3, 5, 3]


def test_inputs_and_outputs_of_the_model_keep_their_shape() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.input((1, 4, 4, 5), IN)
        x = mixed(b, x, 4)
        changed(b, 1, zeroed(slice(0, 2)))
        return [x]

    assert live(build) == [("CONV_2D", 4)]


def test_a_graph_of_too_many_channels_is_left_alone() -> None:
    def build(b: graphs.Builder) -> list[int]:
        x = b.fully_connected(b.input((1, 3), IN), 2, out_quant=OUT)
        changed(b, 1, zeroed(slice(0, 1)))
        return [b.fully_connected(x, 2), b.relu(b.input((1, 2**22)), ir.Activation.RELU6)]

    assert ("FULLY_CONNECTED", 1) not in live(build)


# Whole networks


EFFECTIVE_MACS = {
    "ad01_int8": 264_192,
    "kws_ref_model": 2_656_768,
    "person_detect": 7_155_582,
    "pretrainedResnet_quant": 12_501_632,
    "vww_96_int8": 3_727_313,
}


@pytest.mark.parametrize("name", EFFECTIVE_MACS)
def test_effective_macs_of_real_models(name: str, models_dir: Path) -> None:
    path = models_dir / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"no {path}")
    before = import_tflite(path.read_bytes(), name)

    after = passes.run(before)

    assert after.nominal_macs == before.nominal_macs == ir.graph_macs(before)
    assert ir.graph_macs(after) == EFFECTIVE_MACS[name]
    assert_same(before, after, count=1)


def test_the_manifest_has_nominal_and_effective_macs_of_each_layer(
    models_dir: Path, tmp_path: Path
) -> None:
    path = models_dir / "vww_96_int8.tflite"
    if not path.is_file():
        pytest.skip(f"no {path}")

    manifest = generate(
        path.read_bytes(), name="vww", engine="tiny", board=LIMITS, out_dir=tmp_path
    )

    effective = {layer.name: layer.macs for layer in manifest.layers}
    nominal = effective | {
        layer.name: layer.nominal_macs
        for layer in manifest.layers
        if layer.nominal_macs is not None
    }
    assert manifest.model.nominal_macs == sum(nominal.values()) == 7_489_664
    assert manifest.model.effective_macs == sum(effective.values()) == 3_727_313
    assert (nominal["conv2d_20"], effective["conv2d_20"]) == (6 * 6 * 128 * 128, 6 * 6 * 19 * 15)


def network(seed: int, blocks: int, size: int) -> ir.Graph:
    rng = np.random.default_rng(seed)
    return with_dead_channels(rng, random_network(rng, blocks=blocks, size=size))


networks = given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 4), size=st.integers(3, 9))


@settings(max_examples=80, deadline=None)
@networks
def test_random_networks_compute_the_same(seed: int, blocks: int, size: int) -> None:
    graph = network(seed, blocks, size)
    after = passes.run(graph)

    assert after.nominal_macs == graph.nominal_macs
    assert ir.graph_macs(after) <= graph.nominal_macs
    assert_same(graph, after, count=2)


@settings(max_examples=60, deadline=None)
@networks
def test_every_value_is_in_the_interval_of_its_channel(seed: int, blocks: int, size: int) -> None:
    graph = network(seed, blocks, size)
    intervals = channel_intervals(graph)
    inputs = graphs.random_inputs(np.random.default_rng(1), graph)

    for index, value in reference.evaluate(graph, inputs).items():
        interval = intervals[index]
        assert np.all((interval.low <= value) & (value <= interval.high)), graph.tensors[index].name
