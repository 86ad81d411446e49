"""Joulescope JS110 and JS220 through the maker's driver (PyPI `pyjoulescope_driver`, Apache-2.0).

The device streams current, voltage and its general-purpose inputs a million times a second (JS110:
two million), each under a topic of its own; a message says which samples it holds, so gaps are
seen. It does not supply the board, but can open its current path. Tested against a stand-in for the
library's driver object only; not compared with a device yet.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import MeterError, SamplesLost
from hil.meters.window import Samples

EXTRA = "joulescope"
CURRENT, VOLTAGE = "s/i", "s/v"
MAX_SAMPLES = 100_000_000  # that nobody took
_RATES_HZ = {"js110": 2_000_000, "js220": 1_000_000}


@dataclass(slots=True)
class _Signal:
    """What came of one signal and was not taken yet."""

    parts: list[NDArray[Any]]
    count: int = 0  # samples in `parts`
    first: int | None = None  # number of the first of them
    next: int = 0  # number of the sample that should come next


class Joulescope:
    """An open Joulescope.

    Args:
        serial: its serial number; None when only one is plugged in.
        supply_mv: as the user says; the measured voltage counts for the energy.
        board_mv: taken when `supply_mv` is None.
        trigger_channel: general-purpose input that the board's trigger pin is wired to.
        driver: stands in for the library's `Driver()`.
    """

    kind = "joulescope"
    can_supply = True  # it opens and closes the path of the current

    def __init__(
        self,
        serial: str | None = None,
        *,
        supply_mv: int | None,
        board_mv: int,
        trigger_channel: int = 0,
        driver: Any = None,
    ) -> None:
        self.supply_mv = board_mv if supply_mv is None else supply_mv
        self.name = f"joulescope {serial or ''}".strip()
        self._driver = driver if driver is not None else _library_driver(self.name)
        self._news = threading.Condition()
        self._failure: MeterError | None = None
        self._trigger = f"s/gpi/{trigger_channel}"
        self._signals: dict[str, _Signal] = {}
        self._streaming = False
        self._open = False
        self._on_message_bound = self._on_message  # the very object to unsubscribe
        try:
            self._path = self._find(serial)
            self.name = f"joulescope at {self._path}"
            self._model = self._path.split("/")[1].lower().removeprefix("&")
            if self._model not in _RATES_HZ:
                known = ", ".join(_RATES_HZ)
                raise MeterError(self.name, f"is a {self._model}; known are {known}")
            self._do("open", self._path, "defaults")
            self._open = True
            self.set_power(True)
            self._publish("h/fs", _RATES_HZ[self._model])
        except BaseException:
            self.close()
            raise
        self.period_s = 1 / _RATES_HZ[self._model]

    def set_power(self, on: bool) -> None:
        """Closes or opens the path of the board's current."""
        topic = "s/i/range/select" if self._model == "js110" else "s/i/range/mode"
        self._publish(topic, "auto" if on else "off")

    def start(self) -> None:
        """Begins to sample."""
        self._signals = {
            f"{self._path}/{name}/!data": _Signal([]) for name in (CURRENT, VOLTAGE, self._trigger)
        }
        self._failure = None
        for topic in self._signals:
            self._do("subscribe", topic, ["pub"], self._on_message_bound)
        self._streaming = True
        for name in (CURRENT, VOLTAGE, self._trigger):
            self._publish(f"{name}/ctrl", 1)

    def wait(self, timeout_s: float) -> bool:
        """Whether samples came within `timeout_s`."""
        with self._news:
            return self._news.wait_for(
                lambda: self._failure is not None or all(s.count for s in self._signals.values()),
                timeout_s,
            )

    def take(self) -> Samples:
        """All samples since the last call of which all signals are there; raises SamplesLost."""
        with self._news:
            if self._failure is not None:
                raise self._failure
            current, voltage, trigger = self._signals.values()
            for signal in (current, voltage, trigger):
                if signal.first is None:
                    return Samples(
                        self.period_s, np.empty(0, np.float32), high=np.empty(0, np.bool_)
                    )
            starts = [s.first or 0 for s in (current, voltage, trigger)]
            start = max(starts)  # the signals begin one after another
            end = min(s.next for s in (current, voltage, trigger))
            arrays = []
            for signal, first in zip((current, voltage, trigger), starts, strict=True):
                whole = np.concatenate(signal.parts)
                arrays.append(whole[start - first : max(start, end) - first])
                rest = whole[max(start, end) - first :]
                signal.parts, signal.count = ([rest] if len(rest) else []), len(rest)
                signal.first = max(start, end)
        power_uw = arrays[0].astype(np.float64) * arrays[1] * 1e6
        if not np.isfinite(power_uw).all():
            raise SamplesLost(self.name, "samples are missing: the host did not keep up with USB")
        return Samples(self.period_s, power_uw.astype(np.float32), high=arrays[2].astype(np.bool_))

    def stop(self) -> None:
        """Ends sampling."""
        if not self._streaming:
            return
        self._streaming = False
        for name in (CURRENT, VOLTAGE, self._trigger):
            self._publish(f"{name}/ctrl", 0)
        for topic in self._signals:
            self._do("unsubscribe", topic, self._on_message_bound)

    def close(self) -> None:
        """Frees the meter; closing twice is fine."""
        if self._open:
            self._open = False
            try:
                self.stop()
            finally:
                self._do("close", self._path)
        self._driver.finalize()

    def _on_message(self, topic: str, message: dict[str, Any]) -> None:
        """From the library's thread."""
        data = np.asarray(message["data"])
        if topic.endswith(f"{self._trigger}/!data"):
            data = np.unpackbits(data, bitorder="little")  # one bit a sample
        number = int(message["sample_id"]) // int(message["decimate_factor"])
        rate_hz = int(message["sample_rate"]) // int(message["decimate_factor"])
        with self._news:
            signal = self._signals[topic]
            if rate_hz != _RATES_HZ[self._model]:
                self._failure = MeterError(
                    self.name, f"sends {rate_hz:,} samples/s of {topic}, not what it was set to"
                )
            elif signal.first is None:
                signal.first = signal.next = number
            elif number != signal.next:
                self._failure = SamplesLost(
                    self.name, f"{number - signal.next:,} samples of {topic} were lost"
                )
            elif signal.count > MAX_SAMPLES:
                self._failure = MeterError(self.name, f"{MAX_SAMPLES:,} samples that nobody took")
            signal.parts.append(data)
            signal.count += len(data)
            signal.next += len(data)
            self._news.notify_all()

    def _find(self, serial: str | None) -> str:
        paths = [str(path) for path in self._driver.device_paths()]
        fitting = [path for path in paths if serial is None or path.endswith(f"/{serial}")]
        if len(fitting) != 1:
            raise MeterError(
                self.name,
                f"{len(fitting)} devices fit, of {paths or 'none'} that are plugged in; set "
                "serial in lab.toml, and the udev rules of the README",
            )
        return fitting[0]

    def _publish(self, topic: str, value: Any) -> None:
        self._do("publish", f"{self._path}/{topic}", value)

    def _do(self, verb: str, *arguments: Any) -> None:
        try:
            getattr(self._driver, verb)(*arguments)
        except (RuntimeError, TimeoutError, OSError) as error:  # all that the library raises
            raise MeterError(self.name, f"{verb} {arguments[0]} failed: {error}") from None


def device_paths() -> list[str]:
    """Joulescopes that are plugged in, such as `u/js220/001234`; none without the library."""
    try:
        driver = _library_driver(EXTRA)
    except MeterError:
        return []
    try:
        return [str(path) for path in driver.device_paths()]
    finally:
        driver.finalize()


def _library_driver(meter: str) -> Any:
    try:
        library = importlib.import_module("pyjoulescope_driver")
    except ImportError:
        raise MeterError(
            meter, f"needs the package pyjoulescope_driver: pip install -e '.[{EXTRA}]'"
        ) from None
    return library.Driver()
