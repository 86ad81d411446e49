"""The debug registers of a virtual core: halt, step, core registers, breakpoints, vector catch.

What a debugger finds in the system control space (DHCSR, DCRSR, DCRDR, DEMCR) and in the flash
patch and breakpoint unit. Halted is a core whose run has ended and that starts again where it was.
Source: Armv7-M Architecture Reference Manual (DDI 0403), C1.6 and C1.11.
"""

from __future__ import annotations

from unicorn import arm_const as arm

from hil.virtual.core_thread import CoreThread
from hil.virtual.cpu import HALTED, VCATCH, Stop
from hil.virtual.peripherals.core_scs import TRCENA

_DEMCR = 0xE000_EDFC
_DBGKEY = 0xA05F
_C_DEBUGEN, _C_HALT, _C_STEP, _C_MASKINTS = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_S_REGRDY, _S_HALT, _S_SLEEP, _S_LOCKUP = 1 << 16, 1 << 17, 1 << 18, 1 << 19
_S_RETIRE_ST, _S_RESET_ST = 1 << 24, 1 << 25
_VC_CORERESET = 1 << 0
_REGWNR = 1 << 16
_THUMB = 1 << 24

# DCRSR.REGSEL -> Unicorn's number; 15, 16 and 20 are special
_REGISTERS = {
    **{i: getattr(arm, f"UC_ARM_REG_R{i}") for i in range(13)},
    13: arm.UC_ARM_REG_SP,
    14: arm.UC_ARM_REG_LR,
    17: arm.UC_ARM_REG_MSP,
    18: arm.UC_ARM_REG_PSP,
    33: arm.UC_ARM_REG_FPSCR,
    **{64 + i: getattr(arm, f"UC_ARM_REG_S{i}") for i in range(32)},
}
_PC, _XPSR, _SPECIAL = 15, 16, 20
_SPECIAL_REGISTERS = (  # in DCRSR 20, from the lowest byte
    arm.UC_ARM_REG_PRIMASK,
    arm.UC_ARM_REG_BASEPRI,
    arm.UC_ARM_REG_FAULTMASK,
    arm.UC_ARM_REG_CONTROL,
)
_POLL_S = (
    0.001  # a debugger that asks whether the core has halted gets its answer as soon as it has
)


