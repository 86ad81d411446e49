"""Timing models: what a basic block costs on a core.

The virtual CPU counts how often each basic block ran and how often it was left by a taken branch. A
timing model gives the cost of one block; cycles are then sum(count * cycles + taken *
taken_cycles). A model is found by the core's name in the board file. What this interface leaves
open for later models: `BlockRun` carries every count that the native hook keeps, so a model that
needs more (which block followed which, memory accesses) adds a counter there and its own term to
`total_cycles`.

Files in order of use: `armv7m` decodes and classifies instructions; `cortex_m4` and `cortex_m7` are
the tables.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple, Protocol

from hil.errors import HilError


class BlockCost(NamedTuple):
    """Cost of one execution of a basic block."""

    instructions: int
    cycles: int  # when it is left at its end, without a taken branch
    taken_cycles: int  # in addition, when its last instruction is a branch that is taken


class TimingModel(Protocol):
    """A core's timing: name and version go into every record as `<name>/<version>`."""

    name: str
    version: int

    def block_cost(self, code: bytes, address: int) -> BlockCost:
        """Cost of the block with these bytes at this address.

        Raises UnknownInstruction for an instruction that the model has no entry for: a guess would
        be a wrong number.
        """
        ...


class UnknownInstruction(HilError):
    """An executed instruction has no entry in the timing table."""

    def __init__(self, core: str, mnemonic: str, address: int) -> None:
        self.core, self.mnemonic, self.address = core, mnemonic, address
        super().__init__(
            f"the timing table of {core} has no entry for instruction {mnemonic!r} at pc "
            f"0x{address:08x}; no cycles can be given for a program that executes it; "
            "add it to hil/virtual/timing"
        )


_MODULES = {"cortex-m4": "cortex_m4", "cortex-m7": "cortex_m7"}


def timing_model(core: str) -> TimingModel:
    """The timing model of a core as the board file names it."""
    module = importlib.import_module(f"hil.virtual.timing.{_MODULES[core]}")
    model: TimingModel = module.MODEL
    return model


def model_id(model: TimingModel) -> str:
    """What a record says of the model, for example `cortex-m4-table/1`."""
    return f"{model.name}/{model.version}"
