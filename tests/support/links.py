"""A link whose other end is a script."""

from __future__ import annotations

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
