"""Energy of one inference where no meter is attached: an estimate, and labelled so."""

from __future__ import annotations

from hil.board import Supply
from hil.record import EnergyUj


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
