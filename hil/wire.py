"""The bench firmware's serial protocol: commands out, lines back, one CRC over the whole session.

Host to board: `rig <verb>[ <arg>...] <crc>%`. Board to host: data lines `m-rig-<verb>[
<key>=<value>...] <crc>`, a refusal `e-[rig <verb>: <code>: <text>]`, then `m-ready`. The grammar
around it is MLPerf Tiny's; firmware/README.md lists the verbs. First the grammar (pure functions),
then `Wire`, which speaks it over a link. Not here: what to send when (session).

The CRC-32 of a data line goes on from the line before it and from the command between them, as the
board heard it. So a line that was changed, lost, doubled, swapped, or answers another command or
another session, and a board that restarted unseen, make every CRC from there on wrong: a wrong
number passes with a probability of 2**-32, and nothing that is repeated passes at all.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from dataclasses import dataclass

from hil.errors import LinkGarbled, LinkTimeout, ResetLoop, TargetFault, WireError
from hil.link import Link, remaining

PROTOCOL = 2
COMMAND_BYTES = 600  # longest command that the firmware takes
CHUNK_BYTES = 256  # most data bytes in one `in` or `out`
LINE_BYTES = 2048  # longer "lines" are noise
REPLY_S = 5.0  # for commands that do no inference
#: Starts between flashing and the answer to hello: some flashing tools reset more than once.
STARTS_TOLERATED = 4
RESTART_WATCH_S = 1.0  # how long a board that restarted is watched for doing so again
LOOPED_STARTS = 3  # as many within that time are a loop
#: Share of bytes that are no text above which what came is garbled: a wrong rate gives over half.
GARBLED_SHARE = 0.1
MOST_GARBLED_BYTES = 64  # at a start, where a few are usual; with more nobody waits for others

_TEXT = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))
_FAULT = re.compile(rb"e-\[fault (.*)\]$")
_REFUSAL = re.compile(rb"e-\[rig ([a-z]+): ([a-z]+): (.*)\]$")
_DATA = re.compile(rb"m-rig-([a-z]+)((?: [a-z_]+=[!-~]*)*) ([0-9a-f]{8})$")


@dataclass(frozen=True, slots=True)
class Data:
    """`m-rig-<verb> key=value...` whose CRC is right; `crc` is that of the session up to here."""

    verb: str
    values: dict[str, str]
    crc: int


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
class Starting:
    """`m-timestamp-mode-...`: the first line after every reset."""


@dataclass(frozen=True, slots=True)
class Booted:
    """`m-init-done`: the firmware has started."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A line of ours that the session's CRC or the grammar refuses."""

    text: str


@dataclass(frozen=True, slots=True)
class Other:
    """Any other line: MLPerf Tiny's own, or noise."""

    text: str


Line = Data | Refusal | Fault | Ready | Starting | Booted | Corrupt | Other


def crc32(data: bytes, before: int = 0) -> int:
    """CRC-32 as in Ethernet and zlib of what `before` is the CRC of, and then `data`."""
    return zlib.crc32(data, before)


def encode(verb: str, *arguments: str | int) -> bytes:
    """One command, ready to send."""
    body = " ".join(["rig", verb, *map(str, arguments)]).encode("ascii")
    command = body + b" %08x%%" % crc32(body)
    assert len(command) <= COMMAND_BYTES, "longer than the firmware's buffer"
    return command


def session_crc(command: bytes, before: int) -> int:
    """CRC of a session after a command that `encode` made; `hello` begins a session.

    Args:
        command: with or without its `%`.
        before: the session's CRC so far; 0 from a reset to the first `hello`.
    """
    body, _, digits = command.removesuffix(b"%").rpartition(b" ")
    return (0 if body.startswith(b"rig hello ") else before) ^ int(digits, 16)


