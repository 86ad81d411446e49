"""Peripherals that programs set up and that then have no effect on what a virtual board shows."""

from __future__ import annotations

from hil.virtual.peripherals.registers import Peripheral


class Storage(Peripheral):
    """Every word keeps what is written; 0 after reset."""

    SIZE_BYTES = 0x400

    def read(self, offset: int, size_bytes: int) -> int:
        """See Peripheral.read."""
        word = self.values.get(f"{offset & ~3:03x}", 0)
        return word >> 8 * (offset & 3) & (1 << 8 * size_bytes) - 1

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """See Peripheral.write."""
        name, shift, mask = f"{offset & ~3:03x}", 8 * (offset & 3), (1 << 8 * size_bytes) - 1
        self.values[name] = self.values.get(name, 0) & ~(mask << shift) | (value & mask) << shift
