"""Switches in the supply of a board: off and on again is the last thing to try before people.

A switch is a function that sets one state, registered by the name that `kind` gives in lab.toml.
Whatever it is, only the one board that it is named for may lose its power.

A process that is killed between off and on leaves the board off. That heals by itself: a board that
is not there is power cycled, too, and every cycle ends with on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hil import child
from hil.errors import MeterError, PowerError
from hil.ports import USB_DEVICES

if TYPE_CHECKING:
    from hil.meters import Meter

TOOL_S = 30.0  # until a switch that does not answer is given up

_HUB = re.compile(r"(usb)?\d+|\d+-\d+(\.\d+)*")  # uhubctl calls a root hub 1, the kernel usb1
_MAX_PORT = 31  # of a hub, by the USB specification's port bitmap as hubs have it
_SHOWN_LINES = 3
_HUB_LINE = re.compile(r"(?:Current|New) status for hub (\S+)")
_PORT_LINE = re.compile(r"\s+Port (\d+): [0-9a-fA-F]{4}(.*)")


@dataclass(frozen=True, slots=True)
class PowerEntry:
    """The table `power` of a place in lab.toml.

    Attributes:
        kind: which switch: uhubctl, sysfs, meter, command.
        location: uhubctl: the hub as uhubctl prints it, such as "1-1.4"; a root hub is "1".
        hub: sysfs: the hub as /sys/bus/usb/devices names it, such as "1-1.4" or "usb1".
        port: uhubctl, sysfs: number of the hub's socket that the board is plugged into.
        on: command: what switches on, a list of arguments; no shell reads it.
        off: command: what switches off.
        off_s: how long the board is without power, in seconds, 0 to 60.
    """

    kind: str
    location: str | None = None
    hub: str | None = None
    port: int | None = None
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    off_s: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _switches:
            raise ValueError(f"key 'kind' is {self.kind!r}; known are {', '.join(kinds())}")
        needed = _switches[self.kind].keys
        for key in ("location", "hub", "port", "on", "off"):
            is_given = bool(getattr(self, key))
            if key in needed and not is_given:
                raise ValueError(f"missing key {key!r}, which kind {self.kind!r} needs")
            if key not in needed and is_given:
                raise ValueError(f"key {key!r} is not for kind {self.kind!r}")
        for key in ("location", "hub"):
            value = getattr(self, key)
            if value is not None and not _HUB.fullmatch(value):
                raise ValueError(f"key {key!r} is {value!r}; it should be a hub such as '1-1.4'")
        if self.port is not None and not 1 <= self.port <= _MAX_PORT:
            raise ValueError(f"key 'port' is {self.port}; it should be 1 to {_MAX_PORT}")
        if not 0 <= self.off_s <= 60:
            raise ValueError(f"key 'off_s' is {self.off_s}; it should be 0 to 60")


@dataclass(frozen=True, slots=True)
class Setting:
    """One state to set; `meter` is the open meter of the place, if it has one."""

    entry: PowerEntry
    place: str
    on: bool
    meter: Meter | None = None

    def failed(self, reason: str) -> PowerError:
        """The error that says so."""
        return PowerError(self.place, f"{self.entry.kind}: {reason}")


@dataclass(frozen=True, slots=True)
class _Switch:
    keys: tuple[str, ...]
    set: Callable[[Setting], None]


_switches: dict[str, _Switch] = {}


def register(kind: str, *keys: str) -> Callable[[Callable[[Setting], None]], object]:
    """Makes a function the switch of that kind; `keys` of the table are needed, others wrong.

    The function returns when the state is set, or raises PowerError.
    """

    def add(function: Callable[[Setting], None]) -> Callable[[Setting], None]:
        assert kind not in _switches, f"two switches of kind {kind}"
        _switches[kind] = _Switch(keys, function)
        return function

    return add


def kinds() -> list[str]:
    """Names of all kinds, sorted."""
    return sorted(_switches)


def set_power(entry: PowerEntry, on: bool, *, place: str, meter: Meter | None = None) -> None:
    """Switches the supply of a place on or off; raises PowerError."""
    _switches[entry.kind].set(Setting(entry, place, on, meter))


def cycle(entry: PowerEntry, *, place: str, meter: Meter | None = None) -> None:
    """Off for `off_s`, then on, also when switching off failed or was interrupted.

    Raises PowerError.
    """
    try:
        set_power(entry, False, place=place, meter=meter)
        time.sleep(entry.off_s)
    finally:
        set_power(entry, True, place=place, meter=meter)


@register("uhubctl", "location", "port")
def _uhubctl(setting: Setting) -> None:
    """A hub that switches each socket, by the tool uhubctl (Debian package of that name).

    uhubctl looks for the other half of a USB 3 hub by itself, and takes another hub of the same
    maker when it finds none. So it is kept to exact hubs, and the other half is named to it.
    """
    assert setting.entry.location is not None and setting.entry.port is not None
    first = (setting.entry.location, setting.entry.port)
    halves = [first, *([twin] if (twin := _other_half(*first)) else [])]
    # Looking first: some versions read "-p 12" as sockets 1 and 2.
    for half in halves:
        _uhubctl_states(setting, *half)
    wanted = "on" if setting.on else "off"
    for half in halves:
        is_on = _uhubctl_states(setting, *half, "-a", wanted)
        if is_on is not setting.on:
            raise setting.failed(
                f"socket {half[1]} of hub {half[0]} is still {'on' if is_on else 'off'} after "
                f"switching it {wanted}; can that hub switch single sockets?"
            )


def _uhubctl_states(setting: Setting, hub: str, port: int, *action: str) -> bool:
    """Whether the socket is on at the end; raises PowerError if any other was meant as well."""
    command = ["uhubctl", "-e", "-l", hub, "-p", str(port), *action]
    output = _run(setting, command)
    seen: list[tuple[str, int, bool]] = []
    at = ""
    for line in output.splitlines():
        if match := _HUB_LINE.match(line):
            at = match[1]
        elif match := _PORT_LINE.match(line):
            seen.append((at, int(match[1]), "power" in match[2].split()))
    if not seen:
        raise setting.failed(f"uhubctl shows no socket {port} at hub {hub}: {_last_lines(output)}")
    if any((where, number) != (hub, port) for where, number, _ in seen):
        others = ", ".join(sorted({f"{where} socket {number}" for where, number, _ in seen}))
        raise setting.failed(f"uhubctl would switch {others}, not only socket {port} of hub {hub}")
    return seen[-1][2]


def find_switch(location: str) -> PowerEntry | None:
    """The switch of the socket that a USB device is plugged into, if uhubctl knows that hub.

    Args:
        location: of the device, such as "1-1.4.2", as pyserial gives it, maybe with an interface.
    """
    device = location.partition(":")[0]
    hub, separator, port = device.rpartition("." if "." in device else "-")
    if not separator or not port.isdecimal() or not _HUB.fullmatch(hub):
        return None
    entry = PowerEntry("uhubctl", location=hub, port=int(port))
    try:
        _uhubctl_states(Setting(entry, place="scan", on=True), hub, int(port))
    except PowerError:
        return None
    return entry


@register("sysfs", "hub", "port")
def _sysfs(setting: Setting) -> None:
    """A hub that switches each socket, by the file `disable` that Linux 6.0 and newer have.

    A hub without power switching loses the connection but not the supply: the file does not tell.
    """
    assert setting.entry.hub is not None and setting.entry.port is not None
    first = (setting.entry.hub, setting.entry.port)
    for half in (first, _other_half(*first)):
        if half is not None:
            _write_disable(setting, _port_dir(*half) / "disable")


def _write_disable(setting: Setting, path: Path) -> None:
    text = "0" if setting.on else "1"
    try:
        path.write_text(text, encoding="ascii")
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise setting.failed(
            f"no file {path}: is there such a socket, and is this Linux 6.0 or newer?"
        ) from None
    except OSError as error:
        raise setting.failed(
            f"{path}: {error.strerror}; boards/60-hil.rules lets the group plugdev write it"
        ) from None
    if found != text:
        raise setting.failed(f"{path} holds {found!r} after {text!r} was written")


def _port_dir(hub: str, port: int) -> Path:
    """Folder of a hub's socket: .../1-1.4:1.0/1-1.4-port2, of a root hub .../1-0:1.0/usb1-port2."""
    if "-" in hub:
        return USB_DEVICES / f"{hub}:1.0" / f"{hub}-port{port}"
    bus = hub.removeprefix("usb")
    return USB_DEVICES / f"{bus}-0:1.0" / f"usb{bus}-port{port}"


