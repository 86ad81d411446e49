"""What code generation must know of a board; whoever calls it copies that from the board file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: RAM that is not the arena's: the stack.
STACK_RESERVE_BYTES = 4096
#: The firmware's own .data and .bss, at most.
STATIC_RESERVE_BYTES = 2048
#: Flash that is not the model's: the firmware around it, and code that estimates leave out.
FLASH_RESERVE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class BoardLimits:
    """One board as the generator sees it: which instructions there are, and how much memory.

    `features` are those of the board file ("dsp", "fpv4-sp", "icache", ...). `ram_bytes` is the
    longest run of RAM, `quick_ram_bytes` the first part of it, where data are reached without
    waiting, `flash_bytes` the whole flash. Then comes how constants are read at the operating
    point: a read that misses fetches `flash_line_bytes` and waits `flash_fill_cycles` longer than
    RAM. With `stream_offset` added to its address, the flash gives new lines quicker (0: there is
    no such alias).
    """

    board: str
    core: Literal["cortex-m4", "cortex-m7"]
    features: tuple[str, ...]
    ram_bytes: int
    flash_bytes: int
    flash_fill_cycles: float = 0.0
    flash_line_bytes: int = 4
    quick_ram_bytes: int = 0
    stream_offset: int = 0

    @property
    def flash_byte_cycles(self) -> float:
        """Cycles that a byte of constants costs more than RAM when it is read once, in order."""
        return self.flash_fill_cycles / self.flash_line_bytes

    @property
    def arena_limit_bytes(self) -> int:
        """Bytes that an arena can have at most beside the stack."""
        return self.ram_bytes - STACK_RESERVE_BYTES
