"""What is installed, attached and reachable on this machine, and how to mend what is not.

Not here: whether results are right; that is what every measurement checks by itself.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hil.board import board_ids, get_board
from hil.errors import HilError
from hil.lab import VIRTUAL, PlaceEntry, lab_path, open_place, read_lab
from hil.locks import lock_dir
from hil.ports import USB_DEVICES, attached_ports, resolve_port

#: Python packages that only some work needs, with that work.
PACKAGES = (
    ("platformio", "building firmware"),
    ("pyocd", "flashing boards, real and virtual"),
    ("scons", "building firmware"),
    ("unicorn", "virtual boards"),
    ("capstone", "virtual boards"),
    ("numba", "virtual boards"),
    ("tflite-micro", "the oracle that every output is compared with"),
    ("torch", "hil search"),
    ("optuna", "hil search with tpe or nsga2"),
)


#: What may be on a bench, by vendor or by vendor and product; as boards/60-hil.rules has them.
BENCH_DEVICES = {
    "1366": "a J-Link",
    "0d28:0204": "a DAPLink",
    **{f"0483:{product}": "an ST-LINK" for product in ("3748", "374b", "374e", "374f", "3752")},
    **{f"16d0:{product}": "a Joulescope" for product in ("0e88", "10ba", "135a")},
}

RULES = "60-hil.rules"
USB_RULES = (
    f"sudo cp boards/{RULES} /etc/udev/rules.d/ && sudo udevadm control --reload && "
    "sudo udevadm trigger; then be in the groups plugdev and dialout, and log in again"
)
_RULES_DIRS = ("/etc/udev/rules.d", "/lib/udev/rules.d", "/usr/lib/udev/rules.d")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` says what to do, empty if all is well."""

    state: Literal["ok", "missing", "optional"]
    what: str
    seen: str
    mend: str = ""


def examine() -> list[Finding]:
    """Everything that can be looked at without a board: takes some seconds."""
    return [
        *_toolchain(),
        *_packages(),
        _core_dir(),
        *_boards(),
        *_virtual_places(),
        *_lab(),
        _locks(),
        *_probes(),
        *_usb_access(),
        _folder("HIL_MODELS", "real .tflite models, for the tests"),
        _folder("HIL_DATA", "real data sets, for the tests"),
    ]


def _toolchain() -> list[Finding]:
    install = "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
    compiler = "arm-none-eabi-gcc"
    if shutil.which(compiler) is None:
        return [Finding("missing", compiler, "not on the PATH", install)]
    version = _output([compiler, "-dumpfullversion"])
    findings = [Finding("ok", compiler, f"version {version}")]
    libc = Path(_output([compiler, "-print-file-name=libc.a"]))
    if libc.is_file():
        findings.append(Finding("ok", "newlib", str(libc)))
    else:
        findings.append(Finding("missing", "newlib", "the compiler finds no libc.a", install))
    return findings


def _packages() -> list[Finding]:
    findings = []
    for name, purpose in PACKAGES:
        try:
            version = importlib.metadata.version(name)
            findings.append(Finding("ok", name, f"version {version}"))
        except importlib.metadata.PackageNotFoundError:
            findings.append(
                Finding("missing", name, f"not installed; needed for {purpose}", "make setup")
            )
    return findings


def _core_dir() -> Finding:
    what = "PlatformIO's folder"
    try:
        from hil.platformio_core import prepare_core_dir

        return Finding("ok", what, f"{prepare_core_dir()}, with SCons from PyPI as its build tool")
    except (HilError, OSError, ImportError) as error:
        return Finding("missing", what, str(error), "make setup")


def _boards() -> list[Finding]:
    findings = []
    for board in board_ids():
        what = f"boards/{board}.toml"
        try:
            findings.append(Finding("ok", what, get_board(board).name))
        except HilError as error:
            findings.append(Finding("missing", what, str(error), "correct the file"))
    return findings


def _virtual_places() -> list[Finding]:
    findings = []
    for board in board_ids():
        name = f"{VIRTUAL}{board}"
        try:
            with open_place(name) as place:
                findings.append(Finding("ok", name, f"starts; cycles by {place.timing_model}"))
        except (HilError, ImportError) as error:
            findings.append(Finding("missing", name, str(error), "make setup"))
    return findings


