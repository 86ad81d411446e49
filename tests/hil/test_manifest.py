from __future__ import annotations

import json

import pytest

from hil.errors import UsageError
from hil.manifest import read_manifest

ECHO = {
    "schema": 1,
    "model": {"name": "m", "sha256": "00" * 32, "nominal_macs": 7, "effective_macs": 6},
    "engine": "tiny",
    "engine_options": {"objective": "latency"},
    "board": "nrf52840_dk",
    "inputs": [{"name": "x", "dtype": "s16", "shape": [1, 5], "scale": 0.5, "zero_point": 3}],
    "outputs": [{"name": "y", "dtype": "f32", "shape": [2], "scale": 1.0, "zero_point": 0}],
    "layers": [{"name": "a", "op": "ADD", "macs": 0}],
    "arena_bytes": 64,
    "scratch_bytes": 16,
    "weights_bytes": 0,
    "build": {},
}


def test_a_manifest_gives_sizes_and_names(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(ECHO))

    manifest = read_manifest(tmp_path)

    assert (manifest.in_bytes, manifest.out_bytes) == (10, 8)
    assert (manifest.model_name, manifest.nominal_macs, manifest.engine) == ("m", 7, "tiny")
    assert manifest.layers[0].op == "ADD"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "schema 9"),
        ({"layers": 3}, "no manifest"),
        ({"model": {}}, "no manifest.*name"),
        ({"inputs": [{**ECHO["inputs"][0], "dtype": "s4"}]}, "s4"),  # type: ignore[index,dict-item]
    ],
)
def test_what_is_no_manifest_is_refused_by_path(tmp_path, change, message):
    (tmp_path / "manifest.json").write_text(json.dumps({**ECHO, **change}))

    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(UsageError, match=r"manifest\.json"):
        read_manifest(tmp_path)
