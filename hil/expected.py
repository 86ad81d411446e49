"""What the oracle answers to a model's random inputs: once, for all boards and engines."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from hil.inputs import random_inputs
from hil.manifest import Tensor
from hil.oracle import Oracle

KEPT_MODELS = 16  # a bench asks for a model's outputs on one place soon after the other


class ExpectedOutputs:
    """Asks the oracle, and keeps what it said of the last models. May be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, int], list[bytes]] = OrderedDict()

    def of(self, tflite: bytes, tensors: tuple[Tensor, ...], seeds: range) -> list[bytes]:
        """For each seed, the bytes of all outputs, one after another.

        Raises:
            OracleError: TFLM cannot run the model.
        """
        key = (hashlib.sha256(tflite).hexdigest(), seeds.start, seeds.stop)
        with self._lock:
            if key not in self._known:
                with Oracle(tflite) as oracle:
                    answers = oracle.run_many([random_inputs(tensors, seed) for seed in seeds])
                self._known[key] = [
                    b"".join(output.tobytes() for output in outputs) for outputs in answers
                ]
                if len(self._known) > KEPT_MODELS:
                    self._known.popitem(last=False)
            return self._known[key]
