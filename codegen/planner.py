"""Offsets in the arena: no two storages lie at a distance that liveness forbids.

Tried in turn until the lower bound of liveness is reached: greedy first fit in several orders, from
the bottom up and from the top down, hill climbing from the best of them, and branch and bound over
placements from the bottom up. Work is limited by counting, not by time: equal input gives an equal
plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codegen import ir
from codegen.errors import DoesNotFit
from codegen.liveness import ALIGNMENT, Interval, Liveness, Overlap, Storage, aligned, liveness
from codegen.schedule import order_of_ops

__all__ = ["ALIGNMENT", "Overlap", "Plan", "PlanRow", "plan", "require_fit"]

Int64s = NDArray[np.int64]

#: Limits on work: calls of _Placement.lowest, and storages for which branch and bound is tried.
_IMPROVED_STARTS = 3
_IMPROVEMENT_CALLS = 10_000  # for each start
_SEARCH_CALLS = 10_000
_SEARCH_STORAGES = 200
#: Above this many storages only the best priorities are tried.
_ALL_PRIORITIES_STORAGES = 500
_TFLM_ALIGNMENT = 16
#: How often hill climbing takes any storage, not one that ends too high; and puts it first of all.
_ANY_STORAGE = 0.2
_TO_FRONT = 0.1


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of the arena map; times are positions in the order of execution, as in liveness.

    `part_of` names the buffer whose bytes these are some of, empty where it has bytes of its own.
    """

    name: str
    offset: int
    size_bytes: int
    live_from: int
    live_to: int
    part_of: str = ""


@dataclass(frozen=True, slots=True)
class PlanPiece:
    """Bytes of the arena that hold something from one time to another; to be drawn.

    `name` is the buffer's, `is_scratch` tells whether it is scratch.
    """

    name: str
    is_scratch: bool
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
        pieces: the same byte by byte: parts of a buffer can live longer than others.
    """

    order: tuple[int, ...]
    offsets: tuple[int, ...]
    scratch_offsets: tuple[int, ...]
    arena_bytes: int
    scratch_bytes: int
    lower_bound_bytes: int
    peak_op: int
    rows: tuple[PlanRow, ...]
    pieces: tuple[PlanPiece, ...] = ()


def plan(
    graph: ir.Graph,
    *,
    scratch: Mapping[int, int] | None = None,
    overlaps: Mapping[int, Sequence[Overlap]] | None = None,
    reorder: bool = True,
    goal_bytes: int = 0,
    like: Plan | None = None,
    is_thorough: bool = True,
) -> Plan:
    """The smallest arena that we find.

    Args:
        graph: the network; ops that move nothing (`ir.Alias`) share bytes as liveness says.
        scratch: bytes of scratch by op index.
        overlaps: by op index, the inputs that its kernel allows its output to lie over.
        reorder: whether ops may run in another order than the graph's.
        goal_bytes: an arena that is small enough; the search ends where it finds one.
        like: a plan for other kernels; where its tensors may stay, only scratch is placed anew.
        is_thorough: whether to search on after first fit.
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
        goal = max(goal_bytes, lives.lower_bound_bytes)
        offsets = _placed_like(lives, like) if like and like.order == order else None
        plans.append(_plan_of(graph, order, lives, offsets or _place(lives, goal, is_thorough)))
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
    used = {
        *graph.inputs,
        *graph.outputs,
        *(
            tensor
            for op in graph.ops
            if not isinstance(op, ir.Alias)
            for tensor in (*op.inputs, *op.outputs)
        ),
    }
    rows: list[PlanRow] = []
    pieces: list[PlanPiece] = []
    for storage, offset in zip(lives.storages, placed, strict=True):
        if storage.scratch_of != -1:
            scratch_offsets[storage.scratch_of] = offset
        for tensor, start in storage.tensors:
            offsets[tensor] = offset + start
        rows += _rows(graph, used, storage, offset)
        is_scratch = storage.scratch_of != -1
        pieces += [
            PlanPiece(
                rows[-1].part_of or rows[-1].name,
                is_scratch,
                offset + piece.start,
                piece.end - piece.start,
                piece.first,
                piece.last,
            )
            for piece in storage.pieces
        ]
    scratches = [s.size_bytes for s in lives.storages if s.scratch_of != -1]
    return Plan(
        order=order,
        offsets=tuple(offsets),
        scratch_offsets=tuple(scratch_offsets),
        arena_bytes=_top(lives.storages, placed),
        scratch_bytes=max(scratches, default=0),
        lower_bound_bytes=lives.lower_bound_bytes,
        peak_op=_peak_op(graph, order, lives),
        rows=tuple(rows),
        pieces=tuple(pieces),
    )


