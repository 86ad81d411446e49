from __future__ import annotations

import os
import threading
import tty

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MeterError, SamplesLost
from hil.meters import lpm01a, take_until
from hil.meters.lpm01a import Decoder, Lpm01a
from hil.virtual.fake_lpm01a import number_text


def stamp(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    return b"\r\nTimeStamp: %03ds %03dms, buff 00%%\r\n" % (seconds, rest)


SAMPLES = b"6409-07\r\n" * 1000


def decode(*data):
    decoder = Decoder("lpm01a at x")
    return [decoder.decode(part) for part in data]


def test_a_number_is_four_digits_and_a_power_of_ten():
    [(energies, _)] = decode(b"6409-07\r\n1000+00\r\n0000+00\r\n")

    assert energies == pytest.approx([640.9e-6, 1000.0, 0.0])


@given(st.floats(1e-12, 1e3))
def test_the_stand_in_writes_numbers_as_the_driver_reads_them(value):
    [(energies, _)] = decode(number_text(value).encode() + b"\r\n")

    assert energies[0] == pytest.approx(value, rel=6e-4)


def test_events_say_which_sample_they_fell_into():
    [(energies, events)] = decode(
        b"1000-09\r\n1000-09\r\nevent 00 ris\r\n1000-09\r\nevent 01 ris\r\n"
    )

    assert (len(energies), events) == (3, [2, 3])


def test_a_line_may_come_in_pieces():
    pieces = decode(b"64", b"09-0", b"7\r", b"\nevent 0", b"0 ris\r\n")

    assert [len(energies) for energies, _ in pieces] == [0, 0, 0, 1, 0]
    assert [events for _, events in pieces][-1] == [0]


def test_a_missing_event_is_lost_samples():
    with pytest.raises(SamplesLost, match="event 3 came behind event 1"):
        decode(b"event 01 ris\r\nevent 03 ris\r\n")


def test_time_stamps_every_thousand_samples_are_right():
    decode(stamp(0) + SAMPLES + stamp(200) + SAMPLES + stamp(400))


def test_time_stamps_start_again_after_a_thousand_seconds():
    decode(stamp(999_800) + SAMPLES + stamp(0))


@pytest.mark.parametrize("count", [999, 1001])
def test_samples_that_do_not_fit_the_time_stamps_are_lost(count):
    with pytest.raises(SamplesLost, match=f"{count:,} samples came in 200 ms"):
        decode(stamp(0) + b"6409-07\r\n" * count + stamp(200))


def test_a_jump_in_time_is_lost_samples():
    with pytest.raises(SamplesLost, match="in 400 ms"):
        decode(stamp(0) + SAMPLES + stamp(400))


def test_an_error_of_the_device_is_told():
    with pytest.raises(MeterError, match="error voltage drop"):
        decode(b"1000-09\r\n\r\nerror voltage drop\r\n")


def test_other_lines_are_no_lpm01a():
    with pytest.raises(MeterError, match=r"sends 'login: root'"):
        decode(b"login: root\r\n")


@pytest.mark.parametrize("supply_mv", [1799, 3301])
def test_a_voltage_out_of_range_is_refused(supply_mv):
    with pytest.raises(MeterError, match="1800 to 3300 mV"):
        Lpm01a("/dev/null", supply_mv=supply_mv, board_mv=3000)


class Device:
    """A pty that acknowledges commands, but for one, and streams what a test says."""

    def __init__(self, stream=b"", refuse="", silent=False):
        self.commands = []
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._stream, self._refuse, self._silent = stream, refuse, silent
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        received = b""
        try:
            while data := os.read(self._ours, 100):
                received += data
                *lines, received = received.split(b"\r\n")
                for line in lines:
                    self.commands.append(line.decode("ascii", "replace"))
                    self._answer(line)
        except OSError:
            return

    def _answer(self, line):
        if self._silent:
            os.write(self._ours, self._stream)
        elif self._refuse and line.startswith(self._refuse.encode()):
            os.write(self._ours, b"\r\nPowerShield > error " + line + b"\r\nError detail: no\r\n")
        elif line != b"stop":
            os.write(self._ours, b"\r\nPowerShield > ack " + line + b"\r\n\r\n")
            if line == b"start":
                os.write(self._ours, self._stream)

    def close(self):
        os.close(self._theirs)
        os.close(self._ours)


def test_it_is_set_up_for_energy_with_events():
    pty = Device()
    meter = Lpm01a(pty.port, supply_mv=2800, board_mv=3000)
    meter.set_power(False)
    meter.close()
    pty.close()

    for command in ("htc", "output energy", "freq 5k", "volt 2800m", "eventsrc d7 fal"):
        assert command in pty.commands
    assert pty.commands.index("htc") < pty.commands.index("pwr on nostatus")
    assert pty.commands[-1] == "pwr off nostatus"


def test_what_comes_right_behind_an_acknowledgement_is_not_lost():
    pty = Device(stream=stamp(0) + b"2000-09\r\n" * 30)
    meter = Lpm01a(pty.port, supply_mv=3000, board_mv=3000)
    meter.start()
    samples = take_until(meter, lambda s: len(s) >= 30)
    meter.close()
    pty.close()

    assert np.allclose(samples.power_uw, 2000e-9 * 5000 * 1e6)


def test_an_old_firmware_is_told():
    pty = Device(refuse="eventsrc")
    with pytest.raises(MeterError, match="refuses 'eventsrc d7 fal'; its firmware"):
        Lpm01a(pty.port, supply_mv=3000, board_mv=3000)
    pty.close()


def test_a_port_that_is_no_lpm01a_is_told(monkeypatch):
    monkeypatch.setattr(lpm01a, "ANSWER_S", 0.1)
    pty = Device(silent=True, stream=b"m-ready\r\n")
    with pytest.raises(MeterError, match="does not acknowledge 'htc'"):
        Lpm01a(pty.port, supply_mv=3000, board_mv=3000)
    pty.close()


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_garbage_is_an_error_and_never_a_hang(garbage, silent):
    lpm01a.ANSWER_S, answer_s = 0.05, lpm01a.ANSWER_S
    lpm01a.STOP_S, stop_s = 0.05, lpm01a.STOP_S
    pty = Device(stream=garbage, silent=silent)
    try:
        meter = Lpm01a(pty.port, supply_mv=3000, board_mv=3000)
        try:
            meter.start()
            while meter.wait(0.02):
                meter.take()
            meter.stop()
        finally:
            meter.close()
    except MeterError:
        pass
    finally:
        lpm01a.ANSWER_S, lpm01a.STOP_S = answer_s, stop_s
        pty.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b"6409-07\r\n"), st.just(stamp(0)))))
def test_no_bytes_break_the_decoder(parts):
    decoder = Decoder("lpm01a at x")
    try:
        for part in parts:
            energies, events = decoder.decode(part)
            assert all(0 <= event <= len(energies) for event in events)
    except MeterError:
        pass