class CoreDebug:
    """One core as its debugger sees it. The caller holds the core thread's lock."""

    def __init__(self, core: CoreThread) -> None:
        self._core, self._cpu = core, core.cpu
        self._is_m7 = core.cpu.board.mcu.core == "cortex-m7"
        self._in_reset = False  # the reset line is held
        self._clear()

    def _clear(self) -> None:
        self._control = 0  # C_MASKINTS
        self._data = 0  # DCRDR
        self._is_halted = False
        self._has_run = False  # S_RETIRE_ST
        self._resets_seen = self._cpu.reset_count
        self._seen: Stop | None = self._core.stop  # what it ended with before is nobody's halt
        self._is_patching = False  # FP_CTRL.ENABLE
        self._comparators = [0] * (8 if self._is_m7 else 6)
        self._literals = [0] * (0 if self._is_m7 else 2)

    def power_cycle(self) -> None:
        """Nothing of a debugger's settings is left."""
        self._in_reset = False
        self._cpu.enable_debug(False)
        self._cpu.set_breakpoints(())
        self._clear()

    # -- running and halting

    @property
    def is_halted(self) -> bool:
        """Whether the core is in debug state."""
        stop = self._core.stop
        if stop is not None and stop is not self._seen and not self._core.is_running:
            self._seen = stop
            self._has_run = True
            if stop.reason == "halted" and stop.halt:
                self._enter(stop.halt)
        return self._is_halted

    def _enter(self, why: int) -> None:
        self._is_halted = True
        self._cpu.debug_registers["DFSR"] |= why

    def halt(self) -> None:
        """Debug state, whatever the core does: running, asleep, locked up, never started."""
        if self.is_halted:
            return
        if not self._core.was_started:
            self._cpu.reset()
        self._core.halt()
        if not self.is_halted:
            self._enter(HALTED)

    def resume(self, *, step: bool = False) -> None:
        """Leaves debug state."""
        if not self.is_halted or self._in_reset:
            return
        self._is_halted = False
        self._core.start(step=step)

    def reset(self) -> None:
        """As the reset line, or SYSRESETREQ: the core starts anew, or halts for the debugger."""
        self._core.give_up()
        self._seen = self._core.stop
        self._is_halted = False
        self._cpu.reset()
        if not self._in_reset:
            self._start_after_reset()

    def hold_reset(self, asserted: bool) -> None:
        """The reset line is held low, or let go."""
        if asserted and not self._in_reset:
            self._in_reset = True
            self.reset()
        elif not asserted and self._in_reset:
            self._in_reset = False
            self._start_after_reset()

    @property
    def in_reset(self) -> bool:
        """Whether the reset line is held."""
        return self._in_reset

    def _start_after_reset(self) -> None:
        if self._cpu.debug_enabled and self._cpu.debug_registers["DEMCR"] & _VC_CORERESET:
            self._enter(VCATCH)
        else:
            self._core.start()

    # -- registers of the system control space

    def read_dhcsr(self) -> int:
        """Control and status. Looks a moment longer while the core runs under a debugger."""
        if self._cpu.debug_enabled and self._core.is_running:
            self._core.wait(_POLL_S)
            if self._cpu.has_passed_breakpoint:
                self._cpu.interrupt()
        value = self._control | _S_REGRDY
        value |= _C_DEBUGEN if self._cpu.debug_enabled else 0
        if self.is_halted:
            value |= _S_HALT | _C_HALT
        elif self._core.is_running:
            self._has_run = True
        elif self._core.failure is not None or not self._core.was_started:
            value |= _S_LOCKUP
        elif self._core.stop is not None:
            value |= _S_LOCKUP if self._core.stop.reason == "lockup" else _S_SLEEP
        if self._has_run:
            value |= _S_RETIRE_ST
        if self._in_reset or self._cpu.reset_count != self._resets_seen:
            value |= _S_RESET_ST
        self._has_run = False
        self._resets_seen = self._cpu.reset_count
        return value

    def write_dhcsr(self, value: int) -> None:
        """Without the key it is ignored."""
        if value >> 16 != _DBGKEY:
            return
        was_enabled, is_enabled = self._cpu.debug_enabled, bool(value & _C_DEBUGEN)
        self._control = value & _C_MASKINTS if is_enabled else 0
        if is_enabled != was_enabled:
            halted = self.is_halted
            self._cpu.enable_debug(is_enabled)
            self._set_breakpoints()
            if halted and not is_enabled:
                self.resume()
        if not is_enabled or self._in_reset:
            return
        if value & _C_HALT:
            self.halt()
        elif self.is_halted:
            self.resume(step=bool(value & _C_STEP))

    def write_dcrsr(self, value: int) -> None:
        """Moves a register of the halted core to DCRDR, or DCRDR to a register."""
        if not self.is_halted:
            return
        number = value & 0x7F
        if value & _REGWNR:
            self._write_register(number, self._data)
        else:
            self._data = self._read_register(number)

    @property
    def dcrdr(self) -> int:
        """Debug core register data."""
        return self._data

    @dcrdr.setter
    def dcrdr(self, value: int) -> None:
        self._data = value

    @property
    def demcr(self) -> int:
        """Debug exception and monitor control: vector catches, TRCENA."""
        return self._cpu.debug_registers["DEMCR"]

    @demcr.setter
    def demcr(self, value: int) -> None:
        if not (self._cpu.debug_registers["DEMCR"] ^ value) & TRCENA:
            self._cpu.debug_registers["DEMCR"] = value
        else:  # the cycle counter starts or stops
            with self._core.at_rest():
                self._cpu.write_peripheral(_DEMCR, 4, value)

    def _read_register(self, number: int) -> int:
        cpu = self._cpu
        if number == _PC:
            return cpu.pc
        if number == _XPSR:
            return cpu.read_register(arm.UC_ARM_REG_XPSR) | _THUMB
        if number == _SPECIAL:
            return sum(
                (cpu.read_register(register) & 0xFF) << 8 * i
                for i, register in enumerate(_SPECIAL_REGISTERS)
            )
        return cpu.read_register(_REGISTERS[number]) if number in _REGISTERS else 0

    def _write_register(self, number: int, value: int) -> None:
        cpu = self._cpu
        if number == _PC:
            cpu.go_to(value)
        elif number == _XPSR:
            cpu.write_register(arm.UC_ARM_REG_XPSR, value | _THUMB)
        elif number == _SPECIAL:
            for i, register in enumerate(_SPECIAL_REGISTERS):
                cpu.write_register(register, value >> 8 * i & 0xFF)
        elif number in _REGISTERS:
            cpu.write_register(_REGISTERS[number], value)

    # -- flash patch and breakpoint unit

    def read_fpb(self, offset: int) -> int:
        """A register; 0 where there is none."""
        comparators = self._comparators + self._literals
        if offset == 0:
            revision = 1 << 28 if self._is_m7 else 0
            sizes = len(self._literals) << 8 | len(self._comparators) << 4
            return revision | sizes | self._is_patching
        index = offset - 8 >> 2
        return comparators[index] if 0 <= index < len(comparators) else 0

    def write_fpb(self, offset: int, value: int) -> None:
        """FP_CTRL needs its key; literal comparators keep what is written and do nothing."""
        index = offset - 8 >> 2
        if offset == 0:
            if value & 2:
                self._is_patching = bool(value & 1)
        elif 0 <= index < len(self._comparators):
            self._comparators[index] = value
        elif 0 <= index - len(self._comparators) < len(self._literals):
            self._literals[index - len(self._comparators)] = value
        self._set_breakpoints()

    def _set_breakpoints(self) -> None:
        addresses = set()
        if self._is_patching and self._cpu.debug_enabled:
            for value in self._comparators:
                if value & 1 and self._is_m7:
                    addresses.add(value & ~1)
                elif value & 1:
                    word, halves = value & 0x1FFF_FFFC, value >> 30
                    addresses |= {word + 2 * half for half in (0, 1) if halves >> half & 1}
        if addresses != self._cpu.breakpoints:
            with self._core.at_rest():
                self._cpu.set_breakpoints(addresses)