def _peak_op(graph: ir.Graph, order: Sequence[int], lives: Liveness) -> int:
    """The op at which most bytes are needed; one that moves nothing only if there is no other."""
    return max(
        enumerate(order),
        key=lambda at: (not isinstance(graph.ops[at[1]], ir.Alias), lives.live_bytes[at[0] + 1]),
        default=(-1, -1),
    )[1]


def _rows(graph: ir.Graph, used: Collection[int], storage: Storage, offset: int) -> list[PlanRow]:
    """The lines of one storage: itself, and parts that ops use, as long as those bytes live."""
    if storage.scratch_of != -1:
        name = f"{graph.ops[storage.scratch_of].name} scratch"
        return [PlanRow(name, offset, storage.size_bytes, storage.first, storage.last)]
    rows: list[PlanRow] = []
    for tensor, start in storage.tensors:
        if rows and tensor not in used:
            continue
        size = aligned(graph.tensors[tensor].size_bytes)
        pieces = [p for p in storage.pieces if p.start < start + size and start < p.end]
        first, last = min(p.first for p in pieces), max(p.last for p in pieces)
        part_of = rows[0].name if rows else ""
        name = graph.tensors[tensor].name
        rows.append(PlanRow(name, offset + start, size, first, last, part_of))
    return rows


def _top(storages: Sequence[Storage], offsets: Sequence[int]) -> int:
    return max(
        (offset + s.size_bytes for s, offset in zip(storages, offsets, strict=True)), default=0
    )


