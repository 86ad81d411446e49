"""How a generated folder is compiled: the `build` entry of its manifest.json.

Read by hil/build.py, which hashes what it names, and by firmware/platform, which compiles it. Not
here: what the manifest says of the model (hil/manifest.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hil.errors import UsageError

_LISTS = ("flags", "source_dirs", "include_dirs", "libraries")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Compiler flags of the model's sources, and what is compiled and linked with them.

    `model` and `engine` are names for messages.
    `source_dirs` are relative to firmware/ (an interpreter that the model needs); `include_dirs`
    and `libraries` are absolute paths outside the repository (the user's own TFLM).
    """

    model: str
    engine: str
    flags: tuple[str, ...] = ()
    source_dirs: tuple[str, ...] = ()
    include_dirs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


def read_recipe(model_dir: Path) -> Recipe:
    """The recipe of a generated folder; raises UsageError when its manifest holds none."""
    path = model_dir / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        model, engine = str(manifest["model"]["name"]), str(manifest["engine"])
        lists = {key: manifest["build"][key] for key in _LISTS}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no manifest of generated code: {error!r}") from None
    for key, values in lists.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UsageError(
                f"{path} [build]: {key!r} should be a list of strings, found {values!r}"
            )
    return Recipe(model, engine, **{key: tuple(values) for key, values in lists.items()})
