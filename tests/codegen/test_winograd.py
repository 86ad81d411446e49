"""Winograd's transforms give the sums of the convolution, for all weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Builder
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import conv, lowest, with_weights

from codegen.kernels import all_kernels, winograd
from codegen.kernels.winograd import INPUTS, A, B

EXTREMES = (-128, 127)
#: A row or column of outputs is so many times the convolution's sums.
FACTORS = np.array([24, 12, 12, 12])


def int8_arrays(shape):
    """All int8 values, or mostly the ends of the range."""
    seeds = st.integers(0, 2**32 - 1)
    return st.one_of(
        seeds.map(lambda seed: np.random.default_rng(seed).integers(-128, 128, shape)),
        seeds.map(lambda seed: np.random.default_rng(seed).choice(EXTREMES, shape)),
        st.sampled_from(EXTREMES).map(lambda value: np.full(shape, value)),
    )


def sums_of_tile(inputs, weights):
    """(out_c, 4, 4) of inputs (6, 6, in_c) and weights (out_c, 3, 3, in_c)."""
    windows = np.lib.stride_tricks.sliding_window_view(inputs, (3, 3), axis=(0, 1))
    return np.einsum("yxcij,oijc->oyx", windows, weights)


@given(int8_arrays((INPUTS, INPUTS, 16)), int8_arrays((2, 3, 3, 16)))
def test_tile_is_the_convolution_times_its_factors(inputs, weights):
    u = winograd.transformed_weights(weights.astype(np.int8))
    v = np.einsum("ik,jl,klc->ijc", B, B, inputs)
    m = np.einsum("oijc,ijc->oij", u, v)

    outputs = np.einsum("yi,xj,oij->oyx", A, A, m)

    assert np.array_equal(outputs, np.outer(FACTORS, FACTORS) * sums_of_tile(inputs, weights))


@given(int8_arrays((INPUTS, INPUTS, 16)), int8_arrays((2, 3, 3, 16)))
def test_what_is_added_to_low_channels_does_not_count(inputs, weights):
    low = np.arange(16) % 4 < 2
    raised = inputs + winograd.ADDED[:, :, None] * low
    u = winograd.transformed_weights(weights.astype(np.int8))
    v = np.einsum("ik,jl,klc->ijc", B, B, raised)

    m = winograd.starts(u) + np.einsum("oijc,ijc->oij", u, v)

    assert np.array_equal(m, np.einsum("oijc,ik,jl,klc->oij", u, B, B, inputs))


def test_sums_of_which_64_times_do_not_fit_are_refused():
    def reason(in_c):
        b = Builder(np.random.default_rng(0))
        with_weights(conv((1, 1, 2, in_c), 1, (3, 3)), lowest)(b)
        graph = b.graph([b.ops[0].outputs[0]])
        [kernel] = [k for k in all_kernels() if k.name == "conv2d_winograd_s8_4_tiles"]
        return kernel.refuse(graph, graph.ops[0])

    assert reason(227) is None  # 64 * 227 * 9 * 128 * 128 < 2^31
    assert reason(228) == "64 times a sum may not fit 32 bits"


@pytest.mark.parametrize("value", EXTREMES)
def test_words_hold_all_transformed_weights(value):
    u = winograd.transformed_weights(np.full((1, 3, 3, 1), value, np.int8))

    assert np.all(u >= -(2**15)) and np.all(u < 2**15)


def test_words_hold_all_transformed_inputs():
    positive, negative = np.maximum(B, 0), np.maximum(-B, 0)
    adds = np.kron(positive, positive) + np.kron(negative, negative)
    subtracts = np.kron(positive, negative) + np.kron(negative, positive)

    def bounds(added):
        lowest, highest = (value + added.reshape(-1) for value in EXTREMES)
        return adds @ lowest - subtracts @ highest, adds @ highest - subtracts @ lowest

    lowest, highest = bounds(np.zeros((INPUTS, INPUTS), int))
    assert lowest.min() >= -(2**15) and highest.max() < 2**15
    # Low channels must not borrow from high ones.
    lowest, highest = bounds(winograd.ADDED)
    assert lowest.min() >= 0 and highest.max() < 2**15


@given(int8_arrays((INPUTS, INPUTS, 16)), int8_arrays((1, 3, 3, 16)))
def test_sums_are_exact_modulo_2_to_the_32(inputs, weights):
    sums = sums_of_tile(inputs, weights)
    wrapped = (np.outer(FACTORS, FACTORS) * sums) % 2**32
    # The inverse is that of the first factor; others are 2 and 4 times smaller.
    halves = np.outer(FACTORS[0] // FACTORS, FACTORS[0] // FACTORS)

    multiples = (wrapped * halves * winograd.INVERSE) % 2**32

    assert np.array_equal(multiples, sums * 2**winograd.LOG2 % 2**32)
