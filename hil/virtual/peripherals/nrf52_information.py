"""nRF52840 FICR and UICR: facts and user settings (Product Specification v1.7, 4.4 and 4.5)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import BusFault, Peripheral, array

_PROTECT_ENABLED = 0x00  # APPROTECT, lower byte


class FactoryInformation(Peripheral):
    """FICR, 0x10000000: what start-up code reads to know the chip.

    Trim values and calibration read as erased.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x010: "CODEPAGESIZE",
        0x014: "CODESIZE",
        **array(0x060, "DEVICEID", 2),
        **array(0x080, "ER", 4),
        **array(0x090, "IR", 4),
        0x0A0: "DEVICEADDRTYPE",
        **array(0x0A4, "DEVICEADDR", 2),
        0x100: "INFO_PART",
        0x104: "INFO_VARIANT",
        0x108: "INFO_PACKAGE",
        0x10C: "INFO_RAM",
        0x110: "INFO_FLASH",
        0x130: "CHIP_PART",
        0x134: "CHIP_REVISION",
        **array(0x404, "TEMP", 17),
    }
    RESET: ClassVar[dict[str, int]] = {
        **{name: 0xFFFF_FFFF for name in REGISTERS.values()},
        "CODEPAGESIZE": 4096,
        "CODESIZE": 256,
        "INFO_PART": 0x52840,
        "INFO_VARIANT": 0x4141_4630,  # "AAF0"
        "INFO_PACKAGE": 0x2004,  # QIAA
        "INFO_RAM": 256,
        "INFO_FLASH": 1024,
        "CHIP_PART": 0x08,
        "CHIP_REVISION": 0x05,
    }

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Read only."""


class UserInformation(Peripheral):
    """UICR, 0x10001000: flash that keeps settings over resets and loss of power.

    Written as flash is: while the NVMC enables it, and bits can only be cleared.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        **array(0x014, "NRFFW", 13),
        **array(0x080, "CUSTOMER", 32),
        **array(0x200, "PSELRESET", 2),
        0x208: "APPROTECT",
        0x20C: "NFCPINS",
        0x210: "DEBUGCTRL",
        0x304: "REGOUT0",
    }
    RESET: ClassVar[dict[str, int]] = {name: 0xFFFF_FFFF for name in REGISTERS.values()}

    is_writable = False  # NVMC.CONFIG

    def reset(self) -> None:
        """See Peripheral.reset; what was written stays."""
        if not self.values:
            self.erase()

    def erase(self) -> None:
        """All ones."""
        super().reset()

    @property
    def is_protected(self) -> bool:
        """Whether APPROTECT closes the access port from the next reset on."""
        return self.values["APPROTECT"] & 0xFF == _PROTECT_ENABLED

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """See Peripheral.write; raises BusFault."""
        if not self.is_writable:
            raise BusFault("UICR is written while NVMC.CONFIG does not enable it")
        if size_bytes != 4:
            raise BusFault("UICR can only be written in whole words")
        super().write(offset, size_bytes, self.values[self._name(offset & ~3)] & value)
