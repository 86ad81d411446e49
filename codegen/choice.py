"""Which kernel runs each op, and whether the first ops run in strips, for an objective.

`sram` is the smallest arena that is found, and among plans with that arena the quickest: only ops
at the peak need the kernel with the least memory, all others the quickest that leaves the arena as
it is. `latency` is the quickest kernels; where their arena is larger than the board's RAM, the
quickest plan that fits. `flash` is the smallest code and constants. Where the quickest kernels need
more flash than the board has, those go first that save most bytes for each cycle they cost.

Kernels are compared by their estimates (kernels.Cost). Ops that share a C function (sharing.py)
get one kernel. Work is limited by counting.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from codegen.engines import Objective
from codegen.ir import Alias, Graph, Op
from codegen.kernels import Cost, Kernel, candidates, choose, working_bytes
from codegen.limits import FLASH_RESERVE_BYTES, BoardLimits
from codegen.liveness import Liveness, liveness
from codegen.patching import MAX_STRIPED_OPS, WHOLE, Strips, in_strips, stage_height, stage_limit
from codegen.planner import Overlap, Plan, plan
from codegen.sharing import signature

#: Limits on work: stages looked at more closely; plans made for those, and plans made to try
#: quicker kernels.
_STAGES = 3
_STRIPED_PLANS = 3
_UPGRADE_PLANS = 64
#: A kernel that is slower than the quickest by this factor is not worth the memory that it saves.
_MAX_SLOWDOWN = 4
#: Rows of a strip, in rows of the lowest output of the stage.
_STRIP_ROWS = (1, 2, 3, 4, 6, 8, 12)
#: Strips by which stages are compared with each other.
_TRIAL_STRIPS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A graph, perhaps in strips, with a kernel for each op that needs one, and the plan.

    `is_fitted` where memory had a say that the objective did not give it: what is best for that
    would not fit the board's RAM.
    """

    graph: Graph
    strips: Strips
    kernels: dict[int, Kernel]
    memory: Plan
    is_fitted: bool = False


def choose_for(graph: Graph, objective: Objective, board: BoardLimits) -> Choice:
    """What is best for an objective; the arena may still be larger than the board's RAM."""
    costs = Costs(board)
    costs.fit_flash(graph)
    if objective == "flash":
        kernels = {i: choose(graph, op, "flash", board) for i, op in ops_with_kernels(graph)}
        memory = planned(graph, kernels, board)
        if memory.arena_bytes <= board.arena_limit_bytes:
            return Choice(graph, WHOLE, kernels, memory)
    if objective == "latency":
        kernels = {i: costs.choices(graph, op)[0][0] for i, op in ops_with_kernels(graph)}
        memory = _Case(graph, costs, kernels).plan()
        if memory.arena_bytes <= board.arena_limit_bytes:
            return Choice(graph, WHOLE, kernels, memory)
    limit_bytes = 0 if objective == "sram" else board.arena_limit_bytes
    return replace(_quickest(graph, costs, limit_bytes), is_fitted=objective != "sram")


def choose_within(graph: Graph, limit_bytes: int, board: BoardLimits) -> Choice:
    """The quickest with an arena up to a limit; if there is none, with the smallest arena."""
    costs = Costs(board)
    costs.fit_flash(graph)
    return _quickest(graph, costs, limit_bytes)


def ops_with_kernels(graph: Graph) -> list[tuple[int, Op]]:
    """Ops that need a kernel, with their indices: all but those that move nothing."""
    return [(index, op) for index, op in enumerate(graph.ops) if not isinstance(op, Alias)]


def planned(
    graph: Graph, kernels: Mapping[int, Kernel], board: BoardLimits, *, strips: Strips = WHOLE
) -> Plan:
    """The plan of a graph whose ops run with these kernels."""
    return _Case(graph, Costs(board), dict(kernels), strips).plan()


