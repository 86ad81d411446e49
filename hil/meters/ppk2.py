"""Nordic Power Profiler Kit II: 100,000 samples a second, each with eight logic inputs beside it.

The protocol is that of Nordic's own app (pc-nrfconnect-ppk, src/device/serialDevice.ts, src/
constants.ts): one-byte commands with arguments out; back comes text once, the calibration, and then
samples. A sample is a little-endian word: bits 0-13 the converter's value in steps of 4, 14-16
which of five shunts it was taken over, 18-23 a counter, 24-31 the logic inputs. Own code from these
facts; not compared with a device yet.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hil.errors import MeterError, SamplesLost
from hil.meters.port import MeterPort
from hil.meters.window import Samples

USB_ID = "1915:c00a"
BAUD = 115_200  # ignored: USB
PERIOD_S = 1e-5
SUPPLY_MV = range(800, 5001)
SAMPLE_BYTES = 4
RANGES = 5
COUNTER_VALUES = 64
ADC_STEP = 4
VOLTS_PER_STEP = 1.8 / 163_840
#: The first samples behind a change of shunt swing. Nordic's app shows a running average there; it
#: lags behind the very step that changed the shunt, so here they become a mean of those to come.
SPIKE_SAMPLES, SPIKE_MEAN = 3, 8

ANSWER_S = 5.0
_MAX_TEXT_BYTES = 10_000_000  # what the operating system may still hold of an old stream
_SYNC_SAMPLES = 16
_CHUNK = 1 << 20  # samples decoded at once

_KEYS = ("R", "GS", "GI", "O", "S", "I", "UG")
_LINE = re.compile(rb"^([A-Za-z]+)([0-4]): *([-+0-9.eE]+) *\r?$", re.MULTILINE)
_END = b"END"

Floats = NDArray[np.float64]


class Command(IntEnum):
    """First byte of a command."""

    AVERAGE_START = 0x06
    AVERAGE_STOP = 0x07
    DEVICE_RUNNING_SET = 0x0C  # 0 or 1: the board's supply
    REGULATOR_SET = 0x0D  # millivolts, high byte first
    SET_POWER_MODE = 0x11  # AMPERE or SOURCE
    GET_META_DATA = 0x19


AMPERE, SOURCE = 1, 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of the five shunts, from the largest resistance to the smallest.

    I = UG * (x * (GS * x + GI) + S * supply volts + I) with x = (value - O) * 1.8 / 163840 / R.
    """

    R: tuple[float, ...] = (1031.64, 101.65, 10.15, 0.94, 0.043)  # ohms, as drawn
    GS: tuple[float, ...] = (1.0,) * RANGES
    GI: tuple[float, ...] = (1.0,) * RANGES
    O: tuple[float, ...] = (0.0,) * RANGES  # noqa: E741  # as the device calls it
    S: tuple[float, ...] = (0.0,) * RANGES
    I: tuple[float, ...] = (0.0,) * RANGES  # noqa: E741
    UG: tuple[float, ...] = (1.0,) * RANGES

    @classmethod
    def parse(cls, text: bytes) -> Calibration:
        """From the device's text; what it lacks, or holds as NaN or 0, stays nominal."""
        nominal = cls()
        values = {key: list(getattr(nominal, key)) for key in _KEYS}
        for match in _LINE.finditer(text):
            key = match[1].decode("ascii")
            try:
                value = float(match[3])
            except ValueError:
                continue
            if key in values and np.isfinite(value) and (value != 0 or key in "OSI"):
                values[key][int(match[2])] = value
        return cls(**{key: tuple(numbers) for key, numbers in values.items()})

    def amperes(self, shunt: NDArray[np.intp], value: Floats, supply_v: float) -> Floats:
        """Current of converter values taken over these shunts."""
        r, gs, gi, o, s, i, ug = (np.asarray(getattr(self, key))[shunt] for key in _KEYS)
        x = (value - o) * VOLTS_PER_STEP / r
        amperes: Floats = ug * (x * (gs * x + gi) + s * supply_v + i)
        return amperes


class Decoder:
    """Words to microamperes and logic levels; keeps what spans two calls."""

    def __init__(self, calibration: Calibration, supply_mv: int, meter: str) -> None:
        self._calibration, self._supply_v, self._meter = calibration, supply_mv / 1000, meter
        self._counter: int | None = None
        self._shunt: int | None = None
        self._since_change = SPIKE_SAMPLES  # samples since the shunt changed

    def decode(self, words: NDArray[np.uint32]) -> tuple[Floats, NDArray[np.uint8]]:
        """(microamperes, logic inputs) of the next samples; raises SamplesLost."""
        if len(words) == 0:
            return np.empty(0), np.empty(0, np.uint8)
        self._check_counters(words)
        shunt = np.minimum(words >> 14 & 7, RANGES - 1).astype(np.intp)
        value = ((words & 0x3FFF) * ADC_STEP).astype(np.float64)
        amperes = self._calibration.amperes(shunt, value, self._supply_v)
        return self._without_spikes(amperes, shunt) * 1e6, (words >> 24).astype(np.uint8)

    def _check_counters(self, words: NDArray[np.uint32]) -> None:
        counters = (words >> 18 & COUNTER_VALUES - 1).astype(np.int64)
        before = counters[0] - 1 if self._counter is None else self._counter
        steps = np.diff(counters, prepend=before) % COUNTER_VALUES
        self._counter = int(counters[-1])
        if (steps != 1).any():
            gaps = np.count_nonzero(steps != 1)
            least = int(((steps - 1) % COUNTER_VALUES).sum())
            raise SamplesLost(
                self._meter,
                f"samples were lost in {gaps} place(s), {least} or more in all, of {len(words):,}; "
                "plug the meter into a port of its own, without a hub",
            )

    def _without_spikes(self, amperes: Floats, shunt: NDArray[np.intp]) -> Floats:
        """Samples right behind a change of shunt become the mean of those that follow."""
        first = int(shunt[0]) if self._shunt is None else self._shunt
        changed = np.diff(shunt, prepend=first) != 0
        numbers = np.arange(len(shunt))
        last_change = np.maximum.accumulate(np.where(changed, numbers, -1))
        since = np.where(last_change < 0, numbers + self._since_change, numbers - last_change)
        self._shunt, self._since_change = int(shunt[-1]), int(since[-1]) + 1
        spike = since < SPIKE_SAMPLES
        if not spike.any():
            return amperes
        sound = amperes[~spike]
        if len(sound) == 0:
            return amperes
        sums = np.concatenate([[0.0], np.cumsum(sound)])
        start = np.minimum(np.cumsum(~spike)[spike], len(sound) - 1)
        end = np.minimum(start + SPIKE_MEAN, len(sound))
        result = amperes.copy()
        result[spike] = (sums[end] - sums[start]) / (end - start)
        return result


