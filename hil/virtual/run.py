"""Runs any ELF file linked for a board on its virtual board and shows what it prints."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hil.errors import LinkError
from hil.virtual.place import BoardState, VirtualPlace

_LOOK_S = 0.02  # how often the board is asked whether it still runs
_REASONS: dict[str, Literal["exit", "until", "sleep", "fault"]] = {
    "exited": "exit",
    "matched": "until",
    "sleeping": "sleep",
    "locked up": "fault",
    "failed": "fault",
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, what it cost and what it printed.

    `reason` is "exit" (the program ended itself), "until" (it printed the text), "timeout", "fault"
    (the core could not go on) or "sleep" (it waits for an interrupt, and there are none). `cycles`
    and `instructions` are None when an executed instruction has no known cost. They are the same in
    every run, but for a timeout.
    """

    reason: Literal["exit", "until", "timeout", "fault", "sleep"]
    exit_code: int | None
    cycles: int | None
    instructions: int | None
    output: bytes
    fault: str | None  # the last fault, also one that the program's own handler dealt with
    memory: dict[str, Any]  # wait_states, prefetch, caches_on at the end


def run_elf(
    place: VirtualPlace,
    elf: Path,
    *,
    until: str | None = None,
    timeout_s: float = 60.0,
    on_output: Callable[[bytes], None] = lambda data: None,
) -> RunResult:
    """Flashes and runs an ELF file until it ends; raises FlashError when it cannot be loaded.

    Args:
        place: the virtual board.
        elf: linked for the board.
        until: text of the program's output that ends the run.
        timeout_s: host seconds.
        on_output: gets what the program prints, through the UART or semihosting, as it comes.
    """
    deadline = time.monotonic() + timeout_s
    output = bytearray()
    try:
        port = os.open(place.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise LinkError(place.port, str(error.strerror)) from None
    try:
        place.flash(elf, until=until or "")
        while True:
            state = place.state()
            seen = _read(place.port, port, 0.0 if state.state in _REASONS else _LOOK_S)
            if seen:
                output += seen
                on_output(seen)
            elif state.state in _REASONS and state.pending_bytes == 0:
                return _result(_REASONS[state.state], state, output)
            if time.monotonic() > deadline:
                place.stop()
                return _result("timeout", place.state(), output)
    finally:
        os.close(port)


def _read(name: str, port: int, wait_s: float) -> bytes:
    ready, _, _ = select.select([port], [], [], wait_s)
    try:
        return os.read(port, 65536) if ready else b""
    except OSError as error:  # the board's process has ended
        raise LinkError(name, str(error.strerror)) from None


def _result(
    reason: Literal["exit", "until", "timeout", "fault", "sleep"],
    state: BoardState,
    output: bytearray,
) -> RunResult:
    return RunResult(
        reason,
        state.exit_code,
        state.cycles,
        state.instructions,
        bytes(output),
        state.fault,
        state.memory,
    )
