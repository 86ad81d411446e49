"""A physical board as a place: a serial port, and a debug probe that flashes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hil import flash
from hil.board import Board
from hil.errors import FlashError, PowerError
from hil.ports import resolve_port

if TYPE_CHECKING:
    from hil.lab import PlaceEntry
    from hil.locks import PlaceLock


class HardwarePlace:
    """One board that is plugged in; nothing is held open between its methods.

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
        self.meter: Any = None
        self._port_name = entry.port

    @property
    def port(self) -> str:
        """Path of its serial port now; raises LinkError when it is not plugged in."""
        return resolve_port(self._port_name)

    @property
    def can_power_cycle(self) -> bool:
        """Whether lab.toml names a switch."""
        return self.entry.power is not None

    def flash(self, elf: Path) -> None:
        """Programs, verifies and starts an image; raises FlashError."""
        flash.program(self.board, elf, place=self.name, probe_id=self.probe)

    def reset(self) -> None:
        """As the reset button, by the probe; raises FlashError."""
        raise FlashError(self.name, self.board.flash.method, "reset by the probe is not there yet")

    def power_cycle(self) -> None:
        """Off, on, and back on USB; raises PowerError."""
        raise PowerError(self.name, "lab.toml names no switch for it")

    def now(self) -> float:
        """Seconds of this machine's clock."""
        return time.monotonic()

    def fault(self) -> str | None:
        """None: hardware tells of its faults over the serial port only."""
        return None

    def close(self) -> None:
        """Nothing is held open."""
