"""An image onto a physical board, by the flashing tool that its board file names.

A method is a function that gives the commands to run, registered by name. Every command runs as a
process group of its own with a deadline: flashing tools hang when a probe is unplugged or wedged.
All methods verify what they wrote. Virtual boards flash themselves (hil/virtual).

`python -m hil.flash --board PLACE ELF` is what PlatformIO's upload target runs.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hil.board import Board
from hil.errors import FlashError, HilError

_SHOWN_LINES = 5  # of a failed tool's output

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One image for one board.

    `probe_id` is the debugger's serial number, None when only one is plugged in; `work_dir` is for
    files that a tool wants.
    """

    board: Board
    elf: Path
    probe_id: str | None
    work_dir: Path


Command = list[str]
Method = Callable[[Job], list[Command]]

_methods: dict[str, Method] = {}


def register(name: str) -> Callable[[Method], Method]:
    """Makes a function the method of that name; `method` in a board file's [flash]."""

    def add(method: Method) -> Method:
        assert name not in _methods, f"two flashing methods named {name}"
        _methods[name] = method
        return method

    return add


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(_methods)


@register("openocd")
def _openocd(job: Job) -> list[Command]:
    """`target` is a board configuration of OpenOCD 0.11 or newer: board/....cfg."""
    probe = ["-c", f"adapter serial {job.probe_id}"] if job.probe_id else []
    program = f"program {{{job.elf}}} verify reset exit"  # braces: Tcl's quotes, for blanks
    return [["openocd", "-f", job.board.flash.target, *probe, "-c", program]]


@register("pyocd")
def _pyocd(job: Job) -> list[Command]:
    """`target` is a target type of pyOCD. Its load does not read back, so a compare follows."""
    image = job.work_dir / "firmware.bin"
    probe = ["--uid", job.probe_id] if job.probe_id else []
    # auto_unlock would erase a locked chip and write its option registers without being asked
    options = ["--target", job.board.flash.target, *probe, "-O", "auto_unlock=false"]
    origin = f"0x{job.board.flash_memory.origin:08x}"
    compare = f"compare {origin} {shlex.quote(str(image))}"
    return [
        ["arm-none-eabi-objcopy", "-O", "binary", str(job.elf), str(image)],
        ["pyocd", "load", *options, "--format", "bin", "--base-address", origin, str(image)],
        ["pyocd", "commander", *options, "-c", "halt", "-c", compare, "-c", "reset"],
    ]


@register("jlink")
def _jlink(job: Job) -> list[Command]:
    """`target` is a device name of SEGGER's J-Link; its DLL verifies what it programs."""
    script = job.work_dir / "flash.jlink"
    script.write_text(f'r\nloadfile "{job.elf}"\nr\ng\nexit\n', encoding="utf-8")
    probe = ["-SelectEmuBySN", job.probe_id] if job.probe_id else []
    device = ["-device", job.board.flash.target, "-if", "SWD", "-speed", "4000"]
    automatic = ["-autoconnect", "1", "-ExitOnError", "1", "-NoGui", "1"]
    return [["JLinkExe", *device, *probe, *automatic, "-CommandFile", str(script)]]


def program(
    board: Board, elf: Path, *, place: str, probe_id: str | None = None, timeout_s: float = 120.0
) -> None:
    """Writes the image into the board's flash, verifies it and resets the board.

    Args:
        board: the type of board; its file names the method.
        elf: the image.
        place: name for messages.
        probe_id: serial number of the board's debugger.
        timeout_s: for everything together.

    Raises:
        FlashError: a tool is missing, failed or did not end; carries the last lines it printed.
    """
    method = board.flash.method
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="hil-flash-") as work_dir:
        job = Job(board, elf.resolve(), probe_id, Path(work_dir))
        for command in _methods[method](job):
            problem = _run(command, max(0.0, deadline - time.monotonic()))
            if problem is not None:
                raise FlashError(place, method, problem)


def _run(command: Command, timeout_s: float) -> str | None:
    """None when the command succeeded, else what went wrong; no process is left either way."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed or not on the PATH"
    _log.info("running %s", shlex.join(command))
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code == 0:
            return None
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").strip().splitlines()
    ended = f"did not end within {timeout_s:.0f} s" if code is None else f"ended with code {code}"
    said = " | ".join(line.strip() for line in lines[-_SHOWN_LINES:]) or "nothing"
    return f"{shlex.join(command)} {ended}; its last lines: {said}"


def main(arguments: list[str] | None = None) -> int:
    """Flashes an ELF onto a place; the exit code is that of the command line."""
    from hil.lab import open_place  # here: the lab's physical places use this module

    parser = argparse.ArgumentParser(prog="python -m hil.flash", description=main.__doc__)
    parser.add_argument("--board", required=True, metavar="PLACE")
    parser.add_argument("elf", type=Path)
    options = parser.parse_args(arguments)
    try:
        with open_place(options.board) as place:
            place.flash(options.elf)
    except HilError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
