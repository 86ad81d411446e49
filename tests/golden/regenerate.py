"""Rewrites the golden files after a wanted change: `make golden`, then look at the diff."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[1] / "support"),
]

from golden_models import FOLDER, MODELS, write

for model in MODELS:
    write(model, FOLDER / model)
