"""Where Unicorn keeps the registers of the running core, found by looking for them in memory.

The native hooks need two things that Unicorn's API gives too slowly or not at all. Operands of a
divide: the registers as they are while a block runs. And the IT state: before it calls a hook for a
memory access, Unicorn restores the program counter of the access and with it the IT state, which
must be 0 while a block runs; left as it is, an access inside an IT block would make the next block
conditional. The hook puts it back to 0.

Restoring the program counter at every access takes longer than all the rest (code with a load in
every second instruction runs two to eight times faster without), and nobody needs it for an access
to plain memory. Unicorn has a flag for its own use that leaves it out; where the flag is found, the
hooks set it for plain memory and clear it for everything else.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from functools import lru_cache
from typing import NamedTuple

from unicorn import Uc, UcError, uc_version, unicorn_const
from unicorn import arm_const as arm

from hil.errors import HilError

_REGISTERS = [getattr(arm, f"UC_ARM_REG_R{i}") for i in range(13)]
_MARKS = [0x5EED_0001 + 0x0101_0100 * i for i in range(13)]
_HANDLE_BYTES = 4096  # of Unicorn's handle, which holds a pointer to the core
_CORE_BYTES = 1 << 17  # the core with its registers, the cache of translations before them included
_REGISTER_FILE_BYTES = 1024
_IT_BITS = 0x0600_FC00  # of XPSR: Armv7-M Architecture Reference Manual, B1.4.2


# Where Unicorn's handle has the flag, by (version, machine); what is not listed runs without it.
_FLAG_AT = {(0x020104, "x86_64"): 14898}
_PROBE_AT = 0x1000
_PROBE = bytes.fromhex("00bf 00bf 0868 fee7")  # nop; nop; ldr r0, [r1]; b .


class EngineState(NamedTuple):
    """Addresses in this process."""

    registers: int  # r0 to r15, 32 bits each
    it_state: int  # 32 bits
    keeps_pc: int | None  # one byte; None: not known in this version


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
                flag = _flag_offset()
                keeps_pc = None if flag is None else (engine._uch.value or 0) + flag
                return EngineState(pointer + at, it_state, keeps_pc)
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


@lru_cache(maxsize=1)
def _flag_offset() -> int | None:
    """The listed offset if setting the byte there has the effect that it should have."""
    offset = _FLAG_AT.get((uc_version()[2] >> 8, platform.machine()))
    if offset is None or platform.libc_ver()[0] != "glibc":
        return None
    engine = Uc(
        unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
    )
    engine.mem_map(_PROBE_AT, 4096)
    engine.mem_write(_PROBE_AT, _PROBE)
    engine.reg_write(arm.UC_ARM_REG_R1, _PROBE_AT)
    flag = ctypes.c_uint8.from_address((engine._uch.value or 0) + offset)
    seen = 0

    def set_flag(*_: object) -> None:
        flag.value = 1

    def look(*_: object) -> None:
        nonlocal seen
        seen = engine.reg_read(arm.UC_ARM_REG_PC)

    engine.hook_add(unicorn_const.UC_HOOK_BLOCK, set_flag)
    engine.hook_add(unicorn_const.UC_HOOK_MEM_READ, look)
    try:
        engine.emu_start(_PROBE_AT | 1, _PROBE_AT + 6)
    except UcError:
        return None
    finally:
        flag.value = 0
    return offset if seen == _PROBE_AT else None
