"""Energy of one inference: measured by a meter in the board's supply, else an estimate.

Either way the record says which. Not here: meters and windows (hil.meters), what runs (session).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hil import stats
from hil.board import Supply
from hil.errors import MeterError
from hil.meters import Meter, take_until
from hil.meters.window import (
    EnergyWindow,
    Samples,
    find_window,
    margin_samples,
    why_no_window,
)
from hil.record import EnergyUj

if TYPE_CHECKING:
    from hil.lab import Place

#: A shorter inference is measured in a loop that lasts about so long.
SHORTEST_WINDOW_US, LOOP_US = 1000.0, 10_000.0
#: Once the board has answered, a window's end must show up within so much meter time, ...
LATE_S = 0.5
#: ... and the meter must not fall silent for so long.
SILENT_S = 10.0


def estimate(supply: Supply, latency_us: float) -> EnergyUj:
    """Supply current while computing x supply voltage x time.

    Knows nothing of what the instructions do: it ranks models of one board as their latency does.
    """
    watts = supply.voltage_mv * supply.active_ua * 1e-9
    return EnergyUj(
        median=watts * latency_us,
        n=1,
        source="estimate:data-sheet supply current x voltage x latency",
    )


def summary(energies_uj: list[float], windows: list[EnergyWindow], source: str) -> EnergyUj:
    """What a record says of the energies of one inference, each from one window."""
    return EnergyUj(
        median=stats.median(energies_uj),
        n=len(energies_uj),
        source=source,
        p05=stats.percentile(energies_uj, 5),
        p95=stats.percentile(energies_uj, 95),
        idle_uw=stats.median([window.idle_uw for window in windows]),
        supply_mv=windows[0].supply_mv,
    )


def label(place: Place) -> str:
    """Where energies of a place with a meter come from, as records say it.

    A virtual board's are estimates, whatever shows them.
    """
    assert place.meter is not None, "without a meter it is an estimate of another kind"
    if place.source == "virtual":
        return f"estimate:power model through a virtual {place.meter.kind}"
    return f"measured:{place.meter.kind}"


def measure_window(meter: Meter, run: Callable[[], float | None]) -> EnergyWindow:
    """The one window of a run; see `measure_windows`."""
    return measure_windows(meter, [run])[0]


def measure_windows(
    meter: Meter, runs: list[Callable[[], float | None]], *, exact: bool = True
) -> list[EnergyWindow]:
    """The window of each of these runs.

    Args:
        meter: in the board's supply.
        runs: each makes the board raise its trigger pin once, and returns for how many seconds by
            the board's clock; None when that is not known.
        exact: False when it is known roughly only; meters that sample the pin then go by that.

    Raises:
        SamplesLost: the meter lost samples; nothing it said counts.
        TriggerError: the trigger pin did not bracket each window.
        MeterError: the meter failed.
    """
    found = []
    meter.start()
    try:
        before = take_until(meter, lambda s: len(s) >= margin_samples(s.period_s))
        for run in runs:
            window, before = _next_window(meter, before, run(), exact=exact)
            found.append(window)
    except BaseException:
        with contextlib.suppress(MeterError):
            meter.stop()
        raise
    meter.stop()
    return found


def _next_window(
    meter: Meter, samples: Samples, duration_s: float | None, *, exact: bool
) -> tuple[EnergyWindow, Samples]:
    """The window in samples from these on, and the last samples behind it."""
    late_s = LATE_S + 1.1 * (duration_s or 0.0)
    seen = 0  # since the board has answered
    heard_at = time.monotonic()
    if not exact and samples.high is not None:
        duration_s = None
    while True:
        window = find_window(samples, duration_s, meter=meter.name, supply_mv=meter.supply_mv)
        if window is not None:
            return window, samples.since(len(samples) - margin_samples(samples.period_s))
        if seen * samples.period_s > late_s:
            raise why_no_window(samples, meter.name)
        if not meter.wait(SILENT_S) or time.monotonic() - heard_at > SILENT_S:
            raise MeterError(meter.name, f"sent no samples for {SILENT_S:.0f} s")
        more = meter.take()
        if len(more):
            heard_at = time.monotonic()
        seen += len(more)
        samples = samples.and_then(more)
