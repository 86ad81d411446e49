"""hil codegen --plot: memory over time as a picture."""

from __future__ import annotations

import numpy as np
from graphs import Builder
from typer.testing import CliRunner

from codegen.export_tflite import export_tflite
from hil.cli import app


def test_the_picture_is_written_beside_the_c(tmp_path):
    b = Builder(np.random.default_rng(0))
    x = b.conv2d(b.input((1, 8, 8, 3)), 4, (3, 3))
    model = tmp_path / "net.tflite"
    model.write_bytes(export_tflite(b.graph([b.conv2d(x, 4, (3, 3), stride=(2, 2))])))
    out = tmp_path / "out"
    arguments = ["codegen", str(model), "--board", "nrf52840_dk", "--out", str(out)]

    result = CliRunner().invoke(app, [*arguments, "--plot"])

    assert result.exit_code == 0, result.output
    assert (out / "memory.png").read_bytes().startswith(b"\x89PNG")
    svg = (out / "memory.svg").read_text()
    assert "<svg" in svg
    CliRunner().invoke(app, [*arguments, "--plot"])
    assert (out / "memory.svg").read_text() == svg, "equal plans give equal pictures"


def test_other_engines_have_nothing_to_draw(tmp_path):
    model = tmp_path / "net.tflite"
    model.write_bytes(b"")
    arguments = ["codegen", str(model), "--board", "nrf52840_dk", "--out", str(tmp_path / "out")]

    result = CliRunner().invoke(app, [*arguments, "--engine", "reference", "--plot"])

    assert result.exit_code != 0
