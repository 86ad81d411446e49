"""Boards that are scripts: behind a link, and behind a pty that is opened like a serial port."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import threading
import tty
from collections.abc import Callable, Iterable

from hil.errors import LinkError
from hil.wire import crc16

Script = Callable[[bytes], Iterable[bytes]]


def line(text: str) -> bytes:
    """One data line of the board: the text, its CRC, the line end."""
    return text.encode() + b" %04x\r\n" % crc16(text.encode())


READY = b"m-ready\r\n"


class FakeLink:
    """A link that answers each command with the chunks that `script` gives for it.

    Args:
        script: gets a command without its `%`; its chunks are read one by one.
        first: chunks that can be read before any command.
    """

    port = "/dev/fake"

    def __init__(self, script: Script, first: Iterable[bytes] = ()) -> None:
        self._script = script
        self._chunks: list[bytes] = list(first)
        self.written: list[bytes] = []
        self.gone = False

    def write(self, data: bytes) -> None:
        self._check()
        self.written.append(data)
        for command in data.split(b"%")[:-1]:
            self._chunks += self._script(command)

    def read(self, timeout_s: float) -> bytes:
        self._check()
        return self._chunks.pop(0) if self._chunks else b""

    def discard(self) -> None:
        self._chunks.clear()

    def close(self) -> None:
        self.gone = True

    def _check(self) -> None:
        if self.gone:
            raise LinkError(self.port, "the device is gone")


class PtyBoard:
    """The other end of a pty: answers each command as a script says, in a thread."""

    def __init__(self, script: Script) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self._slave = slave  # kept open: a pty without a reader loses what is written
        self._script = script
        self._unplugged, self._unplug = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        received = b""
        with contextlib.suppress(OSError):
            while self._unplugged not in select.select([self._master, self._unplugged], [], [])[0]:
                *commands, received = (received + os.read(self._master, 4096)).split(b"%")
                for command in commands:
                    for chunk in self._script(command):
                        os.write(self._master, chunk)

    def send(self, data: bytes) -> None:
        """What a board prints without being asked."""
        os.write(self._master, data)

    def vanish(self) -> None:
        """As when the cable is pulled."""
        os.close(self._unplug)  # readable from now on
        self._thread.join()  # before its descriptors' numbers can be given to somebody else
        for descriptor in (self._unplugged, self._slave, self._master):
            os.close(descriptor)
