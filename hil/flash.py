"""An image onto a board, by a flashing tool and a debug probe.

The board file says which tool, and what each calls the chip; hil/flash_tools.py runs it. Whatever
the tool, what the flash holds already is skipped, what was written is verified, the program is
started, and a locked chip stays locked (firmware/README.md says where that has limits).

`python -m hil.flash --board PLACE ELF` is what PlatformIO's upload target runs; PLACE may also be
remote:HOST:PORT, the debug probe of a virtual board that `hil serve` shows.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hil.board import Board, get_board
from hil.errors import FlashError, HilError, UsageError
from hil.flash_tools import METHODS, REMOTE, FlashReport, ImageSize, Job, add_wear
from hil.virtual.image import ImageError, parse_elf, read_elf, sector_ranges

TIMEOUT_S = 120.0  # 2 MiB by a slow probe take half of it

_log = logging.getLogger(__name__)


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(METHODS)


def program(
    board: Board,
    elf: Path,
    *,
    place: str,
    probe: str | None = None,
    method: str | None = None,
    timeout_s: float = TIMEOUT_S,
    pass_fds: Sequence[int] = (),
) -> FlashReport:
    """Writes an image into the board's flash, verifies it and starts it.

    What the flash goes through is added to the place's wear in the health ledger.

    Args:
        board: the type of board; its file names the method and what it calls the chip.
        elf: the image.
        place: name for messages and for the ledger.
        probe: serial number of the board's debug probe, or remote:HOST:PORT; None when only one
            is plugged in.
        method: instead of the board file's.
        timeout_s: for everything together.
        pass_fds: file descriptors that the tool keeps open, as that of the place's lock.

    Raises:
        ProbeGone: the debug probe is not there.
        ChipLocked: the chip's protection keeps the debugger out.
        VerifyFailed: the flash holds other bytes than were written.
        FlashError: a tool is missing, failed or did not end; carries the last lines it printed.
    """
    return _run(board, elf.resolve(), place, probe, method, timeout_s, pass_fds)


def reset(
    board: Board,
    *,
    place: str,
    probe: str | None = None,
    method: str | None = None,
    timeout_s: float = TIMEOUT_S,
    pass_fds: Sequence[int] = (),
) -> None:
    """Resets the board through its debug probe; arguments and errors as of `program`."""
    _run(board, None, place, probe, method, timeout_s, pass_fds)


def _run(
    board: Board,
    elf: Path | None,
    place: str,
    probe: str | None,
    method: str | None,
    timeout_s: float,
    pass_fds: Sequence[int],
) -> FlashReport:
    method = method or board.flash.method
    if method not in METHODS:
        known = ", ".join(method_names())
        raise UsageError(f"flashing method {method!r} is not known; known are {known}")
    target = board.flash.target_of(method)
    if target is None:
        raise UsageError(
            f"boards/{board.id}.toml [flash] does not say what {method} calls the chip; "
            f"set other_targets.{method}"
        )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hil-flash-") as work_dir:
        job = Job(
            place=place,
            elf=elf,
            image=image_size(board, elf, place, method) if elf else None,
            method=method,
            target=target,
            probe=probe,
            work_dir=Path(work_dir),
            timeout_s=timeout_s,
            pass_fds=pass_fds,
        )
        if elf:
            job.image_link.symlink_to(elf)
        report = METHODS[method](job)
    report = replace(report, seconds=time.monotonic() - started)
    if elf is not None:
        _log.info("%s flashed by %s: %s", place, method, report)
        add_wear(place, report)
    return report


def image_size(board: Board, elf: Path, place: str, method: str) -> ImageSize:
    """What an image takes of the board's flash; raises FlashError when it does not lie there."""
    flash = board.flash_memory
    try:
        segments = parse_elf(read_elf(elf)).segments
    except ImageError as error:
        raise FlashError(place, method, str(error)) from None
    sectors: set[int] = set()
    for segment in segments:
        start = segment.address - flash.origin
        end = start + len(segment.data)
        if start < 0 or end > flash.size_bytes:
            raise FlashError(
                place,
                method,
                f"{elf} has {len(segment.data):,} B for 0x{segment.address:08x}, which is not in "
                f"the flash of {board.id}, 0x{flash.origin:08x} to 0x{flash.end - 1:08x}",
            )
        touched = (first for first, last in sector_ranges(flash) if first < end and start < last)
        sectors.update(touched)
    return ImageSize(sum(len(segment.data) for segment in segments), len(sectors))


def main(arguments: list[str] | None = None) -> int:
    """Flashes an ELF onto a place; the exit code is that of the command line."""
    parser = argparse.ArgumentParser(prog="python -m hil.flash", description=main.__doc__)
    parser.add_argument("--board", required=True, metavar="PLACE")
    parser.add_argument(
        "--type", metavar="BOARD", help="the board that the ELF is for; PLACE must have that one"
    )
    parser.add_argument("elf", type=Path)
    options = parser.parse_args(arguments)
    try:
        _flash(options.board, options.type, options.elf)
    except HilError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _flash(name: str, board_id: str | None, elf: Path) -> None:
    from hil.lab import open_place  # here: the lab's physical places use this module

    if name.startswith(REMOTE):
        if board_id is None:
            raise UsageError(f"{name} does not say which board is behind it: give --type")
        program(get_board(board_id), elf, place=name, probe=name, method="pyocd")
        return
    with open_place(name) as place:
        if board_id not in (None, place.board.id):
            raise UsageError(f"{elf} is for {board_id}, but {name} is a {place.board.id}")
        place.flash(elf)


if __name__ == "__main__":
    sys.exit(main())
