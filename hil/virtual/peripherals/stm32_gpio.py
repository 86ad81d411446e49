"""GPIO ports of the STM32F7 and L4+ (RM0385, 6.4; RM0432, GPIO)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.peripherals.stm32_rcc import ClockControl

_OUTPUT = 1


class Gpio(Peripheral):
    """Outputs are logged with their cycle; inputs read 0 unless the pin is an output.

    Without its clock it reads 0 and ignores writes.
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
    MODER_RESET: ClassVar[dict[str, int]] = {"GPIOA": 0xA800_0000, "GPIOB": 0x0000_0280}
    MODER_RESET_OTHERS: ClassVar[int] = 0

    def __init__(
        self, chip: Chip, name: str, base: int, rcc: ClockControl, clock: tuple[str, int]
    ) -> None:
        self._rcc, self._clock = rcc, clock
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset; ports A and B hold the debug pins."""
        super().reset()
        self.values["MODER"] = self.MODER_RESET.get(self.name, self.MODER_RESET_OTHERS)

    def read(self, offset: int, size_bytes: int) -> int:
        """Without its clock it reads 0."""
        return super().read(offset, size_bytes) if self._rcc.is_clocked(*self._clock) else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Without its clock it ignores writes."""
        if self._rcc.is_clocked(*self._clock):
            super().write(offset, size_bytes, value)

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


class LowPowerGpio(Gpio):
    """That of the L4+: pins are analog after reset, and BRR clears."""

    REGISTERS: ClassVar[dict[int, str]] = {**Gpio.REGISTERS, 0x28: "BRR"}
    MODER_RESET: ClassVar[dict[str, int]] = {"GPIOA": 0xABFF_FFFF, "GPIOB": 0xFFFF_FEBF}
    MODER_RESET_OTHERS: ClassVar[int] = 0xFFFF_FFFF

    def read_BRR(self) -> int:
        """Write only."""
        return 0

    def write_BRR(self, value: int) -> None:
        """Ones clear."""
        self.write_ODR(self.values["ODR"] & ~value)
