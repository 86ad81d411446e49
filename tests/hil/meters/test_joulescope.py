from __future__ import annotations

import sys

import numpy as np
import pytest
from meter_benches import LibraryDriver

from hil.errors import MeterError, SamplesLost
from hil.meters import joulescope
from hil.meters.joulescope import Joulescope

PATH = "u/js220/001234"


@pytest.fixture
def driver():
    return LibraryDriver()


@pytest.fixture
def meter(driver):
    meter = Joulescope(supply_mv=None, board_mv=3000, driver=driver)
    yield meter
    meter.close()


def message(number, data, rate_hz=1_000_000):
    return {
        "sample_id": 2 * number,
        "sample_rate": 2 * rate_hz,
        "decimate_factor": 2,
        "data": np.asarray(data),
    }


def send(driver, name, number, data, **given):
    topic = f"{PATH}/{name}/!data"
    driver.subscribers[topic](topic, message(number, data, **given))


def amperes(*values):
    return np.array(values, np.float32)


def packed(*levels):
    return np.packbits(np.array(levels, np.uint8), bitorder="little")


def test_power_is_the_product_of_current_and_measured_voltage(driver, meter):
    meter.start()
    send(driver, "s/i", 0, amperes(*[0.001] * 8))
    send(driver, "s/v", 0, amperes(*[2.5] * 8))
    send(driver, "s/gpi/0", 0, packed(0, 1, 1, 0, 0, 0, 1, 0))

    samples = meter.take()

    assert samples.power_uw == pytest.approx([2500.0] * 8)
    assert samples.high is not None
    assert samples.high.tolist() == [False, True, True, False, False, False, True, False]
    assert samples.period_s == 1e-6


def test_signals_that_begin_and_end_apart_are_brought_together(driver, meter):
    meter.start()
    send(driver, "s/i", 100, amperes(*range(16)))
    send(driver, "s/v", 104, amperes(*[1.0] * 8))
    send(driver, "s/gpi/0", 96, packed(*[0] * 24))

    first = meter.take()
    send(driver, "s/v", 112, amperes(*[1.0] * 4))
    second = meter.take()

    assert (first.power_uw / 1e6).tolist() == list(range(4, 12))
    assert (second.power_uw / 1e6).tolist() == list(range(12, 16))


def test_nothing_is_there_until_all_signals_are(driver, meter):
    meter.start()
    send(driver, "s/i", 0, amperes(0.001))

    assert len(meter.take()) == 0
    assert not meter.wait(0.0)


def test_a_gap_is_lost_samples(driver, meter):
    meter.start()
    send(driver, "s/i", 0, amperes(0.001))
    send(driver, "s/i", 5, amperes(0.001))

    with pytest.raises(SamplesLost, match="4 samples of u/js220/001234/s/i"):
        meter.take()


def test_a_value_that_is_missing_is_lost_samples(driver, meter):
    meter.start()
    send(driver, "s/i", 0, amperes(np.nan, 0.001))
    send(driver, "s/v", 0, amperes(3.0, 3.0))
    send(driver, "s/gpi/0", 0, packed(0, 0))

    with pytest.raises(SamplesLost, match="missing"):
        meter.take()


def test_another_rate_is_an_error(driver, meter):
    meter.start()
    send(driver, "s/i", 0, amperes(0.001), rate_hz=500_000)

    with pytest.raises(MeterError, match="500,000 samples/s"):
        meter.take()


def test_it_streams_what_is_needed_and_stops_it(driver, meter):
    meter.start()
    topics = {f"{PATH}/{name}/!data" for name in ("s/i", "s/v", "s/gpi/0")}
    assert set(driver.subscribers) == topics
    assert driver.values[f"{PATH}/s/gpi/0/ctrl"] == 1
    assert driver.values[f"{PATH}/h/fs"] == 1_000_000

    meter.stop()

    assert not driver.subscribers
    assert driver.values[f"{PATH}/s/gpi/0/ctrl"] == 0


def test_close_frees_the_device_once(driver, meter):
    meter.start()
    meter.close()
    meter.close()

    assert not driver.opened
    assert not driver.subscribers


@pytest.mark.parametrize(
    ("path", "topic"), [(PATH, "s/i/range/mode"), ("u/js110/000777", "s/i/range/select")]
)
def test_the_path_of_the_current_is_opened_and_closed(path, topic):
    driver = LibraryDriver((path,))
    meter = Joulescope(supply_mv=None, board_mv=3000, driver=driver)
    assert driver.values[f"{path}/{topic}"] == "auto"

    meter.set_power(False)

    assert driver.values[f"{path}/{topic}"] == "off"
    meter.close()


@pytest.mark.parametrize(
    ("paths", "serial", "text"),
    [
        ((), None, "0 devices fit"),
        ((PATH, "u/js110/000777"), None, "2 devices fit"),
        ((PATH,), "999999", "0 devices fit"),
        (("u/js999/1",), None, "is a js999"),
    ],
)
def test_it_is_one_device_or_an_error(paths, serial, text):
    driver = LibraryDriver(paths)
    with pytest.raises(MeterError, match=text):
        Joulescope(serial, supply_mv=None, board_mv=3000, driver=driver)
    assert driver.finalized


def test_a_serial_number_chooses():
    driver = LibraryDriver((PATH, "u/js110/000777"))
    meter = Joulescope("000777", supply_mv=None, board_mv=3000, driver=driver)

    assert driver.opened == ["u/js110/000777"]
    assert meter.period_s == 0.5e-6
    meter.close()


def test_what_the_library_raises_is_a_meter_error(driver):
    def fails(path, mode):
        raise RuntimeError("jsdrv_open timed out")

    driver.open = fails
    with pytest.raises(MeterError, match="open u/js220/001234 failed: jsdrv_open timed out"):
        Joulescope(supply_mv=None, board_mv=3000, driver=driver)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyjoulescope_driver", None)

    with pytest.raises(MeterError, match=r"pip install -e '\.\[joulescope\]'"):
        Joulescope(supply_mv=None, board_mv=3000)
    assert joulescope.device_paths() == []


@pytest.mark.cross
def test_the_real_library_knows_our_calls_and_its_errors_are_ours():
    library = pytest.importorskip(
        "pyjoulescope_driver", reason="needs the package: pip install -e '.[joulescope]'"
    )
    assert isinstance(joulescope.device_paths(), list)

    class Ghost:
        """The library's driver, which is asked for a device that was just unplugged."""

        def __init__(self):
            self._driver = library.Driver()

        def device_paths(self):
            return [PATH]

        def __getattr__(self, verb):
            return getattr(self._driver, verb)

    with pytest.raises(MeterError, match=f"open {PATH} failed"):
        Joulescope(supply_mv=None, board_mv=3000, driver=Ghost())
