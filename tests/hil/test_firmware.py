"""The bench firmware itself, on the virtual boards, over its serial port."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from hil.board import board_ids, get_board
from hil.build import FIRMWARE_DIR, build
from hil.errors import TargetFault, WireError
from hil.link import SerialLink
from hil.platformio_core import prepare_core_dir
from hil.virtual.place import VirtualPlace
from hil.wire import PROTOCOL, Wire, crc32, encode

ECHO = FIRMWARE_DIR / "models" / "echo"
NRF = get_board("nrf52840_dk")
BOOT_S = 20.0


class Session:
    """A flashed board that has started: its wire, and its link for what the wire never sends."""

    def __init__(self, place: VirtualPlace, elf: Path, stack: contextlib.ExitStack) -> None:
        self.place = place
        place.flash(elf)
        self.link = SerialLink(place.port, place.board.link.baud)
        stack.callback(self.link.close)
        self.wire = Wire(self.link, place.name)
        place.reset()
        self.wire.wait_boot(BOOT_S)

    def ask(self, command: bytes) -> list[str]:
        """The lines of an answer, without the final m-ready."""
        self.link.write(command)
        received = b""
        deadline = time.monotonic() + BOOT_S
        while not received.endswith(b"m-ready\r\n") and time.monotonic() < deadline:
            received += self.link.read(0.1)
        assert received.endswith(b"m-ready\r\n"), received
        return received.decode("ascii").split("\r\n")[:-2]

    def rig(self, *tokens: object) -> list[str]:
        """As `ask`; the wire's session is broken then, until it says hello again."""
        return self.ask(encode(str(tokens[0]), *map(str, tokens[1:])))


