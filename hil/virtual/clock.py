"""Virtual time: executed blocks times their cost, as the running program can observe it."""

from __future__ import annotations

import numpy as np

from hil.virtual.blocks import BlockCounter
from hil.virtual.timing import BlockCost, TimingModel


class CycleClock:
    """Cycles and instructions of everything that ran since the counts were last reset."""

    def __init__(self, model: TimingModel, blocks: BlockCounter) -> None:
        self.model = model
        self._blocks = blocks
        self._known: dict[tuple[int, bytes], BlockCost] = {}
        self._costs = np.zeros(
            (1, 3), np.uint64
        )  # of the table's entries; entry 0 is unused and free

    def reset(self) -> None:
        """The table of blocks was emptied; what a block costs stays known."""
        self._costs = np.zeros((1, 3), np.uint64)

    def total(self) -> BlockCost:
        """(instructions, cycles, 0) so far, the current block as a whole; not while code runs."""
        self._price_new_blocks()
        counts, taken = self._blocks.counts()
        instructions = int(counts @ self._costs[:, 0])
        cycles = int(counts @ self._costs[:, 1] + taken @ self._costs[:, 2])
        for (address, code), count in self._blocks.parts().items():
            cost = self._cost(address, code)
            instructions += count * cost.instructions
            cycles += count * cost.cycles
        return BlockCost(instructions, cycles, 0)

    def before(self, pc: int) -> int:
        """Cycles up to the instruction at `pc`, which lies in the current block."""
        total = self.total()
        address, code = self._blocks.current
        whole = self._cost(address, code)
        executed = self._cost(address, code[: pc - address])
        return total.cycles - whole.cycles + executed.cycles

    def _price_new_blocks(self) -> None:
        known, used = len(self._costs), len(self._blocks)
        if known < used:
            new = [self._cost(*self._blocks.block(i)) for i in range(known, used)]
            self._costs = np.concatenate([self._costs, np.array(new, np.uint64)])

    def _cost(self, address: int, code: bytes) -> BlockCost:
        key = (address, code)
        if key not in self._known:
            self._known[key] = self.model.block_cost(code, address) if code else BlockCost(0, 0, 0)
        return self._known[key]
