"""Places without boards, for what uses many of them: they keep a journal of what is done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Literal

from hil.board import Board, get_board
from hil.errors import HilError


class JournalPlace:
    """An open place that only writes down what is asked of it.

    Args:
        name: of the place.
        journal: gets (place, what) for everything.
        broken: what fails, and with which error.
    """

    source: Literal["virtual", "hardware"] = "virtual"
    timing_model: str | None = "fake/1"
    probe = meter = lock = None
    can_power_cycle = True
    port = "/dev/null"

    def __init__(
        self,
        name: str,
        journal: list[tuple[str, str]] | None = None,
        broken: dict[str, HilError] | None = None,
    ) -> None:
        self.name, self.journal, self.broken = name, journal if journal is not None else [], broken
        self.board: Board = get_board("nrf52840_dk")
        self.closed = threading.Event()

    def _do(self, what: str) -> None:
        self.journal.append((self.name, what))
        if self.broken and what in self.broken:
            raise self.broken[what]

    def flash(self, elf: Any) -> None:
        self._do("flash")

    def reset(self) -> None:
        self._do("reset")

    def power_cycle(self) -> None:
        self._do("power cycle")

    def now(self) -> float:
        return 0.0

    def fault(self) -> str | None:
        return None

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._do("close")


class JournalLab:
    """Opens JournalPlaces; `broken` as there, and "open" for the opening itself."""

    def __init__(self, broken: dict[str, HilError] | None = None) -> None:
        self.journal: list[tuple[str, str]] = []
        self.broken: dict[str, HilError] = broken if broken is not None else {}
        self.can_power_cycle = True

    @contextlib.contextmanager
    def open(self, name: str, _stop: threading.Event | None = None) -> Iterator[JournalPlace]:
        self.journal.append((name, "open"))
        if "open" in self.broken:
            raise self.broken["open"]
        place = JournalPlace(name, self.journal, self.broken)
        place.can_power_cycle = self.can_power_cycle
        with contextlib.closing(place):
            yield place

    def done_at(self, place: str) -> list[str]:
        return [what for name, what in self.journal if name == place]
