"""Which places of the lab may run what is asked of a place, or of a board."""

from __future__ import annotations

from dataclasses import dataclass

from hil.board import Board
from hil.health import is_anonymous
from hil.lab import Lab, board_of, source_of


@dataclass(frozen=True, slots=True)
class Where:
    """Which places may run a job.

    Attributes:
        asked: as the user named it: a place, or a board.
        places: any of these.
        spares: any of these, once all of `places` are in quarantine.
    """

    asked: str
    places: tuple[str, ...]
    spares: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Places, then spares."""
        return (*self.places, *self.spares)


def board_asked(name: str, lab: Lab) -> Board:
    """The board that a place has, or that is named itself; errors as `find_places`."""
    return board_of(find_places(name, lab).places[0], lab)


def find_places(name: str, lab: Lab) -> Where:
    """Which places may run what is asked of a place, or of a board: of any place that has it.

    A board stands for its physical places if the lab has any, else for its virtual ones. Physical
    and virtual places never stand in for each other, nor places with a meter for places without.

    Raises:
        BoardNotFound: no such place.
        UsageError: a board of which lab.toml names no place.
    """
    same = [place for place, entry in lab.places.items() if entry.board == name]
    if name not in lab.places and same:
        physical = [place for place in same if source_of(place, lab) == "hardware"]
        return Where(name, tuple(physical or same))
    board = board_of(name, lab).id
    if is_anonymous(name):
        return Where(name, (name,))
    this = lab.places[name]
    spares = (
        place
        for place, entry in lab.places.items()
        if place != name
        and entry.board == board
        and entry.virtual == this.virtual
        and (entry.meter is None) == (this.meter is None)
    )
    return Where(name, (name,), tuple(spares))
