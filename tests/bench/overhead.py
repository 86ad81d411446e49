"""What a measurement costs besides flashing and inferences: `python tests/bench/overhead.py`.

For each virtual board and model: from the call of `measure_model` on an open place, whose firmware
is built already and whose outputs the oracle has given, until the record is in the store. Taken off
are flashing, the processor time of the board's own process, which is the emulated core, and what
either waited for a processor that other work had: what is left is this process, and both waiting
for each other. Least and median of several. Then what crosses the serial port, and how long that
takes at the board's rate: on hardware it comes on top.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hil import session
from hil.bench import measure_model
from hil.board import board_ids, get_board
from hil.expected import ExpectedOutputs
from hil.link import SerialLink
from hil.store import Store
from hil.virtual.place import VirtualPlace

MODELS = Path(os.environ.get("HIL_MODELS", Path(__file__).resolve().parents[3] / "shared/models"))
NAMES = ("ad01_int8", "kws_ref_model", "vww_96_int8")
TIMES = 7
BITS_PER_BYTE = 10  # 8N1
TURNAROUND_S = 0.001  # a USB serial port hands on what it got once a millisecond (full speed)


@dataclass
class Traffic:
    """What crossed the serial port."""

    sent: int = 0
    received: int = 0
    turnarounds: int = 0


class CountingLink(SerialLink):
    """A serial port that counts."""

    traffic = Traffic()

    def write(self, data: bytes) -> None:
        self.traffic.sent += len(data)
        self.traffic.turnarounds += 1
        super().write(data)

    def read(self, timeout_s: float) -> bytes:
        data = super().read(timeout_s)
        self.traffic.received += len(data)
        return data


class TimedPlace(VirtualPlace):
    """A virtual board that knows how long it was flashed, and its share of that time."""

    flash_s = board_s = 0.0

    def flash(self, elf: Path, *, until: str = "") -> None:
        start, spent = time.perf_counter(), sum(spent_s(self.process_id))
        super().flash(elf, until=until)
        self.flash_s += time.perf_counter() - start
        self.board_s += sum(spent_s(self.process_id)) - spent


def spent_s(process_id: int) -> tuple[float, float]:
    """Seconds for which the threads of a process ran, and waited for a processor."""
    running = waiting = 0
    for path in Path(f"/proc/{process_id}/task").glob("*/schedstat"):
        ran, waited, _ = map(int, path.read_text().split())
        running, waiting = running + ran, waiting + waited
    return running / 1e9, waiting / 1e9


@contextmanager
def counting() -> Iterator[Traffic]:
    """The traffic of all links that are opened within."""
    CountingLink.traffic = Traffic()
    session.SerialLink = CountingLink  # type: ignore[attr-defined, misc]
    try:
        yield CountingLink.traffic
    finally:
        session.SerialLink = SerialLink  # type: ignore[attr-defined, misc]


def main() -> None:
    """Prints the table."""
    print(
        f"{'board':17} {'model':14} {'overhead':>9} {'median':>9} {'this process':>13}   "
        f"{'bytes':>7} {'turnarounds':>11} {'line at 115,200 baud':>21}"
    )
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "hil.sqlite") as store:
        for board_id in board_ids():
            board = get_board(board_id)
            with TimedPlace(board) as place:
                for name in NAMES:
                    report(place, name, store)


def report(place: TimedPlace, name: str, store: Store) -> None:
    """One row."""
    tflite = (MODELS / f"{name}.tflite").read_bytes()
    expected = ExpectedOutputs()
    overheads, own = [], []
    for _ in range(TIMES + 1):
        place.flash_s = place.board_s = 0.0
        board, (ran, waited) = sum(spent_s(place.process_id)), spent_s(os.getpid())
        start = time.perf_counter()
        with counting() as traffic:
            store.add_record(measure_model(tflite, name, place, expected=expected))
        seconds = time.perf_counter() - start
        board_s = sum(spent_s(place.process_id)) - board - place.board_s
        ran_s, waited_s = (
            now - then for now, then in zip(spent_s(os.getpid()), (ran, waited), strict=True)
        )
        overheads.append(max(seconds - place.flash_s - board_s - waited_s, ran_s))
        own.append(ran_s)
    del overheads[0], own[0]  # built the firmware, asked the oracle
    line_s = (traffic.sent + traffic.received) * BITS_PER_BYTE / place.board.link.baud
    line_s += traffic.turnarounds * TURNAROUND_S
    print(
        f"{place.board.id:17} {name:14} {1000 * min(overheads):6.0f} ms "
        f"{1000 * statistics.median(overheads):6.0f} ms {1000 * min(own):10.0f} ms   "
        f"{traffic.sent + traffic.received:7,} {traffic.turnarounds:11} {1000 * line_s:18.0f} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