class Costs:
    """Kernels of ops with their costs, worked out once for all ops with one signature."""

    def __init__(self, board: BoardLimits) -> None:
        self._board = board
        self._signatures: dict[tuple[Graph, Op], Hashable] = {}
        self._costs: dict[Hashable, dict[str, Cost]] = {}
        self._choices: dict[Hashable, tuple[tuple[Kernel, Cost], ...]] = {}
        self._smallest: dict[Hashable, Kernel] = {}
        self._too_large: set[tuple[int, str]] = set()

    def fit_flash(self, graph: Graph) -> None:
        """Leaves out kernels until the quickest of all ops fit the board's flash, or none is left.

        Ops are known again in strips, by their operator in the model.
        """
        chosen = {op.source: op for _, op in ops_with_kernels(graph)}
        limit_bytes = self._board.flash_bytes - FLASH_RESERVE_BYTES

        def trade(source: int) -> tuple[float, int]:
            """Cycles per byte saved, and bytes, of the next op's best smaller kernel."""
            (_, best), *others = self.choices(graph, chosen[source])
            trades = [
                ((cost.cycles - best.cycles) / saved_bytes, saved_bytes)
                for _, cost in others
                if (saved_bytes := best.flash_bytes - cost.flash_bytes) > 0
            ]
            return min(trades, default=(math.inf, 0))

        while (
            sum(self.choices(graph, op)[0][1].flash_bytes for op in chosen.values()) > limit_bytes
        ):
            source = min(chosen, key=trade)
            _, saved_bytes = trade(source)
            if not saved_bytes:
                return
            best = self.choices(graph, chosen[source])[0][1]
            self._too_large.update(
                (source, kernel.name)
                for kernel, cost in self.choices(graph, chosen[source])
                if cost.flash_bytes > best.flash_bytes - saved_bytes
            )

    def signature(self, graph: Graph, op: Op) -> Hashable:
        """What ops have in common that share a C function."""
        key = graph, op
        if key not in self._signatures:
            self._signatures[key] = signature(graph, op)
        return self._signatures[key]

    def of(self, graph: Graph, op: Op, kernel: Kernel) -> Cost:
        """What an op costs with a kernel."""
        costs = self._costs.setdefault(self.signature(graph, op), {})
        if kernel.name not in costs:
            costs[kernel.name] = kernel.cost(graph, op, self._board)
        return costs[kernel.name]

    def choices(self, graph: Graph, op: Op) -> tuple[tuple[Kernel, Cost], ...]:
        """The kernels that may run an op, the quickest first."""
        key = self.signature(graph, op)
        if key not in self._choices:
            found = [(kernel, self.of(graph, op, kernel)) for kernel in candidates(graph, op)]
            found.sort(key=lambda choice: (choice[1].cycles, choice[0].name))
            slowest = _MAX_SLOWDOWN * found[0][1].cycles
            self._choices[key] = tuple(each for each in found if each[1].cycles <= slowest)
        if not self._too_large:
            return self._choices[key]
        return tuple(
            each for each in self._choices[key] if (op.source, each[0].name) not in self._too_large
        )

    def smallest(self, graph: Graph, op: Op) -> Kernel:
        """The kernel that needs the least memory; on a tie the quickest."""
        key = self.signature(graph, op)
        if key not in self._smallest:
            self._smallest[key] = min(
                self.choices(graph, op), key=lambda choice: working_bytes(graph, op, choice[1])
            )[0]
        return self._smallest[key]


@dataclass(slots=True)
class _Case:
    """A graph with one kernel for each op."""

    graph: Graph
    costs: Costs
    kernels: dict[int, Kernel]
    strips: Strips = WHOLE

    def cost(self, index: int) -> Cost:
        """What an op costs with its kernel."""
        return self.costs.of(self.graph, self.graph.ops[index], self.kernels[index])

    def choices(self, index: int) -> tuple[tuple[Kernel, Cost], ...]:
        """What could run an op, the quickest first."""
        return self.costs.choices(self.graph, self.graph.ops[index])

    def working_bytes(self, index: int, kernel: Kernel) -> int:
        """Arena bytes of an op by itself, with a kernel."""
        op = self.graph.ops[index]
        return working_bytes(self.graph, op, self.costs.of(self.graph, op, kernel))

    @property
    def cycles(self) -> int:
        """The estimate for all ops."""
        return sum(self.cost(index).cycles for index in self.kernels)

    @property
    def groups(self) -> list[list[int]]:
        """Ops that share a C function, and so a kernel."""
        groups: dict[Hashable, list[int]] = {}
        for index in self.kernels:
            key = self.costs.signature(self.graph, self.graph.ops[index])
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def with_kernels(self, kernels: Mapping[int, Kernel]) -> _Case:
        """The same with some other kernels."""
        return replace(self, kernels={**self.kernels, **kernels})

    def lives(self) -> Liveness:
        """What is needed when, in the order of the graph."""
        order = range(len(self.graph.ops))
        scratch, overlaps = self._demands()
        return liveness(self.graph, order, scratch=scratch, overlaps=overlaps)

    def plan(
        self, goal_bytes: int = 0, *, like: Plan | None = None, is_thorough: bool = True
    ) -> Plan:
        """The smallest arena found, or one that is no larger than the goal."""
        scratch, overlaps = self._demands()
        return plan(
            self.graph,
            scratch=scratch,
            overlaps=overlaps,
            reorder=self.strips.count == 1,
            goal_bytes=goal_bytes,
            like=like,
            is_thorough=is_thorough,
        )

    def _demands(self) -> tuple[dict[int, int], dict[int, tuple[Overlap, ...]]]:
        costs = {index: self.cost(index) for index in self.kernels}
        return (
            {index: cost.scratch_bytes for index, cost in costs.items() if cost.scratch_bytes},
            {index: cost.overlaps for index, cost in costs.items() if cost.overlaps},
        )


