"""The host's end of the protocol against lines that spoil what a board says, and what it hears.

Whatever comes, a verb gives what the board really did for that very command, or a typed error:
never another number, never anything else, never for longer than its deadline. Time is the link's:
it passes while somebody waits.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from streams import noise, spoilt

from hil import wire
from hil.errors import HilError
from hil.wire import CHUNK_BYTES, Hello, Memory, Wire

IN_BYTES = OUT_BYTES = CHUNK_BYTES + 44  # two chunks
LAYERS = 3
HELLO = Hello(
    proto=wire.PROTOCOL,
    board="nrf52840_dk",
    engine="tiny",
    build="0123456789abcdef",
    model="ab" * 32,
    clock_hz=64_000_000,
    in_bytes=IN_BYTES,
    out_bytes=OUT_BYTES,
    layers=LAYERS,
    arena_bytes=512,
    store_bytes=1000,
)
READY = b"m-ready\r\n"
BOOT = b"m-timestamp-mode-performance\r\nm-lap-us-7\r\nm-init-done\r\n" + READY
SILENCE_S = 0.5
READS = 3000  # in one session, many times what the longest needs
SPOILT_SHARE = 0.1  # of commands: then one session in four reaches its end


class Board:
    """A firmware without faults, and what it did.

    Attributes:
        done: (verb, numbers) of each command that was carried out.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.done: list[tuple[str, Any]] = []
        self._said = 0
        self._inputs = bytearray(IN_BYTES)
        self._outputs = bytes(OUT_BYTES)

    def restart(self) -> bytes:
        """The boot message."""
        self._said = 0
        return BOOT

    def answer(self, command: bytes) -> bytes:
        """All lines for a command without its `%`."""
        body, _, digits = command.rpartition(b" ")
        tokens = body.split(b" ")
        if command == b"infer 2 0":
            self.done.append(("infer", None))
            return b"m-infer-start-2\r\nm-infer-done\r\nm-results-[0.000]\r\n" + READY
        if tokens[0] != b"rig":
            return b"e-[Unknown command: ?]\r\n" + READY
        if digits != b"%08x" % zlib.crc32(body):
            return b"e-[rig unknown: crc: the last token should be the CRC-32]\r\n" + READY
        verb, arguments = tokens[1].decode(), tokens[2:]
        self._said = (0 if verb == "hello" else self._said) ^ int(digits, 16)
        texts, result = getattr(self, f"_do_{verb}")(*arguments)
        self.done.append((verb, result))
        lines = b"".join(self._line(verb, text) for text in texts)
        return lines + READY + (self.restart() if verb == "reset" else b"")

    def _line(self, verb: str, text: str) -> bytes:
        body = f"m-rig-{verb}{text and ' '}{text}".encode()
        self._said = zlib.crc32(body, self._said)
        return body + b" %08x\r\n" % self._said

    def _numbers(self, names: tuple[str, ...], bits: int = 32) -> dict[str, int]:
        return {name: self._rng.getrandbits(bits) for name in names}

    def _do_hello(self, nonce: bytes) -> tuple[list[str], Hello]:
        fields = {name: getattr(HELLO, name) for name in Hello.__dataclass_fields__}
        return [" ".join(f"{key}={value}" for key, value in fields.items())], HELLO

    def _do_seed(self, seed: bytes) -> tuple[list[str], int]:
        self._inputs[:] = random.Random(int(seed)).randbytes(IN_BYTES)
        crc = zlib.crc32(self._inputs)
        return [f"crc={crc:08x}"], crc

    def _do_check(self, first: bytes, count: bytes) -> tuple[list[str], list[tuple[int, int]]]:
        crcs = [(self._rng.getrandbits(32), self._rng.getrandbits(32)) for _ in range(int(count))]
        return [f"i={i} in={a:08x} out={b:08x}" for i, (a, b) in enumerate(crcs)], crcs

    def _do_in(self, offset: bytes, digits: bytes) -> tuple[list[str], None]:
        data = bytes.fromhex(digits.decode())
        self._inputs[int(offset) : int(offset) + len(data)] = data
        return [f"n={len(data)}"], None

    def _do_run(self, repeats: bytes) -> tuple[list[str], list[int]]:
        cycles = [self._rng.getrandbits(40) for _ in range(int(repeats))]
        self._outputs = self._rng.randbytes(OUT_BYTES)
        return [f"i={i} cycles={n}" for i, n in enumerate(cycles)], cycles

    def _do_layers(self) -> tuple[list[str], list[int]]:
        cycles = [self._rng.getrandbits(20) for _ in range(LAYERS)]
        return [f"i={i} cycles={n}" for i, n in enumerate(cycles)], cycles

    def _do_out(self, offset: bytes, size: bytes) -> tuple[list[str], bytes]:
        data = self._outputs[int(offset) : int(offset) + int(size)]
        return [f"offset={int(offset)} hex={data.hex()}"], data

    def _do_mem(self) -> tuple[list[str], Memory]:
        numbers = self._numbers(tuple(Memory.__dataclass_fields__), 20)
        return [" ".join(f"{key}={n}" for key, n in numbers.items())], Memory(**numbers)

    def _do_time(self) -> tuple[list[str], tuple[int, int]]:
        us, cycles = self._rng.getrandbits(32), self._rng.getrandbits(32)
        return [f"coarse_us={us} cycles={cycles}"], (us, cycles)

    def _do_window(self) -> tuple[list[str], tuple[int, int, int]]:
        numbers = self._numbers(("inferences", "start_us", "end_us"), 64)
        window = (numbers["inferences"], numbers["start_us"], numbers["end_us"])
        return [" ".join(f"{key}={n}" for key, n in numbers.items())], window

    def _do_reset(self) -> tuple[list[str], None]:
        return [""], None


