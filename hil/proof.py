"""A firmware that is known to be good: does a place still build, flash, run and answer?

Its model is `firmware/models/echo`, which copies its input; so a failure is never the model's.
"""

from __future__ import annotations

from hil.build import FIRMWARE_DIR, build
from hil.inputs import random_inputs
from hil.lab import Place
from hil.manifest import read_manifest
from hil.session import Procedure, measure

MODEL_DIR = FIRMWARE_DIR / "models" / "echo"
_PROCEDURE = Procedure(inputs=1, warmup=0, repeats=1)


def prove(place: Place) -> None:
    """Runs the firmware on an open place; raises HilError as `hil.session.measure` does."""
    manifest = read_manifest(MODEL_DIR)
    copies = [
        b"".join(array.tobytes() for array in random_inputs(manifest.inputs, seed))
        for seed in _PROCEDURE.seeds
    ]
    measure(place, build(MODEL_DIR, place.board), manifest, copies, _PROCEDURE)
