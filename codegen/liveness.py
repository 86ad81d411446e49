"""Which bytes are needed when: storages, their sizes and lives, and which may lie over each other.

A storage is a run of bytes in the arena. Tensors joined by Reshape share one, since a reshape moves
nothing; an op's scratch is one that lives during its op only. Times are positions in the order of
execution: a model input lives from -1, before the first op, a model output until the number of ops,
after the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from codegen import ir

#: Every offset in the arena is a multiple of this: what a load of a 32-bit word needs.
ALIGNMENT = 4


def aligned(size_bytes: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple of `alignment`."""
    return -(-size_bytes // alignment) * alignment


@dataclass(frozen=True, slots=True)
class Overlap:
    """A kernel's offer: its output may lie over one of its inputs if that input dies there.

    Args:
        input: position in op.inputs.
        distance: the output may start at the input's offset minus this many bytes, or lower;
            negative allows higher.
        is_exact: only exactly that offset is allowed; distance 0 is then an in-place kernel.
    """

    input: int
    distance: int = 0
    is_exact: bool = False

    def allows(self, in_offset: int, out_offset: int) -> bool:
        """Whether the kernel works with overlapping input and output at these offsets."""
        highest = in_offset - self.distance
        return out_offset == highest if self.is_exact else out_offset <= highest

    def span_bytes(self, in_bytes: int, out_bytes: int) -> int:
        """The fewest bytes that input and output together can take up."""
        if self.distance >= 0:
            span = max(out_bytes, self.distance + in_bytes)
        elif self.is_exact:
            span = max(in_bytes, out_bytes - self.distance)
        else:
            span = max(in_bytes, out_bytes)
        return min(span, in_bytes + out_bytes)


@dataclass(frozen=True, slots=True)
class Storage:
    """One run of bytes: `tensors` of the graph, or scratch of op `scratch_of` (else -1)."""

    size_bytes: int
    first: int
    last: int
    tensors: tuple[int, ...]
    scratch_of: int = -1


@dataclass(frozen=True, slots=True)
class Pair:
    """An Overlap that can be used: positions of the two storages among all."""

    input: int
    output: int
    offer: Overlap


@dataclass(frozen=True, slots=True)
class Liveness:
    """All storages of a graph in one order of execution, and the overlaps that may be used.

    Args:
        storages: in no particular order.
        pairs: the overlaps that may be used.
        conflicts: by storage, the others that are needed at some time at which it is.
        live_bytes: by time, from -1: bytes needed, less what overlaps can save at most.
        saved_bytes: by time, from -1: what they can save at most.
    """

    storages: tuple[Storage, ...]
    pairs: tuple[Pair, ...]
    conflicts: tuple[tuple[int, ...], ...]
    live_bytes: tuple[int, ...]
    saved_bytes: tuple[int, ...]

    @property
    def lower_bound_bytes(self) -> int:
        """No arena for this order can be smaller."""
        return max(self.live_bytes)

    @property
    def peak(self) -> int:
        """The position in the order at which most bytes are needed."""
        return max(range(len(self.live_bytes) - 2), key=lambda time: self.live_bytes[time + 1])


def storage_of_tensors(graph: ir.Graph) -> tuple[int, ...]:
    """For each tensor the one whose storage it shares: itself or what it reshapes; -1: constant."""
    root = [-1 if tensor.is_constant else i for i, tensor in enumerate(graph.tensors)]
    for op in graph.ops:
        if isinstance(op, ir.Reshape) and root[op.inputs[0]] != -1:
            root[op.outputs[0]] = root[op.inputs[0]]
    return tuple(root)


def usable_offers(
    op: ir.Op, roots: Sequence[int], offers: Sequence[Overlap]
) -> list[tuple[int, Overlap]]:
    """The storages of inputs that an op's output may lie over, each with one aligned offer.

    Where an op reads one storage through several inputs, all of them must make the same offer.
    """
    usable: dict[int, Overlap] = {}
    for offer in offers:
        if offer.is_exact and offer.distance % ALIGNMENT:
            continue
        root = roots[op.inputs[offer.input]]
        same = [position for position, tensor in enumerate(op.inputs) if roots[tensor] == root]
        agreed = all(replace(offer, input=position) in offers for position in same)
        if root not in (-1, roots[op.outputs[0]]) and agreed:
            usable.setdefault(root, replace(offer, distance=aligned(offer.distance)))
    return list(usable.items())


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
    roots = storage_of_tensors(graph)
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def touch(tensor: int, position: int) -> None:
        root = roots[tensor]
        if root != -1:
            first[root] = min(first.get(root, position), position)
            last[root] = max(last.get(root, position), position)

    for tensor in graph.inputs:
        touch(tensor, -1)
    for position, index in enumerate(order):
        for tensor in (*graph.ops[index].inputs, *graph.ops[index].outputs):
            touch(tensor, position)
    for tensor in graph.outputs:
        touch(tensor, len(order))

    members: dict[int, list[int]] = {}
    for tensor, root in enumerate(roots):
        if root in first:
            members.setdefault(root, []).append(tensor)
    storages = [
        Storage(
            size_bytes=aligned(graph.tensors[root].size_bytes),
            first=first[root],
            last=last[root],
            tensors=tuple(tensors),
        )
        for root, tensors in members.items()
    ]
    place = {root: i for i, root in enumerate(members)}
    pairs: dict[tuple[int, int], Pair] = {}
    for position, index in enumerate(order):
        op = graph.ops[index]
        for in_root, offer in usable_offers(op, roots, overlaps.get(index, ())):
            out_root = roots[op.outputs[0]]
            if last[in_root] == position and first[out_root] == position:
                ends = place[in_root], place[out_root]
                pairs[ends] = Pair(*ends, offer)
        if scratch.get(index):
            storages.append(
                Storage(
                    size_bytes=aligned(scratch[index]),
                    first=position,
                    last=position,
                    tensors=(),
                    scratch_of=index,
                )
            )
    saved = _saved_bytes(storages, pairs.values(), len(order))
    live = [-saving for saving in saved]
    for storage in storages:
        for time in range(storage.first + 1, storage.last + 2):
            live[time] += storage.size_bytes
    return Liveness(
        storages=tuple(storages),
        pairs=tuple(pairs.values()),
        conflicts=_conflicts(storages),
        live_bytes=tuple(live),
        saved_bytes=tuple(saved),
    )


def _saved_bytes(storages: Sequence[Storage], pairs: Iterable[Pair], n_ops: int) -> list[int]:
    """By time, from -1, the most that overlaps can save there: never more than the whole output."""
    saved = [0] * (n_ops + 2)
    for pair in pairs:
        in_bytes, output = storages[pair.input].size_bytes, storages[pair.output]
        saving = in_bytes + output.size_bytes - pair.offer.span_bytes(in_bytes, output.size_bytes)
        time = output.first + 1
        saved[time] = min(saved[time] + saving, output.size_bytes)
    return saved


def _conflicts(storages: Sequence[Storage]) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in storages]
    live: list[int] = []
    for i in sorted(range(len(storages)), key=lambda i: storages[i].first):
        live = [j for j in live if storages[j].last >= storages[i].first]
        for j in live:
            found[i].append(j)
            found[j].append(i)
        live.append(i)
    return tuple(map(tuple, found))
