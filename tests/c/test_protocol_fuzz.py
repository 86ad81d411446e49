"""The firmware's end of the protocol on the host, under sanitizers, against any stream of bytes.

Nothing crashes, hangs, or is left without an answer, and a command of ours is carried out only if
its CRC is right, so never one that was spoilt on the way. protocol_fuzz.c says how to run the same
firmware guided by coverage.
"""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streams import noise, spoilt

from hil.build import FIRMWARE_DIR
from hil.wire import encode

HERE = Path(__file__).resolve().parent
FLAGS = (
    "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Werror",
    "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all",
    f"-I{FIRMWARE_DIR / 'include'}", f"-I{FIRMWARE_DIR / 'src'}", '-DHIL_BOARD="host"',
)  # fmt: skip
#: Flags of each build: stub models of protocol_fuzz.c.
STUBS = {
    "autoencoder": ("-DSTUB=0", "-DHIL_MLPERF_DATA"),
    "autoencoder, no room": ("-DSTUB=0", "-DHIL_MLPERF_DATA", "-DNO_ROOM"),
    "all types, no room": ("-DSTUB=1", "-DNO_ROOM"),
    "energy mode": ("-DSTUB=2", "-DHIL_MLPERF_DATA", "-DHIL_MLPERF_ENERGY"),
}
COMMAND_BYTES, TOKENS = 600, 6
_TEXT = re.compile(rb"[\r\n -~]*")

Make = Callable[[random.Random], bytes]


@pytest.fixture(scope="module", params=STUBS)
def firmware(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filter: streams in, answers out."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc for this machine; install one (Debian: apt install gcc) to run this")
    folder = tmp_path_factory.mktemp("fuzz")
    flags = (gcc, *FLAGS, *STUBS[request.param])
    chips = ("startup.c", "fault.c")
    sources = [path for path in (FIRMWARE_DIR / "src").glob("*.c") if path.name not in chips]
    shim = ("-include", HERE / "cortex_m_host.h")
    subprocess.run([*flags, *shim, "-c", *sources], cwd=folder, check=True)
    program = folder / "fuzz"
    harness = HERE / "protocol_fuzz.c"
    subprocess.run([*flags, harness, *folder.glob("*.o"), "-o", program], check=True)
    return program


def any_command(rng: random.Random) -> bytes:
    """A command that the grammar allows; ours with its CRC."""
    number = rng.choice((0, 1, 2, 3, 9, 64, 255, 256, 2**31, 2**32 - 1, 2**32, rng.getrandbits(9)))
    size = rng.choice((0, 1, 4, 10, 48, 64, 256, 257))
    digits = rng.randbytes(size).hex()[: rng.choice((600, 600, 2 * size - 1))]
    arguments: dict[str, tuple[object, ...]] = {
        "hello": (f"{rng.getrandbits(32):08x}",),
        "seed": (number,),
        "in": (rng.choice((0, 1, 40, 47, 256, number)), digits[:512]),
        "run": (rng.choice((1, 2, 3, number)),),
        "layers": (),
        "out": (rng.choice((0, 1, 8, number)), rng.choice((0, 1, 10, 23, 48, 256, number))),
        "mem": (),
        "time": (),
        "window": (),
        "check": (number, rng.choice((1, 2, 3, number))),
        "reset": (),
        "walk": (number,),
    }
    if rng.random() < 0.6:
        verb = rng.choice(sorted(arguments))
        tokens = arguments[verb]
        if rng.random() < 0.1:
            tokens = (*tokens, number)[rng.randrange(2) :]
        return encode(verb, *map(str, tokens))
    texts = (
        "name", "timestamp", "profile", "help", "results", "db", "db print", "infer",
        f"infer {number}", f"infer {number} {number % 7}", "infer 1 0", "infer 2 1",
        f"db load {rng.choice((40, 48, 192, 300, number))}", f"db load {4 * size}", f"db {digits}",
        f"db {digits}", f"db {digits} {number}", "db 00000000", "db " + "7f" * 300,
    )  # fmt: skip
    return rng.choice(texts).encode() + b"%"


