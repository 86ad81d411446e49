"""Places: where boards are. `virtual:<board id>` always exists; lab.toml names the others.

lab.toml lies in the root of the repository and is not part of it, because it describes one desk.
`hil lab scan` writes it from what is plugged in, and leaves alone what is there already:

    [places.desk_nrf]
    board = "nrf52840_dk"
    port = "/dev/serial/by-id/usb-SEGGER_J-Link_000683012345-if00"  # or "usb:SERIAL[:INTERFACE]"
    probe = "683012345"       # serial number of the debug probe
    flash = "jlink"           # instead of the method in the board file
    tags = ["nightly"]        # --board tag:nightly is every place that has it
    meter = {kind = "ppk2", port = "usb:E6B01234ABCD:1", supply_mv = 3000, trigger_channel = 0}
    power = {kind = "uhubctl", location = "1-1.4", port = 2}

    [places.twin]             # an emulated board with a name: it can be locked and quarantined
    board = "nrf52840_dk"
    virtual = true
    flash = "pyocd"           # or direct
    meter = {kind = "ppk2"}
    faults = ["silence@2"]

    [tflm]                    # only for engine `tflm`: the user's own build of TFLM
    library = "/home/me/tflite-micro/gen/.../libtensorflow-microlite.a"
    include_dirs = ["/home/me/tflm-tree", "/home/me/tflm-tree/third_party/flatbuffers/include"]

Not here: what a board is (board), how an image gets onto it (flash), what a virtual one does
(virtual), who may use a place (locks), how its supply is switched (power).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from hil.board import BOARDS_DIR, Board, board_ids, get_board
from hil.errors import BoardFileError, BoardNotFound, PlaceQuarantined, UsageError
from hil.flash import method_names
from hil.health import Ledger, ledger_path
from hil.locks import WAIT_S, PlaceLock, SlotLock, place_keys
from hil.ports import why_not_stable
from hil.power import PowerEntry
from hil.tables import read_toml, table_to_dataclass
from hil.virtual.faults import parse_faults
from hil.virtual.options import FlashWay, MeterKind, VirtualOptions, parse_options

if TYPE_CHECKING:
    from hil.meters import Meter

VIRTUAL = "virtual:"
TAG = "tag:"

_log = logging.getLogger(__name__)  # what it warns of is on stderr, set up or not


@dataclass(frozen=True, slots=True)
class MeterEntry:
    """The energy meter in a board's supply.

    Attributes:
        kind: name of a driver in hil/meters.
        port: serial port, by a stable name as that of a place; None where the driver needs none.
        serial: serial number, for meters without a serial port.
        supply_mv: what the meter supplies the board with; None: the board has its own supply.
        trigger_channel: input of the meter that the board's trigger pin is wired to.
    """

    kind: str
    port: str | None = None
    serial: str | None = None
    supply_mv: int | None = None
    trigger_channel: int = 0

    def __post_init__(self) -> None:
        if self.port is not None and (problem := why_not_stable(self.port)):
            raise ValueError(f"key 'port': {problem}")
        if self.supply_mv is not None and not 0 < self.supply_mv <= 5500:
            raise ValueError(f"key 'supply_mv' is {self.supply_mv}; it should be 1 to 5500")
        if not 0 <= self.trigger_channel <= 7:
            raise ValueError(
                f"key 'trigger_channel' is {self.trigger_channel}; it should be 0 to 7"
            )


@dataclass(frozen=True, slots=True)
class PlaceEntry:
    """A place of lab.toml: a physical board, or an emulated one (`virtual`) that has a name.

    Attributes:
        board: id of its type.
        port: serial port of a physical board: /dev/serial/by-id/..., or usb:SERIAL[:INTERFACE].
        probe: serial number of its debug probe; None when only one is plugged in.
        flash: how images get onto it, instead of what the board file says.
        meter: the energy meter in its supply.
        power: the switch in its supply.
        tags: words that `--board tag:WORD` finds it by.
        virtual: no physical board; it is labelled as what it is, like `virtual:<board id>`.
        faults: what goes wrong with an emulated board, as hil/virtual/faults.py reads it.
    """

    board: str
    port: str | None = None
    probe: str | None = None
    flash: str | None = None
    meter: MeterEntry | None = None
    power: PowerEntry | None = None
    tags: tuple[str, ...] = ()
    virtual: bool = False
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.board not in board_ids():
            raise ValueError(f"no board {self.board!r}; known are {', '.join(board_ids())}")
        for tag in self.tags:
            if not tag or not tag.isprintable() or set(tag) & set(",: "):
                raise ValueError(f"tag {tag!r} should be a word without ',' and ':'")
        if self.virtual:
            self._check_virtual()
        else:
            self._check_physical()

    @property
    def options(self) -> VirtualOptions:
        """What an emulated board is given."""
        return VirtualOptions(
            flash=self.flash or "direct",  # type: ignore[arg-type]  # checked above
            meter=self.meter.kind if self.meter else None,  # type: ignore[arg-type]
            faults=self.faults,
        )

    def _check_virtual(self) -> None:
        for key in ("port", "probe", "power"):
            if getattr(self, key) is not None:
                raise ValueError(f"key {key!r} is for physical boards; this one is virtual")
        if self.flash not in (None, *get_args(FlashWay)):
            known = ", ".join(get_args(FlashWay))
            raise ValueError(f"key 'flash' is {self.flash!r}; a virtual board knows {known}")
        if self.meter is not None and self.meter.kind not in get_args(MeterKind):
            known = ", ".join(get_args(MeterKind))
            raise ValueError(f"meter {self.meter.kind!r}: a virtual board knows {known}")
        try:
            parse_faults(self.faults)
        except UsageError as error:
            raise ValueError(str(error)) from None

    def _check_physical(self) -> None:
        if self.port is None:
            raise ValueError("missing key 'port'; an emulated board says virtual = true")
        if not self.port:
            raise ValueError("key 'port' is empty")
        if problem := why_not_stable(self.port):
            raise ValueError(f"key 'port': {problem}")
        if self.flash not in (None, *method_names()):
            known = ", ".join(method_names())
            raise ValueError(f"key 'flash' is {self.flash!r}; known methods are {known}")
        if self.faults:
            raise ValueError("key 'faults' is for boards with virtual = true")
        if self.meter is not None:
            from hil.meters import KINDS  # loads numpy

            if self.meter.kind not in KINDS:
                raise ValueError(f"meter {self.meter.kind!r}: known kinds are {', '.join(KINDS)}")


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
    """An open place: a board that can be flashed and talked to.

    `lock` is the right to use it; None when the place was made without `open_place`.
    """

    lock: PlaceLock | None

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
        """Path of a tty that pyserial opens, looked up anew: it changes when USB re-enumerates.

        Raises LinkError while there is none.
        """

    @property
    def probe(self) -> str | None:
        """The debug probe as pyOCD calls it; None: the only one, or none."""

    @property
    def meter(self) -> Meter | None:
        """The energy meter in its supply; None when there is none. Raises MeterError."""

    @property
    def timing_model(self) -> str | None:
        """Name and version of a virtual board's cycle model; None on hardware."""

    @property
    def can_power_cycle(self) -> bool:
        """Whether its supply can be switched."""

    def flash(self, elf: Path) -> None:
        """Puts an image onto the board and starts it; raises FlashError."""

    def reset(self) -> None:
        """As the reset button; raises FlashError when the probe does not do it."""

    def power_cycle(self) -> None:
        """Off, on, and back on USB; raises PowerError, also when there is no switch."""

    def now(self) -> float:
        """Seconds of a clock that does not hang on the board's crystal; only differences count."""

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
    for name in lab.places:
        if not name.strip() or not name.isprintable():
            raise BoardFileError(path, "places", f"{name!r} is no name for a place")
        if set(name) & set(":,?"):
            raise BoardFileError(
                path, f"places.{name}", "the name of a place holds neither ':' nor ',' nor '?'"
            )
    return lab