def _other_half(hub: str, port: int) -> tuple[str, int] | None:
    """Hub and number of the same socket as USB 3 (or 2) sees it; None without one."""
    peer = _port_dir(hub, port) / "peer"
    if not peer.is_symlink():
        return None
    name, _, number = os.path.basename(os.readlink(peer)).rpartition("-port")
    if not _HUB.fullmatch(name) or not number.isdecimal():
        return None
    return (name if hub.startswith("usb") else name.removeprefix("usb"), int(number))


@register("meter")
def _meter(setting: Setting) -> None:
    """The energy meter supplies the board, and stops doing so."""
    if setting.meter is None:
        raise setting.failed("the place has no meter; name one in lab.toml, or another switch")
    try:
        setting.meter.set_power(setting.on)
    except MeterError as error:
        raise setting.failed(str(error)) from error


@register("command", "on", "off")
def _command(setting: Setting) -> None:
    """Anything else: a relay board, a network socket, a laboratory supply."""
    _run(setting, list(setting.entry.on if setting.on else setting.entry.off))


def _run(setting: Setting, command: list[str]) -> str:
    """What a tool printed; raises PowerError when it fails or does not end."""
    try:
        ended = child.run(command, timeout_s=TOOL_S)
    except OSError as error:
        raise setting.failed(error.strerror or str(error)) from None
    if problem := ended.problem():
        raise setting.failed(f"{' '.join(command)} {problem}: {_last_lines(ended.output)}")
    return ended.output


def _last_lines(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-_SHOWN_LINES:]) or "it printed nothing"
