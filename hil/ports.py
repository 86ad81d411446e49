"""What is plugged in: serial ports, and which boards each may belong to by its USB ids."""

from __future__ import annotations

from dataclasses import dataclass

from serial.tools import list_ports

from hil.board import board_ids, get_board


@dataclass(frozen=True, slots=True)
class AttachedPort:
    """One serial port; `boards` have its USB ids: none, or several with the same debugger."""

    path: str
    boards: tuple[str, ...]
    serial_number: str | None
    text: str


def attached_ports() -> list[AttachedPort]:
    """Serial ports on USB, by path. Ports without USB ids are on the mainboard and left out."""
    usb_ids = {board: get_board(board).link.usb_ids for board in board_ids()}
    ports = [port for port in list_ports.comports() if port.vid is not None]
    return sorted(
        (
            AttachedPort(
                path=port.device,
                boards=tuple(
                    board for board in usb_ids if f"{port.vid:04x}:{port.pid:04x}" in usb_ids[board]
                ),
                serial_number=port.serial_number,
                text=f"{port.vid:04x}:{port.pid:04x} {port.product or ''}".strip(),
            )
            for port in ports
        ),
        key=lambda port: port.path,
    )
