"""Measures one firmware on an open place: flash, identify, check all outputs, then time.

The order is the point: a record exists only when the firmware that said hello is the one that was
flashed, no line and no command was changed, lost or repeated from then on (one CRC over all that
was said), the outputs matched before and after the timing, the board's clocks agreed with each
other and with true time, and no repeat was shorter than any core could be. No step is repeated when
it fails. Not here: making the firmware (bench), the protocol's grammar (wire), what is done about a
failure (recovery).
"""

from __future__ import annotations

import contextlib
import datetime
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hil import energy
from hil.build import Firmware
from hil.errors import (
    ClockMismatch,
    FirmwareMismatch,
    LinkError,
    OutputMismatch,
    ResetLoop,
    TargetFault,
    WireError,
    WrongBoard,
)
from hil.inputs import can_be_seeded, random_inputs
from hil.lab import Place
from hil.link import SerialLink
from hil.manifest import Manifest
from hil.record import (
    EnergyUj,
    FlashBytes,
    LatencyCycles,
    LayerCycles,
    ModelId,
    Record,
    SramBytes,
)
from hil.revision import git_revision
from hil.true_time import TrueTime
from hil.wire import Hello, Wire, crc32

BOOT_S = 10.0

#: Cycles that one inference takes at most, for deadlines only: some ten times what engines need.
WORST_CYCLES_PER_MAC = {"tiny": 40}
WORST_CYCLES_PER_MAC_ELSE = 400
WORST_CYCLES_BESIDE_MACS = 50_000_000
#: Emulated cycles that a busy machine manages in a second, for deadlines only.
SLOW_VIRTUAL_HZ = 10_000_000

#: How far the cycle counter and the coarse timer may disagree: crystals differ by 1e-4, a clock
#: that is configured wrongly by far more.
CLOCK_TOLERANCE = 0.01
CLOCK_RESOLUTION_US = 20
#: The cores do two multiplications a cycle, and fast algorithms save a factor of four at most.
MOST_MACS_PER_CYCLE = 16


@dataclass(frozen=True, slots=True)
class Procedure:
    """How a model is measured.

    Attributes:
        inputs: random inputs whose outputs are compared with the oracle's.
        input_seed: seed of the first input; the others follow.
        warmup: inferences before the measured ones.
        repeats: measured inferences, every one kept.
        layers: whether the cycles of every layer are measured, in one inference more.
    """

    inputs: int = 10
    input_seed: int = 1
    warmup: int = 2
    repeats: int = 10
    layers: bool = False

    @property
    def seeds(self) -> range:
        """One seed for each input."""
        return range(self.input_seed, self.input_seed + self.inputs)


#: Enough to check the outputs and to see that repeats agree.
STANDARD = Procedure()


@contextlib.contextmanager
def booted(
    place: Place, firmware: Firmware, stage: Callable[[str], None] = lambda _: None
) -> Iterator[Wire]:
    """A wire to the firmware, which was flashed and has started; `stage` as in `measure`."""
    # The port is open before the firmware starts, so that its boot message is not missed.
    with SerialLink(place.port, place.board.link.baud) as link:
        link.discard()
        stage("flashing")
        place.flash(firmware.elf)
        # A virtual board keeps nothing of earlier sessions, and its cycles follow what it hears.
        nonce = secrets.randbits(32) if place.source == "hardware" else 0
        wire = Wire(link, place.name, nonce=nonce)
        wire.wait_boot(BOOT_S)
        yield wire


def measure(
    place: Place,
    firmware: Firmware,
    manifest: Manifest,
    expected: Sequence[bytes],
    procedure: Procedure,
    *,
    stage: Callable[[str], None] = lambda _: None,
) -> Record:
    """The record of one firmware on one place.

    Args:
        place: an open place.
        firmware: what `hil.build` made of the generated folder.
        manifest: that of the folder.
        expected: for each seed of the procedure, the bytes that all outputs must have.
        procedure: inputs, repeats, layers.
        stage: told what is done now: flashing, checking, measuring.

    Raises:
        OutputMismatch: a byte differs; nothing was timed.
        FirmwareMismatch: the board runs something else than what was flashed.
        TargetFault: the firmware or the virtual CPU faulted.
        LinkTimeout: the board stopped answering.
        HilError: flashing, the link or the protocol failed.
    """
    assert len(expected) == procedure.inputs > 0, "one expected output for each input"
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    with telling_faults(place), booted(place, firmware, stage) as wire:
        return _measure(wire, place, firmware, manifest, expected, procedure, started_at, stage)


