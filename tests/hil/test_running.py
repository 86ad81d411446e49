from __future__ import annotations

import pytest

from boards import FakePlace
from hil.running import RunReport, run_elf


def report(**changes):
    values = {
        "place": "virtual:nrf52840_dk",
        "source": "virtual",
        "reason": "exit",
        "exit_code": 0,
        "cycles": 1200,
        "instructions": 1000,
        "fault": None,
        "timing_model": "cortex-m4/2",
        "memory": {"wait_states": 5, "prefetch": True, "caches_on": ["dcache", "icache"]},
        "output": b"hello\n",
    }
    return RunReport(**{**values, **changes})


@pytest.mark.parametrize(
    ("reason", "exit_code", "expected"),
    [
        ("exit", 0, 0),
        ("exit", 3, 3),
        ("exit", -1, 1),
        ("exit", 1000, 255),
        ("until", None, 0),
        ("timeout", None, 1),
        ("fault", None, 1),
        ("sleep", None, 1),
    ],
)
def test_the_commands_exit_code_follows_how_the_program_ended(reason, exit_code, expected):
    assert report(reason=reason, exit_code=exit_code).command_exit_code == expected


def test_the_sentence_tells_the_end_the_fault_and_the_cost():
    sentence = report(reason="fault", exit_code=None, fault="bus fault, pc 0x10").sentence("a.elf")

    assert sentence == (
        "a.elf on virtual:nrf52840_dk faulted: bus fault, pc 0x10; "
        "1,200 cycles (virtual, cortex-m4/2), 1,000 instructions; "
        "flash at 5 wait states, dcache, icache on"
    )


def test_output_that_is_no_text_survives_json():
    assert report(output=b"\xff ok").to_json()["output"] == "\ufffd ok"


class Desk(FakePlace):
    source = "hardware"
    timing_model = None


def test_hardware_runs_until_it_prints_the_text(tmp_path):
    seen = []
    with Desk() as place:
        result = run_elf(
            place, tmp_path / "a.elf", until="init-done", timeout_s=5, on_output=seen.append
        )

    assert result.reason == "until"
    assert result.cycles is None
    assert b"".join(seen) == result.output


def test_hardware_stops_at_the_timeout(tmp_path):
    with Desk() as place:
        result = run_elf(
            place, tmp_path / "a.elf", until="never", timeout_s=0.1, on_output=lambda data: None
        )

    assert result.reason == "timeout"
    assert b"m-ready" in result.output
