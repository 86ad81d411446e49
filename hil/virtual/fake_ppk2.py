"""Stand-in of a Nordic PPK2 (hil/meters/ppk2.py has the protocol and its source).

A device of its own making: calibration values as different from the nominal ones as real ones are,
noise, and three wild samples behind every change of shunt.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hil.meters.ppk2 import (
    ADC_STEP,
    COUNTER_VALUES,
    PERIOD_S,
    RANGES,
    SOURCE,
    SPIKE_SAMPLES,
    VOLTS_PER_STEP,
    Calibration,
    Command,
)
from hil.virtual.fake_meter import FakeMeter
from hil.virtual.power_model import Load

CALIBRATION = Calibration(
    R=(1004.32, 100.71, 10.083, 0.9523, 0.04471),
    GS=(1.0024, 0.9871, 0.0913, 0.0127, 0.0031),
    GI=(0.9873, 1.0041, 0.9962, 0.9895, 1.0108),
    O=(112.6, 98.3, 104.9, 101.2, 87.5),
    S=(1.2e-8, 4.1e-8, 2.3e-7, 1.7e-6, 2.9e-5),
    I=(-3.1e-8, -1.4e-7, -9.6e-7, -6.2e-6, -1.1e-4),
    UG=(1.0, 1.0, 1.0, 1.0, 1.0),
)
#: Largest mean current of each shunt, in microamperes.
_LIMITS_UA = (50.0, 500.0, 5_000.0, 60_000.0, math.inf)
_NOISE = 0.01  # of the current
_ARGUMENTS = {
    Command.DEVICE_RUNNING_SET: 1,
    Command.REGULATOR_SET: 2,
    Command.SET_POWER_MODE: 1,
}


class FakePpk2(FakeMeter):
    """A PPK2 in the supply of a virtual board; the trigger is its logic input 0."""

    kind = "ppk2"

    _random = np.random.default_rng(0)
    _received = b""
    _next = 0  # number of the next sample
    _counter = 0
    _shunt = 0
    _spikes = 0  # wild samples still to come
    _mode = SOURCE

    def command(self, data: bytes) -> None:
        """See FakeMeter.command."""
        self._received += data
        while self._received:
            code = self._received[0]
            count = 1 + _ARGUMENTS.get(code, 0)  # type: ignore[call-overload]
            if len(self._received) < count:
                return
            arguments, self._received = self._received[1:count], self._received[count:]
            self._do(code, arguments)

    def _do(self, code: int, arguments: bytes) -> None:
        if code == Command.GET_META_DATA:
            self.send(_metadata(CALIBRATION))
        elif code == Command.AVERAGE_START and not self.sampling:
            self._random = np.random.default_rng(0)
            self._next, self._counter = math.ceil(self.now_s / PERIOD_S), 0
            self.sampling = True
        elif code == Command.AVERAGE_STOP:
            self.sampling = False
        elif code == Command.DEVICE_RUNNING_SET:
            self.switch(arguments[0] != 0)
        elif code == Command.SET_POWER_MODE:
            self._mode = arguments[0]
        elif code == Command.REGULATOR_SET:
            self.supply_mv = int.from_bytes(arguments, "big")

    def load_changed(self, load: Load) -> None:
        """See FakeMeter.load_changed: the shunt follows the current."""
        shunt = next(k for k in range(RANGES) if 1.3 * load.mean_ua <= _LIMITS_UA[k])
        if shunt != self._shunt:
            self._shunt, self._spikes = shunt, SPIKE_SAMPLES

    def make_samples(self, start_s: float, end_s: float) -> None:
        """See FakeMeter.make_samples."""
        end = math.ceil(end_s / PERIOD_S)
        count = end - self._next
        if count <= 0:
            return
        times = np.arange(self._next, end, dtype=np.float64) * PERIOD_S
        self._next = end
        current_ua = self.current.current_ua(times)
        current_ua *= 1 + _NOISE * self._random.standard_normal(count)
        wild = min(count, self._spikes)
        current_ua[:wild] *= 2.5
        self._spikes -= wild
        counters = (self._counter + np.arange(count)) % COUNTER_VALUES
        self._counter = (self._counter + count) % COUNTER_VALUES
        words = self._values(current_ua * 1e-6).astype(np.uint32)
        words |= np.uint32(self._shunt << 14)
        words |= (counters << 18).astype(np.uint32)
        words |= np.uint32(int(self._high) << 24)
        self.send(words[self.dropped(count) :].astype("<u4").tobytes())

    def _values(self, amperes: NDArray[np.float64]) -> NDArray[np.int64]:
        """What the converter says of a current over the shunt: the calibration backwards."""
        r, gs, gi, o, s, i, ug = (getattr(CALIBRATION, key)[self._shunt] for key in _KEYS)
        rest = s * self.supply_mv / 1000 + i - amperes / ug
        x = 2 * -rest / (gi + np.sqrt(gi * gi - 4 * gs * rest))
        values: NDArray[np.float64] = np.rint((x * r / VOLTS_PER_STEP + o) / ADC_STEP)
        return values.clip(0, 0x3FFF).astype(np.int64)


_KEYS = ("R", "GS", "GI", "O", "S", "I", "UG")


def _metadata(calibration: Calibration) -> bytes:
    lines = ["Calibrated: 0"]
    for key in _KEYS:
        lines += [f"{key}{k}: {value:.10g}" for k, value in enumerate(getattr(calibration, key))]
    return "\n".join([*lines, "VDD: 3000", "HW: 9173", "mode: 2", "IA: 56", "END\n"]).encode()
