"""Graph -> Graph, one file per pass, in the order in which they run.

A pass never changes what the model computes: outputs stay bit-identical, and `check` runs after
each.
"""

from __future__ import annotations

from collections.abc import Callable

from codegen import ir
from codegen.check import check
from codegen.passes import (
    fold_constants,
    fold_pad,
    fuse_activation,
    remove_dead_channels,
    remove_dead_ops,
    remove_moves,
    share_storage,
)

PASSES: tuple[Callable[[ir.Graph], ir.Graph], ...] = (
    fold_constants.run,
    remove_moves.run,
    fold_pad.run,
    fuse_activation.run,
    remove_dead_ops.run,
    remove_dead_channels.run,
    share_storage.run,
)


def run(graph: ir.Graph) -> ir.Graph:
    """The graph after all passes."""
    check(graph)
    for run_pass in PASSES:
        graph = run_pass(graph)
        check(graph)
    return graph
