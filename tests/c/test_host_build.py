"""The plain C twins of the DSP instructions: generated code on the host, under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import model_runner
import pytest
from kernel_cases import FAMILIES, private_places, some_inputs, suite

from codegen import reference
from codegen.engines import EngineOptions, Job
from codegen.engines.tiny import emit_model

HERE = Path(__file__).resolve().parent
FLAGS = (
    "-std=c11", "-Og", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


@pytest.fixture(scope="module")
def gcc() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc for this machine; install one (Debian: apt install gcc) to run this")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_code_is_clean_under_sanitizers(family, gcc, tmp_path):
    cases = suite(family)
    memory = private_places(cases.graph, cases.kernels, overlapping=False)
    job = Job(b"", cases.graph, model_runner.LIMITS, EngineOptions())
    generated = emit_model(job, cases.graph, cases.kernels, memory, {"objective": "latency"})
    for name, text in generated.sources.items():
        (tmp_path / name).write_text(text)
    program = tmp_path / "model"
    firmware = model_runner.FIRMWARE
    sources = [HERE / "host_runner.c", *tmp_path.glob("*.c")]
    includes = [f"-I{path}" for path in (tmp_path, firmware / "include", firmware / "kernels")]
    built = subprocess.run(
        [gcc, *FLAGS, *includes, *sources, "-o", program], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    batch = some_inputs(cases.graph, 2)

    ran = subprocess.run(
        [program],
        input=b"".join(array.tobytes() for inputs in batch for array in inputs),
        capture_output=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr.decode()[:2000]
    expected = [reference.run(cases.graph, inputs) for inputs in batch]
    assert ran.stdout == b"".join(output.tobytes() for outputs in expected for output in outputs)
