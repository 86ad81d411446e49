"""How far outputs may lie over inputs: right at the distance that a kernel declares, not closer.

Each kernel runs on random shapes, with its output over its input exactly as far as it offers. What
it reads too late there was written over, so the bytes differ from the reference. Both cores run
it, since each has its own schedule of loads and stores.
"""

from __future__ import annotations

from pathlib import Path

import model_runner
import pytest
from kernel_cases import (
    MOVEMENT_CASES,
    VALUE_CASES,
    Suite,
    offers_of,
    private_places,
    some_inputs,
    suite_of,
)
from random_cases import random_cases

from codegen import reference
from codegen.engines import EngineOptions, Job
from codegen.engines.tiny import emit_model
from hil.bench import board_limits
from hil.board import Board

#: Kernels that keep further away than they must, and why.
CONSERVATIVE = {
    "pool_s8": "counts in pixels, but writes a channel after reading that channel of the window",
    "pool_words_s8": "counts in pixels, but writes four channels after reading those four",
    "mean_words_s8": "as pool_words_s8, whose loops it runs",
    "conv2d_winograd_s8_8_tiles": "as that of 4 tiles; few random shapes have more than 8 tiles",
}

_by_core = pytest.mark.parametrize("board", model_runner.BOARDS, ids=lambda board: board.mcu.core)


def random_suite(seed: int) -> Suite:
    """Random ops with every kernel that offers an overlap for them."""
    whole = suite_of([*random_cases(seed, 30), *MOVEMENT_CASES, *VALUE_CASES], "overlaps")
    offering = {i: k for i, k in whole.kernels.items() if offers_of(whole.graph, i, k)}
    ops = [whole.graph.ops[i] for i in offering]
    used = {i for op in ops for i in op.inputs}
    graph = whole.graph.with_ops(tuple(ops))
    graph = type(graph)(
        name=graph.name,
        sha256=graph.sha256,
        tensors=graph.tensors,
        ops=graph.ops,
        inputs=tuple(i for i in graph.inputs if i in used),
        outputs=tuple(op.outputs[0] for op in ops),
    )
    return Suite(graph, dict(enumerate(offering.values())))


def wrong_ops(
    cases: Suite, folder: Path, board: Board, *, offer: int = 0, too_close_bytes: int = 0
) -> set[int]:
    """The ops whose output differs from the reference."""
    graph, kernels = cases.graph, cases.kernels
    memory = private_places(
        graph, kernels, overlapping=True, offer=offer, too_close_bytes=too_close_bytes
    )
    job = Job(b"", graph, board_limits(board), EngineOptions())
    generated = emit_model(job, graph, kernels, memory, {"objective": "sram"})
    folder.mkdir()
    for name, text in generated.sources.items():
        (folder / name).write_text(text)
    batch = some_inputs(graph, 3)
    results = model_runner.run_model(folder, generated.manifest, batch, board=board)
    return {
        index
        for inputs, result in zip(batch, results, strict=True)
        for index, (got, want) in enumerate(zip(result, reference.run(graph, inputs), strict=True))
        if got.tobytes() != want.tobytes()
    }


def assert_right(seed: int, board: Board, folder: Path) -> None:
    cases = random_suite(seed)
    for offer in (0, 1):
        wrong = wrong_ops(cases, folder / f"offer{offer}", board, offer=offer)
        shapes = cases.graph.tensors
        assert not [
            f"{cases.kernels[i].name}: {[shapes[t].shape for t in (*op.inputs, *op.outputs)]}, {op}"
            for i, op in enumerate(cases.graph.ops)
            if i in wrong
        ]


@_by_core
def test_outputs_are_right_at_the_distance_that_is_declared(board, tmp_path):
    assert_right(0, board, tmp_path)


@pytest.mark.slow
@_by_core
@pytest.mark.parametrize("seed", range(1, 13))
def test_outputs_are_right_on_many_shapes(seed, board, tmp_path):
    assert_right(seed, board, tmp_path)


@pytest.mark.slow
def test_no_kernel_keeps_further_away_than_it_must(tmp_path):
    """A word closer, and each kernel is wrong for some shape on some core."""
    offering: set[str] = set()
    wrong: set[str] = set()
    for seed in range(4):
        cases = random_suite(seed)
        forward = {
            i: kernel.name
            for i, kernel in cases.kernels.items()
            if not offers_of(cases.graph, i, kernel)[0].is_exact
        }
        offering.update(forward.values())
        for board in model_runner.BOARDS:
            folder = tmp_path / f"{board.id}_{seed}"
            found = wrong_ops(cases, folder, board, too_close_bytes=4)
            wrong.update(forward[i] for i in found & forward.keys())

    assert offering - wrong <= CONSERVATIVE.keys()
