"""nRF52840 CLOCK and POWER, at one base address (Product Specification v1.7, 5.3 and 5.4)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Peripheral

_HFXO, _RUNNING = 1 << 0, 1 << 16


class ClockPower(Peripheral):
    """0x40000000. An oscillator runs as soon as it is started: start-up times are not modelled."""

    REGISTERS: ClassVar[dict[int, str]] = {
        0x000: "TASKS_HFCLKSTART",
        0x004: "TASKS_HFCLKSTOP",
        0x008: "TASKS_LFCLKSTART",
        0x00C: "TASKS_LFCLKSTOP",
        0x010: "TASKS_CAL",
        0x078: "TASKS_CONSTLAT",
        0x07C: "TASKS_LOWPWR",
        0x100: "EVENTS_HFCLKSTARTED",
        0x104: "EVENTS_LFCLKSTARTED",
        0x10C: "EVENTS_DONE",
        0x304: "INTENSET",
        0x308: "INTENCLR",
        0x400: "RESETREAS",
        0x408: "HFCLKRUN",
        0x40C: "HFCLKSTAT",
        0x414: "LFCLKRUN",
        0x418: "LFCLKSTAT",
        0x41C: "LFCLKSRCCOPY",
        0x428: "RAMSTATUS",
        0x500: "SYSTEMOFF",
        0x510: "POFCON",
        0x518: "LFCLKSRC",
        0x51C: "GPREGRET",
        0x520: "GPREGRET2",
        0x558: "APPROTECT_DISABLE",
        0x578: "DCDCEN",
        0x580: "DCDCEN0",
        0x640: "MAINREGSTATUS",
    }
    RESET: ClassVar[dict[str, int]] = {"HFCLKSTAT": _RUNNING}  # the internal RC oscillator

    def write_TASKS_HFCLKSTART(self, value: int) -> None:
        """Starts the crystal oscillator."""
        if value & 1:
            self.values |= {"HFCLKRUN": 1, "HFCLKSTAT": _RUNNING | _HFXO, "EVENTS_HFCLKSTARTED": 1}

    def write_TASKS_HFCLKSTOP(self, value: int) -> None:
        """Back to the internal oscillator."""
        if value & 1:
            self.values |= {"HFCLKRUN": 0, "HFCLKSTAT": _RUNNING}

    def write_TASKS_LFCLKSTART(self, value: int) -> None:
        """Starts the 32 kHz clock from the source that LFCLKSRC names."""
        if value & 1:
            source = self.values["LFCLKSRC"] & 3
            self.values |= {
                "LFCLKRUN": 1,
                "LFCLKSTAT": _RUNNING | source,
                "LFCLKSRCCOPY": source,
                "EVENTS_LFCLKSTARTED": 1,
            }

    def write_TASKS_LFCLKSTOP(self, value: int) -> None:
        """Stops it."""
        if value & 1:
            self.values |= {"LFCLKRUN": 0, "LFCLKSTAT": 0}

    def write_TASKS_CAL(self, value: int) -> None:
        """Calibration of the RC oscillator is done at once."""
        if value & 1:
            self.values["EVENTS_DONE"] = 1

    def write_RESETREAS(self, value: int) -> None:
        """Writing ones clears."""
        self.values["RESETREAS"] &= ~value
