"""Objectives of a study: the error of the int8 network, and what each place reported.

All are to be minimised. Declared once: strategies, fronts and tables read the metrics from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hil.record import Record
from search.errors import SearchError, SettingsError


def _energy_uj(record: Record) -> float:
    if record.energy_uj is None:
        raise SearchError(f"{record.place} reports no energy; leave out objective 'energy_uj'")
    return record.energy_uj.median


#: The metric that does not depend on a board: 1 - accuracy of the int8 network on the validation
#: samples.
ERROR = "error"

#: What a record says, by metric.
BOARD_METRICS: dict[str, Callable[[Record], float]] = {
    "latency_us": lambda record: record.latency_us,
    "sram_bytes": lambda record: float(record.sram_bytes.total),
    "flash_bytes": lambda record: float(record.flash_bytes.total),
    "energy_uj": _energy_uj,
}


@dataclass(frozen=True, slots=True)
class Objective:
    """One value to be minimised; `place` is None for the error."""

    metric: str
    place: str | None = None

    @property
    def name(self) -> str:
        """Such as "error" or "latency_us@virtual:nrf52840_dk"."""
        return self.metric if self.place is None else f"{self.metric}@{self.place}"

    def value(self, accuracy: float, records: Mapping[str, Record]) -> float:
        """The value, given one record per place; raises SearchError if a record lacks it."""
        if self.place is None:
            return 1.0 - accuracy
        return BOARD_METRICS[self.metric](records[self.place])


def objectives(metrics: Sequence[str], places: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of a study: every board metric once for every place.

    Raises:
        SettingsError: an unknown metric, or one named twice, or none.
    """
    known = (ERROR, *BOARD_METRICS)
    for metric in metrics:
        if metric not in known:
            raise SettingsError(
                "objectives", f"{metric!r} is not known; known are {', '.join(known)}"
            )
    if not metrics or len(set(metrics)) != len(metrics):
        raise SettingsError("objectives", f"{list(metrics)} should name one or more, each once")
    return tuple(
        Objective(metric, place)
        for metric in metrics
        for place in ([None] if metric == ERROR else places)
    )
