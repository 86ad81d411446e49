from __future__ import annotations

from types import SimpleNamespace

import pytest

import hil.meters
from hil.errors import MeterError
from hil.meters import FoundMeter, find_meters, joulescope, open_meter


def port(usb_id, device, *, product=None, location=None, serial_number="E1"):
    vid, pid = (int(part, 16) for part in usb_id.split(":"))
    return SimpleNamespace(
        vid=vid, pid=pid, device=device, product=product, location=location,
        serial_number=serial_number,
    )  # fmt: skip


def test_meters_are_found_by_usb_ids_and_names(monkeypatch):
    ports = [
        port("1915:c00a", "/dev/ttyACM0", product="PPK2", location="1-1:1.1"),
        port("1915:c00a", "/dev/ttyACM1", product="PPK2", location="1-1:1.3"),
        port("0483:5740", "/dev/ttyACM2", product="PowerShield (Virtual COM Port)"),
        port("0483:5740", "/dev/ttyACM3", product="STM32 Virtual ComPort"),
        port("0483:374b", "/dev/ttyACM4", product="STM32 STLink"),
        SimpleNamespace(vid=None, pid=None, device="/dev/ttyS0", product=None, location=None),
    ]
    monkeypatch.setattr(hil.meters.list_ports, "comports", lambda: ports)
    monkeypatch.setattr(joulescope, "device_paths", lambda: ["u/js220/001234"])

    assert find_meters() == [
        FoundMeter("ppk2", "/dev/ttyACM0", "E1", "PPK2"),
        FoundMeter("lpm01a", "/dev/ttyACM2", "E1", "PowerShield (Virtual COM Port)"),
        FoundMeter("joulescope", None, "001234", "u/js220/001234"),
    ]


def test_an_unknown_kind_is_refused_with_those_that_are_known():
    with pytest.raises(MeterError, match="known kinds are joulescope, lpm01a, ppk2"):
        open_meter("otii", board_mv=3000)


@pytest.mark.parametrize("kind", ["ppk2", "lpm01a"])
def test_a_serial_meter_needs_a_port(kind):
    with pytest.raises(MeterError, match="needs key 'port'"):
        open_meter(kind, board_mv=3000)


@pytest.mark.parametrize("kind", ["ppk2", "lpm01a"])
def test_a_port_that_is_not_there_is_told(kind):
    with pytest.raises(MeterError, match="cannot be opened"):
        open_meter(kind, port="/dev/no_such_meter", supply_mv=3000, board_mv=3000)
