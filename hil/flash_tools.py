"""The flashing tools: how each is called for a job, and what its words mean.

A method is a function that runs one tool, registered by name. Every tool runs as a process group
with a deadline (hil/child): it hangs when a probe is unplugged or wedged. What it prints becomes
one of the errors of hil/errors.py, or a report of what the flash went through.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hil import child
from hil.errors import ChipLocked, FlashError, HilError, ProbeGone, UsageError, VerifyFailed
from hil.health import Ledger

REMOTE = "remote:"

_MASS_ERASE = "all of its flash, and the option bytes or UICR"
_SHOWN_LINES = 5  # of a failed tool's output
_PROJECT = Path(__file__).resolve().parents[1]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlashReport:
    """What flashing did: `bytes` of the image, of which some were in the flash already.

    `written_bytes` were programmed, padding of pages included; `erased_sectors` counts erase units.
    """

    bytes: int = 0
    erased_sectors: int = 0
    written_bytes: int = 0
    skipped_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Bytes of an image, and the erase units that it touches."""

    bytes: int
    sectors: int


@dataclass(frozen=True, slots=True)
class Job:
    """One image for one board, or only a reset of it (`elf` and `image` are None).

    `target` is what the tool calls the chip; `probe` the debug probe's serial number, None when
    only one is plugged in; `work_dir` is for files that a tool wants, with the ELF as `image_link`,
    a name without blanks or quotes; the tool inherits `pass_fds`.
    """

    place: str
    elf: Path | None
    image: ImageSize | None
    method: str
    target: str
    probe: str | None
    work_dir: Path
    timeout_s: float
    pass_fds: Sequence[int] = ()

    @property
    def image_link(self) -> Path:
        """For tools with a language of their own."""
        return self.work_dir / "firmware.elf"


Method = Callable[[Job], FlashReport]

METHODS: dict[str, Method] = {}


def register(name: str) -> Callable[[Method], Method]:
    """Makes a function the method of that name; `method` in a board file's [flash]."""

    def add(method: Method) -> Method:
        assert name not in METHODS, f"two flashing methods named {name}"
        METHODS[name] = method
        return method

    return add


def add_wear(place: str, report: FlashReport) -> None:
    """Counts what the flash of a place went through, if the ledger can be written."""
    try:
        with Ledger() as ledger:
            ledger.add_wear(
                place, erased_sectors=report.erased_sectors, written_bytes=report.written_bytes
            )
    except HilError as error:
        _log.warning("flash wear of %s is not counted: %s", place, error)


def _ended(job: Job, command: Sequence[str]) -> child.Ended:
    """A tool that has ended by itself, well or badly; raises FlashError if it did not."""
    _log.info("running %s", shlex.join(command))
    python_path = os.pathsep.join(filter(None, (str(_PROJECT), os.environ.get("PYTHONPATH"))))
    try:
        ended = child.run(
            command,
            timeout_s=job.timeout_s,
            env={**os.environ, "PYTHONPATH": python_path},
            pass_fds=job.pass_fds,
        )
    except FileNotFoundError as error:
        raise FlashError(job.place, job.method, str(error)) from None
    if ended.code is None or ended.survivors:
        raise _failed(job, command, ended)
    return ended


def _failed(job: Job, command: Sequence[str], ended: child.Ended) -> FlashError:
    problem = ended.problem() or "did not say that it succeeded"
    said = f"its last lines: {_last_lines(ended.output)}"
    return FlashError(job.place, job.method, f"{shlex.join(command)} {problem}; {said}")


def _last_lines(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-_SHOWN_LINES:]) or "nothing"


# --- pyOCD


@register("pyocd")
def _pyocd(job: Job) -> FlashReport:
    """`target` is a target type of pyOCD, or one of hil/pyocd_targets.py."""
    # -P: what lies in the folder that we are called in is no module of anybody's
    command = [sys.executable, "-P", "-m", "hil.pyocd_flash", "--target", job.target]
    command += ["--probe", job.probe] if job.probe else []
    command += [str(job.elf)] if job.elf else []
    ended = _ended(job, command)
    said, _, last = ended.output.rstrip().rpartition("\n")
    try:
        answer = json.loads(last)
        kind = answer.get("error")
        counts = {field.name: answer[field.name] for field in fields(FlashReport)}
    except (ValueError, KeyError, AttributeError):
        raise _failed(job, command, ended) from None
    report = FlashReport(**counts)
    if kind is None:
        return report
    if report.erased_sectors:
        add_wear(job.place, report)
    if kind == "verify":
        expected, found = answer["expected"], answer["found"]
        raise VerifyFailed(job.place, job.method, answer["address"], expected, found)
    if kind == "locked":
        raise ChipLocked(job.place, job.method, answer["seen"], answer["destroys"])
    reason = answer["reason"]
    if said.strip():
        reason = f"{reason}; pyOCD's last lines: {_last_lines(said)}"
    raise (ProbeGone if kind == "gone" else FlashError)(job.place, job.method, reason)


# --- OpenOCD

