"""From a meter's samples to the energy of one measured window.

The trigger pin is high while a window runs. Its edges lie somewhere between two samples, but how
long it was high is known to a few core cycles from the board's own counter: so the power inside the
window times that duration is the energy, and a window of a hundred samples is right within a
percent. What the samples say of the duration must agree, else the pin is stuck or wired wrongly.
Not here: where samples come from (one file per meter), how often a window is repeated (hil.energy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import TriggerError

#: Clocks of board and meter may disagree by this much: crystals do by 1e-4, RC oscillators by more.
DURATION_TOLERANCE = 0.01
#: And the trigger's edges are known to within these many samples each way.
DURATION_SLACK_SAMPLES = 3
#: Right beside an edge the current still settles, and edges are reported with a jitter: so much
#: time, at least these many samples, counts neither as idle nor, if the meter averages, as active.
GUARD_S = 2e-5
GUARD_SAMPLES = 2
#: How much time beside a window tells the idle power, at least these many samples.
IDLE_S = 0.002
IDLE_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Samples:
    """Power over time without gaps.

    Attributes:
        period_s: from one sample to the next.
        power_uw: power in microwatts: at the instants 0, 1, 2, ... periods, or, if `averaged`, the
            mean over the period that starts there.
        high: level of the trigger pin at the same instants; None where the meter has only events.
        falls: where the trigger fell, as numbers of the samples during which it did; only without
            `high`.
        averaged: whether a value is the mean over its period.
    """

    period_s: float
    power_uw: NDArray[np.float32]
    high: NDArray[np.bool_] | None = None
    falls: NDArray[np.int64] | None = None
    averaged: bool = False

    def __len__(self) -> int:
        return len(self.power_uw)

    def since(self, first: int) -> Samples:
        """Without the samples before number `first`."""
        high, falls = self.high, self.falls
        if falls is not None:
            falls = falls[falls >= first] - first
        high = None if high is None else high[first:]
        return Samples(self.period_s, self.power_uw[first:], high, falls, self.averaged)

    def and_then(self, more: Samples) -> Samples:
        """These samples and those that follow them."""
        high, falls = None, None
        if self.high is not None and more.high is not None:
            high = np.concatenate([self.high, more.high])
        if self.falls is not None and more.falls is not None:
            falls = np.concatenate([self.falls, more.falls + len(self)])
        power = np.concatenate([self.power_uw, more.power_uw])
        return Samples(self.period_s, power, high, falls, self.averaged)


@dataclass(frozen=True, slots=True)
class EnergyWindow:
    """One window: its energy, and what there is to judge it by.

    Attributes:
        energy_uj: drawn while the trigger was high, in microjoules; the idle power is part of it.
        duration_s: how long that was.
        idle_uw: mean power right before and after the window, in microwatts.
        supply_mv: supply voltage in millivolts.
        samples: how many samples lie in the window, in whole or in part.
    """

    energy_uj: float
    duration_s: float
    idle_uw: float
    supply_mv: int
    samples: int


def idle_samples(period_s: float) -> int:
    """How many samples beside a window tell the idle power."""
    return max(IDLE_SAMPLES, round(IDLE_S / period_s))


def guard_samples(period_s: float) -> int:
    """How many samples right beside a window are neither."""
    return max(GUARD_SAMPLES, round(GUARD_S / period_s))


def margin_samples(period_s: float) -> int:
    """Samples that must be there before a window's first and behind its last one."""
    return idle_samples(period_s) + guard_samples(period_s) + 1


def find_window(
    samples: Samples, duration_s: float | None, *, meter: str, supply_mv: int
) -> EnergyWindow | None:
    """The one window in the samples; None while it has not ended, or too little follows it.

    Args:
        samples: from `margin_samples` before the window on.
        duration_s: how long the trigger was high by the board's own clock; None: not known, which
            only meters that sample the pin's level can do without.
        meter: its name, for messages.
        supply_mv: supply voltage.

    Raises:
        TriggerError: the pin was not high once, for about that long.
    """
    if samples.high is not None:
        return _between_levels(samples, samples.high, duration_s, meter, supply_mv)
    assert samples.falls is not None, "a meter samples the pin's level or reports its events"
    if duration_s is None:
        raise TriggerError(meter, "it reports one edge only, so the window's length must be known")
    return _before_event(samples, samples.falls, duration_s, meter, supply_mv)


