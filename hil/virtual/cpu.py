"""The core of a virtual board: Unicorn with memory, peripherals, faults, semihosting and time.

`Cpu` is one core in this process; `run_program` runs a semihosting program to its end on a fresh or
recycled one.

How time stays exact. The native hook counts a block when it starts. When the core leaves a block in
its middle (a fault, a stop), the count is corrected to the part that ran. A peripheral whose answer
depends on the time stops the core at the reading instruction first, so that a new block starts
there and everything before it is counted. `stop` from another thread gives up a run for good;
`request_halt` is a debugger's way to interrupt one that goes on later. Control traffic uses neither
while a program runs: that is why it cannot change cycles.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unicorn import Uc, UcError, unicorn_const
from unicorn import arm_const as arm

from hil.board import Board
from hil.errors import HilError
from hil.virtual import exceptions
from hil.virtual.blocks import BlockCounter, BlockStalls
from hil.virtual.bus import Bus, HaltRequested, NeedExactTime
from hil.virtual.clock import CycleClock, EdgeRun
from hil.virtual.engine_calls import (
    Kept,
    code_forgetter,
    hook_protected_writes,
    register_reader,
)
from hil.virtual.exceptions import ExceptionUnit, Fault, Lockup
from hil.virtual.image import Image, holds, write_image
from hil.virtual.memory import MemoryMap
from hil.virtual.memory_system import MemorySystem
from hil.virtual.peripherals import build_peripherals, reset_vector_address
from hil.virtual.peripherals.core_scs import SystemControl
from hil.virtual.peripherals.registers import BusFault, Chip, Console, FlashController
from hil.virtual.semihosting import BREAKPOINT, Semihosting
from hil.virtual.timing import timing_model
from hil.virtual.timing.armv7m import decode

_MODELS = {
    "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
}
_NEVER = 0xFFFF_FFFE  # no code runs there
# Exception numbers of Unicorn's interrupt hook
_SVC, _PREFETCH_ABORT, _BKPT, _EXCEPTION_EXIT, _INVSTATE = 2, 3, 7, 8, 18
_ALL_REGISTERS = (  # what reset clears
    *(getattr(arm, f"UC_ARM_REG_R{i}") for i in range(13)),
    *(getattr(arm, f"UC_ARM_REG_S{i}") for i in range(32)),
    arm.UC_ARM_REG_FPSCR,
    arm.UC_ARM_REG_CONTROL,
    arm.UC_ARM_REG_PRIMASK,
    arm.UC_ARM_REG_FAULTMASK,
    arm.UC_ARM_REG_BASEPRI,
    arm.UC_ARM_REG_IPSR,
    arm.UC_ARM_REG_PSP,
)
_YIELD_HINTS = (b"\x10\xbf", b"\x20\xbf")  # YIELD, WFE: Unicorn stops behind them with an error
_WAITS = (b"\x30\xbf", b"\xaf\xf3\x03\x80")  # WFI, WFI.W
MAX_PIN_CHANGES = 65_536
# Cycles to stack and to unstack eight registers without wait states: Cortex-M4 TRM, 3.9
_ENTRY_CYCLES, _RETURN_CYCLES = 12, 10


class PinChange(NamedTuple):
    """An output pin changed its level."""

    cycle: int
    port: str
    pin: int
    level: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the core stopped.

    `halt` says which event in the core halted it: bits of the debug fault status register; 0 when
    it was `request_halt`.
    """

    reason: Literal["exit", "lockup", "sleep", "hung", "stopped", "halted"]
    exit_code: int | None = None
    detail: str = ""
    halt: int = 0


# Vector catch bits of the debug exception and monitor control register: DDI 0403, C1.6.5
_VC_CORERESET, _VC_HARDERR = 1 << 0, 1 << 10
_VC_BY_EXCEPTION = {exceptions.MEM_MANAGE: 1 << 4, exceptions.BUS_FAULT: 1 << 8}
_VC_NOCPERR, _VC_CHKERR, _VC_STATERR = 1 << 5, 1 << 6, 1 << 7
_DEMCR_KEPT = 1 << 24 | 0x7F1  # TRCENA and the vector catches outlive a reset of the core
# Debug fault status register: Armv7-M Architecture Reference Manual (DDI 0403), C1.6.1
HALTED, BKPT, VCATCH, EXTERNAL = 1 << 0, 1 << 1, 1 << 3, 1 << 4


