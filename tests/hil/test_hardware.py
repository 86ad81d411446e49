"""A physical place without a board: tools, ports and USB are files and scripts here."""

from __future__ import annotations

import sys

import pytest

from hil import flash, hardware, meters, ports
from hil.board import get_board
from hil.errors import LinkError, MeterError, PowerError
from hil.hardware import HardwarePlace
from hil.lab import MeterEntry, PlaceEntry
from hil.locks import PlaceLock
from hil.power import PowerEntry


@pytest.fixture
def usb(tmp_path, monkeypatch):
    """A folder that is the machine: `port` is there while the board has power."""
    monkeypatch.setattr(ports, "USB_DEVICES", tmp_path / "devices")
    (tmp_path / "devices" / "1-1").mkdir(parents=True)
    (tmp_path / "devices" / "1-1" / "serial").write_text("000683012345\n")
    (tmp_path / "port").touch()
    return tmp_path


def script(usb, code):
    return (sys.executable, "-c", f"import pathlib; usb = pathlib.Path({str(usb)!r}); {code}")


def place_of(usb, **values):
    entry = PlaceEntry("nrf52840_dk", str(usb / "port"), "683012345", **values)
    return HardwarePlace("desk", get_board("nrf52840_dk"), entry)


def switch(usb, on="(usb / 'port').touch()"):
    off = "(usb / 'port').unlink()"
    return PowerEntry("command", on=script(usb, on), off=script(usb, off), off_s=0)


def test_a_board_behind_a_meter_has_its_supply_before_it_is_flashed(usb, monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(meters, "open_meter", lambda kind, **given: done.append(kind))
    monkeypatch.setattr(flash, "program", lambda *_, **given: done.append("flashed"))
    place = place_of(usb, meter=MeterEntry("joulescope", serial="1234"))

    place.flash(tmp_path / "x.elf")

    assert done == ["joulescope", "flashed"]


def test_nothing_is_missing_while_port_and_probe_are_there(usb):
    place = place_of(usb)
    assert place.missing() == ""

    (usb / "devices" / "1-1" / "serial").write_text("other")
    assert "debug probe 683012345 is not on USB" in place.missing()
    (usb / "port").unlink()
    assert "serial port" in place.missing()


def test_a_probe_on_another_machine_is_not_looked_for_on_usb(usb):
    entry = PlaceEntry("nrf52840_dk", str(usb / "port"), "remote:bench7:5555")

    assert HardwarePlace("desk", get_board("nrf52840_dk"), entry).missing() == ""


def test_a_power_cycle_ends_when_port_and_probe_are_back(usb):
    """Here the port comes some time after the supply, as with any debugger."""
    later = "import subprocess; subprocess.Popen(['sh', '-c', f'sleep 0.3; touch {usb}/port'])"
    detached = later.replace("'])", "'], start_new_session=True)")
    place = place_of(usb, power=switch(usb, on=detached))

    assert place.can_power_cycle
    place.power_cycle()

    assert place.missing() == ""


def test_a_board_that_does_not_come_back_is_an_error(usb, monkeypatch):
    monkeypatch.setattr(hardware, "BACK_S", 0.2)
    place = place_of(usb, power=switch(usb, on="pass"))

    with pytest.raises(PowerError, match=r"power of desk: serial port .* is not there 0 s after"):
        place.power_cycle()


def test_without_a_switch_it_is_told_to_pull_the_plug(usb):
    place = place_of(usb)

    assert not place.can_power_cycle
    with pytest.raises(PowerError, match="names no switch"):
        place.power_cycle()


def test_the_port_is_looked_up_each_time(usb, monkeypatch):
    place = HardwarePlace("desk", get_board("nrf52840_dk"), PlaceEntry("nrf52840_dk", "usb:1"))
    monkeypatch.setattr(ports.list_ports, "comports", list)

    with pytest.raises(LinkError, match="not plugged in"):
        _ = place.port


def test_tools_get_probe_method_and_lock(usb, monkeypatch):
    calls = []
    monkeypatch.setattr(flash, "program", lambda board, elf, **options: calls.append(options))
    monkeypatch.setattr(flash, "reset", lambda board, **options: calls.append(options))
    place = place_of(usb, flash="openocd")

    with PlaceLock(["k"], place="desk", wait_s=0) as lock:
        place.lock = lock
        place.flash(usb / "x.elf")
        place.reset()
        expected = {
            "place": "desk",
            "probe": "683012345",
            "method": "openocd",
            "pass_fds": lock.fds,
        }
    assert calls == [expected, expected]


def test_a_meter_that_is_not_plugged_in_is_an_error_of_the_meter(usb, monkeypatch):
    monkeypatch.setattr(ports.list_ports, "comports", list)
    place = place_of(usb, meter=MeterEntry("ppk2", port="usb:E6:1"))

    with pytest.raises(MeterError, match="ppk2 of desk: is not plugged in"):
        _ = place.meter


def test_a_board_behind_a_meter_has_power_before_a_tool_comes(usb, monkeypatch):
    done = []
    monkeypatch.setattr(meters, "open_meter", lambda *_, **__: done.append("meter") or Meter())
    monkeypatch.setattr(flash, "program", lambda *_, **__: done.append("flash"))
    monkeypatch.setattr(flash, "reset", lambda *_, **__: done.append("reset"))
    place = place_of(usb, meter=MeterEntry("joulescope"))

    place.reset()
    place.flash(usb / "x.elf")

    assert done == ["meter", "reset", "flash"]
    place.close()


class Meter:
    def close(self):
        pass
