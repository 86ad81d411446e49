"""nRF52840 WDT, the watchdog (Product Specification v1.7, 6.36)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Peripheral, array


class Watchdog(Peripheral):
    """0x40010000. Tells whether it runs and takes reloads, but never bites.

    Flash algorithms feed one that runs.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x000: "TASKS_START",
        0x100: "EVENTS_TIMEOUT",
        0x304: "INTENSET",
        0x308: "INTENCLR",
        0x400: "RUNSTATUS",
        0x404: "REQSTATUS",
        0x504: "CRV",
        0x508: "RREN",
        0x50C: "CONFIG",
        **array(0x600, "RR", 8),
    }
    RESET: ClassVar[dict[str, int]] = {
        "REQSTATUS": 1,
        "CRV": 0xFFFF_FFFF,
        "RREN": 1,
        "CONFIG": 1,
    }

    def write_TASKS_START(self, value: int) -> None:
        """It runs until the next reset."""
        if value & 1:
            self.values |= {"RUNSTATUS": 1, "REQSTATUS": self.values["RREN"]}

    def write_RUNSTATUS(self, value: int) -> None:
        """Read only."""

    def write_REQSTATUS(self, value: int) -> None:
        """Read only."""
