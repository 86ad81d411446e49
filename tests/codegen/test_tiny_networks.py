"""Whole networks by engine `tiny` on the emulated core: every byte equal to the oracle's."""

from __future__ import annotations

from pathlib import Path

import model_runner
import numpy as np
import pytest
from graphs import random_inputs
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from networks import random_network

from codegen.engines import EngineOptions, Objective
from codegen.export_tflite import export_tflite
from codegen.generate import generate
from codegen.import_tflite import import_tflite
from hil.bench import board_limits
from hil.board import Board
from hil.oracle import Oracle

OBJECTIVES: tuple[Objective, ...] = ("latency", "sram", "flash")


def assert_equal_to_the_oracle(
    tflite: bytes, folder: Path, board: Board, count: int, objective: Objective = "latency"
) -> None:
    rng = np.random.default_rng(1)
    batch = [random_inputs(rng, import_tflite(tflite, "net")) for _ in range(count)]
    manifest = generate(
        tflite, name="net", engine="tiny", board=board_limits(board), out_dir=folder,
        options=EngineOptions(objective),
    )  # fmt: skip

    results = model_runner.run_model(folder, manifest, batch, board=board)

    with Oracle(tflite) as oracle:
        expected = oracle.run_many(batch)
    for result, want in zip(results, expected, strict=True):
        for got_array, want_array in zip(result, want, strict=True):
            assert np.array_equal(got_array, want_array)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed, tmp_path):
    tflite = export_tflite(random_network(np.random.default_rng(seed)))
    board = model_runner.BOARDS[seed % 2]

    assert_equal_to_the_oracle(tflite, tmp_path, board, 4, OBJECTIVES[seed // 2 % 3])


@pytest.mark.slow
@settings(max_examples=80, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(3, 24),
    board=st.sampled_from(model_runner.BOARDS),
    objective=st.sampled_from(OBJECTIVES),
)
def test_many_random_networks(seed, size, board, objective, tmp_path_factory):
    tflite = export_tflite(random_network(np.random.default_rng(seed), size=size))

    assert_equal_to_the_oracle(tflite, tmp_path_factory.mktemp("model"), board, 2, objective)


@pytest.mark.slow
@pytest.mark.parametrize("board", model_runner.BOARDS, ids=lambda board: board.id)
@pytest.mark.parametrize(
    "name", ["ad01_int8", "kws_ref_model", "person_detect", "pretrainedResnet_quant", "vww_96_int8"]
)
def test_real_models(name, board, models_dir, tmp_path):
    path = models_dir / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"no {path}")

    assert_equal_to_the_oracle(path.read_bytes(), tmp_path, board, 5)
