from __future__ import annotations

from pathlib import Path

import pytest

from hil import doctor
from hil.doctor import examine


@pytest.fixture(autouse=True)
def lab_file(tmp_path, monkeypatch):
    path = tmp_path / "lab.toml"
    monkeypatch.setenv("HIL_LAB", str(path))
    monkeypatch.setattr(doctor, "_virtual_places", list)  # they take seconds; the bench opens them
    return path


def found(what):
    return next(finding for finding in examine() if what in finding.what)


def test_a_compiler_that_is_missing_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    finding = found("arm-none-eabi-gcc")

    assert finding.state == "missing"
    assert "apt-get install gcc-arm-none-eabi" in finding.mend


def test_without_a_lab_file_all_is_well():
    assert found("lab.toml").state == "optional"


def test_a_broken_lab_file_is_told(lab_file):
    lab_file.write_text("[places")

    finding = found("lab.toml")

    assert finding.state == "missing"
    assert "not valid TOML" in finding.seen


def test_a_board_that_is_not_plugged_in_is_told(lab_file):
    lab_file.write_text('[places.desk]\nboard = "nrf52840_dk"\nport = "/dev/no_such"\n')

    finding = found("place desk")

    assert (finding.state, finding.seen) == ("missing", "no /dev/no_such")


def test_a_library_of_tflm_that_is_not_there_is_told(lab_file):
    lab_file.write_text('[tflm]\nlibrary = "/no/lib.a"\ninclude_dirs = []\n')

    assert found("engine tflm").state == "missing"


@pytest.fixture
def usb(tmp_path, monkeypatch):
    """The kernel's folder of USB devices, with one hub."""
    monkeypatch.setattr(doctor, "USB_DEVICES", tmp_path)

    def plug(name, vendor, product):
        (tmp_path / name).mkdir()
        for file, text in (
            ("idVendor", vendor),
            ("idProduct", product),
            ("busnum", "999"),
            ("devnum", "1"),
        ):
            (tmp_path / name / file).write_text(f"{text}\n")

    plug("usb1", "1d6b", "0002")
    return plug


def test_a_probe_that_this_user_may_not_open_is_told_with_the_rules_to_install(usb):
    usb("1-1", "1366", "1015")
    usb("1-2", "0483", "374b")
    usb("1-3", "046d", "c31c")  # a keyboard
    (Path(doctor.USB_DEVICES) / "1-1:1.0").mkdir()  # an interface

    findings = [f for f in examine() if f.what.startswith("USB access")]

    assert [f.what for f in findings] == ["USB access to a J-Link", "USB access to an ST-LINK"]
    assert all(f.state == "missing" and "60-hil.rules" in f.mend for f in findings)


def test_without_the_rules_they_are_recommended(usb, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_RULES_DIRS", (str(tmp_path),))
    assert found("USB access").state == "optional"

    (tmp_path / "60-hil.rules").touch()
    assert found("USB access").state == "ok"


def test_every_device_that_is_looked_for_has_a_rule():
    rules = (Path(doctor.__file__).parents[1] / "boards" / doctor.RULES).read_text()

    for ids in doctor.BENCH_DEVICES:
        vendor, _, product = ids.partition(":")
        lines = [line for line in rules.splitlines() if f'"{vendor}"' in line]
        assert lines
        assert any(product in line for line in lines)


def test_a_folder_for_locks_that_cannot_be_used_is_told(monkeypatch):
    monkeypatch.setenv("HIL_LOCKS", "/no/such/folder")

    assert found("locks of places").state == "missing"


def test_every_finding_that_is_not_ok_says_how_to_mend_it():
    assert all(finding.mend for finding in examine() if finding.state != "ok")


def test_a_folder_of_models_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HIL_MODELS", str(tmp_path))

    assert found("HIL_MODELS").state == "ok"
