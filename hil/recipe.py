"""How a generated folder is compiled: the `build` entry of its manifest.json.

Read by hil/build.py, which hashes what it names, and by firmware/platform, which compiles it. Not
here: what the manifest says of the model (hil/manifest.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hil.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Compiler flags of the model's sources, and what is compiled and linked with them.

    `source_dirs` are relative to firmware/ (an interpreter that the model needs); `include_dirs`
    and `libraries` are absolute paths outside the repository (the user's own TFLM).
    """

    flags: tuple[str, ...] = ()
    source_dirs: tuple[str, ...] = ()
    include_dirs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


def read_recipe(model_dir: Path) -> Recipe:
    """The recipe of a generated folder; raises UsageError when its manifest holds none."""
    path = model_dir / "manifest.json"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))["build"]
        known = {key: entry[key] for key in Recipe.__dataclass_fields__}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no manifest of generated code: {error!r}") from None
    for key, values in known.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UsageError(
                f"{path} [build]: {key!r} should be a list of strings, found {values!r}"
            )
    return Recipe(**{key: tuple(values) for key, values in known.items()})
