from __future__ import annotations

import numpy as np
import pytest

from hil.board import Supply, get_board
from hil.virtual.power_model import OFF, TAU_S, Load, SupplyCurrent, loads


def numerically(current: SupplyCurrent, start_s: float, end_s: float) -> float:
    """Charge by the midpoint rule, in steps far below every time constant."""
    count = round((end_s - start_s) / 20e-9)
    step = (end_s - start_s) / count
    return float(current.current_ua(start_s + (np.arange(count) + 0.5) * step).sum() * step)


def test_the_integral_is_that_of_the_current():
    idle, active = loads(get_board("nrf52840_dk").supply)
    current = SupplyCurrent(idle)
    for load, start_s, end_s in (
        (active, 0.01, 0.0123),
        (idle, 0.0123, 0.0124),
        (OFF, 0.0124, 0.013),
    ):
        current.change(load, start_s)
        assert current.charge_to(end_s) == pytest.approx(
            numerically(current, start_s, end_s), rel=1e-6, abs=1e-9
        )


def test_a_change_is_a_ramp_that_begins_where_the_current_was():
    current = SupplyCurrent(Load(1000.0))
    current.change(Load(3000.0), 1.0)

    times = 1.0 + np.array([0, TAU_S, 20 * TAU_S])

    assert current.current_ua(times) == pytest.approx([1000, 3000 - 2000 / np.e, 3000], rel=1e-6)


def test_a_single_sample_is_off_by_more_than_a_percent():
    _, active = loads(get_board("stm32f746g_disco").supply)
    samples = SupplyCurrent(active).current_ua(np.linspace(0.001, 1.0, 10_000))

    assert samples.std() > 0.05 * samples.mean()


def test_a_board_without_an_idle_current_idles_as_it_computes():
    idle, active = loads(Supply(3000, 5000, "a data sheet"))

    assert idle.mean_ua == active.mean_ua == 5000
