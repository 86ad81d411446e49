"""STM32 electronic signature: how much flash there is, and which chip of its kind this is."""

from __future__ import annotations

from hil.virtual.peripherals.registers import BusFault, Chip, Peripheral

_UNIQUE_ID = (0x0031_0027, 0x3138_4716, 0x3732_3536)  # of no real chip


class Signature(Peripheral):
    """The words of system memory that debuggers and start-up code read; anything else is a fault.

    RM0385 41.1, 41.2: 0x1FF0F420 and 0x1FF0F442; RM0432 device electronic signature: 0x1FFF7590 and
    0x1FFF75E0. `base` is the address of the unique ID.
    """

    SIZE_BYTES = 0x60

    def __init__(self, chip: Chip, name: str, base: int, flash_size_at: int) -> None:
        size_kib = chip.board.flash_bytes // 1024
        self._bytes = dict(enumerate(b"".join(w.to_bytes(4, "little") for w in _UNIQUE_ID)))
        at = flash_size_at - base
        self._bytes |= {at: size_kib & 0xFF, at + 1: size_kib >> 8}
        # the halves of its word that are not described read as erased
        self._bytes |= {i: 0xFF for i in range(at & ~3, (at & ~3) + 4) if i not in self._bytes}
        super().__init__(chip, name, base)

    def read(self, offset: int, size_bytes: int) -> int:
        """See Peripheral.read."""
        if any(offset + i not in self._bytes for i in range(size_bytes)):
            raise BusFault(f"{self.name} has nothing at offset 0x{offset:03x} that is modelled")
        return sum(self._bytes[offset + i] << 8 * i for i in range(size_bytes))

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Read only."""
        raise BusFault(f"{self.name} cannot be written")
