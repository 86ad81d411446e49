"""STM32F746 FLASH: wait states, ART accelerator, erasing and programming (RM0385, 3.7)."""

from __future__ import annotations

from typing import ClassVar

from hil.board_timing import OperatingPoint
from hil.virtual.image import sector_ranges
from hil.virtual.peripherals.registers import BusFault
from hil.virtual.peripherals.stm32_flash import LOCK, LockedFlash

_LATENCY, _PRFTEN, _ARTEN, _ARTRST = 0xF, 1 << 8, 1 << 9, 1 << 11
_PG, _SER, _MER, _STRT = 1 << 0, 1 << 1, 1 << 2, 1 << 16
_EOP, _PGPERR, _PGSERR = 1 << 0, 1 << 6, 1 << 7
_OPTLOCK, _OPTSTRT = 1 << 0, 1 << 1


class FlashInterface(LockedFlash):
    """0x40023C00.

    Never busy: an erase or a program is done at once.
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
    RESET: ClassVar[dict[str, int]] = {"CR": LOCK}
    OPTIONS: ClassVar[dict[str, int]] = {"OPTCR": 0xC0FF_AAFD, "OPTCR1": 0x0040_0080}
    RDP = "OPTCR", 8
    OPTION_LOCK = "OPTCR", _OPTLOCK
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
        if not value & _MER:
            ranges = ranges[number : number + 1] if value & _SER else []
        if self.erase(ranges):
            self.values["SR"] |= _EOP

    def write_OPTCR(self, value: int) -> None:
        """OPTSTRT keeps the option bytes; ignored while locked."""
        if self.are_options_locked:
            return
        self.values["OPTCR"] = value & ~_OPTSTRT
        if value & _OPTSTRT:
            self.store_options()

    def write_OPTCR1(self, value: int) -> None:
        """Boot addresses; ignored while locked."""
        if not self.are_options_locked:
            self.values["OPTCR1"] = value

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """Needs PG and the width that PSIZE says; bits can only be cleared."""
        if self.is_locked or not self.values["CR"] & _PG:
            self.values["SR"] |= _PGSERR
            raise BusFault("flash is written while FLASH_CR is locked or PG is not set")
        self.check_changes()
        width = 1 << (self.values["CR"] >> 8 & 3)
        if len(new) != width:
            self.values["SR"] |= _PGPERR
            raise BusFault(f"flash is written {len(new)} bytes wide while PSIZE says {width}")
        self.values["SR"] |= _EOP
        return bytes(a & b for a, b in zip(old, new, strict=True))
