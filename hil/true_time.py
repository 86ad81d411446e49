"""Proves a board's clock against one that does not hang on its crystal, in passing.

Both clocks of a board, the cycle counter and the microsecond timer, come from one crystal: when it
is off, or the clock tree is set up wrongly, they may agree and both be wrong. So the session reads
the board's clock between two looks at the place's (`Place.now`): the true time that lies between
two such readings is known within bounds, and the longer a session takes the tighter they are. On
hardware a session that was too short for a proof goes on until there is one: what is off by more
than TOLERANCE and PROOF together is found in every session. On a virtual board `now` is emulated
time, exact while the board waits, and does not pass by waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from hil.errors import ClockMismatch
from hil.lab import Place
from hil.wire import Wire

#: How far board and true time may disagree: crystals are off by 1e-4, RC oscillators by 1e-2.
TOLERANCE = 0.02
#: A span is a proof when it is known this well.
PROOF = 0.02
#: Longest time that a proof may take beyond the session; answers that take 20 ms need 2 s.
MAX_EXTRA_S = 5.0
RESOLUTION_S = 20e-6
_WRAP_US = 2**32


@dataclass(frozen=True, slots=True)
class Reading:
    """The board's clock at some moment between two of the place's."""

    board_us: int
    earliest_s: float
    latest_s: float


class TrueTime:
    """The readings of one session.

    Args:
        wire: in a session.
        place: has the other clock.
    """

    def __init__(self, wire: Wire, place: Place) -> None:
        self._wire, self._now = wire, place.now
        self._waits = place.source == "hardware"
        self.readings: list[Reading] = []

    def read(self) -> tuple[int, int]:
        """(microseconds, cycles) of the board, as Wire.time; one more reading."""
        earliest = self._now()
        coarse_us, cycles = self._wire.time()
        self.readings.append(Reading(coarse_us, earliest, self._now()))
        return coarse_us, cycles

    def prove(self) -> None:
        """Raises ClockMismatch unless all readings agree with true time; reads on for a proof."""
        self.read()
        started = self._now()
        while self._waits and uncertainty(self.readings) > PROOF:
            if self._now() - started > MAX_EXTRA_S:
                raise ClockMismatch(
                    f"true time is only known within {uncertainty(self.readings):.0%}, since the "
                    "board answers too slowly or this machine is too busy"
                )
            self.read()
        check_true_time(self.readings)


def _bounds(first: Reading, second: Reading) -> tuple[float, float]:
    """Least and most true seconds between two readings."""
    return second.earliest_s - first.latest_s, second.latest_s - first.earliest_s


def uncertainty(readings: list[Reading]) -> float:
    """How well the best known span is: its bounds' distance over the lower one."""
    best = float("inf")
    for pair in combinations(readings, 2):
        least, most = _bounds(*pair)
        if least > 0.0:
            best = min(best, (most - least) / least)
    return best


def check_true_time(readings: list[Reading]) -> None:
    """Raises ClockMismatch when a span by the board's clock lies outside its true bounds."""
    for first, second in combinations(readings, 2):
        least, most = _bounds(first, second)
        board_us = (second.board_us - first.board_us) % _WRAP_US
        board_us += max(0, round((most * 1e6 - board_us) / _WRAP_US)) * _WRAP_US
        seconds = board_us * 1e-6
        low = least * (1 - TOLERANCE) - RESOLUTION_S
        high = most * (1 + TOLERANCE) + RESOLUTION_S
        if not low <= seconds <= high:
            raise ClockMismatch(
                f"{seconds:,.6f} s by the board's clocks took between {least:,.6f} and "
                f"{most:,.6f} s by a clock that does not hang on its crystal"
            )