def dialogue(rng: random.Random) -> bytes:
    """Some commands, one after another."""
    return b"".join(any_command(rng) for _ in range(rng.randint(1, 12)))


def spoilt_dialogue(rng: random.Random) -> bytes:
    """What may be left of a dialogue on its way."""
    return spoilt(rng, dialogue(rng))


KINDS: dict[str, Make] = {
    "noise": lambda rng: noise(rng, 1500),
    "grammar": dialogue,
    "spoilt": spoilt_dialogue,
}


def answers(program: Path, streams: list[bytes]) -> list[tuple[bool, bytes]]:
    """For each stream: whether the firmware was stopped in the middle, and what it sent."""
    fed = b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)
    ran = subprocess.run([program], input=fed, capture_output=True, timeout=120)
    found = []
    rest = memoryview(ran.stdout)
    while len(rest) >= 5:
        is_stopped, size = struct.unpack("<BI", rest[:5])
        found.append((bool(is_stopped), bytes(rest[5 : 5 + size])))
        rest = rest[5 + size :]
    if ran.returncode != 0 or len(found) != len(streams):
        last = streams[len(found)] if len(found) < len(streams) else b""
        raise AssertionError(
            f"exit code {ran.returncode} at stream {len(found)}: {last!r}\n{ran.stderr.decode()}"
        )
    return found


def is_ours(command: bytes) -> bool:
    """Whether it is a command of ours whose CRC is right."""
    body, _, digits = command.rpartition(b" ")
    return (
        len(command) <= COMMAND_BYTES
        and command.count(b" ") < TOKENS
        and body.split(b" ")[0] == b"rig"
        and re.fullmatch(rb"[0-9a-fA-F]{8}", digits) is not None
        and int(digits, 16) == zlib.crc32(body)
    )


def carried_out(stream: bytes, is_stopped: bool, sent: bytes) -> Iterator[bytes]:
    """The commands of ours that were not refused; checks that each command has its answer."""
    assert _TEXT.fullmatch(sent), "only text is sent"
    *replies, unfinished = sent.split(b"m-ready\r\n")
    replies = [reply for reply in replies if not reply.startswith(b"m-timestamp-mode-")]
    commands = stream.split(b"%")[:-1]
    if is_stopped:
        assert len(replies) < len(commands)
    else:
        assert (len(replies), unfinished) == (len(commands), b"")
    for command, reply in zip(commands, replies, strict=False):
        if reply.startswith(b"m-rig-"):
            assert is_ours(command), f"{command!r} was carried out: {reply!r}"
            assert reply.startswith(b"m-rig-" + command.split(b" ")[1])
            yield command
        elif is_ours(command):
            assert reply.startswith(b"e-[rig "), f"{command!r} was answered {reply!r}"


def fuzz(program: Path, make: Make, seed: int, count: int) -> tuple[int, int]:
    """(streams, commands of ours that were carried out)."""
    rng = random.Random(seed)
    streams = [make(rng) for _ in range(count)]
    done = 0
    for stream, (is_stopped, sent) in zip(streams, answers(program, streams), strict=True):
        done += sum(1 for _ in carried_out(stream, is_stopped, sent))
    return count, done


@pytest.mark.parametrize("load", [b"", b"db load 1%", b"db load 4294967295%"])
def test_bytes_without_a_load_that_was_accepted_spoil_nothing(firmware, load):
    """Until all of the model's inputs are there, no inference uses them."""
    ((_, sent),) = answers(firmware, [load + b"db 00112233%infer 1 0%"])

    assert b"e-[More bytes than announced]" in sent or b"e-[Inputs incomplete" in sent


@pytest.mark.parametrize("kind", KINDS)
def test_no_stream_crashes_the_firmware_or_is_believed_when_spoilt(firmware, kind):
    _, done = fuzz(firmware, KINDS[kind], 1, 300)

    assert (done > 0) == (kind != "noise")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_streams_do_not_either(firmware, kind):
    for seed in range(100, 105):
        fuzz(firmware, KINDS[kind], seed, 2_000)
