"""What the exporter writes is read by TFLM, LiteRT and our importer, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tflite
from graphs import Builder, random_inputs
from networks import random_network
from oracles import litert_outputs, tflm_outputs
from single_ops import LITERT_ONLY, SINGLE_OPS

from codegen import ir, reference
from codegen.errors import UnsupportedOp
from codegen.export_tflite import export_tflite
from codegen.import_tflite import import_tflite
from codegen.tflite_writer import BUFFER_ALIGNMENT

ALL_OPS = SINGLE_OPS | LITERT_ONLY


@pytest.mark.parametrize("name", ALL_OPS)
def test_our_importer_reads_what_was_written(name: str) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        graph = ALL_OPS[name](rng)

        again = import_tflite(export_tflite(graph), "again")

        assert [type(op) for op in again.ops] == [type(op) for op in graph.ops]
        inputs = random_inputs(rng, graph)
        np.testing.assert_array_equal(
            reference.run(again, inputs)[0], reference.run(graph, inputs)[0], err_msg=f"seed {seed}"
        )


@pytest.mark.parametrize("seed", range(8))
def test_a_network_survives_a_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_network(rng)

    again = import_tflite(export_tflite(graph), "again")

    assert again.nominal_macs == graph.nominal_macs
    inputs = random_inputs(rng, graph)
    np.testing.assert_array_equal(reference.run(again, inputs)[0], reference.run(graph, inputs)[0])


def test_litert_runs_a_network() -> None:
    rng = np.random.default_rng(1)
    graph = random_network(rng)
    inputs = random_inputs(rng, graph)

    (found,) = litert_outputs(export_tflite(graph), [inputs])

    # LiteRT rounds once in the dense layer before the softmax: a unit may differ.
    assert np.abs(found.astype(int) - reference.run(graph, inputs)[0]).max() <= 1


def test_equal_graphs_give_equal_bytes() -> None:
    one, other = (export_tflite(random_network(np.random.default_rng(7))) for _ in range(2))

    assert one == other


def test_constants_are_aligned() -> None:
    data = export_tflite(random_network(np.random.default_rng(2)))
    model = tflite.Model.GetRootAs(data, 0)

    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            content = buffer.DataAsNumpy()
            offset = (
                content.__array_interface__["data"][0]
                - np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            )
            assert offset % BUFFER_ALIGNMENT == 0


@pytest.mark.parametrize("file", ["kws_ref_model.tflite", "person_detect.tflite"])
def test_a_real_model_written_again_computes_the_same(models_dir: Path, file: str) -> None:
    original = (models_dir / file).read_bytes()
    graph = import_tflite(original, file)
    batch = [random_inputs(np.random.default_rng(1), graph)]

    again = export_tflite(graph)

    (expected,) = tflm_outputs(original, batch)
    np.testing.assert_array_equal(tflm_outputs(again, batch)[0], expected)
    np.testing.assert_array_equal(litert_outputs(again, batch)[0], expected)


def _windowed(op: str, padding: ir.Padding) -> ir.Graph:
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 7, 6, 2))
    if op == "conv2d":
        return b.graph([b.conv2d(x, 3, (3, 2), stride=(2, 1), padding=padding)])
    if op == "depthwise":
        return b.graph([b.depthwise_conv2d(x, (3, 2), stride=(1, 2), padding=padding)])
    cls = ir.MaxPool2D if op == "max" else ir.AveragePool2D
    return b.graph([b.pool(cls, x, (3, 2), stride=(2, 1), padding=padding)])


@pytest.mark.parametrize("op", ["conv2d", "depthwise", "max"])
@pytest.mark.parametrize(
    "padding",
    [ir.Padding(top=2), ir.Padding(left=1, right=3), ir.Padding(top=1, bottom=1, left=1, right=1)],
)
def test_padding_that_the_format_lacks_becomes_an_op(op: str, padding: ir.Padding) -> None:
    graph = _windowed(op, padding)
    inputs = random_inputs(np.random.default_rng(4), graph)
    data = export_tflite(graph)

    assert len(import_tflite(data, "padded").ops) == 2
    np.testing.assert_array_equal(tflm_outputs(data, [inputs])[0], reference.run(graph, inputs)[0])


def test_padding_that_an_average_pool_cannot_have_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="average_pool_2d_0: AVERAGE_POOL_2D is not supported"):
        export_tflite(_windowed("average", ir.Padding(top=2)))


@pytest.mark.parametrize("make", [Builder.conv2d, Builder.depthwise_conv2d])
def test_padding_behind_the_last_window_needs_no_op(make: Callable[..., int]) -> None:
    b = Builder(np.random.default_rng(5))
    x = b.input((1, 6, 6, 2))
    # A stride of 2 never reaches the row and column behind.
    channels = (4,) if make is Builder.conv2d else ()
    y = make(b, x, *channels, (2, 2), stride=(2, 2), padding=ir.Padding(bottom=1, right=1))

    assert len(import_tflite(export_tflite(b.graph([y])), "x").ops) == 1


def test_the_scale_of_a_bias_is_filled_in() -> None:
    # TFLM refuses a dense layer whose bias has another scale than input times weights.
    rng = np.random.default_rng(6)
    b = Builder(rng)
    graph = b.graph([b.fully_connected(b.input((1, 8)), 4)])
    bias = graph.ops[0].inputs[2]
    tensors = tuple(replace(t, quant=None) if i == bias else t for i, t in enumerate(graph.tensors))
    graph = graph.with_ops(graph.ops, tensors)
    inputs = random_inputs(rng, graph)

    (found,) = tflm_outputs(export_tflite(graph), [inputs])

    np.testing.assert_array_equal(found, reference.run(graph, inputs)[0])
