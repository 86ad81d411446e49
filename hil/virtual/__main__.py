"""The process behind one virtual board: `python -m hil.virtual --board ID --control-fd N`.

Started by hil.virtual.place.
"""

from __future__ import annotations

import argparse
import contextlib

from hil.virtual.server import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m hil.virtual", description=__doc__)
    parser.add_argument(
        "--board", required=True, help="shown in the process list; the channel describes the board"
    )
    parser.add_argument("--control-fd", required=True, type=int, help="inherited socket")
    control_fd = parser.parse_args().control_fd
    with contextlib.suppress(ConnectionError):  # who started us was killed: nobody to tell
        main(control_fd)
