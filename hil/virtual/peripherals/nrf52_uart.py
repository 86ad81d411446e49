"""nRF52840 UART (the legacy one, without DMA) and UARTE (with it), which share one base address.

Source: Product Specification v1.7, 6.33 and 6.34.
"""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.receiver import Receiver
from hil.virtual.peripherals.registers import Chip, Peripheral

_UART, _UARTE = 4, 8
_DISCONNECTED = 0xFFFF_FFFF
_CONNECT = 1 << 31


class Uart(Peripheral):
    """0x40002000. Any pins and any baud rate reach the virtual COM port; sending takes no time.

    Bytes go out while the peripheral is enabled, its TXD pin is connected and transmission was
    started; else they are lost, and the program waits for an event that does not come, as on the
    chip.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x000: "TASKS_STARTRX",
        0x004: "TASKS_STOPRX",
        0x008: "TASKS_STARTTX",
        0x00C: "TASKS_STOPTX",
        0x01C: "TASKS_SUSPEND",
        0x02C: "TASKS_FLUSHRX",
        0x100: "EVENTS_CTS",
        0x104: "EVENTS_NCTS",
        0x108: "EVENTS_RXDRDY",
        0x110: "EVENTS_ENDRX",
        0x11C: "EVENTS_TXDRDY",
        0x120: "EVENTS_ENDTX",
        0x124: "EVENTS_ERROR",
        0x144: "EVENTS_RXTO",
        0x14C: "EVENTS_RXSTARTED",
        0x150: "EVENTS_TXSTARTED",
        0x158: "EVENTS_TXSTOPPED",
        0x200: "SHORTS",
        0x300: "INTEN",
        0x304: "INTENSET",
        0x308: "INTENCLR",
        0x480: "ERRORSRC",
        0x500: "ENABLE",
        0x508: "PSELRTS",
        0x50C: "PSELTXD",
        0x510: "PSELCTS",
        0x514: "PSELRXD",
        0x518: "RXD",
        0x51C: "TXD",
        0x524: "BAUDRATE",
        0x534: "RXD_PTR",
        0x538: "RXD_MAXCNT",
        0x53C: "RXD_AMOUNT",
        0x544: "TXD_PTR",
        0x548: "TXD_MAXCNT",
        0x54C: "TXD_AMOUNT",
        0x56C: "CONFIG",
    }
    RESET: ClassVar[dict[str, int]] = {
        "PSELRTS": _DISCONNECTED,
        "PSELTXD": _DISCONNECTED,
        "PSELCTS": _DISCONNECTED,
        "PSELRXD": _DISCONNECTED,
        "BAUDRATE": 0x0400_0000,
    }

    def __init__(self, chip: Chip, name: str, base: int) -> None:
        self._receiver = Receiver(chip)
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._receiver.reset()
        self._transmitting = self._receiving = False
        self._received = 0  # bytes that DMA has put into memory

    def write_TASKS_STARTTX(self, value: int) -> None:
        """Starts transmission; the UARTE sends its whole buffer."""
        self._transmitting = bool(value & 1) and self.values["ENABLE"] in (_UART, _UARTE)
        if self._transmitting and self.values["ENABLE"] == _UARTE:
            data = self.chip.memory.read(self.values["TXD_PTR"], self.values["TXD_MAXCNT"]) or b""
            self._send(data)
            self.values |= {"TXD_AMOUNT": len(data), "EVENTS_TXSTARTED": 1, "EVENTS_ENDTX": 1}

    def write_TASKS_STOPTX(self, value: int) -> None:
        """Stops transmission."""
        if value & 1:
            self._transmitting = False
            self.values["EVENTS_TXSTOPPED"] = 1

    def write_TASKS_STARTRX(self, value: int) -> None:
        """Starts reception; the UARTE fills its buffer from the start."""
        self._receiving = bool(value & 1) and self.values["ENABLE"] in (_UART, _UARTE)
        if self._receiving and self.values["ENABLE"] == _UARTE:
            self._received = 0
            self.values["EVENTS_RXSTARTED"] = 1

    def write_TASKS_STOPRX(self, value: int) -> None:
        """Stops reception; the UARTE says how much it has got."""
        if value & 1 and self._receiving:
            self._receiving = False
            self.values["EVENTS_RXTO"] = 1
            if self.values["ENABLE"] == _UARTE:
                self.values |= {"RXD_AMOUNT": self._received, "EVENTS_ENDRX": 1}

    def write_TXD(self, value: int) -> None:
        """Sends a byte; TXDRDY says that it is gone."""
        if self.values["ENABLE"] == _UART:
            self._send(bytes([value & 0xFF]))

    def read_EVENTS_RXDRDY(self) -> int:
        """Polled by programs that wait for a byte."""
        if not self.values["EVENTS_RXDRDY"]:
            self._poll()
        return self.values["EVENTS_RXDRDY"]

    def read_EVENTS_ENDRX(self) -> int:
        """Polled by programs that wait for a full UARTE buffer."""
        if not self.values["EVENTS_ENDRX"]:
            self._poll()
        return self.values["EVENTS_ENDRX"]

    def read_RXD(self) -> int:
        """Takes the byte out of the receiver."""
        return self._receiver.take()

    def _poll(self) -> None:
        if not self._receiving or self.values["PSELRXD"] & _CONNECT or not self._receiver.poll():
            return
        self.values["EVENTS_RXDRDY"] = 1
        if self.values["ENABLE"] == _UARTE:
            self.chip.store(self.values["RXD_PTR"] + self._received, bytes([self._receiver.take()]))
            self._received += 1
            if self._received >= self.values["RXD_MAXCNT"]:
                self._receiving = False
                self.values |= {"RXD_AMOUNT": self._received, "EVENTS_ENDRX": 1}

    def _send(self, data: bytes) -> None:
        if self._transmitting and not self.values["PSELTXD"] & _CONNECT:
            self._receiver.byte_sent()
            self.chip.console.write(data)
            self.values["EVENTS_TXDRDY"] = 1