@pytest.fixture(scope="module", params=board_ids())
def echo_board(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The echo model on each board; tests leave it ready for a command."""
    board = get_board(request.param)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(VirtualPlace(board))
        yield Session(place, build(ECHO, board).elf, stack)


@pytest.fixture
def echo(echo_board: Session) -> Session:
    """A session of its own with the echo model, on each board."""
    echo_board.wire.hello()
    return echo_board


class Start(Protocol):
    def __call__(self, edits: dict[str, str], *, mlperf: bool = False) -> Session: ...


@pytest.fixture(scope="module")
def builds_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builds")


@pytest.fixture
def start(tmp_path: Path, builds_dir: Path) -> Iterator[Start]:
    """A function that flashes an edited echo model onto an nRF52840 DK."""
    with contextlib.ExitStack() as stack:

        def start_edited(edits: dict[str, str], *, mlperf: bool = False) -> Session:
            model_dir = Path(shutil.copytree(ECHO, tmp_path / "model"))
            text = (model_dir / "model.c").read_text()
            for old, new in edits.items():
                assert old in text
                text = text.replace(old, new)
            (model_dir / "model.c").write_text(text)
            firmware = build(model_dir, NRF, mlperf=mlperf, builds_dir=builds_dir)
            return Session(stack.enter_context(VirtualPlace(NRF)), firmware.elf, stack)

        yield start_edited


def stream(seed: int, size: int) -> bytes:
    """The bytes that `seed` stands for, as firmware/README.md describes them."""
    x = (seed ^ 0x9E3779B9) or 1
    data = b""
    while len(data) < size:
        x = (x ^ x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x = (x ^ x << 5) & 0xFFFFFFFF
        data += x.to_bytes(4, "little")
    return data[:size]


def test_hello_says_what_runs(echo: Session) -> None:
    hello = echo.wire.hello()

    board = echo.place.board
    assert (hello.board, hello.engine, hello.model) == (board.id, "none", "0" * 64)
    assert hello.build == build(ECHO, board).build_id
    assert hello.clock_hz == board.mcu.clock_hz
    assert (hello.in_bytes, hello.out_bytes, hello.layers, hello.arena_bytes) == (64, 64, 1, 128)
    assert board.ram_bytes - 8192 < hello.store_bytes < board.ram_bytes - 4096


@pytest.mark.parametrize("seed", [0, 1, 0x9E3779B9, 0xFFFFFFFF])
def test_a_seed_fills_the_inputs_with_its_stream(echo: Session, seed: int) -> None:
    crc = echo.wire.seed(seed)
    echo.wire.run(1, timeout_s=5.0)

    assert crc == crc32(stream(seed, 64))
    assert echo.wire.outputs(64) == stream(seed, 64)


def test_a_check_runs_the_inputs_of_every_seed(echo: Session) -> None:
    crcs = echo.wire.check(2**32 - 1, 3, timeout_s=5.0)

    of = [crc32(stream(seed, 64)) for seed in (2**32 - 1, 0, 1)]
    assert crcs == [(crc, crc) for crc in of]
    assert echo.wire.outputs(64) == stream(1, 64)


def test_inputs_survive_from_one_inference_to_the_next(echo: Session) -> None:
    data = bytes(range(64))
    echo.wire.feed(data)

    echo.wire.run(2, timeout_s=5.0)
    echo.wire.layers(1, timeout_s=5.0)

    assert echo.wire.outputs(64) == data


@pytest.mark.parametrize("board_id", board_ids())
def test_the_hosts_pace_does_not_show_in_the_cycles(board_id: str) -> None:
    board = get_board(board_id)
    elf = build(ECHO, board).elf
    figures = []
    for pause_s in (0.0, 0.05):
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(VirtualPlace(board))
            link = stack.enter_context(SerialLink(place.port, board.link.baud))
            place.flash(elf)  # and no reset, which would come at some moment of the start
            wire = Wire(link, place.name)
            wire.wait_boot(BOOT_S)
            wire.hello()
            time.sleep(pause_s)
            first = wire.run(5, timeout_s=5.0)
            time.sleep(pause_s)
            figures.append((first, wire.run(5, timeout_s=5.0)))

    assert figures[0] == figures[1]
    assert max(figures[0][1]) - min(figures[0][1]) <= 40  # what prints them takes room in caches


def test_layers_add_up_to_about_the_whole(echo: Session) -> None:
    (whole,) = echo.wire.run(1, timeout_s=5.0)
    (layer,) = echo.wire.layers(1, timeout_s=5.0)

    assert whole - 20 <= layer <= whole + 40  # caches are as what was printed before left them


def test_the_two_counters_agree(echo: Session) -> None:
    before_us, before_cycles = echo.wire.time()
    echo.wire.run(3, timeout_s=5.0)
    after_us, after_cycles = echo.wire.time()

    cycles = (after_cycles - before_cycles) % 2**32
    us = (after_us - before_us) % 2**32
    assert abs(cycles / (echo.place.board.mcu.clock_hz / 1e6) - us) <= 2


def test_memory_agrees_with_the_build(echo: Session) -> None:
    memory = echo.wire.memory()
    firmware = build(ECHO, echo.place.board)

    assert memory.data_bytes + memory.bss_bytes == firmware.static_bytes
    assert (memory.arena_bytes, memory.stack_bytes) == (firmware.arena_bytes, firmware.stack_bytes)
    assert 100 < memory.stack_peak_bytes < 1024


def test_a_reset_starts_anew(echo: Session) -> None:
    echo.wire.seed(3)
    echo.wire.run(1, timeout_s=5.0)
    echo.wire.reset(BOOT_S)

    assert echo.rig("out", 0, 1) == ["e-[rig out: state: no inference of these inputs yet]"]
    echo.wire.hello()
    echo.wire.run(1, timeout_s=5.0)
    assert echo.wire.outputs(64) == bytes(64)


@pytest.mark.parametrize(
    ("tokens", "refusal"),
    [
        (("seed", "-1"), "rig seed: args"),
        (("seed", 2**32), "rig seed: args"),
        (("seed", "1x"), "rig seed: args"),
        (("seed",), "rig seed: args"),
        (("hello",), "rig hello: args"),
        (("in", 0, "0"), "rig in: args"),
        (("in", 0, "0g"), "rig in: args"),
        (("in", 64, "00"), "rig in: args"),
        (("in", 63, "0000"), "rig in: args"),
        (("in", 2**32 - 1, "0000"), "rig in: args"),
        (("in", 0, ""), "rig in: args"),
        (("out", 0, 65), "rig out: args"),
        (("out", 65, 0), "rig out: args"),
        (("out", 2**32 - 1, 2), "rig out: args"),
        (("run", 0), "rig run: args"),
        (("run", ""), "rig run: args"),
        (("check", 1, 0), "rig check: args"),
        (("check", -1, 1), "rig check: args"),
        (("walk",), "rig walk: verb"),
        (("Hello",), "rig unknown: verb"),
    ],
)
def test_a_bad_command_is_refused_by_code(
    echo: Session, tokens: tuple[object, ...], refusal: str
) -> None:
    echo.wire.run(1, timeout_s=5.0)  # so that only the arguments are wrong

    (line,) = echo.rig(*tokens)

    assert line.startswith(f"e-[{refusal}: ")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (b"rig hello 0 00000000%", "e-[rig hello: crc: "),
        (b"rig hello%", "e-[rig hello: crc: "),
        (b"rig%", "e-[rig unknown: crc: "),
        (b"rig hello 7 fd40000%", "e-[rig hello: crc: "),
        (b"rig hello 7 fd40fd400%", "e-[rig hello: crc: "),
        (b"rig \x00\xff\r\n 0000%", "e-[rig unknown: crc: "),
        (encode("mem")[:-1] + b"\x00%", "e-[rig mem: crc: "),
        (encode("mem")[:-1] + b"\x00 and more%", "e-[rig mem: crc: "),
        (b"rig\x00 mem 0%", "e-[Unknown command: rig?]"),
        (b"%", "e-[Unknown command: ]"),
        (b"\x1b[2J%", "e-[Unknown command: ?[2J]"),
        (b"x" * 601 + b"%", "e-[Command too long]"),
        (b"a b c d e f g%", "e-[Command too long]"),
    ],
)
def test_noise_is_answered_and_changes_nothing(echo: Session, command: bytes, line: str) -> None:
    (answer,) = echo.ask(command)

    assert answer.startswith(line)
    assert echo.wire.hello().proto == PROTOCOL


def test_the_longest_command_is_taken(echo: Session) -> None:
    command = b"rig in 0 " + b"0" * (600 - len(b"rig in 0  00000000"))
    command += b" %08x" % crc32(command)
    assert len(command) == 600

    (line,) = echo.ask(command + b"%")

    assert line.startswith("e-[rig in: args: more than 256 bytes")


def test_an_mlperf_runner_is_served(echo: Session) -> None:
    assert echo.ask(b"name%") == [f"m-name-dut-[{echo.place.board.id}]"]
    assert echo.ask(b"profile%") == [
        "m-profile-[ULPMark for tinyML Firmware V0.0.1]",
        "m-model-[echo]",
    ]
    (lap,) = echo.ask(b"timestamp%")
    assert lap.removeprefix("m-lap-us-").isdigit()
    assert echo.ask(b"db load 64%") == ["m-[Expecting 64 bytes]"]
    assert echo.ask(b"db " + b"01" * 31 + b"%") == []
    assert echo.ask(b"db " + b"fe" * 31 + b"%") == []
    assert echo.ask(b"db 7F80%") == ["m-load-done"]
    assert echo.ask(b"db print%")[-1] == "m-buffer-fe-fe-fe-fe-fe-fe-7f-80"

    answer = echo.ask(b"infer 2 3%")

    assert answer[:3] == ["m-warmup-start-3", "m-warmup-done", "m-infer-start-2"]
    assert answer[3].startswith("m-lap-us-") and answer[4].startswith("m-lap-us-")
    assert answer[5] == "m-infer-done"
    expected = ["1.000"] * 31 + ["-2.000"] * 31 + ["127.000", "-128.000"]
    assert answer[6] == f"m-results-[{','.join(expected)}]"
    assert echo.ask(b"results%") == answer[6:]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (b"db load 65%", "e-[Supplied buffer size of 65, should be 64]"),
        (b"db load%", "e-[db load needs a number of bytes]"),
        (b"db%", "e-[db needs load, print or bytes]"),
        (b"db 0%", "e-[Insufficent number of hex digits]"),
        (b"db 0z%", "e-[Invalid hex digit]"),
        (b"infer%", "e-[Inputs incomplete: 0 of 64 bytes]"),
        (b"infer 0%", "e-[Inferences must be more than 0]"),
        (b"infer x%", "e-[infer takes two numbers]"),
    ],
)
def test_a_bad_mlperf_command_is_refused(echo: Session, command: bytes, error: str) -> None:
    echo.ask(b"db load 64%")
    if command.startswith(b"infer "):
        echo.ask(b"db " + bytes(64).hex().encode() + b"%")

    assert echo.ask(command) == [error]


def test_an_mlperf_load_that_went_wrong_lets_nothing_run(echo: Session) -> None:
    echo.ask(b"db load 64%")
    echo.ask(b"db " + b"07" * 64 + b"%")
    echo.ask(b"db load 63%")

    assert echo.ask(b"infer 1 0%") == ["e-[Inputs incomplete: 0 of 64 bytes]"]
    echo.ask(b"db load 64%")
    assert echo.ask(b"db " + b"08" * 64 + b"0909%") == ["m-load-done"]  # more: disregarded
    assert echo.ask(b"db 09%") == ["e-[More bytes than announced]"]
    assert echo.ask(b"infer%")[:3] == ["m-warmup-start-10", "m-warmup-done", "m-infer-start-1"]


def echo_as(start: Start, name: str) -> Session:
    session = start({'.name = "echo"': f'.name = "{name}"'}, mlperf=True)
    assert session.ask(b"profile%")[1] == f"m-model-[{name.partition('_')[0]}]"
    return session


def test_images_of_the_benchmark_are_unsigned_pixels(start: Start) -> None:
    session = echo_as(start, "ic01_mine")
    session.ask(b"db load 64%")

    assert session.ask(b"db " + bytes(range(96, 160)).hex().encode() + b"%") == ["m-load-done"]

    session.ask(b"infer 1 0%")
    assert session.wire.outputs(64) == bytes(pixel ^ 0x80 for pixel in range(96, 160))


def test_an_anomaly_is_told_by_its_reconstruction_error(start: Start) -> None:
    session = echo_as(start, "ad01")  # its scale is 1, its zero point 0
    values = [0.25, -0.25, 0.5, -0.5, 1.5, -200.0, 200.0, 0.4999999, *[3.0] * 56]
    data = struct.pack("<64f", *values)

    assert session.ask(b"db load 64%")[0].startswith("e-[Supplied buffer size of 64, should be 256")
    assert session.ask(b"db load 256%") == ["m-[Expecting 256 bytes]"]
    assert session.ask(b"db " + data.hex().encode() + b"%") == ["m-load-done"]
    results = session.ask(b"infer 1 0%")[-1]

    rounded = [0, 0, 1, -1, 2, -128, 127, 0, *[3] * 56]  # half away from zero, then cut off
    assert session.wire.outputs(64) == struct.pack("64b", *rounded)
    error = sum((a - b) ** 2 for a, b in zip(values, rounded, strict=True)) / 64
    assert results == f"m-results-[{error:.3f}]"
    session.wire.seed(1)
    assert session.ask(b"infer 1 0%")[-1] == "e-[No result: the inputs did not come by db]"


def test_in_energy_mode_a_timestamp_is_a_falling_edge(tmp_path: Path) -> None:
    environment = os.environ | {
        "PLATFORMIO_CORE_DIR": str(prepare_core_dir()),
        "PLATFORMIO_WORKSPACE_DIR": str(tmp_path),
        "PLATFORMIO_BUILD_FLAGS": "-DHIL_MLPERF_ENERGY",
        "HIL_MODEL_DIR": str(ECHO),
    }
    command = [sys.executable, "-m", "platformio", "run", "-e", NRF.id]
    subprocess.run(command, cwd=FIRMWARE_DIR, env=environment, check=True, timeout=300)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(VirtualPlace(NRF))
        session = Session(place, tmp_path / "build" / NRF.id / "firmware.elf", stack)
        session.ask(b"db load 64%")
        session.ask(b"db " + bytes(64).hex().encode() + b"%")
        before = len(place.pin_changes())

        answer = session.ask(b"infer 5 1%")

        assert not [line for line in answer if line.startswith("m-lap-us")]
        edges = place.pin_changes()[before:]
        assert [level for *_, level in edges] == [0, 1, 0, 1]  # two timestamps: start and end
        for fall, rise in (edges[:2], edges[2:]):
            assert rise[0] - fall[0] >= NRF.mcu.clock_hz * 1e-6


def test_without_room_for_a_store_inputs_serve_once(start: Start) -> None:
    arena_bytes = NRF.ram_bytes - 4096 - 720  # 668 bytes of .bss, so about 50 are free
    session = start({"model_arena[2 * BYTES]": f"model_arena[{arena_bytes}]"})
    data = bytes(range(100, 164))

    assert session.wire.hello().store_bytes == 0
    session.wire.feed(data)
    session.wire.run(1, timeout_s=5.0)
    assert session.wire.outputs(64) == data
    with pytest.raises(WireError, match=r"refused \(state\)"):
        session.wire.run(1, timeout_s=5.0)
    assert session.wire.seed(7) == crc32(stream(7, 64))
    with pytest.raises(WireError, match=r"refused \(state\)"):
        session.wire.outputs(64)
    with pytest.raises(WireError, match=r"refused \(state\)"):
        session.wire.run(2, timeout_s=5.0)
    session.wire.layers(1, timeout_s=5.0)
    assert session.wire.outputs(64) == stream(7, 64)
    assert session.wire.check(5, 2, timeout_s=5.0)[1][1] == crc32(stream(6, 64))
    with pytest.raises(WireError, match=r"refused \(state\)"):
        session.wire.run(1, timeout_s=5.0)


def test_an_engine_that_cannot_start_says_so_to_every_command(start: Start) -> None:
    session = start({"return NULL;": 'return "the arena is 12 bytes short";'})

    assert session.rig("hello", "00000000") == ["e-[rig model: state: the arena is 12 bytes short]"]


def test_a_fault_is_reported_and_the_board_starts_again(start: Start) -> None:
    session = start({"    memcpy(": "    *(volatile uint32_t *)0x70000004 = 1;\n    memcpy("})

    with pytest.raises(TargetFault, match=r"bus pc=0x0000.* cfsr=0x00008200 addr=0x70000004"):
        session.wire.run(1, timeout_s=5.0)

    session.wire.wait_boot(BOOT_S)
    assert session.wire.hello().proto == PROTOCOL


def test_a_stack_overflow_faults_before_it_spoils_anything(start: Start) -> None:
    recursion = """\
static uint32_t deeper(uint32_t n);
static uint32_t (*volatile again)(uint32_t) = deeper;
static uint32_t deeper(uint32_t n)
{
    volatile uint32_t hole[64] = {n};
    return again(n + 1) + hole[n % 64];
}

void model_run(void)
{
    (void)deeper(0);"""
    session = start({"void model_run(void)\n{": recursion})

    with pytest.raises(TargetFault, match="bus pc="):
        session.wire.run(1, timeout_s=5.0)

    session.wire.wait_boot(BOOT_S)


@pytest.mark.slow
def test_windows_longer_than_the_cycle_counter_are_counted_in_full(start: Start) -> None:
    turns = 20_000_000
    roots = r"vsqrt.f32 %0, %0\n\t" * 16  # 14 cycles each
    loop = f"    for (uint32_t i = 0; i < {turns}; i++) {{\n"
    loop += f'        __asm volatile("{roots}" : "+t"(x));\n    }}\n    memcpy('
    loop = f"    float x = 1.0f;\n{loop}"
    session = start({"    memcpy(": loop})

    (cycles,) = session.wire.run(1, timeout_s=300.0)

    assert cycles > 2**32
    assert cycles % turns < 1000  # a whole number of cycles per turn: no wrap was lost
