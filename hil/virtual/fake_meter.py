"""What the stand-ins of energy meters share: the meter's time, and what the board draws in it.

A stand-in lives in the virtual board's process, on a pseudo terminal that a driver opens like the
port of the real meter. Its time is the board's: between two changes of the trigger pin as many
samples are sent as the core took cycles, however long the emulation needed. While the board waits
for its host, emulated time stands still; the meter's goes on then at the pace of this machine's
clock, as a real one's would, and shows the idle current. Both together make one gapless stream, of
which the true energy of every window is known exactly.
"""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from hil.board import Board
from hil.virtual.power_model import OFF, Load, SupplyCurrent, loads

#: How often the idle current goes on, and by how much at most after this process had to wait.
TICK_S, MAX_TICK_S = 0.01, 0.05
NO_TICK_S = 1.0  # while nobody wants samples
#: Meter time made into samples at once, and bytes that may wait for the host before more are.
CHUNK_S, MAX_WAITING_BYTES = 0.2, 1 << 16
MAX_WINDOWS = 10_000


class TrueWindow(NamedTuple):
    """One time that the trigger pin was high, in meter time, and the energy drawn in it."""

    start_s: float
    end_s: float
    energy_uj: float


def trigger_pin(board: Board) -> tuple[str, int]:
    """(port, pin) of the trigger as the GPIO peripherals call them."""
    number = board.build.defines["TRIGGER_PIN"]
    if board.build.family == "nrf52":
        return f"P{number // 32}", number % 32
    return f"GPIO{chr(ord('A') + number // 16)}", number % 16


