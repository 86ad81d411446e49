"""Data watchpoint and trace unit: the cycle counter.

Source: Armv7-M Architecture Reference Manual (DDI 0403) C1.8.
"""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.core_scs import TRCENA, SystemControl
from hil.virtual.peripherals.registers import Chip, Peripheral
from hil.virtual.timing import UnknownInstruction

_CYCCNTENA = 1 << 0
_KEY = 0xC5AC_CE55


class TraceUnit(Peripheral):
    """DWT, 0xE0001000: CYCCNT only; event counters store what is written, no comparators.

    CYCCNT counts while DEMCR.TRCENA is set, and can be switched on only then. On the Cortex-M7
    writes need the lock access register.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0x000: "CTRL",
        0x004: "CYCCNT",
        0x008: "CPICNT",
        0x00C: "EXCCNT",
        0x010: "SLEEPCNT",
        0x014: "LSUCNT",
        0x018: "FOLDCNT",
        0xFB0: "LAR",
        0xFB4: "LSR",
    }
    RESET: ClassVar[dict[str, int]] = {"CTRL": 0}  # NUMCOMP = 0

    def __init__(self, chip: Chip, name: str, base: int, control: SystemControl) -> None:
        self._control = control
        self._count, self._since = 0, 0  # count when it last started, and the cycle of that moment
        control.before_trace_switch = self._take_time
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._count = self._since = 0
        self._unlocked = self.chip.board.mcu.core != "cortex-m7"

    def _is_counting(self) -> bool:
        return bool(self.values["CTRL"] & _CYCCNTENA and self._control.values["DEMCR"] & TRCENA)

    def _take_time(self) -> None:
        try:
            now = self.chip.cycles()
        except UnknownInstruction:  # half a program ran; a debugger must still be able to mend it
            return
        if self._is_counting():
            self._count += now - self._since
        self._since = now

    def write_CTRL(self, value: int) -> None:
        """Starts and stops the counter; without TRCENA in DEMCR the unit is off and ignores it."""
        if not self._unlocked or not self._control.values["DEMCR"] & TRCENA:
            return
        self._take_time()
        self.values["CTRL"] = value & 0x0FFF_FFFF

    def read_CYCCNT(self) -> int:
        """Core cycles, 32 bits."""
        if not self._is_counting():
            return self._count & 0xFFFF_FFFF
        return (self._count + self.chip.cycles() - self._since) & 0xFFFF_FFFF

    def write_CYCCNT(self, value: int) -> None:
        """Sets the count."""
        if self._unlocked:
            self._count, self._since = value, self.chip.cycles()

    def write_LAR(self, value: int) -> None:
        """Unlocks the writing of the other registers."""
        if self.chip.board.mcu.core == "cortex-m7":
            self._unlocked = value == _KEY

    def read_LSR(self) -> int:
        """Whether there is a lock, and whether it is closed."""
        if self.chip.board.mcu.core != "cortex-m7":
            return 0
        return 1 if self._unlocked else 3
