"""In which memory the constants of a layer lie: a choice per layer, of speed against RAM.

`ram` copies them at start-up to RAM that the core reaches without waiting. `stream` leaves them in
the flash and reads the largest array through another address of it, which brings new lines quicker
but keeps none (boards/README.md: an alias with paths of its own). `flash` is how all else is read.

Nothing streams by default: how fast data comes through an alias is an estimate in the board files,
and where it is wrong, streaming is slow. `hil tune` streams what it measured to be quicker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from codegen.errors import DoesNotFit, PlanRefused
from codegen.kernels.context import Array, Context
from codegen.limits import STACK_RESERVE_BYTES, STATIC_RESERVE_BYTES, BoardLimits

Memory = Literal["flash", "stream", "ram"]
MEMORIES: tuple[str, ...] = get_args(Memory)

#: Copies take at most this part of a board's RAM unless a plan asks for more.
RAM_SHARE = 4
#: Cycles a byte from which on flash is slow enough for copies: half a product of the Cortex-M4.
#: Where it is quicker, networks gain 5 to 15 % for several times the RAM (nRF52840, F746).
SLOW_FLASH_CYCLES = 0.5
#: Cycles of an inference that a copy must save for each of its bytes.
LEAST_SAVED_CYCLES = 0.25


@dataclass(frozen=True, slots=True)
class Placement:
    """The choice for one layer."""

    weights: Memory = "flash"


def default_placements(
    layers: Mapping[int, Context], board: BoardLimits, objective: str, arena_bytes: int
) -> dict[int, Placement]:
    """The memory for each layer's constants, by index of the op.

    For speed, what has the most products per byte is copied first, as long as there is room.

    Args:
        layers: contexts of the ops.
        board: the memories.
        objective: only "latency" and "energy" spend RAM.
        arena_bytes: size of the arena, which lies before the copies.
    """
    placements: dict[int, Placement] = {}
    quick_bytes = min(board.quick_ram_bytes, board.ram_bytes)
    left_bytes = quick_bytes - STACK_RESERVE_BYTES - STATIC_RESERVE_BYTES - arena_bytes
    is_slow = board.flash_byte_cycles >= SLOW_FLASH_CYCLES
    spends_ram = is_slow and objective in ("latency", "energy")
    room_bytes = min(left_bytes, board.ram_bytes // RAM_SHARE) if spends_ram else 0
    saved = {index: _saved_cycles_per_byte(layer, board) for index, layer in layers.items()}
    for index in sorted(layers, key=lambda i: (-saved[i], i)):
        layer = layers[index]
        size_bytes = ram_bytes(layer)
        if size_bytes <= room_bytes and saved[index] >= LEAST_SAVED_CYCLES:
            placements[index] = Placement("ram")
            room_bytes -= size_bytes
    return placements


def placed(layer: Context, placement: Placement) -> Context:
    """The layer with its arrays in the memories that the placement says."""
    if placement.weights == "flash" or not layer.arrays:
        return layer
    if placement.weights == "ram":
        arrays = tuple(dataclasses.replace(array, memory="ram") for array in layer.arrays)
    else:
        largest = _largest(layer)
        arrays = tuple(
            dataclasses.replace(array, memory="stream") if array is largest else array
            for array in layer.arrays
        )
    return dataclasses.replace(layer, arrays=arrays)


def ram_bytes(layer: Context) -> int:
    """RAM that a copy of a layer's constants takes."""
    return sum(-(-array.size_bytes // 4) * 4 for array in layer.arrays)


def require_room(
    layers: Mapping[int, Context],
    placements: Mapping[int, Placement],
    board: BoardLimits,
    arena_bytes: int,
) -> None:
    """Whether the board has what placements ask for.

    Raises:
        DoesNotFit: arena and copies are larger than the RAM.
        PlanRefused: the board has no alias of its flash that streams.
    """
    if not board.stream_offset and any(p.weights == "stream" for p in placements.values()):
        raise PlanRefused(f"it streams constants; {board.board} has no address to stream them from")
    copied = [i for i, placement in placements.items() if placement.weights == "ram"]
    needed_bytes = arena_bytes + STATIC_RESERVE_BYTES + sum(ram_bytes(layers[i]) for i in copied)
    have_bytes = board.ram_bytes - STACK_RESERVE_BYTES
    if copied and needed_bytes > have_bytes:
        raise DoesNotFit(
            f"RAM for its arena and copies of constants on {board.board}",
            needed_bytes,
            have_bytes,
            max((layers[i] for i in copied), key=ram_bytes).symbol,
        )


def _saved_cycles_per_byte(layer: Context, board: BoardLimits) -> float:
    """Roughly: convolutions read a weight once for two pixels, dense layers once for all."""
    if not layer.constant_bytes:
        return 0.0
    reads = layer.macs / layer.constant_bytes
    return board.flash_byte_cycles * max(reads / 2, min(reads, 1.0))


def _largest(layer: Context) -> Array:
    return max(layer.arrays, key=lambda array: array.size_bytes)
