"""What code generation must know of a board; whoever calls it copies that from the board file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: RAM that is not the arena's: the stack. What else a firmware holds is left to the linker's check.
STACK_RESERVE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class BoardLimits:
    """One board as the generator sees it: which instructions there are, and how much memory.

    `features` are those of the board file ("dsp", "fpv4-sp", "icache", ...). `ram_bytes` is the
    longest run of RAM, `flash_bytes` the whole flash.
    """

    board: str
    core: Literal["cortex-m4", "cortex-m7"]
    features: tuple[str, ...]
    ram_bytes: int
    flash_bytes: int

    @property
    def arena_limit_bytes(self) -> int:
        """Bytes that an arena can have at most beside the stack."""
        return self.ram_bytes - STACK_RESERVE_BYTES
