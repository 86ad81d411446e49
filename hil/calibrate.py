"""Micro-benchmarks on a place and on its twin: what they take, and how far the two are apart.

The same firmware runs in both: on the place over the serial port, and in this process on a virtual
board whose constants can be chosen. Not here: which benchmarks there are (microbenchmarks), fitting
constants (fitting).
"""

from __future__ import annotations

import statistics
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hil.board import Board
from hil.build import Firmware, build
from hil.errors import FirmwareMismatch, WireError
from hil.lab import Place
from hil.microbenchmarks import Microbenchmark, image_folder
from hil.session import booted
from hil.wire import CHUNK_BYTES, Data, encode, parse_line, session_crc

REPEATS = 3  # odd; what disturbs one of them, such as a refresh, is left out

_PAIR = struct.Struct("<2I")  # the firmware's input: first, count; its output: short, long
_RUN_S = 60.0  # for all micro-benchmarks: milliseconds on hardware, seconds on a virtual board


@dataclass(frozen=True, slots=True)
class Image:
    """The calibration firmware of a board and what it holds."""

    board: Board
    firmware: Firmware
    benchmarks: tuple[Microbenchmark, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """Cycles of one micro-benchmark's short and long routine."""

    benchmark: Microbenchmark
    short_cycles: int
    long_cycles: int

    @property
    def cycles(self) -> float:
        """Of one body."""
        return self.benchmark.cycles_per_body(self.short_cycles, self.long_cycles)


def build_image(board: Board) -> Image:
    """The calibration firmware of a board, built if it is not there yet."""
    folder, benchmarks = image_folder(board)
    return Image(board, build(folder, board), tuple(benchmarks))


def measure(place: Place, image: Image) -> list[Reading]:
    """Flashes the image and runs every micro-benchmark; the median of REPEATS runs.

    Raises:
        FirmwareMismatch: the board runs something else.
        HilError: flashing, the link or the protocol failed.
    """
    size = _PAIR.size * len(image.benchmarks)
    with booted(place, image.firmware) as wire:
        hello = wire.hello()
        if hello.build != image.firmware.build_id:
            raise FirmwareMismatch("build", image.firmware.build_id, hello.build)
        if hello.out_bytes != size:
            raise FirmwareMismatch("output bytes", str(size), str(hello.out_bytes))
        wire.feed(_PAIR.pack(0, len(image.benchmarks)))
        runs = []
        for _ in range(REPEATS):
            wire.run(1, timeout_s=_RUN_S)
            runs.append(list(_PAIR.iter_unpack(wire.outputs(size))))
    return [
        Reading(benchmark, *(int(statistics.median(cycles)) for cycles in zip(*pairs, strict=True)))
        for benchmark, pairs in zip(image.benchmarks, zip(*runs, strict=True), strict=True)
    ]


class Twin:
    """A virtual board in this process that runs the image with constants of one's choice.

    Args:
        image: what it runs.
        benchmarks: those of the image that are run; all by default.
    """

    def __init__(self, image: Image, benchmarks: Sequence[Microbenchmark] | None = None) -> None:
        self._image = image
        self.benchmarks = list(image.benchmarks if benchmarks is None else benchmarks)
        self._elf = image.firmware.elf.read_bytes()
        size = _PAIR.size * len(image.benchmarks)
        commands = []
        for first, count in _runs([image.benchmarks.index(b) for b in self.benchmarks]):
            commands += [encode("in", 0, _PAIR.pack(first, count).hex()), encode("run", 1)]
        for offset in range(0, size, CHUNK_BYTES):
            commands.append(encode("out", offset, min(CHUNK_BYTES, size - offset)))
        self._commands = commands

    def measure(self, board: Board) -> list[Reading]:
        """Readings on a board with these constants."""
        from hil.virtual.cpu import Cpu  # loads the emulator, which takes a while
        from hil.virtual.image import load_elf
        from hil.virtual.program import MemoryConsole

        console = MemoryConsole()
        cpu = Cpu(board, console)
        cpu.load(load_elf(self._elf, cpu.memory))
        console.restart(cpu, b"".join(self._commands))
        cpu.run()  # until it waits for a command that does not come
        outputs = _outputs(self._commands, bytes(console.output))
        size = _PAIR.size * len(self._image.benchmarks)
        if len(outputs) != size:
            raise WireError(f"{size} bytes of cycles", cpu.fault_text or f"{len(outputs)} bytes")
        readings = dict(zip(self._image.benchmarks, _PAIR.iter_unpack(outputs), strict=True))
        return [Reading(b, *readings[b]) for b in self.benchmarks]


def _outputs(commands: Sequence[bytes], text: bytes) -> bytes:
    """The bytes that the answers to `out` hold in what a firmware printed since its start."""
    _, *answers = text.split(b"m-ready\r\n")
    said, outputs = 0, b""
    for command, answer in zip(commands, answers, strict=False):  # a fault ends the answers early
        said = session_crc(command, said)
        for line in answer.splitlines():
            data = parse_line(line, said)
            if isinstance(data, Data):
                said = data.crc
                outputs += bytes.fromhex(data.values.get("hex", ""))
    return outputs


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(first, how many) of numbers that follow each other."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs
