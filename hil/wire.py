"""The bench firmware's serial protocol: commands out, lines back, every line of ours with a CRC.

Host to board: `rig <verb>[ <arg>...] <crc>%`. Board to host: data lines `m-rig-<verb>[
<key>=<value>...] <crc>`, a refusal `e-[rig <verb>: <code>: <text>]`, then `m-ready`. The grammar
around it is MLPerf Tiny's; firmware/README.md lists the verbs. First the grammar (pure functions),
then `Wire`, which speaks it over a link. Not here: what to send when (session).
"""

from __future__ import annotations

import binascii
import re
import time
from dataclasses import dataclass

from hil.errors import LinkTimeout, TargetFault, WireError
from hil.link import Link, remaining

PROTOCOL = 1
COMMAND_BYTES = 600  # longest command that the firmware takes
CHUNK_BYTES = 256  # most data bytes in one `in` or `out`
LINE_BYTES = 2048  # longer "lines" are noise
REPLY_S = 5.0  # for commands that do no inference

_FAULT = re.compile(rb"e-\[fault (.*)\]$")
_REFUSAL = re.compile(rb"e-\[rig ([a-z]+): ([a-z]+): (.*)\]$")
_DATA = re.compile(rb"m-rig-([a-z]+)((?: [a-z_]+=[!-~]*)*) ([0-9a-f]{4})$")


@dataclass(frozen=True, slots=True)
class Data:
    """`m-rig-<verb> key=value...` whose CRC is right."""

    verb: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`e-[rig <verb>: <code>: <text>]`; the codes are crc, args, state, room, verb."""

    verb: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What the fault handler printed before it reset the chip."""

    report: str


@dataclass(frozen=True, slots=True)
class Ready:
    """`m-ready`: the end of every reply."""


@dataclass(frozen=True, slots=True)
class Booted:
    """`m-init-done`: the firmware has started."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A line of ours that a CRC or the grammar refuses."""

    text: str


@dataclass(frozen=True, slots=True)
class Other:
    """Any other line: MLPerf Tiny's own, or noise."""

    text: str


Line = Data | Refusal | Fault | Ready | Booted | Corrupt | Other


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, no reflection."""
    return binascii.crc_hqx(data, 0xFFFF)


def encode(verb: str, *arguments: str | int) -> bytes:
    """One command, ready to send."""
    body = " ".join(["rig", verb, *map(str, arguments)]).encode("ascii")
    command = body + b" %04x%%" % crc16(body)
    assert len(command) <= COMMAND_BYTES, "longer than the firmware's buffer"
    return command


def parse_line(line: bytes) -> Line:
    """What one line (without its line end) says; never raises, whatever the bytes."""
    if line == b"m-ready":
        return Ready()
    if line == b"m-init-done":
        return Booted()
    if line.startswith(b"m-rig-"):
        match = _DATA.match(line)
        if match is None or crc16(line[:-5]) != int(match[3], 16):
            return Corrupt(_text(line))
        pairs = [pair.partition("=") for pair in match[2].decode("ascii").split(" ")[1:]]
        values = {key: value for key, _, value in pairs}
        if len(values) != len(pairs):
            return Corrupt(_text(line))
        return Data(match[1].decode("ascii"), values)
    if match := _FAULT.match(line):
        return Fault(_text(match[1]))
    if match := _REFUSAL.match(line):
        return Refusal(match[1].decode("ascii"), match[2].decode("ascii"), _text(match[3]))
    return Other(_text(line))


def _text(line: bytes) -> str:
    return line.decode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Hello:
    """What the firmware says that it is; sizes of all inputs and of all outputs together."""

    proto: int
    board: str
    engine: str
    build: str
    model: str
    clock_hz: int
    in_bytes: int
    out_bytes: int
    layers: int
    arena_bytes: int
    store_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM as the firmware sees it; `stack_peak_bytes` since reset, from the painted stack."""

    stack_bytes: int
    stack_peak_bytes: int
    data_bytes: int
    bss_bytes: int
    arena_bytes: int


