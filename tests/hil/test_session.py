from __future__ import annotations

import pytest
from links import READY, line

from boards import CYCLES, SIZE, FakePlace, fake_firmware, fake_manifest, fake_output
from hil import session, wire
from hil.errors import (
    ClockMismatch,
    FirmwareMismatch,
    LinkTimeout,
    OutputMismatch,
    TargetFault,
    WireError,
)
from hil.inputs import random_inputs
from hil.session import Procedure, check_clocks, measure, starts

PROCEDURE = Procedure(inputs=3, warmup=2, repeats=5, layers=True)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    monkeypatch.setattr(wire, "REPLY_S", 0.5)
    monkeypatch.setattr(session, "BOOT_S", 0.5)
    monkeypatch.setattr(session, "inference_s", lambda place, manifest: 0.5)


def measured(place, tmp_path, procedure=PROCEDURE, manifest=None):
    manifest = manifest or fake_manifest()
    expected = [
        fake_output(b"".join(a.tobytes() for a in random_inputs(manifest.inputs, seed)))
        for seed in procedure.seeds
    ]
    with place:
        return measure(place, fake_firmware(tmp_path), manifest, expected, procedure)


def test_a_record_holds_what_the_board_reported(tmp_path):
    place = FakePlace()

    record = measured(place, tmp_path)

    assert place.flashed == [tmp_path / "firmware.elf"]
    assert record.outputs_match
    assert record.outputs_checked == 3
    assert record.latency_cycles.samples == tuple(CYCLES + i % 3 for i in range(5))
    assert record.latency_us == record.latency_cycles.median / 64
    assert record.sram_bytes.total == 1000 + 508 + 300
    assert record.flash_bytes.total == 13000
    assert [layer.cycles for layer in record.layers] == [CYCLES // 2] * 2
    assert (record.board, record.place, record.source) == ("nrf52840_dk", "fake", "virtual")
    assert record.timing_model == "fake/1"


def test_energy_is_an_estimate_and_says_so(tmp_path):
    energy = measured(FakePlace(), tmp_path).energy_uj

    assert energy is not None
    assert energy.source.startswith("estimate:")
    assert energy.median == pytest.approx(3.0 * 3.3e-3 * 100e-6 * 1e6, rel=1e-3)


def test_every_input_runs_and_then_warm_up_and_repeats(tmp_path):
    place = FakePlace()

    measured(place, tmp_path)

    assert place.runs == 3 + 2 + 5 + 1  # checks, warm-up, repeats, layers
    assert place.fills == 3


def test_commands_do_not_grow_with_the_inputs(tmp_path):
    commands: list[str] = []
    place = FakePlace(answer=lambda tokens: commands.append(tokens[1]))

    measured(place, tmp_path, Procedure(inputs=50))

    assert len(commands) < 12
    assert (commands.count("check"), commands.count("seed")) == (1, 0)


def test_a_board_without_room_for_inputs_is_filled_before_every_run(tmp_path):
    place = FakePlace(store_bytes=0)

    record = measured(place, tmp_path)

    assert record.latency_cycles.n == 5
    assert place.fills == 3 + 2 + 5 + 1  # checks, warm-up, repeats, layers


def test_float_inputs_are_fed_byte_by_byte(tmp_path):
    place = FakePlace()

    assert measured(place, tmp_path, manifest=fake_manifest("f32")).outputs_match
    assert place.fills == 0


@pytest.mark.parametrize(
    ("position", "output", "index"),
    [(7, "first", 7), (100, "second", 0), (SIZE - 1, "second", 199)],
)
def test_one_wrong_output_byte_voids_the_measurement(tmp_path, position, output, index):
    def spoil(run, data):
        changed = data[position] ^ 0x80
        return data if run < 2 else data[:position] + bytes([changed]) + data[position + 1 :]

    place = FakePlace(spoil=spoil)
    with pytest.raises(OutputMismatch) as caught:
        measured(place, tmp_path)

    error = caught.value
    assert (error.output, error.input_number, error.index, error.count) == (output, 1, index, 1)
    assert abs(error.expected - error.found) == 128
    assert place.runs == 3 + 1  # the inputs, and one of them again: nothing was timed


@pytest.mark.parametrize("run", [3 + 2 + 5, 3 + 2 + 5 + 1])
def test_what_was_timed_must_give_the_right_bytes_too(tmp_path, run):
    place = FakePlace(spoil=lambda runs, data: data if runs < run else bytes(SIZE))

    with pytest.raises(OutputMismatch) as caught:
        measured(place, tmp_path)
    assert caught.value.input_number == 2


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("board", "stm32f746g_disco", "board"),
        ("build", "ffffffffffffffff", "build"),
        ("model", "00" * 32, "model"),
        ("engine", "reference", "engine"),
        ("in_bytes", 5, "input bytes"),
        ("out_bytes", 5, "output bytes"),
        ("layers", 9, "layers"),
        ("clock_hz", 16_000_000, "clock"),
    ],
)
def test_another_firmware_than_the_flashed_one_is_refused(tmp_path, key, value, what):
    place = FakePlace(identity={key: value})

    with pytest.raises(FirmwareMismatch, match=what):
        measured(place, tmp_path)
    assert place.runs == 0


