"""A physical board as a place: a serial port, and a debug probe that flashes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil import flash
from hil.board import Board


class HardwarePlace:
    """One board that is plugged in; nothing is held open between its methods.

    Args:
        name: of the place in lab.toml.
        board: the type of board.
        port: path of its serial port.
        probe: serial number of its debug probe; None when only one is plugged in.
    """

    source: Literal["hardware"] = "hardware"
    timing_model: str | None = None

    def __init__(self, name: str, board: Board, *, port: str, probe: str | None) -> None:
        self.name, self.board, self.port = name, board, port
        self._probe = probe

    def flash(self, elf: Path) -> None:
        """Programs, verifies and starts an image; raises FlashError."""
        flash.program(self.board, elf, place=self.name, probe_id=self._probe)

    def fault(self) -> str | None:
        """None: hardware tells of its faults over the serial port only."""
        return None

    def close(self) -> None:
        """Nothing is held open."""
