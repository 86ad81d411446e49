"""What memory accesses cost on a virtual board, from its board file and the chip's registers.

```
FLASH_ACR, ICACHECNF, CCR ─► set(wait states, prefetch, caches on) ─┐
                      board file: caches, paths of each memory ─────┴► native path rows
```
The peripherals that own the registers say what changed; nothing here knows a chip. A cache that is
switched off loses what it holds.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from hil.board import Board
from hil.board_timing import UNCACHED, AccessPath
from hil.virtual.blocks import CacheShape, PathCosts, PathCounts
from hil.virtual.memory import MemoryMap
from hil.virtual.timing import CoreTiming

Side = Literal["code", "data"]
_SIDES: tuple[Side, ...] = ("code", "data")


class NativeMemory(Protocol):
    """What plays the caches while the program runs: hil/virtual/blocks.py."""

    def set_path(self, region: int, side: Side, costs: PathCosts) -> None:
        """What accesses to a region cost from now on."""
        ...

    def set_cache(self, number: int, shape: CacheShape) -> None:
        """Geometry of a cache."""
        ...

    def invalidate_cache(self, number: int) -> None:
        """Empties a cache."""
        ...

    def invalidate_line(self, number: int, address: int) -> None:
        """Drops the line that holds an address, if it is there."""
        ...

    def path_counts(self, region: int, side: Side) -> PathCounts:
        """What happened on a path."""
        ...

    def set_predictor(self, mispredict: float, indirect: float, unknown: float) -> None:
        """What a wrong prediction costs."""
        ...


class MemorySystem:
    """The memories of one board, as its registers have set them up."""

    def __init__(
        self, board: Board, memory: MemoryMap, core: CoreTiming, native: NativeMemory
    ) -> None:
        self._timing, self._memory, self._native = board.timing, memory, native
        self.wait_states = 0
        self.prefetch = False
        self.caches_on: frozenset[str] = frozenset()
        self._numbers = {name: i for i, name in enumerate(self._timing.caches, start=1)}
        for name, cache in self._timing.caches.items():
            native.set_cache(
                self._numbers[name],
                CacheShape(
                    line_bytes=cache.line_bytes,
                    lines=cache.lines,
                    ways=cache.ways or cache.lines,
                    replacement=cache.replacement,
                    write_allocate=cache.write_allocate,
                ),
            )
        if core.predictor is not None:
            own, model = self._timing.core, core.predictor
            native.set_predictor(
                _first(own.mispredict_cycles, model.mispredict_cycles),
                _first(own.indirect_cycles, model.indirect_cycles),
                _first(own.unknown_cycles, model.unknown_cycles),
            )
        self._apply()

    def set(
        self,
        *,
        wait_states: int | None = None,
        prefetch: bool | None = None,
        caches: dict[str, bool] | None = None,
    ) -> None:
        """Takes over what a register says now; what is not named stays as it is.

        A cache that the board file does not describe is not modelled: switching it does nothing.
        """
        before = self.wait_states, self.prefetch, self.caches_on
        if wait_states is not None:
            self.wait_states = wait_states
        if prefetch is not None:
            self.prefetch = prefetch
        for name, is_on in (caches or {}).items():
            if name in self._numbers and is_on != (name in self.caches_on):
                self.caches_on ^= {name}
                self.invalidate(name)
        if before != (self.wait_states, self.prefetch, self.caches_on):
            self._apply()

    def setting(self) -> dict[str, Any]:
        """What the registers say at present, for people who wonder about cycles."""
        return {
            "wait_states": self.wait_states,
            "prefetch": self.prefetch,
            "caches_on": sorted(self.caches_on),
        }

    def invalidate(self, cache: str) -> None:
        """The cache is empty; what was changed in it and not written back costs nothing."""
        if cache in self._numbers:
            self._native.invalidate_cache(self._numbers[cache])

    def invalidate_line(self, cache: str, address: int) -> None:
        """Drops the line that holds an address."""
        if cache in self._numbers:
            self._native.invalidate_line(self._numbers[cache], address)

    def counts(self, memory: str, side: Side) -> PathCounts:
        """What happened on a path since the image was loaded, whatever cache it led through."""
        numbers = [i for i, r in enumerate(self._memory.regions) if r.memory.name == memory]
        return self._native.path_counts(numbers[0], side)

    def costs(self, memory: str, side: Side) -> PathCosts:
        """What accesses to a memory cost at present."""
        region = next(r for r in self._memory.regions if r.memory.name == memory)
        paths = self._timing.paths_of(memory, region.memory.alias_of).get(side, {})
        for name, path in paths.items():
            if name == UNCACHED:
                return self._native_costs(path, 0)
            if name in self.caches_on or self._timing.caches[name].always_on:
                return self._native_costs(path, self._numbers[name])
        return PathCosts()

    def _apply(self) -> None:
        for number, region in enumerate(self._memory.regions):
            for side in _SIDES:
                self._native.set_path(number, side, self.costs(region.memory.name, side))

    def _native_costs(self, path: AccessPath, cache: int) -> PathCosts:
        follows = "fill" if path.prefetch and not self.prefetch else "sequential"
        return PathCosts(
            cache=cache,
            hit=path.cycles("hit", self.wait_states),
            fill=path.cycles("fill", self.wait_states),
            sequential=path.cycles(follows, self.wait_states),
            write_hit=path.cycles("write_hit"),
            write_miss=path.cycles("write_miss"),
            evict=path.cycles("evict"),
        )


def _first(own: float | None, model: float) -> float:
    return model if own is None else own