def _caught_by(fault: Fault) -> int:
    """Bit of DEMCR that catches a fault which its own handler takes."""
    if fault.number != exceptions.USAGE_FAULT:
        return _VC_BY_EXCEPTION.get(fault.number, 0)
    if fault.cfsr & exceptions.NOCP:
        return _VC_NOCPERR
    return _VC_CHKERR if fault.cfsr & exceptions.UNALIGNED else _VC_STATERR


class FpuOff(BusFault):
    """A floating-point instruction ran before the program enabled the FPU."""


class Cpu:
    """A board's core with everything around it, in this process."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board = board
        self.memory = MemoryMap(board)
        self.fault_text: str | None = None  # the last fault, in words
        self.pin_changes: deque[PinChange] = deque(maxlen=MAX_PIN_CHANGES)
        self.on_pin: Callable[[PinChange], None] = lambda change: None
        self.on_flash_change: Callable[[int], None] = lambda size_bytes: None
        self._engine = Uc(
            unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
        )
        self._engine.ctl_set_cpu_model(_MODELS[board.mcu.core])
        # Aliases last: Unicorn finds translated code by the range that was mapped first, so code is
        # translated anew when it is rewritten through its own address, not through an alias.
        # Small memories mapped before large ones share numbers with them inside Unicorn, and data
        # written to one then throws away translated code of the other.
        for region in sorted(
            self.memory.regions,
            key=lambda r: (r.memory.alias_of is not None, -r.memory.size_bytes),
        ):
            access = unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_EXEC
            if region.memory.kind == "ram":
                access |= unicorn_const.UC_PROT_WRITE
            self._engine.mem_map_ptr(
                region.memory.origin, region.memory.size_bytes, access, region.host_address
            )
        model = timing_model(board.mcu.core)
        self._blocks = BlockCounter(self._engine, self.memory, board.mcu.core, model.core)
        self.clock = CycleClock(board.mcu.core, model, self._blocks)
        self.memory_system = MemorySystem(board, self.memory, model.core, self._blocks)
        chip = Chip(
            board=board,
            memory=self.memory,
            memory_system=self.memory_system,
            console=console,
            cycles=self._cycles_now,
            accesses=lambda: self._bus.accesses,
            request_reset=self._request_reset,
            store=self._store,
            rewrite_flash=self._rewrite_flash,
            log_pin=self._log_pin,
        )
        self._peripherals = peripherals = build_peripherals(chip)
        self._control = next(p for p in peripherals if isinstance(p, SystemControl))
        self._bus = Bus(self._engine, peripherals, self._before_access, self._read_trouble)
        self._flash_controller = next(
            (p for p in peripherals if isinstance(p, FlashController)), None
        )
        self._exceptions = ExceptionUnit(self._engine, self.memory, self._control)
        self._semihosting = Semihosting(
            self._engine, board, self.memory, console.write, lambda: self.clock.total().cycles
        )
        self._hook(unicorn_const.UC_HOOK_INTR, self._on_interrupt)
        self._kept: Kept = []
        hook_protected_writes(self._engine, self._on_protected_write, self._kept)
        self._read_control = register_reader(self._engine, arm.UC_ARM_REG_CONTROL)
        self._forget_code = code_forgetter(self._engine)
        invalid = unicorn_const.UC_HOOK_MEM_UNMAPPED | unicorn_const.UC_HOOK_MEM_FETCH_PROT
        self._hook(invalid, self._on_unmapped)
        self._watches: list[int] = []
        self._breakpoints: dict[int, int] = {}  # address -> hook
        self.debug_enabled = False  # a debugger has set DHCSR.C_DEBUGEN
        self.reset_count = 0
        self._was_debugged = False  # since the counts last started anew
        self._by_debugger = False  # it accesses a peripheral, the core is at rest
        self._image: Image | None = None
        self._exact_pc: int | None = None  # the current block starts at this reading instruction
        self._exact_from = 0  # and the bus has had so many accesses then
        self._is_writing = False  # a peripheral; then the engine's pc is exact
        self._fault: Fault | None = None
        self._interrupt: int | None = None
        self._trouble: Exception | None = None
        self._reset_requested = False
        self._halt = 0  # a debug event: bits of the debug fault status register
        self._hang = self._translates_anew = False
        self._fpu_was_enabled = False
        # a store into flash that the engine is about to do in its own way: address, true result
        self._unsettled: tuple[int, bytes] | None = None
        self._stop_requested = threading.Event()
        self._halt_requested = False
        self._pc = 0
        self._cycles_before = 0  # the counts started anew

    # -- what is around a run

    def load(self, image: Image) -> None:
        """Programs an image that check_fits accepts, and resets."""
        self.memory.clear_ram()
        write_image(image, self.memory)
        self._blocks.watch_divides((segment.runs_at, segment.data) for segment in image.segments)
        self._start_counts(image)
        self.reset()

    def _start_counts(self, image: Image | None) -> None:
        """Nothing has run yet of what the flash holds now."""
        self._image = image
        self.fault_text = None
        self._cycles_before = self.cycles_ever()
        self._blocks.flash_changed()
        self._blocks.reset()
        self.clock.reset()
        self.pin_changes.clear()
        self._was_debugged = self.debug_enabled

    def reset(self) -> None:
        """As the reset pin: RAM stays, time goes on.

        But counts start anew when a debugger was at work, which may have written the flash and run
        code of its own: so a program runs the same however it was flashed.
        """
        if self._was_debugged:
            self._start_counts(None)
        self.reset_count += 1
        debug = self._control.values["DEMCR"] & _DEMCR_KEPT if self.debug_enabled else 0
        self._bus.reset()
        self._control.values["DEMCR"] = debug
        self._control.values["VTOR"] = reset_vector_address(self.board)
        self._exceptions.reset()
        engine = self._engine
        for register in _ALL_REGISTERS:
            engine.reg_write(register, 0)
        engine.reg_write(arm.UC_ARM_REG_XPSR, 1 << 24)
        engine.reg_write(arm.UC_ARM_REG_LR, 0xFFFF_FFFF)
        sp, self._pc = self._start()
        engine.reg_write(arm.UC_ARM_REG_SP, sp)
        engine.ctl_flush_tb()
        self._blocks.interrupt()
        self._fault = self._trouble = self._interrupt = self._exact_pc = None
        self._reset_requested = self._fpu_was_enabled = False
        self._halt = 0

    def power_on(self) -> None:
        """As after the supply came back: RAM is lost, nothing has run, no debugger is known."""
        self.memory.clear_ram()
        self.enable_debug(False)
        self.set_breakpoints(())
        self._control.values["DEMCR"] = 0
        self._start_counts(self._image)
        self.reset()

    def cycles_ever(self) -> int:
        """Core cycles since the board exists: those of earlier programs and resets, too.

        Not while code runs. What has no known cost counts as nothing.
        """
        try:
            return self._cycles_before + self.clock.total().cycles
        except HilError:
            return self._cycles_before

    def _start(self) -> tuple[int, int]:
        """(stack pointer, pc) to start with.

        From the vector table where the chip looks for it. An image that brings none is linked for
        a debugger to start: at its entry point, with the stack at the end of RAM, the FPU on and
        the chip at the board's operating point.
        """
        vectors_at = reset_vector_address(self.board)
        vectors = self.memory.read(vectors_at, 8) or bytes(8)
        sp, start = int.from_bytes(vectors[:4], "little"), int.from_bytes(vectors[4:], "little")
        stack = self.memory.find(sp - 4, 4)
        is_table = stack is not None and stack.memory.kind == "ram" and bool(start & 1)
        if self._image is None or (is_table and holds(self._image, vectors_at, 8, self.memory)):
            return sp & ~3, start & ~1
        self.set_up()
        return sum(self.board.ram), self._image.entry & ~1

    def set_up(self) -> None:
        """What the bench firmware does before its program, done for a program that does not.

        The FPU is on, wait states and caches are at the board's operating point.
        """
        self._control.values["CPACR"] |= 0xF << 20
        for peripheral in self._peripherals:
            peripheral.set_up(self.board.timing.operating_point)

    # -- a run

    def run(self, *, step: bool = False) -> Stop:
        """Runs until the program exits, the core cannot go on or halts, or is told to stop.

        Args:
            step: one instruction only, then it halts.

        Raises UnknownInstruction when the program needs to know the time but its cost is not known.
        """
        while True:
            self._fault = self._trouble = self._interrupt = None
            error = unicorn_const.UC_ERR_OK
            if self._halt_requested and not self._stop_requested.is_set():
                return Stop("halted")
            try:
                if not self._stop_requested.is_set():
                    with self._stepping() if step else nullcontext():
                        self._engine.emu_start(self._pc | 1, _NEVER)
            except UcError as failure:
                error = failure.errno
            if self._stop_requested.is_set():
                return Stop("stopped")
            self._settle_flash()
            self._pc = self._engine.reg_read(arm.UC_ARM_REG_PC)
            again = isinstance(self._trouble, NeedExactTime)
            try:
                stop = self._after(error, is_cut=step)
            except Lockup as lockup:
                before = f"{self.fault_text}; " if self.fault_text else ""
                self.fault_text = f"{before}the core stopped: {lockup}"
                return Stop("lockup", detail=self.fault_text)
            if stop is not None:
                return stop
            if self._halt:
                halt, self._halt = self._halt, 0
                return Stop("halted", halt=halt)
            if step and not again:
                return Stop("halted", halt=HALTED)

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        """The engine stops before the second instruction that it comes to.

        Unicorn's own count does not see code that was translated before it was asked to count.
        """
        passed = 0

        def reached(engine: Uc, address: int, size: int, data: None) -> None:
            nonlocal passed
            passed += 1
            if passed > 1:
                engine.emu_stop()

        hook = self._engine.hook_add(unicorn_const.UC_HOOK_CODE, reached)
        self._engine.ctl_flush_tb()
        try:
            yield
        finally:
            self._engine.hook_del(hook)
            self._engine.ctl_flush_tb()

    def stop(self) -> None:
        """Gives up the run; from any thread, and again until `run` has returned."""
        self._stop_requested.set()
        self._engine.emu_stop()

    def request_halt(self) -> None:
        """Halts a run so that the next one goes on where it was; from any thread.

        The core halts at its next access to a peripheral. One that makes none is interrupted by
        `interrupt`, a while later, so that no access is done twice.
        """
        self._halt_requested = True

    def interrupt(self) -> None:
        """Ends what `request_halt` has not ended; again until `run` has returned."""
        self._engine.emu_stop()

    def allow_run(self) -> None:
        """After `stop` or `request_halt` and the end of `run`: the next `run` may start."""
        self._stop_requested.clear()
        self._halt_requested = False

    @property
    def stop_requested(self) -> bool:
        """Whether the run shall end; a console that waits for its host returns then."""
        return self._stop_requested.is_set() or self._halt_requested

    def watch(self, address: int, callback: Callable[[], None]) -> None:
        """Calls back before each execution of the instruction at an address; takes no cycles.

        To be called before the image is loaded: code that was translated is not watched. In the
        callback the block that holds the instruction is counted as a whole.
        """

        def reached(engine: Uc, address: int, size: int, data: None) -> None:
            callback()

        self._watches.append(
            self._engine.hook_add(unicorn_const.UC_HOOK_CODE, reached, None, address, address)
        )

    def forget_watches(self) -> None:
        """Ends all calls of `watch`."""
        for hook in self._watches:
            self._engine.hook_del(hook)
        self._watches.clear()

    def strike(self, *, hangs: bool, after_blocks: int) -> None:
        """The running core takes a HardFault, or hangs until its reset, so many blocks from now.

        To be called from what the program does.
        """

        def on_block(engine: Uc, address: int, size: int, data: None) -> None:
            nonlocal after_blocks
            after_blocks -= 1
            if after_blocks <= 0:
                engine.hook_del(hook)
                if hangs:
                    self._hang = True
                else:
                    self._fault = Fault("the core broke down", exceptions.HARD_FAULT)
                engine.emu_stop()

        hook = self._engine.hook_add(unicorn_const.UC_HOOK_BLOCK, on_block)
        self._translates_anew = True  # code that was translated before calls no new hook
        self._engine.emu_stop()

    def request_reset(self) -> None:
        """The core is reset at once, as by its program; from what the program does."""
        self._request_reset()

    def register(self, name: str) -> int:
        """Value of a register of the stopped or watched core, named as capstone does."""
        value: int = self._engine.reg_read(getattr(arm, f"UC_ARM_REG_{name.upper()}"))
        return value

    # -- for a debugger, while the core does not run

    def enable_debug(self, on: bool) -> None:
        """Breakpoints and caught faults halt the core; semihosting is the debugger's."""
        self.debug_enabled = on
        self._was_debugged |= on
        if self._flash_controller is not None:
            self._flash_controller.under_debug = on

    @property
    def pc(self) -> int:
        """Where the core goes on."""
        return self._pc

    def read_register(self, number: int) -> int:
        """A register by its Unicorn number, but for the pc."""
        value: int = self._engine.reg_read(number)
        return value & 0xFFFF_FFFF

    def write_register(self, number: int, value: int) -> None:
        """A register by its Unicorn number, but for the pc."""
        self._engine.reg_write(number, value)

    def go_to(self, pc: int) -> None:
        """The core goes on there."""
        self._pc = pc & ~1
        self._exact_pc = None
        self._blocks.interrupt()

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Exactly these addresses halt the core, before their instruction."""
        wanted = set(addresses)
        for address in self._breakpoints.keys() - wanted:
            self._engine.hook_del(self._breakpoints.pop(address))
        for address in wanted - self._breakpoints.keys():
            hook = self._engine.hook_add(
                unicorn_const.UC_HOOK_CODE, self._on_breakpoint, None, address, address
            )
            self._breakpoints[address] = hook
            self._engine.ctl_remove_cache(address, address + 2)

    @property
    def breakpoints(self) -> set[int]:
        """Addresses that halt the core."""
        return set(self._breakpoints)

    @property
    def has_passed_breakpoint(self) -> bool:
        """Whether it shall halt but Unicorn went on, as it does inside an IT block."""
        return bool(self._halt)

    def _on_breakpoint(self, engine: Uc, address: int, size: int, data: None) -> None:
        self._halt = BKPT
        engine.emu_stop()

    def read_peripheral(self, address: int, size_bytes: int) -> int:
        """What a debugger reads from the bus; raises BusFault, and HilError without a time."""
        peripheral = self._bus.find(address)
        if peripheral is None:
            raise BusFault("no peripheral is modelled there")
        self._by_debugger = True
        try:
            return peripheral.read(address - peripheral.base, size_bytes)
        finally:
            self._by_debugger = False

    def write_peripheral(self, address: int, size_bytes: int, value: int) -> None:
        """What a debugger writes to the bus; raises as read_peripheral. May ask for a reset."""
        peripheral = self._bus.find(address)
        if peripheral is None:
            raise BusFault("no peripheral is modelled there")
        self._by_debugger = True
        try:
            peripheral.write(address - peripheral.base, size_bytes, value)
        finally:
            self._by_debugger = False

    def take_reset_request(self) -> bool:
        """Whether write_peripheral asked for a reset."""
        requested, self._reset_requested = self._reset_requested, False
        return requested

    def write_memory(self, address: int, data: bytes) -> None:
        """Into RAM."""
        self._engine.mem_write(address, data)
        self._forget_code(address, address + len(data))

    def forget_code(self, address: int, size_bytes: int) -> None:
        """RAM there was written past the engine."""
        self._forget_code(address, address + size_bytes)

    def write_flash(self, address: int, data: bytes) -> None:
        """A store into flash, as wide as the data; raises BusFault."""
        self._program_flash(address, data)
        self._settle_flash()

    @property
    def flash_controller(self) -> FlashController | None:
        """The peripheral that lets programs write the flash."""
        return self._flash_controller

    @property
    def debug_registers(self) -> dict[str, int]:
        """Registers of the system control space, by name."""
        return self._control.values

    # -- for a profiler

    def edge_runs(self) -> list[EdgeRun]:
        """Every way from block to block that ran since the image was loaded, for a profiler."""
        return self.clock.edge_runs()

    def stalls(self) -> list[BlockStalls]:
        """What every block waited for since the image was loaded, for a profiler."""
        return self._blocks.stalls()

    def _after(self, error: int, *, is_cut: bool) -> Stop | None:
        """Handles what stopped the engine; None to go on at self._pc. May raise Lockup.

        `is_cut`: perhaps it was only interrupted behind an instruction.
        """
        if self._reset_requested:
            self.reset()
            self._catch(_VC_CORERESET)
        elif self._translates_anew:
            self._translates_anew = False
            self._cut_current()
            self._engine.ctl_flush_tb()
        elif self._hang:
            self._hang = False
            return Stop("hung")
        elif self._halt or isinstance(self._trouble, HaltRequested):
            self._cut_current(goes_on=True)
        elif isinstance(self._trouble, NeedExactTime):
            self._cut_current()
            self._exact_pc, self._exact_from = self._pc, self._bus.accesses
        elif self._trouble is not None:
            raise self._trouble
        elif self._fault is not None:
            self._cut_current()
            self._deliver(self._fault)
        elif self._interrupt is not None:
            return self._after_interrupt(self._interrupt)
        elif error == unicorn_const.UC_ERR_INSN_INVALID:
            if self.memory.read(self._pc - 2, 2) not in _YIELD_HINTS:
                self._cut_current()
                code = self.memory.read(self._pc, 4) or b""
                halves = [f"{int.from_bytes(code[i : i + 2], 'little'):04x}" for i in (0, 2)]
                self._deliver(
                    Fault(
                        f"undefined instruction {' '.join(halves)}",
                        exceptions.USAGE_FAULT,
                        exceptions.UNDEFINSTR,
                    )
                )
        elif error != unicorn_const.UC_ERR_OK:
            raise HilError(
                f"Unicorn stopped with error {error} at pc 0x{self._pc:08x}: {UcError(error)}"
            )
        elif self._blocks.restart_requested() or (
            (is_cut or self._halt_requested) and not self._is_behind_wait()
        ):
            self._cut_current(goes_on=True)
        else:  # WFI: nothing can wake the core, as there are no interrupts
            return Stop(
                "sleep",
                detail=f"waits for an interrupt (WFI) at pc 0x{self._pc - 2:08x}; there are none",
            )
        return None

    def _after_interrupt(self, number: int) -> Stop | None:
        pc = self._pc
        if number == _BKPT:
            instruction = self.memory.read(pc, 2) or b""
            if self.debug_enabled:
                self._cut_current(goes_on=True)
                self._halt = BKPT
                return None
            if instruction != BREAKPOINT:
                text = f"breakpoint (BKPT {instruction[:1].hex()}) without a debugger"
                self._deliver(Fault(text, exceptions.HARD_FAULT, hfsr=exceptions.DEBUGEVT))
                return None
            try:
                self._before_access()
            except HaltRequested:
                self._cut_current(goes_on=True)
                return None
            except FpuOff as fault:
                self._deliver(Fault(str(fault), exceptions.USAGE_FAULT, exceptions.NOCP))
                return None
            ended = self._semihosting.call()
            self._pc = pc + 2
            return None if ended is None else Stop("exit", exit_code=ended.code)
        if number == _SVC:
            self._pc = self._exceptions.take(exceptions.SV_CALL, pc)
            self._switch(_ENTRY_CYCLES)
        elif number == _EXCEPTION_EXIT:
            self._pc = self._exceptions.leave(pc | 1)
            self._switch(_RETURN_CYCLES)
        elif number == _INVSTATE:
            text = "jump to an even address (Arm state)"
            self._deliver(Fault(text, exceptions.USAGE_FAULT, exceptions.INVSTATE))
        else:
            text = f"instruction fetch from 0x{pc:08x}, where no code can be"
            self._deliver(Fault(text, exceptions.MEM_MANAGE, exceptions.IACCVIOL))
        return None

    def _deliver(self, fault: Fault) -> None:
        lr = self._engine.reg_read(arm.UC_ARM_REG_LR)
        text = f"{fault.text}, pc 0x{self._pc:08x}, lr 0x{lr:08x}"
        in_handler = self._exceptions.in_fault_handler and self.fault_text is not None
        self.fault_text = f"{self.fault_text}; then {text}" if in_handler else text
        self._pc = self._exceptions.take_fault(fault, self._pc)
        self._switch(_ENTRY_CYCLES)
        number = self._engine.reg_read(arm.UC_ARM_REG_XPSR) & 0x1FF
        self._catch(_VC_HARDERR if number == exceptions.HARD_FAULT else _caught_by(fault))

    def _catch(self, vector_catch: int) -> None:
        """The core halts where the handler starts, if a debugger wants to see that."""
        if self.debug_enabled and self._control.values["DEMCR"] & vector_catch:
            self._halt = VCATCH

    def _is_behind_wait(self) -> bool:
        address, code = self._blocks.current
        return address + len(code) == self._pc and code.endswith(_WAITS)

    def _switch(self, cycles: int) -> None:
        """The core went to or came from an exception handler."""
        self._blocks.interrupt()
        self._blocks.add_cycles(cycles)

    def _cut_current(self, *, goes_on: bool = False) -> None:
        """The current block was left before the instruction at pc, unless pc lies elsewhere."""
        address, code = self._blocks.current
        if address <= self._pc < address + len(code):
            self._blocks.cut(self._pc, goes_on=goes_on)

    # -- what the engine calls

    def _hook(self, kind: int, callback: Callable[..., object]) -> None:
        self._engine.hook_add(kind, callback)

    def _on_interrupt(self, engine: Uc, number: int, data: None) -> None:
        self._interrupt = number
        engine.emu_stop()

    def _on_unmapped(
        self, engine: Uc, access: int, address: int, size: int, value: int, data: None
    ) -> bool:
        kinds = {
            unicorn_const.UC_MEM_READ_UNMAPPED: "read",
            unicorn_const.UC_MEM_WRITE_UNMAPPED: "write",
        }
        if access in kinds:
            what = f"{kinds[access]} of {size} bytes at 0x{address:08x}"
            text = f"{what} outside the memory map"
            cfsr = exceptions.PRECISERR | exceptions.BFARVALID
            self._fault = Fault(text, exceptions.BUS_FAULT, cfsr, address=address)
        else:
            text = f"instruction fetch from 0x{address:08x} outside the memory map"
            self._fault = Fault(text, exceptions.BUS_FAULT, exceptions.IBUSERR)
        return False

    def _on_protected_write(self, address: int, size: int, value: int) -> bool:
        """A write to a peripheral or to flash; True lets the engine go on, False is a fault."""
        self._is_writing = True
        try:
            self._before_access()
            if self._bus.holds(address):
                self._bus.write(address, size, value)
            else:
                self._program_flash(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        except FpuOff as fault:
            self._fault = Fault(str(fault), exceptions.USAGE_FAULT, exceptions.NOCP)
            return False
        except BusFault as fault:
            text = f"write of {size} bytes at 0x{address:08x}: {fault}"
            cfsr = exceptions.PRECISERR | exceptions.BFARVALID
            self._fault = Fault(text, exceptions.BUS_FAULT, cfsr, address=address)
            return False
        except (HaltRequested, HilError) as error:
            self._trouble = error
            return False
        finally:
            self._is_writing = False
        return True

    def _read_trouble(self, trouble: Exception, address: int, size_bytes: int) -> None:
        """A read of a peripheral failed; the engine stops before the reading instruction."""
        if isinstance(trouble, FpuOff):
            self._fault = Fault(str(trouble), exceptions.USAGE_FAULT, exceptions.NOCP)
        elif isinstance(trouble, BusFault):
            self._fault = Fault(
                f"read of {size_bytes} bytes at 0x{address:08x}: {trouble}",
                exceptions.BUS_FAULT,
                exceptions.PRECISERR | exceptions.BFARVALID,
                address=address,
            )
        else:
            self._trouble = trouble
        self._engine.emu_stop()

    def _before_access(self) -> None:
        """Before every access to a peripheral; raises FpuOff, and HaltRequested.

        Unicorn's FPU cannot be switched off, but it keeps CONTROL.FPCA: so use of the FPU before
        the program enabled it is found at the next access, which every program makes.
        """
        if self._halt_requested:
            raise HaltRequested
        self._settle_flash()
        if self._control.fpu_enabled or self._fpu_was_enabled:
            self._fpu_was_enabled = True
            return
        control = self._read_control()
        if control & exceptions.CONTROL_FPCA:
            self._engine.reg_write(arm.UC_ARM_REG_CONTROL, control & ~exceptions.CONTROL_FPCA)
            core = self.board.mcu.core
            ran = (self._blocks.edge(edge)[1] for edge in range(1, self._blocks.edge_count))
            code = (self._blocks.block(block) for block in ran)
            found = (i for address, data in code for i in decode(data, address, core))
            first = next((i for i in found if i.kind.startswith("fp")), None)
            where = f" at 0x{first.address:08x}" if first is not None else ""
            raise FpuOff(f"floating-point instruction{where} while CPACR has the FPU off")

    # -- what peripherals call

    def _cycles_now(self) -> int:
        """Cycles up to the instruction that accesses a peripheral right now."""
        if self._by_debugger:
            return self.clock.total().cycles
        if self._is_writing:
            return self.clock.before(self._engine.reg_read(arm.UC_ARM_REG_PC))
        address, code = self._blocks.current
        if self._exact_pc != address:
            raise NeedExactTime
        reads = self._bus.accesses - self._exact_from  # since the block began, this one included
        if reads > 1:  # the same instruction's, if it loads that many words
            first = next(decode(code, address, self.board.mcu.core))
            if reads > (2 if first.kind == "load_pair" else first.registers):
                raise NeedExactTime
        return self.clock.before(address)

    def _request_reset(self) -> None:
        self._reset_requested = True
        self._engine.emu_stop()

    def _log_pin(self, port: str, pin: int, level: int) -> None:
        change = PinChange(self._cycles_now(), port, pin, level)
        self.pin_changes.append(change)
        self.on_pin(change)

    def _store(self, address: int, data: bytes) -> bool:
        region = self.memory.find(address, len(data))
        if region is None or region.memory.kind != "ram":
            return False
        self._engine.mem_write(address, data)
        return True

    def _program_flash(self, address: int, data: bytes) -> None:
        """A store of the program into flash.

        The engine stores the bytes as they are; _settle_flash corrects that.
        """
        region = self.memory.find(address, len(data))
        if self._flash_controller is None or region is None:
            raise BusFault("this flash cannot be programmed")
        self._settle_flash()  # an earlier store
        offset = address - region.memory.origin
        result = self._flash_controller.program(
            offset, bytes(region.data[offset : offset + len(data)]), data
        )
        self._unsettled = (address, result)
        self.on_flash_change(len(data))

    def _settle_flash(self) -> None:
        """Makes a store into flash what the flash controller made of it.

        At the next such store, or access to a peripheral: programs must wait for the controller
        anyway.
        """
        if self._unsettled is not None:
            (address, data), self._unsettled = self._unsettled, None
            region = self.memory.find(address)
            assert region is not None, "only stores into flash are settled"
            self._rewrite_flash(address - region.memory.origin, data)

    def _rewrite_flash(self, offset: int, data: bytes) -> None:
        """Changes bytes of the flash, in every range that shows it."""
        for region in self.memory.regions:
            if region.memory.kind == "flash":
                region.data[offset : offset + len(data)] = data
                start = region.memory.origin + offset
                self._forget_code(start, start + len(data))
        self._blocks.flash_changed()