class _Placement:
    """First fit: the lowest offset that is left for each storage in turn.

    Args:
        lives: the storages and the distances forbidden between them.
        alignment: sizes are rounded up to it where storages are simply beside each other.
        from_top: offsets count down from the top of the arena, which changes what goes lowest.
    """

    def __init__(
        self, lives: Liveness, alignment: int = ALIGNMENT, *, from_top: bool = False
    ) -> None:
        self.sizes = np.array([s.size_bytes for s in lives.storages], np.int64)
        self._from_top = from_top
        rounded = -(-self.sizes // alignment) * alignment
        first = np.array([s.first for s in lives.storages], np.int64)
        last = np.array([s.last for s in lives.storages], np.int64)
        special: list[list[tuple[int, Interval]]] = [[] for _ in lives.storages]
        partners: list[list[int]] = [[] for _ in lives.storages]
        for (i, j), intervals in lives.special.items():
            partners[i].append(j)
            partners[j].append(i)
            for low, high in intervals:
                special[j].append((i, (low, high)))
                special[i].append((j, (-high, -low)))
        # By storage: which other one forbids it offsets, and from where to where, counted from the
        # offset of the other; the end is the first that is free again.
        self._forbidden: list[tuple[Int64s, Int64s, Int64s]] = []
        for i in range(len(lives.storages)):
            is_beside = (first <= last[i]) & (last >= first[i])
            is_beside[[i, *partners[i]]] = False
            beside = np.flatnonzero(is_beside)
            others = np.array([other for other, _ in special[i]], np.int64)
            lows = np.array([low for _, (low, _) in special[i]], np.int64)
            ends = np.array([high + ALIGNMENT for _, (_, high) in special[i]], np.int64)
            others = np.concatenate([beside, others])
            lows = np.concatenate([ALIGNMENT - rounded[i] + 0 * beside, lows])
            ends = np.concatenate([rounded[beside], ends])
            if from_top:
                shift = self.sizes[others] - self.sizes[i]
                lows, ends = shift - ends + ALIGNMENT, shift - lows + ALIGNMENT
            self._forbidden.append((others, lows, ends))

    def lowest(self, index: int, offsets: Int64s, start: int = 0) -> int:
        """The lowest offset >= start for one storage; `offsets` is -1 for those not placed yet."""
        others, lows, ends = self._forbidden[index]
        placed = offsets[others]
        is_placed = placed >= 0
        placed = placed[is_placed]
        lows = placed + lows[is_placed]
        by_low = np.argsort(lows, kind="stable")
        # Entry i: what is free again after the first i forbidden ranges.
        free_from = np.empty(len(lows) + 1, np.int64)
        free_from[0] = start
        free_from[1:] = (placed + ends[is_placed])[by_low]
        np.maximum.accumulate(free_from, out=free_from)
        is_gap = lows[by_low] > free_from[:-1]
        return int(free_from[is_gap.argmax() if is_gap.any() else -1])

    def rivals(self, index: int) -> set[int]:
        """Storages that forbid one some offsets."""
        return set(self._forbidden[index][0].tolist())

    def first_fit(self, sequence: Sequence[int]) -> list[int]:
        """Places storages in this sequence, each as low as it goes."""
        offsets = np.full(len(self.sizes), -1, np.int64)
        for index in sequence:
            offsets[index] = self.lowest(index, offsets)
        return offsets.tolist()

    def upright(self, offsets: Sequence[int]) -> list[int]:
        """Offsets from the bottom of the arena."""
        if not self._from_top:
            return list(offsets)
        ends = [offset + size for offset, size in zip(offsets, self.sizes.tolist(), strict=True)]
        return [max(ends) - end for end in ends]


class _Start(NamedTuple):
    """A first fit, and the sequence and direction that gave it."""

    top: int
    placement: _Placement
    sequence: list[int]


def _placed_like(lives: Liveness, like: Plan) -> list[int] | None:
    """Tensors as in another plan, scratch where there is room; None where they must move."""
    placement = _Placement(lives)
    offsets = np.full(len(lives.storages), -1, np.int64)
    for index, storage in enumerate(lives.storages):
        if storage.tensors:
            offset = like.offsets[storage.tensors[0][0]]
            if placement.lowest(index, offsets, offset) != offset:
                return None
            offsets[index] = offset
    for index in np.flatnonzero(offsets < 0).tolist():
        offsets[index] = placement.lowest(index, offsets)
    return offsets.tolist()


def _place(lives: Liveness, goal: int, is_thorough: bool) -> list[int]:
    """The best offsets found; stops where the arena is no larger than `goal`."""
    storages = lives.storages
    # With rounding to TFLM's alignment too: first fit can do better with larger pieces, and we are
    # never worse than TFLM.
    is_small = len(storages) <= _ALL_PRIORITIES_STORAGES
    priorities = _PRIORITIES if is_small else _PRIORITIES[:2]
    placements = [_Placement(lives)]
    if lives.special and is_small:
        placements.append(_Placement(lives, from_top=True))
    if is_thorough:
        placements.append(_Placement(lives, _TFLM_ALIGNMENT))
    crowds = [max(lives.live_bytes[s.first + 1 : s.last + 2]) for s in storages]
    starts: list[_Start] = []
    for placement in placements:
        for priority in priorities:
            sequence = sorted(range(len(storages)), key=lambda i: priority(storages[i], crowds[i]))
            offsets = placement.first_fit(sequence)
            starts.append(_Start(_top(storages, offsets), placement, sequence))
            if starts[-1].top <= goal:
                return placement.upright(offsets)
    starts.sort(key=lambda start: start.top)
    if not is_thorough:
        return starts[0].placement.upright(starts[0].placement.first_fit(starts[0].sequence))
    best: list[int] = []
    best_top = -1
    for start in starts[:_IMPROVED_STARTS]:
        offsets = _improve(start, goal)
        top = _top(storages, offsets)
        if best_top < 0 or top < best_top:
            best, best_top = offsets, top
        if best_top <= goal:
            return best
    if len(storages) > _SEARCH_STORAGES:
        return best
    return _Search(lives, best, best_top, goal).run()


def _improve(start: _Start, goal: int) -> list[int]:
    """Hill climbing over sequences: what ends above the goal goes before one that is in its way."""
    rng = random.Random(0)
    placement, sequence = start.placement, start.sequence
    ends = np.array(placement.first_fit(sequence), np.int64) + placement.sizes
    for _ in range(_IMPROVEMENT_CALLS // max(1, len(sequence))):
        if ends.max(initial=0) <= goal:
            break
        too_high = np.flatnonzero(ends > goal).tolist()
        position = sequence.index(rng.choice(too_high))
        if position == 0 or rng.random() < _ANY_STORAGE:
            position = rng.randrange(len(sequence))
        moved = sequence[:position] + sequence[position + 1 :]
        rivals = placement.rivals(sequence[position])
        before = [i for i in range(position) if sequence[i] in rivals]
        to = rng.choice(before) if before and rng.random() > _TO_FRONT else 0
        moved.insert(to, sequence[position])
        new_ends = np.array(placement.first_fit(moved), np.int64) + placement.sizes
        if _excess(new_ends, goal) <= _excess(ends, goal):
            sequence, ends = moved, new_ends
    return placement.upright((ends - placement.sizes).tolist())


def _excess(ends: Int64s, goal: int) -> tuple[int, int]:
    """The top of an arena, then how much ends above the goal: what hill climbing minimises."""
    return int(ends.max(initial=0)), int(np.maximum(ends - goal, 0).sum())


#: What first fit goes by: a storage, and the most bytes that live at any time at which it does.
#: Breadth first, as in Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net
#: Inference, 2020, is the second.
_PRIORITIES: tuple[Callable[[Storage, int], tuple[int, ...]], ...] = (
    lambda s, crowd: (-s.size_bytes,),
    lambda s, crowd: (-crowd, -s.size_bytes),
    lambda s, crowd: (-s.size_bytes, s.first),
    lambda s, crowd: (-s.size_bytes, -(s.last - s.first)),
    lambda s, crowd: (-s.size_bytes, -s.first),
    lambda s, crowd: (-(s.last - s.first + 1) * s.size_bytes,),
    lambda s, crowd: (-(s.last - s.first), -s.size_bytes),
    lambda s, crowd: (s.first, -s.size_bytes),
    lambda s, crowd: (-s.last, -s.size_bytes),
    lambda s, crowd: (-crowd, -(s.last - s.first), -s.size_bytes),
)


class _Search:
    """Branch and bound: storages in order of offset, each as low as it goes above the last one.

    Without special distances one of these sequences is optimal: take an optimal plan, let all
    storages drop, and read it off from the bottom up.
    """

    def __init__(self, lives: Liveness, offsets: list[int], top: int, goal: int) -> None:
        self._goal = goal
        self._placement = _Placement(lives)
        self._sizes: list[int] = self._placement.sizes.tolist()
        self._best, self._best_top = offsets, top
        self._calls = 0
        # By storage, shifted by one: -1 becomes 0. Those with several lives take no part in it.
        self._times = [
            range(storage.first + 1, storage.last + 2) if storage.is_simple else range(0)
            for storage in lives.storages
        ]
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
            if self._best_top <= self._goal or self._calls > _SEARCH_CALLS:
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