def _quickest(graph: Graph, costs: Costs, limit_bytes: int) -> Choice:
    """The quickest plan with an arena up to a limit; if there is none, with the smallest arena."""
    case = _smallest(graph, costs)
    memory = case.plan(limit_bytes)
    if memory.arena_bytes > limit_bytes:
        case, memory = _best_strips(case, memory, limit_bytes)
    return _quicker(case, memory, max(limit_bytes, memory.arena_bytes))


def _smallest(graph: Graph, costs: Costs, strips: Strips = WHOLE) -> _Case:
    """The kernels that need the least memory."""
    kernels = {index: costs.smallest(graph, op) for index, op in ops_with_kernels(graph)}
    return _Case(graph, costs, kernels, strips)


def _best_strips(whole: _Case, memory: Plan, limit_bytes: int) -> tuple[_Case, Plan]:
    """The best number of ops and strips, or the whole ops where those need no more memory."""
    graph, live_bytes = whole.graph, whole.lives().live_bytes
    stages: list[tuple[int, int]] = []
    for length in range(2, stage_limit(graph) + 1):
        # What comes after the stage stays as it is.
        if max(live_bytes[length + 1 :]) < memory.arena_bytes:
            count = min(_TRIAL_STRIPS, stage_height(graph, length))
            trial = _in_strips(graph, whole.costs, length, count)
            if trial is not None:
                stages.append((trial.lives().lower_bound_bytes, length))
    stages.sort()
    tried: list[tuple[tuple[int, int], _Case]] = []
    for _, length in stages[:_STAGES]:
        height = stage_height(graph, length)
        for count in dict.fromkeys(-(-height // rows) for rows in _STRIP_ROWS):
            case = _in_strips(graph, whole.costs, length, count)
            if case is None:
                continue
            arena = case.plan(limit_bytes, is_thorough=False).arena_bytes
            tried.append(((max(arena, limit_bytes), case.cycles), case))
    tried.sort(key=lambda entry: entry[0])
    best, best_memory = whole, memory
    for _, case in tried[:_STRIPED_PLANS]:
        found = case.plan(limit_bytes)
        if _rank(case, found, limit_bytes) < _rank(best, best_memory, limit_bytes):
            best, best_memory = case, found
    return best, best_memory


def _rank(case: _Case, memory: Plan, limit_bytes: int) -> tuple[int, int]:
    return max(memory.arena_bytes, limit_bytes), case.cycles


def _in_strips(graph: Graph, costs: Costs, length: int, count: int) -> _Case | None:
    """The first ops in strips, with kernels that need little memory."""
    if count == 1 or count * length > MAX_STRIPED_OPS:
        return None
    striped = in_strips(graph, length, count)
    return None if striped is None else _smallest(striped, costs, Strips(length, count))


def _quicker(case: _Case, memory: Plan, limit_bytes: int) -> Choice:
    """Quicker kernels wherever the arena stays within the limit."""
    wanted = _locally_quickest(case, limit_bytes)
    changes = [
        {index: wanted[index] for index in group}
        for group in case.groups
        if case.costs.of(case.graph, case.graph.ops[group[0]], wanted[group[0]]).cycles
        < case.cost(group[0]).cycles
    ]
    changes.sort(key=lambda change: case.with_kernels(change).cycles)
    # All of them if possible; else the first half, then the second, and so on.
    waiting, plans = [changes], 0
    while waiting and plans < _UPGRADE_PLANS:
        some = waiting.pop(0)
        if not some:
            continue
        trial = case.with_kernels({i: kernel for change in some for i, kernel in change.items()})
        found = trial.plan(limit_bytes, like=memory, is_thorough=False)
        plans += 1
        if found.arena_bytes <= limit_bytes:
            case, memory = trial, found
        elif len(some) > 1:
            middle = len(some) // 2
            waiting[:0] = [some[:middle], some[middle:]]
    return Choice(case.graph, case.strips, case.kernels, memory)


def _locally_quickest(case: _Case, limit_bytes: int) -> dict[int, Kernel]:
    """By op the quickest kernel with which it needs no more than the limit at its own time."""
    groups = {index: group for group in case.groups for index in group}
    trial = case.with_kernels({index: case.choices(index)[0][0] for index in groups})
    while True:
        live_bytes = trial.lives().live_bytes
        slower: dict[int, Kernel] = {}
        for index in groups:
            if live_bytes[index + 1] > limit_bytes and index not in slower:
                needed = case.working_bytes(index, trial.kernels[index])
                less = (
                    kernel
                    for kernel, cost in case.choices(index)
                    if case.working_bytes(index, kernel) < needed
                    and cost.cycles >= trial.cost(index).cycles
                )
                kernel = next(less, case.kernels[index])
                if kernel is not trial.kernels[index]:
                    slower.update(dict.fromkeys(groups[index], kernel))
        if not slower:
            return trial.kernels
        trial = trial.with_kernels(slower)
