"""Boards that are scripts: behind a link, and behind a pty that is opened like a serial port."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import threading
import tty
from collections.abc import Callable, Iterable

from hil.errors import LinkError
from hil.wire import crc32, session_crc

Script = Callable[[bytes], Iterable[bytes]]
Spoil = Callable[[bytes], bytes]

_UNSIGNED = re.compile(rb"(m-rig-[^\r\n]*) #{8}(?=\r\n)")
READY = b"m-ready\r\n"


def line(text: str) -> bytes:
    """One data line of the board: the text, a place for the CRC, the line end.

    The CRC depends on all that was said before: the board that sends the line puts it in.
    """
    return text.encode() + b" ########\r\n"


class Signer:
    """Puts the CRCs of a session into a board's lines."""

    def __init__(self) -> None:
        self.said = 0

    def hear(self, command: bytes) -> None:
        """A command without its `%`; those without a CRC are not ours."""
        if re.fullmatch(rb"rig .* [0-9a-f]{8}", command):
            self.said = session_crc(command, self.said)

    def sign(self, chunk: bytes) -> bytes:
        """A chunk whose lines that `line` made have their CRC."""

        def signed(match: re.Match[bytes]) -> bytes:
            self.said = crc32(match[1], self.said)
            return match[1] + b" %08x" % self.said

        return _UNSIGNED.sub(signed, chunk)


def unspoilt(data: bytes) -> bytes:
    """As it is."""
    return data


class FakeLink:
    """A link that answers each command with the chunks that `script` gives for it.

    Args:
        script: gets a command without its `%`; its chunks are read one by one.
        first: chunks that can be read before any command.
        spoil: what becomes of a chunk on its way.
    """

    port = "/dev/fake"

    def __init__(
        self, script: Script, first: Iterable[bytes] = (), spoil: Spoil = unspoilt
    ) -> None:
        self._script, self._spoil = script, spoil
        self._signer = Signer()
        self._chunks: list[bytes] = list(first)
        self.written: list[bytes] = []
        self.signed: list[bytes] = []  # chunks as the board sent them
        self.gone = False

    def write(self, data: bytes) -> None:
        self._check()
        self.written.append(data)
        for command in data.split(b"%")[:-1]:
            self._signer.hear(command)
            chunks = [self._signer.sign(chunk) for chunk in self._script(command)]
            self.signed += (chunk for chunk in chunks if chunk != READY)
            self._chunks += map(self._spoil, chunks)

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
    """The other end of a pty: answers each command as a script says, in a thread.

    Args:
        script: as of FakeLink.
        spoil: what becomes of a chunk on its way.
    """

    def __init__(self, script: Script, spoil: Spoil = unspoilt) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self._slave = slave  # kept open: a pty without a reader loses what is written
        self._script, self._spoil = script, spoil
        self._signer = Signer()
        self._unplugged, self._unplug = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        received = b""
        with contextlib.suppress(OSError):
            while self._unplugged not in select.select([self._master, self._unplugged], [], [])[0]:
                *commands, received = (received + os.read(self._master, 4096)).split(b"%")
                for command in commands:
                    self._signer.hear(command)
                    for chunk in self._script(command):
                        os.write(self._master, self._spoil(self._signer.sign(chunk)))

    def send(self, data: bytes) -> None:
        """What a board prints without being asked."""
        os.write(self._master, data)

    def vanish(self) -> None:
        """As when the cable is pulled."""
        os.close(self._unplug)  # readable from now on
        self._thread.join()  # before its descriptors' numbers can be given to somebody else
        for descriptor in (self._unplugged, self._slave, self._master):
            os.close(descriptor)
