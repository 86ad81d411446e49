"""STM32 DBGMCU: which chip this is, and what goes on while the core is halted."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral


class DebugSupport(Peripheral):
    """0xE0042000; RM0385 40.16 (STM32F7), RM0432 DBG (STM32L4+).

    The settings store what is written: counters that depend on the core stand still with it anyway.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "IDCODE",
        0x04: "CR",
        0x08: "APB1FZR1",
        0x0C: "APB1FZR2",  # APB2FZ on the F7
        0x10: "APB2FZR",
    }

    def __init__(self, chip: Chip, name: str, base: int, idcode: int) -> None:
        self._idcode = idcode
        super().__init__(chip, name, base)

    def read_IDCODE(self) -> int:
        """Revision in the upper half, device in the lower twelve bits."""
        return self._idcode

    def write_IDCODE(self, value: int) -> None:
        """Read only."""
