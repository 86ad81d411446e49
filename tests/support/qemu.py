"""Counts executed instructions with QEMU: an emulator that shares no code of ours.

QEMU's MPS2 boards have the cores of our boards, code memory at 0 and RAM at 0x20000000, 4 MiB each.
A plugin (support/c/count_plugin.c) counts each instruction before it is executed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

QEMU = "qemu-system-arm"
MACHINE_OF = {"cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500"}
FLASH_ORIGIN, RAM_ORIGIN = 0, 0x2000_0000
_PLUGIN = Path(__file__).resolve().parent / "c" / "count_plugin.c"


class QemuRun(NamedTuple):
    """What QEMU saw."""

    exit_code: int
    output: bytes
    executions: Counter[int]  # address of an instruction -> how often it was begun


def build_plugin(folder: Path) -> Path:
    """The plugin as a shared library; skips the test where it cannot be made or used."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed; apt install qemu-system-arm")
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc for this machine to build QEMU's plugin; apt install gcc")
    library = folder / "count_plugin.so"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, str(_PLUGIN), "-o", str(library)], check=True, timeout=60)
    return library


def run_qemu(plugin: Path, core: str, elf: Path) -> QemuRun:
    """Runs a program that is linked for code at 0 and RAM at 0x20000000, until it exits."""
    counts = elf.with_suffix(".counts")
    command = [
        QEMU, "-M", MACHINE_OF[core], "-kernel", str(elf), "-nodefaults", "-display", "none",
        "-chardev", "stdio,id=console",
        "-semihosting-config", "enable=on,target=native,chardev=console",
        "-plugin", f"{plugin},out={counts}",
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    complaint = done.stderr.decode(errors="replace")
    if "plugin" in complaint:
        pytest.skip(f"this QEMU does not take the plugin (7.2 does): {complaint.strip()}")
    assert counts.exists(), complaint
    pairs = (line.split() for line in counts.read_text().splitlines())
    return QemuRun(done.returncode, done.stdout, Counter({int(a): int(n) for a, n in pairs}))
