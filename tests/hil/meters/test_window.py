from __future__ import annotations

import numpy as np
import pytest

from hil.errors import TriggerError
from hil.meters.window import EnergyWindow, Samples, find_window, margin_samples, why_no_window

DT = 1e-5
ACTIVE_UW, IDLE_UW = 10_000.0, 100.0


def levels(rise_s, seconds, *, after_s=0.01, active_uw=ACTIVE_UW, idle_uw=IDLE_UW):
    """What a meter samples of a rectangle that begins and ends anywhere between its samples."""
    times = np.arange(0, rise_s + seconds + after_s, DT)
    high = (times >= rise_s) & (times < rise_s + seconds)
    return Samples(DT, np.where(high, active_uw, idle_uw).astype(np.float32), high=high)


def bins(rise_s, seconds, *, period_s=2e-4, after_s=0.02, active_uw=ACTIVE_UW, idle_uw=IDLE_UW):
    """The same rectangle as means over periods, with the event of its falling edge."""
    count = int((rise_s + seconds + after_s) / period_s)
    edges = np.arange(count + 1) * period_s
    on_s = np.clip(edges, rise_s, rise_s + seconds)
    share = np.diff(on_s) / period_s
    power = idle_uw + (active_uw - idle_uw) * share
    falls = np.array([int((rise_s + seconds) / period_s)])
    return Samples(period_s, power.astype(np.float32), falls=falls, averaged=True)


def window(samples, seconds) -> EnergyWindow:
    found = find_window(samples, seconds, meter="ppk2 at x", supply_mv=3000)
    assert found is not None
    return found


@pytest.mark.parametrize("seconds", [1e-3, 1.0037e-3, 0.0123456])
def test_a_rectangle_is_right_wherever_it_lies_between_samples(seconds):
    for rise_s in 0.005 + DT * np.linspace(0, 1, 11):
        found = window(levels(rise_s, seconds), seconds)
        assert found.energy_uj == pytest.approx(ACTIVE_UW * seconds, rel=1e-6)
        assert found.idle_uw == pytest.approx(IDLE_UW)


@pytest.mark.parametrize("seconds", [1e-3, 1.0037e-3, 0.0123456])
def test_means_over_long_periods_are_right_as_well(seconds):
    for rise_s in 0.005 + 2e-4 * np.linspace(0, 1, 11):
        found = window(bins(rise_s, seconds), seconds)
        assert found.energy_uj == pytest.approx(ACTIVE_UW * seconds, rel=1e-4)
        assert found.idle_uw == pytest.approx(IDLE_UW, rel=1e-4)


def test_a_slope_inside_the_window_is_integrated():
    samples = levels(0.005, 0.01)
    slope = np.where(samples.high, np.cumsum(samples.high) * 10.0, IDLE_UW)
    found = window(Samples(DT, slope.astype(np.float32), samples.high), 0.01)

    assert found.energy_uj == pytest.approx(5000 * 0.01, rel=2e-3)


def test_without_a_duration_the_levels_tell_it():
    found = find_window(levels(0.005, 0.01), None, meter="m", supply_mv=3000)

    assert found is not None
    assert found.duration_s == pytest.approx(0.01, abs=DT)


def test_an_event_alone_tells_no_duration():
    with pytest.raises(TriggerError, match="length must be known"):
        find_window(bins(0.005, 0.01), None, meter="m", supply_mv=3000)


@pytest.mark.parametrize("make", [levels, bins])
def test_a_window_needs_idle_samples_behind_it(make):
    samples = make(0.005, 0.002, after_s=0.0005)

    assert find_window(samples, 0.002, meter="m", supply_mv=3000) is None


@pytest.mark.parametrize("wrong", [0.5, 0.97, 1.03, 2.0])
def test_a_pulse_of_another_length_is_refused(wrong):
    with pytest.raises(TriggerError, match=r"high for 10\.\d+ ms where the board counted"):
        window(levels(0.005, 0.01), 0.01 * wrong)


def test_clocks_may_differ_a_little():
    assert window(levels(0.005, 0.01), 0.01005).energy_uj == pytest.approx(100.5, rel=0.001)


def test_a_window_longer_than_what_came_before_its_end_is_refused():
    with pytest.raises(TriggerError, match="the board counted"):
        window(bins(0.005, 0.002), 0.02)


def test_two_pulses_are_refused():
    one = levels(0.005, 0.002, after_s=0.001)
    with pytest.raises(TriggerError, match="rose 2 times"):
        window(one.and_then(one), 0.002)
    two = bins(0.005, 0.002).and_then(bins(0.005, 0.002))
    with pytest.raises(TriggerError, match="fell 2 times"):
        window(two, 0.002)


def test_a_pin_that_is_high_already_is_refused():
    with pytest.raises(TriggerError, match="before the window"):
        window(levels(0.0, 0.002), 0.002)


@pytest.mark.parametrize(
    ("high", "text"),
    [
        ([0, 0, 0], "stayed low"),
        ([1, 1, 1], "stayed high"),
        ([0, 1, 1], "rose and stayed high"),
        ([0, 1, 0], "too few samples"),
    ],
)
def test_what_the_pin_did_instead_is_told(high, text):
    samples = Samples(DT, np.zeros(3, np.float32), high=np.array(high, np.bool_))

    assert text in str(why_no_window(samples, "ppk2 at x"))


def test_samples_can_be_cut_and_joined():
    whole = bins(0.005, 0.002)
    first = Samples(whole.period_s, whole.power_uw[:20], falls=np.empty(0, np.int64), averaged=True)
    joined = first.and_then(whole.since(20))

    assert np.array_equal(joined.power_uw, whole.power_uw)
    assert np.array_equal(joined.falls, whole.falls)


def test_the_margin_holds_what_a_window_needs_before_it():
    for period_s in (1e-6, 1e-5, 2e-4):
        margin = margin_samples(period_s)
        rise_s = (margin + 0.01) * period_s  # as soon as the margin is there
        seconds = 5.3 * period_s
        samples = bins(rise_s, seconds, period_s=period_s)
        assert window(samples, seconds).energy_uj == pytest.approx(ACTIVE_UW * seconds, rel=1e-3)
