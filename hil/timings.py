"""What a kernel took for one shape of layer, and under which conditions that is worth knowing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class LayerTiming:
    """Cycles of one run, and flash of the function with its constants."""

    cycles: int
    flash_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the timing of a layer depends on, besides its kernel and its shape.

    `build` stands for all else that a firmware is made of (hil.build.parts_id): the board file, the
    headers of the kernels, the start-up code.
    """

    board: str
    source: Literal["hardware", "virtual"]
    timing_model: str | None
    compiler: str
    flags: tuple[str, ...]
    build: str


def timing_key(kernel: str, shape: dict[str, Any], conditions: Conditions) -> str:
    """64 hexadecimal digits: equal for equal kernels, shapes and conditions only."""
    values = [kernel, shape, asdict(conditions)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
