"""How long the real `pyocd load` takes on virtual boards, process start included.

    python tests/bench/pyocd_speed.py [BOARD...]

A 300 KB image into erased flash, the same again (checksums tell pyOCD that nothing changed), and
another image over it. On an otherwise idle machine: the emulator and pyOCD take a core each.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hil.board import Board, board_ids, get_board
from hil.virtual.place import VirtualPlace

IMAGE_BYTES = 300_000


def load_s(place: VirtualPlace, image: Path) -> float:
    """Seconds of one `pyocd load`."""
    board = place.board
    command = [sys.executable, "-m", "pyocd", "load", "--uid", str(place.probe)]
    command += ["--target", board.flash.target, "-O", "auto_unlock=false"]
    command += ["--base-address", f"{board.flash_memory.origin:#x}", str(image)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return time.perf_counter() - start


def measure(board: Board, folder: Path) -> None:
    """One line."""
    images = []
    for seed in range(2):
        images.append(folder / f"{seed}.bin")
        images[-1].write_bytes(random.Random(seed).randbytes(IMAGE_BYTES))
    with VirtualPlace(board) as place:
        times = [load_s(place, images[i]) for i in (0, 0, 1)]
    print(f"{board.id:<18}", *(f"{seconds:8.2f} s" for seconds in times))


def main() -> None:
    """Every board, or those that are named."""
    print(f"{IMAGE_BYTES // 1000} KB            first      same again  another")
    with tempfile.TemporaryDirectory() as folder:
        for board in sys.argv[1:] or board_ids():
            measure(get_board(board), Path(folder))


if __name__ == "__main__":
    main()