@contextlib.contextmanager
def telling_faults(place: Place) -> Iterator[None]:
    """Makes a TargetFault of an error whose cause the emulator of a virtual board saw."""
    try:
        yield
    except (LinkError, WireError, TargetFault) as error:
        seen = _fault(place)
        if seen is None:
            raise
        if isinstance(error, TargetFault):
            raise type(error)(place.name, f"{error.report}; {seen}") from error
        raise TargetFault(place.name, seen) from error


def starts(place: Place, firmware: Firmware) -> bool:
    """Whether a firmware starts and says hello; False if its engine refuses to run or it faults.

    Raises:
        HilError: as `measure`; noise on the line is no answer.
    """
    for _ in range(2):  # a fault must come twice: once may be the board's own
        try:
            with telling_faults(place), booted(place, firmware) as wire:
                wire.hello()
            return True
        except WireError as error:
            if error.code != "state":
                raise
            return False
        except ResetLoop:
            raise
        except TargetFault:
            continue
    return False


def _fault(place: Place) -> str | None:
    """What the emulator of a virtual board saw, if it is still there to be asked."""
    try:
        return place.fault()
    except LinkError:
        return None


def _measure(
    wire: Wire,
    place: Place,
    firmware: Firmware,
    manifest: Manifest,
    expected: Sequence[bytes],
    procedure: Procedure,
    started_at: str,
    stage: Callable[[str], None],
) -> Record:
    hello = wire.hello()
    check_identity(hello, place, firmware, manifest)
    clock = TrueTime(wire, place)
    clock.read()
    runner = Runner(wire, manifest, hello, inference_s(place, manifest))

    def check(number: int) -> None:
        check_outputs(manifest, number, expected[number], wire.outputs(manifest.out_bytes))

    stage("checking")
    by_crc = can_be_seeded(manifest.inputs)
    to_compare = runner.wrong(procedure.seeds, expected) if by_crc else range(procedure.inputs)
    for number in to_compare:
        runner.fill(procedure.seeds[number])
        runner.run(1)
        check(number)  # says which element
    if by_crc and to_compare:
        raise WireError("outputs that are wrong only once", f"those of inputs {to_compare}")
    last = procedure.inputs - 1

    stage("measuring")
    if procedure.warmup:
        runner.run(procedure.warmup)
    before = clock.read()
    samples = runner.run(procedure.repeats)
    check_clocks(before, clock.read(), hello.clock_hz, sum(samples))
    check_repeats(samples, manifest.effective_macs)
    latency = LatencyCycles.of(samples)
    latency_us = latency.median / hello.clock_hz * 1e6
    check(last)  # what was timed did the same work

    energy_uj = _energy(place, runner, latency_us, procedure)
    if place.meter is not None:
        check(last)

    memory = wire.memory()  # before the layers: their marks may use more stack
    layer_cycles = []
    if procedure.layers and manifest.layers:
        layer_cycles = runner.layers()
        check(last)
    clock.prove()
    return Record(
        model=ModelId(
            manifest.model_name,
            manifest.model_sha256,
            manifest.nominal_macs,
            manifest.effective_macs,
        ),
        board=place.board.id,
        place=place.name,
        source=place.source,
        engine=manifest.engine,
        engine_options=manifest.engine_options,
        outputs_match=True,
        outputs_checked=procedure.inputs,
        latency_cycles=latency,
        latency_us=latency_us,
        sram_bytes=SramBytes(
            arena=firmware.arena_bytes,
            scratch=manifest.scratch_bytes,
            static=firmware.static_bytes,
            stack_peak=memory.stack_peak_bytes,
            total=firmware.arena_bytes + firmware.static_bytes + memory.stack_peak_bytes,
        ),
        flash_bytes=FlashBytes(
            firmware.flash_bytes.code, firmware.flash_bytes.weights, firmware.flash_bytes.total
        ),
        energy_uj=energy_uj,
        layers=tuple(
            LayerCycles(
                layer.name,
                layer.op,
                layer.macs,
                cycles,
                layer.kernel,
                layer.nominal_macs,
                layer.weights,
            )
            for layer, cycles in zip(manifest.layers, layer_cycles, strict=bool(layer_cycles))
        ),
        toolchain=firmware.compiler,
        compiler_flags=firmware.compiler_flags,
        firmware_sha256=firmware.sha256,
        git=git_revision(),
        board_file_sha256=place.board.sha256,
        timing_model=place.timing_model,
        started_at=started_at,
    )