class Ppk2:
    """An open PPK2.

    Args:
        port: path of its first serial port.
        supply_mv: what it supplies the board with (source mode); None: the board has its own
            supply and the meter sits in it (ampere mode).
        board_mv: supply voltage of the board in ampere mode.
        trigger_channel: logic input (0 to 7) that the board's trigger pin is wired to.
    """

    kind = "ppk2"

    def __init__(
        self, port: str, *, supply_mv: int | None, board_mv: int, trigger_channel: int = 0
    ) -> None:
        self.can_supply = supply_mv is not None
        self.supply_mv = board_mv if supply_mv is None else supply_mv
        self._channel = trigger_channel
        if self.supply_mv not in SUPPLY_MV:
            raise MeterError(
                f"ppk2 at {port}",
                f"{self.supply_mv} mV: it supplies {SUPPLY_MV.start} to {SUPPLY_MV.stop - 1} mV",
            )
        self._port = MeterPort(self.kind, port, BAUD)
        self.name = self._port.name
        try:
            self._calibration = Calibration.parse(self._stop())
            self._send(Command.SET_POWER_MODE, SOURCE if self.can_supply else AMPERE)
            self._send(Command.REGULATOR_SET, *self.supply_mv.to_bytes(2, "big"))
            self._send(Command.DEVICE_RUNNING_SET, 1)
        except BaseException:
            self._port.close()
            raise
        self._decoder: Decoder | None = None
        self._rest = b""
        self._in_step = False

    def set_power(self, on: bool) -> None:
        """Switches the board's supply, or in ampere mode its current path."""
        self._send(Command.DEVICE_RUNNING_SET, int(on))

    def start(self) -> None:
        """Begins to sample."""
        self._stop()
        self._decoder = Decoder(self._calibration, self.supply_mv, self.name)
        self._rest, self._in_step = b"", False
        self._send(Command.AVERAGE_START)

    def wait(self, timeout_s: float) -> bool:
        """Whether bytes came within `timeout_s`."""
        return self._port.wait(timeout_s)

    def take(self) -> Samples:
        """All samples since the last call; raises SamplesLost, MeterError."""
        assert self._decoder is not None, "start comes first"
        data = self._rest + self._port.take()
        if not self._in_step:
            if len(data) < (_SYNC_SAMPLES + 1) * SAMPLE_BYTES:
                self._rest, data = data, b""
            else:
                data = data[self._first_byte(data) :]
                self._in_step = True
        whole = len(data) // SAMPLE_BYTES * SAMPLE_BYTES
        if self._in_step:
            self._rest = data[whole:]
        words = np.frombuffer(data[:whole], "<u4")
        power = np.empty(len(words), np.float32)
        high = np.empty(len(words), np.bool_)
        for start in range(0, len(words), _CHUNK):
            part = slice(start, start + _CHUNK)
            current_ua, logic = self._decoder.decode(words[part])
            power[part] = current_ua * (self.supply_mv / 1000)
            high[part] = logic >> self._channel & 1
        return Samples(PERIOD_S, power, high)

    def stop(self) -> None:
        """Ends sampling."""
        self._stop()
        self._decoder = None

    def close(self) -> None:
        """Frees the meter, which goes on supplying the board; closing twice is fine."""
        self._port.close()

    def _send(self, command: Command, *arguments: int) -> None:
        self._port.write(bytes([command, *arguments]))

    def _stop(self) -> bytes:
        """Ends sampling; the calibration text, behind which nothing of an old stream comes."""
        self._send(Command.AVERAGE_STOP)
        self._send(Command.GET_META_DATA)
        text = b""
        deadline = time.monotonic() + ANSWER_S
        while _END not in text:
            left = deadline - time.monotonic()
            if left <= 0 or len(text) > _MAX_TEXT_BYTES:
                raise MeterError(
                    self.name,
                    f"does not answer like a PPK2 (received {len(text)} bytes, the last ones "
                    f"{text[-40:]!r}); is it one, and is this its first serial port?",
                )
            if self._port.wait(left):
                text += self._port.take()
        return text

    def _first_byte(self, data: bytes) -> int:
        """Where samples begin: bytes of an earlier stream may come first."""
        for offset in range(SAMPLE_BYTES):
            words = np.frombuffer(data, "<u4", _SYNC_SAMPLES, offset)
            counters = (words >> 18 & COUNTER_VALUES - 1).astype(np.int64)
            if (np.diff(counters) % COUNTER_VALUES == 1).all():
                return offset
        raise MeterError(
            self.name, f"sends no samples of a PPK2 (first bytes {data[:12].hex()}); is it one?"
        )
