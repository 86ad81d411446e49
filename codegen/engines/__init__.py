"""Engines: ways to run a model. One module each, found by listing this folder.

An engine turns a `Job` into `Generated`: the text of every source file and the manifest. It writes
nothing itself; that and all else that engines share is in codegen/generate.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from codegen.errors import CodegenError
from codegen.ir import Graph
from codegen.limits import BoardLimits
from codegen.manifest import Manifest
from codegen.plan_file import TunedPlan

Objective = Literal["latency", "sram", "flash"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a user can choose. Engines ignore what is not theirs.

    `objective` chooses kernels (tiny), or `plan` does, if given. `arena_bytes` is the arena given
    to an engine that cannot know it before run time (tflm); `tflm_library` and `tflm_include_dirs`
    name the user's build of TFLM.
    """

    objective: Objective = "latency"
    plan: TunedPlan | None = None
    arena_bytes: int | None = None
    tflm_library: Path | None = None
    tflm_include_dirs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """All that an engine may use; `graph` is that of the file, checked, before any pass."""

    tflite: bytes
    graph: Graph
    board: BoardLimits
    options: EngineOptions


@dataclass(frozen=True, slots=True)
class Generated:
    """Sources by file name, each starting with codegen.emit.banner, and the manifest."""

    sources: dict[str, str]
    manifest: Manifest


Engine = Callable[[Job], Generated]
_engines: dict[str, Engine] = {}


def register(name: str) -> Callable[[Engine], Engine]:
    """Enters a function as the engine `name`."""

    def enter(engine: Engine) -> Engine:
        assert name not in _engines, f"two engines are called {name!r}"
        _engines[name] = engine
        return engine

    return enter


def engine_names() -> list[str]:
    """Names of all engines, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(_engines)


def get_engine(name: str) -> Engine:
    """The engine of that name; raises CodegenError with the names that exist."""
    known = engine_names()
    if name not in known:
        raise CodegenError(f"no engine {name!r}; known engines are {', '.join(known)}")
    return _engines[name]
