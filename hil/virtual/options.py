"""What a virtual board is given beside its board file: the part of a place's name behind `?`.

`virtual:nrf52840_dk?flash=pyocd&meter=ppk2&fault=silence@2` is an nRF52840-DK that is flashed by
pyOCD through its virtual debug probe, has a virtual PPK2 in its supply, and falls silent once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qsl

from hil.errors import UsageError
from hil.virtual.faults import parse_faults

FlashWay = Literal["direct", "pyocd"]
MeterKind = Literal["ppk2", "lpm01a"]


@dataclass(frozen=True, slots=True)
class VirtualOptions:
    """Options of one virtual board.

    Attributes:
        flash: how images get onto it: straight into its memory, or by a tool through its probe.
        meter: the energy meter in its supply, whose port a driver opens like that of a real one.
        faults: what goes wrong with it, as hil/virtual/faults.py reads it.
    """

    flash: FlashWay = "direct"
    meter: MeterKind | None = None
    faults: tuple[str, ...] = ()


NO_OPTIONS = VirtualOptions()


def parse_options(query: str) -> VirtualOptions:
    """The options of a query such as "meter=ppk2&fault=silence"; raises UsageError."""
    values: dict[str, str] = {}
    faults: list[str] = []
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "fault":
            faults.append(value)
        elif key in values or key not in ("flash", "meter"):
            raise UsageError(
                f"virtual board option {key!r}: known are flash, meter, and fault, which may repeat"
            )
        else:
            values[key] = value
    for key, known in (("flash", get_args(FlashWay)), ("meter", get_args(MeterKind))):
        if key in values and values[key] not in known:
            raise UsageError(
                f"virtual board option {key}={values[key]!r}: known are {', '.join(known)}"
            )
    parse_faults(faults)  # a mistake is the user's now, not the board's later
    return VirtualOptions(**values, faults=tuple(faults))  # type: ignore[arg-type]
