"""A physical board as a place: serial port, debug probe, meter and switch, as lab.toml says.

Nothing but the meter is held open between the methods, and everything is looked up anew each time:
a board that is flashed, reset or power cycled comes back as another ttyACM.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hil import flash, power
from hil.board import Board
from hil.errors import LinkError, MeterError, PowerError
from hil.flash_tools import REMOTE
from hil.ports import bare_serial, resolve_port, usb_serials

if TYPE_CHECKING:
    from hil.lab import PlaceEntry
    from hil.locks import PlaceLock
    from hil.meters import Meter

#: For probe and port to be back after a power cycle: the hub notices, the debugger starts, the
#: kernel enumerates, udev sets the permissions. Two seconds on an idle machine with a quick hub.
BACK_S = 30.0

_POLL_S = 0.1


class HardwarePlace:
    """One board that is plugged in.

    Args:
        name: of the place in lab.toml.
        board: the type of board.
        entry: its table in lab.toml.
    """

    source: Literal["hardware"] = "hardware"
    timing_model: str | None = None

    def __init__(self, name: str, board: Board, entry: PlaceEntry) -> None:
        assert entry.port is not None and not entry.virtual, "a physical place has a port"
        self.name, self.board, self.entry = name, board, entry
        self.probe = entry.probe
        self.lock: PlaceLock | None = None
        self._port_name = entry.port
        self._meter: Meter | None = None

    @property
    def port(self) -> str:
        """Path of its serial port now; raises LinkError when it is not plugged in."""
        return resolve_port(self._port_name)

    @property
    def meter(self) -> Meter | None:
        """The meter that lab.toml names, opened when it is first asked for; raises MeterError."""
        entry = self.entry.meter
        if entry is not None and self._meter is None:
            from hil.meters import open_meter  # loads numpy

            try:
                port = resolve_port(entry.port) if entry.port else None
            except LinkError as error:
                raise MeterError(f"{entry.kind} of {self.name}", error.reason) from error
            self._meter = open_meter(
                entry.kind,
                port=port,
                serial=entry.serial,
                supply_mv=entry.supply_mv,
                board_mv=self.board.supply.voltage_mv,
                trigger_channel=entry.trigger_channel,
            )
        return self._meter

    @property
    def can_power_cycle(self) -> bool:
        """Whether lab.toml names a switch."""
        return self.entry.power is not None

    def flash(self, elf: Path) -> None:
        """Programs, verifies and starts an image; raises FlashError, MeterError."""
        _ = self.meter  # whose opening gives the board its supply, if it comes through the meter
        flash.program(
            self.board,
            elf,
            place=self.name,
            probe=self.probe,
            method=self.entry.flash,
            pass_fds=self._lock_fds,
        )

    def reset(self) -> None:
        """As the reset button, by the probe; raises FlashError, MeterError."""
        _ = self.meter
        flash.reset(
            self.board,
            place=self.name,
            probe=self.probe,
            method=self.entry.flash,
            pass_fds=self._lock_fds,
        )

    def power_cycle(self) -> None:
        """Off, on, and until probe and port are back; raises PowerError."""
        entry = self.entry.power
        if entry is None:
            raise PowerError(
                self.name, "lab.toml names no switch for it; plug it out and in again by hand"
            )
        meter = self.meter if entry.kind == "meter" else None
        power.cycle(entry, place=self.name, meter=meter)
        deadline = time.monotonic() + BACK_S
        while missing := self.missing():
            if time.monotonic() > deadline:
                raise PowerError(
                    self.name, f"{missing} {BACK_S:.0f} s after it was switched on again"
                )
            time.sleep(_POLL_S)

    def missing(self) -> str:
        """What is not there of the board, in words; empty when all is."""
        try:
            port = self.port
        except LinkError as error:
            return str(error)
        if not os.path.exists(port):
            return f"serial port {port} is not there"
        if not os.access(port, os.R_OK | os.W_OK):
            return f"serial port {port} may not be opened by this user"
        if self.probe is None or self.probe.startswith(REMOTE):
            return ""
        serials = usb_serials()
        if serials and bare_serial(self.probe) not in serials:
            return f"debug probe {self.probe} is not on USB"
        return ""

    @property
    def _lock_fds(self) -> tuple[int, ...]:
        """What a tool inherits, so that the place stays locked while it has the probe."""
        return self.lock.fds if self.lock is not None else ()

    def now(self) -> float:
        """Seconds of this machine's clock."""
        return time.monotonic()

    def fault(self) -> str | None:
        """None: hardware tells of its faults over the serial port only."""
        return None

    def close(self) -> None:
        """Frees the meter."""
        if self._meter is not None:
            self._meter.close()
            self._meter = None