def _energy(place: Place, runner: Runner, latency_us: float, procedure: Procedure) -> EnergyUj:
    """Of one inference: by the place's meter, or an estimate without one."""
    meter = place.meter
    if meter is None:
        return energy.estimate(place.board.supply, latency_us)
    times = procedure.repeats
    if latency_us >= energy.SHORTEST_WINDOW_US or not runner.keeps_inputs:
        clock_hz = place.board.mcu.clock_hz
        found = energy.measure_windows(meter, [lambda: runner.run(1)[0] / clock_hz] * times)
        return energy.summary([window.energy_uj for window in found], found, energy.label(place))

    inferences = math.ceil(energy.LOOP_US / max(latency_us, 0.1))
    beside_us = runner.loop_us(1)  # its time stamps stand around more than the loop

    def loop() -> float:
        return (runner.loop_us(inferences) - beside_us) * 1e-6

    # The loop copies the inputs, too: its mean power is that of an inference, its length is not.
    found = energy.measure_windows(meter, [loop] * times, exact=False)
    energies = [window.energy_uj / window.duration_s * latency_us * 1e-6 for window in found]
    return energy.summary(energies, found, energy.label(place))


class Runner:
    """Fills the inputs and runs; a board without room to keep them is filled before each run."""

    def __init__(self, wire: Wire, manifest: Manifest, hello: Hello, timeout_s: float) -> None:
        self._wire, self._manifest, self._timeout_s = wire, manifest, timeout_s
        self.keeps_inputs = hello.store_bytes >= manifest.in_bytes
        self._seed = 0
        self._filled = False

    def fill(self, seed: int) -> None:
        """Writes the inputs of a seed."""
        if can_be_seeded(self._manifest.inputs):
            self._check_inputs(seed, self._wire.seed(seed))
        else:
            self._wire.feed(self._inputs(seed))
        self._seed, self._filled = seed, True

    def wrong(self, seeds: range, expected: Sequence[bytes]) -> list[int]:
        """Runs the inputs of all seeds; numbers of those whose outputs have another CRC-32.

        Wrong bytes have the right one in one case of 2**32.
        """
        told = self._wire.check(seeds.start, len(seeds), timeout_s=self._timeout_s)
        self._seed, self._filled = seeds[-1], False
        for seed, (in_crc, _) in zip(seeds, told, strict=True):
            self._check_inputs(seed, in_crc)
        return [
            number for number, (_, out_crc) in enumerate(told) if out_crc != crc32(expected[number])
        ]

    def run(self, repeats: int) -> list[int]:
        """Cycles of each inference."""
        if self.keeps_inputs:
            return self._wire.run(repeats, timeout_s=self._timeout_s)
        samples = []
        for _ in range(repeats):
            self._refill()
            samples += self._wire.run(1, timeout_s=self._timeout_s)
            self._filled = False
        return samples

    def loop_us(self, inferences: int) -> int:
        """Microseconds of inferences one after another in one window of the trigger pin."""
        self._wire.mlperf(f"infer {inferences} 0", timeout_s=self._timeout_s)
        done, start_us, end_us = self._wire.window()
        if done != inferences:
            raise WireError(f"{inferences} inferences were asked for", f"inferences={done}")
        return end_us - start_us

    def layers(self) -> list[int]:
        """Cycles of each layer of one inference."""
        if not self.keeps_inputs:
            self._refill()
        self._filled = False
        return self._wire.layers(len(self._manifest.layers), timeout_s=self._timeout_s)

    def _inputs(self, seed: int) -> bytes:
        return b"".join(array.tobytes() for array in random_inputs(self._manifest.inputs, seed))

    def _check_inputs(self, seed: int, crc: int) -> None:
        wanted = crc32(self._inputs(seed))
        if crc != wanted:
            raise WireError(f"input of seed {seed} should have CRC {wanted:08x}", f"crc={crc:08x}")

    def _refill(self) -> None:
        if not self._filled:
            self.fill(self._seed)


