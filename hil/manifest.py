"""manifest.json of a generated folder: all that the rig knows of a model besides its C."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hil.errors import UsageError

SCHEMA = 1

_DTYPES = {"s8": "i1", "u8": "u1", "s16": "<i2", "s32": "<i4", "f32": "<f4"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of the model, as its bytes lie on the board."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type of one element, little endian."""
        return np.dtype(_DTYPES[self.dtype])

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor."""
        elements = 1
        for length in self.shape:
            elements *= length
        return elements * self.numpy.itemsize


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, in execution order; MACs computed and in the .tflite (None: the same)."""

    name: str
    op: str
    macs: int
    kernel: str = ""
    nominal_macs: int | None = None
    weights: str = "flash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the session needs of a manifest; how to compile the folder is the build's business."""

    model_name: str
    model_sha256: str
    nominal_macs: int
    effective_macs: int
    engine: str
    engine_options: dict[str, Any]
    board: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    arena_bytes: int
    scratch_bytes: int

    @property
    def in_bytes(self) -> int:
        """Bytes of all inputs, one after another."""
        return sum(tensor.size_bytes for tensor in self.inputs)

    @property
    def out_bytes(self) -> int:
        """Bytes of all outputs, one after another."""
        return sum(tensor.size_bytes for tensor in self.outputs)


def read_manifest(model_dir: Path) -> Manifest:
    """The manifest of a generated folder; raises UsageError when it is none."""
    path = model_dir / "manifest.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise UsageError(
                f"{path} has schema {values['schema']!r}, this version reads {SCHEMA}; "
                "generate the folder again"
            )
        return Manifest(
            model_name=values["model"]["name"],
            model_sha256=values["model"]["sha256"],
            nominal_macs=values["model"]["nominal_macs"],
            effective_macs=values["model"]["effective_macs"],
            engine=values["engine"],
            engine_options=values["engine_options"],
            board=values["board"],
            inputs=tuple(_tensor(entry) for entry in values["inputs"]),
            outputs=tuple(_tensor(entry) for entry in values["outputs"]),
            layers=tuple(Layer(**entry) for entry in values["layers"]),
            arena_bytes=values["arena_bytes"],
            scratch_bytes=values["scratch_bytes"],
        )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no manifest of generated code: {error!r}") from None


def _tensor(entry: dict[str, Any]) -> Tensor:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r}")
    return Tensor(**{**entry, "shape": tuple(entry["shape"])})
