from __future__ import annotations

import os
import struct
import threading
import time
import tty

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MeterError, SamplesLost
from hil.meters import ppk2
from hil.meters.ppk2 import Calibration, Decoder, Ppk2
from hil.virtual.fake_ppk2 import CALIBRATION, FakePpk2

#: As a PPK2 says it; numbers made up.
TEXT = b"""Calibrated: 0
R0: 1003.35
R1: 101.65
R2: 10.15
R3: 0.94
R4: 0.0430
GS0: 0.0
GS1: -nan
GI2: 0.9695
O3: 88.5
S4: 0.000029
I4: -0.000105
UG1: 1.01
VDD: 3300
HW: 9173
mode: 2
IA: 56
END
"""


def word(adc=0, shunt=0, counter=0, logic=0):
    return adc | shunt << 14 | counter << 18 | logic << 24


NOMINAL = Calibration()


def decoded(words, calibration=NOMINAL, supply_mv=3000):
    decoder = Decoder(calibration, supply_mv, "ppk2 at x")
    return decoder.decode(np.array(words, np.uint32))


def test_calibration_is_read_and_what_is_missing_stays_nominal():
    calibration = Calibration.parse(TEXT)

    assert calibration.R == (1003.35, 101.65, 10.15, 0.94, 0.043)
    assert calibration.GI == (1, 1, 0.9695, 1, 1)
    assert calibration.O == (0, 0, 0, 88.5, 0)
    assert (calibration.S[4], calibration.I[4], calibration.UG[1]) == (2.9e-5, -1.05e-4, 1.01)
    assert calibration.GS == (1,) * 5, "0 and NaN stand for no calibration"


def test_calibration_is_found_behind_the_rest_of_a_stream():
    assert Calibration.parse(b"\x00\xffEND\x12R1: 7\n" + TEXT) == Calibration.parse(TEXT)


def test_a_sample_by_hand():
    # 1234 * 4 = 4936 steps of 1.8 / 163840 V over 10 ohm, less an offset of 100 steps
    calibration = Calibration(
        R=(1, 1, 10, 1, 1), GS=(0, 0, 2, 0, 0), GI=(1, 1, 0.9, 1, 1), O=(0, 0, 100, 0, 0),
        S=(0, 0, 1e-4, 0, 0), I=(0, 0, -2e-4, 0, 0), UG=(1, 1, 1.1, 1, 1),
    )  # fmt: skip
    x = 4836 * 1.8 / 163840 / 10
    amperes = 1.1 * (x * (2 * x + 0.9) + 1e-4 * 3.3 - 2e-4)

    current_ua, logic = decoded([word(1234, 2, 63, 0x81)], calibration, supply_mv=3300)

    assert current_ua == pytest.approx([amperes * 1e6], rel=1e-12)
    assert logic.tolist() == [0x81]


def test_the_stand_in_encodes_what_the_driver_decodes():
    for shunt, amperes in enumerate([2e-5, 2e-4, 3e-3, 2e-2, 0.3]):
        fake = FakePpk2.__new__(FakePpk2)
        fake._shunt, fake.supply_mv = shunt, 3000
        value = int(fake._values(np.array([amperes]))[0])
        current_ua, _ = decoded([word(value, shunt)], CALIBRATION)
        step_ua = ppk2.VOLTS_PER_STEP * ppk2.ADC_STEP / CALIBRATION.R[shunt] * 1e6
        assert abs(current_ua[0] - amperes * 1e6) <= step_ua


def test_counters_go_round():
    words = [word(100, 2, k % 64) for k in range(300)]

    assert len(decoded(words)[0]) == 300


def test_a_gap_in_the_counters_is_lost_samples():
    words = [word(100, 2, k % 64) for k in range(100) if k not in (50, 51, 52)]

    with pytest.raises(SamplesLost, match=r"1 place\(s\), 3 or more in all"):
        decoded(words)


def test_a_gap_between_two_calls_is_lost_samples():
    decoder = Decoder(Calibration(), 3000, "ppk2 at x")
    decoder.decode(np.array([word(1, 2, 5)], np.uint32))

    with pytest.raises(SamplesLost):
        decoder.decode(np.array([word(1, 2, 7)], np.uint32))


def test_wild_samples_behind_a_change_of_shunt_become_the_mean_of_what_follows():
    low = [word(1000, 1, k % 64) for k in range(20)]
    wild = [word(9000, 2, k % 64) for k in range(20, 23)]
    high = [word(2000 + k % 2, 2, k % 64) for k in range(23, 60)]

    current_ua, _ = decoded(low + wild + high)
    steady = current_ua[23:31].mean()

    assert current_ua[20:23] == pytest.approx([steady] * 3)
    assert current_ua[:20] == pytest.approx([current_ua[0]] * 20)


