"""Flashes or resets one chip through pyOCD; a process of its own, which hil/flash.py can kill.

`python -m hil.pyocd_flash --target TYPE [--probe ID] [ELF]` writes the image's segments where they
differ from what the flash holds, reads all of them back, and starts the program; without an image
it only resets the chip. The last line on stdout is one JSON object: what was done, or what failed.

Nothing is ever unlocked: that erases the chip. What lies behind the image in a sector that it
shares is erased with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from pyocd.core.exceptions import Error, ProbeDisconnected, ProbeError, TransferError
from pyocd.core.session import Session
from pyocd.coresight.cortex_m import CortexM
from pyocd.probe.aggregator import DebugProbeAggregator
from pyocd.probe.jlink_probe import JLinkProbe
from pyocd.probe.tcp_client_probe import TCPClientProbe
from pyocd.target.family.target_nRF52 import NRF52
from pyocd.utility.sockets import ClientSocket
from usb.core import USBError

from hil.pyocd_targets import Stm32, register

REMOTE = "remote:"
SWD_HZ = 4_000_000  # what the debuggers on all boards manage

_READ_BYTES = 0x8000  # at once
_ANSWER_S = 20.0  # of a remote probe: a flash algorithm erases 256 KiB in 4 s at most

# What pyOCD raises when probe or chip fail it half-way: its own errors, and what they lead to.
_PYOCD_ERRORS = (Error, OSError, LookupError, AssertionError, AttributeError, TypeError, ValueError)
# Among them, a probe that is not there; its ProbeErrors are mostly about the chip behind it.
_GONE_ERRORS = (ProbeDisconnected, USBError, ConnectionError, socket.gaierror, TimeoutError)

_NRF52_LOSES = "all of its flash and its UICR (reset pin, regulator voltage, customer's words)"
_STM32_LOSES = "all of its flash, backup registers and backup RAM"


class Failure(Exception):
    """What ends this process with an answer; `fields` are its JSON object."""

    def __init__(self, kind: str, **fields: object) -> None:
        self.fields = {"error": kind, **fields}
        super().__init__(kind)


class Connection(ClientSocket):  # type: ignore[misc]  # pyOCD is not typed
    """A remote probe's socket; pyOCD's own one waits forever when the other side is gone.

    Attributes:
        lost: how the connection ended, if it did.
    """

    lost: str | None = None

    def readline(self) -> bytearray:
        """One line; raises ProbeDisconnected at the end of the stream and when none comes."""
        deadline = time.monotonic() + _ANSWER_S
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                self.lost = f"no answer within {_ANSWER_S:g} s"
                raise ProbeDisconnected(self.lost) from None
            if not data:
                self.lost = "it closed the connection"
                raise ProbeDisconnected(self.lost)
            self._buffer += data
        line: bytearray = self._buffer[: end + 1]
        del self._buffer[: end + 1]
        return line

    def connect(self) -> None:
        """As ClientSocket.connect; small requests are sent at once."""
        super().connect()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def find_probe(probe_id: str | None) -> Any:
    """The debug probe of that serial number, or the only one; raises Failure."""
    if probe_id is not None and probe_id.startswith(REMOTE):
        host, _, port = probe_id.removeprefix(REMOTE).rpartition(":")
        if not host or not port.isdigit():
            raise Failure("failed", reason=f"probe {probe_id!r} should be like remote:HOST:PORT")
        probe = TCPClientProbe(f"{host}:{port}")
        probe._socket = Connection(host, int(port))
        return probe
    attached = DebugProbeAggregator.get_all_connected_probes()
    names = ", ".join(sorted(probe.unique_id for probe in attached)) or "none"
    if JLinkProbe._get_jlink() is None:
        names += " (SEGGER's software is not installed, without which pyOCD sees no J-Link)"
    if probe_id is None:
        if len(attached) > 1:
            raise Failure("failed", reason=f"several debug probes are attached, say which: {names}")
        if not attached:
            raise Failure("gone", reason=f"attached debug probes: {names}")
        return attached[0]
    for probe in attached:
        if _bare(probe.unique_id) == _bare(probe_id):
            return probe
    raise Failure("gone", reason=f"debug probe {probe_id} is not attached; there are: {names}")


def _bare(serial: str) -> str:
    """A serial number as it is compared: tools differ in case and in leading zeros."""
    return serial.strip().lower().lstrip("0")


@contextlib.contextmanager
def connected(probe: Any, target_type: str) -> Iterator[Any]:
    """The chip behind a probe, halted, until the block ends; raises Failure."""
    session = Session(
        probe,
        auto_open=False,
        options={
            "target_override": target_type,
            "flash.timeout.program": 4.0,  # of a page: 0.1 s, unless the supply fails
            "auto_unlock": False,  # would erase a locked chip without being asked
            "frequency": SWD_HZ,
            "reset_type": "sysresetreq",  # the reset pin of an nRF52 need not be connected
            "resume_on_disconnect": False,  # `start` does that, in the right order
            "hide_programming_progress": True,
            "no_config": True,  # nobody's pyocd.yaml, nor pyocd_user.py:
            "project_dir": str(Path(__file__).parent),
        },
    )
    target = session.target
    target._svd_location = None  # names of registers, which take a second to read
    try:
        try:
            session.open()
        except _PYOCD_ERRORS as error:
            if _is_locked(target):
                raise _locked(target) from error
            if isinstance(error, TransferError | ProbeError) and _why_gone(error, probe) is None:
                raise Failure(
                    "failed",
                    reason=f"no connection to the chip: {_described(error)}; is it supplied with "
                    "power, held in reset, locked for good, or in use by another debugger?",
                ) from error
            raise
        if _is_locked(target):
            raise _locked(target)
        yield target
    finally:
        with contextlib.suppress(*_PYOCD_ERRORS):
            session.close()


def _is_locked(target: Any) -> bool:
    """Whether the chip says so; False when it cannot be asked."""
    try:
        return bool(target.is_locked())
    except _PYOCD_ERRORS:
        return False


def _locked(target: Any) -> Failure:
    if isinstance(target, NRF52):
        return Failure("locked", seen="APPROTECT is on", destroys=_NRF52_LOSES)
    if isinstance(target, Stm32):
        return Failure("locked", seen="read protection, level 1", destroys=_STM32_LOSES)
    return Failure("locked", seen="pyOCD says so", destroys="all of its flash")


def segments_of(elf: Path) -> list[tuple[int, bytes]]:
    """(address, bytes) of what an ELF file puts into memory; raises Failure."""
    try:
        with open(elf, "rb") as file:
            return [
                (segment["p_paddr"], segment.data())
                for segment in ELFFile(file).iter_segments("PT_LOAD")
                if segment["p_filesz"]
            ]
    except (ELFError, OSError) as error:
        raise Failure("failed", reason=f"{elf} is no ELF file: {error}") from None


def program(target: Any, segments: list[tuple[int, bytes]], done: dict[str, int]) -> None:
    """Erases and writes the sectors that differ, and counts into `done`; raises Failure."""
    builders: dict[int, Any] = {}
    for address, data in segments:
        done["bytes"] += len(data)
        while data:
            region = target.memory_map.get_region_for_address(address)
            if region is None or not region.is_flash or region.flash is None:
                raise Failure("failed", reason=f"0x{address:08x} of the image is not in the flash")
            builder = builders.setdefault(region.start, region.flash.get_flash_builder())
            builder.log_performance = False
            length = min(len(data), region.end + 1 - address)
            builder.add_data(address, data[:length])
            address, data = address + length, data[length:]
    # Checksums on the chip find the pages to skip; all of the image is read back afterwards.
    options = {"smart_flash": True, "fast_verify": True, "keep_unwritten": False}
    for _, builder in sorted(builders.items()):
        try:
            builder.erase(chip_erase="sector", **options)
        finally:
            for sector in builder.sector_list:
                done["erased_sectors"] += sector.are_any_pages_not_same() * sector.n_subsectors
    for _, builder in sorted(builders.items()):
        work = builder.program(**options)
        done["written_bytes"] += work.program_byte_count
        done["skipped_bytes"] += work.skipped_byte_count


def verify(target: Any, segments: list[tuple[int, bytes]]) -> None:
    """Reads the whole image back; raises Failure at the first byte that differs."""
    for address, data in segments:
        start, end = address & ~3, (address + len(data) + 3) & ~3
        for at in range(start, end, _READ_BYTES):
            words = target.read_memory_block32(at, min(_READ_BYTES, end - at) // 4)
            found = struct.pack(f"<{len(words)}I", *words)
            first, last = max(at, address), min(at + len(found), address + len(data))
            wanted = data[first - address : last - address]
            if found[first - at : last - at] != wanted:
                offset = next(i for i, byte in enumerate(wanted) if found[first - at + i] != byte)
                raise Failure(
                    "verify",
                    address=first + offset,
                    expected=wanted[offset],
                    found=found[first - at + offset],
                )


def start(target: Any) -> None:
    """Resets the chip and lets it run, with its debug logic as after power-on.

    In this order because the program switches trace on for its cycle counter: clearing DEMCR after
    the program has begun, as pyOCD does when it disconnects, would stop the counter again.
    """
    target.reset_and_halt()
    target.write32(CortexM.DEMCR, 0)
    target.write32(CortexM.DHCSR, CortexM.DBGKEY)  # no C_DEBUGEN: the core runs
    target.flush()
    target.dp.disconnect()


def work(target_type: str, probe_id: str | None, elf: Path | None, done: dict[str, int]) -> None:
    """Flashes and starts, or only resets; raises Failure."""
    segments = segments_of(elf) if elf else []
    probe = None
    try:
        probe = find_probe(probe_id)
        with connected(probe, target_type) as target:
            if segments:
                program(target, segments, done)
                verify(target, segments)
            start(target)
    except (*_PYOCD_ERRORS, Failure) as error:
        lost = _why_gone(error, probe)
        if lost is not None:
            name = probe_id or "the debug probe"
            raise Failure("gone", reason=f"{name}: {lost}") from error
        if isinstance(error, Failure):
            raise
        raise Failure("failed", reason=_described(error)) from error


def _why_gone(error: BaseException, probe: Any) -> str | None:
    """How the debug probe was lost, or None if it is still there.

    pyOCD makes errors of its own from a lost probe, or passes over it: "no cores were discovered".
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, _GONE_ERRORS):
            return _described(current)
        current = current.__cause__ or current.__context__
    if probe is None:
        return None
    if isinstance(probe, TCPClientProbe):
        lost: str | None = probe._socket.lost
        return lost
    attached = DebugProbeAggregator.get_all_connected_probes()
    if any(other.unique_id == probe.unique_id for other in attached):
        return None
    return "it is not attached any more"


def _described(error: BaseException) -> str:
    name = type(error).__name__
    return f"{error} ({name})" if str(error) else name


def main(arguments: list[str] | None = None) -> int:
    """See the top of the file; the exit code is 0 also when the answer is an error."""
    parser = argparse.ArgumentParser(prog="python -m hil.pyocd_flash")
    parser.add_argument("--target", required=True, metavar="TYPE")
    parser.add_argument("--probe", metavar="ID")
    parser.add_argument("elf", type=Path, nargs="?")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="pyocd: %(message)s")
    register()
    started = time.monotonic()
    done = dict.fromkeys(("bytes", "erased_sectors", "written_bytes", "skipped_bytes"), 0)
    answer: dict[str, object] = {}
    try:
        work(options.target, options.probe, options.elf and options.elf.resolve(), done)
    except Failure as failure:
        answer = failure.fields
    answer |= {**done, "seconds": round(time.monotonic() - started, 3)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