def check_identity(hello: Hello, place: Place, firmware: Firmware, manifest: Manifest) -> None:
    """Raises FirmwareMismatch unless the board says that it is what was built and flashed.

    Raises WrongBoard when another type of board answers.
    """
    if hello.board != place.board.id:
        raise WrongBoard("board", place.board.id, hello.board)
    for what, wanted, found in (
        ("build", firmware.build_id, hello.build),
        ("model", manifest.model_sha256, hello.model),
        ("engine", manifest.engine, hello.engine),
        ("input bytes", str(manifest.in_bytes), str(hello.in_bytes)),
        ("output bytes", str(manifest.out_bytes), str(hello.out_bytes)),
        ("layers", str(len(manifest.layers)), str(hello.layers)),
        ("clock in Hz", str(place.board.mcu.clock_hz), str(hello.clock_hz)),
    ):
        if wanted != found:
            raise FirmwareMismatch(what, wanted, found)


def check_outputs(manifest: Manifest, input_number: int, expected: bytes, found: bytes) -> None:
    """Raises OutputMismatch for the first element whose bytes differ."""
    if expected == found:
        return
    offset = 0
    for tensor in manifest.outputs:
        part = slice(offset, offset + tensor.size_bytes)
        offset += tensor.size_bytes
        wanted, got = (
            np.frombuffer(data[part], f"V{tensor.numpy.itemsize}") for data in (expected, found)
        )
        differs = np.flatnonzero(wanted != got)
        if len(differs):
            first = int(differs[0])
            raise OutputMismatch(
                tensor.name,
                input_number,
                first,
                wanted.view(tensor.numpy)[first].item(),
                got.view(tensor.numpy)[first].item(),
                len(differs),
                len(wanted),
            )
    raise AssertionError("outputs of one length that differ do so in some tensor")


def check_clocks(
    before: tuple[int, int], after: tuple[int, int], clock_hz: int, measured_cycles: int
) -> None:
    """Raises ClockMismatch when the cycle counter and the coarse timer tell of different times.

    Args:
        before: (coarse microseconds, cycles) before the repeats.
        after: the same after them; both counters have 32 bits, and wrap.
        clock_hz: of the core.
        measured_cycles: sum of the repeats, which lie between the two.
    """
    coarse_us = (after[0] - before[0]) % 2**32
    counted = (after[1] - before[1]) % 2**32
    wraps = max(0, round((coarse_us * clock_hz / 1e6 - counted) / 2**32))
    cycles = counted + wraps * 2**32
    cycles_us = cycles / clock_hz * 1e6
    if abs(cycles_us - coarse_us) > CLOCK_TOLERANCE * coarse_us + CLOCK_RESOLUTION_US:
        raise ClockMismatch(
            f"{coarse_us:,} us by the coarse timer are {cycles_us:,.0f} us by the cycle counter"
        )
    if measured_cycles > cycles:
        raise ClockMismatch(f"repeats of {measured_cycles:,} cycles lie within {cycles:,} cycles")


def check_repeats(samples: Sequence[int], macs: int) -> None:
    """Raises ClockMismatch when a repeat is shorter than any core could be."""
    least = max(1, macs // MOST_MACS_PER_CYCLE)
    if min(samples) < least:
        raise ClockMismatch(
            f"an inference of {macs:,} multiplications took {min(samples):,} cycles, and cannot "
            f"take less than {least:,}"
        )


def inference_s(place: Place, manifest: Manifest) -> float:
    """A deadline for one inference that no sound firmware misses."""
    per_mac = WORST_CYCLES_PER_MAC.get(manifest.engine, WORST_CYCLES_PER_MAC_ELSE)
    cycles = WORST_CYCLES_BESIDE_MACS + per_mac * manifest.nominal_macs
    rate_hz = SLOW_VIRTUAL_HZ if place.source == "virtual" else place.board.mcu.clock_hz
    return 10.0 + cycles / rate_hz
