"""USART of the STM32F7 and L4+, LPUART of the L4+ (RM0385, 31.8; RM0432, USART, LPUART)."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.receiver import Receiver
from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.peripherals.stm32_rcc import ClockControl

_UE, _RE, _TE = 1 << 0, 1 << 2, 1 << 3
_RXNE, _TC, _TXE, _TEACK, _REACK = 1 << 5, 1 << 6, 1 << 7, 1 << 21, 1 << 22


class Usart(Peripheral):
    """Any pins and any baud rate reach the virtual COM port; a byte is on its way at once.

    Without its clock the peripheral reads 0 and ignores writes; without UE and TE bytes are lost.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x00: "CR1",
        0x04: "CR2",
        0x08: "CR3",
        0x0C: "BRR",
        0x10: "GTPR",
        0x14: "RTOR",
        0x18: "RQR",
        0x1C: "ISR",
        0x20: "ICR",
        0x24: "RDR",
        0x28: "TDR",
    }
    SIZE_BYTES = 0x400

    def __init__(
        self, chip: Chip, name: str, base: int, rcc: ClockControl, clock: tuple[str, int]
    ) -> None:
        self._rcc, self._clock = rcc, clock
        self._receiver = Receiver(chip)
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._receiver.reset()

    def read(self, offset: int, size_bytes: int) -> int:
        """See Peripheral.read."""
        return super().read(offset, size_bytes) if self._rcc.is_clocked(*self._clock) else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """See Peripheral.write."""
        if self._rcc.is_clocked(*self._clock):
            super().write(offset, size_bytes, value)

    def _enabled(self, bit: int) -> bool:
        return self.values["CR1"] & (_UE | bit) == _UE | bit

    def read_ISR(self) -> int:
        """The transmitter is always free; polled by programs that wait for a byte."""
        value = _TXE | _TC
        if self._enabled(_TE):
            value |= _TEACK
        if self._enabled(_RE):
            value |= _REACK
            if self._receiver.poll():
                value |= _RXNE
        return value

    def write_ISR(self, value: int) -> None:
        """Read only."""

    def write_ICR(self, value: int) -> None:
        """There are no errors to clear."""

    def read_RDR(self) -> int:
        """Takes the byte out of the receiver."""
        return self._receiver.take()

    def write_TDR(self, value: int) -> None:
        """Sends a byte."""
        if self._enabled(_TE):
            self._receiver.byte_sent()
            self.chip.console.write(bytes([value & 0xFF]))


class PrescaledUsart(Usart):
    """That of the L4+."""

    REGISTERS: ClassVar[dict[int, str]] = {**Usart.REGISTERS, 0x2C: "PRESC"}


class LowPowerUart(PrescaledUsart):
    """Without the registers for smartcards and time-outs."""

    REGISTERS: ClassVar[dict[int, str]] = {
        offset: name
        for offset, name in PrescaledUsart.REGISTERS.items()
        if name not in ("GTPR", "RTOR")
    }
