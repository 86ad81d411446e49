"""Which bytes are needed when: storages, their sizes and lives, and which may lie over each other.

A storage is a run of bytes in the arena. Several tensors may lie in one, because some ops move
nothing (`ir.Alias`):

- RESHAPE: the output is the input.
- VIEW: the output is a run of the input's bytes, such as some rows of an image.
- JOIN: the inputs are runs of the output's bytes. Whoever writes an input writes into the output:
  a concatenation along the outermost axis, without a copy.

An op's scratch is a storage of its own that lives during the op only. Times are positions in the
order of execution: a model input lives from -1, before the first op, a model output until the
number of ops, after the last. Ops that move nothing need nothing.

Lives are those of bytes, not of tensors: a storage consists of pieces, each with its own life,
which begin and end where a view does. Two storages may share addresses as long as no two pieces
that meet live at the same time. Where one piece dies in the op that writes the other, they may
meet as the op's kernel offers (`Overlap`). All of that is a set of forbidden distances between two
storages; the planner knows nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from codegen import ir

#: Every offset in the arena is a multiple of this: what a load of a 32-bit word needs.
ALIGNMENT = 4

#: Distances from first to last, both included; multiples of ALIGNMENT.
Interval = tuple[int, int]
_FAR = 1 << 40


def aligned(size_bytes: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple of `alignment`."""
    return -(-size_bytes // alignment) * alignment


@dataclass(frozen=True, slots=True)
class Overlap:
    """A kernel's offer: its output may lie over one of its inputs where that input's bytes die.

    Args:
        input: position in op.inputs.
        distance: the output may start at the input's offset minus this many bytes, or lower;
            negative allows higher.
        is_exact: only exactly that offset is allowed; distance 0 is then an in-place kernel.
    """

    input: int
    distance: int = 0
    is_exact: bool = False

    def span_bytes(self, in_bytes: int, out_bytes: int) -> int:
        """The fewest bytes that input and output together can take up."""
        if self.distance >= 0:
            span = max(out_bytes, self.distance + in_bytes)
        elif self.is_exact:
            span = max(in_bytes, out_bytes - self.distance)
        else:
            span = max(in_bytes, out_bytes)
        return min(span, in_bytes + out_bytes)


class Bytes(NamedTuple):
    """Where a tensor lies: in the storage that is tensor `storage` as a whole (-1: constant)."""

    storage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes start to end (excluded) of a storage, which live from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int

    def lives_with(self, other: Piece) -> bool:
        """Whether there is a time at which both live."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Storage:
    """One run of bytes.

    Args:
        size_bytes: a multiple of ALIGNMENT.
        pieces: in order of address.
        tensors: those that lie in it, and where each starts.
        scratch_of: the op whose scratch it is; else -1.
    """

    size_bytes: int
    pieces: tuple[Piece, ...]
    tensors: tuple[tuple[int, int], ...] = ()
    scratch_of: int = -1

    @cached_property
    def first(self) -> int:
        """When the first byte begins to live."""
        return min(piece.first for piece in self.pieces)

    @cached_property
    def last(self) -> int:
        """When the last byte dies."""
        return max(piece.last for piece in self.pieces)

    @cached_property
    def is_simple(self) -> bool:
        """Whether all bytes have the same life."""
        return len(self.pieces) == 1


@dataclass(frozen=True, slots=True)
class Liveness:
    """All storages of a graph in one order of execution, and how far apart they must lie.

    Args:
        storages: in no particular order.
        special: for pairs (i, j) of storages with i < j that live together and where more, or
            other, distances are allowed than those at which they lie beside each other: the
            forbidden values of offset j - offset i, in ascending order.
        live_bytes: by time, from -1: bytes needed, less what overlaps can save at most.
        saved_bytes: by time, from -1: what they can save at most.
    """

    storages: tuple[Storage, ...]
    special: Mapping[tuple[int, int], tuple[Interval, ...]]
    live_bytes: tuple[int, ...]
    saved_bytes: tuple[int, ...]

    @property
    def lower_bound_bytes(self) -> int:
        """No arena for this order can be smaller."""
        return max(self.live_bytes)


def bytes_of_tensors(graph: ir.Graph) -> tuple[Bytes, ...]:
    """For each tensor the storage in which it lies, named by its largest tensor, and the bytes.

    A part of a JOIN lies elsewhere, in its own storage, where it does not have all of that to
    itself or is joined a second time; `check` refuses such graphs.
    """
    parent = [(i, 0) for i in range(len(graph.tensors))]
    for op in graph.ops:
        out = op.outputs[0]
        if graph.tensors[op.inputs[0]].is_constant:
            continue
        if isinstance(op, ir.Reshape):
            parent[out] = op.inputs[0], 0
        elif isinstance(op, ir.View):
            parent[out] = op.inputs[0], op.offset_bytes
        elif isinstance(op, ir.Join):
            start = 0
            for part in op.inputs:
                root, offset = _root(parent, part)
                size = graph.tensors[part].size_bytes
                if offset == 0 and graph.tensors[root].size_bytes == size and root != out:
                    parent[root] = out, start
                start += size
    places = []
    for i, tensor in enumerate(graph.tensors):
        root, start = _root(parent, i)
        places.append(Bytes(-1 if tensor.is_constant else root, start, start + tensor.size_bytes))
    return tuple(places)


def _root(parent: Sequence[tuple[int, int]], tensor: int) -> tuple[int, int]:
    start = 0
    while parent[tensor][0] != tensor:
        start += parent[tensor][1]
        tensor = parent[tensor][0]
    return tensor, start


def aligned_offers(offers: Iterable[Overlap]) -> list[Overlap]:
    """The offers that hold on multiples of ALIGNMENT, with their distances rounded up to one."""
    return [
        Overlap(offer.input, aligned(offer.distance), offer.is_exact)
        for offer in offers
        if not (offer.is_exact and offer.distance % ALIGNMENT)
    ]


def liveness(
    graph: ir.Graph,
    order: Sequence[int],
    *,
    scratch: Mapping[int, int],
    overlaps: Mapping[int, Sequence[Overlap]],
) -> Liveness:
    """Sizes and lives of everything in the arena.

    Args:
        graph: the network.
        order: op indices in order of execution.
        scratch: bytes of scratch by op index.
        overlaps: offers by op index; those that cannot be used are left out of the result.
    """
    places = bytes_of_tensors(graph)
    storages = _storages(graph, order, places)
    number = {storage.tensors[0][0]: i for i, storage in enumerate(storages)}
    handovers: dict[tuple[int, int], _Handover] = {}
    for position, index in enumerate(order):
        op = graph.ops[index]
        if overlaps.get(index) and not isinstance(op, ir.Alias):
            for ends, handover in _handovers(op, position, places, overlaps[index]):
                handovers[number[ends[0]], number[ends[1]]] = handover
        if scratch.get(index):
            size = aligned(scratch[index])
            pieces = (Piece(0, size, position, position),)
            storages.append(Storage(size, pieces, scratch_of=index))
    special = _special(storages, handovers)
    saved = [0] * (len(order) + 2)
    for (i, j), handover in handovers.items():
        forbidden = special.get((min(i, j), max(i, j)))
        if forbidden is not None:
            saving = _saving(storages[i], storages[j], handover, forbidden, is_swapped=i > j)
            time = handover.time + 1
            saved[time] = min(saved[time] + saving, handover.written_bytes)
    live = [-saving for saving in saved]
    for storage in storages:
        for piece in storage.pieces:
            for time in range(piece.first + 1, piece.last + 2):
                live[time] += piece.end - piece.start
    return Liveness(
        storages=tuple(storages),
        special=special,
        live_bytes=tuple(live),
        saved_bytes=tuple(saved),
    )


def _storages(graph: ir.Graph, order: Sequence[int], places: Sequence[Bytes]) -> list[Storage]:
    """Storages of all tensors that an op touches; the first tensor of each names it."""
    touched: dict[int, list[tuple[int, int, int]]] = {}  # by storage: start, end, time

    def touch(tensor: int, time: int) -> None:
        storage, start, end = places[tensor]
        if storage != -1:
            touched.setdefault(storage, []).append((start, aligned(end), time))

    for tensor in graph.inputs:
        touch(tensor, -1)
    for position, index in enumerate(order):
        op = graph.ops[index]
        if not isinstance(op, ir.Alias):
            for tensor in (*op.inputs, *op.outputs):
                touch(tensor, position)
    for tensor in graph.outputs:
        touch(tensor, len(order))
    members: dict[int, list[tuple[int, int]]] = {root: [] for root in touched}
    for tensor, (root, start, _) in enumerate(places):
        if root in members and tensor != root:
            members[root].append((tensor, start))
    return [
        Storage(
            size_bytes=aligned(graph.tensors[root].size_bytes),
            pieces=_pieces(touches),
            tensors=((root, 0), *members[root]),
        )
        for root, touches in touched.items()
    ]


def _pieces(touches: Sequence[tuple[int, int, int]]) -> tuple[Piece, ...]:
    """Neighbouring bytes with one life are one piece."""
    bounds = sorted({bound for start, end, _ in touches for bound in (start, end)})
    pieces: list[Piece] = []
    for start, end in itertools.pairwise(bounds):
        times = [time for low, high, time in touches if low <= start and end <= high]
        if not times:
            continue
        piece = Piece(start, end, min(times), max(times))
        before = pieces[-1] if pieces else None
        if before and (before.end, before.first, before.last) == (start, piece.first, piece.last):
            pieces[-1] = Piece(before.start, end, piece.first, piece.last)
        else:
            pieces.append(piece)
    return tuple(pieces)


class _Reading(NamedTuple):
    """Bytes of a storage that an op reads through one of its inputs, and that input's offers."""

    start: int
    end: int
    offers: tuple[Overlap, ...]


class _Handover(NamedTuple):
    """What an op at a time reads of one storage, and the bytes that it writes to another."""

    time: int
    reads: tuple[_Reading, ...]
    start: int
    end: int

    @property
    def written_bytes(self) -> int:
        return aligned(self.end) - self.start

    def clash(self, source: Piece, target: Piece) -> list[Interval]:
        """The forbidden distances of two pieces that live together, from source to target."""
        meeting = [(source.start - target.end + ALIGNMENT, source.end - target.start - ALIGNMENT)]
        is_last = source.last == self.time == target.first
        if not (is_last and self.start <= target.start and target.end <= aligned(self.end)):
            return meeting
        reads = [r for r in self.reads if r.start < source.end and source.start < r.end]
        if not reads:
            return meeting
        forbidden: list[Interval] = []
        for read in reads:
            bad = meeting
            for offer in read.offers:
                highest = read.start - self.start - offer.distance
                outside = [(highest + ALIGNMENT, _FAR)]
                if offer.is_exact:
                    outside.append((-_FAR, highest - ALIGNMENT))
                bad = _common(bad, outside)
            forbidden += bad
        return forbidden


def _handovers(
    op: ir.Op, time: int, places: Sequence[Bytes], offers: Sequence[Overlap]
) -> list[tuple[tuple[int, int], _Handover]]:
    """By storages read and written."""
    usable = aligned_offers(offers)
    target = places[op.outputs[0]]
    found = []
    for root in dict.fromkeys(places[i].storage for i in op.inputs):
        if root in (-1, target.storage):
            continue
        reads = tuple(
            _Reading(
                places[i].start,
                places[i].end,
                tuple(offer for offer in usable if offer.input == position),
            )
            for position, i in enumerate(op.inputs)
            if places[i].storage == root
        )
        handover = _Handover(time, reads, target.start, target.end)
        found.append(((root, target.storage), handover))
    return found


def _special(
    storages: Sequence[Storage], handovers: Mapping[tuple[int, int], _Handover]
) -> dict[tuple[int, int], tuple[Interval, ...]]:
    found: dict[tuple[int, int], tuple[Interval, ...]] = {}
    pairs = {(min(ends), max(ends)) for ends in handovers}
    for i, storage in enumerate(storages):
        if not storage.is_simple:
            pairs.update((min(i, j), max(i, j)) for j in range(len(storages)) if i != j)
    for i, j in sorted(pairs):
        a, b = storages[i], storages[j]
        if a.first > b.last or b.first > a.last:
            continue
        forward, backward = handovers.get((i, j)), handovers.get((j, i))
        forbidden: list[Interval] = []
        for x in a.pieces:
            for y in b.pieces:
                if not x.lives_with(y):
                    continue
                bad = [(x.start - y.end + ALIGNMENT, x.end - y.start - ALIGNMENT)]
                if forward:
                    bad = forward.clash(x, y)
                if backward:
                    bad = _common(bad, [(-high, -low) for low, high in backward.clash(y, x)])
                forbidden += bad
        merged = _merged(forbidden)
        if merged != [(ALIGNMENT - b.size_bytes, a.size_bytes - ALIGNMENT)]:
            found[i, j] = tuple(merged)
    return found


def _saving(
    source: Storage,
    target: Storage,
    handover: _Handover,
    forbidden: Sequence[Interval],
    *,
    is_swapped: bool,
) -> int:
    """The most bytes that an op's input and output can share at the time of the op."""
    if is_swapped:
        forbidden = [(-high, -low) for low, high in forbidden]
    olds = [piece for piece in source.pieces if piece.last == handover.time]
    news = [piece for piece in target.pieces if piece.first == handover.time]
    # What is shared grows and shrinks linearly between these distances.
    tries = {
        old - new
        for p in olds
        for old in (p.start, p.end)
        for q in news
        for new in (q.start, q.end)
    }
    tries.update(bound for low, high in forbidden for bound in (low - ALIGNMENT, high + ALIGNMENT))
    return max(
        (
            sum(
                max(0, min(p.end, q.end + distance) - max(p.start, q.start + distance))
                for p in olds
                for q in news
            )
            for distance in tries
            if not any(low <= distance <= high for low, high in forbidden)
        ),
        default=0,
    )


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same distances in ascending order, as few intervals as possible."""
    merged: list[Interval] = []
    for low, high in sorted(interval for interval in intervals if interval[0] <= interval[1]):
        if merged and low <= merged[-1][1] + ALIGNMENT:
            merged[-1] = merged[-1][0], max(merged[-1][1], high)
        else:
            merged.append((low, high))
    return merged


def _common(a: Iterable[Interval], b: Iterable[Interval]) -> list[Interval]:
    """The distances that are in both."""
    b = list(b)
    found = [(max(low, x), min(high, y)) for low, high in a for x, y in b]
    return [interval for interval in found if interval[0] <= interval[1]]
