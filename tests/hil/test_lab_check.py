"""Places are proved against virtual boards, whole ones and ones with faults."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from boards import FakePlace
from hil import lab_check, ports
from hil.board import get_board
from hil.cli import main
from hil.errors import BuildError, MeterError
from hil.health import Ledger
from hil.lab import lab_path, read_lab
from hil.lab_check import Check, check_place
from hil.locks import PlaceLock, SlotLock, place_keys
from hil.meters import SelfTest
from hil.virtual.options import VirtualOptions
from hil.virtual.place import VirtualPlace

NRF = "virtual:nrf52840_dk"


@pytest.fixture(autouse=True)
def lab_file(tmp_path, monkeypatch):
    path = tmp_path / "lab.toml"
    path.write_text('[places.twin]\nboard = "nrf52840_dk"\nvirtual = true\ntags = ["nightly"]\n')
    monkeypatch.setenv("HIL_LAB", str(path))
    monkeypatch.setenv("HIL_LEDGER", str(tmp_path / "lab.sqlite"))
    return path


@pytest.fixture
def hil(monkeypatch, capsys):
    """Runs the command line; gives exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["hil", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def states(steps):
    return {step.what: step.state for step in steps}


def lock_of(place):
    lab = read_lab()
    return PlaceLock(place_keys(place, lab.places[place], lab_path()), place=place, wait_s=0)


def test_every_step_is_taken_also_in_quarantine_and_all_of_it_is_in_the_json(hil):
    """The check is how somebody finds out whether to release a place."""
    with Ledger() as ledger:
        ledger.quarantine("twin", "it smokes")

    code, out, _ = hil("lab", "check", "tag:nightly", "--json")

    steps = json.loads(out)
    assert code == 0
    assert {step["what"]: step["state"] for step in steps} == {
        "free": "ok",
        "quarantine": "skipped",
        "plugged in": "ok",
        "probe": "skipped",
        "flash": "ok",
        "serial port": "ok",
        "clock": "ok",
        "trigger pin": "skipped",
        "power switch": "ok",
    }
    assert set(steps[0]) == {"place", "what", "state", "seen", "mend", "seconds"}
    assert "it smokes" in steps[1]["seen"]
    with Ledger() as ledger:
        assert ledger.quarantined("twin") == "it smokes"


def test_a_board_with_probe_and_meter_is_flashed_through_it_and_its_trigger_seen():
    steps = {step.what: step for step in check_place(f"{NRF}?flash=pyocd&meter=ppk2")}

    assert {step.state for step in steps.values()} == {"ok"}
    assert "remote:127.0.0.1" in steps["probe"].seen
    assert "ppk2" in steps["trigger pin"].seen


def test_a_clock_that_is_ten_percent_off_is_found_and_is_a_line_in_the_ledger(lab_file):
    lab_file.write_text(lab_file.read_text() + 'faults = ["slow_clock"]\n')

    steps = {step.what: step for step in check_place("twin")}

    assert steps["serial port"].state == "ok"
    assert steps["clock"].state == "failed"
    assert "64,000,000 Hz" in steps["clock"].seen
    assert "crystal" in steps["clock"].mend
    with Ledger() as ledger:
        assert [(line.event, line.error) for line in ledger.events("twin")] == [
            ("check", "ClockMismatch")
        ]


def test_what_needs_a_step_that_failed_is_skipped(monkeypatch):
    def fail(*_):
        raise BuildError("echo", "no compiler", Path("log"))

    place = FakePlace()
    monkeypatch.setattr(lab_check, "open_place", lambda *_, **__: contextlib.nullcontext(place))
    monkeypatch.setattr(lab_check, "build", fail)
    try:
        steps = states(check_place("virtual:fake"))
    finally:
        place.close()

    assert (steps["flash"], steps["serial port"], steps["clock"]) == (
        "failed",
        "skipped",
        "skipped",
    )
    assert (place.resets, place.power_cycles) == (1, 1)


def test_a_place_in_use_is_not_touched():
    with lock_of("twin"):
        steps = list(check_place("twin"))

    assert states(steps) == {"free": "failed"}
    assert "in use by" in steps[0].seen


def test_with_a_load_only_the_meter_is_tried(monkeypatch):
    monkeypatch.setattr("hil.meters.self_test", lambda meter, ohm: SelfTest(ohm, 3000, 3000, True))
    steps = lab_check._Steps("desk")

    class Desk:
        source = "hardware"
        meter = dataclasses.make_dataclass("Meter", ["name"])("ppk2 at x")

    steps.place = Desk()
    assert steps.take("meter", lambda: steps.load(1000.0)).state == "ok"

    monkeypatch.setattr("hil.meters.self_test", lambda meter, ohm: SelfTest(ohm, 1, 3000, False))
    with pytest.raises(MeterError, match="ppk2 at x: 1,000 ohm"):
        steps.load(1000.0)


def test_the_command_shows_steps_as_they_come_and_ends_with_1_if_any_failed(hil, monkeypatch):
    steps = [
        Check("twin", "flash", "ok", "9,760 B written", seconds=1.25),
        Check("twin", "clock", "failed", "too slow\x1b", "fit a crystal"),
        Check("twin", "trigger pin", "skipped", "no meter"),
    ]
    monkeypatch.setattr(lab_check, "check_place", lambda name, load_ohm: iter(steps))

    code, out, err = hil("lab", "check")

    assert code == 1
    assert out.splitlines() == [
        "twin  ok       flash         9,760 B written (1.2 s)",
        "twin  failed   clock         too slow?",
        "               to mend: fit a crystal",
        "twin  skipped  trigger pin   no meter",
    ]
    assert "1 ok, 1 failed, 1 skipped" in err


def test_no_advice_is_hidden_behind_that_of_a_more_general_error():
    kinds = [kind for kind, _ in lab_check._MENDS]

    assert not [
        (first, later)
        for number, first in enumerate(kinds)
        for later in kinds[number + 1 :]
        if issubclass(later, first)
    ]


def test_nothing_to_check_is_an_error_that_says_what_to_do(hil, lab_file):
    lab_file.unlink()

    code, _, err = hil("lab", "check")

    assert code == 2
    assert "hil lab scan" in err
    code, _, err = hil("lab", "check", "desk")
    assert code == 2
    assert "'desk'" in err


def test_a_quarantine_ends_when_somebody_says_so(hil):
    with Ledger() as ledger:
        ledger.quarantine("twin", "it smokes")

    _, out, _ = hil("boards")
    assert "in quarantine since" in out
    assert "it smokes; hil lab release twin" in out
    assert hil("lab", "release", "twin")[:2] == (0, "twin is in use again\n")
    assert hil("lab", "release", "twin")[:2] == (0, "twin was not in quarantine\n")
    assert hil("lab", "release", "nobody")[0] == 2
    assert "quarantine" not in hil("boards")[1]


def test_health_shows_what_the_ledger_has_of_a_place(hil):
    with Ledger() as ledger:
        ledger.add("twin", "fault", "nothing came", "reset", error="LinkTimeout")
        ledger.add_wear("twin", erased_sectors=3, written_bytes=12288)

    code, out, _ = hil("lab", "health")

    assert code == 0
    assert "twin: 0 failures in a row; 1 images loaded, 3 sectors erased, 12,288 B" in out
    assert "1 x fault LinkTimeout" in out
    assert "fault LinkTimeout: nothing came; reset" in out
    (place,) = json.loads(hil("lab", "health", "twin", "--lines", "0", "--json")[1])
    assert (place["lines"], place["totals"][0]["count"]) == ([], 1)
    assert hil("lab", "health", "nobody")[0] == 2


def test_boards_shows_who_has_a_place_since_when(hil):
    with lock_of("twin"), SlotLock(NRF, "nrf52840_dk"):
        _, out, _ = hil("boards")
        _, text, _ = hil("boards", "--json")

    assert out.count("in use by") == 2
    values = json.loads(text)
    place = next(place for place in values["places"] if place["place"] == "twin")
    assert place["holder"]["pid"] == os.getpid()
    assert place["holder"]["since"]
    assert sorted(holder["place"] for holder in values["in_use"]) == ["twin", NRF]


def test_a_scan_with_nothing_plugged_in_says_so(hil, monkeypatch):
    monkeypatch.setattr("hil.lab_scan.list_ports.comports", list)
    monkeypatch.setattr("hil.lab_scan.find_meters", list)
    monkeypatch.setattr("hil.lab_scan.list_probes", lambda: ([], ""))

    code, _, err = hil("lab", "scan")

    assert code == 0
    assert "nothing is plugged in" in err


@pytest.fixture
def cabled(lab_file, tmp_path, monkeypatch):
    """A virtual board with probe and meter, seen through the eyes of a physical place."""
    monkeypatch.setattr(ports, "is_pseudo_terminal", lambda path: False)
    monkeypatch.setattr(ports, "USB_DEVICES", tmp_path / "no_sysfs")
    with VirtualPlace(get_board("nrf52840_dk"), VirtualOptions(meter="ppk2")) as board:
        attached = [
            SimpleNamespace(device=board.port, serial_number="000683", location="1-1:1.0"),
            SimpleNamespace(device=board._meter_port, serial_number="E6", location="1-2:1.1"),
        ]
        monkeypatch.setattr(ports.list_ports, "comports", lambda: attached)
        lab_file.write_text(
            '[places.desk]\nboard = "nrf52840_dk"\nport = "usb:683:0"\n'
            f'probe = "{board.probe}"\nflash = "pyocd"\n'
            'meter = {kind = "ppk2", port = "usb:E6:1", supply_mv = 3000}\n'
            'power = {kind = "meter", off_s = 0.1}\n'
        )
        yield board


def test_a_physical_place_is_proved_with_its_tools_and_only_its_clock_gives_an_emulation_away(
    cabled,
):
    """pyOCD through the probe, the port by its serial number, the meter as switch: all for real."""
    steps = {step.what: step for step in check_place("desk")}

    assert {what: step.state for what, step in steps.items()} == {
        "free": "ok",
        "quarantine": "ok",
        "plugged in": "ok",
        "probe": "ok",
        "flash": "ok",
        "serial port": "ok",
        "clock": "failed",
        "trigger pin": "ok",
        "power switch": "ok",
    }
    assert "hardware" in steps["free"].seen
    assert cabled.meter_windows()
