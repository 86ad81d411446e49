"""Places: where boards are. `virtual:<board id>` always exists; lab.toml names physical ones.

lab.toml lies in the root of the repository and is not part of it, because it describes one desk:

    [places.desk_nrf]
    board = "nrf52840_dk"
    port = "/dev/ttyACM0"     # `hil boards` lists what is attached
    probe = "683012345"       # serial number of the debug probe, if there are several

    [tflm]                    # only for engine `tflm`: the user's own build of TFLM
    library = "/home/me/tflite-micro/gen/.../libtensorflow-microlite.a"
    include_dirs = ["/home/me/tflm-tree", "/home/me/tflm-tree/third_party/flatbuffers/include"]

Not here: what a board is (board), how an image gets onto it (flash), what a virtual one does
(virtual).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from hil.board import BOARDS_DIR, Board, board_ids, get_board
from hil.errors import BoardFileError, BoardNotFound, UsageError
from hil.tables import read_toml, table_to_dataclass

VIRTUAL = "virtual:"


@dataclass(frozen=True, slots=True)
class PlaceEntry:
    """A physical board in lab.toml: its type, serial port, and the debug probe's serial number."""

    board: str
    port: str
    probe: str | None = None


@dataclass(frozen=True, slots=True)
class Tflm:
    """The user's build of TFLM: the static library and the folders of its headers."""

    library: str
    include_dirs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lab:
    """lab.toml; without the file there are only virtual places."""

    places: dict[str, PlaceEntry] = field(default_factory=dict)
    tflm: Tflm | None = None


class Place(Protocol):
    """An open place: a board that can be flashed and talked to."""

    @property
    def name(self) -> str:
        """As the user calls it."""

    @property
    def board(self) -> Board:
        """Its type of board."""

    @property
    def source(self) -> Literal["virtual", "hardware"]:
        """What its measurements are labelled with."""

    @property
    def port(self) -> str:
        """Path of a tty that pyserial opens."""

    @property
    def timing_model(self) -> str | None:
        """Name and version of a virtual board's cycle model; None on hardware."""

    def flash(self, elf: Path) -> None:
        """Puts an image onto the board and starts it; raises FlashError."""

    def fault(self) -> str | None:
        """What a virtual board's emulator saw go wrong since it was flashed; None on hardware."""

    def close(self) -> None:
        """Frees the board."""


def lab_path() -> Path:
    """Where lab.toml is: HIL_LAB if set, else the root of the repository."""
    return Path(os.environ.get("HIL_LAB") or BOARDS_DIR.parent / "lab.toml")


def read_lab(path: Path | None = None) -> Lab:
    """The lab of a file; an empty one if it is not there; raises BoardFileError."""
    path = path or lab_path()
    if not path.exists():
        return Lab()
    lab = table_to_dataclass(Lab, read_toml(path), path)
    for name, entry in lab.places.items():
        where = f"places.{name}"
        if entry.board not in board_ids():
            known = ", ".join(board_ids())
            raise BoardFileError(path, where, f"no board {entry.board!r}; known are {known}")
        if not name.strip() or not name.isprintable():
            raise BoardFileError(path, "places", f"{name!r} is no name for a place")
        if not entry.port:
            raise BoardFileError(path, where, "key 'port' is empty")
        if ":" in name or "," in name:
            raise BoardFileError(path, where, "the name of a place holds neither ':' nor ','")
    return lab


def place_names(lab: Lab) -> list[str]:
    """All places: the virtual ones, then those of lab.toml."""
    return [f"{VIRTUAL}{board}" for board in board_ids()] + sorted(lab.places)


def board_of(place: str, lab: Lab) -> Board:
    """The board at a place; raises BoardNotFound with the places that exist."""
    known = place_names(lab)
    bare = place.partition("?")[0] if place.startswith(VIRTUAL) else place
    if bare in known:
        entry = lab.places.get(bare)
        return get_board(entry.board if entry else bare.removeprefix(VIRTUAL))
    here = [name for name in known if name.removeprefix(VIRTUAL) == place] + [
        name for name, entry in lab.places.items() if entry.board == place
    ]
    if here:
        raise UsageError(f"{place!r} is a board, not a place; say where: {', '.join(here)}")
    raise BoardNotFound(place, known)


@contextlib.contextmanager
def open_place(name: str) -> Iterator[Place]:
    """The place of that name, open until the block ends.

    Raises:
        BoardNotFound: no such place.
        HilError: it cannot be opened.
    """
    lab = read_lab()
    board = board_of(name, lab)
    entry = lab.places.get(name)
    place: Place
    if entry is None:
        from hil.virtual.options import parse_options
        from hil.virtual.place import VirtualPlace  # loads the emulator, which takes a while

        place = VirtualPlace(board, parse_options(name.partition("?")[2]), name)
    else:
        from hil.hardware import HardwarePlace

        place = HardwarePlace(name, board, port=entry.port, probe=entry.probe)
    with contextlib.closing(place):
        yield place
