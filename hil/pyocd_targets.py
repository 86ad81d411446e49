"""Chips that pyOCD knows only with a CMSIS pack from the network: STM32F746NG and STM32L4R5ZI.

Installed as a plugin of pyOCD's, so that its own command line finds them too:
`pyocd load --target stm32f746ng firmware.elf`. Numbers are from the reference manuals RM0385
(F746) and RM0432 (L4R5), chapters flash memory and debug support, and from the board files.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pyocd.core.exceptions import TargetSupportError
from pyocd.core.memory_map import FlashRegion, MemoryMap, RamRegion
from pyocd.core.plugin import Plugin
from pyocd.coresight.coresight_target import CoreSightTarget
from pyocd.coresight.cortex_m import CortexM
from pyocd.coresight.minimal_mem_ap import MinimalMemAP
from pyocd.target import TARGET

# Bytes handed to a flash algorithm at once: some 10 transactions over USB each. Not less than 4 KiB
# either because pyOCD's checksum code on the chip has 16 bits for an address in these units.
_PAGE_BYTES = 0x1000
_RAM = 0x2000_0000


def _algorithm(words: list[int], entries: tuple[int, int, int, int], unit: int) -> dict[str, Any]:
    """An algorithm as pyOCD takes it.

    Args:
        words: its code; a breakpoint at the start, no data.
        entries: offsets of init, uninit, erase_sector and program_page.
        unit: bytes that the flash programs at once.

    In RAM: code and stack, two pages (one fills while the other is programmed), and pyOCD's code
    for checksums, which finds unchanged pages.
    """
    names = ("pc_init", "pc_unInit", "pc_erase_sector", "pc_program_page")
    return {
        "load_address": _RAM,
        "instructions": words,
        **{name: _RAM + offset + 1 for name, offset in zip(names, entries, strict=True)},
        "static_base": _RAM,
        "begin_stack": _RAM + 0x800,
        "page_buffers": [_RAM + 0x1000, _RAM + 0x1000 + _PAGE_BYTES],
        "min_program_length": unit,
        "analyzer_supported": True,
        "analyzer_address": _RAM + 0x1000 + 2 * _PAGE_BYTES,
    }


# firmware/flash_algorithms/stm32f74x.S
_F74X = _algorithm(
    [
        *(0xBF00BE00, 0x69184B24, 0xD5032800, 0x60584823, 0x60584823, 0x47702000),
        *(0xF04F4B1F, 0x61184000, 0x47702000, 0x21F24B1C, 0xF3C060D9, 0x280830C4),
        *(0x08C0BF24, 0x00C03004, 0x0002F040, 0x7000F440, 0xF4406118, 0x61183080),
        *(0xB510E01A, 0x24F24B12, 0xF24060DC, 0x611C2401, 0x4B04F852, 0x0C01F114),
        *(0x6004D009, 0x8F4FF3BF, 0xF41468DC, 0xD1FB3F80, 0x0FF2F014, 0x3004D102),
        *(0xD8ED3904, 0x4010E8BD, 0x8F4FF3BF, 0xF41068D8, 0xD1FB3F80, 0x61192100),
        *(0x00F2F000, 0x00004770, 0x40023C00, 0x45670123, 0xCDEF89AB),
    ],
    (0x04, 0x18, 0x24, 0x4A),
    unit=4,
)

# firmware/flash_algorithms/stm32l4plus.S
_L4PLUS = _algorithm(
    [
        *(0xBF00BE00, 0x69584B28, 0xD5032800, 0x60984827, 0x60984827, 0xF4206818),
        *(0x601860C0, 0x51C0F440, 0x60186019, 0x47702000, 0xF04F4B1F, 0x61584000),
        *(0x47702000, 0xF24C4B1C, 0x611931FA, 0x3008F3C0, 0xF04000C0, 0x61580002),
        *(0x3080F440, 0xE01E6158, 0x4B15B530, 0x34FAF24C, 0x2401611C, 0xE8F2615C),
        *(0xEA044502, 0xF11C0C05, 0xD00B0F01, 0x60456004, 0x8F4FF3BF, 0xF414691C),
        *(0xD1FB3F80, 0x35FAF24C, 0xD102422C, 0x39083008, 0xE8BDD8E9, 0xF3BF4030),
        *(0x69188F4F, 0x3F80F410, 0x2100D1FB, 0xF24C6159, 0x400831FA, 0x00004770),
        *(0x40022000, 0x45670123, 0xCDEF89AB),
    ],
    (0x04, 0x28, 0x34, 0x50),
    unit=8,
)


class Stm32(CoreSightTarget):  # type: ignore[misc]  # pyOCD is not typed
    """An STM32 that is caught at its reset vector, whatever its program does to clocks and sleep.

    The flash algorithms and the checksums need the clock as it is after reset: at the clock of a
    running program, without that program's wait states, the flash is read wrongly.
    """

    VENDOR = "STMicroelectronics"
    MAP: ClassVar[MemoryMap]
    OPTION_REGISTER: ClassVar[int]  # its address
    PROTECTION_SHIFT: ClassVar[int]  # of the byte in it that is the level of read protection

    _DBGMCU_CR = 0xE004_2004
    _DEBUG_IN_LOW_POWER = 0x7  # in sleep, stop and standby
    _UNPROTECTED = 0xAA

    def __init__(self, session: Any) -> None:
        super().__init__(session, self.MAP)

    def create_init_sequence(self) -> Any:
        """The steps of connecting, but for mode `attach` with the chip held in reset at first."""
        steps = super().create_init_sequence()
        if self.session.options.get("connect_mode") != "attach":
            steps.insert_before("dp_init", ("hold_in_reset", self._hold_in_reset))
            steps.insert_after("dp_init", ("halt_at_reset_vector", self._halt_at_reset_vector))
        return steps

    def _hold_in_reset(self) -> None:
        self.dp.assert_reset(True)

    def _halt_at_reset_vector(self) -> None:
        # The access port has not been discovered yet, and under reset cannot be.
        port = MinimalMemAP(self.dp)
        port.init()
        catches = port.read32(CortexM.DEMCR)
        port.write32(CortexM.DHCSR, CortexM.DBGKEY | CortexM.C_DEBUGEN)
        port.write32(CortexM.DEMCR, catches | CortexM.DEMCR_VC_CORERESET)
        port.write32(self._DBGMCU_CR, self._DEBUG_IN_LOW_POWER)
        self.dp.assert_reset(False)
        time.sleep(0.01)  # the pin rises slowly, and the chip reads its option bytes
        port.write32(CortexM.DEMCR, catches)

    def post_connect_hook(self) -> None:
        """See SoCTarget.post_connect_hook."""
        self.write32(self._DBGMCU_CR, self._DEBUG_IN_LOW_POWER)

    def is_locked(self) -> bool:
        """Whether read protection keeps a debugger from the flash (level 1)."""
        options: int = self.read32(self.OPTION_REGISTER)
        return options >> self.PROTECTION_SHIFT & 0xFF != self._UNPROTECTED


class Stm32f746ng(Stm32):
    """STM32F746NG: 1 MiB of flash in sectors of 32, 128 and 256 KiB."""

    OPTION_REGISTER, PROTECTION_SHIFT = 0x4002_3C14, 8  # FLASH_OPTCR.RDP
    MAP = MemoryMap(
        *(
            FlashRegion(
                name=f"flash_{size // 1024}k",
                start=start,
                length=count * size,
                sector_size=size,
                page_size=_PAGE_BYTES,
                is_boot_memory=start == 0x0800_0000,
                algo=_F74X,
            )
            for start, count, size in (
                (0x0800_0000, 4, 0x8000),
                (0x0802_0000, 1, 0x2_0000),
                (0x0804_0000, 3, 0x4_0000),
            )
        ),
        RamRegion(name="itcm", start=0x0000_0000, length=0x4000),
        RamRegion(name="ram", start=0x2000_0000, length=0x5_0000),
    )


class Stm32l4r5zi(Stm32):
    """STM32L4R5ZI as delivered: 2 MiB of flash in two banks, pages of 4 KiB."""

    OPTION_REGISTER, PROTECTION_SHIFT = 0x4002_2020, 0  # FLASH_OPTR.RDP
    MAP = MemoryMap(
        FlashRegion(
            name="flash",
            start=0x0800_0000,
            length=0x20_0000,
            sector_size=0x1000,
            page_size=_PAGE_BYTES,
            is_boot_memory=True,
            algo=_L4PLUS,
        ),
        RamRegion(name="ram", start=0x2000_0000, length=0xA_0000),
    )

    _TWO_BANKS = 1 << 22  # FLASH_OPTR.DBANK

    def post_connect_hook(self) -> None:
        """See SoCTarget.post_connect_hook; refuses a chip whose pages are others."""
        super().post_connect_hook()
        if not self.read32(self.OPTION_REGISTER) & self._TWO_BANKS:
            raise TargetSupportError(
                "option bit DBANK is 0: one bank with pages of 8 KiB; set it to 1, as delivered"
            )


def register() -> None:
    """Adds the targets to those of pyOCD."""
    for target in (Stm32f746ng, Stm32l4r5zi):
        TARGET.setdefault(target.__name__.lower(), target)


class Targets(Plugin):  # type: ignore[misc]
    """Registers the targets whenever pyOCD looks for its probes.

    pyOCD has no plugins for targets; one for probes, which every command loads, serves as well.
    """

    def should_load(self) -> bool:
        """False: there is no probe to load."""
        register()
        return False

    @property
    def name(self) -> str:
        """See Plugin.name."""
        return "hil-targets"
