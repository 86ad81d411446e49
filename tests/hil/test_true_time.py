from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from hil import true_time
from hil.errors import ClockMismatch
from hil.true_time import PROOF, Reading, TrueTime, check_true_time, uncertainty


@dataclass
class Desk:
    """A board and a clock beside it; an answer takes `latency_s`, the board reads in the middle.

    `crystal` is how many seconds the board counts in a true one.
    """

    crystal: float = 1.0
    latency_s: float = 0.008
    source: Literal["virtual", "hardware"] = "hardware"
    true_s: float = 100.0
    readings: int = 0
    busy_s: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.true_s

    def time(self) -> tuple[int, int]:
        self.readings += 1
        latency_s = self.busy_s.pop(0) if self.busy_s else self.latency_s
        self.true_s += latency_s / 2
        board_s = self.true_s * self.crystal
        self.true_s += latency_s / 2
        return int(board_s * 1e6) % 2**32, int(board_s * 64e6) % 2**32


def proved(desk: Desk, *spans_s: float) -> TrueTime:
    clock = TrueTime(desk, desk)  # type: ignore[arg-type]
    for span_s in spans_s:
        clock.read()
        desk.true_s += span_s
    clock.prove()
    return clock


@pytest.mark.parametrize("crystal", [0.99, 1.0, 1.01])
def test_a_sound_crystal_is_proved_without_waiting(crystal):
    desk = Desk(crystal)

    proved(desk, 1.0)

    assert desk.readings == 2


@pytest.mark.parametrize("crystal", [0.5, 0.9, 0.95, 1.05, 1.1, 2.0])
@pytest.mark.parametrize("span_s", [0.0, 0.01, 1.0, 100.0])
def test_a_crystal_that_is_off_is_found_in_any_session(crystal, span_s):
    with pytest.raises(ClockMismatch, match="does not hang on its crystal"):
        proved(Desk(crystal), span_s)


@pytest.mark.parametrize("latency_s", [0.001, 0.008, 0.03])
def test_a_short_session_goes_on_until_there_is_a_proof_and_no_longer(latency_s):
    desk = Desk(latency_s=latency_s)

    clock = proved(desk, 0.0)

    assert uncertainty(clock.readings) <= PROOF
    assert desk.true_s - 100.0 < 2.1 * latency_s / PROOF + 3 * latency_s


def test_one_slow_answer_does_not_spoil_a_session():
    desk = Desk(busy_s=[0.5])

    proved(desk, 0.5, 0.9)

    assert desk.readings == 3


def test_a_machine_too_busy_for_a_proof_says_so():
    with pytest.raises(ClockMismatch, match="only known within"):
        proved(Desk(latency_s=1.0), 0.0)


def test_emulated_time_does_not_pass_by_waiting():
    desk = Desk(source="virtual")

    proved(desk, 0.0)

    assert desk.readings == 2


@pytest.mark.parametrize("minutes", [1, 70, 72, 150, 300])
def test_the_boards_timer_may_wrap(minutes):
    proved(Desk(), minutes * 60.0)
    with pytest.raises(ClockMismatch):
        proved(Desk(0.9), minutes * 60.0)


def test_a_board_whose_time_stands_still_is_found():
    with pytest.raises(ClockMismatch):
        check_true_time([Reading(5, 0.0, 0.01), Reading(5, 1.0, 1.01)])


def test_without_a_span_nothing_is_known():
    assert uncertainty([Reading(0, 1.0, 1.0)]) == float("inf")
    assert uncertainty([Reading(0, 1.0, 1.0), Reading(0, 1.0, 1.0)]) == float("inf")
    assert true_time.TOLERANCE >= PROOF
