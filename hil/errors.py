"""Errors of the rig; each carries its data as fields and builds its message in one place.

HilError
├─ BoardFileError        a board file, lab.toml or study file that does not hold what it should
├─ BoardNotFound         no such board or place
├─ BuildError            PlatformIO or the compiler failed
├─ DoesNotFit            the firmware is larger than the board's memory
├─ PlaceBusy             another program uses the place
├─ PlaceQuarantined      the place failed too often and waits for somebody to look at it
├─ FlashError            the image did not reach the board
│  ├─ ProbeGone          the debug probe vanished or does not answer
│  ├─ ChipLocked         the chip's protection keeps the debugger out
│  └─ VerifyFailed       the flash does not hold what was written
├─ LinkError             the serial port failed
│  └─ LinkTimeout        the board did not answer in time
│     └─ LinkGarbled     what came is no text: baud rate, wiring or ground
├─ WireError             an answer that breaks the protocol: CRC, grammar, an e-[...] reply
├─ TargetFault           the firmware's fault handler reported
│  └─ ResetLoop          the firmware starts again and again
├─ FirmwareMismatch      the board runs another firmware than the one just flashed
│  └─ WrongBoard         another type of board is behind the port
├─ OutputMismatch        a byte differs from the oracle's
├─ WrongKernel           a kernel of ours computes other bytes than the reference
├─ ClockMismatch         two clocks disagree: no timing can be trusted
├─ PowerError            the place's supply could not be switched
├─ MeterError            the energy meter failed
│  ├─ SamplesLost        it dropped samples: no energy can be trusted
│  └─ TriggerError       the trigger pin did not bracket the window
├─ OracleError           the oracle could not run the model
├─ LimitsOutOfReach      no network keeps the limits of a tuning
├─ StoreError            the result store cannot be read or written
├─ LedgerError           the health ledger cannot be read or written
└─ UsageError            what the user asked for makes no sense

A message says what failed, what was seen, what was expected, and what to do; the command line
prints it without a traceback and exits with `exit_code`: 2 for the user's mistakes, 1 for failures.
"""

from __future__ import annotations

from pathlib import Path


class HilError(Exception):
    """Base of every error that the command line shows as a sentence."""

    exit_code = 1


class UsageError(HilError):
    """What the user asked for cannot be done as asked."""

    exit_code = 2


class BoardFileError(HilError):
    """A TOML file does not hold what it should; names the file, the table and the key."""

    exit_code = 2

    def __init__(self, path: Path | str, table: str, problem: str) -> None:
        self.path, self.table, self.problem = Path(path), table, problem
        where = f"{path} [{table}]" if table else f"{path}"
        super().__init__(f"{where}: {problem}")


class BoardNotFound(HilError):
    """No board or place of that name."""

    exit_code = 2

    def __init__(self, name: str, known: list[str]) -> None:
        self.name, self.known = name, known
        super().__init__(f"no board or place {name!r}; known are {', '.join(known)}")


class BuildError(HilError):
    """A firmware did not build; carries the compiler's first error and where the whole log is."""

    def __init__(self, what: str, first_error: str, log_path: Path) -> None:
        self.what, self.first_error, self.log_path = what, first_error, log_path
        super().__init__(f"building {what} failed: {first_error} (log: {log_path})")


class DoesNotFit(HilError):
    """Something needs more memory than the board has."""

    def __init__(
        self, what: str, board: str, memory: str, needed_bytes: int, have_bytes: int
    ) -> None:
        self.what, self.board, self.memory = what, board, memory
        self.needed_bytes, self.have_bytes = needed_bytes, have_bytes
        super().__init__(
            f"{what} needs {needed_bytes:,} B of {memory} but {board} has {have_bytes:,} B"
        )


class FlashError(HilError):
    """An image did not reach the board."""

    def __init__(self, place: str, method: str, reason: str) -> None:
        self.place, self.method, self.reason = place, method, reason
        super().__init__(f"flashing {place} by {method} failed: {reason}")


class ProbeGone(FlashError):
    """The debug probe vanished, or does not answer; it may return under the same serial number."""


class ChipLocked(FlashError):
    """The chip's protection keeps the debugger out; `destroys` is what a mass erase would take."""

    def __init__(self, place: str, method: str, seen: str, destroys: str) -> None:
        self.seen, self.destroys = seen, destroys
        super().__init__(
            place,
            method,
            f"the chip is locked ({seen}); only a mass erase opens it, which destroys {destroys}; "
            "it is never done unasked",
        )


class VerifyFailed(FlashError):
    """The flash does not hold what was written, from `address` on."""

    def __init__(self, place: str, method: str, address: int, expected: int, found: int) -> None:
        self.address, self.expected, self.found = address, expected, found
        super().__init__(
            place,
            method,
            f"after writing, the flash holds 0x{found:02x} at 0x{address:08x}, where "
            f"0x{expected:02x} was written; is the supply steady, is the flash worn out?",
        )


class PlaceBusy(HilError):
    """Another program uses the place; `holder` says who, and since when."""

    def __init__(self, place: str, holder: str) -> None:
        self.place, self.holder = place, holder
        super().__init__(f"{place} is in use by {holder}; wait for it, or choose another place")


class PlaceQuarantined(HilError):
    """The place failed too often; nothing runs there until somebody has looked at it."""

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(
            f"{place} is in quarantine: {reason}; look at the board, then: hil lab release {place}"
        )


class LinkError(HilError):
    """The serial port failed: it vanished, or cannot be opened."""

    def __init__(self, port: str, reason: str) -> None:
        self.port, self.reason = port, reason
        super().__init__(f"serial port {port}: {reason}")


