"""STM32F746 RCC, clocks and resets (RM0385, 5.3)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.stm32_rcc import ClockControl

_HSION, _HSIRDY, _HSEON, _HSERDY = 1 << 0, 1 << 1, 1 << 16, 1 << 17
_PLLS = {1 << 24: 1 << 25, 1 << 26: 1 << 27, 1 << 28: 1 << 29}  # PLLON, PLLI2SON, PLLSAION -> ready
_PLLSRC_HSE = 1 << 22
_READY_BITS = _HSIRDY | _HSERDY | 1 << 25 | 1 << 27 | 1 << 29


class Rcc(ClockControl):
    """0x40023800. A source is ready as soon as it is on, a PLL as soon as its source is ready."""

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "CR",
        0x04: "PLLCFGR",
        0x08: "CFGR",
        0x0C: "CIR",
        0x10: "AHB1RSTR",
        0x14: "AHB2RSTR",
        0x18: "AHB3RSTR",
        0x20: "APB1RSTR",
        0x24: "APB2RSTR",
        0x30: "AHB1ENR",
        0x34: "AHB2ENR",
        0x38: "AHB3ENR",
        0x40: "APB1ENR",
        0x44: "APB2ENR",
        0x50: "AHB1LPENR",
        0x54: "AHB2LPENR",
        0x58: "AHB3LPENR",
        0x60: "APB1LPENR",
        0x64: "APB2LPENR",
        0x70: "BDCR",
        0x74: "CSR",
        0x80: "SSCGR",
        0x84: "PLLI2SCFGR",
        0x88: "PLLSAICFGR",
        0x8C: "DCKCFGR1",
        0x90: "DCKCFGR2",
    }
    RESET: ClassVar[dict[str, int]] = {
        "CR": _HSION | _HSIRDY | 0x80,
        "PLLCFGR": 0x2400_3010,
        "AHB1ENR": 0x0010_0000,  # DTCMRAMEN
        "AHB1LPENR": 0x7EF7_B7FF,
        "CSR": 0x0E00_0000,
        "PLLI2SCFGR": 0x2400_3000,
        "PLLSAICFGR": 0x2400_3000,
    }
    SIZE_BYTES = 0x400
    PPRE1_SHIFT = 10

    def write_CR(self, value: int) -> None:
        """On bits; the ready bits follow."""
        value &= ~_READY_BITS
        if self.values["CFGR"] >> 2 & 3 == 0:
            value |= _HSION  # the system clock cannot be switched off
        ready = (_HSIRDY if value & _HSION else 0) | (_HSERDY if value & _HSEON else 0)
        source = _HSERDY if self.values["PLLCFGR"] & _PLLSRC_HSE else _HSIRDY
        for on, is_ready in _PLLS.items():
            if value & on and ready & source:
                ready |= is_ready
        self.values["CR"] = value | ready

    def write_PLLCFGR(self, value: int) -> None:
        """Can only be written while the PLL is off."""
        if not self.values["CR"] & 1 << 24:
            self.values["PLLCFGR"] = value

    def write_CFGR(self, value: int) -> None:
        """The system clock switches to a source that is ready, else it stays."""
        wanted = value & 3
        ready = (_HSIRDY, _HSERDY, 1 << 25, 0)[wanted]
        used = wanted if self.values["CR"] & ready else self.values["CFGR"] >> 2 & 3
        self.values["CFGR"] = value & ~0xC | used << 2

    def write_BDCR(self, value: int) -> None:
        """LSERDY follows LSEON."""
        self.values["BDCR"] = value & ~2 | (value & 1) << 1

    def write_CSR(self, value: int) -> None:
        """LSIRDY follows LSION; RMVF clears the reset flags."""
        flags = 0 if value & 1 << 24 else self.values["CSR"] & 0xFE00_0000
        self.values["CSR"] = flags | value & 1 | (value & 1) << 1
