"""A virtual board's energy the whole way: firmware, trigger pin, meter, driver, record."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil import energy
from hil.board import get_board
from hil.build import build
from hil.errors import MeterError, SamplesLost, TriggerError
from hil.inputs import random_inputs
from hil.manifest import read_manifest
from hil.session import Procedure, booted, measure
from hil.virtual.options import VirtualOptions
from hil.virtual.place import VirtualPlace

BURN = Path(__file__).resolve().parents[2] / "support" / "burn"
ECHO = Path(__file__).resolve().parents[3] / "firmware" / "models" / "echo"
PAIRS = [
    ("nrf52840_dk", "ppk2"),
    ("nrf52840_dk", "lpm01a"),
    pytest.param("nucleo_l4r5zi", "lpm01a", marks=pytest.mark.slow),
    pytest.param("stm32f746g_disco", "ppk2", marks=pytest.mark.slow),
]
PROCEDURE = Procedure(inputs=1, warmup=0, repeats=5)


@pytest.fixture(scope="module")
def firmwares():
    built = {}

    def of(board, model=BURN):
        if (board.id, model) not in built:
            built[board.id, model] = build(model, board)
        return built[board.id, model]

    return of


@pytest.fixture(scope="module")
def place_with():
    places = {}

    def opened(board_id, meter, *faults):
        key = board_id, meter, faults
        if key not in places:
            options = VirtualOptions(meter=meter, faults=faults)
            places[key] = VirtualPlace(get_board(board_id), options)
        return places[key]

    yield opened
    for place in places.values():
        place.close()


def measured(place, firmware, model=BURN):
    manifest = read_manifest(model)
    expected = [
        b"".join(array.tobytes() for array in random_inputs(manifest.inputs, seed))
        for seed in PROCEDURE.seeds
    ]
    return measure(place, firmware, manifest, expected, PROCEDURE)


@pytest.mark.parametrize(("board_id", "kind"), PAIRS)
def test_energy_of_a_window_is_right_within_a_percent(board_id, kind, place_with, firmwares):
    place = place_with(board_id, kind)
    clock_hz = place.board.mcu.clock_hz

    with booted(place, firmwares(place.board)) as wire:

        def cycles_of(loops):
            wire.feed(loops.to_bytes(4, "little") + bytes(60))
            return wire.run(1, timeout_s=60)[0]

        per_loop = (cycles_of(2000) - cycles_of(1000)) / 1000
        for seconds in (0.001, 0.01, 0.1):
            cycles_of(round(seconds * clock_hz / per_loop))
            windows = energy.measure_windows(
                place.meter, [lambda: wire.run(1, timeout_s=60)[0] / clock_hz] * 3
            )
            truth = place.meter_windows()[-3:]
            for window, (start_s, end_s, true_uj) in zip(windows, truth, strict=True):
                assert window.duration_s == pytest.approx(seconds, rel=0.01)
                assert window.duration_s == pytest.approx(end_s - start_s, rel=0.005)
                assert window.energy_uj == pytest.approx(true_uj, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("board_id", "kind"), PAIRS[:2])
@pytest.mark.parametrize("seconds", [1, 10])
def test_energy_of_a_long_window_is_right(board_id, kind, seconds, place_with, firmwares):
    place = place_with(board_id, kind)
    clock_hz = place.board.mcu.clock_hz

    with booted(place, firmwares(place.board)) as wire:
        wire.feed((1000).to_bytes(4, "little") + bytes(60))
        loops = round(1000 * seconds * clock_hz / wire.run(1, timeout_s=60)[0])
        wire.feed(loops.to_bytes(4, "little") + bytes(60))
        (window,) = energy.measure_windows(
            place.meter, [lambda: wire.run(1, timeout_s=600)[0] / clock_hz]
        )

    [(_, _, true_uj)] = place.meter_windows()[-1:]
    assert window.duration_s == pytest.approx(seconds, rel=0.05)
    assert window.energy_uj == pytest.approx(true_uj, rel=0.01)


@pytest.mark.parametrize(("board_id", "kind"), PAIRS[:2])
def test_a_record_carries_what_the_meter_told(board_id, kind, place_with, firmwares):
    place = place_with(board_id, kind)
    record = measured(place, firmwares(place.board))
    found = record.energy_uj
    truth = [true_uj for _, _, true_uj in place.meter_windows()[-PROCEDURE.repeats :]]

    assert found.source == f"estimate:power model through a virtual {kind}"
    assert found.median == pytest.approx(sum(truth) / len(truth), rel=0.01)
    assert found.p05 <= found.median <= found.p95
    assert (found.n, found.supply_mv) == (PROCEDURE.repeats, 3000)
    assert found.idle_uw == pytest.approx(3000 * 2.8, rel=0.01)


@pytest.mark.parametrize(("board_id", "kind"), PAIRS[:2])
def test_an_inference_shorter_than_a_sample_is_measured_in_a_loop(
    board_id, kind, place_with, firmwares
):
    place = place_with(board_id, kind)
    record = measured(place, firmwares(place.board, ECHO), ECHO)

    assert record.latency_us < 10
    active_uw = place.board.supply.voltage_mv * place.board.supply.active_ua / 1000
    assert record.energy_uj.median == pytest.approx(active_uw * record.latency_us * 1e-6, rel=0.02)


def test_what_a_meter_saw_is_no_part_of_the_cycles(place_with, firmwares):
    metered, plain = place_with("nrf52840_dk", "ppk2"), place_with("nrf52840_dk", None)
    firmware = firmwares(metered.board)

    assert (
        measured(metered, firmware).latency_cycles.samples
        == measured(plain, firmware).latency_cycles.samples
    )


@pytest.mark.slow
def test_a_meter_that_loses_samples_voids_the_record(place_with, firmwares):
    place = place_with("nrf52840_dk", "ppk2", "lost_samples")

    with pytest.raises(SamplesLost):
        measured(place, firmwares(place.board))


@pytest.mark.slow
def test_a_trigger_pin_that_is_stuck_voids_the_record(place_with, firmwares):
    place = place_with("nrf52840_dk", "ppk2", "stuck_trigger")

    with pytest.raises(TriggerError, match="stayed low"):
        measured(place, firmwares(place.board))


@pytest.mark.slow
def test_a_board_that_draws_more_than_the_meter_supplies_is_told(place_with, firmwares):
    place = place_with("stm32f746g_disco", "lpm01a")

    with pytest.raises(MeterError, match="overcurrent"):
        measured(place, firmwares(place.board))


@pytest.mark.parametrize("kind", ["ppk2", "lpm01a"])
def test_a_board_starts_anew_when_its_meter_gives_it_power_again(kind, place_with, firmwares):
    place = place_with("nrf52840_dk", kind)
    with booted(place, firmwares(place.board)) as wire:
        place.meter.set_power(False)
        place.meter.set_power(True)
        wire.wait_boot(60)
        wire.hello()
