"""Q31 arithmetic against its definition, and the constants of ops against TFLM."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from graphs import Builder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import tflm_outputs

from codegen import fixed_point as fp
from codegen import ir, reference
from codegen.export_tflite import export_tflite

int32s = st.integers(-(2**31), 2**31 - 1)
EVERY_S8 = np.arange(-128, 128, dtype=np.int8)


def _rounded_toward_zero(value: Fraction) -> int:
    return math.floor(value) if value >= 0 else math.ceil(value)


@settings(max_examples=300)
@given(int32s, int32s)
@example(-(2**31), -(2**31))
@example(2**31 - 1, -(2**31))
@example(1, 2**30)
@example(-1, 2**30)
def test_the_high_product_is_gemmlowps_definition(a: int, b: int) -> None:
    half = Fraction(1, 2) if a * b >= 0 else Fraction(1, 2**31) - Fraction(1, 2)
    expected = min(_rounded_toward_zero(Fraction(a * b, 2**31) + half), 2**31 - 1)

    assert fp.saturating_rounding_doubling_high_mul(np.array([a]), b)[0] == expected


@settings(max_examples=300)
@given(int32s, st.integers(0, 31))
@example(-1, 1)
@example(1, 1)
@example(-3, 1)
@example(-(2**31), 31)
def test_the_rounding_shift_rounds_halves_away_from_zero(x: int, exponent: int) -> None:
    exact = Fraction(x, 2**exponent)
    expected = math.floor(abs(exact) + Fraction(1, 2)) * (1 if x >= 0 else -1)

    assert fp.rounding_divide_by_pot(np.array([x]), exponent)[0] == expected


@settings(max_examples=300)
@given(st.floats(2.0**-33, 2.0**20))
def test_a_multiplier_is_within_half_a_unit_of_its_factor(factor: float) -> None:
    multiplier = fp.quantize_multiplier(factor)

    if multiplier.value == 0:
        assert factor < 2.0**-32
    else:
        assert 2**30 <= multiplier.value < 2**31
        assert abs(math.ldexp(factor, 31 - multiplier.shift) - multiplier.value) <= 0.5


def test_edges_of_quantize_multiplier() -> None:
    assert fp.quantize_multiplier(0.0) == fp.Multiplier(0, 0)
    assert fp.quantize_multiplier(1.0) == fp.Multiplier(2**30, 1)
    assert fp.quantize_multiplier(0.5) == fp.Multiplier(2**30, 0)
    # The mantissa rounds up to one: the next power of two.
    assert fp.quantize_multiplier(1.0 - 2.0**-40) == fp.Multiplier(2**30, 1)
    assert fp.quantize_multiplier(2.0**-32) == fp.Multiplier(2**30, -31)
    assert fp.quantize_multiplier(2.0**-33) == fp.Multiplier(0, 0)


def test_a_left_shift_wraps_as_int32() -> None:
    x = np.array([2**30, -(2**30) - 1, 3])

    shifted = fp.multiply_by_quantized_multiplier(x, 2**30, 2)

    assert shifted.tolist() == [0, -2, 6]


def test_each_channel_has_its_own_shift() -> None:
    x = np.array([[1000, 1000, 1000]])

    scaled = fp.multiply_by_quantized_multiplier(x, np.array([2**30] * 3), np.array([1, 0, -3]))

    assert scaled.tolist() == [[1000, 500, 63]]


def test_exp_is_accurate_and_exact_at_zero() -> None:
    a = -np.arange(0, 2**31, 2**31 // 5000, dtype=np.int64)

    result = fp.exp_on_negative_values(a, 5) / 2**31

    assert result[0] == (2**31 - 1) / 2**31
    assert np.abs(result - np.exp(a / 2**26)).max() < 1e-6


def test_logistic_and_tanh_are_accurate() -> None:
    a = np.arange(-(2**31), 2**31, 2**32 // 5001, dtype=np.int64)
    real = a / 2**27

    assert np.abs(fp.logistic_q4(a) / 2**31 - 1 / (1 + np.exp(-real))).max() < 1e-6
    assert np.abs(fp.tanh_q4(a) / 2**31 - np.tanh(real)).max() < 1e-6


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.5, 1), (-0.5, -1), (2.5, 3), (-2.5, -3), (0.49999999999999994, 0), (2.0**52 - 0.5, 2**52)],
)
def test_halves_are_rounded_away_from_zero(value: float, rounded: int) -> None:
    assert fp.round_half_away(value) == rounded


def _tensor(scale: float, zero_point: int) -> ir.Tensor:
    return ir.Tensor("t", (1,), ir.DType.S8, ir.Quant((scale,), (zero_point,)))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ir.Activation.NONE, (-128, 127)),
        (ir.Activation.RELU, (-10, 127)),
        (ir.Activation.RELU6, (-10, 50)),
        (ir.Activation.RELU_N1_TO_1, (-20, 0)),
    ],
)
def test_activation_ranges(activation: ir.Activation, expected: tuple[int, int]) -> None:
    scale = float(np.float32(0.1))

    assert fp.activation_range(activation, _tensor(scale, -10)) == expected


def test_an_activation_range_stays_inside_the_type() -> None:
    assert fp.activation_range(ir.Activation.RELU6, _tensor(0.001, 100)) == (100, 127)


# In each case here a factor of single precision would give another result for `value`.


def _quant(scale: float, zero_point: int = 0) -> ir.Quant:
    return ir.Quant((scale,), (zero_point,))


def _assert_tflm_gives(graph: ir.Graph, inputs: list[np.ndarray], expected: int) -> None:
    assert tflm_outputs(export_tflite(graph), [inputs])[0].item() == expected
    assert reference.run(graph, inputs)[0].item() == expected


@pytest.mark.parametrize(
    ("x_scale", "w_scale", "out_scale", "acc", "expected"),
    [
        (0.05237698554992676, 0.0026047539431601763, 0.15987646579742432, -81444, -70),
        (0.007629364728927612, 0.026401005685329437, 0.31329146027565, -171870, -111),
    ],
)
def test_the_factor_of_a_dense_layer_is_double(
    x_scale: float, w_scale: float, out_scale: float, acc: int, expected: int
) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 1), _quant(x_scale))
    weight = b.constant(np.zeros((1, 1)), ir.DType.S8, _quant(w_scale))
    bias = b.constant(np.array([acc]), ir.DType.S32)
    out = b.activation((1, 1), _quant(out_scale))
    b.add(ir.FullyConnected(name="fc", inputs=(x, weight, bias), outputs=(out,)))

    _assert_tflm_gives(b.graph([out]), [np.zeros((1, 1), np.int8)], expected)


@pytest.mark.parametrize(
    ("quants", "values", "expected"),
    [
        (
            [(0.028345847502350807, 127), (0.010250747203826904, -34), (0.05593165382742882, 65)],
            (-22, -105),
            3,
        ),
        (
            [(0.03857553377747536, 33), (0.010439295321702957, -127), (0.03629175201058388, 126)],
            (-27, -48),
            40,
        ),
    ],
)
def test_the_factors_of_sub_are_double(
    quants: list[tuple[float, int]], values: tuple[int, int], expected: int
) -> None:
    b = Builder(np.random.default_rng(0))
    one, other = (b.input((1,), _quant(*quant)) for quant in quants[:2])
    out = b.elementwise(ir.Sub, one, other, out_quant=_quant(*quants[2]))

    _assert_tflm_gives(b.graph([out]), [np.array([v], np.int8) for v in values], expected)


@pytest.mark.parametrize(
    ("op", "alpha", "x_quant", "out_quant", "value", "expected"),
    [
        ("relu", 0, (0.003929301165044308, -128), (0.0177492443472147, 0), 86, 47),
        ("relu", 0, (0.023494869470596313, -127), (0.04259070008993149, -107), 86, 10),
        ("leaky", 1.0, (0.8315519094467163, 5), (3.63230037689209, -49), 94, -29),
        ("leaky", 0.5, (0.010047093965113163, 60), (0.00910249538719654, -1), 113, 57),
        ("leaky", 2.2024567127227783, (0.08100452274084091, 0), (0.1773894727230072, 5), -87, -83),
        ("hard_swish", 0, (0.10112860053777695, -86), (0.2104957550764084, -127), -35, -103),
        ("hard_swish", 0, (0.10980089008808136, -42), (0.21768192946910858, 5), 72, 62),
    ],
)
def test_the_factors_of_activations_are_double(
    op: str,
    alpha: float,
    x_quant: tuple[float, int],
    out_quant: tuple[float, int],
    value: int,
    expected: int,
) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1,), _quant(*x_quant))
    if op == "relu":
        out = b.relu(x, out_quant=_quant(*out_quant))
    elif op == "leaky":
        out = b.leaky_relu(x, alpha, out_quant=_quant(*out_quant))
    else:
        out = b.hard_swish(x, out_quant=_quant(*out_quant))

    _assert_tflm_gives(b.graph([out]), [np.array([value], np.int8)], expected)


@pytest.mark.parametrize("alpha", [-0.25, -0.5, -1.0, -1.5])
def test_a_negative_slope_is_rounded_before_it_is_negated(alpha: float) -> None:
    b = Builder(np.random.default_rng(0))
    quant = _quant(0.25)
    graph = b.graph([b.leaky_relu(b.input((256,), quant), alpha, out_quant=quant)])

    (expected,) = tflm_outputs(export_tflite(graph), [[EVERY_S8]])

    assert np.array_equal(reference.run(graph, [EVERY_S8])[0], expected)


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_activation_ranges_divide_in_single_precision(step: int) -> None:
    # 6 / scale is close to a half: n + 0.5 rounds up, what is below it rounds down.
    for n in range(20, 250, 7):
        scale = np.float32(6 / (n + 0.5))
        scale = np.nextafter(scale, np.float32(scale + step), dtype=np.float32)
        b = Builder(np.random.default_rng(0))
        x = b.input((1, 1, 256, 1), _quant(float(scale), -128))
        out = b.pool(ir.MaxPool2D, x, (1, 1), activation=ir.Activation.RELU6)
        graph = b.graph([out])
        values = EVERY_S8.reshape(1, 1, 256, 1)

        (expected,) = tflm_outputs(export_tflite(graph), [[values]])

        assert np.array_equal(reference.run(graph, [values])[0], expected)


def test_a_table_is_indexed_from_the_lowest_value() -> None:
    b = Builder(np.random.default_rng(0))
    graph = b.graph([b.relu(b.input((1,), _quant(0.1, 20)))])

    table = fp.lut(graph, graph.ops[0])

    assert table.dtype == np.int8
    assert table[0] == 20  # for -128
    assert table[255] == 127


def test_softmax_leaves_out_what_is_far_below_the_maximum() -> None:
    b = Builder(np.random.default_rng(0))
    graph = b.graph([b.softmax(b.input((1, 4), _quant(1.0)))])
    (op,) = graph.ops
    assert isinstance(op, ir.Softmax)

    q = fp.softmax_quant(graph, op)

    assert q.exp.shape == (256,)
    assert q.exp[0] == 2**31 - 1
    assert q.cutoff == 16  # half of what Q5.26 spans, as the multiplier is in [1/2, 1)
    assert not q.exp[q.cutoff :].any()
