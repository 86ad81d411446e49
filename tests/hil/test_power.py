"""Switches: fakes of uhubctl, of the kernel's files and of a command; nothing else loses power."""

from __future__ import annotations

import os
import sys
import time

import pytest

from hil import power
from hil.errors import MeterError, PowerError
from hil.power import PowerEntry, cycle, kinds, set_power

#: A hub with a file for each socket; behaves as uhubctl 2.5.0 prints, with its -e.
UHUBCTL = """#!{python}
import pathlib, sys
root = pathlib.Path({root!r})
args = sys.argv[1:]
(root / "calls").open("a").write(" ".join(args) + "\\n")
assert args[0] == "-e"
hub, ports = args[args.index("-l") + 1], args[args.index("-p") + 1]
action = args[args.index("-a") + 1] if "-a" in args else None
if not (root / hub).is_dir():
    print(f"No compatible devices detected at location {{hub}}!", file=sys.stderr)
    sys.exit(1)
ports = list(ports) if (root / "digits").exists() else [ports]
def show(which):
    print(f"{{which}} status for hub {{hub}} [2109:2811 VIA Labs, Inc. USB2.0 Hub, USB 2.10]")
    for port in ports:
        file = root / hub / port
        if file.exists():
            print(f"  Port {{port}}: {{file.read_text()}}")
show("Current")
if action:
    for port in ports:
        if not (root / "stuck").exists():
            (root / hub / port).write_text("0000 off" if action == "off" else "0103 power enable")
    print(f"Sent power {{action}} request")
    show("New")
"""
ON = "0503 power highspeed enable connect [1366:1015 SEGGER J-Link 000683]"
ENTRY = PowerEntry("uhubctl", location="1-1.4", port=2, off_s=0.01)


@pytest.fixture
def hubs(tmp_path, monkeypatch):
    """A folder of hubs that a fake uhubctl on the PATH switches; 1-1.4 has four sockets, on."""
    root = tmp_path / "hubs"
    for hub in ("1-1.4", "2-3", "2-9"):
        (root / hub).mkdir(parents=True)
        for port in range(1, 5):
            (root / hub / str(port)).write_text(ON)
    tool = tmp_path / "bin" / "uhubctl"
    tool.parent.mkdir()
    tool.write_text(UHUBCTL.format(python=sys.executable, root=str(root)))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(power, "USB_DEVICES", tmp_path / "devices")
    return root


def is_on(root):
    return {
        f"{path.parent.name} {path.name}": "power" in path.read_text()
        for path in sorted(root.glob("*/[0-9]*"))
    }


def make_port(devices, hub, port, peer=None):
    """A socket as the kernel shows it."""
    interface = f"{hub.removeprefix('usb')}-0" if hub.startswith("usb") else hub
    folder = devices / f"{interface}:1.0" / f"{hub}-port{port}"
    folder.mkdir(parents=True)
    (folder / "disable").write_text("0")
    if peer is not None:
        (folder / "peer").symlink_to(f"../../{peer[0]}:1.0/{peer[0]}-port{peer[1]}")
    return folder / "disable"


def test_uhubctl_switches_the_one_socket_and_no_other(hubs):
    set_power(ENTRY, False, place="desk")

    assert [name for name, on in is_on(hubs).items() if not on] == ["1-1.4 2"]
    set_power(ENTRY, True, place="desk")
    assert all(is_on(hubs).values())


def test_uhubctl_switches_both_halves_of_a_usb_3_hub(hubs, tmp_path):
    """Else the board runs on from the other half. The kernel knows which hub that is."""
    make_port(tmp_path / "devices", "1-1.4", 2, peer=("2-3", 2))

    set_power(ENTRY, False, place="desk")

    assert [name for name, on in is_on(hubs).items() if not on] == ["1-1.4 2", "2-3 2"]


def test_the_root_hub_has_another_name_for_uhubctl_than_for_the_kernel(hubs, tmp_path):
    for root in ("1", "2"):
        (hubs / root).mkdir()
        (hubs / root / "3").write_text(ON)
    make_port(tmp_path / "devices", "usb1", 3, peer=("usb2", 3))

    set_power(PowerEntry("uhubctl", location="1", port=3), False, place="desk")

    assert [name for name, on in is_on(hubs).items() if not on] == ["1 3", "2 3"]


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("1-1.4.2", ("1-1.4", 2)),
        ("1-1.4.2:1.0", ("1-1.4", 2)),
        ("2-3.1", ("2-3", 1)),
        ("1-1.5.2", None),
        ("1-3", None),
        ("", None),
    ],
)
def test_the_switch_of_a_device_is_its_socket_of_a_hub_that_switches(hubs, location, found):
    entry = power.find_switch(location)

    assert found == (entry and (entry.location, entry.port))
    assert all(is_on(hubs).values())


def test_a_version_of_uhubctl_that_reads_12_as_1_and_2_switches_nothing(hubs):
    (hubs / "digits").touch()
    entry = PowerEntry("uhubctl", location="1-1.4", port=12)

    with pytest.raises(PowerError, match=r"desk: uhubctl: uhubctl would switch 1-1.4 socket 1"):
        set_power(entry, False, place="desk")
    assert all(is_on(hubs).values())


