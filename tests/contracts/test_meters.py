"""What every meter must do: against a stand-in that knows the true energy of every window."""

from __future__ import annotations

import pytest
from meter_benches import BENCHES, SUPPLY_MV

import hil.meters
from hil import energy
from hil.errors import MeterError, SamplesLost, TriggerError
from hil.meters import KINDS, lpm01a, self_test
from hil.virtual.power_model import REGULATOR, Load

METERS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def bench(kind):
    with BENCHES[kind]() as bench:
        yield bench


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr(energy, "LATE_S", 0.05)


def test_every_kind_is_tested():
    assert set(BENCHES) == set(KINDS)


@METERS
@pytest.mark.parametrize(
    "seconds", [0.001, 0.01, 0.1, 1.0, pytest.param(10.0, marks=pytest.mark.slow)]
)
def test_energy_is_right_within_a_percent(bench, seconds):
    count = 5 if seconds < 1 else 1

    windows = energy.measure_windows(bench.meter, bench.pulses(seconds, count))

    assert len(windows) == count
    for window, true_uj in zip(windows, bench.true_uj(), strict=True):
        assert window.energy_uj == pytest.approx(true_uj, rel=0.01)
        assert window.duration_s == pytest.approx(seconds, rel=1e-4)
        assert window.idle_uw == pytest.approx(bench.fake.idle.mean_ua * SUPPLY_MV / 1000, rel=0.02)
        assert window.supply_mv == SUPPLY_MV


@METERS
def test_a_board_that_sleeps_between_windows_is_measured_as_well(bench):
    bench.fake.idle = Load(1.5, REGULATOR)  # a two-thousandth: another shunt, long ramps

    windows = energy.measure_windows(bench.meter, bench.pulses(0.001, 5))

    energies = [window.energy_uj for window in windows]
    assert energies == pytest.approx(bench.true_uj(), rel=0.01)
    assert windows[0].idle_uw == pytest.approx(1.5 * SUPPLY_MV / 1000, abs=0.5)


@METERS
def test_windows_of_different_lengths_follow_each_other(bench):
    lengths = [0.002, 0.0011, 0.03, 0.005]

    windows = energy.measure_windows(bench.meter, [lambda s=s: bench.pulse(s) for s in lengths])

    energies = [window.energy_uj for window in windows]
    assert energies == pytest.approx(bench.true_uj(), rel=0.01)


@METERS
def test_a_meter_measures_again_after_it_was_stopped(bench):
    for _ in range(3):
        energy.measure_windows(bench.meter, bench.pulses(0.003, 1))

    assert len(bench.true_uj()) == 3


@METERS
def test_lost_samples_void_the_energy(bench):
    def run():
        bench.fake.drop_samples(7)
        return bench.pulse(0.02)

    with pytest.raises(SamplesLost, match=r"lost|due"):
        energy.measure_windows(bench.meter, [run])


@METERS
def test_a_pin_that_stays_low_is_told(bench, short_patience):
    with pytest.raises(TriggerError, match="pin"):
        energy.measure_windows(bench.meter, [lambda: 0.005])


@METERS
def test_a_pin_that_stays_high_is_told(bench, short_patience):
    def run():
        bench.fake.pin_changed(1000, 1)
        return 0.005

    with pytest.raises(TriggerError, match="pin"):
        energy.measure_windows(bench.meter, [run])


@METERS
def test_a_meter_that_falls_silent_is_told(bench, monkeypatch):
    monkeypatch.setattr(energy, "SILENT_S", 0.2)
    monkeypatch.setattr(lpm01a, "STOP_S", 0.1)

    def run():
        bench.fake.sampling = False
        return 0.005

    with pytest.raises(MeterError, match="sent no samples for"):
        energy.measure_windows(bench.meter, [run])


@METERS
def test_a_meter_works_after_an_error(bench, short_patience):
    with pytest.raises(TriggerError):
        energy.measure_windows(bench.meter, [lambda: 0.005])

    windows = energy.measure_windows(bench.meter, bench.pulses(0.005, 1))

    assert windows[0].energy_uj == pytest.approx(bench.true_uj()[0], rel=0.01)


@METERS
def test_without_power_nothing_flows(bench):
    switched = []
    bench.fake.on_power = switched.append
    bench.meter.set_power(False)
    bench.meter.start()
    samples = hil.meters.take_until(bench.meter, lambda s: len(s) * s.period_s > 0.02)
    bench.meter.stop()

    assert bench.meter.can_supply
    assert switched == [False]
    assert abs(samples.power_uw[-10:].mean()) < 30  # of an offset


@METERS
def test_a_known_load_proves_a_meter(bench, monkeypatch):
    monkeypatch.setattr(hil.meters, "SELF_TEST_S", 0.1)
    bench.fake.idle = Load(SUPPLY_MV / 1000 / 1000 * 1e6)

    right, wrong = self_test(bench.meter, 1000), self_test(bench.meter, 800)

    assert right.ok
    assert right.current_ua == pytest.approx(right.expected_ua, rel=0.01)
    assert not wrong.ok
    assert "3,750.0 uA are due, wrong" in str(wrong)


@METERS
def test_open_terminals_prove_its_zero(bench, monkeypatch):
    monkeypatch.setattr(hil.meters, "SELF_TEST_S", 0.1)
    assert not self_test(bench.meter, None).ok

    bench.fake.idle = Load(0.0)

    assert self_test(bench.meter, None).ok


@pytest.mark.parametrize("kind", ["ppk2", "lpm01a"])
def test_a_port_that_vanishes_is_told_at_once(bench):
    def run():
        bench.fake.close()
        return 0.005

    with pytest.raises(MeterError, match=r"gone|hung up"):
        energy.measure_windows(bench.meter, [run])


@METERS
def test_two_programs_cannot_share_a_meter(bench, kind):
    if kind == "joulescope":
        pytest.skip("the library keeps a device to itself")
    with pytest.raises(MeterError, match="cannot be opened"):
        hil.meters.open_meter(kind, port=bench.fake.port, board_mv=SUPPLY_MV)
