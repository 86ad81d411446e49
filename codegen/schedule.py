"""The order of execution with the least peak memory.

A search over sets of executed ops: cheapest peak first, so the first complete order is the best
there is. Chains have one order; a graph with so many branches that the limit on states is reached
gets a beam search instead. Never worse than the order of the file.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from codegen import ir
from codegen.liveness import Bytes, Overlap, aligned, aligned_offers, bytes_of_tensors

#: Limits on work, so that even a hostile graph is ordered in seconds.
_MAX_OPS = 512
_MAX_STATES = 100_000
_MAX_BEAM_WIDTH = 64
#: Looks at an op, to see whether it can run next, and at the tensors that it reads.
_MAX_BEST_FIRST_LOOKS = 1_000_000
_MAX_BEAM_LOOKS = 1_500_000


def order_of_ops(
    graph: ir.Graph,
    *,
    scratch: Mapping[int, int],
    overlaps: Mapping[int, Sequence[Overlap]],
) -> tuple[int, ...]:
    """Op indices in the order of the smallest peak found; the file's own if none is smaller."""
    file_order = tuple(range(len(graph.ops)))
    if len(graph.ops) > _MAX_OPS:
        return file_order
    memory = _Memory(graph, scratch, overlaps)
    file_peak = memory.peak_bytes(file_order)
    if file_peak <= memory.unavoidable_bytes:
        return file_order
    found = _best_first(memory) or _beam(memory)
    return found if found and memory.peak_bytes(found) < file_peak else file_order


class _Memory:
    """Live bytes as ops are executed; a set of executed ops is a bit mask.

    Storages live as a whole here, from the first op that touches them to the last.
    """

    def __init__(
        self,
        graph: ir.Graph,
        scratch: Mapping[int, int],
        overlaps: Mapping[int, Sequence[Overlap]],
    ) -> None:
        places = bytes_of_tensors(graph)
        roots = [place.storage for place in places]
        self.n_ops = len(graph.ops)
        self._size = [aligned(tensor.size_bytes) for tensor in graph.tensors]
        self._users = [0] * len(graph.tensors)  # by storage: mask of ops that touch it
        self._given = {roots[tensor] for tensor in graph.inputs}
        self._kept = {roots[tensor] for tensor in graph.outputs}
        self._reads: list[set[int]] = []
        self._output: list[int] = []
        self._scratch = [aligned(scratch.get(index, 0)) for index in range(self.n_ops)]
        self._savings: list[list[tuple[int, int]]] = []
        self.needs = [0] * self.n_ops  # by op: mask of ops that must run before
        writer = {output: index for index, op in enumerate(graph.ops) for output in op.outputs}
        for index, op in enumerate(graph.ops):
            reads = {roots[tensor] for tensor in op.inputs} - {-1}
            output = roots[op.outputs[0]]
            self._reads.append(reads)
            self._output.append(output)
            for root in (*reads, output):
                self._users[root] |= 1 << index
            for tensor in op.inputs:
                if tensor in writer:
                    self.needs[index] |= 1 << writer[tensor]
            self._savings.append(self._whole_savings(graph, op, places, overlaps.get(index, ())))
        self.start_bytes = sum(self._size[root] for root in self._given)
        self.unavoidable_bytes = max(
            (self._least_bytes(index) for index in range(self.n_ops)), default=0
        )

    def _whole_savings(
        self,
        graph: ir.Graph,
        op: ir.Op,
        places: Sequence[Bytes],
        offers: Sequence[Overlap],
    ) -> list[tuple[int, int]]:
        """Inputs that the op's output may lie over, and the bytes saved by it.

        Only where input and output are storages of their own, and where an op that reads one
        through several inputs gets the same offer for all of them.
        """
        savings: dict[int, int] = {}
        usable = aligned_offers(offers)
        out = op.outputs[0]
        for offer in usable:
            root = places[op.inputs[offer.input]].storage
            same = [i for i, tensor in enumerate(op.inputs) if places[tensor].storage == root]
            is_whole = all(
                graph.tensors[tensor].size_bytes == graph.tensors[place.storage].size_bytes
                for tensor, place in ((t, places[t]) for t in (op.inputs[offer.input], out))
            )
            agreed = all(replace(offer, input=position) in usable for position in same)
            if is_whole and agreed and root not in (-1, places[out].storage):
                in_bytes, out_bytes = self._size[root], self._size[places[out].storage]
                span = offer.span_bytes(in_bytes, out_bytes)
                savings.setdefault(root, in_bytes + out_bytes - span)
        return list(savings.items())

    def _least_bytes(self, index: int) -> int:
        """What one op needs in any order."""
        live = sum(self._size[root] for root in self._reads[index] | {self._output[index]})
        saved = sum(saving for _, saving in self._savings[index])
        return live + self._scratch[index] - min(saved, self._size[self._output[index]])

    def step(self, done: int, live_bytes: int, index: int) -> tuple[int, int]:
        """Bytes needed while an op runs, and live after it, given the ops done and bytes live."""
        after = done | 1 << index
        output = self._output[index]
        is_new = output not in self._given and self._users[output] & done == 0
        during = live_bytes + (self._size[output] if is_new else 0)
        dying = {
            root
            for root in (*self._reads[index], output)
            if root not in self._kept and self._users[root] & ~after == 0
        }
        savings = sum(saving for root, saving in self._savings[index] if root in dying)
        saved = min(savings, self._size[output])
        return (
            during + self._scratch[index] - saved,
            during - sum(self._size[root] for root in dying),
        )

    def peak_bytes(self, order: Sequence[int]) -> int:
        """The most bytes needed at any op of an order."""
        done, live_bytes, peak = 0, self.start_bytes, self.start_bytes
        for index in order:
            needed, live_bytes = self.step(done, live_bytes, index)
            done, peak = done | 1 << index, max(peak, needed)
        return peak

    def reads(self, index: int) -> int:
        """How many tensors an op reads."""
        return len(self._reads[index])

    def ready(self, done: int) -> list[int]:
        """Ops that can run next, in file order."""
        return [
            index
            for index in range(self.n_ops)
            if not done >> index & 1 and self.needs[index] & ~done == 0
        ]


