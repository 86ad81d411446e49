"""manifest.json: what a generated folder tells the rig. The rig reads this and C, never a graph."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from codegen.ir import Graph, Tensor, graph_macs

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """Which model; `effective_macs` are those left after the passes."""

    name: str
    sha256: str
    nominal_macs: int
    effective_macs: int


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One input or output; a tensor without quantisation (float32) has scale 1 and zero point 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer in execution order; its index is the argument of model_mark_fn.

    `macs` are those that are computed, `nominal_macs` those of its operator in the .tflite (None:
    the same); `kernel` is empty where the engine has no choice; `weights` is where its constants
    lie (codegen/placement.py).
    """

    name: str
    op: str
    macs: int
    kernel: str = ""
    nominal_macs: int | None = None
    weights: str = "flash"


@dataclass(frozen=True, slots=True)
class BuildEntry:
    """How the folder is compiled; `source_dirs` are relative to firmware/, other paths absolute."""

    flags: tuple[str, ...] = ()
    source_dirs: tuple[str, ...] = ()
    include_dirs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BufferEntry:
    """Bytes of the arena that hold one tensor, or scratch, from one call to another.

    `kind` is "tensor" or "scratch". Calls are counted from 0; -1 is before the first, their number
    after the last. A tensor whose parts live differently has several entries.
    """

    name: str
    kind: str
    offset: int
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """What lies in the arena when: for plots and for readers.

    `calls` names the op of each call in order; no plan for these calls could be smaller than
    `lower_bound_bytes`.
    """

    calls: tuple[str, ...]
    lower_bound_bytes: int
    buffers: tuple[BufferEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole manifest; field order is key order in the file."""

    schema: int = SCHEMA
    model: ModelEntry
    engine: str
    engine_options: dict[str, Any]
    board: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    layers: tuple[LayerEntry, ...]
    arena_bytes: int
    scratch_bytes: int
    weights_bytes: int
    build: BuildEntry = field(default_factory=BuildEntry)
    memory: MemoryEntry | None = None

    def to_json(self) -> str:
        """The file's text: stable, so equal models give equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=True) + "\n"


def model_entry(imported: Graph, optimised: Graph) -> ModelEntry:
    """The manifest's `model` of a graph as imported and as it is after the passes."""
    return ModelEntry(imported.name, imported.sha256, imported.nominal_macs, graph_macs(optimised))


def tensor_entry(tensor: Tensor) -> TensorEntry:
    """The manifest's entry of an input or output tensor."""
    scale, zero_point = (1.0, 0) if tensor.quant is None else (tensor.scale, tensor.zero_point)
    return TensorEntry(tensor.name, tensor.dtype.value, tensor.shape, scale, zero_point)
