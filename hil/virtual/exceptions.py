"""Exceptions as an Armv7-M core takes them.

Faults and SVC enter a handler through the vector table, EXC_RETURN leaves it; Unicorn delivers
none of this by itself. No interrupts: nothing here is asynchronous. Source:
Armv7-M Architecture Reference Manual (DDI 0403), B1.5 (exception model), B3.2 (system control
block).
"""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import Uc
from unicorn import arm_const as arm

from hil.virtual.memory import MemoryMap
from hil.virtual.peripherals.core_scs import SystemControl

HARD_FAULT, MEM_MANAGE, BUS_FAULT, USAGE_FAULT, SV_CALL = 3, 4, 5, 6, 11
NMI = 2

# CFSR bits
IACCVIOL, IBUSERR, PRECISERR, STKERR, BFARVALID = 1 << 0, 1 << 8, 1 << 9, 1 << 12, 1 << 15
UNDEFINSTR, INVSTATE, INVPC, NOCP, UNALIGNED = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 24
# HFSR bits
VECTTBL, FORCED, DEBUGEVT = 1 << 1, 1 << 30, 1 << 31

_FRAME = (
    arm.UC_ARM_REG_R0,
    arm.UC_ARM_REG_R1,
    arm.UC_ARM_REG_R2,
    arm.UC_ARM_REG_R3,
    arm.UC_ARM_REG_R12,
    arm.UC_ARM_REG_LR,
)
_FP_REGISTERS = tuple(getattr(arm, f"UC_ARM_REG_S{i}") for i in range(16))
_XPSR_EXCEPTION = 0x1FF
_XPSR_IT = 3 << 25 | 0x3F << 10
_BASIC_WORDS, _EXTENDED_WORDS = 8, 26
_STACK_ALIGNED = 1 << 9  # of the stacked xPSR: 4 bytes were left out to align the frame to 8
_CONTROL_SPSEL = 1 << 1
CONTROL_FPCA = 1 << 2  # floating-point registers are in use


class Lockup(Exception):
    """The core cannot go on: a fault inside the HardFault handler, or no handler to go to."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to deliver: what the user reads, its exception, and the status bits that it sets."""

    text: str
    number: int  # MEM_MANAGE, BUS_FAULT or USAGE_FAULT; HARD_FAULT for debug events
    cfsr: int = 0
    hfsr: int = 0
    address: int | None = None  # for BFAR


