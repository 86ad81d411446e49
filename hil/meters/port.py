"""The serial port of a meter that streams: a thread empties it while the host does other things.

A meter that samples 100,000 times a second fills the operating system's buffer in milliseconds and
then drops samples, so bytes are fetched as they come and decoded when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

import serial

from hil.errors import MeterError

WRITE_TIMEOUT_S = 5.0
#: Some twenty minutes of the fastest meter; nobody waits that long for one window.
MAX_BYTES = 500_000_000
_READ_BYTES = 1 << 16


class MeterPort:
    """A meter's tty, opened for this process alone.

    Args:
        kind: of the meter, for messages.
        path: of the tty.
        baud: bits per second; USB meters ignore it.
    """

    def __init__(self, kind: str, path: str, baud: int) -> None:
        self.name = f"{kind} at {path}"
        try:
            self._serial = serial.Serial(path, baud, write_timeout=WRITE_TIMEOUT_S, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise MeterError(self.name, f"cannot be opened: {error}") from None
        self._received: list[bytes] = []
        self._count = 0
        self._failure: str | None = None
        self._news = threading.Condition()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._fetch, name=self.name, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Sends a command; raises MeterError."""
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError, TypeError) as error:
            raise MeterError(self.name, f"does not take commands: {error}") from None

    def take(self) -> bytes:
        """All bytes since the last call; raises MeterError when the port has failed."""
        with self._news:
            if self._failure is not None and not self._received:
                raise MeterError(self.name, self._failure)
            data, self._received, self._count = b"".join(self._received), [], 0
        return data

    def wait(self, timeout_s: float, count: int = 1) -> bool:
        """Whether `count` bytes are there to be taken, or the port failed, within `timeout_s`."""
        with self._news:
            return self._news.wait_for(
                lambda: self._count >= count or self._failure is not None, timeout_s
            )

    def close(self) -> None:
        """Frees the port; closing twice is fine."""
        if self._thread.is_alive():
            os.write(self._wake_write, b"!")
            self._thread.join()
        if self._wake_write >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1
        with contextlib.suppress(serial.SerialException, OSError):
            self._serial.close()

    def _fetch(self) -> None:
        fd = self._serial.fileno()
        failure = None
        while failure is None:
            try:
                ready, _, _ = select.select([fd, self._wake_read], [], [])
                if self._wake_read in ready:
                    return
                data = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                data, failure = b"", f"is gone ({error.strerror}); was it unplugged?"
            with self._news:
                if not data and failure is None:
                    failure = "is gone: the port has hung up"
                if self._count + len(data) > MAX_BYTES:
                    failure = f"{MAX_BYTES:,} bytes came that nobody took"
                self._received.append(data)
                self._count += len(data)
                self._failure = failure
                self._news.notify_all()
