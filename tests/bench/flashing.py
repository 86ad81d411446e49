"""How long flashing takes on the virtual boards: `python tests/bench/flashing.py [BOARD...]`.

An image of 300 KB (the echo model with constants) by pyOCD's own command line, by PlatformIO's
upload, and by the rig: onto a board that is empty, and once more. `s` is the time of the whole
command; `CPU s` what the command and the board's process computed in it: with other work on the
machine, that is the lower limit.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import psutil

from hil import flash
from hil.board import Board, board_ids, get_board
from hil.build import FIRMWARE_DIR
from hil.virtual.place import VirtualPlace

CONSTANT_BYTES = 300 * 1024
TOOLS = Path(sys.executable).parent


def main() -> None:
    print(f"{'board':18}{'command':13}{'':7}{'s':>6}{'CPU s':>7}  {os.getloadavg()[0]:.1f} = load")
    for name in sys.argv[1:] or board_ids():
        with tempfile.TemporaryDirectory() as folder:
            measure(get_board(name), Path(folder))


def measure(board: Board, folder: Path) -> None:
    settings = os.environ | {
        "HIL_MODEL_DIR": str(big_model(folder / "model")),
        "PLATFORMIO_WORKSPACE_DIR": str(folder),
        "PLATFORMIO_BUILD_DIR": str(folder / "build"),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "36500",
    }

    def run(*command: object) -> None:
        subprocess.run(list(map(str, command)), env=settings, check=True, capture_output=True)

    pio = (TOOLS / "pio", "run", "--project-dir", FIRMWARE_DIR, "--environment", board.id)
    run(*pio)
    elf = folder / "build" / board.id / "firmware.elf"
    target = board.flash.target_of("pyocd")
    load = (TOOLS / "pyocd", "load", "--target", target, "-O", "auto_unlock=false", elf)
    ways: dict[str, Callable[[VirtualPlace], object]] = {
        "pyocd load": lambda place: run(*load, "--uid", place.probe),
        "pio upload": lambda place: run(*pio, "-t", "upload", "--upload-port", place.probe),
        "rig": lambda place: flash.program(
            board, elf, place=place.name, probe=place.probe, method="pyocd"
        ),
    }
    for what, way in ways.items():
        with VirtualPlace(board) as place:
            for turn in ("first", "again"):
                began, cpu_began = time.monotonic(), cpu_s(place)
                way(place)
                seconds, cpu_seconds = time.monotonic() - began, cpu_s(place) - cpu_began
                print(f"{board.id:18}{what:13}{turn:7}{seconds:6.2f}{cpu_seconds:7.2f}")


def big_model(folder: Path) -> Path:
    """The echo model with constants that a linker keeps."""
    shutil.copytree(FIRMWARE_DIR / "models" / "echo", folder)
    words = np.random.default_rng(1).integers(0, 1 << 32, CONSTANT_BYTES // 4)
    source = folder / "model.c"
    source.write_text(
        source.read_text()
        + f"const uint32_t ballast[] = {{{','.join(map('{}u'.format, words))}}};\n"
        + "const volatile void *volatile kept;\n"
        + "__attribute__((constructor)) static void keep(void) { kept = ballast; }\n"
    )
    return folder


def cpu_s(place: VirtualPlace) -> float:
    """Processor time of the board's process, of this one, and of all its commands that ended."""
    board = psutil.Process(place.process_id).cpu_times()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return board.user + board.system + sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
