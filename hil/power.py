"""Switches in the supply of a board: off and on again is the last thing to try before people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PowerEntry:
    """The table `power` of a place in lab.toml.

    Attributes:
        kind: which switch.
        location: uhubctl: the hub, as `uhubctl` prints it: "1-1.4".
        hub: sysfs: the hub, as /sys/bus/usb/devices names it: "1-1.4".
        port: uhubctl, sysfs: the hub's port that the board is plugged into, from 1.
        on: command: what switches on, as a list of arguments; no shell reads it.
        off: command: what switches off.
        off_s: how long the board is without power, in seconds.
    """

    kind: Literal["uhubctl", "sysfs", "meter", "command"]
    location: str | None = None
    hub: str | None = None
    port: int | None = None
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    off_s: float = 1.0
