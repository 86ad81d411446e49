from __future__ import annotations

import json

import pytest
from records import make_record

from hil.record import EnergyUj, LatencyCycles, Record


def test_a_record_survives_json():
    record = make_record()

    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_hardware_record_without_a_meter_survives_json():
    record = make_record(source="hardware", timing_model=None, energy_uj=None)

    assert "timing_model" not in record.to_json()
    assert Record.from_json(record.to_json()) == record


def test_an_energy_without_a_meter_looks_as_it_always_did():
    record = make_record()

    assert list(record.to_json()["energy_uj"]) == ["median", "n", "source"]
    assert Record.from_json(record.to_json()) == record


def test_what_a_meter_told_survives_json():
    energy = EnergyUj(61.8, 10, "measured:ppk2", 61.6, 62.1, 8400.4, 3000)
    record = make_record(source="hardware", timing_model=None, energy_uj=energy)

    told = json.loads(json.dumps(record.to_json()))
    assert told["energy_uj"]["idle_uw"] == 8400.4
    assert Record.from_json(told) == record


def test_the_json_form_has_the_documented_keys_in_order():
    documented = """
        schema model board place source engine engine_options outputs_match outputs_checked
        latency_cycles latency_us sram_bytes flash_bytes energy_uj layers toolchain
        compiler_flags firmware_sha256 git board_file_sha256 timing_model started_at
    """
    assert list(make_record().to_json()) == documented.split()


def test_equal_records_have_equal_digests_and_others_do_not():
    assert make_record().sha256 == make_record().sha256
    assert make_record().sha256 != make_record(cycles=1001).sha256


def test_latency_keeps_every_sample_in_the_order_measured():
    latency = LatencyCycles.of([30, 10, 20])

    assert (latency.median, latency.n, latency.samples) == (20, 3, (30, 10, 20))
    assert latency.p05 == pytest.approx(11)
    assert latency.p95 == pytest.approx(29)


def test_cycles_per_mac_is_none_for_a_model_without_macs():
    record = make_record()

    assert record.cycles_per_mac == pytest.approx(2.0)
    with_none = {**record.to_json(), "model": {**record.to_json()["model"], "nominal_macs": 0}}
    assert Record.from_json(with_none).cycles_per_mac is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"surprise": 1}, "surprise"),
        ({"model": {"name": "m"}}, "sha256"),
        ({"latency_cycles": 5}, "hold what it should"),
    ],
)
def test_what_is_no_record_is_refused_with_a_reason(change, message):
    with pytest.raises(ValueError, match=message):
        Record.from_json({**make_record().to_json(), **change})


def test_a_missing_key_is_named():
    values = make_record().to_json()
    del values["sram_bytes"]

    with pytest.raises(ValueError, match="'sram_bytes'"):
        Record.from_json(values)
