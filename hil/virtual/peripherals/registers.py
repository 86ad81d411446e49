"""What a peripheral is: named registers, and what reading or writing one of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from hil.board import Board
from hil.board_timing import OperatingPoint
from hil.virtual.memory import MemoryMap
from hil.virtual.memory_system import MemorySystem


class BusFault(Exception):
    """An access that the peripheral does not answer; the core takes a bus fault.

    The text says why.
    """


class Console(Protocol):
    """The other end of the serial port."""

    def write(self, data: bytes) -> None:
        """Bytes from the board; blocks while the host takes none."""
        ...

    def receive(self, *, wait: bool) -> int | None:
        """The next byte from the host; None if there is none, or when waiting was interrupted."""
        ...


@dataclass(frozen=True, slots=True)
class Chip:
    """What peripherals know of the chip around them."""

    board: Board
    memory: MemoryMap
    memory_system: MemorySystem
    console: Console
    cycles: Callable[[], int]  # core cycles at this very access
    accesses: Callable[[], int]  # accesses to peripherals so far, this one included
    request_reset: Callable[[], None]
    store: Callable[
        [int, bytes], bool
    ]  # (address, bytes) into RAM, as DMA does; False where there is none
    rewrite_flash: Callable[[int, bytes], None]  # (offset, bytes): what the flash holds now
    log_pin: Callable[[str, int, int], None]  # (port, pin, level)


class Peripheral:
    """A block of 32-bit registers.

    A subclass lists its registers. A register without a `read_<NAME>` method reads as its stored
    value, one without a `write_<NAME>` method stores what is written. An offset that is not listed
    is a bus fault: a program that needs what is not modelled shall not go on as if it were there.
    """

    REGISTERS: ClassVar[dict[int, str]] = {}
    RESET: ClassVar[dict[str, int]] = {}  # values after reset that are not 0
    SIZE_BYTES: ClassVar[int] = 0x1000

    def __init__(self, chip: Chip, name: str, base: int) -> None:
        self.chip, self.name, self.base = chip, name, base
        self.values: dict[str, int] = {}
        self._readers = {
            offset: getattr(self, f"read_{r}", None) for offset, r in self.REGISTERS.items()
        }
        self._writers = {
            offset: getattr(self, f"write_{r}", None) for offset, r in self.REGISTERS.items()
        }
        self.reset()

    def reset(self) -> None:
        """All registers as after a reset of the chip."""
        self.values = {name: self.RESET.get(name, 0) for name in self.REGISTERS.values()}

    def set_up(self, point: OperatingPoint) -> None:
        """Registers as the bench firmware's port leaves them, where that has a say in time."""

    def read(self, offset: int, size_bytes: int) -> int:
        """Value of the `size_bytes` bytes at `offset`; raises BusFault."""
        word = offset & ~3
        name = self._name(word)
        reader = self._readers[word]
        value = self.values[name] if reader is None else reader()
        return int(value) >> 8 * (offset & 3) & (1 << 8 * size_bytes) - 1

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Writes the `size_bytes` bytes at `offset`; raises BusFault.

        The other bytes of the word keep what is stored.
        """
        word = offset & ~3
        name = self._name(word)
        if size_bytes < 4:
            shift, mask = 8 * (offset & 3), (1 << 8 * size_bytes) - 1
            value = self.values[name] & ~(mask << shift) | (value & mask) << shift
        writer = self._writers[word]
        if writer is None:
            self.values[name] = value & 0xFFFF_FFFF
        else:
            writer(value & 0xFFFF_FFFF)

    def _name(self, word: int) -> str:
        if word not in self.REGISTERS:
            raise BusFault(f"{self.name} has no register at offset 0x{word:03x} that is modelled")
        return self.REGISTERS[word]


# What a chip keeps from debuggers: nothing, reads of its flash, all of its memory, everything
Protection = Literal["open", "flash", "memory", "port"]


class FlashController(Peripheral):
    """The peripheral that lets programs write the flash, and keeps debuggers from reading it."""

    under_debug = False  # a debugger is attached to the core

    @property
    def protection(self) -> Protection:
        """What a debugger cannot do at present."""
        return "open"

    def protect(self) -> None:
        """Locks the chip, as its user would before shipping it."""
        raise NotImplementedError

    def erase_chip(self) -> None:
        """Everything is erased and the lock is off: what an unlock does."""
        raise NotImplementedError

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """What the flash holds after a store of `new` over `old`; raises BusFault if locked."""
        raise NotImplementedError


def array(first: int, name: str, count: int, step: int = 4) -> dict[int, str]:
    """Offsets of an array of registers: `CC` at 0x540 gives {0x540: "CC0", 0x544: "CC1", ...}."""
    return {first + step * i: f"{name}{i}" for i in range(count)}
