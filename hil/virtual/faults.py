"""What goes wrong with a virtual board: a fault plan, and what of it strikes at which flashing.

A fault is `NAME` or `NAME@WHEN`, or a table of a plan:

    [[fault]]
    name = "silence"
    when = 2            # which flashing since the place was opened; 1 by default
    until = "power"     # the next flashing (default: "flashing"), or a power cycle
    after_lines = 5     # parameters: KINDS below; hil/virtual/README.md says what each fault does

WHEN is the number of a flashing, `always`, or `random:P:SEED`: at each flashing with probability P,
the same flashings for the same SEED. Not here: what happens to bytes (serial_faults), and the parts
of the board that ask `Faults` whether they fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hil.errors import BoardFileError, UsageError
from hil.tables import read_toml

Value = float | int | str
Until = Literal["flashing", "power"]

_RATE: dict[str, Value] = {"rate": 0.01, "seed": 1, "lines": "", "direction": "from_board"}
_LINES: dict[str, Value] = {"rate": 0.1, "seed": 1, "lines": ""}
#: Every fault with its parameters and their defaults.
KINDS: dict[str, dict[str, Value]] = {
    "garbage": _RATE,
    "lost_bytes": _RATE,
    "doubled_bytes": _RATE,
    "wrong_baud": {"baud": 57_600},
    "lost_lines": _LINES,
    "doubled_lines": _LINES,
    "swapped_lines": _LINES,
    "late_lines": {**_LINES, "by": 3},
    "silence": {"after_lines": 0},
    "hang": {"command": 1, "after_blocks": 5},
    "hard_fault": {"command": 1, "after_blocks": 5},
    "reset_loop": {"after_lines": 2},
    "brown_out": {"after_bytes": 2048},
    "probe_gone": {"after_requests": 40},
    "port_moves": {"after_lines": 8},
    "wrong_board": {"board": ""},
    "stale_firmware": {},
    "slow_clock": {"percent": 10.0},
    "stuck_trigger": {"level": 0},
    "lost_samples": {"rate": 1.0, "seed": 1, "count": 10},
    "locked_chip": {},
}
_AT_LEAST = {"baud": 300, "command": 1, "by": 1, "percent": -50.0}
_AT_MOST = {"rate": 1.0, "percent": 50.0, "level": 1, "baud": 4_000_000}
_WORDS = {"direction": ("from_board", "to_board", "both")}


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a plan; `parameters` holds all that its kind has.

    Attributes:
        name: one of KINDS.
        flashing: number of the flashing at which it strikes; None: drawn, see below.
        probability: of striking at each flashing when `flashing` is None; 1: always.
        seed: of the draw.
        until: how long it lasts.
    """

    name: str
    flashing: int | None = 1
    probability: float = 1.0
    seed: str = ""
    until: Until = "flashing"
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def strikes_at(self, flashing: int) -> bool:
        """Whether it strikes at this flashing, the first of which is 1."""
        if self.flashing is not None:
            return flashing == self.flashing
        # of its own for each flashing: what was drawn before does not matter
        return random.Random(f"{self.seed}:{flashing}").random() < self.probability

    def number(self, parameter: str) -> float:
        """A parameter that is a number."""
        value = self.parameters[parameter]
        assert not isinstance(value, str), f"{parameter} is no number"
        return value


def parse_faults(specs: Iterable[str]) -> tuple[Fault, ...]:
    """The faults of `NAME[@WHEN]` and of plans, which are paths that end in .toml.

    Raises:
        UsageError: a name, parameter or value that is not known; it says which are.
    """
    faults: list[Fault] = []
    for spec in specs:
        if spec.endswith(".toml"):
            faults += _read_plan(Path(spec))
        else:
            name, at, when = spec.partition("@")
            faults.append(_fault({"name": name, **({"when": when} if at else {})}, f"{spec!r}"))
    return tuple(faults)


def _read_plan(path: Path) -> list[Fault]:
    try:
        plan = read_toml(path)
    except BoardFileError as error:
        raise UsageError(f"fault plan {error}") from None
    entries = plan.get("fault")
    if set(plan) != {"fault"} or not isinstance(entries, list) or not entries:
        raise UsageError(f"fault plan {path}: it should hold [[fault]] tables and nothing else")
    return [
        _fault(entry, f"{path}, [[fault]] number {number}")
        for number, entry in enumerate(entries, 1)
    ]


