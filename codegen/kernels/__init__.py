"""Registry of kernels: which C can run an op, what each variant costs, which one is picked.

A kernel is one Jinja2 template under codegen/templates and one `Kernel` entry in a module of this
package; modules are found by listing the folder. Variants for one op compute the same bytes in
different ways.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.errors import UnsupportedOp
from codegen.ir import Graph, Op
from codegen.limits import BoardLimits
from codegen.planner import Overlap

if TYPE_CHECKING:
    from codegen.kernels.context import Context


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kernel needs for one op, estimated before any C exists.

    Args:
        cycles: estimate for the board's core and memories; only the order of variants matters.
        flash_bytes: constants (exact) and code (estimate).
        scratch_bytes: arena bytes that live only during the op.
        overlaps: inputs that the output may lie over when they die at this op.
    """

    cycles: int
    flash_bytes: int
    scratch_bytes: int = 0
    overlaps: tuple[Overlap, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """One variant.

    Args:
        name: spells the variant: <op>_<shape tag>_<dtype>[_<how>].
        op: the ops that it may run.
        template: file under codegen/templates.
        refuse: why it cannot run this op, or None when it can.
        cost: what the op would cost with it on a board.
        context: what the template is rendered with.
    """

    name: str
    op: tuple[type[Op], ...]
    template: str
    refuse: Callable[[Graph, Op], str | None]
    cost: Callable[[Graph, Op, BoardLimits], Cost]
    context: Callable[[Graph, Op], Context]


_kernels: dict[str, Kernel] = {}


def register(kernel: Kernel) -> Kernel:
    """Enters a kernel into the registry."""
    assert kernel.name not in _kernels, f"two kernels are called {kernel.name!r}"
    _kernels[kernel.name] = kernel
    return kernel


def all_kernels() -> tuple[Kernel, ...]:
    """Every kernel, in order of registration within modules in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(_kernels.values())


def candidates(graph: Graph, op: Op) -> tuple[Kernel, ...]:
    """Every kernel that can run the op; raises UnsupportedOp with the reasons if none can."""
    refusals: list[str] = []
    found: list[Kernel] = []
    for kernel in all_kernels():
        if isinstance(op, kernel.op):
            reason = kernel.refuse(graph, op)
            if reason is None:
                found.append(kernel)
            else:
                refusals.append(f"{kernel.name}: {reason}")
    if not found:
        raise UnsupportedOp(op.kind, op.name, "; ".join(refusals) or "no kernel runs this op")
    return tuple(found)


def working_bytes(graph: Graph, op: Op, cost: Cost) -> int:
    """Arena bytes of inputs, output and scratch together, with the best overlap on offer."""
    output_bytes = sum(graph.tensors[i].size_bytes for i in op.outputs)
    inputs = {i for i in op.inputs if i >= 0 and not graph.tensors[i].is_constant}
    input_bytes = sum(graph.tensors[i].size_bytes for i in inputs)
    together = input_bytes + output_bytes
    for overlap in cost.overlaps:
        shared_bytes = graph.tensors[op.inputs[overlap.input]].size_bytes
        distance = max(0, overlap.distance)
        pair_bytes = distance + max(shared_bytes, output_bytes - distance)
        together = min(together, input_bytes - shared_bytes + pair_bytes)
    return together + cost.scratch_bytes


def choose(graph: Graph, op: Op, objective: str, board: BoardLimits) -> Kernel:
    """The kernel with the fewest cycles, arena bytes or flash bytes; on a tie the quickest."""

    def key(kernel: Kernel) -> tuple[int, int, str]:
        cost = kernel.cost(graph, op, board)
        first = {
            "latency": cost.cycles,
            "sram": working_bytes(graph, op, cost),
            "flash": cost.flash_bytes,
        }[objective]
        return first, cost.cycles, kernel.name

    return min(candidates(graph, op), key=key)