def place_names(lab: Lab) -> list[str]:
    """All places: the anonymous virtual ones, then those of lab.toml."""
    return [f"{VIRTUAL}{board}" for board in board_ids()] + sorted(lab.places)


def chosen_places(names: Sequence[str], lab: Lab) -> list[str]:
    """The names, each once, with every `tag:WORD` replaced by the places that have the tag.

    Raises UsageError when no place has it.
    """
    chosen: dict[str, None] = {}
    for name in names:
        tagged = [name]
        if name.startswith(TAG):
            tag = name.removeprefix(TAG)
            tagged = sorted(place for place, entry in lab.places.items() if tag in entry.tags)
            if not tagged:
                known = sorted({word for entry in lab.places.values() for word in entry.tags})
                raise UsageError(
                    f"no place of {lab_path()} has the tag {tag!r}; "
                    f"tags there are {', '.join(known) or 'none'}"
                )
        chosen |= dict.fromkeys(tagged)
    return list(chosen)


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


def source_of(place: str, lab: Lab) -> Literal["virtual", "hardware"]:
    """What measurements at a place are labelled with."""
    entry = lab.places.get(place)
    return "virtual" if entry is None or entry.virtual else "hardware"


@contextlib.contextmanager
def open_place(
    name: str,
    *,
    flash: str | None = None,
    wait_s: float = WAIT_S,
    stop: threading.Event | None = None,
    even_quarantined: bool = False,
) -> Iterator[Place]:
    """The place of that name, open and this process's alone until the block ends.

    Args:
        name: of a place; of an anonymous virtual board, maybe with options behind '?'.
        flash: how images get onto it, instead of what its options or lab.toml say.
        wait_s: how long to wait while another process has it.
        stop: ends the wait when it is set.
        even_quarantined: for finding out what is wrong with a place.

    Raises:
        BoardNotFound: no such place.
        PlaceBusy: another process did not give it up in time.
        PlaceQuarantined: somebody must look at it first.
        UsageError: such a place is not flashed in this way.
        HilError: it cannot be opened.
    """
    lab = read_lab()
    board = board_of(name, lab)
    entry = lab.places.get(name)
    check_flash_way(name, flash, lab)
    lock: PlaceLock
    if entry is None:
        lock = SlotLock(name, board.id)
    else:
        if not even_quarantined:
            _must_be_in_use(name)
        keys = place_keys(name, entry, lab_path())
        lock = PlaceLock(keys, place=name, wait_s=wait_s, waiting=_log.warning, stop=stop)
    place: Place
    with lock:
        if entry is None or entry.virtual:
            from hil.virtual.place import VirtualPlace  # loads the emulator, which takes a while

            options = entry.options if entry else parse_options(name.partition("?")[2])
            if flash is not None:
                options = replace(options, flash=flash)  # type: ignore[arg-type]  # checked above
            place = VirtualPlace(board, options, name)
        else:
            from hil.hardware import HardwarePlace

            place = HardwarePlace(name, board, replace(entry, flash=flash) if flash else entry)
        place.lock = lock
        with contextlib.closing(place):
            yield place


def check_flash_way(name: str, flash: str | None, lab: Lab) -> None:
    """Raises UsageError when images do not get onto such a place in this way; None is its own."""
    is_virtual = source_of(name, lab) == "virtual"
    ways = get_args(FlashWay) if is_virtual else method_names()
    if flash not in (None, *ways):
        raise UsageError(f"{name} cannot be flashed by {flash!r}; it knows {', '.join(ways)}")


def _must_be_in_use(name: str) -> None:
    """Raises PlaceQuarantined."""
    if not ledger_path().exists():
        return
    with Ledger() as ledger:
        reason = ledger.quarantined(name)
    if reason is not None:
        raise PlaceQuarantined(name, reason)
