"""The debug port of a virtual board: what a probe reaches over its two wires.

A serial wire debug port, version 1, with the access ports of the chip: an AHB-AP to the core's
memory, and on the nRF52 Nordic's CTRL-AP, which tells whether the chip is locked and erases it.
Source: Arm Debug Interface Architecture Specification (IHI 0031) chapters 2, 7 and 8; nRF52840
Product Specification v1.7, 4.8 (CTRL-AP).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hil.virtual.core_debug import CoreDebug
from hil.virtual.core_thread import CoreThread
from hil.virtual.debug_memory import AccessFault, DebugMemory, bytes_of, words_of

# Debug port registers by address
_IDR, _CTRL_STAT, _SELECT, _RDBUFF = 0x0, 0x4, 0x8, 0xC
_ABORT = _IDR
_STICKY = {1: 1 << 4, 2: 1 << 5, 3: 1 << 7, 4: 1 << 1}  # ABORT bit -> CTRL/STAT bit it clears
_STICKYERR = 1 << 5
_POWER_REQUESTS, _POWER_UP = 1 << 28 | 1 << 30, 1 << 28  # CDBGPWRUPREQ, CSYSPWRUPREQ
_CTRL_STAT_WRITABLE = 0x5000_0F5D  # requests, TRNCNT is 0, MASKLANE, ORUNDETECT, TRNMODE
_DPIDR = {"cortex-m4": 0x2BA0_1477, "cortex-m7": 0x5BA0_2477}

# MEM-AP registers
_CSW, _TAR, _DRW, _BD0, _BD3, _CFG, _BASE, _AP_IDR = 0x00, 0x04, 0x0C, 0x10, 0x1C, 0xF4, 0xF8, 0xFC
_AHB_AP_IDR = {"cortex-m4": 0x2477_0011, "cortex-m7": 0x7477_0001}
_DEVICE_EN = 1 << 6
_CSW_WRITABLE = 0x7F00_0F3F
_INCREMENT_SINGLE = 1
_WIDTHS = {0: 1, 1: 2, 2: 4}
_INCREMENT_WRAP = {"cortex-m4": 0x1000, "cortex-m7": 0x400}  # TAR counts within such a block

# CTRL-AP registers
_RESET, _ERASEALL, _ERASEALLSTATUS, _APPROTECTSTATUS = 0x00, 0x04, 0x08, 0x0C
_CTRL_AP_IDR = 0x0288_0000


class TransferFault(Exception):
    """The debug port answers FAULT."""


class NoAnswer(Exception):
    """The debug port does not answer at all."""


class _AccessPort(Protocol):
    def read(self, register: int) -> int: ...
    def write(self, register: int, value: int) -> None: ...


class DebugPort:
    """One chip's debug port. All methods may be called from any thread."""

    def __init__(self, core: CoreThread, debug: CoreDebug) -> None:
        self.core, self.debug = core, debug
        self.memory = DebugMemory(core, debug)
        self._ahb_ap = _AhbAp(self)
        self._ports: list[_AccessPort] = [self._ahb_ap]
        if core.cpu.board.build.family == "nrf52":
            self._ports.append(_CtrlAp(self))
        self.power_cycle()

    def power_cycle(self) -> None:
        """The port as after the supply came on."""
        self._ctrl_stat = self._select = self._last_read = 0
        self._ahb_ap.reset()

    @property
    def protection(self) -> str:
        """What the chip keeps from debuggers: see Protection."""
        controller = self.core.cpu.flash_controller
        return "open" if controller is None else controller.protection

    def _check_port(self) -> None:
        if self.protection == "port":
            raise NoAnswer("the debug port of a locked chip does not answer")

    # -- debug port registers; `register` is the address, 0x0 to 0xC

    def read_dp(self, register: int) -> int:
        """Raises NoAnswer."""
        with self.core.lock:
            self._check_port()
            if register == _IDR:
                return _DPIDR[self.core.cpu.board.mcu.core]
            if register == _CTRL_STAT:
                acknowledged = (self._ctrl_stat & _POWER_REQUESTS) << 1
                return self._ctrl_stat | acknowledged if not self._select & 0xF else 0x40
            return self._last_read if register == _RDBUFF else 0

    def write_dp(self, register: int, value: int) -> None:
        """Raises NoAnswer."""
        with self.core.lock:
            self._check_port()
            if register == _ABORT:
                for bit, sticky in _STICKY.items():
                    if value >> bit & 1:
                        self._ctrl_stat &= ~sticky
            elif register == _CTRL_STAT and not self._select & 0xF:
                kept = self._ctrl_stat & sum(_STICKY.values())
                self._ctrl_stat = value & _CTRL_STAT_WRITABLE | kept
            elif register == _SELECT:
                self._select = value

    @property
    def selected(self) -> tuple[int, int]:
        """(access port, bank of registers as the upper bits of their address) of SELECT."""
        return self._select >> 24, self._select & 0xF0

    # -- access ports; `register` is the whole address, 0x00 to 0xFC

    def read_ap(self, port: int, register: int) -> int:
        """Raises NoAnswer, TransferFault."""
        with self._access():
            self._last_read = self._ports[port].read(register) if port < len(self._ports) else 0
            return self._last_read

    def write_ap(self, port: int, register: int, value: int) -> None:
        """Raises NoAnswer, TransferFault."""
        with self._access():
            if port < len(self._ports):
                self._ports[port].write(register, value)

    def read_ap_many(self, port: int, register: int, count: int) -> list[int]:
        """The same register so many times; raises as read_ap."""
        if port != 0 or register != _DRW:
            return [self.read_ap(port, register) for _ in range(count)]
        with self._access():
            return self._ahb_ap.read_many(count)

    def write_ap_many(self, port: int, register: int, values: list[int]) -> None:
        """Every value to the same register; raises as write_ap."""
        if port != 0 or register != _DRW:
            for value in values:
                self.write_ap(port, register, value)
            return
        with self._access():
            self._ahb_ap.write_many(values)

    @contextmanager
    def _access(self) -> Iterator[None]:
        """An access to an access port, and what becomes of it when it fails."""
        with self.core.lock:
            self._check_port()
            if not self._ctrl_stat & _POWER_UP:
                self._ctrl_stat |= _STICKYERR
                raise TransferFault("the debug domain has no power: CDBGPWRUPREQ is not set")
            if self._ctrl_stat & _STICKYERR:
                raise TransferFault("an earlier error is not cleared: write STKERRCLR to ABORT")
            try:
                yield
            except AccessFault as fault:
                self._ctrl_stat |= _STICKYERR
                raise TransferFault(str(fault)) from None

    # -- the probe's reset line

    def assert_reset(self, asserted: bool) -> None:
        """Holds the chip's reset line low, or lets it go."""
        with self.core.lock:
            self.debug.hold_reset(asserted)

    def is_reset_asserted(self) -> bool:
        """Whether it is held."""
        return self.debug.in_reset


