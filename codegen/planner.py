"""Offsets in the arena: no two storages that live together share a byte, unless a kernel allows it.

Tried in turn until the lower bound of liveness is reached: greedy first fit in several orders, the
best of them with what ends at the top moved to the front, and branch and bound over placements from
the bottom up. Work is limited by counting, not by time: equal input gives an equal plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen import ir
from codegen.errors import DoesNotFit
from codegen.liveness import ALIGNMENT, Liveness, Overlap, Storage, aligned, liveness
from codegen.schedule import order_of_ops

__all__ = ["ALIGNMENT", "Overlap", "Plan", "PlanRow", "plan", "require_fit"]

Int64s = NDArray[np.int64]

#: Limits on work: calls of _Placement.lowest, and storages for which branch and bound is tried.
_PROMOTION_CALLS = 2_000
_SEARCH_CALLS = 10_000
_SEARCH_STORAGES = 200
#: Above this many storages only the best priorities are tried.
_ALL_PRIORITIES_STORAGES = 500
_TFLM_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of the arena map; times are positions in the order of execution, as in liveness."""

    name: str
    offset: int
    size_bytes: int
    live_from: int
    live_to: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Order of ops and where everything lies in the arena.

    Args:
        order: op indices in order of execution.
        offsets: by tensor index; -1 for constants and tensors that no op uses.
        scratch_offsets: by op index; -1 for none.
        arena_bytes: size of the arena.
        scratch_bytes: the largest scratch of any op; part of the arena.
        lower_bound_bytes: no plan for this order can be smaller.
        peak_op: index of the op at which most bytes are live.
        rows: the arena map.
    """

    order: tuple[int, ...]
    offsets: tuple[int, ...]
    scratch_offsets: tuple[int, ...]
    arena_bytes: int
    scratch_bytes: int
    lower_bound_bytes: int
    peak_op: int
    rows: tuple[PlanRow, ...]


def plan(
    graph: ir.Graph,
    *,
    scratch: Mapping[int, int] | None = None,
    overlaps: Mapping[int, Sequence[Overlap]] | None = None,
    reorder: bool = True,
) -> Plan:
    """The smallest arena that we find.

    Args:
        graph: the network; outputs of Reshape ops share the bytes of their inputs.
        scratch: bytes of scratch by op index.
        overlaps: by op index, the inputs that its kernel allows its output to lie over.
        reorder: whether ops may run in another order than the graph's.
    """
    scratch, overlaps = scratch or {}, overlaps or {}
    orders = [tuple(range(len(graph.ops)))]
    if reorder:
        better = order_of_ops(graph, scratch=scratch, overlaps=overlaps)
        if better != orders[0]:
            orders.append(better)
    plans = []
    for order in orders:
        lives = liveness(graph, order, scratch=scratch, overlaps=overlaps)
        plans.append(_plan_of(graph, order, lives, _place(lives)))
    return min(plans, key=lambda candidate: candidate.arena_bytes)


def require_fit(graph: ir.Graph, plan: Plan, have_bytes: int, what: str) -> None:
    """Refuses an arena larger than `have_bytes`.

    Args:
        graph: the network of the plan.
        plan: the plan.
        have_bytes: what the board has for the arena.
        what: that memory and whose it is, such as "RAM of nrf52840_dk".

    Raises:
        DoesNotFit: it is larger; names the op at the peak.
    """
    if plan.arena_bytes > have_bytes:
        raise DoesNotFit(what, plan.arena_bytes, have_bytes, graph.ops[plan.peak_op].name)


def _plan_of(
    graph: ir.Graph, order: tuple[int, ...], lives: Liveness, placed: Sequence[int]
) -> Plan:
    offsets, scratch_offsets = [-1] * len(graph.tensors), [-1] * len(graph.ops)
    rows = []
    for storage, offset in zip(lives.storages, placed, strict=True):
        if storage.scratch_of != -1:
            scratch_offsets[storage.scratch_of] = offset
            names = [f"{graph.ops[storage.scratch_of].name} scratch"]
        else:
            names = [graph.tensors[tensor].name for tensor in storage.tensors]
        for tensor in storage.tensors:
            offsets[tensor] = offset
        rows += [
            PlanRow(name, offset, storage.size_bytes, storage.first, storage.last) for name in names
        ]
    scratches = [s.size_bytes for s in lives.storages if s.scratch_of != -1]
    return Plan(
        order=order,
        offsets=tuple(offsets),
        scratch_offsets=tuple(scratch_offsets),
        arena_bytes=_top(lives.storages, placed),
        scratch_bytes=max(scratches, default=0),
        lower_bound_bytes=lives.lower_bound_bytes,
        peak_op=order[lives.peak] if order else -1,
        rows=tuple(rows),
    )


def _top(storages: Sequence[Storage], offsets: Sequence[int]) -> int:
    return max(
        (offset + s.size_bytes for s, offset in zip(storages, offsets, strict=True)), default=0
    )


class _Placement:
    """Which storages may not share bytes, and the lowest offset that is left for one of them."""

    def __init__(self, lives: Liveness, alignment: int = ALIGNMENT) -> None:
        self.sizes = np.array([aligned(s.size_bytes, alignment) for s in lives.storages], np.int64)
        self._first = np.array([s.first for s in lives.storages], np.int64)
        self._last = np.array([s.last for s in lives.storages], np.int64)
        self._offers = {(pair.input, pair.output): pair.offer for pair in lives.pairs}
        partners: list[set[int]] = [set() for _ in lives.storages]
        for a, b in self._offers:
            partners[a].add(b)
            partners[b].add(a)
        self._partners = [sorted(others) for others in partners]

    def lowest(self, index: int, offsets: Int64s, start: int = 0) -> int:
        """The lowest offset >= start for one storage; `offsets` is -1 for those not placed yet."""
        is_stranger = self._first <= self._last[index]
        is_stranger &= self._last >= self._first[index]
        is_stranger &= offsets >= 0
        is_stranger[self._partners[index]] = False
        strangers = np.flatnonzero(is_stranger)
        strangers = strangers[np.argsort(offsets[strangers], kind="stable")]
        starts = offsets[strangers]
        ends = starts + self.sizes[strangers]
        partners = [j for j in self._partners[index] if offsets[j] >= 0]
        if not partners:
            return self._gap(index, starts, ends, start)
        # A partner is in the way up to its end, or up to where its offer begins.
        tries = {start}
        for j in partners:
            tries.add(int(offsets[j] + self.sizes[j]))
            tries.update(self._beside(index, j, int(offsets[j])))
        gaps = (self._gap(index, starts, ends, offset) for offset in tries if offset >= start)
        return min(
            gap for gap in gaps if all(self._is_free(index, gap, j, offsets[j]) for j in partners)
        )

    def _gap(self, index: int, starts: Int64s, ends: Int64s, lowest: int) -> int:
        """The first offset >= lowest at which a storage meets none of the sorted strangers."""
        # Entry i: the end of what lies below stranger i, or of all of them.
        free_from = np.maximum.accumulate(np.concatenate([[lowest], ends]))
        is_gap = starts >= free_from[:-1] + self.sizes[index]
        return int(free_from[is_gap.argmax() if is_gap.any() else -1])

    def _beside(self, index: int, other: int, other_offset: int) -> list[int]:
        """Offsets that an offer between two storages makes worth trying."""
        found = []
        if offer := self._offers.get((other, index)):
            found.append(other_offset - offer.distance)
        if offer := self._offers.get((index, other)):
            found.append(other_offset + offer.distance)
        return found

    def _is_free(self, index: int, offset: int, other: int, other_offset: int) -> bool:
        """Whether two partners do not meet, or may."""
        if offset >= other_offset + self.sizes[other] or offset + self.sizes[index] <= other_offset:
            return True
        as_output = self._offers.get((other, index))
        as_input = self._offers.get((index, other))
        return (as_output is not None and as_output.allows(other_offset, offset)) or (
            as_input is not None and as_input.allows(offset, other_offset)
        )

    def first_fit(self, sequence: Sequence[int]) -> list[int]:
        """Places storages in this sequence, each as low as it goes."""
        offsets = np.full(len(self.sizes), -1, np.int64)
        for index in sequence:
            offsets[index] = self.lowest(index, offsets)
        return offsets.tolist()


def _place(lives: Liveness) -> list[int]:
    """The best offsets found; stops at the lower bound."""
    storages, bound = lives.storages, lives.lower_bound_bytes
    best: list[int] = []
    best_sequence: list[int] = []
    best_top = -1
    # With rounding to TFLM's alignment too: first fit can do better with larger pieces, and we are
    # never worse than TFLM.
    priorities = _PRIORITIES if len(storages) <= _ALL_PRIORITIES_STORAGES else _PRIORITIES[:2]
    for placement in (_Placement(lives), _Placement(lives, _TFLM_ALIGNMENT)):
        for priority in priorities:
            sequence = sorted(range(len(storages)), key=lambda i: priority(storages[i]))
            offsets = placement.first_fit(sequence)
            top = _top(storages, offsets)
            if best_top < 0 or top < best_top:
                best, best_top, best_sequence = offsets, top, sequence
            if best_top <= bound:
                return best
    best, best_top = _promote(lives, best_sequence, best, best_top)
    if best_top <= bound or len(storages) > _SEARCH_STORAGES:
        return best
    return _Search(lives, best, best_top).run()


def _promote(
    lives: Liveness, sequence: list[int], best: list[int], best_top: int
) -> tuple[list[int], int]:
    """First fit again and again: what ended at the top goes first in the next round."""
    placement = _Placement(lives)
    offsets = best
    for _ in range(_PROMOTION_CALLS // max(1, len(sequence))):
        ends = [offset + size for offset, size in zip(offsets, placement.sizes, strict=True)]
        highest = max(sequence, key=lambda index: ends[index])
        if sequence[0] == highest:
            break
        sequence = [highest, *(index for index in sequence if index != highest)]
        offsets = placement.first_fit(sequence)
        top = _top(lives.storages, offsets)
        if top < best_top:
            best, best_top = offsets, top
        if best_top <= lives.lower_bound_bytes:
            break
    return best, best_top


_PRIORITIES: tuple[Callable[[Storage], tuple[int, ...]], ...] = (
    lambda s: (-s.size_bytes,),
    lambda s: (-s.size_bytes, s.first),
    lambda s: (-s.size_bytes, -(s.last - s.first)),
    lambda s: (-s.size_bytes, -s.first),
    lambda s: (-(s.last - s.first + 1) * s.size_bytes,),
    lambda s: (-(s.last - s.first), -s.size_bytes),
    lambda s: (s.first, -s.size_bytes),
    lambda s: (-s.last, -s.size_bytes),
)


class _Search:
    """Branch and bound: storages in order of offset, each as low as it goes above the last one.

    Without overlaps one of these sequences is optimal: take an optimal plan, let everything drop,
    and read it off from the bottom up.
    """

    def __init__(self, lives: Liveness, offsets: list[int], top: int) -> None:
        self._lives = lives
        self._placement = _Placement(lives)
        self._sizes: list[int] = self._placement.sizes.tolist()
        self._best, self._best_top = offsets, top
        self._calls = 0
        self._times = [
            range(storage.first + 1, storage.last + 2) for storage in lives.storages
        ]  # shifted by one: -1 becomes 0
        self._unplaced = [-saving for saving in lives.saved_bytes]
        for size, times in zip(self._sizes, self._times, strict=True):
            for time in times:
                self._unplaced[time] += size
        self._floor = [0] * len(self._unplaced)

    def run(self) -> list[int]:
        """The best offsets found within the limit of work."""
        self._descend(np.full(len(self._times), -1, np.int64), 0, 0)
        return self._best

    def _descend(self, offsets: Int64s, last_offset: int, top: int) -> None:
        waiting = np.flatnonzero(offsets < 0).tolist()
        if not waiting:
            self._best, self._best_top = offsets.tolist(), top
            return
        self._calls += len(waiting)
        sizes = self._sizes
        moves = sorted(
            (self._placement.lowest(i, offsets, last_offset), -sizes[i], i) for i in waiting
        )
        # Something must start below the lowest end of what could come next, or it could drop there.
        lowest_end = min(offset - size for offset, size, _ in moves)
        for offset, negative_size, index in moves:
            if self._best_top <= self._lives.lower_bound_bytes or self._calls > _SEARCH_CALLS:
                return
            end = offset - negative_size
            if offset >= lowest_end or end >= self._best_top:
                continue
            floors = [self._floor[time] for time in self._times[index]]
            for time in self._times[index]:
                self._floor[time] = max(self._floor[time], end)
                self._unplaced[time] += negative_size
            if self._is_open():
                offsets[index] = offset
                self._descend(offsets, offset, max(top, end))
                offsets[index] = -1
            for time, floor in zip(self._times[index], floors, strict=True):
                self._floor[time] = floor
                self._unplaced[time] -= negative_size

    def _is_open(self) -> bool:
        """Whether what is placed leaves room for a better plan at every time."""
        return all(
            floor + unplaced < self._best_top
            for floor, unplaced in zip(self._floor, self._unplaced, strict=True)
        )
