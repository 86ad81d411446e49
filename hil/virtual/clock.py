"""Virtual time: blocks times what they cost behind the block before, plus what was waited for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from hil.virtual.blocks import BlockCounter
from hil.virtual.timing import BlockTiming, TimingModel
from hil.virtual.timing.armv7m import Instruction, decode_block


class Elapsed(NamedTuple):
    """Time as a program's own counters would see it."""

    instructions: int
    cycles: int


class EdgeRun(NamedTuple):
    """How often a block ran right behind another one, and what each of these passages cost.

    Waiting that depends on addresses and operands is not in it: see BlockCounter.stalls.
    """

    source: tuple[int, bytes] | None  # (address, code) of the block before; None: reset, exception
    address: int
    code: bytes
    executions: int
    timing: BlockTiming


class CycleClock:
    """Cycles and instructions of everything that ran since the counts were last reset.

    The pipeline state behind a block is the one of its first passage, whatever led to it later: so
    the cost of an edge never changes, and time that was read stays true.
    """

    def __init__(self, core: str, model: TimingModel, blocks: BlockCounter) -> None:
        self.core, self.model = core, model
        self._blocks = blocks
        self.reset()

    def reset(self) -> None:
        """The table of blocks was emptied."""
        self._timings: list[BlockTiming] = [BlockTiming(0, (), (), None)]  # of edge 0, never taken
        self._costs = np.zeros((1, 2), np.int64)
        self._after: dict[int, Hashable] = {0: None}

    def total(self) -> Elapsed:
        """Time so far, the current block as a whole; not while code runs."""
        self._price_new_edges()
        instructions, cycles = self._blocks.executions() @ self._costs
        return Elapsed(int(instructions), int(cycles) + self._blocks.stalled_cycles)

    def before(self, pc: int) -> int:
        """Cycles until the instruction at `pc`, in the current block, has waited for its turn."""
        total = self.total().cycles
        edge = self._blocks.current_edge
        whole = self._timings[edge]
        number = sum(1 for i in self._instructions(edge) if i.address < pc)
        waited = sum(stall.cycles for stall in whole.stalls if stall.number == number)
        part = whole.entry_cycles + sum(whole.cycles[:number]) + waited
        return total - whole.total + part

    def edge_runs(self) -> list[EdgeRun]:
        """Everything that ran, for a profiler."""
        self._price_new_edges()
        executions = self._blocks.executions()
        runs = []
        for edge in range(1, len(self._timings)):
            source, target = self._blocks.edge(edge)
            before = self._blocks.block(source) if source else None
            block = self._blocks.block(target)
            runs.append(EdgeRun(before, *block, int(executions[edge]), self._timings[edge]))
        return runs

    def _price_new_edges(self) -> None:
        known, used = len(self._timings), self._blocks.edge_count
        if known == used:
            return
        for edge in range(known, used):
            source, target = self._blocks.edge(edge)
            block = self._instructions(edge)
            taken = source != 0 and self._is_taken(source, block[0].address)
            timing = self.model.pass_block(block, self._after[source], taken)
            self._timings.append(timing)
            self._after.setdefault(target, timing.after)
        new = [(len(t.cycles), t.total) for t in self._timings[known:]]
        self._costs = np.concatenate([self._costs, np.array(new, np.int64)])

    def _is_taken(self, source: int, target: int) -> bool:
        """Whether a block ended in a branch that went here, be it to the very next instruction."""
        address, code = self._blocks.block(source)
        if address + len(code) != target:
            return True
        last = decode_block(code, address, self.core)[-1]
        return last.is_branch and not last.conditional

    def _instructions(self, edge: int) -> tuple[Instruction, ...]:
        address, code = self._blocks.block(self._blocks.edge(edge)[1])
        return decode_block(code, address, self.core)
