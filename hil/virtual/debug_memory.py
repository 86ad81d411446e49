"""What a debugger sees of a virtual board's address space: the bus behind its AHB access port.

RAM and flash come from the host's memory in one piece, also while the core runs. Debug registers
and identification are answered here. Any other register needs the core to pause for a moment.
Source: Armv7-M Architecture Reference Manual (DDI 0403), C1.2 (ROM table); Arm Debug Interface
(IHI 0031), identification registers; the parts' reference manuals for the chip's own tables.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hil.errors import HilError
from hil.virtual.core_debug import CoreDebug
from hil.virtual.core_thread import CoreThread
from hil.virtual.memory import Region
from hil.virtual.peripherals.registers import BusFault

_PAGE = 0x1000
_SCS, _DWT, _FPB, _ITM = 0xE000_E000, 0xE000_1000, 0xE000_2000, 0xE000_0000
_DHCSR, _DCRSR, _DCRDR, _DEMCR = 0xE000_EDF0, 0xE000_EDF4, 0xE000_EDF8, 0xE000_EDFC
_ID_OFFSET = 0xFD0  # PIDR4 to CIDR3
_MEMTYPE = 0xFCC  # of a ROM table: 1, system memory is on this bus
_ROM_TABLE, _GENERIC = 0x1, 0xE  # component classes
_ARM, _ST, _NORDIC = (4, 0x3B), (0, 0x20), (2, 0x44)  # JEP106 continuation and code
_ROM_CORE, _ROM_M7, _ROM_CHIP = 0xE00F_F000, 0xE00F_E000, 0xE00F_D000
_CORE_PARTS = {
    "cortex-m4": {_SCS: 0x00C, _DWT: 0x002, _FPB: 0x003, _ITM: 0x001},
    "cortex-m7": {_SCS: 0x00C, _DWT: 0x002, _FPB: 0x00E, _ITM: 0x001},
}
_CHIPS = {"nrf52": (_NORDIC, 0x008), "stm32f7": (_ST, 0x449), "stm32l4": (_ST, 0x470)}


class AccessFault(Exception):
    """An access that the bus, or the chip's protection, answers with an error."""


class _Component(NamedTuple):
    kind: int  # component class
    designer: tuple[int, int]
    part: int
    entries: tuple[int, ...] = ()  # of a ROM table: addresses

    def identification(self) -> list[int]:
        """PIDR4 to 7, PIDR0 to 3, CIDR0 to 3."""
        continuation, code = self.designer
        low = (self.part & 0xFF, (code & 0xF) << 4 | self.part >> 8, 8 | code >> 4, 0)
        return [continuation, 0, 0, 0, *low, 0x0D, self.kind << 4, 0x05, 0xB1]


