"""A byte pipe to a board: the serial port with deadlines and typed errors.

Not here: what the bytes mean (wire). A link has no thread and keeps no history; whoever reads lines
keeps the last bytes for the message of a timeout.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from typing import Protocol

import serial

from hil.closing import Closing
from hil.errors import LinkError

WRITE_TIMEOUT_S = 10.0


class Link(Protocol):
    """What the wire needs of a port; every method raises LinkError when the port is gone."""

    port: str

    def write(self, data: bytes) -> None:
        """Hands all bytes to the port; returns when they are accepted."""

    def read(self, timeout_s: float) -> bytes:
        """Bytes as they come, at least one; b"" when none came within `timeout_s`."""

    def discard(self) -> None:
        """Drops what was received and not read."""

    def close(self) -> None:
        """Frees the port; closing twice is fine."""


class SerialLink(Closing):
    """A tty, real or virtual, opened for this process alone.

    Args:
        port: path of the tty.
        baud: bits per second, 8N1.
    """

    def __init__(self, port: str, baud: int) -> None:
        self.port = port
        try:
            # exclusive: a second runner on the same board would eat half of the answers
            self._serial = serial.Serial(
                port, baud, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(port, _why_not_open(port, error)) from None

    def write(self, data: bytes) -> None:
        """Hands all bytes to the port; returns when they are accepted."""
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise LinkError(
                self.port, f"{len(data)} bytes were not accepted within {WRITE_TIMEOUT_S:.0f} s"
            ) from None
        except (serial.SerialException, OSError, TypeError) as error:
            raise self._gone(error) from None

    def read(self, timeout_s: float) -> bytes:
        """Bytes as they come, at least one; b"" when none came within `timeout_s`."""
        try:
            ready, _, _ = select.select([self._serial.fileno()], [], [], max(0.0, timeout_s))
            if not ready:
                return b""
            data: bytes = os.read(self._serial.fileno(), 65536)
        except BlockingIOError:
            return b""
        except (serial.SerialException, OSError, ValueError) as error:
            raise self._gone(error) from None
        if not data:  # readable without bytes: the other end has hung up
            raise self._gone(OSError(errno.EIO, os.strerror(errno.EIO)))
        return data

    def discard(self) -> None:
        """Drops what was received and not read."""
        try:
            self._serial.reset_input_buffer()
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def close(self) -> None:
        """Frees the port; closing twice is fine."""
        with contextlib.suppress(serial.SerialException, OSError):
            self._serial.close()

    def _gone(self, error: Exception) -> LinkError:
        if not self._serial.is_open:
            return LinkError(self.port, "is closed")
        return LinkError(self.port, f"the device is gone ({error}); was it unplugged?")


def remaining(deadline: float) -> float:
    """Seconds until `deadline` of time.monotonic(), at least 0."""
    return max(0.0, deadline - time.monotonic())


def _why_not_open(port: str, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code == errno.ENOENT:
        return "does not exist; is the board plugged in? hil boards lists what is attached"
    if code == errno.EACCES:
        return "may not be opened by this user; add the user to the group dialout"
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively" in str(error):
        return "is used by another program"
    return f"cannot be opened: {error}"
