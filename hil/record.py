"""One measurement of one model, engine and place: what `--json` writes and the store keeps.

Every quantity carries its unit in its key. A record exists only when every output was compared,
byte by byte or by its CRC-32, and equal. Not here: how it is measured (session), where it is kept
(store).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from hil import stats

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which model: nominal MACs are those of the .tflite, effective ones those of our C."""

    name: str
    sha256: str
    nominal_macs: int
    effective_macs: int


@dataclass(frozen=True, slots=True)
class LatencyCycles:
    """Cycles of one inference; `samples` are the repeats in the order measured, no warm-ups."""

    median: float
    p05: float
    p95: float
    n: int
    samples: tuple[int, ...]

    @classmethod
    def of(cls, samples: list[int]) -> LatencyCycles:
        """Summary of at least one sample."""
        return cls(
            median=stats.median(samples),
            p05=stats.percentile(samples, 5),
            p95=stats.percentile(samples, 95),
            n=len(samples),
            samples=tuple(samples),
        )


@dataclass(frozen=True, slots=True)
class SramBytes:
    """RAM in full: `scratch` is the part of `arena` that is no tensor.

    total = arena + static + stack_peak.
    """

    arena: int
    scratch: int
    static: int
    stack_peak: int
    total: int


@dataclass(frozen=True, slots=True)
class FlashBytes:
    """Everything that is programmed: total = code + weights."""

    code: int
    weights: int
    total: int


@dataclass(frozen=True, slots=True)
class EnergyUj:
    """Energy of one inference; `source` is "measured:<meter>" or "estimate:<how>".

    What a meter tells beside the median is None without one: the spread over `n` windows, the power
    in microwatts while the board waits for a command, and the supply voltage in millivolts.
    """

    median: float
    n: int
    source: str
    p05: float | None = None
    p95: float | None = None
    idle_uw: float | None = None
    supply_mv: int | None = None


#: What both cores can do at most: SMLAD and its kin compute two products in a cycle.
PEAK_MACS_PER_CYCLE = 2


@dataclass(frozen=True, slots=True)
class LayerCycles:
    """One layer in execution order; cycles include the timer call around it.

    `macs` are computed, `nominal_macs` are those of its operator in the .tflite (None: the same);
    `kernel` is the engine's variant, empty where it has no choice; `weights` is where its constants
    lie: in flash, in flash read through another address (stream), or copied to ram.
    """

    name: str
    op: str
    macs: int
    cycles: int
    kernel: str = ""
    nominal_macs: int | None = None
    weights: str = "flash"

    @property
    def cycles_per_mac(self) -> float | None:
        """Of those computed; None for a layer without MACs."""
        return self.cycles / self.macs if self.macs else None

    @property
    def percent_of_limit(self) -> float | None:
        """Computed MACs as a share of what the core could compute in these cycles at most."""
        if not self.macs or not self.cycles:
            return None
        return 100 * self.macs / (PEAK_MACS_PER_CYCLE * self.cycles)

    def to_json(self) -> dict[str, Any]:
        """The fields, and what follows from them."""
        return {
            **dataclasses.asdict(self),
            "nominal_macs": self.macs if self.nominal_macs is None else self.nominal_macs,
            "cycles_per_mac": self.cycles_per_mac,
            "percent_of_limit": self.percent_of_limit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement.

    `started_at` is UTC in ISO 8601; `git` is the revision of the rig, maybe with "-dirty".
    """

    model: ModelId
    board: str
    place: str
    source: Literal["hardware", "virtual"]
    engine: str
    engine_options: dict[str, Any]
    outputs_match: bool
    outputs_checked: int
    latency_cycles: LatencyCycles
    latency_us: float
    sram_bytes: SramBytes
    flash_bytes: FlashBytes
    energy_uj: EnergyUj | None
    layers: tuple[LayerCycles, ...]
    toolchain: str
    compiler_flags: tuple[str, ...]
    firmware_sha256: str
    git: str
    board_file_sha256: str
    timing_model: str | None
    started_at: str
    schema: int = SCHEMA

    @property
    def cycles_per_mac(self) -> float | None:
        """Median cycles per nominal MAC; None for a model without MACs."""
        macs = self.model.nominal_macs
        return self.latency_cycles.median / macs if macs else None

    @property
    def sha256(self) -> str:
        """Digest of the JSON form: equal for equal measurements only."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types, `schema` first; no `timing_model` on hardware."""
        values = dataclasses.asdict(self)
        values["layers"] = [layer.to_json() for layer in self.layers]
        if self.energy_uj is not None:
            energy = values["energy_uj"]
            values["energy_uj"] = {key: energy[key] for key in energy if energy[key] is not None}
        ordered = {"schema": values.pop("schema"), **values}
        if self.timing_model is None:
            del ordered["timing_model"]
        plain: dict[str, Any] = json.loads(json.dumps(ordered))  # tuples become lists
        return plain

    @classmethod
    def from_json(cls, values: Any) -> Record:
        """The record of what `to_json` gave; raises ValueError that names what is wrong."""
        if not isinstance(values, dict):
            raise ValueError(f"a record is a JSON object, found {type(values).__name__}")
        if values.get("schema") != SCHEMA:
            raise ValueError(
                f"record schema {values.get('schema')!r} is not known; this version reads {SCHEMA}"
            )
        try:
            energy = values["energy_uj"]
            return cls(
                **{
                    **values,
                    "model": ModelId(**values["model"]),
                    "latency_cycles": _latency(values["latency_cycles"]),
                    "sram_bytes": SramBytes(**values["sram_bytes"]),
                    "flash_bytes": FlashBytes(**values["flash_bytes"]),
                    "energy_uj": EnergyUj(**energy) if energy is not None else None,
                    "layers": tuple(_layer(layer) for layer in values["layers"]),
                    "compiler_flags": tuple(values["compiler_flags"]),
                    "timing_model": values.get("timing_model"),
                }
            )
        except KeyError as error:
            raise ValueError(f"record without key {error.args[0]!r}") from None
        except TypeError as error:
            raise ValueError(f"record that does not hold what it should: {error}") from None


def _layer(values: dict[str, Any]) -> LayerCycles:
    derived = ("cycles_per_mac", "percent_of_limit")
    fields = {key: value for key, value in values.items() if key not in derived}
    if fields.get("nominal_macs") == fields.get("macs"):
        fields["nominal_macs"] = None
    return LayerCycles(**fields)


def _latency(values: dict[str, Any]) -> LatencyCycles:
    return LatencyCycles(**{**values, "samples": tuple(values["samples"])})