def _fault(entry: Any, where: str) -> Fault:
    if not isinstance(entry, dict):
        raise UsageError(f"fault {where}: should be a table, found {entry!r}")
    name = entry.get("name")
    if name not in KINDS:
        raise UsageError(f"fault {where}: {name!r} is not known; known are {', '.join(KINDS)}")
    known = KINDS[name]
    for key in entry:
        if key not in known and key not in ("name", "when", "until"):
            choice = ", ".join(["when", "until", *known])
            raise UsageError(f"fault {where}: {name} has no {key!r}; it has {choice}")
    until = entry.get("until", "flashing")
    if until not in ("flashing", "power"):
        raise UsageError(f"fault {where}: until = {until!r}; known are 'flashing', 'power'")
    parameters = {key: _value(key, entry.get(key, known[key]), known[key], where) for key in known}
    return Fault(name, until=until, parameters=parameters, **_when(entry.get("when", 1), where))


def _value(key: str, value: Any, default: Value, where: str) -> Value:
    if isinstance(default, str):
        words = _WORDS.get(key)
        if isinstance(value, str) and (words is None or value in words):
            return value
        wanted = "a string" if words is None else f"one of {', '.join(words)}"
    else:
        low, high = _AT_LEAST.get(key, 0), _AT_MOST.get(key)
        kinds = (int, float) if isinstance(default, float) else (int,)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if fits and low <= value and (high is None or value <= high):
            return type(default)(value)
        number = "a number" if isinstance(default, float) else "an integer"
        wanted = f"{number} from {low}" + (f" to {high}" if high is not None else "")
    raise UsageError(f"fault {where}: {key} = {value!r} should be {wanted}")


def _when(when: Any, where: str) -> dict[str, Any]:
    text = str(when)
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return {"flashing": int(text)}
    if text == "always":
        return {"flashing": None}
    word, _, rest = text.partition(":")
    probability, colon, seed = rest.partition(":")
    try:
        chance = float(probability)
    except ValueError:
        chance = -1.0
    if word == "random" and colon and seed and 0.0 <= chance <= 1.0:
        return {"flashing": None, "probability": chance, "seed": seed}
    raise UsageError(
        f"fault {where}: when {text!r} should be the number of a flashing from 1 on, always, or "
        "random:P:SEED with P from 0 to 1"
    )


class Faults:
    """What is wrong with one board at the moment; without a plan nothing ever is.

    Args:
        plan: what may strike.
    """

    def __init__(self, plan: Iterable[Fault] = ()) -> None:
        self.plan = tuple(plan)
        self.flashings = 0
        self.on_change: Callable[[], None] = lambda: None
        self._active: tuple[Fault, ...] = ()
        self._flash_written = self._probe_requests = 0
        self._samples = random.Random(0)

    def begin_flashing(self) -> None:
        """Somebody starts to flash the board: what strikes now is decided here."""
        self.flashings += 1
        lasting = [f for f in self._active if f.until == "power"]
        new = [f for f in self.plan if f.strikes_at(self.flashings) and f not in lasting]
        self._active = (*lasting, *new)
        self._flash_written = self._probe_requests = 0
        if lost := self.find("lost_samples"):
            self._samples = random.Random(int(lost.number("seed")))
        self.on_change()

    def power_cycled(self) -> None:
        """The supply was off: what lasts until then is over."""
        self._active = tuple(f for f in self._active if f.until != "power")
        self.on_change()

    def find(self, name: str) -> Fault | None:
        """The fault of that name, if it is at work."""
        return next((f for f in self._active if f.name == name), None)

    def all(self, names: Iterable[str]) -> list[Fault]:
        """Faults of these names that are at work."""
        return [f for f in self._active if f.name in names]

    # -- what parts of the board ask

    def chip_locked(self) -> bool:
        """Whether the chip keeps debuggers out."""
        return self.find("locked_chip") is not None

    def supply_fails(self, written_bytes: int) -> bool:
        """Whether the supply falls while the flash gets these bytes; once a flashing."""
        fault = self.find("brown_out")
        if fault is None:
            return False
        before, self._flash_written = self._flash_written, self._flash_written + written_bytes
        return before <= fault.number("after_bytes") < self._flash_written

    def probe_vanishes(self) -> bool:
        """Whether the probe is gone instead of answering this request; once a flashing."""
        fault = self.find("probe_gone")
        if fault is None:
            return False
        self._probe_requests += 1
        return self._probe_requests == fault.number("after_requests") + 1

    def trigger_stuck_at(self) -> int | None:
        """The level at which the trigger pin stays, seen from the meter."""
        fault = self.find("stuck_trigger")
        return None if fault is None else int(fault.number("level"))

    def lost_samples(self) -> int:
        """How many samples the meter loses in the trigger window that begins."""
        fault = self.find("lost_samples")
        if fault is None or self._samples.random() >= fault.number("rate"):
            return 0
        return int(fault.number("count"))

    def clock_factor(self) -> float:
        """True seconds for each second that the board's crystal counts."""
        fault = self.find("slow_clock")
        return 1.0 if fault is None else 1.0 / (1.0 - fault.number("percent") / 100)