def test_a_change_of_shunt_at_the_end_of_a_call_goes_on_in_the_next():
    decoder = Decoder(Calibration(), 3000, "ppk2 at x")
    decoder.decode(np.array([word(1000, 1, 0), word(9000, 2, 1)], np.uint32))
    rest = [word(9000, 2, 2), word(9000, 2, 3)] + [word(2000, 2, k) for k in range(4, 20)]

    current_ua, _ = decoder.decode(np.array(rest, np.uint32))

    assert current_ua == pytest.approx([current_ua[-1]] * 18)


def test_a_million_samples_are_decoded_in_well_under_a_second():
    counters = np.arange(1_000_000, dtype=np.uint32) % 64
    words = np.uint32(word(1000, 2)) | counters << 18
    decoder = Decoder(CALIBRATION, 3000, "ppk2 at x")

    start = time.process_time()  # of this process: a busy machine does not count
    decoder.decode(words)

    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("supply_mv", [799, 5001])
def test_a_voltage_out_of_range_is_refused(supply_mv):
    with pytest.raises(MeterError, match="800 to 5000 mV"):
        Ppk2("/dev/null", supply_mv=supply_mv, board_mv=3000)


class Device:
    """A pty whose other end answers what a test says, and keeps what it was told."""

    def __init__(self, answer=TEXT, stream=b""):
        self.told = bytearray()
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._answer, self._stream = answer, stream
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            while data := os.read(self._ours, 100):
                self.told += data
                for command in data:
                    if command == ppk2.Command.GET_META_DATA:
                        os.write(self._ours, self._answer)
                    elif command == ppk2.Command.AVERAGE_START:
                        os.write(self._ours, self._stream)
        except OSError:
            return

    def was_told(self, count):
        """The first bytes, as soon as so many have come."""
        deadline = time.monotonic() + 10
        while len(self.told) < count and time.monotonic() < deadline:
            time.sleep(0.001)
        return bytes(self.told)

    def close(self):
        os.close(self._theirs)
        os.close(self._ours)


@pytest.fixture
def device():
    devices = []

    def make(**given):
        devices.append(Device(**given))
        return devices[-1]

    yield make
    for each in devices:
        each.close()


def opened(device, **given):
    return Ppk2(device.port, **{"supply_mv": 3000, "board_mv": 3300, **given})


def test_source_mode_sets_the_voltage_and_switches_on(device):
    pty = device()
    meter = opened(pty)
    meter.set_power(False)
    meter.close()

    assert pty.was_told(11) == bytes.fromhex("07 19 11 02 0d 0bb8 0c 01 0c 00")
    assert (meter.can_supply, meter.supply_mv) == (True, 3000)


def test_ampere_mode_leaves_the_supply_to_the_board(device):
    pty = device()
    meter = opened(pty, supply_mv=None)
    meter.close()

    assert bytes.fromhex("11 01") in pty.was_told(9)
    assert (meter.can_supply, meter.supply_mv) == (False, 3300)


def test_the_trigger_channel_is_one_of_eight(device):
    words = [word(500, 2, k % 64, logic=0x20 if k % 3 else 0xDF) for k in range(64)]
    meter = opened(device(stream=struct.pack("<64I", *words)), trigger_channel=5)
    meter.start()
    high = []
    while len(high) < 64:
        assert meter.wait(5.0)
        samples = meter.take()
        assert samples.high is not None
        high += samples.high.tolist()
    meter.close()

    assert high == [k % 3 != 0 for k in range(64)]


@pytest.mark.parametrize("skew", [1, 2, 3])
def test_samples_need_not_begin_with_the_first_byte(device, skew):
    words = [word(500, 2, k % 64) for k in range(64)]
    stream = b"\n\r\n"[:skew] + struct.pack("<64I", *words)
    meter = opened(device(stream=stream))
    meter.start()
    count = 0
    while count < 64:
        assert meter.wait(5.0)
        count += len(meter.take())
    meter.close()

    assert count == 64


@settings(max_examples=25, deadline=None)
@given(garbage=st.binary(max_size=600), stream=st.binary(max_size=600))
def test_garbage_is_an_error_and_never_a_hang(garbage, stream):
    ppk2.ANSWER_S, before = 0.05, ppk2.ANSWER_S
    pty = Device(answer=garbage, stream=stream)
    try:
        meter = opened(pty)
        try:
            meter.start()
            while meter.wait(0.02):
                samples = meter.take()
                assert len(samples) == len(samples.high)
        finally:
            meter.close()
    except MeterError:
        pass
    finally:
        ppk2.ANSWER_S = before
        pty.close()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_the_decoder(data):
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    decoder = Decoder(Calibration.parse(data), 3000, "ppk2 at x")
    try:
        current_ua, logic = decoder.decode(words)
    except SamplesLost:
        return
    assert len(current_ua) == len(logic) == len(words)
    assert np.isfinite(current_ua).all()
