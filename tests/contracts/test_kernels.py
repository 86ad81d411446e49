"""Every kernel computes what the reference computes, on the instructions that a board executes.

The shapes are in tests/support/kernel_cases.py; each kernel runs all those that it does not refuse.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import model_runner
import numpy as np
import pytest
from kernel_cases import FAMILIES, Suite, private_places, some_inputs, suite, suite_of
from random_cases import random_cases

from codegen import ir, reference
from codegen.check import check
from codegen.engines import EngineOptions, Job
from codegen.engines.tiny import emit_model
from codegen.export_tflite import export_tflite
from codegen.kernels import all_kernels
from hil.bench import board_limits
from hil.board import Board
from hil.oracle import Oracle


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return {family: suite(family) for family in FAMILIES}


def assert_every_kernel_is_right(cases: Suite, board: Board, folder: Path) -> None:
    """Runs all ops of a suite on a core; each gives the bytes of the reference."""
    graph, kernels = cases.graph, cases.kernels
    # One core runs them over their inputs, the other apart from them.
    memory = private_places(graph, kernels, overlapping=board.mcu.core == "cortex-m4")
    job = Job(b"", graph, board_limits(board), EngineOptions())
    generated = emit_model(job, graph, kernels, memory, {"objective": "latency"})
    for name, text in generated.sources.items():
        (folder / name).write_text(text)
    batch = some_inputs(graph, 4)

    results = model_runner.run_model(folder, generated.manifest, batch, board=board)

    for inputs, result in zip(batch, results, strict=True):
        expected = reference.run(graph, inputs)
        wrong = [
            f"{op.name} by {kernels[index].name}: {np.count_nonzero(got != want)} of {got.size}"
            for (index, op), got, want in zip(enumerate(graph.ops), result, expected, strict=True)
            if got.tobytes() != want.tobytes()
        ]
        assert not wrong


@pytest.mark.parametrize("board", model_runner.BOARDS, ids=lambda board: board.mcu.core)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_gives_the_bytes_of_the_reference(family, board, suites, tmp_path):
    assert_every_kernel_is_right(suites[family], board, tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_random_ops_by_every_kernel(seed, tmp_path):
    cases = suite_of(random_cases(seed, 30), "random")

    assert_every_kernel_is_right(cases, model_runner.BOARDS[seed % 2], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("board", model_runner.BOARDS, ids=lambda board: board.mcu.core)
@pytest.mark.parametrize("seed", range(10, 30))
def test_many_random_ops_by_every_kernel(seed, board, tmp_path):
    assert_every_kernel_is_right(suite_of(random_cases(seed, 40), "random"), board, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cases_are_sound_and_the_oracle_agrees_with_the_reference(family, suites):
    graph = suites[family].graph
    check(graph)
    batch = some_inputs(graph, 1)

    with Oracle(export_tflite(graph)) as oracle:
        [answers] = oracle.run_many(batch)

    for op, answer, expected in zip(
        graph.ops, answers, reference.run(graph, batch[0]), strict=True
    ):
        assert answer.tobytes() == expected.tobytes(), op.name


def test_every_kernel_is_run_by_some_case(suites):
    run = {kernel.name for each in suites.values() for kernel in each.kernels.values()}

    assert run == {kernel.name for kernel in all_kernels()}


def test_every_op_has_a_kernel_or_is_only_a_view():
    ops = {
        op
        for _, op in inspect.getmembers(ir, inspect.isclass)
        if issubclass(op, ir.Op) and op is not ir.Op
    }

    assert ops - {op for kernel in all_kernels() for op in kernel.op} == set(get_args(ir.Alias))
