"""The numpy reference gives the same bytes as TFLM: op by op, whole networks, real models."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_inputs, random_quant
from networks import random_network
from oracles import litert_outputs, tflm_outputs
from single_ops import LITERT_ONLY, SINGLE_OPS

from codegen import ir, reference
from codegen.export_tflite import export_tflite
from codegen.import_tflite import import_tflite
from hil.oracle import Oracle

GraphOf = Callable[[np.random.Generator], ir.Graph]
Outputs = Callable[..., list[np.ndarray]]

#: LiteRT rounds once where TFLM rounds twice, or uses another table, or wants a bias.
LITERT_DIFFERS = {"fully_connected", "logistic", "conv2d"}


def _assert_equals(oracle: Outputs, make: GraphOf, name: str, seeds: int) -> None:
    for seed in range(seeds):
        rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        graph = make(rng)
        batch = [random_inputs(rng, graph) for _ in range(3)]
        expected = oracle(export_tflite(graph), batch)

        for inputs, wanted in zip(batch, expected, strict=True):
            found, *_ = reference.run(graph, inputs)
            assert found.dtype == wanted.dtype, f"seed {seed}"
            np.testing.assert_array_equal(found, wanted, err_msg=f"{name}, seed {seed}")


@pytest.mark.parametrize("name", SINGLE_OPS)
def test_an_op_equals_tflm(name: str) -> None:
    _assert_equals(tflm_outputs, SINGLE_OPS[name], name, seeds=15)


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE_OPS)
def test_an_op_equals_tflm_for_many_shapes(name: str) -> None:
    _assert_equals(tflm_outputs, SINGLE_OPS[name], name, seeds=1000)


@pytest.mark.parametrize("name", sorted((SINGLE_OPS.keys() | LITERT_ONLY.keys()) - LITERT_DIFFERS))
def test_an_op_equals_litert_where_it_rounds_as_tflm(name: str) -> None:
    make = (SINGLE_OPS | LITERT_ONLY)[name]
    _assert_equals(litert_outputs, make, name, seeds=5)


def test_networks_equal_tflm() -> None:
    _assert_equals(tflm_outputs, random_network, "network", seeds=25)


@pytest.mark.parametrize(
    "file",
    [
        "ad01_int8.tflite",
        "kws_ref_model.tflite",
        "person_detect.tflite",
        "pretrainedResnet_quant.tflite",
        "vww_96_int8.tflite",
    ],
)
def test_a_real_model_equals_tflm(models_dir: Path, file: str) -> None:
    tflite = (models_dir / file).read_bytes()
    graph = import_tflite(tflite, file)
    rng = np.random.default_rng(5)
    batch = [random_inputs(rng, graph) for _ in range(8)]

    with Oracle(tflite) as oracle:
        expected = oracle.run_many(batch)

    for inputs, wanted in zip(batch, expected, strict=True):
        for found, value in zip(reference.run(graph, inputs), wanted, strict=True):
            np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("in_zp", [-128, 0, 127])
@pytest.mark.parametrize("bias", [-(2**31), 2**31 - 1])
def test_accumulators_wrap_as_int32(in_zp: int, bias: int) -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 64), ir.Quant((0.5,), (in_zp,)))
    weight = b.constant(np.full((2, 64), 127), ir.DType.S8, ir.Quant((0.25,), (0,)))
    biases = b.constant(np.full(2, bias), ir.DType.S32, None)
    out = b.activation((1, 2), ir.Quant((2.0**23,), (0,)))
    b.add(ir.FullyConnected(name="fc", inputs=(x, weight, biases), outputs=(out,)))
    graph = b.graph([out])
    batch = [[np.full((1, 64), value, np.int8)] for value in (-128, -1, 0, 127)]

    expected = tflm_outputs(export_tflite(graph), batch)

    for inputs, wanted in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(reference.run(graph, inputs)[0], wanted)


@pytest.mark.parametrize("ratio", [1e-12, 1e-9, 2e-5, 1.0, 30.0, 4e4])
def test_extreme_scales_equal_tflm(ratio: float) -> None:
    rng = np.random.default_rng(4)
    b = Builder(rng)
    x = b.input((1, 4, 4, 3), ir.Quant((float(np.float32(0.5)),), (3,)))
    quant = random_quant(rng, scale=0.01 / ratio)
    graph = b.graph([b.conv2d(x, 5, (3, 3), out_quant=quant)])
    batch = [random_inputs(rng, graph) for _ in range(4)]

    expected = tflm_outputs(export_tflite(graph), batch)

    for inputs, wanted in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(reference.run(graph, inputs)[0], wanted)


def test_halves_are_quantized_away_from_zero_as_tflm_does() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 256), dtype=ir.DType.F32)
    graph = b.graph([b.quantize(x, ir.DType.S8, out_quant=ir.Quant((0.1,), (7,)))])
    halves = ((np.arange(-128, 128) + 0.5) * np.float32(0.1)).astype(np.float32)[None]
    batch = [[halves], [np.nextafter(halves, np.float32(0))], [halves * 100]]

    expected = tflm_outputs(export_tflite(graph), batch)

    for inputs, wanted in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(reference.run(graph, inputs)[0], wanted)


def test_evaluate_gives_every_tensor() -> None:
    rng = np.random.default_rng(6)
    graph = random_network(rng)

    values = reference.evaluate(graph, random_inputs(rng, graph))

    assert values.keys() == set(range(len(graph.tensors)))


def test_every_op_of_the_ir_has_a_reference() -> None:
    classes = {c for c in vars(ir).values() if isinstance(c, type) and issubclass(c, ir.Op)}

    assert reference._OPS.keys() == classes - {ir.Op}
