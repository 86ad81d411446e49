"""Runs any ELF on a place and tells how it ended: `hil run`. Other people's firmware too.

Virtual boards know of exits, cycles and instructions; hardware only of what comes over the serial
port. Not here: measuring a model (session).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hil.lab import Place
from hil.link import SerialLink, remaining

Reason = Literal["exit", "until", "timeout", "fault", "sleep"]

_SENTENCES: dict[Reason, str] = {
    "exit": "ended",
    "until": "printed the text",
    "timeout": "was still running at the timeout",
    "fault": "faulted",
    "sleep": "sleeps and no interrupt will wake it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended; what hardware cannot tell is None. `output` is what it printed."""

    place: str
    source: Literal["virtual", "hardware"]
    reason: Reason
    exit_code: int | None
    cycles: int | None
    instructions: int | None
    fault: str | None
    timing_model: str | None
    memory: dict[str, Any] | None  # wait_states, prefetch, caches_on at the end
    output: bytes

    @property
    def command_exit_code(self) -> int:
        """The program's own if it ended itself, 0 if it printed the text, else 1."""
        if self.reason == "exit":
            return min(abs(self.exit_code or 0), 255)
        return 0 if self.reason == "until" else 1

    def sentence(self, name: str) -> str:
        """How it ended, for people."""
        text = f"{name} on {self.place} {_SENTENCES[self.reason]}"
        if self.exit_code is not None:
            text += f" with code {self.exit_code}"
        if self.fault is not None:
            text += f": {self.fault}"
        if self.cycles is not None:
            text += f"; {self.cycles:,} cycles ({self.source}, {self.timing_model})"
        if self.instructions is not None:
            text += f", {self.instructions:,} instructions"
        if self.cycles is not None and self.memory is not None:
            caches = ", ".join(self.memory["caches_on"]) or "no caches"
            text += f"; flash at {self.memory['wait_states']} wait states, {caches} on"
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; output that is no UTF-8 is shown with replacement characters."""
        return {
            "schema": 1,
            "place": self.place,
            "source": self.source,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "cycles": self.cycles,
            "instructions": self.instructions,
            "fault": self.fault,
            "timing_model": self.timing_model,
            "memory": self.memory,
            "output": self.output.decode("utf-8", "replace"),
        }


def run_elf(
    place: Place,
    elf: Path,
    *,
    until: str | None,
    timeout_s: float,
    on_output: Callable[[bytes], None],
) -> RunReport:
    """Flashes an ELF and follows it until it ends.

    Args:
        place: an open place.
        elf: linked for the board.
        until: text of its output that ends the run.
        timeout_s: longest run, in seconds of this machine.
        on_output: gets what it prints as it comes.

    Raises:
        HilError: it could not be flashed, or the link failed.
    """
    if place.source == "virtual":
        return _run_virtual(place, elf, until, timeout_s, on_output)
    return _run_hardware(place, elf, until, timeout_s, on_output)


def _run_virtual(
    place: Place,
    elf: Path,
    until: str | None,
    timeout_s: float,
    on_output: Callable[[bytes], None],
) -> RunReport:
    from hil.virtual import run  # loads the emulator, which takes a while
    from hil.virtual.place import VirtualPlace

    assert isinstance(place, VirtualPlace), "virtual places are virtual boards"
    result = run.run_elf(place, elf, until=until, timeout_s=timeout_s, on_output=on_output)
    return RunReport(
        place=place.name,
        source=place.source,
        reason=result.reason,
        exit_code=result.exit_code,
        cycles=result.cycles,
        instructions=result.instructions,
        fault=result.fault,
        timing_model=place.timing_model,
        memory=result.memory,
        output=result.output,
    )


def _run_hardware(
    place: Place,
    elf: Path,
    until: str | None,
    timeout_s: float,
    on_output: Callable[[bytes], None],
) -> RunReport:
    output = bytearray()
    reason: Reason = "timeout"
    with SerialLink(place.port, place.board.link.baud) as link:
        link.discard()
        place.flash(elf)
        deadline = time.monotonic() + timeout_s
        while remaining(deadline):
            data = link.read(remaining(deadline))
            output += data
            on_output(data)
            if until is not None and until.encode() in output:
                reason = "until"
                break
    return RunReport(
        place=place.name,
        source=place.source,
        reason=reason,
        exit_code=None,
        cycles=None,
        instructions=None,
        fault=None,
        timing_model=None,
        memory=None,
        output=bytes(output),
    )
