"""nRF52840 TIMER (Product Specification v1.7, 6.30)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Chip, Peripheral, array

_CLOCK_HZ = 16_000_000
_WIDTHS = (16, 8, 24, 32)  # BITMODE


class Timer(Peripheral):
    """Timer mode: counts 16 MHz / 2^PRESCALER, derived from the core's cycles.

    Compare events and counter mode do nothing.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x000: "TASKS_START",
        0x004: "TASKS_STOP",
        0x008: "TASKS_COUNT",
        0x00C: "TASKS_CLEAR",
        0x010: "TASKS_SHUTDOWN",
        **array(0x040, "TASKS_CAPTURE", 6),
        **array(0x140, "EVENTS_COMPARE", 6),
        0x200: "SHORTS",
        0x304: "INTENSET",
        0x308: "INTENCLR",
        0x504: "MODE",
        0x508: "BITMODE",
        0x510: "PRESCALER",
        **array(0x540, "CC", 6),
    }
    RESET: ClassVar[dict[str, int]] = {"PRESCALER": 4}

    def __init__(self, chip: Chip, name: str, base: int) -> None:
        super().__init__(chip, name, base)
        for i in range(6):
            self._writers[0x040 + 4 * i] = lambda value, i=i: self._capture(i, value)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._started_at: int | None = None  # cycle
        self._count = 0  # when it was started

    def write_TASKS_START(self, value: int) -> None:
        """Runs on from where it stopped."""
        if value & 1 and self._started_at is None:
            self._started_at = self.chip.cycles()

    def write_TASKS_STOP(self, value: int) -> None:
        """Keeps the count."""
        if value & 1 and self._started_at is not None:
            self._count, self._started_at = self._counter(), None

    def write_TASKS_SHUTDOWN(self, value: int) -> None:
        """Stops and clears."""
        if value & 1:
            self._count, self._started_at = 0, None

    def write_TASKS_CLEAR(self, value: int) -> None:
        """Counts from 0 again."""
        if value & 1:
            self._count = 0
            if self._started_at is not None:
                self._started_at = self.chip.cycles()

    def _capture(self, index: int, value: int) -> None:
        if value & 1:
            self.values[f"CC{index}"] = self._counter()

    def _counter(self) -> int:
        count = self._count
        if self._started_at is not None:
            cycles = self.chip.cycles() - self._started_at
            count += cycles * _CLOCK_HZ // self.chip.board.mcu.clock_hz >> min(
                self.values["PRESCALER"], 9
            )
        return count & (1 << _WIDTHS[self.values["BITMODE"] & 3]) - 1