def test_a_board_that_falls_silent_is_a_timeout_with_its_last_bytes(tmp_path):
    def answer(tokens):
        return [b"m-rig-run i=0 cy"] if tokens[1] == "run" else None

    with pytest.raises(LinkTimeout, match="m-rig-run i=0 cy"):
        measured(FakePlace(answer=answer), tmp_path)


def test_what_the_emulator_saw_explains_a_silent_board(tmp_path):
    place = FakePlace(answer=lambda tokens: [] if tokens[1] == "run" else None)
    place.seen_fault = "read of 4 bytes at 0x50000000 outside the memory map, pc 0x00001234"

    with pytest.raises(TargetFault, match=r"0x50000000.*0x00001234"):
        measured(place, tmp_path)


def test_a_fault_report_of_the_firmware_is_passed_on(tmp_path):
    def answer(tokens):
        return [b"e-[fault usage pc=0x00000abc]\r\n"] if tokens[1] == "run" else None

    with pytest.raises(TargetFault, match="usage pc=0x00000abc"):
        measured(FakePlace(answer=answer), tmp_path)


def test_outputs_that_are_wrong_once_void_the_measurement(tmp_path):
    place = FakePlace(spoil=lambda run, data: bytes(SIZE) if run == 2 else data)

    with pytest.raises(WireError, match=r"wrong only once.*\[1\]"):
        measured(place, tmp_path)
    assert place.runs == 3 + 1


def test_inputs_that_differ_from_ours_are_noticed(tmp_path):
    crcs = [line(f"m-rig-check i={i} in=00000000 out=00000000") for i in range(3)]
    place = FakePlace(answer=lambda t: [*crcs, READY] if t[1] == "check" else None)

    with pytest.raises(WireError, match="input of seed 1"):
        measured(place, tmp_path)
    assert place.runs == 0


def test_inputs_that_are_filled_again_are_compared_too(tmp_path):
    crc = line("m-rig-seed crc=00000000")
    answer = lambda t: [crc, READY] if t[1] == "seed" else None  # noqa: E731
    place = FakePlace(store_bytes=0, answer=answer)

    with pytest.raises(WireError, match="input of seed 3"):
        measured(place, tmp_path)


def test_clocks_that_disagree_void_the_timing(tmp_path):
    with pytest.raises(ClockMismatch, match="disagree"):
        measured(FakePlace(clock_ratio=1.5), tmp_path)


def test_the_coarse_timer_may_wrap():
    check_clocks((2**32 - 100, 0), (900, 64_000), 64_000_000, 60_000)


@pytest.mark.parametrize("seconds", [1, 60, 70, 200])
def test_the_cycle_counter_may_wrap(seconds):
    """At 64 MHz it does so every 67 s; slow models take longer for their repeats."""
    started = 2**32 - 1_000_000
    ended = (started + seconds * 64_000_000) % 2**32

    check_clocks((5, started), (5 + seconds * 1_000_000, ended), 64_000_000, seconds * 63_000_000)


def test_repeats_cannot_take_longer_than_the_time_around_them():
    with pytest.raises(ClockMismatch, match="lie within"):
        check_clocks((0, 0), (1000, 64_000), 64_000_000, 64_001)


def test_a_firmware_that_says_hello_starts(tmp_path):
    with FakePlace() as place:
        assert starts(place, fake_firmware(tmp_path))


def test_a_firmware_whose_engine_refuses_does_not_start(tmp_path):
    refusal = [b"e-[rig model: state: arena too small]\r\nm-ready\r\n"]
    with FakePlace(answer=lambda tokens: refusal) as place:
        assert not starts(place, fake_firmware(tmp_path))