class ExceptionUnit:
    """Takes and leaves exceptions on a Unicorn engine."""

    def __init__(self, engine: Uc, memory: MemoryMap, control: SystemControl) -> None:
        self._engine, self._memory, self._control = engine, memory, control
        self._active: list[int] = []

    def reset(self) -> None:
        """Thread mode, no exception active."""
        self._active.clear()

    @property
    def in_fault_handler(self) -> bool:
        """Whether a further fault cannot be taken."""
        return any(number in (HARD_FAULT, NMI) for number in self._active)

    def take_fault(self, fault: Fault, pc: int) -> int:
        """Delivers a fault of the instruction at `pc`; returns where the handler starts.

        Raises Lockup.
        """
        status = self._control.values
        status["CFSR"] |= fault.cfsr
        status["HFSR"] |= fault.hfsr
        if fault.address is not None:
            status["BFAR"] = fault.address
        if self.in_fault_handler:
            raise Lockup("a fault inside the HardFault handler")
        number = fault.number
        enable_bit = 1 << 16 + number - MEM_MANAGE  # SHCSR: MEMFAULTENA, BUSFAULTENA, USGFAULTENA
        blocked = number in self._active or self._engine.reg_read(arm.UC_ARM_REG_PRIMASK) & 1
        if number != HARD_FAULT and (not status["SHCSR"] & enable_bit or blocked):
            status["HFSR"] |= FORCED
            number = HARD_FAULT
        return self.take(number, pc)

    def take(self, number: int, return_address: int) -> int:
        """Enters exception `number`; returns where its handler starts. Raises Lockup."""
        self._push_frame(return_address)
        vector_at = self._control.values["VTOR"] + 4 * number
        vector = self._memory.read(vector_at, 4)
        handler = int.from_bytes(vector or b"", "little")
        if (
            not handler & 1
        ):  # no vector table there, or an empty entry: an Arm state that the core does not have
            self._control.values["HFSR"] |= VECTTBL
            raise Lockup(
                f"no handler for exception {number}: its vector at 0x{vector_at:08x} is "
                f"0x{handler:08x}"
            )
        self._active.append(number)
        # the handler does not inherit the rest of an IT block
        xpsr = self._engine.reg_read(arm.UC_ARM_REG_XPSR) & ~(_XPSR_IT | _XPSR_EXCEPTION)
        self._engine.reg_write(arm.UC_ARM_REG_XPSR, xpsr | number)
        return handler & ~1

    def leave(self, exc_return: int) -> int:
        """Returns from the active exception; gives the address to go on at. Raises Lockup."""
        if not self._active:
            raise Lockup(f"an exception return (0x{exc_return:08x}) without an active exception")
        self._active.pop()
        engine = self._engine
        # the stack pointer can only be chosen in thread mode; the frame brings the exception number
        xpsr = engine.reg_read(arm.UC_ARM_REG_XPSR)
        engine.reg_write(arm.UC_ARM_REG_XPSR, xpsr & ~_XPSR_EXCEPTION)
        control = engine.reg_read(arm.UC_ARM_REG_CONTROL) & ~(_CONTROL_SPSEL | CONTROL_FPCA)
        control |= (_CONTROL_SPSEL if exc_return & 4 else 0) | (
            0 if exc_return & 0x10 else CONTROL_FPCA
        )
        engine.reg_write(arm.UC_ARM_REG_CONTROL, control)
        sp = engine.reg_read(arm.UC_ARM_REG_SP)
        words = _BASIC_WORDS if exc_return & 0x10 else _EXTENDED_WORDS
        frame = self._memory.read(sp, 4 * words)
        if frame is None:
            raise Lockup(f"the exception frame at 0x{sp:08x} is outside the memory map")
        values = [int.from_bytes(frame[i : i + 4], "little") for i in range(0, len(frame), 4)]
        for register, value in zip(_FRAME, values, strict=False):
            engine.reg_write(register, value)
        if words == _EXTENDED_WORDS:
            for register, value in zip(_FP_REGISTERS, values[_BASIC_WORDS:], strict=False):
                engine.reg_write(register, value)
            engine.reg_write(arm.UC_ARM_REG_FPSCR, values[24])
        return_address, xpsr = values[6], values[7]
        engine.reg_write(arm.UC_ARM_REG_SP, sp + 4 * words + (4 if xpsr & _STACK_ALIGNED else 0))
        engine.reg_write(arm.UC_ARM_REG_XPSR, xpsr & ~_STACK_ALIGNED)
        return return_address & ~1

    def _push_frame(self, return_address: int) -> None:
        engine = self._engine
        control = engine.reg_read(arm.UC_ARM_REG_CONTROL)
        on_process_stack = bool(control & _CONTROL_SPSEL) and not self._active
        sp = engine.reg_read(arm.UC_ARM_REG_SP)
        extended = bool(control & CONTROL_FPCA)
        words = [engine.reg_read(register) for register in _FRAME]
        aligned = sp & 4
        xpsr = engine.reg_read(arm.UC_ARM_REG_XPSR) & ~_STACK_ALIGNED | (
            _STACK_ALIGNED if aligned else 0
        )
        words += [return_address, xpsr]
        if extended:
            words += [engine.reg_read(register) for register in _FP_REGISTERS]
            words += [engine.reg_read(arm.UC_ARM_REG_FPSCR), 0]
        frame_at = (sp - aligned - 4 * len(words)) & 0xFFFF_FFFF
        frame = b"".join(word.to_bytes(4, "little") for word in words)
        region = self._memory.find(frame_at, 4)
        last = self._memory.find(frame_at + len(frame) - 4, 4)
        if (
            region is not None
            and last is not None
            and region.memory.kind == last.memory.kind == "ram"
        ):
            engine.mem_write(frame_at, frame)
        else:  # the handler is entered all the same, without a frame
            self._control.values["CFSR"] |= STKERR
        engine.reg_write(arm.UC_ARM_REG_SP, frame_at)
        engine.reg_write(arm.UC_ARM_REG_CONTROL, control & ~(_CONTROL_SPSEL | CONTROL_FPCA))
        code = 0xFFFF_FFE1 if extended else 0xFFFF_FFF1
        if not self._active:
            code |= 0xC if on_process_stack else 0x8
        engine.reg_write(arm.UC_ARM_REG_LR, code)
