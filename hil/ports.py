"""What is plugged in: serial ports, and which board each belongs to by its USB ids."""

from __future__ import annotations

from dataclasses import dataclass

from serial.tools import list_ports

from hil.board import board_ids, get_board


@dataclass(frozen=True, slots=True)
class AttachedPort:
    """One serial port; `board` is None when its USB ids belong to none of boards/."""

    path: str
    board: str | None
    serial_number: str | None
    text: str


def attached_ports() -> list[AttachedPort]:
    """Serial ports on USB, by path. Ports without USB ids are on the mainboard and left out."""
    boards = {usb: board for board in board_ids() for usb in get_board(board).link.usb_ids}
    ports = [port for port in list_ports.comports() if port.vid is not None]
    return sorted(
        (
            AttachedPort(
                path=port.device,
                board=boards.get(f"{port.vid:04x}:{port.pid:04x}"),
                serial_number=port.serial_number,
                text=f"{port.vid:04x}:{port.pid:04x} {port.product or ''}".strip(),
            )
            for port in ports
        ),
        key=lambda port: port.path,
    )
