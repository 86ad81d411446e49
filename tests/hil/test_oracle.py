"""The oracle answers as TFLM does, and turns whatever goes wrong in TFLM into one clear error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder

from codegen import ir
from codegen.export_tflite import export_tflite
from hil.errors import OracleError
from hil.oracle import Oracle

KWS = "kws_ref_model.tflite"


@pytest.fixture
def kws(models_dir: Path) -> bytes:
    return (models_dir / KWS).read_bytes()


def _random_input(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-128, 128, (1, 49, 10, 1)).astype(np.int8)


def test_outputs_equal_those_of_tflm_in_this_process(kws: bytes) -> None:
    from tflite_micro import runtime

    x = _random_input(np.random.default_rng(1))
    interpreter = runtime.Interpreter.from_bytes(kws)
    interpreter.set_input(x, 0)
    interpreter.invoke()
    expected = np.array(interpreter.get_output(0))

    with Oracle(kws) as oracle:
        (found,) = oracle.outputs([x])

    assert found.dtype == np.int8
    assert np.array_equal(found, expected)


def test_details_name_shape_type_and_scale(kws: bytes) -> None:
    with Oracle(kws) as oracle:
        (inputs,), (outputs,) = oracle.input_details, oracle.output_details

    assert inputs.shape == (1, 49, 10, 1)
    assert inputs.dtype == np.int8
    assert (outputs.scale, outputs.zero_point) == (1 / 256, -128)


def test_a_batch_gives_the_same_as_one_by_one(kws: bytes) -> None:
    rng = np.random.default_rng(2)
    batch = [[_random_input(rng)] for _ in range(5)]

    with Oracle(kws) as oracle:
        together = oracle.run_many(batch)
        apart = [oracle.outputs(arrays) for arrays in batch]

    assert len(together) == 5
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(one[0], other[0])


def test_garbage_is_an_oracle_error() -> None:
    with pytest.raises(OracleError, match="TFLM cannot load the model"):
        Oracle(b"\x00" * 64)


def test_a_truncated_model_is_an_oracle_error(kws: bytes) -> None:
    with pytest.raises(OracleError, match="TFLM cannot load the model"):
        Oracle(kws[: len(kws) // 3])


def test_an_error_quotes_what_tflm_printed_and_nothing_from_before() -> None:
    # TFLM loads a quantisation from float to u8, and refuses to run it.
    b = Builder(np.random.default_rng(0))
    graph = b.graph([b.quantize(b.input((1, 4), dtype=ir.DType.F32), ir.DType.U8)])

    with Oracle(export_tflite(graph)) as oracle, pytest.raises(OracleError) as caught:
        oracle.outputs([np.zeros((1, 4), np.float32)])

    assert str(caught.value).endswith(
        "it printed: Input FLOAT32, output UINT8 not supported. | "
        "Node QUANTIZE (number 0) failed to invoke with status 1"
    )


def test_an_input_of_the_wrong_shape_is_named(kws: bytes) -> None:
    with (
        Oracle(kws) as oracle,
        pytest.raises(
            OracleError, match=r"input 0 of the model is int8\[1, 49, 10, 1\] but int8\[3\]"
        ),
    ):
        oracle.outputs([np.zeros(3, np.int8)])


def test_the_number_of_inputs_is_checked(kws: bytes) -> None:
    with Oracle(kws) as oracle, pytest.raises(OracleError, match="1 inputs but 0 were given"):
        oracle.outputs([])


def test_a_crash_of_the_child_is_an_oracle_error(kws: bytes) -> None:
    with Oracle(kws) as oracle:
        os.kill(oracle._child.pid, signal.SIGSEGV)

        with pytest.raises(OracleError, match="its process ended with SIGSEGV"):
            oracle.outputs([_random_input(np.random.default_rng(0))])


def test_a_hang_ends_at_the_deadline(kws: bytes) -> None:
    with Oracle(kws, deadline_s=5.0) as oracle:
        oracle._deadline_s = 0.2
        os.kill(oracle._child.pid, signal.SIGSTOP)

        with pytest.raises(
            OracleError, match=r"TFLM cannot run the model: no answer within 0\.2 s"
        ):
            oracle.outputs([_random_input(np.random.default_rng(0))])
        assert oracle._child.poll() is not None


def test_after_a_failure_the_oracle_refuses(kws: bytes) -> None:
    with Oracle(kws) as oracle:
        oracle.close()

        with pytest.raises(OracleError, match="the oracle is closed"):
            oracle.outputs([_random_input(np.random.default_rng(0))])


def test_the_child_dies_with_its_parent(models_dir: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from hil.oracle import Oracle\n"
        "oracle = Oracle(Path(sys.argv[1]).read_bytes())\n"
        "print(oracle._child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", program, str(models_dir / KWS)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    child = int(parent.stdout)

    deadline = time.monotonic() + 5.0
    while _is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert parent.returncode == -signal.SIGKILL
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
