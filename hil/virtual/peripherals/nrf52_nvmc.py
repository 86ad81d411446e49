"""nRF52840 NVMC: flash controller and instruction cache (Product Specification v1.7, 4.3)."""

from __future__ import annotations

from typing import ClassVar

from hil.board_timing import OperatingPoint
from hil.virtual.peripherals.nrf52_information import UserInformation
from hil.virtual.peripherals.registers import BusFault, Chip, FlashController, Protection

_READ_ONLY, _WRITE, _ERASE = 0, 1, 2
_PAGE_BYTES = 4096
_CACHEEN, _CACHEPROFEN = 1 << 0, 1 << 8


class Nvmc(FlashController):
    """0x4001E000.

    Ready at once: the CPU waits for the real one anyway. Wear and partial erase are not modelled.
    An erased UICR leaves the access port open, as on chips before revision 3.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x400: "READY",
        0x408: "READYNEXT",
        0x504: "CONFIG",
        0x508: "ERASEPAGE",
        0x50C: "ERASEALL",
        0x510: "ERASEPCR0",
        0x514: "ERASEUICR",
        0x518: "ERASEPAGEPARTIAL",
        0x51C: "ERASEPAGEPARTIALCFG",
        0x540: "ICACHECNF",
        0x548: "IHIT",
        0x54C: "IMISS",
    }
    RESET: ClassVar[dict[str, int]] = {"READY": 1, "READYNEXT": 1, "ERASEPAGEPARTIALCFG": 0xA}

    def __init__(self, chip: Chip, name: str, base: int, settings: UserInformation) -> None:
        self._settings = settings
        super().__init__(chip, name, base)

    @property
    def protection(self) -> Protection:
        """See FlashController.protection."""
        return "memory" if self._is_protected else "open"

    def protect(self) -> None:
        """See FlashController.protect: UICR.APPROTECT, as it acts from a reset on."""
        self._settings.values["APPROTECT"] = 0xFFFF_FF00
        self._is_protected = True

    def erase_chip(self) -> None:
        """See FlashController.erase_chip; what CTRL-AP's ERASEALL does, RAM included."""
        self.chip.rewrite_flash(0, b"\xff" * self.chip.board.flash_bytes)
        self.chip.memory.clear_ram()
        self._settings.erase()
        self._is_protected = False

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._is_protected = self._settings.is_protected
        self._settings.is_writable = False
        self._hidden = (0, 0)  # hits and misses that the counters have not seen
        self.write_ICACHECNF(self.values["ICACHECNF"])

    def set_up(self, point: OperatingPoint) -> None:
        """See Peripheral.set_up."""
        self.write_ICACHECNF(_CACHEEN if "icache" in point.caches_on else 0)

    def write_ICACHECNF(self, value: int) -> None:
        """Switches the instruction cache, which forgets when it is off, and its counters."""
        seen = self.read_IHIT(), self.read_IMISS()
        self.values["ICACHECNF"] = value & (_CACHEEN | _CACHEPROFEN)
        self.chip.memory_system.set(caches={"icache": bool(value & _CACHEEN)})
        self._show(*seen)

    def read_IHIT(self) -> int:
        """Hits of the instruction cache, a line of it at a time: the core asks for each word."""
        return self._counters()[0] & 0xFFFF_FFFF

    def read_IMISS(self) -> int:
        """Misses of the instruction cache."""
        return self._counters()[1] & 0xFFFF_FFFF

    def write_IHIT(self, value: int) -> None:
        """Whatever is written, the counter is 0 then."""
        self._show(0, self.read_IMISS())

    def write_IMISS(self, value: int) -> None:
        """Whatever is written, the counter is 0 then."""
        self._show(self.read_IHIT(), 0)

    def _counters(self) -> tuple[int, int]:
        if not self._counts:
            return self.values["IHIT"], self.values["IMISS"]
        hits, misses = self._looked_up()
        return hits - self._hidden[0], misses - self._hidden[1]

    def _show(self, hits: int, misses: int) -> None:
        """The counters go on from here."""
        self.values |= {"IHIT": hits, "IMISS": misses}
        all_hits, all_misses = self._looked_up()
        self._hidden = all_hits - hits, all_misses - misses

    def _looked_up(self) -> tuple[int, int]:
        counts = self.chip.memory_system.counts(self.chip.board.flash_memory.name, "code")
        return counts.hits, counts.fills + counts.sequentials

    @property
    def _counts(self) -> bool:
        both = _CACHEEN | _CACHEPROFEN
        return self.values["ICACHECNF"] & both == both

    def write_READY(self, value: int) -> None:
        """Read only."""

    def write_READYNEXT(self, value: int) -> None:
        """Read only."""

    def write_CONFIG(self, value: int) -> None:
        """Read only, write enable or erase enable; both at once is reserved."""
        self.values["CONFIG"] = value & 3
        self._settings.is_writable = self.values["CONFIG"] == _WRITE

    def write_ERASEPAGE(self, value: int) -> None:
        """Erases the page that holds this address; without erase enable nothing happens."""
        size_bytes = self.chip.board.flash_bytes
        if self.values["CONFIG"] == _ERASE and value < size_bytes:
            self.chip.rewrite_flash(value & -_PAGE_BYTES, b"\xff" * _PAGE_BYTES)

    def write_ERASEALL(self, value: int) -> None:
        """Erases everything."""
        if self.values["CONFIG"] == _ERASE and value & 1:
            self.chip.rewrite_flash(0, b"\xff" * self.chip.board.flash_bytes)
            self._settings.erase()

    def write_ERASEUICR(self, value: int) -> None:
        """Erases the user settings."""
        if self.values["CONFIG"] == _ERASE and value & 1:
            self._settings.erase()

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """Whole words; bits can only be cleared."""
        if self.values["CONFIG"] != _WRITE:
            raise BusFault("flash is written while NVMC.CONFIG does not enable it")
        if len(new) != 4 or offset % 4:
            raise BusFault("flash can only be written in whole aligned words")
        return bytes(a & b for a, b in zip(old, new, strict=True))