def test_a_hub_that_only_pretends_to_switch_is_found_out(hubs):
    (hubs / "stuck").touch()

    with pytest.raises(PowerError, match="still on after switching it off"):
        set_power(ENTRY, False, place="desk")


def test_a_hub_that_is_not_there_is_told_in_uhubctls_words(hubs):
    entry = PowerEntry("uhubctl", location="1-7", port=2)

    with pytest.raises(PowerError, match="ended with code 1: No compatible devices"):
        set_power(entry, False, place="desk")


def test_without_uhubctl_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PowerError, match="uhubctl is not installed"):
        set_power(ENTRY, False, place="desk")


def test_sysfs_disables_a_socket_and_its_other_half(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "USB_DEVICES", tmp_path)
    first = make_port(tmp_path, "1-1.4", 2, peer=("2-1.4", 2))
    second = make_port(tmp_path, "2-1.4", 2, peer=("1-1.4", 2))
    other = make_port(tmp_path, "1-1.4", 3)
    entry = PowerEntry("sysfs", hub="1-1.4", port=2)

    set_power(entry, False, place="desk")
    assert [file.read_text() for file in (first, second, other)] == ["1", "1", "0"]

    set_power(entry, True, place="desk")
    assert [file.read_text() for file in (first, second, other)] == ["0", "0", "0"]


def test_sysfs_knows_root_hubs(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "USB_DEVICES", tmp_path)
    file = make_port(tmp_path, "usb1", 2)

    set_power(PowerEntry("sysfs", hub="usb1", port=2), False, place="desk")

    assert file.read_text() == "1"


def test_sysfs_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "USB_DEVICES", tmp_path)
    entry = PowerEntry("sysfs", hub="1-1.4", port=2)

    with pytest.raises(PowerError, match=r"Linux 6\.0 or newer"):
        set_power(entry, False, place="desk")

    make_port(tmp_path, "1-1.4", 2).unlink()
    (tmp_path / "1-1.4:1.0" / "1-1.4-port2" / "disable").mkdir()  # as unwritable for root, too
    with pytest.raises(PowerError, match=r"60-hil\.rules"):
        set_power(entry, False, place="desk")


class SupplyingMeter:
    def __init__(self, error=None):
        self.states = []
        self.error = error

    def set_power(self, on):
        if self.error is not None:
            raise self.error
        self.states.append(on)


def test_a_meter_that_supplies_the_board_is_a_switch():
    meter = SupplyingMeter()

    cycle(PowerEntry("meter", off_s=0), place="desk", meter=meter)

    assert meter.states == [False, True]


def test_a_meter_that_is_missing_or_fails_is_told():
    with pytest.raises(PowerError, match="has no meter"):
        set_power(PowerEntry("meter"), True, place="desk")
    with pytest.raises(PowerError, match="desk: meter: energy meter ppk2 at x: gone"):
        set_power(
            PowerEntry("meter"),
            True,
            place="desk",
            meter=SupplyingMeter(MeterError("ppk2 at x", "gone")),
        )


def command(tmp_path, off="open(sys.argv[1], 'a').write('off ')"):
    def call(code):
        return (sys.executable, "-c", f"import sys; {code}", str(tmp_path / "log"))

    on = "open(sys.argv[1], 'a').write('on ')"
    return PowerEntry("command", on=call(on), off=call(off), off_s=0)


def test_any_command_is_a_switch_and_no_shell_reads_it(tmp_path):
    cycle(command(tmp_path), place="desk")

    assert (tmp_path / "log").read_text() == "off on "
    entry = PowerEntry("command", on=("echo", "; exit 1"), off=("false",))
    set_power(entry, True, place="desk")


def test_a_board_is_switched_on_again_even_when_switching_off_failed(tmp_path):
    entry = command(tmp_path, off="sys.exit('the relay is stuck')")

    with pytest.raises(PowerError, match="ended with code 1: the relay is stuck"):
        cycle(entry, place="desk")

    assert (tmp_path / "log").read_text() == "on "


def test_a_command_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(power, "TOOL_S", 0.2)
    entry = PowerEntry("command", on=("sleep", "300"), off=("sleep", "300"))
    started = time.monotonic()

    with pytest.raises(PowerError, match="did not end within"):
        set_power(entry, True, place="desk")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "relay"}, f"'relay'; known are {', '.join(kinds())}"),
        ({"kind": "uhubctl", "port": 1}, "missing key 'location'"),
        ({"kind": "uhubctl", "location": "1-1"}, "missing key 'port'"),
        ({"kind": "uhubctl", "location": "hub", "port": 1}, "such as '1-1.4'"),
        ({"kind": "uhubctl", "location": "1-1", "port": 40}, "1 to 31"),
        ({"kind": "sysfs", "hub": "../1-1", "port": 1}, "such as '1-1.4'"),
        ({"kind": "sysfs", "hub": "1-1", "port": 1, "on": ("x",)}, "'on' is not for kind 'sysfs'"),
        ({"kind": "command", "on": ("x",)}, "missing key 'off'"),
        ({"kind": "meter", "off_s": 3600.0}, "0 to 60"),
    ],
)
def test_a_table_that_no_switch_understands_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PowerEntry(**values)
