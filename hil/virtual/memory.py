"""The board's memory: host memory behind every address range; aliases show the same bytes."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

from hil.board import Board, Memory
from hil.errors import BoardFileError

PAGE_BYTES = 4096  # the smallest unit that Unicorn maps
PERIPHERALS = ((0x4000_0000, 0x6000_0000), (0xE000_0000, 1 << 32))  # of every Cortex-M


@dataclass(frozen=True, slots=True)
class Region:
    """One address range and the host memory that holds its bytes."""

    memory: Memory
    data: memoryview
    host_address: int


class MemoryMap:
    """All address ranges of a board, sorted by address."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.regions: list[Region] = []
        own = sorted((m for m in board.memory if m.alias_of is None), key=lambda m: m.origin)
        for memory in board.memory:
            if memory.origin % PAGE_BYTES or memory.size_bytes % PAGE_BYTES:
                raise BoardFileError(
                    board.id, "memory", f"{memory.name!r} is not a multiple of {PAGE_BYTES} B"
                )
            if any(memory.origin < end and start < memory.end for start, end in PERIPHERALS):
                raise BoardFileError(
                    board.id, "memory", f"{memory.name!r} reaches into the peripherals' addresses"
                )
        for run in _runs(own):
            # One piece of host memory for adjoining ranges: code may run across their border. The
            # extra page is for a block whose last instruction is cut by the end of the memory.
            size_bytes = run[-1].end - run[0].origin
            data = memoryview(mmap.mmap(-1, size_bytes + PAGE_BYTES))
            host_address = ctypes.addressof(ctypes.c_char.from_buffer(data))
            for memory in run:
                at = memory.origin - run[0].origin
                view = data[at : at + memory.size_bytes]
                if memory.kind == "flash":
                    view[:] = b"\xff" * memory.size_bytes  # as delivered: erased
                self.regions.append(Region(memory, view, host_address + at))
        shown = {region.memory.name: region for region in self.regions}
        for memory in board.memory:
            if memory.alias_of is not None:
                original = shown[memory.alias_of]
                self.regions.append(Region(memory, original.data, original.host_address))
        self.regions.sort(key=lambda region: region.memory.origin)

    def find(self, address: int, size_bytes: int = 1) -> Region | None:
        """The region that holds all of [address, address + size_bytes), or None."""
        for region in self.regions:
            if region.memory.origin <= address and address + size_bytes <= region.memory.end:
                return region
        return None

    def host_address(self, address: int) -> int:
        """Where the byte at a mapped address lies in this process: equal for aliases."""
        region = self.find(address)
        assert region is not None, "only addresses of the map have bytes"
        return region.host_address + address - region.memory.origin

    def read(self, address: int, size_bytes: int) -> bytes | None:
        """Bytes at an address; None if they are not all in memory.

        May run over adjoining regions.
        """
        if size_bytes > self.largest_bytes:
            return None
        result = b""
        while len(result) < size_bytes:
            at = address + len(result)
            region = self.find(at)
            if region is None:
                return None
            offset = at - region.memory.origin
            result += bytes(region.data[offset : offset + size_bytes - len(result)])
        return result

    @property
    def largest_bytes(self) -> int:
        """Size of everything together: no read can be longer."""
        return sum(region.memory.size_bytes for region in self.regions)

    def clear_ram(self) -> None:
        """RAM as a flashed image finds it: all zero, so that two runs start alike."""
        for region in self.regions:
            if region.memory.kind == "ram":
                region.data[:] = bytes(region.memory.size_bytes)

    def describe(self) -> str:
        """The ranges in words, for messages."""
        return ", ".join(
            f"{r.memory.name} 0x{r.memory.origin:08x}-0x{r.memory.end - 1:08x}"
            for r in self.regions
        )


def _runs(memories: list[Memory]) -> list[list[Memory]]:
    """Sorted memories, those that adjoin together."""
    runs: list[list[Memory]] = []
    for memory in memories:
        if runs and runs[-1][-1].end == memory.origin:
            runs[-1].append(memory)
        else:
            runs.append([memory])
    return runs