class DebugMemory:
    """Reads and writes for a debugger. The caller holds the core thread's lock."""

    def __init__(self, core: CoreThread, debug: CoreDebug) -> None:
        self._core, self._cpu, self._debug = core, core.cpu, debug
        self._memory = core.cpu.memory
        board = core.cpu.board
        core_parts = _CORE_PARTS[board.mcu.core]
        self._components = {at: _Component(_GENERIC, _ARM, p) for at, p in core_parts.items()}
        designer, part = _CHIPS[board.build.family]
        if board.mcu.core == "cortex-m7":
            self.rom_table = _ROM_CHIP
            self._components[_ROM_CHIP] = _Component(_ROM_TABLE, designer, part, (_ROM_M7,))
            self._components[_ROM_M7] = _Component(_ROM_TABLE, _ARM, 0x4C8, (_ROM_CORE,))
            self._components[_ROM_CORE] = _Component(_ROM_TABLE, _ARM, 0x4C7, tuple(core_parts))
        else:
            self.rom_table = _ROM_CORE
            own = _Component(_ROM_TABLE, designer, part, tuple(core_parts))
            self._components[_ROM_CORE] = own

    # -- blocks

    def read_block(self, address: int, size_bytes: int) -> bytes:
        """Any number of bytes from any address; raises AccessFault."""
        region = self._memory.find(address, size_bytes)
        if region is not None:
            self._check(region)
            offset = address - region.memory.origin
            return bytes(region.data[offset : offset + size_bytes])
        result = bytearray()
        while len(result) < size_bytes:
            at = address + len(result)
            region = self._memory.find(at)
            if region is not None:
                self._check(region)
                offset = at - region.memory.origin
                result += region.data[offset : offset + size_bytes - len(result)]
            else:
                width = 4 if at % 4 == 0 and size_bytes - len(result) >= 4 else 1
                result += self.read(at, width).to_bytes(width, "little")
        return bytes(result)

    def write_block(self, address: int, data: bytes) -> None:
        """Any number of bytes to any address; raises AccessFault."""
        while data:
            region = self._memory.find(address)
            if region is not None and region.memory.kind == "ram":
                piece = data[: region.memory.end - address]
                self._write_ram(region, address, piece)
            else:
                piece = data[: 4 if address % 4 == 0 and len(data) >= 4 else 1]
                self.write(address, len(piece), int.from_bytes(piece, "little"))
            address, data = address + len(piece), data[len(piece) :]

    # -- one access

    def read(self, address: int, width: int) -> int:
        """1, 2 or 4 bytes, aligned; raises AccessFault."""
        region = self._memory.find(address, width)
        if region is not None:
            self._check(region)
            offset = address - region.memory.origin
            return int.from_bytes(region.data[offset : offset + width], "little")
        word = self._read_word(address & ~3, width, address)
        return word >> 8 * (address & 3) & (1 << 8 * width) - 1

    def _read_word(self, word: int, width: int, address: int) -> int:
        """A debug register as a whole, or a register of the bus shifted to its place."""
        if word == _DHCSR:
            return self._debug.read_dhcsr()
        if word == _DCRSR:
            return 0
        if word == _DCRDR:
            return self._debug.dcrdr
        if word == _DEMCR:
            return self._debug.demcr
        page, offset = word & -_PAGE, word % _PAGE
        component = self._components.get(page)
        if component is not None:
            if offset >= _ID_OFFSET:
                return component.identification()[offset - _ID_OFFSET >> 2]
            if component.kind == _ROM_TABLE:
                return self._rom_entry(page, component, offset >> 2)
            if page == _FPB:
                return self._debug.read_fpb(offset)
            if page == _ITM:
                return 0
        try:
            with self._core.at_rest():
                return self._cpu.read_peripheral(address, width) << 8 * (address & 3)
        except BusFault as fault:
            if component is not None:
                return 0  # reserved
            raise AccessFault(f"read of {width} bytes at 0x{address:08x}: {fault}") from None
        except HilError as error:  # the time is not known
            raise AccessFault(str(error)) from None

    def write(self, address: int, width: int, value: int) -> None:
        """1, 2 or 4 bytes, aligned; raises AccessFault."""
        data = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        region = self._memory.find(address, width)
        if region is not None and region.memory.kind == "ram":
            self._write_ram(region, address, data)
            return
        if width == 4 and self._write_debug(address, value):
            return
        try:
            with self._core.at_rest():
                if region is not None:
                    self._cpu.write_flash(address, data)
                else:
                    self._cpu.write_peripheral(address, width, value)
            if self._cpu.take_reset_request():
                self._debug.reset()
        except BusFault as fault:
            if address & -_PAGE not in self._components:
                what = f"write of {width} bytes at 0x{address:08x}"
                raise AccessFault(f"{what}: {fault}") from None
        except HilError as error:
            raise AccessFault(str(error)) from None

    def _write_debug(self, address: int, value: int) -> bool:
        """Whether this is a debug register, which is written then."""
        page = address & -_PAGE
        if address == _DHCSR:
            self._debug.write_dhcsr(value)
        elif address == _DCRSR:
            self._debug.write_dcrsr(value)
        elif address == _DCRDR:
            self._debug.dcrdr = value
        elif address == _DEMCR:
            self._debug.demcr = value
        elif page == _FPB:
            self._debug.write_fpb(address % _PAGE, value)
        else:
            return page == _ITM or (page in self._components and page not in (_SCS, _DWT))
        return True

    def _write_ram(self, region: Region, address: int, data: bytes) -> None:
        if self._core.is_running:
            offset = address - region.memory.origin
            region.data[offset : offset + len(data)] = data
            self._core.code_changed(address, len(data))
        else:
            self._cpu.write_memory(address, data)

    def _check(self, region: Region) -> None:
        controller = self._cpu.flash_controller
        if region.memory.kind == "flash" and controller and controller.protection == "flash":
            raise AccessFault("the flash is protected against being read by a debugger")

    @staticmethod
    def _rom_entry(page: int, table: _Component, index: int) -> int:
        if index == _MEMTYPE >> 2:
            return 1
        if index >= len(table.entries):
            return 0
        return table.entries[index] - page & 0xFFFF_FFFF | 3


def words_of(data: bytes) -> list[int]:
    """Little-endian words."""
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def bytes_of(words: list[int]) -> bytes:
    """Little-endian words as bytes."""
    return struct.pack(f"<{len(words)}I", *words)