#: (random numbers, board, a command) -> what the host gets to read for it.
Line = Callable[[random.Random, Board, bytes], bytes]


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def remaining(self, deadline: float) -> float:
        return max(0.0, deadline - self.now)


class BadLink:
    """A link over which a board is heard as `line` says."""

    port = "/dev/fake"

    def __init__(self, rng: random.Random, board: Board, line: Line, clock: Clock) -> None:
        self._rng, self._board, self._line, self._clock = rng, board, line, clock
        self._coming = board.restart()
        self._reads = 0

    def write(self, data: bytes) -> None:
        assert data.endswith(b"%") and data.count(b"%") == 1
        self._coming += self._line(self._rng, self._board, data)

    def read(self, timeout_s: float) -> bytes:
        self._reads += 1
        assert self._reads < READS, "the host hangs"
        if not self._coming:
            self._clock.now += timeout_s
            return b""
        self._clock.now += 1e-5
        size = self._rng.choice((1, 7, 64, 4096))
        data, self._coming = self._coming[:size], self._coming[size:]
        return data

    def discard(self) -> None:
        self._coming = b""

    def close(self) -> None:
        raise AssertionError("the wire does not close its link")


def _measure(talk: Wire) -> list[tuple[str, int, Callable[[], Any]]]:
    """(verb, commands, call) of all that a measurement asks for."""
    chunks = -(-OUT_BYTES // CHUNK_BYTES)
    return [
        ("hello", 1, talk.hello),
        ("check", 1, lambda: talk.check(1, 4, timeout_s=SILENCE_S)),
        ("seed", 1, lambda: talk.seed(7)),
        ("run", 1, lambda: talk.run(1, timeout_s=SILENCE_S)),
        ("out", chunks, lambda: talk.outputs(OUT_BYTES)),
        ("in", chunks, lambda: talk.feed(b"\x5a" * IN_BYTES)),
        ("run", 1, lambda: talk.run(1, timeout_s=SILENCE_S)),
        ("time", 1, talk.time),
        ("run", 1, lambda: talk.run(5, timeout_s=SILENCE_S)),
        ("time", 1, talk.time),
        ("out", chunks, lambda: talk.outputs(OUT_BYTES)),
        ("mem", 1, talk.memory),
        ("infer", 1, lambda: talk.mlperf("infer 2 0", timeout_s=SILENCE_S)),
        ("window", 1, talk.window),
        ("layers", 1, lambda: talk.layers(LAYERS, timeout_s=SILENCE_S)),
        ("reset", 1, lambda: talk.reset(SILENCE_S)),
        ("hello", 1, talk.hello),
        ("run", 1, lambda: talk.run(2, timeout_s=SILENCE_S)),
    ]


def _truth(verb: str, done: list[tuple[str, Any]]) -> Any:
    assert {name for name, _ in done} == {verb}, f"{verb} was answered, but {done} was done"
    results = [result for _, result in done]
    return b"".join(results) if verb == "out" else results[0]


def session(seed: int, line: Line, seen: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One session over a bad line, up to its first error."""
    rng, clock = random.Random(seed), Clock()
    monkeypatch.setattr(wire, "time", clock)
    monkeypatch.setattr(wire, "remaining", clock.remaining)
    board = Board(rng)
    talk = Wire(BadLink(rng, board, line, clock), "desk", nonce=rng.getrandbits(32))
    try:
        talk.wait_boot(SILENCE_S)
        for verb, commands, call in _measure(talk):
            first = len(board.done)
            answer = call()
            if verb == "infer":  # nothing is taken from its lines, which have no CRC
                continue
            assert answer == _truth(verb, board.done[first : first + commands])
            seen["accepted"] += 1
    except HilError as error:
        assert len(str(error)) < 4000
        seen[type(error).__name__] += 1


def whole(rng: random.Random, board: Board, data: bytes) -> bytes:
    """As it should be."""
    return board.answer(data[:-1])


def only_noise(rng: random.Random, board: Board, data: bytes) -> bytes:
    """Something else than the answer."""
    answer = board.answer(data[:-1])
    return noise(rng) + rng.choice((b"", b"\r\n", READY)) if rng.random() < SPOILT_SHARE else answer


def noise_beside(rng: random.Random, board: Board, data: bytes) -> bytes:
    """Noise before, behind or in the middle of the answer."""
    answer = board.answer(data[:-1])
    at = rng.choice((0, len(answer), rng.randrange(len(answer))))
    return answer[:at] + noise(rng, 80) + answer[at:] if rng.random() < SPOILT_SHARE else answer


def spoilt_answers(rng: random.Random, board: Board, data: bytes) -> bytes:
    """Bits, bytes or lines of the answer changed, lost, doubled, swapped, cut off."""
    answer = board.answer(data[:-1])
    return spoilt(rng, answer) if rng.random() < SPOILT_SHARE else answer


def spoilt_commands(rng: random.Random, board: Board, data: bytes) -> bytes:
    """The same of what the board hears; it may hear several commands, or none that ends."""
    if rng.random() < SPOILT_SHARE:
        data = rng.choice((spoilt(rng, data), b"", data * 2, noise(rng, 60) + data))
    return b"".join(board.answer(command) for command in data.split(b"%")[:-1])


class Late:
    """Answers that come with a later one, again, from an earlier session, or after a restart."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def __call__(self, rng: random.Random, board: Board, data: bytes) -> bytes:
        answer = board.answer(data[:-1])
        self._kept = [*self._kept[-30:], answer]
        old = rng.choice(self._kept)
        if rng.random() > SPOILT_SHARE:
            return answer
        end = rng.randrange(len(answer))
        return rng.choice(
            (
                b"",
                old,
                old + answer,
                answer + old,
                answer[:end] + old,
                board.restart() + answer,
                board.restart() + board.answer(data[:-1]),
                answer[:end] + board.restart(),
                b"".join(reversed(answer.splitlines(keepends=True))),
            )
        )


def forged(rng: random.Random, board: Board, data: bytes) -> bytes:
    """Lines that the grammar allows, for this verb or another, each with a CRC of its own."""
    answer = board.answer(data[:-1])
    if rng.random() > SPOILT_SHARE:
        return answer
    verb = rng.choice((data.split(b" ")[1].decode(), "run", "out", "mem", "time", "layers"))
    lines = []
    for number in range(rng.randrange(1, 7)):
        values = {
            "i": str(number),
            "cycles": str(rng.getrandbits(rng.choice((1, 31, 64, 70)))),
            "offset": "0",
            "n": str(CHUNK_BYTES),
            "hex": rng.randbytes(rng.choice((0, 44, CHUNK_BYTES))).hex(),
            "crc": f"{rng.getrandbits(32):08x}",
            "coarse_us": str(rng.getrandbits(32)),
        }
        chosen = rng.sample(sorted(values), rng.randrange(1, len(values) + 1))
        body = f"m-rig-{verb} " + " ".join(f"{key}={values[key]}" for key in chosen)
        crc = zlib.crc32(body.encode(), rng.choice((0, 0xFFFFFFFF, rng.getrandbits(32))))
        lines.append(rng.choice((body, f"e-[fault {body}]", f"e-[rig {verb}: crc: x]", "m-ready")))
        if lines[-1] == body:
            lines[-1] += f" {crc:08x}"
    return "".join(f"{line}\r\n" for line in lines).encode() + rng.choice((READY, answer, b""))


LINES: tuple[Callable[[], Line], ...] = (
    lambda: only_noise,
    lambda: noise_beside,
    lambda: spoilt_answers,
    lambda: spoilt_commands,
    Late,
    lambda: forged,
)
NAMES = ("noise", "noise beside", "spoilt answers", "spoilt commands", "late", "forged")


def _fuzz(
    line: Line, seeds: range, monkeypatch: pytest.MonkeyPatch, *, errors: bool = True
) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            session(seed, line, seen, monkeypatch)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    accepted = seen.pop("accepted")
    print(f"{len(seeds):,} sessions, {accepted:,} right answers, {dict(seen)}")
    assert accepted > len(seeds)
    assert bool(seen) == errors


def test_every_verb_gives_what_the_board_did(monkeypatch):
    _fuzz(whole, range(20), monkeypatch, errors=False)


@pytest.mark.parametrize("make_line", LINES, ids=NAMES)
def test_no_bad_line_makes_a_wrong_number(make_line, monkeypatch):
    _fuzz(make_line(), range(150), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("make_line", LINES, ids=NAMES)
def test_no_bad_line_makes_a_wrong_number_in_many_sessions(make_line, monkeypatch):
    _fuzz(make_line(), range(1_000, 1_000 + 17_000), monkeypatch)
