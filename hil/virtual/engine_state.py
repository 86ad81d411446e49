"""Where Unicorn keeps the registers of the running core, found by looking for them in memory.

The native hooks need two things that Unicorn's API gives too slowly or not at all. Operands of a
divide: the registers as they are while a block runs. And the IT state: before it calls a hook for a
memory access, Unicorn restores the program counter of the access and with it the IT state, which
must be 0 while a block runs; left as it is, an access inside an IT block would make the next block
conditional. The hook puts it back to 0.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from unicorn import Uc
from unicorn import arm_const as arm

from hil.errors import HilError

_REGISTERS = [getattr(arm, f"UC_ARM_REG_R{i}") for i in range(13)]
_MARKS = [0x5EED_0001 + 0x0101_0100 * i for i in range(13)]
_HANDLE_BYTES = 4096  # of Unicorn's handle, which holds a pointer to the core
_CORE_BYTES = 1 << 17  # the core with its registers, the cache of translations before them included
_REGISTER_FILE_BYTES = 1024
_IT_BITS = 0x0600_FC00  # of XPSR: Armv7-M Architecture Reference Manual, B1.4.2


class EngineState(NamedTuple):
    """Addresses in this process."""

    registers: int  # r0 to r15, 32 bits each
    it_state: int  # 32 bits


def find_engine_state(engine: Uc) -> EngineState:
    """Finds the registers of a core that does not run; changes r0 to r12 and XPSR."""
    for register, mark in zip(_REGISTERS, _MARKS, strict=True):
        engine.reg_write(register, mark)
    pattern = struct.pack("<13I", *_MARKS)
    handle = _read(engine._uch.value or 0, _HANDLE_BYTES)
    for (pointer,) in struct.iter_unpack("<Q", handle[: len(handle) & ~7]):
        core = _read(pointer, _CORE_BYTES)
        at = core.find(pattern)
        while at >= 0:
            it_state = _find_it_state(engine, pointer + at)
            if it_state is not None:
                return EngineState(pointer + at, it_state)
            at = core.find(pattern, at + 1)  # that was the copy that a core left when it ended
    raise HilError(
        "the registers of the core were not found in this version of Unicorn; install the one that "
        "pyproject.toml names"
    )


def _find_it_state(engine: Uc, registers: int) -> int | None:
    """Address of the one word behind the registers that follows the IT bits of XPSR."""
    seen = []
    for bits in (0xA4, 0x5B):  # IT[7:2] is XPSR[15:10], IT[1:0] is XPSR[26:25]
        xpsr = engine.reg_read(arm.UC_ARM_REG_XPSR) & ~_IT_BITS
        engine.reg_write(arm.UC_ARM_REG_XPSR, xpsr | (bits >> 2) << 10 | (bits & 3) << 25)
        words = struct.iter_unpack("<I", _read(registers, _REGISTER_FILE_BYTES))
        seen.append({4 * i for i, (word,) in enumerate(words) if word == bits})
    engine.reg_write(arm.UC_ARM_REG_XPSR, xpsr)
    both = seen[0] & seen[1]
    return registers + both.pop() if len(both) == 1 else None


def _read(address: int, size_bytes: int) -> bytes:
    """Bytes of this process; none where nothing is mapped."""
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        try:
            return os.pread(memory.fileno(), size_bytes, address)
        except (OSError, OverflowError):
            return b""
