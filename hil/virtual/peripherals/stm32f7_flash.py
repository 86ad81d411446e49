"""STM32F746 FLASH: wait states, ART accelerator, erasing and programming (RM0385, 3.7)."""

from __future__ import annotations

from typing import ClassVar

from hil.board_timing import OperatingPoint
from hil.virtual.image import sector_ranges
from hil.virtual.peripherals.registers import BusFault
from hil.virtual.peripherals.stm32_flash import LOCK, LockedFlash

_LATENCY, _PRFTEN, _ARTEN, _ARTRST = 0xF, 1 << 8, 1 << 9, 1 << 11
_PG, _SER, _MER, _STRT = 1 << 0, 1 << 1, 1 << 2, 1 << 16
_EOP, _PGSERR = 1 << 0, 1 << 7


class FlashInterface(LockedFlash):
    """0x40023C00.

    Never busy: an erase or a program is done at once. Option bytes store what is written.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "ACR",
        0x04: "KEYR",
        0x08: "OPTKEYR",
        0x0C: "SR",
        0x10: "CR",
        0x14: "OPTCR",
        0x18: "OPTCR1",
    }
    RESET: ClassVar[dict[str, int]] = {"CR": LOCK, "OPTCR": 0xC0FF_AAFD, "OPTCR1": 0x0040_0080}
    SIZE_BYTES = 0x400

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self.write_ACR(self.values["ACR"])

    def set_up(self, point: OperatingPoint) -> None:
        """See Peripheral.set_up."""
        art = _ARTEN if "art" in point.caches_on else 0
        self.write_ACR(point.wait_states | (_PRFTEN if point.prefetch else 0) | art)

    def write_ACR(self, value: int) -> None:
        """Wait states; prefetch and ART, which serve the ITCM interface."""
        self.values["ACR"] = value
        self.chip.memory_system.set(
            wait_states=value & _LATENCY,
            prefetch=bool(value & _PRFTEN),
            caches={"art": bool(value & _ARTEN)},
        )
        if value & _ARTRST:
            self.chip.memory_system.invalidate("art")

    def write_CR(self, value: int) -> None:
        """STRT with SER or MER erases; ignored while locked."""
        if self.is_locked:
            return
        self.values["CR"] = value & ~_STRT
        if not value & _STRT:
            return
        ranges = sector_ranges(self.chip.board.flash_memory)
        number = value >> 3 & 0xF
        if value & _MER:
            self.chip.rewrite_flash(0, b"\xff" * self.chip.board.flash_bytes)
        elif value & _SER and number < len(ranges):
            start, end = ranges[number]
            self.chip.rewrite_flash(start, b"\xff" * (end - start))
        self.values["SR"] |= _EOP

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """Needs PG and the width that PSIZE says; bits can only be cleared."""
        if self.is_locked or not self.values["CR"] & _PG:
            self.values["SR"] |= _PGSERR
            raise BusFault("flash is written while FLASH_CR is locked or PG is not set")
        width = 1 << (self.values["CR"] >> 8 & 3)
        if len(new) != width:
            self.values["SR"] |= 1 << 6  # PGPERR
            raise BusFault(f"flash is written {len(new)} bytes wide while PSIZE says {width}")
        self.values["SR"] |= _EOP
        return bytes(a & b for a, b in zip(old, new, strict=True))
