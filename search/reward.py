"""Objectives of a study: the error of the int8 network, and what each place reported.

All are to be minimised. What the metrics are is said once, in hil/fronts.py, so that strategies and
tables agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hil.fronts import METRICS
from hil.record import Record
from search.errors import SearchError, SettingsError

#: The metric that is the same for all places.
ERROR = "error"


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
        record = next(iter(records.values())) if self.place is None else records[self.place]
        value = float(METRICS[self.metric](accuracy, record))
        if math.isnan(value):
            raise SearchError(f"{self.place} reports no {self.metric}; leave out that objective")
        return value


def objectives(metrics: Sequence[str], places: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of a study: every board metric once for every place.

    Raises:
        SettingsError: an unknown metric, or one named twice, or none.
    """
    for metric in metrics:
        if metric not in METRICS:
            known = ", ".join(METRICS)
            raise SettingsError("objectives", f"{metric!r} is not known; known are {known}")
    if not metrics or len(set(metrics)) != len(metrics):
        raise SettingsError("objectives", f"{list(metrics)} should name one or more, each once")
    return tuple(
        Objective(metric, place)
        for metric in metrics
        for place in ([None] if metric == ERROR else places)
    )
