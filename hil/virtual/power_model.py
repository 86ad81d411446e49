"""Supply current of a virtual board over time, and its exact integral.

Not a model of a chip's power: two currents from the board file, one while the trigger pin is high
and one while it is not, made as hard to measure as a real board's. Decoupling capacitors turn steps
into ramps; a switching regulator lays ripple over both currents, and the changing mix of
instructions more over the one while a model runs, so that a single sample means little. Everything
is a sum of exponentials and sines, whose integral is known in closed form: that is what a meter's
driver is held against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.board import Supply

#: Of the ramps: some microfarads behind some ohms of a meter's shunt.
TAU_S = 5e-6

Ripple = tuple[tuple[float, float], ...]  # (share of the current, Hz)
REGULATOR: Ripple = ((0.04, 33_713.0),)  # divides no sampling rate
INSTRUCTIONS: Ripple = ((0.05, 4_177.0), (0.06, 713.0))  # their mix changes with loops and layers

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """What is drawn while nothing changes: a mean in microamperes, and what lies over it."""

    mean_ua: float
    ripple: Ripple = ()


OFF = Load(0.0)


def loads(supply: Supply) -> tuple[Load, Load]:
    """(idle, active) of a board; one whose file gives no idle current idles as it computes."""
    idle_ua = supply.active_ua if supply.idle_ua is None else supply.idle_ua
    return Load(idle_ua, REGULATOR), Load(supply.active_ua, REGULATOR + INSTRUCTIONS)


class SupplyCurrent:
    """The current as a function of time, which only goes forward from change to change."""

    def __init__(self, load: Load, start_s: float = 0.0) -> None:
        self.load, self._start_s = load, start_s
        self._jump_ua = 0.0  # how far the capacitors still were from the mean at the start

    def change(self, load: Load, at_s: float) -> None:
        """From `at_s` on another load is drawn."""
        decay = math.exp(-(at_s - self._start_s) / TAU_S)
        mean_now = self.load.mean_ua + self._jump_ua * decay
        self._jump_ua = mean_now - load.mean_ua
        self.load, self._start_s = load, at_s

    def current_ua(self, times_s: Times) -> Times:
        """At instants since the last change."""
        ramp = np.exp((self._start_s - times_s) / TAU_S)
        current: Times = self.load.mean_ua + self._jump_ua * ramp
        for share, hertz in self.load.ripple:
            current += share * self.load.mean_ua * np.sin(2 * np.pi * hertz * times_s)
        return current

    def charge_to(self, time_s: float) -> float:
        """Microcoulombs from the last change to one instant since then, exactly."""
        return float(self.charge_uc(np.array([time_s]))[0])

    def charge_uc(self, times_s: Times) -> Times:
        """Microcoulombs from the last change to instants since then, exactly."""
        since = times_s - self._start_s
        charge: Times = self.load.mean_ua * since
        charge += self._jump_ua * TAU_S * -np.expm1(-since / TAU_S)
        for share, hertz in self.load.ripple:
            omega = 2 * np.pi * hertz
            swing = math.cos(omega * self._start_s) - np.cos(omega * times_s)
            charge += share * self.load.mean_ua / omega * swing
        return charge
