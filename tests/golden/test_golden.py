"""Generated C does not change unnoticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from golden_models import FOLDER, MODELS, write


@pytest.mark.parametrize("name", MODELS)
def test_generated_files_equal_the_golden_ones(name, tmp_path):
    write(name, tmp_path)

    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    golden = {path.name: path.read_text() for path in (FOLDER / name).iterdir()}
    assert generated == golden, "if the change is wanted: make golden, and look at the diff"
