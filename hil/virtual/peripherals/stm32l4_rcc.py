"""STM32L4+ RCC, clocks and resets (RM0432, RCC)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.stm32_rcc import ClockControl

_MSION, _MSIRDY, _MSIPLLEN = 1 << 0, 1 << 1, 1 << 2
_HSION, _HSIRDY, _HSEON, _HSERDY = 1 << 8, 1 << 10, 1 << 16, 1 << 17
_PLLON, _PLLRDY, _PLLREN = 1 << 24, 1 << 25, 1 << 24  # PLLREN is in PLLCFGR
_LSEON, _LSERDY, _HSI48ON, _HSI48RDY = 1 << 0, 1 << 1, 1 << 0, 1 << 1
_SOURCES = {_MSION: _MSIRDY, _HSION: _HSIRDY, _HSEON: _HSERDY}  # on -> ready
_PLLS = {_PLLON: _PLLRDY, 1 << 26: 1 << 27, 1 << 28: 1 << 29}  # the PLL, PLLSAI1, PLLSAI2
_PLL_SOURCES = (0, _MSIRDY, _HSIRDY, _HSERDY)  # by PLLSRC
_SYSTEM_SOURCES = (_MSIRDY, _HSIRDY, _HSERDY, _PLLRDY)  # by SW
_SYSTEM_ON = (_MSION, _HSION, _HSEON, _PLLON)
_READY_BITS = _MSIRDY | _HSIRDY | _HSERDY | _PLLRDY | 1 << 27 | 1 << 29


class Rcc(ClockControl):
    """0x40021000. A source is ready as soon as it is on, a PLL as soon as its source is ready."""

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "CR",
        0x04: "ICSCR",
        0x08: "CFGR",
        0x0C: "PLLCFGR",
        0x10: "PLLSAI1CFGR",
        0x14: "PLLSAI2CFGR",
        0x18: "CIER",
        0x1C: "CIFR",
        0x20: "CICR",
        0x28: "AHB1RSTR",
        0x2C: "AHB2RSTR",
        0x30: "AHB3RSTR",
        0x38: "APB1RSTR1",
        0x3C: "APB1RSTR2",
        0x40: "APB2RSTR",
        0x48: "AHB1ENR",
        0x4C: "AHB2ENR",
        0x50: "AHB3ENR",
        0x58: "APB1ENR1",
        0x5C: "APB1ENR2",
        0x60: "APB2ENR",
        0x88: "CCIPR",
        0x90: "BDCR",
        0x94: "CSR",
        0x98: "CRRCR",
        0x9C: "CCIPR2",
    }
    RESET: ClassVar[dict[str, int]] = {
        "CR": 0x60 | _MSION | _MSIRDY,  # 4 MHz
        "ICSCR": 0x4000_0000,
        "PLLCFGR": 0x1000,
        "PLLSAI1CFGR": 0x1000,
        "PLLSAI2CFGR": 0x1000,
        "AHB1ENR": 0x100,  # FLASHEN
        "CSR": 0x0C00_0600,
    }
    SIZE_BYTES = 0x400
    PPRE1_SHIFT = 8

    backup_domain_is_open = False  # PWR_CR1.DBP

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self.backup_domain_is_open = False

    def write_CR(self, value: int) -> None:
        """On bits; the ready bits follow. MSI is trimmed only by an LSE that is ready."""
        value &= ~_READY_BITS
        value |= _SYSTEM_ON[self.values["CFGR"] >> 2 & 3]  # the system clock cannot be switched off
        if not self.values["BDCR"] & _LSERDY:
            value &= ~_MSIPLLEN
        ready = sum(is_ready for on, is_ready in _SOURCES.items() if value & on)
        if ready & _PLL_SOURCES[self.values["PLLCFGR"] & 3]:
            ready |= sum(is_ready for on, is_ready in _PLLS.items() if value & on)
        self.values["CR"] = value | ready

    def write_PLLCFGR(self, value: int) -> None:
        """While the PLL is on, only what is enabled of its outputs can be changed."""
        kept = 0 if not self.values["CR"] & _PLLON else 0xFEEE_FFFF
        self.values["PLLCFGR"] = self.values["PLLCFGR"] & kept | value & ~kept

    def write_CFGR(self, value: int) -> None:
        """The system clock switches to a source that is ready, else it stays."""
        wanted = value & 3
        is_ready = self.values["CR"] & _SYSTEM_SOURCES[wanted]
        if wanted == 3 and not self.values["PLLCFGR"] & _PLLREN:
            is_ready = 0
        used = wanted if is_ready else self.values["CFGR"] >> 2 & 3
        self.values["CFGR"] = value & ~0xC | used << 2

    def write_BDCR(self, value: int) -> None:
        """LSERDY follows LSEON; ignored while the backup domain is closed."""
        if self.backup_domain_is_open:
            ready = _LSERDY if value & _LSEON else 0
            self.values["BDCR"] = value & ~_LSERDY | ready

    def write_CSR(self, value: int) -> None:
        """LSIRDY follows LSION; RMVF clears the reset flags."""
        flags = 0 if value & 1 << 23 else self.values["CSR"] & 0xFF00_0000
        self.values["CSR"] = flags | value & 0xF01 | (value & 1) << 1

    def write_CRRCR(self, value: int) -> None:
        """HSI48RDY follows HSI48ON."""
        self.values["CRRCR"] = value & _HSI48ON | (_HSI48RDY if value & _HSI48ON else 0)
