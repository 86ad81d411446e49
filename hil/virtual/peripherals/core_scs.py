"""The system control space of an Armv7-M core: SCB, NVIC, SysTick, MPU, FPU, cache maintenance.

Source: Armv7-M Architecture Reference Manual (DDI 0403) B3.2 to B3.5; values of the identification
registers from the Cortex-M4 (DDI 0439) and Cortex-M7 (DDI 0489) TRMs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hil.board_timing import OperatingPoint
from hil.virtual.peripherals.registers import Chip, Peripheral, array

_VECTKEY = 0x05FA_0000
_SYSRESETREQ = 1 << 2
_CPACR_CP10_CP11_FULL = 0xF << 20
TRCENA = 1 << 24  # in DEMCR
_CCR_DC, _CCR_IC = 1 << 16, 1 << 17

_CPUID = {"cortex-m4": 0x410F_C241, "cortex-m7": 0x411F_C270}
_FPU_FEATURES = {  # MVFR0, MVFR1, MVFR2: single precision
    "cortex-m4": (0x1011_0021, 0x1100_0011, 0),
    "cortex-m7": (0x1011_0021, 0x1100_0011, 0x0000_0040),
}
_CCSIDR_DATA = 0xF003_E019  # 4 KiB, 4 ways of 32 sets of 32 B
_CCSIDR_INSTRUCTION = 0xF007_E009  # 4 KiB, 2 ways of 64 sets of 32 B
_CACHE_TYPES = {  # CLIDR, CTR: separate L1 caches on the M7, none on the M4
    "cortex-m4": (0, 0x8000_C000),
    "cortex-m7": (0x0900_0003, 0x8303_C003),
}
_FEATURES = {  # ID_PFR0 to ID_ISAR4, from 0xD40 on
    "cortex-m4": (
        *(0x0000_0030, 0x0000_0200, 0x0010_0000, 0, 0x0010_0030, 0, 0x0100_0000, 0),
        *(0x0114_1110, 0x0211_2000, 0x2123_2231, 0x0111_1131, 0x0131_0102),
    ),
    "cortex-m7": (
        *(0x0000_0030, 0x0000_0200, 0x0010_0000, 0, 0x0010_0030, 0, 0x0100_0000, 0),
        *(0x0110_1110, 0x0211_2000, 0x2023_2231, 0x0111_1131, 0x0131_0132),
    ),
}


class SystemControl(Peripheral):
    """SCS, 0xE000E000.

    NVIC and MPU keep what is written and do nothing: no interrupts and no protection are modelled.
    SysTick counts.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x004: "ICTR",
        0x008: "ACTLR",
        0x010: "SYST_CSR",
        0x014: "SYST_RVR",
        0x018: "SYST_CVR",
        0x01C: "SYST_CALIB",
        **array(0x100, "ISER", 8),
        **array(0x180, "ICER", 8),
        **array(0x200, "ISPR", 8),
        **array(0x280, "ICPR", 8),
        **array(0x300, "IABR", 8),
        **array(0x400, "IPR", 60),
        0xD00: "CPUID",
        0xD04: "ICSR",
        0xD08: "VTOR",
        0xD0C: "AIRCR",
        0xD10: "SCR",
        0xD14: "CCR",
        **array(0xD18, "SHPR", 3),
        0xD24: "SHCSR",
        0xD28: "CFSR",
        0xD2C: "HFSR",
        0xD30: "DFSR",
        0xD34: "MMFAR",
        0xD38: "BFAR",
        0xD3C: "AFSR",
        **array(0xD40, "ID", 13),
        0xD78: "CLIDR",
        0xD7C: "CTR",
        0xD80: "CCSIDR",
        0xD84: "CSSELR",
        0xD88: "CPACR",
        0xD90: "MPU_TYPE",
        **{
            0xD94 + 4 * i: name
            for i, name in enumerate(("MPU_CTRL", "MPU_RNR", "MPU_RBAR", "MPU_RASR"))
        },
        0xDF0: "DHCSR",
        0xDF4: "DCRSR",
        0xDF8: "DCRDR",
        0xDFC: "DEMCR",
        0xF00: "STIR",
        0xF34: "FPCCR",
        0xF38: "FPCAR",
        0xF3C: "FPDSCR",
        **array(0xF40, "MVFR", 3),
        0xF50: "ICIALLU",
        0xF58: "ICIMVAU",
        0xF5C: "DCIMVAC",
        0xF60: "DCISW",
        0xF64: "DCCMVAU",
        0xF68: "DCCMVAC",
        0xF6C: "DCCSW",
        0xF70: "DCCIMVAC",
        0xF74: "DCCISW",
        0xF90: "ITCMCR",
        0xF94: "DTCMCR",
        0xF98: "AHBPCR",
        0xF9C: "CACR",
        0xFA0: "AHBSCR",
        0xFA8: "ABFSR",
    }
    RESET: ClassVar[dict[str, int]] = {
        "CCR": 0x200,  # STKALIGN
        "DHCSR": 1,  # C_DEBUGEN: semihosting is served, as under a debugger
        "FPCCR": 0xC000_0000,  # ASPEN, LSPEN
    }

    def __init__(self, chip: Chip, name: str, base: int) -> None:
        self._tick_started = 0  # cycle at which SysTick held its reload value
        self.before_trace_switch: Callable[[], None] = lambda: None  # DEMCR.TRCENA
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset; the identification registers depend on the core."""
        super().reset()
        core = self.chip.board.mcu.core
        self.values["CPUID"] = _CPUID[core]
        self.values["CLIDR"], self.values["CTR"] = _CACHE_TYPES[core]
        self.values |= {f"MVFR{i}": value for i, value in enumerate(_FPU_FEATURES[core])}
        self.values |= {f"ID{i}": value for i, value in enumerate(_FEATURES[core])}
        self.write_CCR(self.values["CCR"])

    def set_up(self, point: OperatingPoint) -> None:
        """See Peripheral.set_up."""
        value = self.values["CCR"] & ~(_CCR_IC | _CCR_DC)
        value |= _CCR_IC if "icache" in point.caches_on else 0
        self.write_CCR(value | (_CCR_DC if "dcache" in point.caches_on else 0))

    @property
    def fpu_enabled(self) -> bool:
        """Whether CPACR gives full access to coprocessors 10 and 11."""
        return self.values["CPACR"] & _CPACR_CP10_CP11_FULL == _CPACR_CP10_CP11_FULL

    def read_AIRCR(self) -> int:
        """VECTKEYSTAT in the upper half."""
        return 0xFA05_0000 | self.values["AIRCR"] & 0x700

    def write_AIRCR(self, value: int) -> None:
        """Without the key a write is ignored; SYSRESETREQ resets the chip."""
        if value & 0xFFFF_0000 == _VECTKEY:
            self.values["AIRCR"] = value & 0x700  # PRIGROUP
            if value & _SYSRESETREQ:
                self.chip.request_reset()

    def write_VTOR(self, value: int) -> None:
        """The table is aligned to 128 bytes."""
        self.values["VTOR"] = value & ~0x7F

    def write_CCR(self, value: int) -> None:
        """The cache enable bits stay 0 where there is no such cache."""
        if not self._has_caches:
            self.values["CCR"] = value & ~(_CCR_DC | _CCR_IC)
            return
        self.values["CCR"] = value
        caches = {"icache": bool(value & _CCR_IC), "dcache": bool(value & _CCR_DC)}
        self.chip.memory_system.set(caches=caches)

    def write_ICIALLU(self, value: int) -> None:
        """Empties the instruction cache."""
        self._invalidate("icache")

    def write_ICIMVAU(self, value: int) -> None:
        """Drops one line of the instruction cache, by address."""
        self._invalidate("icache", value)

    def write_DCISW(self, value: int) -> None:
        """By set and way, which programs only do to all of them: empties the data cache."""
        self._invalidate("dcache")

    def write_DCCISW(self, value: int) -> None:
        """Clean and invalidate; as DCISW. Cleaning takes no time."""
        self._invalidate("dcache")

    def write_DCIMVAC(self, value: int) -> None:
        """Drops one line of the data cache, by address."""
        self._invalidate("dcache", value)

    def write_DCCIMVAC(self, value: int) -> None:
        """Clean and invalidate; as DCIMVAC."""
        self._invalidate("dcache", value)

    def _invalidate(self, cache: str, address: int | None = None) -> None:
        if not self._has_caches:
            return
        if address is None:
            self.chip.memory_system.invalidate(cache)
        else:
            self.chip.memory_system.invalidate_line(cache, address)

    @property
    def _has_caches(self) -> bool:
        """Whether the core itself has caches, which are not those of a flash controller."""
        mcu = self.chip.board.mcu
        return mcu.core == "cortex-m7" and "icache" in mcu.features

    def read_CCSIDR(self) -> int:
        """Geometry of the cache that CSSELR selects."""
        if self.chip.board.mcu.core != "cortex-m7":
            return 0
        return _CCSIDR_INSTRUCTION if self.values["CSSELR"] & 1 else _CCSIDR_DATA

    def write_CPUID(self, value: int) -> None:
        """Read only."""

    def write_MPU_TYPE(self, value: int) -> None:
        """Read only; 0 says that there is no MPU."""

    def write_DHCSR(self, value: int) -> None:
        """Only a debugger can write it."""

    def write_CFSR(self, value: int) -> None:
        """Writing ones clears."""
        self.values["CFSR"] &= ~value

    def write_DEMCR(self, value: int) -> None:
        """TRCENA switches the trace unit on and off."""
        if (self.values["DEMCR"] ^ value) & TRCENA:
            self.before_trace_switch()
        self.values["DEMCR"] = value

    def write_DFSR(self, value: int) -> None:
        """Writing ones clears."""
        self.values["DFSR"] &= ~value

    def write_HFSR(self, value: int) -> None:
        """Writing ones clears."""
        self.values["HFSR"] &= ~value

    def _ticks(self) -> int:
        return self.chip.cycles() - self._tick_started

    def read_SYST_CSR(self) -> int:
        """COUNTFLAG (bit 16) is set when the counter passed 0 since this register was last read."""
        value, period = self.values["SYST_CSR"], self.values["SYST_RVR"] + 1
        ticks = self._ticks()
        if value & 1 and ticks >= period:
            value |= 1 << 16
            self._tick_started += ticks // period * period
        return value

    def write_SYST_CSR(self, value: int) -> None:
        """Enabling starts the count from the reload value."""
        if value & 1 and not self.values["SYST_CSR"] & 1:
            self._tick_started = self.chip.cycles()
        self.values["SYST_CSR"] = value & 7

    def write_SYST_RVR(self, value: int) -> None:
        """24 bits."""
        self.values["SYST_RVR"] = value & 0xFF_FFFF

    def read_SYST_CVR(self) -> int:
        """Counts down once a core cycle while enabled."""
        if not self.values["SYST_CSR"] & 1:
            return self.values["SYST_CVR"]
        period = self.values["SYST_RVR"] + 1
        return self.values["SYST_RVR"] - self._ticks() % period

    def write_SYST_CVR(self, value: int) -> None:
        """Any write clears the counter."""
        self._tick_started = self.chip.cycles()
        self.values["SYST_CVR"] = 0
