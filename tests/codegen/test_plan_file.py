"""Plan files: they come back as they were written, and nothing else gets in."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from graphs import Builder
from hypothesis import example, given
from hypothesis import strategies as st

from codegen.choice import ops_with_kernels
from codegen.errors import PlanRefused
from codegen.kernels import candidates
from codegen.patching import Strips
from codegen.plan_file import (
    FLAG_SETS,
    MAX_BYTES,
    MEMORIES,
    TUNED_FOR,
    LayerPlan,
    TunedPlan,
    choices_of,
    graph_of,
    parse_plan,
    require_for,
)

SHA256 = "ab" * 32
PLAN = TunedPlan(
    model_name="net",
    model_sha256=SHA256,
    board="nrf52840_dk",
    objective="latency",
    flags="fast",
    layers=(LayerPlan("conv_0", "conv2d_plain_s8"), LayerPlan("dense_1", "dense", "ram")),
    strips=Strips(2, 4),
    measured={"latency_us": 1.5},
    tools={"toolchain": "gcc"},
)

texts = st.text(max_size=8)
plans = st.builds(
    TunedPlan,
    model_name=texts,
    model_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    board=texts,
    objective=st.sampled_from(TUNED_FOR),
    flags=st.sampled_from(FLAG_SETS),
    layers=st.lists(
        st.builds(LayerPlan, texts, texts, st.sampled_from(MEMORIES)),
        max_size=4,
        unique_by=lambda layer: layer.name,
    ).map(tuple),
    strips=st.one_of(st.just(Strips()), st.builds(Strips, st.integers(1, 99), st.integers(2, 99))),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def as_json() -> dict:
    return json.loads(PLAN.to_json())


def parsed(values: object) -> TunedPlan:
    return parse_plan(json.dumps(values).encode())


@given(plans)
def test_a_plan_survives_its_file(plan):
    assert parse_plan(plan.to_json().encode()) == plan
    assert parse_plan(plan.to_json().encode()).sha256 == plan.sha256


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 5000)
@example(b'{"schema": 1, "schema": 1}')
@example(b"NaN")
@example(b"")
def test_bytes_that_are_no_plan_are_refused(data):
    with pytest.raises(PlanRefused):
        parse_plan(data)


@given(st.sampled_from(sorted(as_json())), json_values)
def test_a_key_with_any_other_value_gives_a_plan_or_is_refused(key, value):
    values = as_json()
    values[key] = value
    try:
        plan = parsed(values)
    except PlanRefused:
        return
    assert parse_plan(plan.to_json().encode()) == plan


@given(st.data())
def test_a_damaged_file_is_refused_or_reads_as_a_plan(data):
    text = bytearray(PLAN.to_json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_plan(bytes(text))
    except PlanRefused as error:
        assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "schema '2' is not known"),
        ({"schema": True}, "schema 'True' is not known"),
        ({"model": {"name": "n"}}, "'model' has no key 'sha256'"),
        ({"model": {"name": "n", "sha256": "AB" * 32}}, "expected 64 hexadecimal digits"),
        ({"flags": "-O3"}, "'flags' is '-O3'; known are fast, aligned, "),
        ({"objective": "*/ evil"}, r"'objective' is '\*/ evil'"),
        ({"strips": {"ops": 1, "count": 1}}, "'strips' should be"),
        ({"strips": {"ops": -1, "count": 1 << 40}}, "'strips' should hold"),
        ({"layers": [{"name": "a", "kernel": "k"}]}, "layer 0 has no key 'weights'"),
        (
            {"layers": [{"name": "a", "kernel": "k", "weights": "flash"}] * 2},
            "layer 'a' is in it twice",
        ),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_what_is_wrong_is_named(change, reason):
    with pytest.raises(PlanRefused, match=reason):
        parsed(as_json() | change)


def test_a_huge_file_is_not_read():
    with pytest.raises(PlanRefused, match="no plan has more"):
        parse_plan(b" " * (MAX_BYTES + 1))


def test_a_plan_is_for_one_model_and_one_board():
    require_for(PLAN, SHA256, "nrf52840_dk")
    with pytest.raises(PlanRefused, match="it is for model 'net' with SHA-256 abababababab"):
        require_for(PLAN, "cd" * 32, "nrf52840_dk")
    with pytest.raises(PlanRefused, match="for board 'nrf52840_dk', not for stm32f746g_disco"):
        require_for(PLAN, SHA256, "stm32f746g_disco")


def test_the_digest_is_that_of_the_choices():
    def changed(**change):
        return dataclasses.replace(PLAN, **change).sha256

    assert changed(measured={}, tools={}, model_name="other", objective="sram") == PLAN.sha256
    assert changed(layers=PLAN.layers[::-1]) == PLAN.sha256
    others = {
        changed(flags="small"),
        changed(strips=Strips()),
        changed(board="b"),
        changed(layers=(PLAN.layers[0], LayerPlan("dense_1", "dense"))),
    }
    assert len(others - {PLAN.sha256}) == 4


@pytest.fixture
def graph():
    builder = Builder(np.random.default_rng(1), name="net")
    x = builder.conv2d(builder.input((1, 8, 8, 4)), 4, (3, 3))
    x = builder.conv2d(x, 8, (1, 1))
    return builder.graph([builder.fully_connected(builder.reshape(x, (1, 512)), 5)])


def plan_for(graph, change=lambda layers: layers, **others) -> TunedPlan:
    layers = [
        LayerPlan(op.name, candidates(graph, op)[0].name) for _, op in ops_with_kernels(graph)
    ]
    return dataclasses.replace(
        PLAN, **{"strips": Strips(), **others, "layers": tuple(change(layers))}
    )


def test_each_layer_gets_its_kernel(graph):
    choices = choices_of(plan_for(graph), graph, ops_with_kernels(graph))

    assert set(choices) == {index for index, _ in ops_with_kernels(graph)}
    for index, (kernel, weights) in choices.items():
        assert kernel is candidates(graph, graph.ops[index])[0]
        assert weights == "flash"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layers: layers[1:], "says nothing of layer"),
        (lambda layers: [*layers, LayerPlan("other", "k")], "the model has no layer 'other'"),
        (
            lambda layers: [LayerPlan(layers[0].name, "softmax_s8"), *layers[1:]],
            "no kernel 'softmax_s8' runs layer .*take one of conv2d",
        ),
        (
            lambda layers: [LayerPlan(layers[0].name, "*/ evil\n"), *layers[1:]],
            r"no kernel '\*/ evil\\n'",
        ),
    ],
)
def test_a_plan_of_another_version_is_refused(graph, change, reason):
    with pytest.raises(PlanRefused, match=reason):
        choices_of(plan_for(graph, change), graph, ops_with_kernels(graph))


def test_strips_are_those_of_the_plan(graph):
    striped = graph_of(plan_for(graph, strips=Strips(2, 4)), graph)

    assert len(striped.ops) > len(graph.ops)
    assert graph_of(plan_for(graph), graph) is graph
    for impossible in (Strips(3, 2), Strips(2, 9), Strips(99, 2)):
        with pytest.raises(PlanRefused, match="cannot run in"):
            graph_of(plan_for(graph, strips=impossible), graph)


def test_strips_that_would_make_a_graph_too_long_are_refused(graph, monkeypatch):
    monkeypatch.setattr("codegen.plan_file.MAX_STRIPED_OPS", 2 * 4 - 1)

    with pytest.raises(PlanRefused, match="cannot run in"):
        graph_of(plan_for(graph, strips=Strips(2, 4)), graph)


def test_many_repeated_layers_are_refused_at_once():
    layers = [{"name": f"n{i}", "kernel": "", "weights": "ram"} for i in range(50_000)]
    values = as_json() | {"layers": [*layers, layers[-1]]}

    with pytest.raises(PlanRefused, match="layer 'n49999' is in it twice"):
        parsed(values)


def test_equal_strips_need_one_entry(graph):
    striped = graph_of(plan_for(graph, strips=Strips(2, 8)), graph)
    ops = ops_with_kernels(striped)
    every = [LayerPlan(op.name, candidates(striped, op)[0].name) for _, op in ops]
    with pytest.raises(PlanRefused, match="more than one thing of layer"):
        choices_of(dataclasses.replace(PLAN, layers=tuple(every)), striped, ops)
