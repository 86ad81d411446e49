"""Records to test with: plausible numbers, every field set."""

from __future__ import annotations

import dataclasses
from typing import Any

from hil.record import (
    EnergyUj,
    FlashBytes,
    LatencyCycles,
    LayerCycles,
    ModelId,
    Record,
    SramBytes,
)


def make_record(
    *, cycles: int = 1000, place: str = "virtual:nrf52840_dk", **changes: Any
) -> Record:
    """A record of a small model whose median is `cycles`; `changes` replace fields."""
    record = Record(
        model=ModelId("tiny_model", "ab" * 32, 500, 400),
        board=place.removeprefix("virtual:"),
        place=place,
        source="virtual",
        engine="tiny",
        engine_options={"objective": "latency"},
        outputs_match=True,
        outputs_checked=50,
        latency_cycles=LatencyCycles.of([cycles, cycles, cycles + 2]),
        latency_us=cycles / 64,
        sram_bytes=SramBytes(arena=2048, scratch=256, static=512, stack_peak=300, total=2860),
        flash_bytes=FlashBytes(code=9000, weights=4000, total=13000),
        energy_uj=EnergyUj(9.9 * cycles / 64e3, 1, "estimate:supply current x voltage x time"),
        layers=(LayerCycles("conv_0", "CONV_2D", 500, cycles - 20),),
        toolchain="arm-none-eabi-gcc 12.2.1",
        compiler_flags=("-O3", "-mcpu=cortex-m4"),
        firmware_sha256="cd" * 32,
        git="0123abc",
        board_file_sha256="ef" * 32,
        timing_model="cortex-m4 1",
        started_at="2026-01-02T03:04:05+00:00",
    )
    return dataclasses.replace(record, **changes)