_OPENOCD_SAME, _OPENOCD_WRITTEN = "hil: the flash holds the image", "hil: written"
_OPENOCD_LOCKED = re.compile(
    r"AP lock engaged|Debug access is denied|RDP level [12]|Device Security Bit Set"
    r"|stm32x device protected",
    re.IGNORECASE,
)
_OPENOCD_GONE = re.compile(
    r"^Error: (.*(?:no device found|No J-Link device found|find a matching CMSIS-DAP"
    r"|open failed|unable to open|LIBUSB_ERROR|Multiple devices found|device disconnected"
    r"|jaylink_\w+\(\) failed).*)$",
    re.IGNORECASE | re.MULTILINE,
)
_OPENOCD_DIFF = re.compile(
    r"^diff \d+ address 0x([0-9a-f]+)\. Was 0x([0-9a-f]+) instead of 0x([0-9a-f]+)",
    re.IGNORECASE | re.MULTILINE,
)
_OPENOCD_WROTE = re.compile(r"^wrote (\d+) bytes from file", re.MULTILINE)


@register("openocd")
def _openocd(job: Job) -> FlashReport:
    """`target` is a board configuration of OpenOCD 0.12 or newer: board/....cfg."""
    _refuse_remote(job)
    # No servers: several OpenOCDs at once would fight for their ports.
    lines = [f"{server}_port disabled" for server in ("gdb", "tcl", "telnet")]
    lines += ["init", "reset halt"]
    if job.elf:
        # The flash is compared first: writing what it holds already would wear it.
        lines += [
            f"if {{[catch {{verify_image_checksum {job.image_link}}}]}} {{",
            f"    flash write_image erase {job.image_link}",
            f"    echo {{{_OPENOCD_WRITTEN}}}",
            f"    verify_image {job.image_link}",
            f"}} else {{ echo {{{_OPENOCD_SAME}}} }}",
        ]
    script = job.work_dir / "flash.tcl"
    script.write_text("\n".join([*lines, "reset run", "shutdown", ""]), encoding="utf-8")
    probe = ["-c", f"adapter serial {job.probe}"] if job.probe else []
    command = ["openocd", "-f", job.target, *probe, "-f", str(script)]
    ended = _ended(job, command)
    if ended.code != 0:
        raise _openocd_error(job, command, ended)
    if job.image is None:
        return FlashReport()
    if _OPENOCD_SAME in ended.output:
        return FlashReport(job.image.bytes, skipped_bytes=job.image.bytes)
    if _OPENOCD_WRITTEN not in ended.output:
        raise _failed(job, command, ended)
    wrote = _OPENOCD_WROTE.search(ended.output)
    written_bytes = int(wrote[1]) if wrote else job.image.bytes
    return FlashReport(job.image.bytes, job.image.sectors, written_bytes)


def _openocd_error(job: Job, command: Sequence[str], ended: child.Ended) -> FlashError:
    if locked := _OPENOCD_LOCKED.search(ended.output):
        return ChipLocked(job.place, job.method, locked[0], _MASS_ERASE)
    if gone := _OPENOCD_GONE.search(ended.output):
        return ProbeGone(job.place, job.method, gone[1])
    after = ended.output.partition(_OPENOCD_WRITTEN)[2]
    if differs := _OPENOCD_DIFF.search(after):
        address, found, expected = (int(text, 16) for text in differs.groups())
        return VerifyFailed(job.place, job.method, address, expected, found)
    return _failed(job, command, ended)


# --- J-Link

_JLINK_LOCKED = re.compile(
    r"^.*(?:secured|read-out protect|readout protect|APPROTECT).*$", re.I | re.M
)
_JLINK_GONE = re.compile(
    r"^.*(?:Connecting to J-Link[^\n]*FAILED|Could not connect to J-Link"
    r"|Cannot connect to the probe|No emulators? connected|Failed to open DLL).*$",
    re.I | re.M,
)
_JLINK_SKIPPED = re.compile(r"contents already match", re.I)


@register("jlink")
def _jlink(job: Job) -> FlashReport:
    """`target` is a device name of SEGGER's J-Link; its software compares, skips and verifies.

    It has a mind of its own about locked chips: no option is known that keeps it from erasing one.
    """
    _refuse_remote(job)
    lines = ["r", *([f"loadfile {job.image_link}"] if job.elf else []), "r", "g", "exit", ""]
    script = job.work_dir / "flash.jlink"
    script.write_text("\n".join(lines), encoding="utf-8")
    probe = ["-SelectEmuBySN", job.probe] if job.probe else []
    device = ["-device", job.target, "-if", "SWD", "-speed", "4000"]
    automatic = ["-autoconnect", "1", "-ExitOnError", "1", "-NoGui", "1"]
    command = ["JLinkExe", *device, *probe, *automatic, "-CommandFile", str(script)]
    ended = _ended(job, command)
    if ended.code != 0:
        raise _jlink_error(job, command, ended)
    if job.image is None:
        return FlashReport()
    if _JLINK_SKIPPED.search(ended.output):
        return FlashReport(job.image.bytes, skipped_bytes=job.image.bytes)
    return FlashReport(job.image.bytes, job.image.sectors, job.image.bytes)


def _jlink_error(job: Job, command: Sequence[str], ended: child.Ended) -> FlashError:
    if locked := _JLINK_LOCKED.search(ended.output):
        return ChipLocked(job.place, job.method, locked[0].strip(), _MASS_ERASE)
    if gone := _JLINK_GONE.search(ended.output):
        return ProbeGone(job.place, job.method, gone[0].strip())
    return _failed(job, command, ended)


def _refuse_remote(job: Job) -> None:
    if job.probe and job.probe.startswith(REMOTE):
        raise UsageError(
            f"{job.place}: {job.method} does not reach the debug probe of a virtual board; "
            "use pyocd, or direct"
        )
