"""What is plugged in: serial ports, which boards each may belong to, and names that stay theirs.

A port is /dev/ttyACM0 until the board is plugged in anew, or its debugger restarts; then it may be
any other. Stable names are those that udev makes of the serial number (/dev/serial/by-id/...) or of
the socket (/dev/serial/by-path/...), and `usb:SERIAL` or `usb:SERIAL:INTERFACE`, which is looked up
in pyserial's list each time it is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serial.tools import list_ports

from hil.board import board_ids, get_board
from hil.errors import LinkError

USB = "usb:"
USB_DEVICES = Path("/sys/bus/usb/devices")  # Linux
_BY_ID = Path("/dev/serial/by-id")
_BY_PATH = Path("/dev/serial/by-path")
_UNSTABLE = re.compile(r"/dev/(cu\.|tty\.?)(ACM|USB|usbmodem|usbserial)[^/]*|(\\\\\.\\)?COM\d+")
_INTERFACE = re.compile(r":[^.:]*\.(\d+)$")  # of "1-1.2:1.0", a USB location


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


def same_serial(one: str | None, other: str | None) -> bool:
    """Whether two serial numbers are one; tools drop the leading zeros of J-Link's, or the case."""
    if not one or not other:
        return False
    return bare_serial(one) == bare_serial(other)


def bare_serial(serial: str) -> str:
    """A serial number without what tools write differently: case, and zeros before digits."""
    text = serial.strip().lower()
    return (text.lstrip("0") or "0") if text.isdecimal() else text


def interface_of(port: Any) -> int | None:
    """Number of the USB interface behind one of pyserial's ports; None when there is only one."""
    match = _INTERFACE.search(getattr(port, "location", None) or "")
    return int(match[1]) if match else None


def usb_serials() -> set[str]:
    """Serial numbers of all USB devices, bare; empty where the kernel does not list them so."""
    serials = set()
    for file in USB_DEVICES.glob("*/serial"):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # it has just been unplugged
            serials.add(bare_serial(file.read_text(encoding="utf-8")))
    return serials


def why_not_stable(name: str) -> str:
    """Why a port's name is none to write down, with the one to write instead; empty if it is."""
    if name.startswith(USB):
        serial, _, interface = name.removeprefix(USB).partition(":")
        if not serial or (interface and not interface.isdecimal()):
            return f"{name!r} should be usb:SERIAL or usb:SERIAL:INTERFACE, the latter a number"
        return ""
    if is_pseudo_terminal(name):
        return (
            f"{name} is a pseudo terminal, no physical board's port; an emulated board says "
            "virtual = true and needs no port"
        )
    if _UNSTABLE.fullmatch(name) is None:
        return ""
    stable = stable_name(name)
    advice = (
        f"write {stable!r}"
        if stable
        else "plug the board in and run hil lab scan, which finds the name that stays"
    )
    return f"{name} is another board's after the next reboot or replug; {advice}"


def is_pseudo_terminal(name: str) -> bool:
    """Whether the path is, or leads to, the end of a pty."""
    return os.path.realpath(name).startswith("/dev/pts/")


def stable_name(device: str, by_id: Path = _BY_ID, by_path: Path = _BY_PATH) -> str | None:
    """A name that stays, of a port that is attached; None when it is not, or has none.

    By serial number if it has one, else by the socket that it must then stay in.
    """
    if link := _link_to(device, by_id):
        return link
    ports = list(list_ports.comports())
    found = next((port for port in ports if port.device == device and port.serial_number), None)
    if found is None:
        return _link_to(device, by_path)
    serial = found.serial_number
    siblings = [port for port in ports if same_serial(port.serial_number, serial)]
    interface = interface_of(found)
    if len(siblings) > 1 and interface is not None:
        return f"{USB}{serial}:{interface}"
    return f"{USB}{serial}" if len(siblings) == 1 else _link_to(device, by_path)


def _link_to(device: str, folder: Path) -> str | None:
    """The link of a folder that leads to a device."""
    for link in sorted(folder.iterdir()) if folder.is_dir() else ():
        if os.path.realpath(link) == os.path.realpath(device):
            return str(link)
    return None


def resolve_port(name: str) -> str:
    """The path to open now for a port of lab.toml.

    Raises LinkError: it is not plugged in, several interfaces have the serial number, or it leads
    to a pseudo terminal.
    """
    # udev's links are resolved by opening them
    path = _resolve_usb(name) if name.startswith(USB) else name
    if is_pseudo_terminal(path):
        raise LinkError(name, f"leads to the pseudo terminal {os.path.realpath(path)}, no board")
    return path


def _resolve_usb(name: str) -> str:
    serial, _, interface = name.removeprefix(USB).partition(":")
    ports = [p for p in list_ports.comports() if same_serial(p.serial_number, serial)]
    if interface:
        ports = [p for p in ports if (interface_of(p) or 0) == int(interface)]
    if not ports:
        raise LinkError(name, "is not plugged in; hil boards lists what is attached")
    if len(ports) > 1:
        numbers = sorted({interface_of(p) or 0 for p in ports})
        names = ", ".join(f"{USB}{serial}:{number}" for number in numbers)
        raise LinkError(name, f"there are {len(ports)} interfaces; name one: {names}")
    device: str = ports[0].device
    return device


def is_attached(name: str | None) -> bool:
    """Whether a port of lab.toml is there now."""
    try:
        return name is not None and os.path.exists(resolve_port(name))
    except LinkError:
        return False
