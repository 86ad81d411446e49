"""A virtual board as a process: flashing, the serial port, control while it runs, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import serial

from hil.board import get_board
from hil.errors import FlashError, LinkError
from hil.virtual.place import START_DEADLINE_S, VirtualPlace
from hil.virtual.run import run_elf

NRF = get_board("nrf52840_dk")

# The UART is switched on; ECHO sends every byte back; SEND in r0 sends one.
UART_ON = """
    ldr r4, =0x40002000
    movs r0, #4
    str r0, [r4, #0x500]
    movs r0, #6
    str r0, [r4, #0x50c]
    movs r0, #8
    str r0, [r4, #0x514]
    movs r0, #1
    str r0, [r4]
    str r0, [r4, #8]
"""
ECHO = f"""start: {UART_ON}
    next: ldr r0, [r4, #0x108]
    cmp r0, #0
    beq next
    movs r0, #0
    str r0, [r4, #0x108]
    ldr r0, [r4, #0x518]
    str r0, [r4, #0x51c]
    b next
"""
# 100,000 bytes counting up, then the end.
FLOOD = f"""start: {UART_ON}
    ldr r5, =100000
    movs r6, #0
    more: str r6, [r4, #0x51c]
    adds r6, #1
    subs r5, #1
    bne more
    movs r0, #0
    EXIT
"""
LOOP = "start: ldr r0, =30000000\n1: subs r0, #1\nbne 1b\nEXIT\n"


@pytest.fixture(scope="module")
def place():
    with VirtualPlace(NRF) as opened:
        yield opened


def _until(place: VirtualPlace, state: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while place.state().state != state:
        assert time.monotonic() < end, place.state()


def test_bytes_of_every_value_come_back(place, assemble):
    place.flash(assemble(NRF, ECHO))
    data = bytes(range(256)) * 4

    with serial.Serial(place.port, 115200, timeout=10) as port:
        port.write(data)
        assert port.read(len(data)) == data


def test_the_port_can_be_closed_and_opened_again(place, assemble):
    place.flash(assemble(NRF, ECHO))

    for text in (b"first", b"second", b"third"):
        with serial.Serial(place.port, 115200, timeout=10) as port:
            port.write(text)
            assert port.read(len(text)) == text


def test_an_idle_board_costs_the_host_nothing(place, assemble):
    place.flash(assemble(NRF, ECHO))
    _until(place, "waiting for input")
    process = psutil.Process(place.process_id)

    before = process.cpu_times().user
    cycles = place.state().cycles
    time.sleep(0.3)

    assert process.cpu_times().user - before < 0.1
    assert place.state().cycles == cycles


def test_much_output_reaches_a_slow_reader_whole(place, assemble):
    with serial.Serial(place.port, 115200, timeout=10) as port:
        place.flash(assemble(NRF, FLOOD))
        _until(place, "waiting for a reader")  # nobody has read so far: the board waits
        received = port.read(100_000)

    assert received == bytes(i & 0xFF for i in range(100_000))
    _until(place, "exited")


def test_a_board_that_waits_for_a_reader_can_be_reset_and_flashed(place, assemble):
    place.flash(assemble(NRF, FLOOD, "flood"))
    _until(place, "waiting for a reader")

    place.reset()
    _until(place, "waiting for a reader")
    place.flash(assemble(NRF, ECHO, "echo"))
    _until(place, "waiting for input")


def test_control_traffic_does_not_change_the_cycles(place, assemble):
    elf = assemble(NRF, LOOP)
    quiet = run_elf(place, elf)

    place.flash(elf)
    asked = 0
    while place.state().state != "exited":
        asked += 1

    assert asked > 3
    assert place.state().cycles == quiet.cycles
    assert quiet.reason == "exit"


def test_cycles_do_not_depend_on_when_bytes_arrive(place, assemble):
    elf = assemble(NRF, ECHO)
    cycles = []
    for pause_s in (0.0, 0.02):
        place.flash(elf)
        with serial.Serial(place.port, 115200, timeout=10) as port:
            for i in range(5):
                port.write(bytes([i]))
                time.sleep(pause_s)
            assert port.read(5) == bytes(range(5))
        _until(place, "waiting for input")
        cycles.append(place.state().cycles)

    assert cycles[0] == cycles[1]


def test_a_running_board_can_be_reset_and_flashed(place, assemble):
    place.flash(assemble(NRF, "start: b start\n", "endless"))
    _until(place, "running")

    place.reset()
    _until(place, "running")

    assert run_elf(place, assemble(NRF, LOOP, "loop")).reason == "exit"


def test_a_run_ends_at_the_text_it_waits_for(place, assemble):
    elf = assemble(NRF, FLOOD)

    first, second = (run_elf(place, elf, until="789") for _ in range(2))

    assert first.reason == "until"
    assert first.output.endswith(b"789")
    assert first == second


def test_a_run_ends_at_the_timeout(place, assemble):
    seen = run_elf(place, assemble(NRF, "start: b start\n"), timeout_s=0.3)

    assert seen.reason == "timeout"
    assert seen.cycles is not None and seen.cycles > 1_000_000


def test_a_run_reports_a_fault(place, assemble):
    seen = run_elf(place, assemble(NRF, "start: ldr r0, =0x30000000\nldr r1, [r0]\n"))

    assert seen.reason == "fault"
    assert "read of 4 bytes at 0x30000000 outside the memory map, pc 0x" in seen.fault
    assert place.fault() == seen.fault


def test_a_fault_that_the_firmware_handles_is_kept_until_the_reset(place, assemble):
    place.flash(assemble(NRF, "start: udf #7\nhard_fault: b hard_fault\n"))
    _until(place, "running")
    end = time.monotonic() + 10
    while place.fault() is None and time.monotonic() < end:
        pass

    assert "undefined instruction de07" in place.fault()
    place.flash(assemble(NRF, ECHO, "echo"))
    assert place.fault() is None


def test_pin_changes_carry_their_cycle(place, assemble):
    elf = assemble(
        NRF,
        "start: ldr r4, =0x50000a20\nmovs r0, #1\nstr r0, [r4]\nlsls r0, r0, #8\n"
        "ldr r4, =0x50000800\nadds r1, #1\n"
        "str r0, [r4, #8]\nadds r1, #1\nadds r1, #1\nadds r1, #1\n"
        "str r0, [r4, #12]\nEXIT\n",
    )
    run_elf(place, elf)

    (up, port, pin, level), (down, *_, low) = place.pin_changes()

    assert (port, pin, level, low) == ("P1", 8, 1, 0)
    assert down - up == 1 + 3  # the store and three additions


def test_semihosting_output_and_exit_code(place, compile_c):
    elf = compile_c(NRF, '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }')
    pieces = []

    seen = run_elf(place, elf, on_output=pieces.append)

    assert (seen.reason, seen.exit_code, seen.output) == ("exit", 3, b"hello\n")
    assert b"".join(pieces) == seen.output


def test_what_cannot_be_flashed_is_said_and_changes_nothing(place, assemble, tmp_path):
    place.flash(assemble(NRF, ECHO))
    bad = tmp_path / "bad.elf"
    bad.write_bytes(b"MZ")

    with pytest.raises(
        FlashError, match=r"flashing virtual:nrf52840_dk by virtual failed: not an ELF file"
    ):
        place.flash(bad)
    with pytest.raises(FlashError, match=r"missing.elf is not a file"):
        place.flash(tmp_path / "missing.elf")

    with serial.Serial(place.port, 115200, timeout=10) as port:
        port.write(b"ok")
        assert port.read(2) == b"ok"


def test_a_killed_board_leaves_nothing_and_says_so(assemble, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    elf = assemble(NRF, FLOOD)
    with VirtualPlace(NRF) as place:
        place.flash(elf)
        port = place.port
        os.kill(place.process_id, signal.SIGKILL)

        with pytest.raises(LinkError, match=r"has ended|is gone"):
            place.state()

    assert not os.path.exists(port) or not _is_open(port)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_first_start_fits_its_deadline_on_a_busy_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # empty: all is compiled

    with VirtualPlace(get_board("nrf52840_dk")) as cold:
        times = psutil.Process(cold.process_id).cpu_times()

    assert any(tmp_path.iterdir())
    assert 20 * (times.user + times.system) < START_DEADLINE_S


def test_a_board_dies_with_its_parent(tmp_path):
    script = (
        "import os, signal; from hil.board import get_board;"
        "from hil.virtual.place import VirtualPlace;"
        "place = VirtualPlace(get_board('nrf52840_dk')); print(place.process_id, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    child = int(done.stdout)

    end = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the board outlived its parent"


def _is_open(port: str) -> bool:
    return any(
        port in [f.path for f in p.open_files()]
        for p in psutil.process_iter()
        if p.pid != os.getpid()
    )
