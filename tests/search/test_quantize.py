from __future__ import annotations

import numpy as np
import pytest
from search_fakes import LIMITS

from codegen import ir
from codegen.import_tflite import import_tflite
from hil.oracle import Oracle
from search.architecture import Architecture, Builder
from search.candidate import Candidate, Job, Rejected, int8_accuracy, prepare
from search.constraints import untrained_tflite, violations
from search.data import SearchData, load_data
from search.quantize import (
    LayerWeights,
    activation_quant,
    quantize,
    quantized_weights,
    to_tflite,
)
from search.space import get_space, space_names
from search.study import TrainSettings
from search.train import Trained, train


@pytest.fixture(scope="module")
def digits() -> SearchData:
    return load_data("digits").search


@pytest.fixture(scope="module")
def network() -> Architecture:
    builder = Builder((8, 8, 1))
    x = builder.conv(0, 16, 3)
    y = builder.conv(builder.depthwise(x, 3), 16, 1, relu=False)
    x = builder.depthwise(builder.sum(x, y), 5, stride=2)
    return builder.classifier(x, 10)


@pytest.fixture(scope="module")
def trained(network: Architecture, digits: SearchData) -> Trained:
    return train(network, digits, TrainSettings(epochs=8), seed=0)


@pytest.fixture(scope="module")
def tflite(network: Architecture, digits: SearchData, trained: Trained) -> bytes:
    graph = quantize(network, trained.weights, trained.ranges, digits.input_quant, name="digits")
    return to_tflite(graph)


@pytest.mark.parametrize("range_", [(0.0, 6.0), (-3.0, 5.0), (1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_zero_is_exactly_representable_and_the_range_is_covered(
    range_: tuple[float, float],
) -> None:
    quant = activation_quant(*range_)
    (scale,), (zero_point,) = quant.scale, quant.zero_point

    assert scale == float(np.float32(scale)) > 0 and -128 <= zero_point <= 127
    assert scale * (127 - zero_point) >= max(range_) - 0.6 * scale
    assert scale * (-128 - zero_point) <= min(range_) + 0.6 * scale


def test_weights_have_a_scale_for_each_channel_and_use_the_whole_range() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    weight *= np.array([1, 10, 100, 0.01], np.float32)[:, None, None, None]
    layer = LayerWeights(weight, np.arange(4, dtype=np.float32))

    quantised, bias, quant, bias_quant = quantized_weights(layer, 0.5, axis=0)

    assert np.abs(quantised).max(axis=(1, 2, 3)).tolist() == [127] * 4
    scale = np.array(quant.scale)
    assert np.abs(quantised * scale[:, None, None, None] - weight).max(axis=(1, 2, 3)) == (
        pytest.approx(scale / 2, rel=0.2)
    )
    bias_scale = np.array(bias_quant.scale)
    assert (np.abs(bias * bias_scale - layer.bias) <= bias_scale / 2).all()
    assert quant.zero_point == (0,) * 4 and quant.axis == bias_quant.axis == 0


def test_a_channel_of_vanishing_weights_keeps_its_bias() -> None:
    weight = np.zeros((2, 1, 1, 3), np.float32)
    weight[0] = 1e-30
    layer = LayerWeights(weight, np.array([3.0, -4.0], np.float32))

    _, bias, _, bias_quant = quantized_weights(layer, 0.01, axis=0)

    assert bias * np.array(bias_quant.scale) == pytest.approx([3.0, -4.0], rel=1e-6)


def test_the_int8_network_is_as_good_as_the_float_one(
    tflite: bytes, digits: SearchData, trained: Trained
) -> None:
    accuracy = int8_accuracy(tflite, digits.validation, digits.input_quant)

    assert trained.accuracy > 0.9
    assert abs(accuracy - trained.accuracy) <= 0.02  # 6 of 287 samples: rounding to 8 bits


def test_the_exported_model_is_the_graph(tflite: bytes, network: Architecture) -> None:
    graph = import_tflite(tflite, "digits")

    assert graph.nominal_macs == network.macs
    assert [op.kind for op in graph.ops] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "ADD",
        "DEPTHWISE_CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
    ]
    (output,) = (graph.tensors[index] for index in graph.outputs)
    assert output.dtype is ir.DType.S8 and output.shape == (1, 10)


def test_litert_loads_it_too_and_differs_only_by_its_rounding_of_dense_layers(
    tflite: bytes, digits: SearchData
) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(model_content=tflite, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    inputs = digits.input_quant.quantised(digits.validation.x[:50])[:, np.newaxis]
    found = []
    for x in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    with Oracle(tflite) as oracle:
        expected = [output for (output,) in oracle.run_many([[x] for x in inputs])]

    difference = np.abs(np.array(found, np.int32) - np.array(expected, np.int32))
    assert difference.max() <= 1  # LiteRT rounds once in FULLY_CONNECTED, TFLM twice
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 40, 2)])
def test_networks_of_every_space_run_in_the_oracle(name: str, shape: tuple[int, int, int]) -> None:
    space = get_space(name)
    architecture = space.build(space.sample(np.random.default_rng(1)), shape, 5)

    with Oracle(untrained_tflite(architecture)) as oracle:
        (output,) = oracle.outputs([np.zeros((1, *shape), np.int8)])

    assert output.shape == (1, 5)


def test_a_network_that_is_too_large_is_rejected_for_each_board_before_training(
    digits: SearchData,
) -> None:
    builder = Builder((96, 96, 3))
    wide = builder.classifier(builder.conv(builder.conv(0, 64, 3), 64, 3), 10)
    boards = tuple(LIMITS.values())

    found = violations(wide, boards, engine="reference", objective="latency")
    job = Job(wide, "wide", 0, TrainSettings(epochs=10_000), boards, "reference", "latency")
    answer = prepare(job, digits)

    assert {violation.board for violation in found} == {"nrf52840_dk", "stm32f746g_disco"}
    assert all(violation.memory == "sram" and violation.amount > 0 for violation in found)
    assert found[0].amount > found[1].amount  # the F746 has more RAM
    assert isinstance(answer, Rejected) and list(answer.violations) == found


def test_a_candidate_goes_from_architecture_to_a_measured_accuracy(
    network: Architecture, digits: SearchData
) -> None:
    settings = TrainSettings(epochs=4, validation_samples=100)
    boards = tuple(LIMITS.values())

    candidate = prepare(Job(network, "t", 3, settings, boards, "reference", "latency"), digits)

    assert isinstance(candidate, Candidate)
    assert candidate.accuracy_samples == 100 and candidate.accuracy > 0.5
    assert import_tflite(candidate.tflite, "t").nominal_macs == network.macs