def _best_first(memory: _Memory) -> tuple[int, ...]:
    """The order of least peak; empty if a limit on work is reached."""
    everything = (1 << memory.n_ops) - 1
    # Peak, minus the number of ops done, age: among equal peaks the longest order goes on. Then
    # the state: ops done, bytes live, the last op, and where it came from.
    heap = [(memory.start_bytes, 0, 0, 0, memory.start_bytes, -1, 0)]
    came_from: dict[int, tuple[int, int]] = {}
    looks = age = 0
    while heap:
        peak, n_done, _, done, live_bytes, last, before = heapq.heappop(heap)
        if done in came_from:
            continue
        came_from[done] = last, before
        if done == everything:
            return _walk_back(came_from, done)
        looks += memory.n_ops
        if looks > _MAX_BEST_FIRST_LOOKS or age > _MAX_STATES:
            return ()
        for index in memory.ready(done):
            looks += memory.reads(index)
            needed, after_bytes = memory.step(done, live_bytes, index)
            age += 1
            after = done | 1 << index
            state = (max(peak, needed), n_done - 1, age, after, after_bytes, index, done)
            heapq.heappush(heap, state)
    return ()


def _walk_back(came_from: Mapping[int, tuple[int, int]], done: int) -> tuple[int, ...]:
    order = []
    while done:
        last, done = came_from[done]
        order.append(last)
    return tuple(reversed(order))


def _beam(memory: _Memory) -> tuple[int, ...]:
    """A good order: the best few states after each op; empty where that is too much work."""
    reads = sum(memory.reads(index) for index in range(memory.n_ops))
    width = min(_MAX_BEAM_WIDTH, _MAX_BEAM_LOOKS // (memory.n_ops * (memory.n_ops + reads)))
    if not width:
        return ()
    states: list[tuple[int, int, tuple[int, ...], int]] = [
        (memory.start_bytes, memory.start_bytes, (), 0)
    ]
    for _ in range(memory.n_ops):
        best: dict[int, tuple[int, int, tuple[int, ...], int]] = {}
        for peak, live_bytes, order, done in states:
            for index in memory.ready(done):
                needed, after_bytes = memory.step(done, live_bytes, index)
                after = done | 1 << index
                state = (max(peak, needed), after_bytes, (*order, index), after)
                if after not in best or state < best[after]:
                    best[after] = state
        states = sorted(best.values())[:width]
    return states[0][2]
