"""Timing models: what a passage of a basic block through a core's pipeline costs.

A model is static: it sees decoded instructions and the state that the block before left behind, and
assumes memory without wait states. What depends on addresses, operands or history (caches, wait
states, mispredicted branches, divides, unaligned accesses) is counted while the program runs, by
hil/virtual/native.py, with the tables that a model gives in its `core`. A model is found by the
core's name in the board file.

Files in order of use: `armv7m` decodes and classifies instructions; `cortex_m4` and `cortex_m7` are
the models.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hil.errors import HilError

if TYPE_CHECKING:
    from hil.virtual.timing.armv7m import Instruction


class Stall(NamedTuple):
    """Why an instruction of a block waited."""

    number: int  # of the instruction in the block, from 0
    cause: str  # "load-use", "address", "result", "unit", "refill", "target alignment", ...
    cycles: int


class BlockTiming(NamedTuple):
    """One passage of a block through the pipeline."""

    entry_cycles: int  # refill because a taken branch led here; belongs to that branch
    cycles: tuple[int, ...]  # of each instruction, its stalls included
    stalls: tuple[Stall, ...]  # what part of `cycles` was waiting
    after: Hashable  # the pipeline behind the block: what the next one starts with

    @property
    def total(self) -> int:
        """Cycles of the whole passage."""
        return self.entry_cycles + sum(self.cycles)


class Predictor(NamedTuple):
    """A branch target cache with two-bit counters, direct-mapped; without an entry: not taken."""

    entries: int
    mispredict_cycles: float  # a conditional branch went the other way
    indirect_cycles: float  # an indirect branch or return went elsewhere than the last time
    unknown_cycles: float  # a direct unconditional branch that has no entry


class CoreTiming(NamedTuple):
    """What the native side needs to know of a core."""

    # extra cycles of an access, as [log2 of its bytes][address modulo 8]
    unaligned_read: tuple[tuple[int, ...], ...]
    unaligned_write: tuple[tuple[int, ...], ...]
    # (dividend, divisor, signed) -> cycles; may only depend on the bit lengths of the dividend's
    # magnitude and of the divisor behind its leading ones or zeros, and on either being 0
    divide_cycles: Callable[[int, int, bool], int]
    predictor: Predictor | None = None
    # Which of a block's accesses overlap the one before them if both reach one memory, otherwise
    # take a cycle more: bit k is access number k. None: that makes no difference.
    overlaps: Callable[[Sequence[Instruction]], int] | None = None


ALIGNED_ONLY = ((0,) * 8,) * 4  # a table for a core on which alignment does not matter


class TimingModel(Protocol):
    """A core's timing: name and version go into every record as `<name>/<version>`."""

    name: str
    version: int
    core: CoreTiming

    def pass_block(
        self, block: Sequence[Instruction], before: Hashable | None, taken: bool
    ) -> BlockTiming:
        """Times one passage.

        Args:
            block: its instructions; may be the beginning of a block that was left in its middle.
            before: the state behind the previous block; None: empty pipeline (reset, exception).
            taken: whether the previous block ended with a taken branch.

        Raises UnknownInstruction for an instruction that the model has no entry for: a guess would
        be a wrong number.
        """
        ...


class UnknownInstruction(HilError):
    """An executed instruction has no entry in the timing model."""

    def __init__(self, core: str, mnemonic: str, address: int) -> None:
        self.core, self.mnemonic, self.address = core, mnemonic, address
        super().__init__(
            f"the timing model of {core} has no entry for instruction {mnemonic!r} at pc "
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
    """What a record says of the model, for example `cortex-m4/2`."""
    return f"{model.name}/{model.version}"
