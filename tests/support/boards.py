"""A place whose board is a script: it speaks the protocol and computes output = input + 1."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

from links import READY, PtyBoard, line

from hil.board import Board, get_board
from hil.build import Firmware, FlashBytes
from hil.inputs import xorshift_bytes
from hil.manifest import Layer, Manifest, Tensor
from hil.wire import crc32

SIZE = 300  # of input and output: more than one chunk
MODEL = "ab" * 32
CYCLES = 6400  # of one inference: 100 us at 64 MHz


class FakePlace:
    """An open place with a scripted firmware.

    Args:
        store_bytes: room to keep inputs; 0: one run per fill.
        identity: overrides of what hello says.
        spoil: called with (number of runs so far, output bytes) and gives what is sent instead.
        answer: called with each command's tokens; what it gives, if not None, is sent instead.
    """

    name = "fake"
    source: Literal["virtual", "hardware"] = "virtual"
    timing_model: str | None = "fake/1"
    probe = meter = lock = None
    can_power_cycle = True

    def __init__(
        self, *, store_bytes=SIZE, identity=None, spoil=None, answer=None, clock_ratio=1.0
    ):
        self.board: Board = get_board("nrf52840_dk")
        self.flashed: list[Path] = []
        self.seen_fault: str | None = None
        self.resets = self.power_cycles = 0
        self.runs = self.fills = 0
        self._store_bytes, self._identity = store_bytes, identity or {}
        self._spoil = spoil or (lambda run, data: data)
        self._answer = answer or (lambda tokens: None)
        self._clock_ratio = clock_ratio
        self._input, self._filled, self._us = bytearray(SIZE), False, 0
        self._board = PtyBoard(self._reply)
        self.port = self._board.port

    def flash(self, elf: Path) -> None:
        self.flashed.append(elf)
        self._board.send(b"m-timestamp-mode-performance\r\nm-init-done\r\n" + READY)

    def reset(self) -> None:
        self.resets += 1

    def power_cycle(self) -> None:
        self.power_cycles += 1

    def now(self) -> float:
        return self._us * 1e-6

    def fault(self) -> str | None:
        return self.seen_fault

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._board.vanish()

    def __enter__(self):
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _reply(self, command: bytes) -> list[bytes]:
        tokens = command.decode().split(" ")
        special = self._answer(tokens)
        if special is not None:
            return list(special)
        verb, arguments = tokens[1], tokens[2:-1]
        return [*getattr(self, f"_{verb}")(*arguments), READY]

    def _hello(self, nonce):
        values = {
            "proto": 2,
            "board": self.board.id,
            "engine": "tiny",
            "build": "0123456789abcdef",
            "model": MODEL,
            "clock_hz": self.board.mcu.clock_hz,
            "in_bytes": SIZE,
            "out_bytes": SIZE,
            "layers": 2,
            "arena_bytes": 1000,
            "store_bytes": self._store_bytes,
        } | self._identity
        return [line("m-rig-hello " + " ".join(f"{k}={v}" for k, v in values.items()))]

    def _seed(self, seed):
        self._input[:] = xorshift_bytes(int(seed), SIZE)
        self._filled, self.fills = True, self.fills + 1
        return [line(f"m-rig-seed crc={crc32(bytes(self._input)):08x}")]

    def _check(self, first, count):
        lines = []
        for i in range(int(count)):
            self._seed(int(first) + i)
            self.runs += 1
            output = self._spoil(self.runs, fake_output(bytes(self._input)))
            crcs = f"in={crc32(bytes(self._input)):08x} out={crc32(output):08x}"
            lines.append(line(f"m-rig-check i={i} {crcs}"))
        self._filled = self._store_bytes > 0
        return lines

    def _in(self, offset, digits):
        data = bytes.fromhex(digits)
        self._input[int(offset) : int(offset) + len(data)] = data
        self._filled = True
        return [line(f"m-rig-in n={len(data)}")]

    def _run(self, repeats):
        if self._store_bytes == 0 and (int(repeats) != 1 or not self._filled):
            return [b"e-[rig run: state: write the inputs first]\r\n"]
        self._filled = self._store_bytes > 0
        self.runs += int(repeats)
        self._us += int(repeats) * 200
        return [line(f"m-rig-run i={i} cycles={CYCLES + i % 3}") for i in range(int(repeats))]

    def _layers(self):
        self._filled = self._store_bytes > 0
        self.runs += 1
        return [line(f"m-rig-layers i={i} cycles={CYCLES // 2}") for i in range(2)]

    def _out(self, offset, size):
        output = self._spoil(self.runs, fake_output(bytes(self._input)))
        chunk = output[int(offset) : int(offset) + int(size)].hex()
        return [line(f"m-rig-out offset={offset} hex={chunk}")]

    def _mem(self):
        return [
            line(
                "m-rig-mem stack_bytes=4096 stack_peak_bytes=300 data_bytes=8 bss_bytes=500 "
                "arena_bytes=1000"
            )
        ]

    def _time(self):
        cycles = int(self._us * 64 * self._clock_ratio)
        return [line(f"m-rig-time coarse_us={self._us} cycles={cycles}")]


def fake_output(data: bytes) -> bytes:
    """What the scripted firmware computes."""
    return bytes((value + 1) % 256 for value in data)


def fake_manifest(dtype: str = "s8") -> Manifest:
    """The manifest of the scripted firmware."""
    items = SIZE // {"s8": 1, "f32": 4}[dtype]
    tensor = Tensor("in", dtype, (1, items), 1.0, 0)
    return Manifest(
        model_name="plus_one",
        model_sha256=MODEL,
        nominal_macs=100,
        effective_macs=90,
        engine="tiny",
        engine_options={"objective": "latency"},
        board="nrf52840_dk",
        inputs=(tensor,),
        outputs=(
            Tensor("first", "s8", (1, 100), 1.0, 0),
            Tensor("second", "s8", (1, SIZE - 100), 1.0, 0),
        ),
        layers=(Layer("a", "CONV_2D", 60), Layer("b", "SOFTMAX", 0)),
        arena_bytes=1000,
        scratch_bytes=100,
    )


def fake_firmware(folder: Path) -> Firmware:
    """A finished build of the scripted firmware."""
    return Firmware(
        board="nrf52840_dk",
        build_id="0123456789abcdef",
        elf=folder / "firmware.elf",
        sha256="cd" * 32,
        flash_bytes=FlashBytes(9000, 4000, 13000),
        static_bytes=508,
        arena_bytes=1000,
        stack_bytes=4096,
        compiler="arm-none-eabi-gcc 12",
        compiler_flags=("-O3",),
    )
