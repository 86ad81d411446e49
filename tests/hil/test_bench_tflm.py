"""Engine `tflm` through the whole rig, with a stand-in for TFLM's library (tests/support)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_quant
from model_runner import build_library

from codegen.export_tflite import export_tflite
from hil.bench import measure_model

STAND_IN = Path(__file__).resolve().parents[1] / "support" / "tflm_stub"


@pytest.mark.slow
def test_the_bench_finds_the_smallest_arena_and_measures_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include_dirs = (STAND_IN / "include",)
    library = build_library(STAND_IN / "library.cc", include_dirs, tmp_path / "libtflm.a")
    lab = tmp_path / "lab.toml"
    lab.write_text(f'[tflm]\nlibrary = "{library}"\ninclude_dirs = ["{include_dirs[0]}"]\n')
    monkeypatch.setenv("HIL_LAB", str(lab))
    b = Builder(np.random.default_rng(7), name="relu")
    x = b.input((1, 32), random_quant(b.rng, scale=0.5, zero_point=0))

    record = measure_model(
        export_tflite(b.graph([b.relu(x)])),
        "relu",
        "virtual:nrf52840_dk",
        engine="tflm",
        models_dir=tmp_path / "models",
    )

    assert record.outputs_match
    assert record.sram_bytes.arena == 1040  # what the stand-in's AllocateTensors asks for
    assert record.engine_options["arena_bytes"] == 1040
