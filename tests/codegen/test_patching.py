"""Strips of rows: the same bytes as the whole ops, with no multiplication done twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_input, random_inputs, random_quant
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen import ir, passes, patching, reference
from codegen.check import check
from codegen.import_tflite import import_tflite


@st.composite
def stages(draw: st.DrawFn) -> ir.Graph:
    """A few ops on images: windows of all kinds, sums with what came before, joined channels."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), "stage")
    height, width = draw(st.integers(3, 20)), draw(st.integers(2, 6))
    there = [b.input((1, height, width, draw(st.sampled_from([1, 2, 3, 4]))))]
    for _ in range(draw(st.integers(1, 6))):
        x = draw(st.sampled_from(there[-3:]))
        _, h, w, _ = b.shape(x)
        kernel = draw(st.integers(1, min(4, h))), draw(st.integers(1, min(3, w)))
        stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        padding = draw(st.sampled_from(["SAME", "VALID"]))
        window = {"stride": stride, "padding": padding}
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "pad", "add", "relu", "concat"]))
        if kind == "conv":
            there.append(b.conv2d(x, draw(st.sampled_from([1, 3, 4, 8])), kernel, **window))
        elif kind == "depthwise":
            there.append(b.depthwise_conv2d(x, kernel, **window))
        elif kind == "pool":
            cls = draw(st.sampled_from([ir.MaxPool2D, ir.AveragePool2D]))
            there.append(b.pool(cls, x, kernel, **window))
        elif kind == "pad":
            pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
            there.append(b.pad(x, ((0, 0), *pads, (0, 0))))
        elif kind == "relu":
            there.append(b.relu(x))
        else:
            same = [i for i in there if b.shape(i) == b.shape(x)]
            if kind == "add":
                there.append(b.elementwise(ir.Add, x, draw(st.sampled_from(same))))
            else:
                other = b.conv2d(x, 4, (1, 1), out_quant=b.tensors[x].quant)
                there.append(b.concatenation([x, other], 3))
    read = {i for op in b.ops for i in op.inputs}
    outputs = [i for i in there if i not in read and i not in b.inputs]
    return b.graph(outputs or [there[-1]])


@settings(max_examples=150, deadline=None)
@given(stages(), st.data())
def test_strips_give_the_bytes_of_the_whole(graph: ir.Graph, data: st.DataObject) -> None:
    limit = patching.stage_limit(graph)
    length = data.draw(st.integers(1, limit))
    strips = data.draw(st.integers(2, max(2, patching.stage_height(graph, length))))
    inputs = random_inputs(np.random.default_rng(0), graph)

    made = patching.in_strips(graph, length, strips)

    if made is None:
        return
    check(made)
    for got, want in zip(reference.run(made, inputs), reference.run(graph, inputs), strict=True):
        assert np.array_equal(got, want)
    assert ir.graph_macs(made) <= ir.graph_macs(graph)


@pytest.mark.parametrize(
    ("name", "length", "strips"),
    [("vww_96_int8", 5, 24), ("vww_96_int8", 4, 5), ("pretrainedResnet_quant", 8, 16)],
)
def test_strips_of_real_models(models_dir: Path, name: str, length: int, strips: int) -> None:
    graph = passes.run(import_tflite((models_dir / f"{name}.tflite").read_bytes(), name))
    rng = np.random.default_rng(0)
    inputs = [random_input(rng, graph.tensors[i]) for i in graph.inputs]

    made = patching.in_strips(graph, length, strips)

    assert made is not None
    check(made)
    (got,), (want,) = reference.run(made, inputs), reference.run(graph, inputs)
    assert np.array_equal(got, want)
    assert ir.graph_macs(made) == ir.graph_macs(graph)


def test_a_stage_ends_before_what_needs_all_rows() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.conv2d(b.input((1, 8, 8, 3)), 4, (3, 3))
    graph = b.graph([b.fully_connected(b.reshape(b.relu(x), (1, 256)), 10)])

    assert patching.stage_limit(graph) == 2
    assert patching.stage_height(graph, 2) == 8


def test_rows_that_start_within_a_word_cannot_be_strips() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 9, 3, 1), random_quant(b.rng))
    graph = b.graph([b.conv2d(x, 1, (3, 3))])

    assert patching.in_strips(graph, 1, 3) is None
