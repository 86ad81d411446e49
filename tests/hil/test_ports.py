"""Which boards a serial port may belong to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from serial.tools import list_ports

from hil.errors import LinkError
from hil.ports import (
    attached_ports,
    is_attached,
    resolve_port,
    same_serial,
    stable_name,
    why_not_stable,
)


def _port(
    device: str,
    vid: int | None,
    pid: int | None,
    serial_number: str | None = "7",
    location: str = "1-1",
) -> SimpleNamespace:
    return SimpleNamespace(
        device=device,
        vid=vid,
        pid=pid,
        serial_number=serial_number,
        product="probe",
        location=location,
    )


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What pyserial lists; a test fills it."""
    ports: list[SimpleNamespace] = []
    monkeypatch.setattr(list_ports, "comports", lambda: list(ports))
    return ports


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


def test_a_port_by_serial_number_is_looked_up_anew_each_time(plugged) -> None:
    """A debugger that restarts comes back as another ttyACM."""
    plugged.append(_port("/dev/ttyACM0", 0x1366, 0x1015, "000683012345"))
    assert resolve_port("usb:683012345") == "/dev/ttyACM0"

    plugged[0] = _port("/dev/ttyACM3", 0x1366, 0x1015, "000683012345")
    assert resolve_port("usb:000683012345") == "/dev/ttyACM3"

    plugged.clear()
    with pytest.raises(LinkError, match="not plugged in"):
        resolve_port("usb:683012345")
    assert not is_attached("usb:683012345")


def test_two_interfaces_with_one_serial_number_are_told_apart_by_their_number(plugged) -> None:
    plugged += [
        _port("/dev/ttyACM0", 0x1366, 0x1051, "683", "1-1.2:1.0"),
        _port("/dev/ttyACM1", 0x1366, 0x1051, "683", "1-1.2:1.2"),
    ]

    assert resolve_port("usb:683:2") == "/dev/ttyACM1"
    with pytest.raises(LinkError, match="usb:683:0, usb:683:2"):
        resolve_port("usb:683")


def test_an_unstable_name_comes_with_the_stable_one(plugged) -> None:
    plugged += [
        _port("/dev/ttyACM0", 0x1366, 0x1015, "683", "1-1.2:1.0"),
        _port("/dev/ttyACM1", 0x0483, 0x374B, None),
    ]

    assert "write 'usb:683'" in why_not_stable("/dev/ttyACM0")
    assert "hil lab scan" in why_not_stable("/dev/ttyACM1")
    assert why_not_stable("/dev/serial/by-id/usb-SEGGER_J-Link_000683-if00") == ""
    assert why_not_stable("/dev/ttyAMA0") == ""  # soldered on


def test_the_name_that_udev_made_is_the_first_choice(plugged, tmp_path) -> None:
    plugged.append(_port("/dev/ttyACM0", 0x1366, 0x1015, "683"))
    link = tmp_path / "usb-SEGGER_J-Link_000683-if00"
    link.symlink_to("/dev/ttyACM0")

    assert stable_name("/dev/ttyACM0", tmp_path) == str(link)


def test_serial_numbers_are_compared_as_tools_write_them() -> None:
    assert same_serial("000683012345", "683012345")
    assert same_serial("066DFF", "066dff")
    assert not same_serial("0A1", "A1")
    assert not same_serial(None, None)