class FakeMeter:
    """A meter in the supply of one virtual board; a subclass speaks a device's protocol.

    Args:
        board: the board.
        at_rest: whether its core waits, has stopped or was not started; from the meter's thread.
        set_power: is told when the host switches the board's supply; from the meter's thread.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        board: Board,
        *,
        at_rest: Callable[[], bool] = lambda: True,
        set_power: Callable[[bool], None] = lambda on: None,
    ) -> None:
        self.idle, self.active = loads(board.supply)
        self.windows: deque[TrueWindow] = deque(maxlen=MAX_WINDOWS)
        self.supply_mv = board.supply.voltage_mv
        self.now_s = 0.0  # up to where samples were made
        self.sampling = False
        self.current = SupplyCurrent(self.idle)
        self._clock_hz = board.mcu.clock_hz
        self._at_rest, self.on_power = at_rest, set_power
        self._powered, self._high = True, False
        self._rise_s: float | None = None
        self._cycle = 0  # of the last change of the pin
        self._changes: deque[tuple[int, bool]] = deque()  # (cycle, level), from the core's thread
        self._target_s = 0.0  # what is drawn up to there is known
        self._change_due: bool | None = None  # level of the pin from then on
        self._to_drop = 0
        self._output = bytearray()
        self._board_end, self._host_end = os.openpty()
        tty.setraw(self._host_end)
        os.set_blocking(self._board_end, False)
        self.port = os.ttyname(self._host_end)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._ends = False
        self._thread = threading.Thread(target=self._serve, name=self.kind, daemon=True)

    def start(self) -> None:
        """Begins to serve its port."""
        self.load_changed(self.current.load)
        self._thread.start()

    def close(self) -> None:
        """Ends its thread and frees its port; closing twice is fine."""
        if self._ends:
            return
        self._ends = True
        os.write(self._wake_write, b"!")
        self._thread.join()
        for end in (self._board_end, self._host_end, self._wake_read, self._wake_write):
            os.close(end)

    # -- from other threads

    def pin_changed(self, cycle: int, level: int) -> None:
        """The trigger pin got a level at this cycle of the board."""
        self._changes.append((cycle, bool(level)))
        os.write(self._wake_write, b"!")

    def drop_samples(self, count: int) -> None:
        """The next `count` samples never reach the host."""
        self._to_drop = count

    # -- for subclasses

    def command(self, data: bytes) -> None:
        """Bytes from the host."""
        raise NotImplementedError

    def make_samples(self, start_s: float, end_s: float) -> None:
        """Sends the samples of a stretch of time in which `current` does not change."""
        raise NotImplementedError

    def load_changed(self, load: Load) -> None:
        """From now on another load is drawn."""

    def fell(self) -> None:
        """The trigger pin fell, now."""

    def send(self, data: bytes) -> None:
        """Sends bytes to the host, in order, as fast as it reads."""
        self._output += data

    def dropped(self, count: int) -> int:
        """How many of the next `count` samples must not be sent."""
        dropped = min(count, self._to_drop)
        self._to_drop -= dropped
        return dropped

    def switch(self, on: bool) -> None:
        """The host switches the board's supply."""
        if on != self._powered:
            self._powered = on
            self.on_power(on)

    # -- its thread

    def _serve(self) -> None:
        last = time.monotonic()
        while not self._ends:
            busy = len(self._output) < MAX_WAITING_BYTES and (
                self._target_s > self.now_s or bool(self._changes)
            )
            writers = [self._board_end] if self._output else []
            rest_s = TICK_S if self.sampling else NO_TICK_S
            ready, writable, _ = select.select(
                [self._board_end, self._wake_read], writers, [], 0 if busy else rest_s
            )
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            if self._board_end in ready:
                self._read_commands()
            if writable:
                self._write()
            now = time.monotonic()
            if len(self._output) < MAX_WAITING_BYTES and not self._go_on():
                last = self._go_on_idle(last, now)
            else:
                last = now

    def _read_commands(self) -> None:
        try:
            data = os.read(self._board_end, 4096)
        except OSError:  # nothing there, or nobody has it open
            return
        while not self.sampling and self._go_on():
            pass  # what the board did before the command is over when the device reads it
        self.command(data)

    def _write(self) -> None:
        try:
            written = os.write(self._board_end, self._output[:4096])
        except BlockingIOError:
            return
        del self._output[:written]

    def _go_on(self) -> bool:
        """A step towards what the board has done; whether there was one to do."""
        self._apply_load()
        if self._target_s > self.now_s:
            end_s = min(self._target_s, self.now_s + CHUNK_S) if self.sampling else self._target_s
            self._advance(end_s)
            return True
        if self._change_due is not None:
            self._set_pin(self._change_due)
            self._change_due = None
            return True
        if self._changes:
            cycle, level = self._changes.popleft()
            cycles = cycle - self._cycle if cycle >= self._cycle else cycle  # a new program
            self._cycle, self._change_due = cycle, level
            self._target_s = self.now_s + cycles / self._clock_hz
            return True
        return False

    def _go_on_idle(self, last: float, now: float) -> float:
        """While the board waits, time goes on by the wall clock; returns when that was."""
        if now - last < TICK_S:
            return last
        if self._at_rest() and not self._changes:
            self._target_s = self.now_s + min(now - last, MAX_TICK_S)
        return now

    def _advance(self, end_s: float) -> None:
        if self.sampling:
            self.make_samples(self.now_s, end_s)
        self.now_s = end_s

    def _apply_load(self) -> None:
        load = OFF if not self._powered else self.active if self._high else self.idle
        if load is not self.current.load:
            self.current.change(load, self.now_s)
            self.load_changed(load)
            if load is OFF:  # what was a window is none
                self._high, self._rise_s = False, None

    def _set_pin(self, high: bool) -> None:
        if high == self._high:
            return
        self._high = high
        if high:
            self._apply_load()
            self._rise_s = self.now_s
            return
        if self._rise_s is not None:
            charge_uc = self.current.charge_to(self.now_s)
            energy_uj = charge_uc * self.supply_mv / 1000
            self.windows.append(TrueWindow(self._rise_s, self.now_s, energy_uj))
        self._apply_load()
        self.fell()
