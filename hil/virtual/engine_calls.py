"""Calls between Unicorn and Python without the layers of its binding, which cost more than they do.

For what happens at every access of a program to a peripheral. A callback that raises stops the
engine, and `emu_start` raises it, as with the binding's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from unicorn import Uc, UcError, unicorn_const
from unicorn.unicorn_py3.unicorn import (
    HOOK_MEM_INVALID_CFUNC,
    MMIO_READ_CFUNC,
    uclib,
)

_REMOVE_CACHE = unicorn_const.UC_CTL_IO_WRITE << 30 | 2 << 26 | unicorn_const.UC_CTL_TB_REMOVE_CACHE

Kept = list[object]  # what must live as long as the engine


def register_reader(engine: Uc, number: int) -> Callable[[], int]:
    """A function that reads one 32-bit register."""
    value = ctypes.c_uint32()
    at, handle, read = ctypes.addressof(value), engine._uch, uclib.uc_reg_read

    def read_register() -> int:
        read(handle, number, at)
        return value.value

    return read_register


def code_forgetter(engine: Uc) -> Callable[[int, int], None]:
    """A function that drops what was translated of [start, end)."""
    code, handle, control = ctypes.c_int(_REMOVE_CACHE), engine._uch, uclib.uc_ctl
    first, last = ctypes.c_uint64(), ctypes.c_uint64()

    def forget(start: int, end: int) -> None:
        first.value, last.value = start, end
        control(handle, code, first, last)

    return forget


def map_reads(
    engine: Uc, address: int, size_bytes: int, read: Callable[[int, int], int], kept: Kept
) -> None:
    """A range of addresses whose reads call `read(address, size in bytes)`; writes do nothing."""

    def called(handle: int, offset: int, size: int, data: int) -> int:
        try:
            return read(address + offset, size)
        except BaseException as failure:
            _fail(engine, failure)
            return 0

    callback = MMIO_READ_CFUNC(called)
    kept.append(callback)
    _check(uclib.uc_mmio_map(engine._uch, address, size_bytes, callback, 0, None, 0))


def hook_protected_writes(engine: Uc, write: Callable[[int, int, int], bool], kept: Kept) -> None:
    """Calls `write(address, size in bytes, value)` where the program may not write.

    True lets it go on, False is an error of the engine.
    """

    def called(handle: int, kind: int, address: int, size: int, value: int, data: int) -> bool:
        try:
            return write(address, size, value)
        except BaseException as failure:
            _fail(engine, failure)
            return False

    callback = HOOK_MEM_INVALID_CFUNC(called)
    kept.append(callback)
    hook = ctypes.c_size_t()
    _check(
        uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(hook),
            unicorn_const.UC_HOOK_MEM_WRITE_PROT,
            ctypes.cast(callback, ctypes.c_void_p),
            None,
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
    )


def _fail(engine: Uc, failure: BaseException) -> None:
    if engine._hook_exception is None:
        engine._hook_exception = failure
    engine.emu_stop()


def _check(status: int) -> None:
    if status != unicorn_const.UC_ERR_OK:
        raise UcError(status)