class LinkTimeout(LinkError):
    """The board did not answer in time; carries the last bytes that it sent."""

    def __init__(self, port: str, waited_s: float, last_bytes: bytes, waiting_for: str) -> None:
        self.waited_s, self.last_bytes, self.waiting_for = waited_s, last_bytes, waiting_for
        seen = repr(last_bytes[-80:]) if last_bytes else "nothing"
        super().__init__(port, f"no {waiting_for} within {waited_s:.1f} s; last bytes seen: {seen}")


class LinkGarbled(LinkTimeout):
    """What came in time is no text at all, as with a wrong baud rate."""

    def __init__(self, port: str, waited_s: float, last_bytes: bytes, waiting_for: str) -> None:
        super().__init__(port, waited_s, last_bytes, waiting_for)
        self.args = (f"{self.args[0]}; that is no text: are baud rate, wiring and ground right?",)


class WireError(HilError):
    """An answer that breaks the protocol or says that a command was refused.

    Args:
        kind: what is wrong with it.
        line: what the board sent.
        code: of a refusal, else "": firmware/README.md lists them.
    """

    def __init__(self, kind: str, line: str, *, code: str = "") -> None:
        self.kind, self.line, self.code = kind, line, code
        super().__init__(f"{kind}: the board sent {line!r}")


class TargetFault(HilError):
    """The firmware's fault handler, or the virtual CPU, reported a fault."""

    def __init__(self, place: str, report: str) -> None:
        self.place, self.report = place, report
        super().__init__(f"{place} faulted: {report}")


class ResetLoop(TargetFault):
    """The firmware starts again and again without being told to."""


class FirmwareMismatch(HilError):
    """The board runs another firmware than the one just flashed."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        self.what, self.expected, self.found = what, expected, found
        super().__init__(
            f"the board answers with {what} {found!r} where {expected!r} was flashed; "
            "flash it again"
        )


class WrongBoard(FirmwareMismatch):
    """The firmware behind the port was built for another type of board: cables are mixed up."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(what, expected, found)
        self.args = (
            f"behind the serial port answers board {found!r}, not {expected!r}, which was flashed; "
            "are cables or ports of lab.toml mixed up?",
        )


class OutputMismatch(HilError):
    """A byte of an output differs from the oracle's; voids the timing."""

    def __init__(
        self,
        output: str,
        input_number: int,
        index: int,
        expected: float,
        found: float,
        count: int,
        total: int,
    ) -> None:
        self.output, self.input_number, self.index = output, input_number, index
        self.expected, self.found, self.count, self.total = expected, found, count, total
        super().__init__(
            f"output {output!r} differs from the oracle for input {input_number} at element "
            f"{index}: expected {expected}, the board gave {found}; {count:,} of {total:,} values "
            "differ"
        )


class WrongKernel(HilError):
    """A kernel computes wrong bytes: a bug of codegen or of the compiler, and no result."""

    def __init__(self, kernel: str, layer: str, place: str) -> None:
        self.kernel, self.layer, self.place = kernel, layer, place
        super().__init__(
            f"kernel {kernel} computes wrong bytes for layer {layer!r} on {place}; this is a bug "
            "of hil, please report it with the model; nothing of this layer was kept"
        )


class ClockMismatch(HilError):
    """The board's clocks disagree, with each other or with true time; voids the timing."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            f"the clocks of the board disagree: {seen}; is its clock tree set up right?"
        )


class PowerError(HilError):
    """The supply of a place could not be switched."""

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"power of {place}: {reason}")


class MeterError(HilError):
    """The energy meter failed; `meter` is its kind and port."""

    def __init__(self, meter: str, reason: str) -> None:
        self.meter, self.reason = meter, reason
        super().__init__(f"energy meter {meter}: {reason}")


class SamplesLost(MeterError):
    """The meter dropped samples; voids the energy."""


class TriggerError(MeterError):
    """The trigger pin did not bracket the measured window; voids the energy."""


class OracleError(HilError):
    """The oracle (TFLM) could not load or run the model."""


class LimitsOutOfReach(HilError):
    """No network that was measured keeps the limits that the user gave.

    Args:
        sram_bytes: limit on SRAM, if any.
        flash_bytes: limit on flash, if any.
        reached: (SRAM, flash) in bytes of every network that was measured; maybe none.
    """

    exit_code = 2

    def __init__(
        self, sram_bytes: int | None, flash_bytes: int | None, reached: list[tuple[int, int]]
    ) -> None:
        self.sram_bytes, self.flash_bytes, self.reached = sram_bytes, flash_bytes, reached
        if not reached:
            super().__init__("no network fits the board at all")
            return
        parts = []
        if sram_bytes is not None:
            least, flash = min(reached)
            parts.append(
                f"at most {sram_bytes:,} B of SRAM, and the least is {least:,} B (with "
                f"{flash:,} B of flash)"
            )
        if flash_bytes is not None:
            flash, least = min((flash, sram) for sram, flash in reached)
            parts.append(
                f"at most {flash_bytes:,} B of flash, and the least is {flash:,} B (with "
                f"{least:,} B of SRAM)"
            )
        super().__init__(f"no network keeps the limits: asked for {'; '.join(parts)}")


class StoreError(HilError):
    """The result store cannot be read or written."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"result store {path}: {reason}")


class LedgerError(HilError):
    """The health ledger of the places cannot be read or written."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"health ledger {path}: {reason}; it is made anew when the file is moved away, but "
            "then quarantines and flash wear are forgotten"
        )
