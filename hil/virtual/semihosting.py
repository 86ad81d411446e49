"""Arm semihosting: what a program asks of a debugger through `BKPT 0xAB`.

Output and exit work in full; of files only the console `:tt` exists. Source: Arm, Semihosting for
AArch32 and AArch64 (2.0), chapter 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from unicorn import Uc
from unicorn import arm_const as arm

from hil.board import Board
from hil.virtual.memory import MemoryMap

BREAKPOINT = b"\xab\xbe"  # BKPT 0xAB

SYS_OPEN, SYS_CLOSE, SYS_WRITEC, SYS_WRITE0, SYS_WRITE, SYS_READ, SYS_READC = range(1, 8)
SYS_ISERROR, SYS_ISTTY, SYS_SEEK, SYS_FLEN, SYS_TMPNAM, SYS_REMOVE, SYS_RENAME = (
    8,
    9,
    10,
    12,
    13,
    14,
    15,
)
SYS_CLOCK, SYS_TIME, SYS_SYSTEM, SYS_ERRNO, SYS_GET_CMDLINE, SYS_HEAPINFO = 16, 17, 18, 19, 21, 22
SYS_EXIT, SYS_EXIT_EXTENDED, SYS_ELAPSED, SYS_TICKFREQ = 0x18, 0x20, 0x30, 0x31

_APPLICATION_EXIT = 0x20026  # ADP_Stopped_ApplicationExit
_FAILURE = 0xFFFF_FFFF
_ENOENT, _EBADF, _EINVAL, _ENOSYS = 2, 9, 22, 38
_FEATURES = b"SHFB\x03"  # SH_EXT_EXIT_EXTENDED, SH_EXT_STDOUT_STDERR
_STDIN, _STDOUT, _STDERR, _FEATURES_FILE = 1, 2, 3, 4
MAX_TEXT_BYTES = 1 << 20  # of one SYS_WRITE0 without an end


class ProgramExit(NamedTuple):
    """The program ended itself."""

    code: int


class Semihosting:
    """Answers the calls of one core."""

    def __init__(
        self,
        engine: Uc,
        board: Board,
        memory: MemoryMap,
        output: Callable[[bytes], None],
        cycles: Callable[[], int],
    ) -> None:
        self._engine, self._board, self._memory = engine, board, memory
        self._output, self._cycles = output, cycles
        self._errno = 0
        self._features_at = 0
        self._calls: dict[int, Callable[[int], int]] = {
            SYS_OPEN: self._open,
            SYS_CLOSE: self._close,
            SYS_WRITEC: self._write_character,
            SYS_WRITE0: self._write_text,
            SYS_WRITE: self._write,
            SYS_READ: self._read,
            SYS_READC: lambda block: _FAILURE,
            SYS_ISERROR: lambda block: int(self._word(block) & 0x8000_0000 != 0),
            SYS_ISTTY: lambda block: int(self._word(block) in (_STDIN, _STDOUT, _STDERR)),
            SYS_SEEK: self._seek,
            SYS_FLEN: lambda block: len(_FEATURES) if self._word(block) == _FEATURES_FILE else 0,
            SYS_TMPNAM: lambda block: self._fail(_ENOSYS),
            SYS_REMOVE: lambda block: self._fail(_ENOENT),
            SYS_RENAME: lambda block: self._fail(_ENOENT),
            SYS_CLOCK: lambda block: self._cycles() * 100 // board.mcu.clock_hz & 0x7FFF_FFFF,
            SYS_TIME: lambda block: self._cycles() // board.mcu.clock_hz,
            SYS_SYSTEM: lambda block: self._fail(_ENOSYS),
            SYS_ERRNO: lambda block: self._errno,
            SYS_GET_CMDLINE: self._command_line,
            SYS_HEAPINFO: self._heap_info,
            SYS_ELAPSED: self._elapsed,
            SYS_TICKFREQ: lambda block: board.mcu.clock_hz,
        }

    def call(self) -> ProgramExit | None:
        """Serves the call that the registers describe; the result goes to r0.

        An unknown call fails with ENOSYS.
        """
        operation = self._engine.reg_read(arm.UC_ARM_REG_R0)
        block = self._engine.reg_read(arm.UC_ARM_REG_R1)
        if operation == SYS_EXIT:  # 32 bits: r1 is the reason itself
            return ProgramExit(0 if block == _APPLICATION_EXIT else 1)
        if operation == SYS_EXIT_EXTENDED:
            reason, code = self._word(block), self._word(block, 1)
            return ProgramExit(_signed(code) if reason == _APPLICATION_EXIT else 1)
        handler = self._calls.get(operation)
        result = self._fail(_ENOSYS) if handler is None else handler(block)
        self._engine.reg_write(arm.UC_ARM_REG_R0, result & 0xFFFF_FFFF)
        return None

    def _word(self, block: int, index: int = 0) -> int:
        data = self._memory.read(block + 4 * index, 4)
        return int.from_bytes(data, "little") if data is not None else 0

    def _fail(self, errno: int) -> int:
        self._errno = errno
        return _FAILURE

    def _store(self, address: int, data: bytes) -> bool:
        region = self._memory.find(address, max(1, len(data)))
        if region is None or region.memory.kind != "ram":
            return False
        self._engine.mem_write(address, data)
        return True

    def _open(self, block: int) -> int:
        name = self._memory.read(
            self._word(block), self._word(block, 2) if self._word(block, 2) < 256 else 256
        )
        mode = self._word(block, 1)
        if name == b":semihosting-features":
            self._features_at = 0
            return _FEATURES_FILE
        if name != b":tt":
            return self._fail(_ENOENT)
        return _STDIN if mode < 4 else _STDOUT if mode < 8 else _STDERR

    def _close(self, block: int) -> int:
        return 0 if _STDIN <= self._word(block) <= _FEATURES_FILE else self._fail(_EBADF)

    def _write_character(self, block: int) -> int:
        self._output(self._memory.read(block, 1) or b"")
        return 0

    def _write_text(self, block: int) -> int:
        text = b""
        while len(text) < MAX_TEXT_BYTES:
            region = self._memory.find(block + len(text))
            if region is None:
                break
            piece = min(256, region.memory.end - block - len(text))
            data = self._memory.read(block + len(text), piece) or b""
            end = data.find(b"\0")
            if end >= 0:
                text += data[:end]
                break
            text += data
        self._output(text)
        return 0

    def _write(self, block: int) -> int:
        """The number of bytes that were not written."""
        handle, address, size_bytes = (self._word(block, i) for i in range(3))
        data = self._memory.read(address, size_bytes)
        if handle not in (_STDOUT, _STDERR) or data is None:
            self._errno = _EBADF
            return size_bytes
        self._output(data)
        return 0

    def _read(self, block: int) -> int:
        """The number of bytes that were not read; the console has no input."""
        handle, address, size_bytes = (self._word(block, i) for i in range(3))
        if handle != _FEATURES_FILE:
            return size_bytes
        data = _FEATURES[self._features_at : self._features_at + size_bytes]
        if not self._store(address, data):
            return self._fail(_EINVAL)
        self._features_at += len(data)
        return size_bytes - len(data)

    def _seek(self, block: int) -> int:
        if self._word(block) != _FEATURES_FILE:
            return self._fail(_EBADF)
        self._features_at = min(self._word(block, 1), len(_FEATURES))
        return 0

    def _command_line(self, block: int) -> int:
        """There is none: an empty string."""
        address, room = self._word(block), self._word(block, 1)
        if room < 1 or not self._store(address, b"\0"):
            return _FAILURE
        self._store(block + 4, bytes(4))
        return 0

    def _heap_info(self, block: int) -> int:
        """Zeros, so that the program's linker symbols decide; but a stack at the end of RAM."""
        origin, size_bytes = self._board.ram
        values = struct.pack("<4I", 0, 0, origin + size_bytes, 0)
        return 0 if self._store(self._word(block), values) else _FAILURE

    def _elapsed(self, block: int) -> int:
        return 0 if self._store(block, self._cycles().to_bytes(8, "little")) else _FAILURE


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x8000_0000 else value
