"""The virtual board's serial port: a pseudo terminal that pyserial opens like any other.

The board's side never loses a byte: output that the host does not read waits here, up to a limit,
and then the board waits. The board keeps its own handle on the terminal, so a host may close and
open it as often as it likes.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable
from typing import Literal

MAX_PENDING_BYTES = 16_384  # output that the host has not read, beyond what the kernel holds

Waiting = Literal["", "input", "reader"]


class Pty:
    """A Console whose host is whoever opens `port`."""

    def __init__(self) -> None:
        self._board_end, self._host_end = os.openpty()
        tty.setraw(self._host_end)  # bytes, no echo, no line discipline
        os.set_blocking(self._board_end, False)
        self.port = os.ttyname(self._host_end)
        self.waiting: Waiting = ""  # what the board waits for
        self.at_rest = threading.Lock()  # held, it keeps a board that waits from going on
        self.stops_waiting: Callable[[], bool] = lambda: False
        self.on_match: Callable[[], None] = lambda: None
        # what becomes of bytes on their way to the host and to the board
        self.to_host: Callable[[bytes], bytes] = lambda data: data
        self.to_board: Callable[[bytes], bytes] = lambda data: data
        self._until = b""
        self._tail = b""
        self._pending = bytearray()
        self._pending_lock = threading.Lock()
        self._received: deque[int] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)

    def start_program(self, until: bytes) -> None:
        """Forgets what the program before it left; printing `until` ends the run."""
        with self._pending_lock:
            self._pending.clear()
            termios.tcflush(self._host_end, termios.TCIOFLUSH)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._board_end, 4096):
                pass  # commands that came too late: the flush does not reach them
        self._received.clear()
        self._until, self._tail = until, b""
        self.waiting = ""

    def move(self) -> None:
        """The port vanishes with what it holds, and another is there; from the core's thread."""
        board_end, host_end = os.openpty()
        tty.setraw(host_end)
        os.set_blocking(board_end, False)
        with self._pending_lock:
            self._pending.clear()
            self.port = os.ttyname(host_end)  # first: whoever sees the old one vanish asks for it
            for new, old in ((board_end, self._board_end), (host_end, self._host_end)):
                os.dup2(new, old, inheritable=False)  # who waits for the old one keeps its number
                os.close(new)
        self._received.clear()

    def close(self) -> None:
        """Gives back what the operating system holds for it; the last call."""
        for end in (self._board_end, self._host_end, self._wake_read, self._wake_write):
            os.close(end)

    def wake(self) -> None:
        """Ends a wait if `stops_waiting` says so; from any thread."""
        os.write(self._wake_write, b"!")

    # -- the board's side

    def write(self, data: bytes) -> None:
        """See Console.write."""
        sent = self.to_host(data)
        with self._pending_lock:
            self._pending += sent
        self.drain()
        while len(self._pending) > MAX_PENDING_BYTES and not self.stops_waiting():
            self._wait("reader")
            self.drain()
        if self._until:
            self._tail = (self._tail + data)[-len(self._until) - len(data) :]
            if self._until in self._tail:
                self._until = b""
                self.on_match()

    def receive(self, *, wait: bool) -> int | None:
        """See Console.receive."""
        while not self._received:
            try:
                self._received += self.to_board(os.read(self._board_end, 4096))
            except BlockingIOError:
                if not wait or self.stops_waiting():
                    return None
                self._wait("input")
        return self._received.popleft()

    def _wait(self, what: Waiting) -> None:
        self.waiting = what
        readers = [self._wake_read] + ([self._board_end] if what == "input" else [])
        writers = [self._board_end] if what == "reader" else []
        ready, _, _ = select.select(readers, writers, [])
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        with self.at_rest:
            self.waiting = ""

    # -- for the thread that answers the control channel

    @property
    def pending_bytes(self) -> int:
        """Output that waits for the host."""
        return len(self._pending)

    @property
    def board_end(self) -> int:
        """File descriptor that becomes writable when the host has read."""
        return self._board_end

    def drain(self) -> None:
        """Hands pending output to the host as far as it goes."""
        with self._pending_lock:
            while self._pending:
                try:
                    written = os.write(self._board_end, self._pending[:4096])
                except BlockingIOError:
                    return
                del self._pending[:written]
