"""Every form of requantisation gives the oracle's outputs for all sums that a layer can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codegen import fixed_point, reference
from codegen.kernels.elementwise import linear
from codegen.requantization import (
    Product,
    Scaling,
    averages,
    product_scaling,
    scaling,
    thresholds,
)
from codegen.steps import Steps

EVERY_S8 = np.arange(-128, 128, dtype=np.int8)


def _layer(
    weights: list[list[int]],
    bias: list[int],
    scales: list[float],
    *,
    in_zp: int = 0,
    out_zp: int = -128,
    act: tuple[int, int] = (-128, 127),
) -> Product:
    multipliers = [fixed_point.quantize_multiplier(scale) for scale in scales]
    quant = fixed_point.ConvQuant(
        in_zp=in_zp,
        out_zp=out_zp,
        multiplier=np.array([m.value for m in multipliers], np.int32),
        shift=np.array([m.shift for m in multipliers], np.int32),
        act_min=act[0],
        act_max=act[1],
    )
    return Product(np.array(weights, np.int8), np.array(bias, np.int64), quant)


def _high(a: np.ndarray, b: int) -> np.ndarray:
    return (a * b) >> 32


def _in_c(form: Scaling, channel: int, sums: np.ndarray) -> np.ndarray:
    """What requantize.h makes of sums without bias; every intermediate must fit 32 bits."""
    row = [int(number) for number in form.rows[channel]]
    if form.name == "folded":
        total = row[0] + (sums << form.constant)
        assert np.all(total == total.astype(np.int32))
        value = _high(total, row[1]) >> form.places
    elif form.name in ("signed", "requantize"):
        total = row[0] + 2 * sums
        assert np.all(total == total.astype(np.int32))
        rounding, exponent = row[2:] if form.name == "requantize" else (form.constant, form.places)
        high = ((total * row[1] + 2**31) >> 32) + rounding + (total >> 31)
        assert np.all(high == high.astype(np.int32))
        value = high >> exponent
    else:
        total = fixed_point.wrap_int32(row[0] + sums)
        value = fixed_point.multiply_by_quantized_multiplier(total, row[1], row[2]) + row[3]
    return np.clip(np.clip(value, -128, 127), form.act_min, form.act_max)


def _check(layer: Product) -> Scaling:
    """Compares at the ends of each channel's range, around each step, and at random between."""
    form = scaling(layer)
    lowest, highest = layer.sum_range
    steps = thresholds(layer, np.arange(-127, 128, dtype=np.int64))
    rng = np.random.default_rng(0)
    for channel in range(len(lowest)):
        low, high = int(lowest[channel]), int(highest[channel])
        near = np.concatenate([steps[channel] + d for d in (-2, -1, 0, 1, 2)])
        sums = np.concatenate([near, rng.integers(low, high + 1, 200), np.array([low, high])])
        sums = sums[(sums >= low) & (sums <= high)]
        quant = layer.quant
        scaled = fixed_point.multiply_by_quantized_multiplier(
            fixed_point.wrap_int32(sums), quant.multiplier[channel], quant.shift[channel]
        )
        expected = np.clip(scaled + quant.out_zp, quant.act_min, quant.act_max)
        # Weights that were set to 0 give a sum without bias of 0.
        is_off = not form.weights[channel].any()
        without_bias = np.zeros_like(sums) if is_off else sums - layer.bias[channel]
        assert np.array_equal(_in_c(form, channel, without_bias), expected)
    return form


ACTIVATIONS = st.sampled_from([(-128, 127), (-128, 100), (-20, 127), (-3, 40), (5, 5)])


@st.composite
def layers(draw: st.DrawFn, low: float, high: float, bias: int) -> Product:
    channels = draw(st.integers(1, 5))
    depth = draw(st.integers(1, 40))
    rows = st.integers(0, 2**32 - 1)
    rng = np.random.default_rng(draw(rows))
    weights = rng.integers(-128, 128, (channels, depth)) // draw(st.sampled_from([1, 1, 8, 200]))
    exponents = draw(st.lists(st.floats(low, high), min_size=channels, max_size=channels))
    return _layer(
        weights.tolist(),
        draw(st.lists(st.integers(-bias, bias), min_size=channels, max_size=channels)),
        [2.0**exponent for exponent in exponents],
        in_zp=draw(st.sampled_from([-128, -1, 0, 127])),
        out_zp=draw(st.sampled_from([-128, -128, -20, 0, 127])),
        act=draw(ACTIVATIONS),
    )


@settings(max_examples=100, deadline=None)
@given(layers(-12.0, -4.0, 2**14))
def test_usual_layers(layer: Product) -> None:
    _check(layer)


@settings(max_examples=100, deadline=None)
@given(layers(-33.0, 12.0, 2**31 - 1))
def test_extreme_layers(layer: Product) -> None:
    _check(layer)


@settings(max_examples=20, deadline=None)
@given(layers(-8.0, 2.0, 2000), st.integers(-128, 127))
def test_each_sum_of_small_layers(layer: Product, zero_point: int) -> None:
    form = scaling(layer)
    lowest, highest = layer.sum_range
    for channel in np.flatnonzero(form.weights.any(axis=1) & (highest - lowest < 2**17)):
        sums = np.arange(lowest[channel], highest[channel] + 1)
        quant = layer.quant
        expected = fixed_point.multiply_by_quantized_multiplier(
            fixed_point.wrap_int32(sums), quant.multiplier[channel], quant.shift[channel]
        )
        expected = np.clip(expected + quant.out_zp, quant.act_min, quant.act_max)
        assert np.array_equal(_in_c(form, int(channel), sums - layer.bias[channel]), expected)