def why_no_window(samples: Samples, meter: str) -> TriggerError:
    """What to say when a window should have ended and has not."""
    if samples.high is None:
        seen = "the trigger pin never fell"
    elif not samples.high.any():
        seen = "the trigger pin stayed low"
    elif samples.high.all():
        seen = "the trigger pin stayed high"
    elif samples.high[-1]:
        seen = "the trigger pin rose and stayed high"
    else:
        seen = "too few samples follow the window"
    return TriggerError(
        meter,
        f"{seen} while the board measured a window ({len(samples):,} samples); is it wired to the "
        "meter's input that lab.toml names, with a common ground?",
    )


def _between_levels(
    samples: Samples,
    high: NDArray[np.bool_],
    duration_s: float | None,
    meter: str,
    supply_mv: int,
) -> EnergyWindow | None:
    changes = np.flatnonzero(high[1:] != high[:-1]) + 1
    rises, falls = changes[high[changes]], changes[~high[changes]]
    if high[:1].any():
        raise TriggerError(meter, "the trigger pin was high before the window began")
    if len(falls) == 0:
        return None
    if len(rises) > 1:
        raise TriggerError(
            meter, f"the trigger pin rose {len(rises)} times where one window was measured"
        )
    first, end = int(rises[0]), int(falls[0])  # the first high sample, the first low one after it
    period_s, power = samples.period_s, samples.power_uw
    idle, guard = idle_samples(period_s), guard_samples(period_s)
    if len(high) < end + idle + guard:
        return None
    length = end - first
    if duration_s is None:
        duration_s = length * period_s
    wanted = duration_s / period_s
    if abs(wanted - length) > DURATION_SLACK_SAMPLES + DURATION_TOLERANCE * wanted:
        raise _wrong_duration(meter, length * period_s, duration_s)

    # The pin fell in (end - 1, end] and rose in (first - 1, first], `wanted` before that: the
    # middle of what both allow.
    fall = (max(end - 1, first - 1 + wanted) + min(end, first + wanted)) / 2
    rise = fall - wanted
    # Every sample stands for half a period to either side, the outer two for all up to the edges:
    # a value between a sample inside and one outside would be neither.
    inside = power[first:end].astype(np.float64)
    total = inside.sum() + (first - rise - 0.5) * inside[0] + (fall - end + 0.5) * inside[-1]
    before = power[max(0, first - guard - idle) : max(0, first - guard)]
    after = power[end + guard : end + guard + idle]
    return EnergyWindow(
        energy_uj=float(total * period_s),
        duration_s=duration_s,
        idle_uw=float(np.concatenate([before, after]).mean(dtype=np.float64)),
        supply_mv=supply_mv,
        samples=length,
    )


def _before_event(
    samples: Samples, falls: NDArray[np.int64], duration_s: float, meter: str, supply_mv: int
) -> EnergyWindow | None:
    if len(falls) == 0:
        return None
    if len(falls) > 1:
        raise TriggerError(
            meter, f"the trigger pin fell {len(falls)} times where one window was measured"
        )
    period_s, power = samples.period_s, samples.power_uw
    idle, guard = idle_samples(period_s), guard_samples(period_s)
    wanted = duration_s / period_s
    # The samples that hold the window, and a guard to either side; what is not the window in them
    # is idle power, known from the samples beside.
    first = int(np.floor(falls[0] - wanted)) - guard
    end = int(falls[0]) + 1 + guard
    if len(power) < end + idle:
        return None
    if first < idle:
        raise _wrong_duration(meter, float(falls[0]) * period_s, duration_s)
    before = float(power[first - idle : first].mean(dtype=np.float64))
    after = float(power[end : end + idle].mean(dtype=np.float64))
    idle_uw = (before + after) / 2
    total = power[first:end].sum(dtype=np.float64) - idle_uw * (end - first - wanted)
    return EnergyWindow(
        energy_uj=float(total * period_s),
        duration_s=duration_s,
        idle_uw=idle_uw,
        supply_mv=supply_mv,
        samples=int(np.ceil(wanted)),
    )


def _wrong_duration(meter: str, seen_s: float, wanted_s: float) -> TriggerError:
    return TriggerError(
        meter,
        f"the trigger pin was high for {seen_s * 1e3:,.3f} ms where the board counted "
        f"{wanted_s * 1e3:,.3f} ms; is another pin wired to the meter, or were samples lost?",
    )
