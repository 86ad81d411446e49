"""Meters in the supply of a board that is nothing but a trigger pin: for tests of their drivers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hil.board import Board, get_board
from hil.meters import Meter, joulescope, open_meter
from hil.virtual.fake_lpm01a import FakeLpm01a
from hil.virtual.fake_meter import FakeMeter
from hil.virtual.fake_ppk2 import FakePpk2

BOARD = get_board("nrf52840_dk")
SUPPLY_MV = BOARD.supply.voltage_mv


@dataclass
class Bench:
    """A meter's driver, and the stand-in that it speaks to."""

    fake: FakeMeter
    meter: Meter
    clock_hz: int
    cycle: int = 0

    def pulse(self, seconds: float) -> float:
        """The trigger is high for so long; returns that, as the board would."""
        cycles = round(seconds * self.clock_hz)
        self.cycle += 1000
        self.fake.pin_changed(self.cycle, 1)
        self.cycle += cycles
        self.fake.pin_changed(self.cycle, 0)
        self.cycle += 1000
        return cycles / self.clock_hz

    def pulses(self, seconds: float, count: int) -> list[Callable[[], float]]:
        """As many runs of one pulse each."""
        return [lambda: self.pulse(seconds)] * count

    def true_uj(self) -> list[float]:
        """Energies of all pulses so far."""
        return [window.energy_uj for window in self.fake.windows]


@contextmanager
def ppk2_bench(board: Board = BOARD) -> Iterator[Bench]:
    with _serial_bench(FakePpk2(board), board) as bench:
        yield bench


@contextmanager
def lpm01a_bench(board: Board = BOARD) -> Iterator[Bench]:
    with _serial_bench(FakeLpm01a(board), board) as bench:
        yield bench


@contextmanager
def _serial_bench(fake: FakeMeter, board: Board) -> Iterator[Bench]:
    fake.start()
    try:
        supply_mv = board.supply.voltage_mv
        meter = open_meter(fake.kind, port=fake.port, supply_mv=supply_mv, board_mv=supply_mv)
        try:
            yield Bench(fake, meter, board.mcu.clock_hz)
        finally:
            meter.close()
    finally:
        fake.close()


@contextmanager
def joulescope_bench(board: Board = BOARD) -> Iterator[Bench]:
    fake = FakeJoulescope(board)
    fake.start()
    try:
        supply_mv = board.supply.voltage_mv
        meter = joulescope.Joulescope(
            "001234", supply_mv=None, board_mv=supply_mv, driver=fake.driver
        )
        try:
            yield Bench(fake, meter, board.mcu.clock_hz)
        finally:
            meter.close()
    finally:
        fake.close()


BENCHES = {"joulescope": joulescope_bench, "lpm01a": lpm01a_bench, "ppk2": ppk2_bench}


class LibraryDriver:
    """The part of pyjoulescope_driver.Driver that ours uses: topics, values, subscribers."""

    def __init__(self, paths: tuple[str, ...] = ("u/js220/001234",)) -> None:
        self.paths = paths
        self.values: dict[str, Any] = {}
        self.subscribers: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self.on_publish: Callable[[str, Any], None] = lambda topic, value: None
        self.opened: list[str] = []
        self.finalized = 0

    def device_paths(self) -> list[str]:
        return list(self.paths)

    def open(self, path: str, mode: str) -> None:
        self.opened.append(path)

    def close(self, path: str) -> None:
        self.opened.remove(path)

    def publish(self, topic: str, value: Any) -> None:
        self.values[topic] = value
        self.on_publish(topic, value)

    def subscribe(self, topic: str, flags: list[str], fn: Callable[..., None]) -> None:
        assert flags == ["pub"]
        self.subscribers[topic] = fn

    def unsubscribe(self, topic: str, fn: Callable[..., None]) -> None:
        assert self.subscribers.pop(topic) is fn

    def finalize(self) -> None:
        self.finalized += 1


class FakeJoulescope(FakeMeter):
    """A JS220 behind the library's driver object: float32 signals, inputs packed as bits."""

    kind = "joulescope"
    PATH = "u/js220/001234"
    RATE_HZ = 1_000_000

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self.driver = LibraryDriver()
        self.driver.on_publish = self._published
        self._volts = board.supply.voltage_mv / 1000
        self._next = 0
        self._bits: list[np.ndarray] = []
        self._bits_from = 0
        self._lock = threading.Lock()

    def _published(self, topic: str, value: Any) -> None:
        if topic == f"{self.PATH}/s/gpi/0/ctrl":  # the last one that is switched on
            with self._lock:
                self._next = int(np.ceil(self.now_s * self.RATE_HZ))
                self._bits, self._bits_from = [], self._next
                self.sampling = value == 1
        elif topic == f"{self.PATH}/s/i/range/mode":
            self.switch(value == "auto")

    def command(self, data: bytes) -> None:
        """Nothing comes over its pty."""

    def make_samples(self, start_s: float, end_s: float) -> None:
        with self._lock:
            end = int(np.ceil(end_s * self.RATE_HZ))
            count = end - self._next
            if count <= 0 or not self.sampling:
                return
            number, self._next = self._next, end
            times = np.arange(number, end, dtype=np.float64) / self.RATE_HZ
            current = (self.current.current_ua(times) * 1e-6).astype(np.float32)
            dropped = self.dropped(count)
            self._message("s/i", number + dropped, current[dropped:])
            self._message("s/v", number, np.full(count, self._volts, np.float32))
            self._bits.append(np.full(count, self._high, np.uint8))
            bits = np.concatenate(self._bits)
            whole = len(bits) // 8 * 8  # whole bytes
            if whole:
                packed = np.packbits(bits[:whole], bitorder="little")
                self._message("s/gpi/0", self._bits_from, packed)
            self._bits, self._bits_from = [bits[whole:]], self._bits_from + whole

    def _message(self, name: str, number: int, data: np.ndarray) -> None:
        topic = f"{self.PATH}/{name}/!data"
        if topic in self.driver.subscribers and len(data):
            self.driver.subscribers[topic](
                topic,
                {
                    "sample_id": 2 * number,
                    "sample_rate": 2 * self.RATE_HZ,
                    "decimate_factor": 2,
                    "data": data,
                },
            )
