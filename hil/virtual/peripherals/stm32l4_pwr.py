"""STM32L4+ PWR, voltage ranges and supplies (RM0432, PWR)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral, array
from hil.virtual.peripherals.stm32l4_rcc import Rcc

_CLOCK = ("APB1ENR1", 28)
_DBP = 1 << 8


class Pwr(Peripheral):
    """0x40007000. The voltage follows at once: VOSF in SR2 is never set.

    DBP opens the backup domain. Without its clock the peripheral reads 0 and ignores writes.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "CR1",
        0x04: "CR2",
        0x08: "CR3",
        0x0C: "CR4",
        0x10: "SR1",
        0x14: "SR2",
        0x18: "SCR",
        **array(0x20, "PULL", 18),  # PUCRA, PDCRA, ... PUCRI, PDCRI
        0x80: "CR5",
    }
    RESET: ClassVar[dict[str, int]] = {"CR1": 0x200, "CR3": 0x8000, "CR5": 0x100}
    SIZE_BYTES = 0x400

    def __init__(self, chip: Chip, name: str, base: int, rcc: Rcc) -> None:
        self._rcc = rcc
        super().__init__(chip, name, base)

    def read(self, offset: int, size_bytes: int) -> int:
        """See Peripheral.read."""
        return super().read(offset, size_bytes) if self._rcc.is_clocked(*_CLOCK) else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """See Peripheral.write."""
        if self._rcc.is_clocked(*_CLOCK):
            super().write(offset, size_bytes, value)

    def write_CR1(self, value: int) -> None:
        """DBP lets programs write RCC_BDCR."""
        self.values["CR1"] = value
        self._rcc.backup_domain_is_open = bool(value & _DBP)

    def write_SR1(self, value: int) -> None:
        """Read only."""

    def write_SR2(self, value: int) -> None:
        """Read only."""
