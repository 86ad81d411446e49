"""Engine `tflm`: the application against a stand-in for TFLM, and what is said without TFLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_inputs, random_quant
from model_runner import LIMITS, RunnerFailed, build_library, run_model

from codegen import ir
from codegen.engines import EngineOptions
from codegen.engines.tflm import smallest_arena_bytes
from codegen.errors import CodegenError, DoesNotFit, UnsupportedOp
from codegen.export_tflite import export_tflite
from codegen.generate import generate
from codegen.manifest import Manifest

STAND_IN = Path(__file__).resolve().parents[1] / "support" / "tflm_stub"
INCLUDE_DIRS = (STAND_IN / "include",)
NEEDED_BYTES = 1040  # what the stand-in's AllocateTensors asks for


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tflm")
    return build_library(
        STAND_IN / "library.cc", INCLUDE_DIRS, folder / "libtensorflow-microlite.a"
    )


def relu_graph() -> ir.Graph:
    b = Builder(np.random.default_rng(7), name="relu")
    return b.graph([b.relu(b.input((1, 32), random_quant(b.rng, scale=0.5, zero_point=0)))])


def generate_tflm(graph: ir.Graph, folder: Path, **options: object) -> Manifest:
    return generate(
        export_tflite(graph),
        name=graph.name,
        engine="tflm",
        board=LIMITS,
        out_dir=folder,
        options=EngineOptions(**options),  # type: ignore[arg-type]
    )


def test_the_application_runs_on_the_board(library: Path, tmp_path: Path) -> None:
    graph = relu_graph()
    batch = [random_inputs(np.random.default_rng(seed), graph) for seed in range(4)]
    manifest = generate_tflm(
        graph, tmp_path, tflm_library=library, tflm_include_dirs=INCLUDE_DIRS, arena_bytes=2048
    )

    found = run_model(tmp_path, manifest, batch)

    for inputs, outputs in zip(batch, found, strict=True):
        np.testing.assert_array_equal(outputs[0], np.maximum(inputs[0], 0))
    assert manifest.arena_bytes == 2048
    assert manifest.engine_options == {"arena_bytes": 2048}
    assert [(layer.name, layer.op) for layer in manifest.layers] == [("relu_0", "RELU")]


def test_an_arena_that_is_too_small_is_reported_by_model_init(
    library: Path, tmp_path: Path
) -> None:
    manifest = generate_tflm(
        relu_graph(),
        tmp_path,
        tflm_library=library,
        tflm_include_dirs=INCLUDE_DIRS,
        arena_bytes=NEEDED_BYTES - 16,
    )

    with pytest.raises(RunnerFailed, match="model_init: AllocateTensors failed: the arena is too"):
        run_model(tmp_path, manifest, [])


def test_the_resolver_has_each_operator_of_the_model_once(library: Path, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(8))
    x = b.conv2d(b.conv2d(b.input((1, 6, 6, 2)), 3, (3, 3)), 3, (1, 1))
    graph = b.graph([b.softmax(b.reshape(b.mean(x, (1, 2)), (1, 3)))])

    manifest = generate_tflm(graph, tmp_path, tflm_library=library, tflm_include_dirs=INCLUDE_DIRS)

    text = (tmp_path / "model.cc").read_text()
    assert text.count("resolver->Add") == 4
    for method in ("AddConv2D", "AddMean", "AddReshape", "AddSoftmax"):
        assert f"resolver->{method}()" in text
    assert "MicroMutableOpResolver<4>" in text
    assert len(manifest.layers) == 5


def test_without_an_arena_the_model_gets_all_the_ram_there_is(
    library: Path, tmp_path: Path
) -> None:
    manifest = generate_tflm(
        relu_graph(), tmp_path, tflm_library=library, tflm_include_dirs=INCLUDE_DIRS
    )

    assert LIMITS.arena_limit_bytes - 16 < manifest.arena_bytes <= LIMITS.arena_limit_bytes


def test_an_arena_larger_than_the_ram_does_not_fit(library: Path, tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="1,000,000 B of RAM"):
        generate_tflm(
            relu_graph(),
            tmp_path,
            tflm_library=library,
            tflm_include_dirs=INCLUDE_DIRS,
            arena_bytes=1_000_000,
        )


def test_an_operator_that_tflm_lacks_is_named(library: Path, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(9))
    graph = b.graph([b.relu(b.input((1, 8)), ir.Activation.RELU_N1_TO_1)])

    with pytest.raises(UnsupportedOp, match="op 0: RELU_N1_TO_1 is not supported"):
        generate_tflm(graph, tmp_path, tflm_library=library, tflm_include_dirs=INCLUDE_DIRS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"\[tflm\] library is not set; set library to libtensorflow-microlite.a"),
        ({"tflm_library": Path("x.a")}, r"\[tflm\] include_dirs is not set"),
        (
            {"tflm_library": Path("/nowhere/x.a"), "tflm_include_dirs": INCLUDE_DIRS},
            r"library '/nowhere/x.a' is not a file",
        ),
        (
            {"tflm_library": Path(__file__), "tflm_include_dirs": (Path("/nowhere"),)},
            r"include_dirs: '/nowhere' is no folder",
        ),
        (
            {"tflm_library": Path(__file__), "tflm_include_dirs": (STAND_IN,)},
            r"no folder of include_dirs holds tensorflow/lite/micro/micro_interpreter.h",
        ),
    ],
)
def test_what_lab_toml_lacks_is_said(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CodegenError, match=message):
        generate_tflm(relu_graph(), tmp_path, **options)


@pytest.mark.parametrize("needed", [16, 48, 5000, 65_536, 99_999])
def test_bisection_finds_the_smallest_arena_with_few_runs(needed: int) -> None:
    tried: list[int] = []

    def runs(arena_bytes: int) -> bool:
        tried.append(arena_bytes)
        return arena_bytes >= needed

    found = smallest_arena_bytes(runs, high=100_000)

    assert found == -(-needed // 16) * 16
    assert len(tried) <= 15
    assert len(set(tried)) == len(tried)


def test_a_model_that_runs_in_no_arena_does_not_fit() -> None:
    with pytest.raises(DoesNotFit, match="there are 4,096 B"):
        smallest_arena_bytes(lambda _: False, high=4096)
