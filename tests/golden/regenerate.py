"""Rewrites the golden files after a wanted change: `make golden`, then look at the diff."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "support")]

golden = runpy.run_path(str(HERE / "golden_models.py"))
for model in golden["MODELS"]:
    golden["write"](model, HERE / model)