def parse_line(line: bytes, before: int) -> Line:
    """What one line (without its line end) says; never raises, whatever the bytes.

    Args:
        line: the bytes.
        before: CRC of the session so far: `session_crc` of a command, then that of each Data.
    """
    if line == b"m-ready":
        return Ready()
    if line.startswith(b"m-timestamp-mode-"):
        return Starting()
    if line == b"m-init-done":
        return Booted()
    if line.startswith(b"m-rig-"):
        match = _DATA.match(line)
        crc = crc32(line[:-9], before)
        if match is None or crc != int(match[3], 16):
            return Corrupt(_text(line))
        pairs = [pair.partition("=") for pair in match[2].decode("ascii").split(" ")[1:]]
        values = {key: value for key, _, value in pairs}
        if len(values) != len(pairs):
            return Corrupt(_text(line))
        return Data(match[1].decode("ascii"), values, crc)
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

    Raises LinkTimeout with the last bytes seen when the board falls silent (LinkGarbled when what
    came is no text), TargetFault when its fault handler reports, ResetLoop when it starts again and
    again, WireError for a refusal, a wrong CRC, a reply that lacks something, or a restart.

    Before `hello` was answered other lines are skipped: a board that starts may send noise, and one
    that restarts its boot message again. From then on every line has its turn.

    Args:
        link: an open link; the wire does not close it.
        place: name of the place, for messages.
        nonce: below 2**32, other than that of earlier sessions whose answers may still come.
    """

    def __init__(self, link: Link, place: str, *, nonce: int = 0) -> None:
        self._link, self._place, self._nonce = link, place, nonce
        self._received = b""  # not yet a whole line
        self._last = b""  # for the message of a timeout
        self._begin_waiting()
        self._said = 0  # CRC of the session so far
        self._in_session = False  # hello was answered
        self._starts = 0  # that nobody asked for

    def wait_boot(self, timeout_s: float) -> None:
        """Returns when the firmware has started and is ready for a command."""
        deadline = time.monotonic() + timeout_s
        booted = False
        self._begin_waiting(most_garbled=MOST_GARBLED_BYTES)
        while True:
            line = self._line(deadline, timeout_s, "boot message")
            if isinstance(line, Starting):
                self._count_start()
            elif isinstance(line, Booted):
                booted = True
            elif isinstance(line, Ready) and booted:
                return
            elif isinstance(line, Fault):
                raise TargetFault(self._place, line.report)

    def hello(self) -> Hello:
        """Identity of the firmware; raises WireError when it speaks another protocol version."""
        self._in_session = False
        data = self._one("hello", f"{self._nonce:08x}")
        proto = _integer(data, "proto")
        if proto != PROTOCOL:
            raise WireError(f"protocol version {proto}, this rig speaks {PROTOCOL}", _show(data))
        self._in_session = True
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
        """Fills the inputs with the stream of `seed` (32 bits); returns the CRC-32 of the bytes."""
        return _integer(self._one("seed", seed), "crc", base=16)

    def check(self, seed: int, count: int, *, timeout_s: float) -> list[tuple[int, int]]:
        """Runs one inference for each of `count` seeds from `seed` on; `timeout_s` is for one.

        Returns:
            CRC-32 of the bytes of the inputs, and of those of the outputs.
        """
        replies = self._command("check", seed, count, timeout_s=timeout_s, count=count)
        return [(_integer(r, "in", base=16), _integer(r, "out", base=16)) for r in replies]

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

    def mlperf(self, command: str, *, timeout_s: float) -> list[str]:
        """The lines that answer a command of MLPerf Tiny's, without `m-ready`; they carry no CRC.

        `timeout_s` is for each line. Raises WireError when the board refuses.
        """
        words = command[:20]
        self._begin_waiting()
        self._link.write(command.encode("ascii") + b"%")
        lines: list[str] = []
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._line(deadline, timeout_s, f"answer to {words!r}")
            if isinstance(line, Ready):
                return lines
            if isinstance(line, Fault):
                raise TargetFault(self._place, line.report)
            if isinstance(line, Starting | Booted):
                raise self._restarted(words)
            if not isinstance(line, Other):
                raise WireError(f"a line that is no answer to {words!r}", str(line))
            if line.text.startswith("e-["):
                raise WireError(f"{words!r} was refused", line.text)
            lines.append(line.text)
            deadline = time.monotonic() + timeout_s

    def window(self) -> tuple[int, int, int]:
        """(inferences, start, end) of the last `infer`; microseconds since reset, in 64 bits."""
        data = self._one("window")
        return tuple(_integer(data, key) for key in ("inferences", "start_us", "end_us"))  # type: ignore[return-value]

    def reset(self, timeout_s: float = REPLY_S) -> None:
        """Resets the chip and waits until the firmware has started again: a new session."""
        self._one("reset")
        self._said = self._starts = 0
        self._in_session = False
        self.wait_boot(timeout_s)

    def _one(self, verb: str, *arguments: str | int) -> Data:
        return self._command(verb, *arguments, timeout_s=REPLY_S, count=1)[0]

    def _command(
        self, verb: str, *arguments: str | int, timeout_s: float, count: int
    ) -> list[Data]:
        """Sends one command and gives its `count` data lines, numbered by `i` if several.

        `timeout_s` is for each line.
        """
        command = encode(verb, *arguments)
        self._said = session_crc(command, self._said)
        self._begin_waiting()
        self._link.write(command)
        replies: list[Data] = []
        refused: WireError | None = None
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._line(deadline, timeout_s, f"answer to {verb!r}")
            if isinstance(line, Data):
                if line.verb != verb or line.values.get("i", str(len(replies))) != str(
                    len(replies)
                ):
                    raise WireError(f"not an answer to {verb!r} in its turn", _show(line))
                replies.append(line)
                self._said = line.crc
                if len(replies) > count:
                    raise WireError(f"more than {count} lines for {verb!r}", _show(line))
                deadline = time.monotonic() + timeout_s
            elif isinstance(line, Ready):
                if refused is not None:
                    raise refused
                if replies and len(replies) < count:
                    raise WireError(f"{len(replies)} of {count} lines for {verb!r}", "m-ready")
                if replies:
                    return replies
                if self._in_session:
                    raise WireError(f"no answer to {verb!r}", "m-ready")
            elif isinstance(line, Refusal):
                why = f"{verb!r} was refused ({line.code})"
                refused = WireError(why, line.text, code=line.code)
            elif isinstance(line, Fault):
                raise TargetFault(self._place, line.report)
            elif isinstance(line, Corrupt):
                raise WireError(f"corrupt answer to {verb!r}", line.text)
            elif isinstance(line, Starting | Booted) and self._in_session:
                raise self._restarted(verb)
            elif isinstance(line, Starting):
                self._count_start()
            elif isinstance(line, Other) and line.text and (replies or self._in_session):
                raise WireError(f"a line that is no answer to {verb!r}", line.text)

    def _count_start(self) -> None:
        self._starts += 1
        if self._starts > STARTS_TOLERATED:
            raise ResetLoop(self._place, f"it has started {self._starts} times in a row")

    def _restarted(self, verb: str) -> WireError | ResetLoop:
        """What a start in the middle of a session was: one, or one of many."""
        starts = 1
        deadline = time.monotonic() + RESTART_WATCH_S
        while starts < LOOPED_STARTS:
            try:
                starts += isinstance(self._line(deadline, RESTART_WATCH_S, "restart"), Starting)
            except LinkTimeout:
                seen = f"the board restarted while it answered {verb!r}"
                return WireError(seen, "m-timestamp-mode-...")
        return ResetLoop(self._place, f"it has started {starts} times while it answered {verb!r}")

    def _begin_waiting(self, most_garbled: float = math.inf) -> None:
        self._bytes = self._odd_bytes = 0  # since then; odd ones are no text
        self._most_garbled = most_garbled

    def _line(self, deadline: float, timeout_s: float, waiting_for: str) -> Line:
        # The deadline holds for a board that chatters, too: it is checked before every line.
        while remaining(deadline) == 0.0 or b"\n" not in self._received:
            data = self._link.read(remaining(deadline))
            self._last = (self._last + data)[-200:]
            self._bytes += len(data)
            self._odd_bytes += sum(byte not in _TEXT for byte in data)
            is_garbled = self._odd_bytes > GARBLED_SHARE * self._bytes
            is_hopeless = is_garbled and self._bytes >= self._most_garbled
            if remaining(deadline) == 0.0 or is_hopeless:
                kind = LinkGarbled if is_garbled else LinkTimeout
                raise kind(self._link.port, timeout_s, self._last, waiting_for)
            self._received += data
            if b"\n" not in self._received and len(self._received) > LINE_BYTES:
                self._received = b""
        line, _, self._received = self._received.partition(b"\n")
        return parse_line(line.removesuffix(b"\r"), self._said)


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