def _lab() -> list[Finding]:
    path = lab_path()
    if not path.exists():
        return [
            Finding(
                "optional",
                str(path),
                "not there: virtual places only",
                "to use physical boards, plug them in and run: hil lab scan",
            )
        ]
    try:
        lab = read_lab()
    except HilError as error:
        return [Finding("missing", str(path), str(error), "correct the file")]
    physical = {name: entry for name, entry in lab.places.items() if not entry.virtual}
    text = f"{len(physical)} physical places, {len(lab.places) - len(physical)} named virtual ones"
    findings = [Finding("ok", str(path), text)]
    findings += [_physical_place(name, entry) for name, entry in sorted(physical.items())]
    if lab.tflm is None:
        findings.append(
            Finding(
                "optional",
                "engine tflm",
                "lab.toml has no [tflm]",
                "name your own build of TFLM there; engine 'reference' needs none",
            )
        )
    elif not Path(lab.tflm.library).is_file():
        findings.append(
            Finding("missing", "engine tflm", f"no file {lab.tflm.library}", "correct lab.toml")
        )
    else:
        findings.append(Finding("ok", "engine tflm", lab.tflm.library))
    return findings


def _physical_place(name: str, entry: PlaceEntry) -> Finding:
    what = f"place {name}"
    try:
        port = resolve_port(entry.port or "")
    except HilError as error:
        return Finding("missing", what, str(error), "plug the board in, or correct lab.toml")
    if not Path(port).exists():
        return Finding(
            "missing",
            what,
            f"no {port}",
            "plug the board in; hil boards lists what is attached",
        )
    if not os.access(port, os.R_OK | os.W_OK):
        return Finding(
            "missing",
            what,
            f"{port} may not be opened",
            "sudo usermod -aG dialout $USER, then log in again",
        )
    return Finding("ok", what, f"{entry.board} on {entry.port}")


def _probes() -> list[Finding]:
    findings = [
        Finding(
            "ok",
            f"attached {' or '.join(port.boards) or 'serial port'}",
            f"{port.path} {port.text}",
        )
        for port in attached_ports()
    ]
    tools = {get_board(board).flash.method for board in board_ids()} | {"uhubctl"}
    for tool in sorted(tools - {"pyocd"}):  # pyOCD is one of the packages
        program = {"jlink": "JLinkExe"}.get(tool, tool)
        use = "switches sockets of USB hubs" if tool == "uhubctl" else "flashes physical boards"
        if shutil.which(program):
            findings.append(Finding("ok", program, use))
        else:
            mend = {"jlink": "install SEGGER's J-Link software"}.get(
                tool, f"sudo apt-get install {tool}"
            )
            seen = f"not installed; it {use}"
            findings.append(Finding("optional", program, seen, mend))
    return findings


def _usb_access() -> list[Finding]:
    """Whether this user may open the probes and meters that are on USB; Linux only."""
    findings = []
    for device in sorted(USB_DEVICES.glob("*")):
        try:
            ids = [(device / name).read_text().strip() for name in ("idVendor", "idProduct")]
            bus, number = (int((device / name).read_text()) for name in ("busnum", "devnum"))
        except (OSError, ValueError):  # an interface, or just unplugged
            continue
        node = f"/dev/bus/usb/{bus:03}/{number:03}"
        kind = BENCH_DEVICES.get(ids[0]) or BENCH_DEVICES.get(":".join(ids))
        if kind is not None and not os.access(node, os.R_OK | os.W_OK):
            seen = f"{':'.join(ids)}, {node} may not be opened by this user"
            findings.append(Finding("missing", f"USB access to {kind}", seen, USB_RULES))
    if not findings and not any(Path(folder, RULES).is_file() for folder in _RULES_DIRS):
        seen = f"{RULES} is not installed: probes and hubs may be out of reach without root"
        findings.append(Finding("optional", "USB access", seen, USB_RULES))
    return findings or [Finding("ok", "USB access", "to every probe and meter that is on USB")]


def _locks() -> Finding:
    try:
        return Finding("ok", "locks of places", f"in {lock_dir()}")
    except HilError as error:
        return Finding("missing", "locks of places", str(error), "set HIL_LOCKS")


def _folder(variable: str, purpose: str) -> Finding:
    path = os.environ.get(variable, "")
    if path and Path(path).is_dir():
        return Finding("ok", variable, path)
    seen = f"no folder {path}" if path else "not set"
    return Finding("optional", variable, seen, f"set it to a folder of {purpose}")


def _output(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()
