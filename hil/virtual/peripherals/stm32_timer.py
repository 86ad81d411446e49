"""General-purpose timers TIM2 to TIM5 of the STM32F7 and L4+ (RM0385, 23.4; RM0432, TIM2)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral, array
from hil.virtual.peripherals.stm32_rcc import ClockControl

_CEN, _UG, _UIF = 1 << 0, 1 << 0, 1 << 0


class Timer(Peripheral):
    """Counts up, derived from the core's cycles.

    The prescaler is loaded by an update event; channels do nothing.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "CR1",
        0x04: "CR2",
        0x08: "SMCR",
        0x0C: "DIER",
        0x10: "SR",
        0x14: "EGR",
        0x18: "CCMR1",
        0x1C: "CCMR2",
        0x20: "CCER",
        0x24: "CNT",
        0x28: "PSC",
        0x2C: "ARR",
        **array(0x34, "CCR", 4),
        0x48: "DCR",
        0x4C: "DMAR",
        0x50: "OR",
    }
    SIZE_BYTES = 0x400

    def __init__(
        self,
        chip: Chip,
        name: str,
        base: int,
        rcc: ClockControl,
        clock: tuple[str, int],
        width_bits: int,
    ) -> None:
        self._rcc, self._clock, self._top = rcc, clock, (1 << width_bits) - 1
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self.values["ARR"] = self._top
        self._prescaler = 0  # in use; PSC holds the next one
        self._count, self._since = 0, 0  # count at a cycle

    def read(self, offset: int, size_bytes: int) -> int:
        """Without its clock it reads 0."""
        return super().read(offset, size_bytes) if self._rcc.is_clocked(*self._clock) else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Without its clock it ignores writes."""
        if self._rcc.is_clocked(*self._clock):
            super().write(offset, size_bytes, value)

    def _ticks(self) -> int:
        """Ticks of the counter since it was last set, beyond the count that it had then."""
        if not self.values["CR1"] & _CEN:
            return 0
        cycles = self.chip.cycles() - self._since
        return cycles // (self._rcc.apb1_timer_divisor * (self._prescaler + 1))

    def _settle(self, count: int) -> None:
        self._count, self._since = count, self.chip.cycles()

    def read_CNT(self) -> int:
        """The counter, 0 to ARR."""
        return (self._count + self._ticks()) % (self.values["ARR"] + 1)

    def write_CNT(self, value: int) -> None:
        """Sets it."""
        self._settle(value & self._top)

    def read_SR(self) -> int:
        """UIF is set when the counter passed ARR since it was last set."""
        if self._count + self._ticks() > self.values["ARR"]:
            self.values["SR"] |= _UIF
        return self.values["SR"]

    def write_SR(self, value: int) -> None:
        """Writing zeros clears."""
        self._settle(self.read_CNT())
        self.values["SR"] &= value

    def write_CR1(self, value: int) -> None:
        """CEN starts and stops."""
        self._settle(self.read_CNT())
        self.values["CR1"] = value

    def write_ARR(self, value: int) -> None:
        """The value to wrap after; taken at once."""
        self._settle(self.read_CNT())
        self.values["ARR"] = value & self._top

    def write_EGR(self, value: int) -> None:
        """UG loads the prescaler and clears the counter."""
        if value & _UG:
            self._settle(0)
            self._prescaler = self.values["PSC"] & 0xFFFF
            self.values["SR"] |= _UIF