def test_the_first_sum_of_a_level_is_the_oracles() -> None:
    layer = _layer([[1]] * 6, [0] * 6, [0.3, 0.9, 1.7, 0.01, 2.0**-9, 3.1e-4], out_zp=3)
    levels = np.arange(-127, 128, dtype=np.int64)
    first = thresholds(layer, levels)
    quant = layer.quant
    for sums, reaches in ((first, True), (first - 1, False)):
        output = fixed_point.multiply_by_quantized_multiplier(
            sums, quant.multiplier[:, None], quant.shift[:, None]
        )
        assert np.all((output + quant.out_zp >= levels) == reaches)


@pytest.mark.parametrize(
    ("name", "out_zp", "scales"),
    [
        ("folded", -128, [0.001, 0.008]),
        ("signed", 0, [0.0011, 0.0012]),
        ("requantize", 0, [0.001, 0.008]),
        ("rescale", 0, [0.001, 300.0]),
    ],
)
def test_the_form_for_each_kind_of_layer(name: str, out_zp: int, scales: list[float]) -> None:
    rng = np.random.default_rng(1)
    weights = rng.integers(-127, 128, (2, 300)).tolist()
    layer = _layer(weights, [100, -3000], scales, out_zp=out_zp)

    form = _check(layer)

    assert form.name == name
    assert len(form.rows) == 2


def test_few_channels_of_a_large_layer_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    weights = rng.integers(-127, 128, (640, 128)).tolist()
    layer = _layer(weights, [0] * 640, rng.uniform(1e-4, 2e-3, 640).tolist())
    tried: list[int] = []
    offsets = Steps._offsets

    def counting(
        self: Steps, which: NDArray[np.intp], multiplier: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        tried.append(len(which))
        return offsets(self, which, multiplier)

    monkeypatch.setattr(Steps, "_offsets", counting)

    assert scaling(layer).name == "folded"
    # Each shift is tried with every channel, and then with the few that need another multiplier.
    assert len(tried) < 200
    assert sum(tried) < 10 * 640


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 64, 125, 256])
def test_each_sum_of_an_average(count: int) -> None:
    quant = fixed_point.PoolQuant(-128, 127)
    sums = np.arange(-128 * count, 127 * count + 1)
    rounded = np.sign(sums) * ((np.abs(sums) + count // 2) // count)
    alone, one_of_many = averages(count, count, quant), averages(1, max(count, 9), quant)
    assert alone is not None
    assert one_of_many is not None

    assert np.array_equal(_in_c(alone, 0, sums), rounded)
    assert np.array_equal(_in_c(one_of_many, count - 1, sums), rounded)


zero_points = st.integers(-128, 127)


@settings(max_examples=50, deadline=None)
@given(zero_points, zero_points, zero_points, st.floats(-20.0, 3.0), ACTIVATIONS)
def test_each_product_of_two_values(
    a_zp: int, b_zp: int, out_zp: int, exponent: float, act: tuple[int, int]
) -> None:
    scale = fixed_point.quantize_multiplier(2.0**exponent)
    quant = fixed_point.MulQuant(a_zp, b_zp, out_zp, scale, *act)
    form = product_scaling(quant)
    if form is None:
        assert scale.shift > -1
        return
    a, b = EVERY_S8[:, None], EVERY_S8[None, :]
    products = (a.astype(np.int64) - a_zp) * (b.astype(np.int64) - b_zp)

    assert np.array_equal(_in_c(form, 0, products), reference.mul_s8(a, b, quant))


def add_quant(
    zero_points: tuple[int, int, int], scales: tuple[float, float, float]
) -> fixed_point.AddQuant:
    """ADD of a and b to out, with these zero points and scales, as TFLM prepares it."""
    a, b, out = scales
    twice_max = 2 * max(a, b)
    return fixed_point.AddQuant(
        *zero_points,
        20,
        fixed_point.quantize_multiplier(a / twice_max),
        fixed_point.quantize_multiplier(b / twice_max),
        fixed_point.quantize_multiplier(twice_max / (2**20 * out)),
        -128,
        127,
    )


@settings(max_examples=30, deadline=None)
@given(
    zero_points,
    zero_points,
    zero_points,
    st.floats(1e-3, 10.0),
    st.floats(1e-3, 10.0),
    st.floats(1e-3, 10.0),
    st.sampled_from([1, -1]),
)
def test_each_sum_of_two_values(
    a_zp: int, b_zp: int, out_zp: int, a: float, b: float, out: float, sign: int
) -> None:
    quant = add_quant((a_zp, b_zp, out_zp), (a, b, out))
    form = linear(quant, sign)
    if form is None:
        return
    part_a = (EVERY_S8[:, None].astype(np.int64) << 8) * form.factor_a >> 16
    part_b = (EVERY_S8[None, :].astype(np.int64) << 8) * form.factor_b >> 16
    for total in (part_b + form.start, part_a + part_b + form.start):
        assert np.all(total == total.astype(np.int32))
    result = np.clip((part_a + part_b + form.start) >> form.places, -128, 127)

    expected = reference.add_s8(EVERY_S8[:, None], EVERY_S8[None, :], quant, sign=sign)
    assert np.array_equal(result, expected)


def test_sums_of_usual_scales_are_linear() -> None:
    scales = [(0.02371, 0.01917, 0.03123), (0.1, 0.1, 0.13), (0.05, 0.003, 0.05), (0.1, 0.1, 0.2)]
    for a, b, out in scales:
        assert linear(add_quant((-128, 5, -9), (a, b, out)), 1) is not None
