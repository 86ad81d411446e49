"""Mutated files: whatever the bytes are, soon there is a sound graph or a CodegenError."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import graphs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen import ir, passes
from codegen.check import check
from codegen.errors import CodegenError
from codegen.export_tflite import export_tflite
from codegen.import_tflite import import_tflite
from codegen.planner import plan

DEADLINE_S = 5.0

#: Integers that offsets, lengths, indices and sizes break at.
EDGES = [
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    32,
    127,
    128,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 2,
    2**32 - 1,
]

_position = st.floats(0, 1, exclude_max=True)
mutations = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), _position, st.integers(0, 7)),
        st.tuples(st.just("byte"), _position, st.integers(0, 255)),
        st.tuples(st.just("integer"), _position, st.sampled_from(EDGES)),
        st.tuples(st.just("integer"), _position, st.integers(0, 2**32 - 1)),
        st.tuples(st.just("nudge"), _position, st.sampled_from([-8, -4, -2, -1, 1, 2, 4, 8])),
        st.tuples(st.just("splice"), _position, st.tuples(_position, st.integers(1, 64))),
        st.tuples(st.just("truncate"), _position, st.none()),
    ),
    min_size=1,
    max_size=6,
)


@cache
def every_op() -> bytes:
    """A small file that holds every op we import."""
    b = graphs.Builder(np.random.default_rng(3), "every_op")
    x = b.input((1, 6, 6, 4))
    y = b.conv2d(b.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0))), 4, (3, 3), padding="VALID")
    y = b.depthwise_conv2d(b.relu(y, ir.Activation.RELU6), (3, 3))
    y = b.elementwise(ir.Sub, b.elementwise(ir.Add, y, b.elementwise(ir.Mul, y, y)), y)
    y = b.concatenation([y, y], 3)
    dense = b.fully_connected(b.mean(y, (1, 2)), 5)
    curves = b.leaky_relu(b.hard_swish(b.tanh(b.logistic(dense))), 0.1)
    turned = b.transpose(y, (0, 3, 1, 2))
    cut = b.strided_slice(turned, (0, 1, 0, 4), (1, 5, 6, -1), (1, 2, 1, -2))
    return export_tflite(
        b.graph(
            [
                b.softmax(curves),
                b.dequantize(b.quantize(cut, ir.DType.S8)),
                b.pool(ir.AveragePool2D, b.pool(ir.MaxPool2D, y, (2, 2)), (2, 2), stride=(2, 2)),
                b.reshape(turned, (1, 24, 10)),
            ]
        )
    )


def mutated(data: bytes, changes: list[tuple[str, float, object]]) -> bytes:
    """The file after changes whose positions are fractions of its length."""
    out = bytearray(data)
    for kind, fraction, value in changes:
        at = int(fraction * len(out))
        word = slice(at // 4 * 4, at // 4 * 4 + 4)
        if not out:
            break
        if kind == "flip":
            out[at] ^= 1 << value
        elif kind == "byte":
            out[at] = value
        elif kind == "integer":
            out[word] = value.to_bytes(4, "little")
        elif kind == "nudge":
            old = int.from_bytes(out[word], "little")
            out[word] = ((old + value) % 2**32).to_bytes(4, "little")
        elif kind == "splice":
            source, length = int(value[0] * len(out)), value[1]
            out[at : at + length] = out[source : source + length]
        else:
            del out[at:]
    return bytes(out)


def assert_refused_or_sound(data: bytes) -> None:
    started = time.monotonic()
    try:
        graph = passes.run(import_tflite(data, "fuzz"))
        check(graph)
        plan(graph)
    except CodegenError as error:
        assert str(error).isprintable() and len(str(error)) < 2_000
    assert time.monotonic() - started < DEADLINE_S


@settings(max_examples=300, deadline=None)
@given(mutations)
def test_mutations_of_a_small_file_are_refused_or_sound(changes) -> None:
    assert_refused_or_sound(mutated(every_op(), changes))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**6), mutations)
def test_mutations_of_real_models_are_refused_or_sound(
    models_dir: Path, choice: int, changes
) -> None:
    paths = sorted(models_dir.glob("*.tflite"))
    assert_refused_or_sound(mutated(paths[choice % len(paths)].read_bytes(), changes))


@pytest.mark.slow
@settings(max_examples=8_000, deadline=None)
@given(mutations)
def test_many_mutations_of_a_small_file_are_refused_or_sound(changes) -> None:
    assert_refused_or_sound(mutated(every_op(), changes))


@pytest.mark.slow
@settings(
    max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**6), mutations)
def test_many_mutations_of_real_models_are_refused_or_sound(
    models_dir: Path, choice: int, changes
) -> None:
    paths = sorted(models_dir.glob("*.tflite"))
    assert_refused_or_sound(mutated(paths[choice % len(paths)].read_bytes(), changes))
