from __future__ import annotations

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


def test_every_finding_that_is_not_ok_says_how_to_mend_it():
    assert all(finding.mend for finding in examine() if finding.state != "ok")


def test_a_folder_of_models_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HIL_MODELS", str(tmp_path))

    assert found("HIL_MODELS").state == "ok"
