"""nRF52840 NVMC: flash controller and instruction cache (Product Specification v1.7, 4.3)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import BusFault, FlashController

_READ_ONLY, _WRITE, _ERASE = 0, 1, 2
_PAGE_BYTES = 4096


class Nvmc(FlashController):
    """0x4001E000.

    Ready at once: the CPU waits for the real one anyway. Wear and partial erase are not modelled.
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

    def write_READY(self, value: int) -> None:
        """Read only."""

    def write_READYNEXT(self, value: int) -> None:
        """Read only."""

    def write_CONFIG(self, value: int) -> None:
        """Read only, write enable or erase enable; both at once is reserved."""
        self.values["CONFIG"] = value & 3

    def write_ERASEPAGE(self, value: int) -> None:
        """Erases the page that holds this address; without erase enable nothing happens."""
        size_bytes = self.chip.board.flash_bytes
        if self.values["CONFIG"] == _ERASE and value < size_bytes:
            self.chip.rewrite_flash(value & -_PAGE_BYTES, b"\xff" * _PAGE_BYTES)

    def write_ERASEALL(self, value: int) -> None:
        """Erases everything."""
        if self.values["CONFIG"] == _ERASE and value & 1:
            self.chip.rewrite_flash(0, b"\xff" * self.chip.board.flash_bytes)

    def program(self, offset: int, old: bytes, new: bytes) -> bytes:
        """Whole words; bits can only be cleared."""
        if self.values["CONFIG"] != _WRITE:
            raise BusFault("flash is written while NVMC.CONFIG does not enable it")
        if len(new) != 4 or offset % 4:
            raise BusFault("flash can only be written in whole aligned words")
        return bytes(a & b for a, b in zip(old, new, strict=True))
