"""STM32F746 GPIO ports A to K (RM0385, 6.4)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.peripherals.stm32f7_rcc import Rcc

_OUTPUT = 1


class Gpio(Peripheral):
    """Outputs are logged with their cycle; inputs read 0 unless the pin is an output.

    Needs its clock in RCC_AHB1ENR.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "MODER",
        0x04: "OTYPER",
        0x08: "OSPEEDR",
        0x0C: "PUPDR",
        0x10: "IDR",
        0x14: "ODR",
        0x18: "BSRR",
        0x1C: "LCKR",
        0x20: "AFRL",
        0x24: "AFRH",
    }
    SIZE_BYTES = 0x400

    def __init__(self, chip: Chip, name: str, base: int, rcc: Rcc, clock_bit: int) -> None:
        self._rcc, self._clock_bit = rcc, clock_bit
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset; ports A and B hold the debug pins."""
        super().reset()
        self.values["MODER"] = {"GPIOA": 0xA800_0000, "GPIOB": 0x0000_0280}.get(self.name, 0)

    def read(self, offset: int, size_bytes: int) -> int:
        """Without its clock it reads 0."""
        return super().read(offset, size_bytes) if self._is_clocked() else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Without its clock it ignores writes."""
        if self._is_clocked():
            super().write(offset, size_bytes, value)

    def _is_clocked(self) -> bool:
        return self._rcc.is_clocked("AHB1ENR", self._clock_bit)

    def _is_output(self, pin: int) -> bool:
        return self.values["MODER"] >> 2 * pin & 3 == _OUTPUT

    def read_IDR(self) -> int:
        """Outputs read back what they drive."""
        return sum(
            1 << pin for pin in range(16) if self.values["ODR"] >> pin & 1 and self._is_output(pin)
        )

    def write_IDR(self, value: int) -> None:
        """Read only."""

    def read_BSRR(self) -> int:
        """Write only."""
        return 0

    def write_BSRR(self, value: int) -> None:
        """The lower half sets, the upper half clears; setting wins."""
        self.write_ODR(self.values["ODR"] & ~(value >> 16) | value & 0xFFFF)

    def write_ODR(self, value: int) -> None:
        """Drives the outputs."""
        value &= 0xFFFF
        changed = self.values["ODR"] ^ value
        self.values["ODR"] = value
        for pin in range(16):
            if changed >> pin & 1 and self._is_output(pin):
                self.chip.log_pin(self.name, pin, value >> pin & 1)
