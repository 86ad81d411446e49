"""Which boards a serial port may belong to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from serial.tools import list_ports

from hil.ports import attached_ports


def _port(device: str, vid: int | None, pid: int | None) -> SimpleNamespace:
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number="7", product="probe")


def test_ports_are_told_by_their_usb_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards with the same debugger cannot be told apart: all of them are named."""
    ports = [
        _port("/dev/ttyACM1", 0x0483, 0x374B),
        _port("/dev/ttyACM0", 0x1366, 0x1015),
        _port("/dev/ttyACM2", 0x1234, 0x5678),
        _port("/dev/ttyS0", None, None),
    ]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)

    found = {port.path: port.boards for port in attached_ports()}

    assert found["/dev/ttyACM0"] == ("nrf52840_dk",)
    assert {"nucleo_l4r5zi", "stm32f746g_disco"} <= set(found["/dev/ttyACM1"])
    assert found["/dev/ttyACM2"] == ()
    assert "/dev/ttyS0" not in found
