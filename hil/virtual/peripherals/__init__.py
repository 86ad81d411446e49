"""Peripherals of the chip families: which there are, and where.

One file for each kind of peripheral, named after its family, or after those that share it;
`registers` says what a peripheral is. To model another one: write its file, add it to its family's
function below, and to the list in hil/virtual/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hil.board import Board
from hil.errors import UsageError
from hil.virtual.peripherals import (
    nrf52_clock_power,
    nrf52_gpio,
    nrf52_information,
    nrf52_nvmc,
    nrf52_timer,
    nrf52_uart,
    nrf52_wdt,
    stm32_dbgmcu,
    stm32_gpio,
    stm32_signature,
    stm32_timer,
    stm32_usart,
    stm32f7_flash,
    stm32f7_pwr,
    stm32f7_rcc,
    stm32l4_flash,
    stm32l4_pwr,
    stm32l4_rcc,
)
from hil.virtual.peripherals.core_dwt import TraceUnit
from hil.virtual.peripherals.core_scs import SystemControl
from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.peripherals.storage import Storage


class Family(NamedTuple):
    """A chip family: where the core looks for its vector table after reset, and its peripherals."""

    reset_vectors: int
    peripherals: Callable[[Chip], list[Peripheral]]


def _nrf52(chip: Chip) -> list[Peripheral]:
    settings = nrf52_information.UserInformation(chip, "UICR", 0x1000_1000)
    return [
        nrf52_clock_power.ClockPower(chip, "CLOCK/POWER", 0x4000_0000),
        nrf52_uart.Uart(chip, "UART0", 0x4000_2000),
        nrf52_timer.Timer(chip, "TIMER0", 0x4000_8000),
        nrf52_timer.Timer(chip, "TIMER1", 0x4000_9000),
        nrf52_timer.Timer(chip, "TIMER2", 0x4000_A000),
        nrf52_wdt.Watchdog(chip, "WDT", 0x4001_0000),
        nrf52_nvmc.Nvmc(chip, "NVMC", 0x4001_E000, settings),
        nrf52_uart.Uart(chip, "UARTE1", 0x4002_8000),
        nrf52_gpio.Gpio(chip, "P0", 0x5000_0500),
        nrf52_gpio.Gpio(chip, "P1", 0x5000_0800),
        nrf52_information.FactoryInformation(chip, "FICR", 0x1000_0000),
        settings,
    ]


_STM32_TIMERS = (  # name, base, bit of APB1's enable register, bits of the counter
    ("TIM2", 0x4000_0000, 0, 32),
    ("TIM3", 0x4000_0400, 1, 16),
    ("TIM4", 0x4000_0800, 2, 16),
    ("TIM5", 0x4000_0C00, 3, 32),
)


def _stm32f7(chip: Chip) -> list[Peripheral]:
    rcc = stm32f7_rcc.Rcc(chip, "RCC", 0x4002_3800)
    usarts = (  # name, base, enable register, bit
        ("USART2", 0x4000_4400, "APB1ENR", 17),
        ("USART3", 0x4000_4800, "APB1ENR", 18),
        ("USART1", 0x4001_1000, "APB2ENR", 4),
        ("USART6", 0x4001_1400, "APB2ENR", 5),
    )
    return [
        rcc,
        stm32f7_pwr.Pwr(chip, "PWR", 0x4000_7000, rcc),
        stm32f7_flash.FlashInterface(chip, "FLASH", 0x4002_3C00),
        Storage(chip, "SYSCFG", 0x4001_3800),
        stm32_dbgmcu.DebugSupport(chip, "DBGMCU", 0xE004_2000, 0x1001_6449),
        stm32_signature.Signature(chip, "signature", 0x1FF0_F420, 0x1FF0_F442),
        *(
            stm32_usart.Usart(chip, name, base, rcc, (register, bit))
            for name, base, register, bit in usarts
        ),
        *(
            stm32_timer.Timer(chip, name, base, rcc, ("APB1ENR", bit), width)
            for name, base, bit, width in _STM32_TIMERS
        ),
        *(
            stm32_gpio.Gpio(chip, f"GPIO{letter}", 0x4002_0000 + 0x400 * i, rcc, ("AHB1ENR", i))
            for i, letter in enumerate("ABCDEFGHIJK")
        ),
    ]


def _stm32l4(chip: Chip) -> list[Peripheral]:
    rcc = stm32l4_rcc.Rcc(chip, "RCC", 0x4002_1000)
    usarts = (  # name, base, enable register, bit
        ("USART2", 0x4000_4400, "APB1ENR1", 17),
        ("USART3", 0x4000_4800, "APB1ENR1", 18),
        ("USART1", 0x4001_3800, "APB2ENR", 14),
    )
    return [
        rcc,
        stm32l4_pwr.Pwr(chip, "PWR", 0x4000_7000, rcc),
        stm32l4_flash.FlashInterface(chip, "FLASH", 0x4002_2000),
        Storage(chip, "SYSCFG", 0x4001_0000),
        stm32_dbgmcu.DebugSupport(chip, "DBGMCU", 0xE004_2000, 0x100F_6470),
        stm32_signature.Signature(chip, "signature", 0x1FFF_7590, 0x1FFF_75E0),
        stm32_usart.LowPowerUart(chip, "LPUART1", 0x4000_8000, rcc, ("APB1ENR2", 0)),
        *(
            stm32_usart.PrescaledUsart(chip, name, base, rcc, (register, bit))
            for name, base, register, bit in usarts
        ),
        *(
            stm32_timer.Timer(chip, name, base, rcc, ("APB1ENR1", bit), width)
            for name, base, bit, width in _STM32_TIMERS
        ),
        *(
            stm32_gpio.LowPowerGpio(
                chip, f"GPIO{letter}", 0x4800_0000 + 0x400 * i, rcc, ("AHB2ENR", i)
            )
            for i, letter in enumerate("ABCDEFGHI")
        ),
    ]


FAMILIES = {
    "nrf52": Family(0x0000_0000, _nrf52),
    "stm32f7": Family(0x0020_0000, _stm32f7),  # BOOT_ADD0 as delivered: flash on the ITCM interface
    "stm32l4": Family(0x0000_0000, _stm32l4),  # where the flash is shown too
}


def build_peripherals(chip: Chip) -> list[Peripheral]:
    """Everything on a board's bus; raises UsageError for a family that is not modelled."""
    control = SystemControl(chip, "SCS", 0xE000_E000)
    core = [control, TraceUnit(chip, "DWT", 0xE000_1000, control)]
    return core + _family(chip.board).peripherals(chip)


def reset_vector_address(board: Board) -> int:
    """Where the core finds its vector table after reset."""
    return _family(board).reset_vectors


def _family(board: Board) -> Family:
    family = FAMILIES.get(board.build.family)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UsageError(
            f"no virtual board for {board.id}: chip family {board.build.family!r} is not modelled; "
            f"modelled are {known}; see hil/virtual/README.md"
        )
    return family
