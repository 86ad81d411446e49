"""STM32L4+ FLASH: wait states, ART accelerator, erasing and programming (RM0432, FLASH)."""

from __future__ import annotations

from typing import ClassVar

from hil.board_timing import OperatingPoint
from hil.virtual.image import sector_ranges
from hil.virtual.peripherals.registers import BusFault, array
from hil.virtual.peripherals.stm32_flash import LOCK, LockedFlash

_LATENCY, _PRFTEN, _ICEN, _DCEN, _ICRST, _DCRST = 0xF, *(1 << bit for bit in range(8, 13))
_PG, _PER, _MER1, _BKER, _MER2, _STRT = 1 << 0, 1 << 1, 1 << 2, 1 << 11, 1 << 15, 1 << 16
_FSTPG, _EOPIE, _OPTLOCK = 1 << 18, 1 << 24, 1 << 30
_OPTSTRT, _OBL_LAUNCH = 1 << 17, 1 << 27
_EOP, _PROGERR, _PGAERR, _SIZERR, _PGSERR = 1 << 0, 1 << 3, 1 << 5, 1 << 6, 1 << 7
_ERASED = b"\xff" * 8
# PCROPSR, PCROPER, WRPAR, WRPBR as delivered: areas that end before they start
_UNPROTECTED = (0xFFFF_FFFF, 0x0000_0000, 0xFF00_FFFF, 0xFF00_FFFF)


class FlashInterface(LockedFlash):
    """0x40022000, two banks of equal size.

    Never busy: an erase or a program is done at once. Fast programming is not modelled.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "ACR",
        0x04: "PDKEYR",
        0x08: "KEYR",
        0x0C: "OPTKEYR",
        0x10: "SR",
        0x14: "CR",
        0x18: "ECCR",
        0x20: "OPTR",
        **array(0x24, "BANK1_PROTECTION", 4),
        **array(0x44, "BANK2_PROTECTION", 4),
        0x130: "CFGR",
    }
    RESET: ClassVar[dict[str, int]] = {
        "ACR": 0x600,  # both caches are on
        "CR": LOCK | _OPTLOCK,
    }
    OPTIONS: ClassVar[dict[str, int]] = {
        "OPTR": 0xFFEF_F8AA,  # as delivered: two banks, boot from the first
        **{f"BANK{bank}_PROTECTION{i}": _UNPROTECTED[i] for bank in (1, 2) for i in range(4)},
    }
    RDP = "OPTR", 0
    OPTION_LOCK = "CR", _OPTLOCK
    SIZE_BYTES = 0x400

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._first: tuple[int, bytes, bytes] | None = None  # offset, old, new of the lower word
        self.write_ACR(self.values["ACR"])

    def set_up(self, point: OperatingPoint) -> None:
        """See Peripheral.set_up."""
        value = point.wait_states | (_PRFTEN if point.prefetch else 0)
        value |= _ICEN if "icache" in point.caches_on else 0
        value |= _DCEN if "dcache" in point.caches_on else 0
        self.write_ACR(value)

    def write_ACR(self, value: int) -> None:
        """Wait states, prefetch, the ART accelerator's caches."""
        self.values["ACR"] = value
        self.chip.memory_system.set(
            wait_states=value & _LATENCY,
            prefetch=bool(value & _PRFTEN),
            caches={"icache": bool(value & _ICEN), "dcache": bool(value & _DCEN)},
        )
        if value & _ICRST:
            self.chip.memory_system.invalidate("icache")
        if value & _DCRST:
            self.chip.memory_system.invalidate("dcache")

    def write_CR(self, value: int) -> None:
        """STRT with PER, MER1 or MER2 erases, OPTSTRT keeps option bytes; ignored while locked."""
        if self.is_locked:
            return
        self._first = None
        locked = self.values["CR"] & _OPTLOCK
        self.values["CR"] = (value | locked) & ~(_STRT | _OPTSTRT | _OBL_LAUNCH)
        if not locked and value & _OPTSTRT:
            self.store_options()
        if not locked and value & _OBL_LAUNCH:
            self.chip.request_reset()
        if not value & _STRT:
            return
        pages = sector_ranges(self.chip.board.flash_memory)
        half = len(pages) // 2
        erased = pages[:half] if value & _MER1 else []
        erased += pages[half:] if value & _MER2 else []
        if value & _PER:
            bank = pages[half:] if value & _BKER else pages[:half]
            number = value >> 3 & 0xFF
            erased += bank[number : number + 1]
        if self.erase(erased):
            self._done()

    def write_OPTR(self, value: int) -> None:
        """Ignored while locked."""
        if not self.are_options_locked:
            self.values["OPTR"] = value

    def _done(self) -> None:
        if self.values["CR"] & _EOPIE:
            self.values["SR"] |= _EOP

    def _refuse(self, flag: int, why: str) -> BusFault:
        self.values["SR"] |= flag
        return BusFault(f"flash is written {why}")

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """A double word at a time, the lower word first; both must be erased, or be made 0."""
        cr = self.values["CR"]
        if cr & LOCK or not cr & _PG:
            raise self._refuse(_PGSERR, "while FLASH_CR is locked or PG is not set")
        self.check_changes()
        if len(new) != 4 or offset % 4 or cr & _FSTPG:
            raise self._refuse(_SIZERR, f"{len(new)} bytes wide: double words go as two words")
        if offset % 8 == 0:
            self._first = (offset, old, new)
            return old  # nothing happens before the upper word
        if self._first is None or self._first[0] != offset - 4:
            raise self._refuse(_PGAERR, "with the upper word of a double word before the lower")
        (start, old_lower, new_lower), self._first = self._first, None
        if old_lower + old != _ERASED and any(new_lower + new):
            self.values["SR"] |= _PROGERR
            return old
        self.chip.rewrite_flash(start, new_lower)
        self._done()
        return new
