"""nRF52840 GPIO (Product Specification v1.7, 6.9): the two ports share one 4 KiB page."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import Peripheral, array


class Gpio(Peripheral):
    """Base + 0x500.

    Outputs are logged with their cycle; inputs read 0 unless the pin is an output.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x004: "OUT",
        0x008: "OUTSET",
        0x00C: "OUTCLR",
        0x010: "IN",
        0x014: "DIR",
        0x018: "DIRSET",
        0x01C: "DIRCLR",
        0x020: "LATCH",
        0x024: "DETECTMODE",
        **array(0x200, "PIN_CNF", 32),
    }
    RESET: ClassVar[dict[str, int]] = {
        f"PIN_CNF{i}": 2 for i in range(32)
    }  # input buffer disconnected
    SIZE_BYTES = 0x300

    def read_OUTSET(self) -> int:
        """Reads as OUT."""
        return self.values["OUT"]

    def read_OUTCLR(self) -> int:
        """Reads as OUT."""
        return self.values["OUT"]

    def read_DIRSET(self) -> int:
        """Reads as DIR."""
        return self.read_DIR()

    def read_DIRCLR(self) -> int:
        """Reads as DIR."""
        return self.read_DIR()

    def read_DIR(self) -> int:
        """Bit 0 of each PIN_CNF."""
        return sum((self.values[f"PIN_CNF{i}"] & 1) << i for i in range(32))

    def read_IN(self) -> int:
        """Outputs read back what they drive."""
        return self.values["OUT"] & self.read_DIR()

    def write_OUT(self, value: int) -> None:
        """Drives all outputs."""
        changed = self.values["OUT"] ^ value
        self.values["OUT"] = value
        for pin in range(32):
            if changed >> pin & 1 and self.values[f"PIN_CNF{pin}"] & 1:
                self.chip.log_pin(self.name, pin, value >> pin & 1)

    def write_OUTSET(self, value: int) -> None:
        """Ones drive high."""
        self.write_OUT(self.values["OUT"] | value)

    def write_OUTCLR(self, value: int) -> None:
        """Ones drive low."""
        self.write_OUT(self.values["OUT"] & ~value)

    def write_DIR(self, value: int) -> None:
        """Ones are outputs."""
        for pin in range(32):
            name = f"PIN_CNF{pin}"
            self.values[name] = self.values[name] & ~1 | value >> pin & 1

    def write_DIRSET(self, value: int) -> None:
        """Ones become outputs."""
        self.write_DIR(self.read_DIR() | value)

    def write_DIRCLR(self, value: int) -> None:
        """Ones become inputs."""
        self.write_DIR(self.read_DIR() & ~value)
