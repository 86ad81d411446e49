"""STM32F746 PWR, voltage scaling and over-drive (RM0385, 4.4)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.peripherals.stm32f7_rcc import Rcc

_PWREN = 28
_ODEN, _ODSWEN = 1 << 16, 1 << 17
_VOSRDY, _ODRDY, _ODSWRDY = 1 << 14, 1 << 16, 1 << 17


class Pwr(Peripheral):
    """0x40007000. Ready bits follow at once; over-drive switching needs over-drive to be ready."""

    REGISTERS: ClassVar[dict[int, str]] = {0x00: "CR1", 0x04: "CSR1", 0x08: "CR2", 0x0C: "CSR2"}
    RESET: ClassVar[dict[str, int]] = {"CR1": 0xC000, "CSR1": _VOSRDY}
    SIZE_BYTES = 0x400

    def __init__(self, chip: Chip, name: str, base: int, rcc: Rcc) -> None:
        self._rcc = rcc
        super().__init__(chip, name, base)

    def write_CR1(self, value: int) -> None:
        """Ignored while the peripheral has no clock."""
        if not self._rcc.is_clocked("APB1ENR", _PWREN):
            return
        self.values["CR1"] = value
        ready = _VOSRDY | (_ODRDY if value & _ODEN else 0)
        if value & _ODSWEN and value & _ODEN:
            ready |= _ODSWRDY
        self.values["CSR1"] = ready

    def write_CSR1(self, value: int) -> None:
        """Nothing that is modelled can be written."""
