"""The plain C twins of the DSP instructions: generated code on the host, under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import model_runner
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Suite, private_places, some_inputs, suite, suite_of
from networks import random_network
from random_cases import random_cases

from codegen import ir, reference
from codegen.engines import EngineOptions, Generated, Job, Objective
from codegen.engines.tiny import emit_model, generate_tiny

HERE = Path(__file__).resolve().parent
FLAGS = (
    "-std=c11", "-Og", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip
OBJECTIVES: tuple[Objective, ...] = ("latency", "sram", "flash")


@pytest.fixture(scope="module")
def gcc() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc for this machine; install one (Debian: apt install gcc) to run this")
    return found


def assert_clean(
    gcc: str, folder: Path, generated: Generated, graph: ir.Graph, count: int = 2
) -> None:
    """Builds and runs a model under the sanitizers; its outputs are those of the reference.

    Args:
        gcc: the host's compiler.
        folder: empty.
        generated: by engine `tiny`.
        graph: what it computes.
        count: inferences.
    """
    for name, text in generated.sources.items():
        (folder / name).write_text(text)
    program = folder / "model"
    firmware = model_runner.FIRMWARE
    sources = [HERE / "host_runner.c", *folder.glob("*.c")]
    includes = [f"-I{path}" for path in (folder, firmware / "include", firmware / "kernels")]
    built = subprocess.run(
        [gcc, *FLAGS, *includes, *sources, "-o", program], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    batch = some_inputs(graph, count)

    ran = subprocess.run(
        [program],
        input=b"".join(array.tobytes() for inputs in batch for array in inputs),
        capture_output=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr.decode()[:2000]
    expected = [reference.run(graph, inputs) for inputs in batch]
    assert ran.stdout == b"".join(output.tobytes() for outputs in expected for output in outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_is_clean_under_sanitizers(family, gcc, tmp_path):
    assert_suite_is_clean(gcc, tmp_path, suite(family))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_random_ops_are_clean_under_sanitizers(seed, gcc, tmp_path):
    assert_suite_is_clean(gcc, tmp_path, suite_of(random_cases(seed, 40), "random"))


def assert_suite_is_clean(gcc: str, folder: Path, cases: Suite) -> None:
    """Every op of a suite by its kernel."""
    memory = private_places(cases.graph, cases.kernels, overlapping=False)
    job = Job(b"", cases.graph, model_runner.LIMITS, EngineOptions())
    generated = emit_model(job, cases.graph, cases.kernels, memory, {"objective": "latency"})

    assert_clean(gcc, folder, generated, cases.graph)


def generated_network(seed: int, objective: Objective) -> tuple[Generated, ir.Graph]:
    graph = random_network(np.random.default_rng(seed))
    job = Job(b"", graph, model_runner.LIMITS, EngineOptions(objective))
    return generate_tiny(job), graph


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_are_clean_under_sanitizers(seed, gcc, tmp_path):
    generated, graph = generated_network(seed, OBJECTIVES[seed % 3])

    assert_clean(gcc, tmp_path, generated, graph)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(seed=st.integers(0, 2**32 - 1), objective=st.sampled_from(OBJECTIVES))
def test_many_random_networks_are_clean_under_sanitizers(seed, objective, gcc, tmp_path_factory):
    generated, graph = generated_network(seed, objective)

    assert_clean(gcc, tmp_path_factory.mktemp("model"), generated, graph)
