"""What the RCC of every STM32 family is asked by the other peripherals."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Peripheral

_PPRE_DIVISORS = (1, 1, 1, 1, 2, 4, 8, 16)


class ClockControl(Peripheral):
    """A family's RCC derives from it and lists CFGR and its enable registers.

    The core's speed is not derived from it: virtual time counts core cycles, whatever their
    frequency.
    """

    PPRE1_SHIFT: ClassVar[int]  # of APB1's prescaler in CFGR

    def is_clocked(self, register: str, bit: int) -> bool:
        """Whether a peripheral's clock is on."""
        return bool(self.values[register] >> bit & 1)

    @property
    def apb1_timer_divisor(self) -> int:
        """Core cycles for a tick of the APB1 timers: twice the bus clock if that is divided."""
        divisor = _PPRE_DIVISORS[self.values["CFGR"] >> self.PPRE1_SHIFT & 7]
        return divisor if divisor == 1 else divisor // 2
