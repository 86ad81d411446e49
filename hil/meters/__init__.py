"""Energy meters: which there are, what one is, how it is found and tried.

In the order in which a sample passes: a driver (ppk2, lpm01a, joulescope) over its port (port)
gives `Samples`; window makes a window's energy of them; hil.energy repeats windows and makes a
record's figures. To add a meter: its file with a class as below, a line in `_open` and in
`find_meters`, and its stand-in in tests/contracts/test_meters.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from serial.tools import list_ports

from hil.errors import MeterError
from hil.meters import joulescope, lpm01a, ppk2
from hil.meters.window import Samples

#: Until the first samples come, and between them while nothing holds the board.
SILENT_S = 10.0
SELF_TEST_S = 0.5
SELF_TEST_DEADLINE_S = 60.0
#: What a meter may be off by: the resistor's own tolerance and its leads included.
SELF_TEST_TOLERANCE = 0.05
SELF_TEST_OFFSET_UA = 20.0


class Meter(Protocol):
    """An open meter in a board's supply. Its methods raise MeterError when the device fails."""

    kind: str
    name: str
    supply_mv: int
    can_supply: bool  # whether set_power cuts the board off

    def set_power(self, on: bool) -> None:
        """Switches the board's supply."""

    def start(self) -> None:
        """Begins to sample."""

    def wait(self, timeout_s: float) -> bool:
        """Whether something came that `take` can look at, within `timeout_s`."""

    def take(self) -> Samples:
        """All samples since the last call; raises SamplesLost."""

    def stop(self) -> None:
        """Ends sampling; raises SamplesLost when only now it shows that some are missing."""

    def close(self) -> None:
        """Frees the meter; closing twice is fine."""


_OPENERS: dict[str, Callable[..., Meter]] = {
    "joulescope": joulescope.Joulescope,
    "lpm01a": lpm01a.Lpm01a,
    "ppk2": ppk2.Ppk2,
}
KINDS = tuple(_OPENERS)


def open_meter(
    kind: str,
    *,
    port: str | None = None,
    serial: str | None = None,
    supply_mv: int | None = None,
    board_mv: int,
    trigger_channel: int = 0,
) -> Meter:
    """Opens a meter and, if it supplies the board, switches it on; raises MeterError.

    Args:
        kind: one of KINDS.
        port: path of its serial port; joulescope has none.
        serial: of a joulescope, when several are plugged in.
        supply_mv: what it supplies the board with; None: the board has its own supply.
        board_mv: supply voltage of the board, from its file.
        trigger_channel: input that the board's trigger pin is wired to.
    """
    if kind not in _OPENERS:
        raise MeterError(kind, f"is not known; known kinds are {', '.join(KINDS)}")
    where = serial if kind == "joulescope" else port
    if kind != "joulescope" and where is None:
        raise MeterError(kind, "needs key 'port' of its entry in lab.toml")
    return _OPENERS[kind](
        where, supply_mv=supply_mv, board_mv=board_mv, trigger_channel=trigger_channel
    )


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """A meter that is plugged in; `port` or `serial` is what opens it."""

    kind: str
    port: str | None
    serial: str | None
    text: str


def find_meters() -> list[FoundMeter]:
    """What is plugged in, by USB ids and names; nothing is opened."""
    found = []
    for port in list_ports.comports():
        usb_id = f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None else ""
        product = port.product or ""
        # A PPK2 has two ports; the protocol is on its first USB interface.
        if usb_id == ppk2.USB_ID and (port.location or "1").endswith("1"):
            found.append(FoundMeter("ppk2", port.device, port.serial_number, product or "PPK2"))
        elif usb_id == lpm01a.USB_ID and lpm01a.USB_PRODUCT in product:
            found.append(FoundMeter("lpm01a", port.device, port.serial_number, product))
    for path in joulescope.device_paths():
        found.append(FoundMeter("joulescope", None, path.rpartition("/")[2], path))
    return found


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a meter says of a known load, in microamperes; `load_ohm` None: nothing connected."""

    load_ohm: float | None
    current_ua: float
    expected_ua: float
    ok: bool

    def __str__(self) -> str:
        load = "nothing connected" if self.load_ohm is None else f"{self.load_ohm:,g} ohm"
        return (
            f"{load}: {self.current_ua:,.1f} uA where {self.expected_ua:,.1f} uA are due, "
            f"{'ok' if self.ok else 'wrong'}"
        )


def self_test(meter: Meter, load_ohm: float | None) -> SelfTest:
    """Measures a resistor in the place of the board, or open terminals (None).

    Raises:
        MeterError: no samples.
    """
    meter.set_power(True)
    meter.start()
    try:
        samples = take_until(meter, lambda s: len(s) * s.period_s >= SELF_TEST_S)
    finally:
        meter.stop()
    later = samples.power_uw[len(samples) // 2 :]  # what the switch set swinging is over
    current_ua = float(later.mean(dtype=np.float64)) * 1000 / meter.supply_mv
    expected_ua = 0.0 if load_ohm is None else meter.supply_mv * 1000 / load_ohm
    allowed_ua = max(SELF_TEST_OFFSET_UA, SELF_TEST_TOLERANCE * expected_ua)
    return SelfTest(
        load_ohm, current_ua, expected_ua, ok=abs(current_ua - expected_ua) <= allowed_ua
    )


def take_until(meter: Meter, enough: Callable[[Samples], bool]) -> Samples:
    """Samples from now on until they are enough; raises MeterError when they stop coming."""
    deadline = time.monotonic() + SELF_TEST_DEADLINE_S
    samples: Samples | None = None
    while samples is None or not enough(samples):
        if not meter.wait(SILENT_S) or time.monotonic() > deadline:
            raise MeterError(meter.name, f"sent no samples within {SILENT_S:.0f} s")
        taken = meter.take()
        samples = taken if samples is None else samples.and_then(taken)
    return samples