class Wire:
    """The protocol over a link: one method per verb, each with a deadline, no retries.

    Raises LinkTimeout with the last bytes seen when the board falls silent, TargetFault when its
    fault handler reports, WireError for a refusal, a wrong CRC or a reply that lacks something.

    Args:
        link: an open link; the wire does not close it.
        place: name of the place, for messages.
    """

    def __init__(self, link: Link, place: str) -> None:
        self._link, self._place = link, place
        self._received = b""  # not yet a whole line
        self._last = b""  # for the message of a timeout

    def wait_boot(self, timeout_s: float) -> None:
        """Returns when the firmware has started and is ready for a command."""
        deadline = time.monotonic() + timeout_s
        booted = False
        while True:
            line = self._line(deadline, timeout_s, "boot message")
            if isinstance(line, Booted):
                booted = True
            elif isinstance(line, Ready) and booted:
                return
            elif isinstance(line, Fault):
                raise TargetFault(self._place, line.report)

    def hello(self) -> Hello:
        """Identity of the firmware; raises WireError when it speaks another protocol version."""
        data = self._one("hello")
        proto = _integer(data, "proto")
        if proto != PROTOCOL:
            raise WireError(f"protocol version {proto}, this rig speaks {PROTOCOL}", _show(data))
        return Hello(
            proto=proto,
            board=_string(data, "board"),
            engine=_string(data, "engine"),
            build=_string(data, "build"),
            model=_string(data, "model"),
            clock_hz=_integer(data, "clock_hz"),
            in_bytes=_integer(data, "in_bytes"),
            out_bytes=_integer(data, "out_bytes"),
            layers=_integer(data, "layers"),
            arena_bytes=_integer(data, "arena_bytes"),
            store_bytes=_integer(data, "store_bytes"),
        )

    def seed(self, seed: int) -> int:
        """Fills the inputs with the stream of `seed` (32 bits); returns the CRC-16 of the bytes."""
        return _integer(self._one("seed", seed), "crc", base=16)

    def feed(self, data: bytes) -> None:
        """Writes the inputs, one after another, from their first byte on."""
        for offset in range(0, len(data), CHUNK_BYTES):
            chunk = data[offset : offset + CHUNK_BYTES]
            reply = self._one("in", offset, chunk.hex())
            if _integer(reply, "n") != len(chunk):
                raise WireError(f"{len(chunk)} input bytes were sent", _show(reply))

    def run(self, repeats: int, *, timeout_s: float) -> list[int]:
        """Cycles of each of `repeats` inferences; `timeout_s` is for one of them."""
        replies = self._command("run", repeats, timeout_s=timeout_s, count=repeats)
        return [_integer(reply, "cycles") for reply in replies]

    def layers(self, count: int, *, timeout_s: float) -> list[int]:
        """Cycles of each of `count` layers in one inference."""
        replies = self._command("layers", timeout_s=timeout_s, count=count)
        return [_integer(reply, "cycles") for reply in replies]

    def outputs(self, size: int) -> bytes:
        """The first `size` bytes of all outputs of the last inference, one after another."""
        data = bytearray()
        while len(data) < size:
            wanted = min(CHUNK_BYTES, size - len(data))
            reply = self._one("out", len(data), wanted)
            try:
                chunk = bytes.fromhex(_string(reply, "hex"))
            except ValueError:
                chunk = b""
            if len(chunk) != wanted or _integer(reply, "offset") != len(data):
                raise WireError(
                    f"{wanted} output bytes at {len(data)} were asked for", _show(reply)
                )
            data += chunk
        return bytes(data)

    def memory(self) -> Memory:
        """RAM use so far."""
        data = self._one("mem")
        return Memory(
            stack_bytes=_integer(data, "stack_bytes"),
            stack_peak_bytes=_integer(data, "stack_peak_bytes"),
            data_bytes=_integer(data, "data_bytes"),
            bss_bytes=_integer(data, "bss_bytes"),
            arena_bytes=_integer(data, "arena_bytes"),
        )

    def time(self) -> tuple[int, int]:
        """(microseconds of the coarse timer, cycles), read together."""
        data = self._one("time")
        return _integer(data, "coarse_us"), _integer(data, "cycles")

    def reset(self, timeout_s: float = REPLY_S) -> None:
        """Resets the chip and waits until the firmware has started again."""
        self._one("reset")
        self.wait_boot(timeout_s)

    def _one(self, verb: str, *arguments: str | int) -> Data:
        return self._command(verb, *arguments, timeout_s=REPLY_S, count=1)[0]

    def _command(
        self, verb: str, *arguments: str | int, timeout_s: float, count: int
    ) -> list[Data]:
        """Sends one command and gives its `count` data lines, numbered by `i` if several.

        `timeout_s` is for each line. A ready line before the first data line is left over from an
        earlier answer and skipped: the deadline still holds.
        """
        self._link.write(encode(verb, *arguments))
        replies: list[Data] = []
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._line(deadline, timeout_s, f"answer to {verb!r}")
            if isinstance(line, Data):
                if line.verb != verb or line.values.get("i", str(len(replies))) != str(
                    len(replies)
                ):
                    raise WireError(f"not an answer to {verb!r} in its turn", _show(line))
                replies.append(line)
                if len(replies) > count:
                    raise WireError(f"more than {count} lines for {verb!r}", _show(line))
                deadline = time.monotonic() + timeout_s
            elif isinstance(line, Ready):
                if replies and len(replies) < count:
                    raise WireError(f"{len(replies)} of {count} lines for {verb!r}", "m-ready")
                if replies:
                    return replies
            elif isinstance(line, Refusal):
                raise WireError(f"{verb!r} was refused ({line.code})", line.text)
            elif isinstance(line, Fault):
                raise TargetFault(self._place, line.report)
            elif isinstance(line, Corrupt):
                raise WireError(f"corrupt answer to {verb!r}", line.text)
            elif isinstance(line, Booted) and verb != "hello":
                raise WireError(f"the board restarted while it answered {verb!r}", "m-init-done")

    def _line(self, deadline: float, timeout_s: float, waiting_for: str) -> Line:
        # The deadline holds for a board that chatters, too: it is checked before every line.
        while remaining(deadline) == 0.0 or b"\n" not in self._received:
            data = self._link.read(remaining(deadline))
            self._last = (self._last + data)[-200:]
            if remaining(deadline) == 0.0:
                raise LinkTimeout(self._link.port, timeout_s, self._last, waiting_for)
            self._received += data
            if b"\n" not in self._received and len(self._received) > LINE_BYTES:
                self._received = b""
        line, _, self._received = self._received.partition(b"\n")
        return parse_line(line.rstrip(b"\r"))


def _string(data: Data, key: str) -> str:
    if key not in data.values:
        raise WireError(f"answer to {data.verb!r} without {key!r}", _show(data))
    return data.values[key]


def _integer(data: Data, key: str, base: int = 10) -> int:
    text = _string(data, key)
    digits = "0123456789abcdef"[:base]
    if not text or len(text) > 20 or any(c not in digits for c in text):
        raise WireError(f"{key!r} in the answer to {data.verb!r} is no number", _show(data))
    return int(text, base)


def _show(data: Data) -> str:
    pairs = " ".join(f"{key}={value}" for key, value in data.values.items())
    return f"m-rig-{data.verb} {pairs}".rstrip()
