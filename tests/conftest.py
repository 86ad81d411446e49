"""Fixtures that every test folder shares: real models and data, or why a test does without."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not path.is_dir():
        pytest.skip(f"no folder {path}; set {variable} to a folder of {default} to run this test")
    return path


@pytest.fixture(scope="session", autouse=True)
def ledger_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A health ledger of the tests' own: what they break is no news of the lab."""
    path = tmp_path_factory.mktemp("ledger") / "lab.sqlite"
    os.environ["HIL_LEDGER"] = str(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def locks_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Locks of the tests' own: they neither wait for the lab nor hold it up."""
    path = tmp_path_factory.mktemp("locks")
    os.environ["HIL_LOCKS"] = str(path)
    return path


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of real .tflite files (HIL_MODELS)."""
    return _folder("HIL_MODELS", "models")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data sets (HIL_DATA)."""
    return _folder("HIL_DATA", "data")
