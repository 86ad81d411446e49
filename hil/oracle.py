"""The oracle: what TFLM's reference kernels answer, from a child process that may crash.

TFLM is C++ that trusts its model: a malformed one can abort or loop. So the interpreter lives in a
child process (`serve`), every request has a deadline, and whatever goes wrong
becomes an `OracleError` with the last lines that TFLM printed.

The child ends when `close` is called, when its parent ends (end of file on the channel), and in any
case when a request takes longer than its deadline (SIGALRM, set by the child itself: it works while
C++ code runs and the parent is gone).
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.closing import Closing
from hil.errors import OracleError

Array = NDArray[Any]

#: TFLM takes one arena of fixed size; untouched pages cost nothing, so it has room for every model
#: that a microcontroller could run.
ARENA_BYTES = 512 * 1024 * 1024

#: What the child may take in all: lengths in a corrupt model are not believed.
MEMORY_LIMIT_BYTES = 4 * 1024 * 1024 * 1024

#: For loading, and for a batch of inferences: models that fit a board take some 20 ms for one.
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class TensorDetails:
    """Shape, type and quantisation of an input or output, as TFLM sees it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


class Oracle(Closing):
    """TFLM with one model loaded. A context manager; not to be shared between threads.

    Args:
        tflite: the model's bytes.
        deadline_s: the longest that loading, or one call of `outputs` or `run_many`, may take.

    Raises:
        OracleError: TFLM cannot load the model; the message holds what it printed.
    """

    def __init__(self, tflite: bytes, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._channel, childs_end = Pipe()
        fd = childs_end.fileno()
        with childs_end:
            self._child = subprocess.Popen(
                [sys.executable, "-c", f"from hil.oracle import serve; serve({fd})"],
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                cwd=Path(__file__).resolve().parents[1],
                # numpy would reserve memory for each of its threads.
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        try:
            #: What the model takes and gives.
            self.input_details: list[TensorDetails]
            self.output_details: list[TensorDetails]
            self.input_details, self.output_details = self._ask("load the model", tflite)
        except BaseException:
            self.close()
            raise

    def outputs(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs of one inference, for one array per input of the model."""
        return self.run_many([inputs])[0]

    def run_many(self, batch: Sequence[Sequence[Array]]) -> list[list[Array]]:
        """The outputs of several inferences, one after another, in one exchange with the child.

        Args:
            batch: for each inference, one array per input of the model, of its shape and type.

        Raises:
            OracleError: an array does not fit, TFLM failed or crashed, or the deadline passed.
        """
        for arrays in batch:
            self._check_inputs(arrays)
        answer: list[list[Array]] = self._ask("run the model", [list(arrays) for arrays in batch])
        return answer

    def close(self) -> None:
        """End the child. Safe to call twice."""
        self._channel.close()
        self._child.kill()
        self._child.wait()
        self._printed.close()

    def _check_inputs(self, arrays: Sequence[Array]) -> None:
        if len(arrays) != len(self.input_details):
            raise OracleError(
                f"the model has {len(self.input_details)} inputs but {len(arrays)} were given"
            )
        for index, (array, details) in enumerate(zip(arrays, self.input_details, strict=True)):
            if array.shape != details.shape or array.dtype != details.dtype:
                raise OracleError(
                    f"input {index} of the model is {details.dtype}{list(details.shape)} but "
                    f"{array.dtype}{list(array.shape)} was given"
                )

    def _ask(self, what: str, request: object) -> Any:
        """Send one request; return its answer or raise what went wrong."""
        if self._channel.closed:
            raise OracleError(f"TFLM cannot {what}: the oracle is closed")
        try:
            self._channel.send((self._deadline_s, request))
            if self._channel.poll(self._deadline_s):
                problem, answer = self._channel.recv()
            else:
                problem, answer = f"no answer within {self._deadline_s:.1f} s", None
        except (EOFError, OSError):
            problem, answer = f"its process {self._end_of_child()}", None
        if problem is None:
            return answer
        # TFLM's state is unknown now: nothing that it says later may look like an answer.
        message = f"TFLM cannot {what}: {problem}{self._last_words()}"
        self.close()
        raise OracleError(message)

    def _end_of_child(self) -> str:
        """How the child ended, after it closed its end of the channel."""
        try:
            code = self._child.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "closed its channel"
        return f"ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    def _last_words(self) -> str:
        """What TFLM printed last, as the end of a sentence."""
        self._printed.seek(0)
        lines = [s for s in self._printed.read().decode(errors="replace").splitlines() if s.strip()]
        # Names from the model are among it: no control characters, no pages of text.
        shown = ["".join(c if c.isprintable() else "?" for c in s[:200]) for s in lines[-4:]]
        return f"; it printed: {' | '.join(shown)}" if shown else ""


def _details(describe: Callable[[int], dict[str, Any]]) -> list[TensorDetails]:
    """Details of all inputs or outputs; TFLM's `describe` says IndexError after the last one."""
    found: list[TensorDetails] = []
    while True:
        try:
            details = describe(len(found))
        except IndexError:
            return found
        quantisation = details["quantization_parameters"]
        scales, zero_points = quantisation["scales"], quantisation["zero_points"]
        found.append(
            TensorDetails(
                shape=tuple(int(n) for n in details["shape"]),
                dtype=np.dtype(details["dtype"]),
                scale=float(scales[0]) if len(scales) else 0.0,
                zero_point=int(zero_points[0]) if len(zero_points) else 0,
            )
        )


class _Server:
    """The child's side: one interpreter, asked first to load and then to run."""

    def __init__(self) -> None:
        self._interpreter: Any = None
        self._outputs = 0

    def answer(self, request: Any) -> object:
        """Load a model (bytes) or run a batch (a list of lists of arrays)."""
        if isinstance(request, bytes):
            return self._load(request)
        return [self._run(arrays) for arrays in request]

    def _load(self, tflite: bytes) -> tuple[list[TensorDetails], list[TensorDetails]]:
        from tflite_micro import runtime

        self._interpreter = runtime.Interpreter.from_bytes(tflite, arena_size=ARENA_BYTES)
        inputs = _details(self._interpreter.get_input_details)
        outputs = _details(self._interpreter.get_output_details)
        self._outputs = len(outputs)
        # Asking for one too many made TFLM complain; that must not be quoted in a later error.
        os.ftruncate(sys.stderr.fileno(), 0)
        os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)
        return inputs, outputs

    def _run(self, arrays: list[Array]) -> list[Array]:
        for index, array in enumerate(arrays):
            self._interpreter.set_input(array, index)
        self._interpreter.invoke()
        # get_output gives a view of the arena, which the next inference overwrites.
        return [np.array(self._interpreter.get_output(index)) for index in range(self._outputs)]


def serve(fd: int) -> None:
    """The child's main function: answer requests on the socket `fd` until the parent closes it."""
    channel = Connection(fd)
    # The parent decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    server = _Server()
    while True:
        try:
            deadline_s, request = channel.recv()
        except EOFError:
            return
        # Unhandled SIGALRM ends the process, also inside C++ code and when there is no parent.
        signal.alarm(math.ceil(deadline_s) + 1)
        answer: tuple[str | None, object]
        try:
            answer = (None, server.answer(request))
        except Exception as error:
            answer = (f"{error} ({type(error).__name__})", None)
        signal.alarm(0)
        channel.send(answer)
