"""Byte streams as bad lines make them: noise, and what becomes of good streams on the way."""

from __future__ import annotations

import random

#: What both ends of the serial protocol look for.
TOKENS = (
    b"m-rig-", b"m-ready\r\n", b"m-init-done\r\n", b"m-timestamp-mode-", b"e-[", b"]\r\n", b"\r\n",
    b"e-[fault ", b"e-[rig ", b"rig ", b"db ", b"infer ", b"hello", b"seed", b"in", b"run", b"out",
    b"layers", b"mem", b"time", b"reset", b"%", b" ", b"=", b"i=0", b"cycles=", b"00000000",
    b"ffffffff", b"4294967296", b"-1", b"\x00",
)  # fmt: skip


def noise(rng: random.Random, most_bytes: int = 400) -> bytes:
    """Bytes of any kind, or text, or the protocol's own words in any order."""
    kind = rng.randrange(3)
    size = rng.randrange(most_bytes)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return bytes(rng.choices(range(0x20, 0x7F), k=size))
    return b"".join(rng.choices(TOKENS, k=size // 6))


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to four things done to them that happen on a line; never as they were."""
    for _ in range(100):
        changed = data
        for _ in range(rng.randint(1, 4)):
            changed = rng.choice(_CHANGES)(rng, changed)
        if changed != data:
            return changed
    return data + b"\x00"


def _flip_bits(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + bytes(b ^ 1 << rng.randrange(8) for b in data[at : at + 1]) + data[at + 1 :]


def _replace(rng: random.Random, data: bytes) -> bytes:
    at, size = rng.randrange(len(data) or 1), rng.randint(1, 4)
    return data[:at] + rng.randbytes(size) + data[at + size :]


def _lose(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + data[at + rng.choice((1, 1, 2, 16, 100)) :]


def _double(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    end = at + rng.choice((1, 1, 2, 16, 100))
    return data[:end] + data[at:]


def _swap(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + data[at + 1 : at + 2] + data[at : at + 1] + data[at + 2 :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at] + rng.choice((rng.choice(TOKENS), rng.randbytes(rng.randint(1, 8)))) + data[at:]
    )


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _merge(rng: random.Random, data: bytes) -> bytes:
    """Two places of the stream, with what lies between them gone or told again in front of it."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] + data[b:] if rng.random() < 0.5 else data[:b] + data[a:]


def _shuffle_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    at = rng.randrange(len(lines) - 1)
    change = rng.randrange(3)
    if change == 0:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    elif change == 1:
        lines.insert(at, lines[at])
    else:
        del lines[at]
    return b"".join(lines)


_CHANGES = (
    _flip_bits, _replace, _lose, _double, _swap, _insert, _truncate, _merge, _shuffle_lines,
)  # fmt: skip
