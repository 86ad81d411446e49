"""TFLM and LiteRT in this process, for graphs that our own exporter wrote.

`hil.oracle` runs TFLM in a child process because models from outside can crash it. Tests that run
hundreds of small graphs of their own save that cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tflite_micro import runtime

ARENA_BYTES = 16 * 1024 * 1024


def tflm_outputs(tflite: bytes, batch: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The first output of each inference, from TFLM's reference kernels."""
    interpreter = runtime.Interpreter.from_bytes(tflite, arena_size=ARENA_BYTES)
    results = []
    for inputs in batch:
        for index, value in enumerate(inputs):
            interpreter.set_input(value, index)
        interpreter.invoke()
        results.append(np.array(interpreter.get_output(0)))
    return results


def litert_outputs(tflite: bytes, batch: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The first output of each inference, from LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=tflite,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    inputs_at = [details["index"] for details in interpreter.get_input_details()]
    output_at = interpreter.get_output_details()[0]["index"]
    results = []
    for inputs in batch:
        for index, value in zip(inputs_at, inputs, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        results.append(np.array(interpreter.get_tensor(output_at)))
    return results