class _AhbAp:
    """MEM-AP to the core's bus: CSW, TAR, DRW, BD0 to BD3."""

    def __init__(self, port: DebugPort) -> None:
        self._port, self._memory = port, port.memory
        self._core = port.core.cpu.board.mcu.core
        self._wrap = _INCREMENT_WRAP[self._core]
        self.reset()

    def reset(self) -> None:
        self._csw, self._tar = 0x2300_0002, 0

    def read(self, register: int) -> int:
        if register == _CSW:
            is_open = self._port.protection != "memory"
            return self._csw | (_DEVICE_EN if is_open else 0)
        if register == _TAR:
            return self._tar
        if register == _DRW or _BD0 <= register <= _BD3:
            address, width = self._target(register)
            value = self._memory.read(address, width) << 8 * (address & 3)
            self._advance(register, width)
            return value
        if register == _BASE:
            return self._memory.rom_table | 3
        return _AHB_AP_IDR[self._core] if register == _AP_IDR else 0

    def write(self, register: int, value: int) -> None:
        if register == _CSW:
            self._csw = value & _CSW_WRITABLE
            if self._csw >> 4 & 3 > _INCREMENT_SINGLE:  # no packed transfers
                self._csw &= ~0x30
            if self._csw & 7 not in _WIDTHS:
                self._csw = self._csw & ~7 | 2
        elif register == _TAR:
            self._tar = value
        elif register == _DRW or _BD0 <= register <= _BD3:
            address, width = self._target(register)
            self._memory.write(address, width, value >> 8 * (address & 3) & (1 << 8 * width) - 1)
            self._advance(register, width)

    def read_many(self, count: int) -> list[int]:
        """DRW so many times: whole words from successive addresses come in one piece."""
        values: list[int] = []
        while len(values) < count:
            words = self._words_ahead(count - len(values))
            if words:
                self._check_open()
                values += words_of(self._memory.read_block(self._tar, 4 * words))
                self._advance(_DRW, 4 * words)
            else:
                values.append(self.read(_DRW))
        return values

    def write_many(self, values: list[int]) -> None:
        """DRW with each of these values: as read_many."""
        at = 0
        while at < len(values):
            words = self._words_ahead(len(values) - at)
            if words:
                self._check_open()
                self._memory.write_block(self._tar, bytes_of(values[at : at + words]))
                self._advance(_DRW, 4 * words)
            else:
                self.write(_DRW, values[at])
            at += words or 1

    def _words_ahead(self, limit: int) -> int:
        """How many words from TAR on are successive, before it wraps; 0 where it stands still."""
        if self._csw & 7 != 2 or self._csw >> 4 & 3 != _INCREMENT_SINGLE or self._tar % 4:
            return 0
        return min(limit, (self._wrap - self._tar % self._wrap) // 4)

    def _check_open(self) -> None:
        if self._port.protection == "memory":
            raise AccessFault("the chip is locked: its access port does not reach the memory")

    def _target(self, register: int) -> tuple[int, int]:
        self._check_open()
        if register != _DRW:
            return (self._tar & ~0xF) + register - _BD0, 4
        width = _WIDTHS[self._csw & 7]
        return self._tar & -width, width

    def _advance(self, register: int, width: int) -> None:
        if register == _DRW and self._csw >> 4 & 3 == _INCREMENT_SINGLE:
            self._tar = self._tar & -self._wrap | self._tar + width & self._wrap - 1


class _CtrlAp:
    """Nordic's CTRL-AP; erasing takes no time."""

    def __init__(self, port: DebugPort) -> None:
        self._port = port
        self._reset = self._erase = 0

    def read(self, register: int) -> int:
        if register == _APPROTECTSTATUS:
            return int(self._port.protection == "open")
        values = {_RESET: self._reset, _ERASEALL: self._erase, _AP_IDR: _CTRL_AP_IDR}
        return values.get(register, 0)

    def write(self, register: int, value: int) -> None:
        core, debug = self._port.core, self._port.debug
        if register == _RESET:
            if self._reset and not value & 1:
                debug.reset()
            self._reset = value & 1
        elif register == _ERASEALL:
            self._erase = value & 1
            if value & 1:
                with core.at_rest():
                    controller = core.cpu.flash_controller
                    assert controller is not None, "every nRF52 has its NVMC"
                    controller.erase_chip()
