"""Whether a network fits the boards, before it is trained.

The network gets random weights, is quantised, exported, and goes through the real generator for
each board, so the arena is the planner's own, scratch included. What the harness adds is estimated;
the linker and the board have the last word later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.engines import EngineOptions, Job, Objective, get_engine
from codegen.errors import DoesNotFit
from codegen.import_tflite import import_tflite
from codegen.limits import STACK_RESERVE_BYTES, BoardLimits
from search.architecture import Architecture, Conv, Dense, Depthwise
from search.data import InputQuant
from search.quantize import LayerWeights, quantize, to_tflite

#: .data and .bss of the bench firmware beside the arena, and its code with that of the kernels:
#: estimates, on the safe side for networks of a few layers.
STATIC_BYTES = 1024
CODE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Violation:
    """A memory of a board that is too small; `memory` is "sram" or "flash"."""

    board: str
    memory: str
    needed_bytes: int
    have_bytes: int

    @property
    def amount(self) -> float:
        """(needed - have) / have."""
        return (self.needed_bytes - self.have_bytes) / self.have_bytes

    def __str__(self) -> str:
        have = f"{self.board} has {self.have_bytes:,} B"
        return f"needs {self.needed_bytes:,} B of {self.memory} but {have}"


def violations(
    architecture: Architecture,
    boards: Sequence[BoardLimits],
    *,
    engine: str,
    objective: Objective,
) -> list[Violation]:
    """Every memory of every board that the network does not fit; empty if it is feasible."""
    tflite = untrained_tflite(architecture)
    found = []
    for board in boards:
        found += _violations_of(tflite, board, engine=engine, objective=objective)
    return found


def untrained_tflite(architecture: Architecture) -> bytes:
    """The network with random weights: same ops, shapes and sizes as the trained one."""
    rng = np.random.default_rng(0)
    weights = {}
    for index, node in enumerate(architecture.nodes):
        if isinstance(node, Conv):
            in_c = architecture.shapes[node.x][2]
            weights[index] = _random_layer(rng, (node.out_c, *node.kernel, in_c), node.out_c)
        elif isinstance(node, Depthwise):
            channels = architecture.shapes[node.x][2]
            weights[index] = _random_layer(rng, (1, *node.kernel, channels), channels)
        elif isinstance(node, Dense):
            in_c = architecture.shapes[node.x][2]
            weights[index] = _random_layer(rng, (node.out, in_c), node.out)
    ranges = [(-1.0, 1.0)] * len(architecture.shapes)
    input_quant = InputQuant(float(np.float32(1 / 255)), -128)
    return to_tflite(quantize(architecture, weights, ranges, input_quant, name="untrained"))


def _violations_of(
    tflite: bytes, board: BoardLimits, *, engine: str, objective: Objective
) -> list[Violation]:
    graph = import_tflite(tflite, "untrained")
    job = Job(tflite, graph, board, EngineOptions(objective=objective))
    try:
        manifest = get_engine(engine)(job).manifest
    except DoesNotFit as error:
        memory = "flash" if "flash" in error.what.lower() else "sram"
        return [Violation(board.board, memory, error.needed_bytes, error.have_bytes)]
    needs = (
        Violation(
            board.board,
            "sram",
            manifest.arena_bytes + STATIC_BYTES + STACK_RESERVE_BYTES,
            board.ram_bytes,
        ),
        Violation(board.board, "flash", manifest.weights_bytes + CODE_BYTES, board.flash_bytes),
    )
    return [need for need in needs if need.needed_bytes > need.have_bytes]


def _random_layer(rng: np.random.Generator, shape: tuple[int, ...], out_c: int) -> LayerWeights:
    return LayerWeights(
        rng.normal(size=shape).astype(np.float32), rng.normal(size=out_c).astype(np.float32)
    )
