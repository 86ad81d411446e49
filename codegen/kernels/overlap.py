"""How far an output may lie over the input that is consumed while it is written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codegen.planner import Overlap

Int64s = NDArray[np.int64]


#: The output may lie exactly where the input lies.
IN_PLACE = Overlap(input=0, distance=0, is_exact=True)


def forward_overlap(
    lowest_read: Int64s, written_end: Int64s, *, reads_first: bool = True
) -> Overlap:
    """The overlap of a kernel that works in steps.

    Args:
        lowest_read: per step, offset in the input of the lowest byte that the step reads.
        written_end: per step, offset in the output after the last byte written by then.
        reads_first: whether a step reads all it needs before it writes.

    Returns:
        The smallest distance by which the output must start below the input: what a step has
        written must not reach what is read later.
    """
    needed = np.minimum.accumulate(lowest_read[::-1])[::-1]
    if reads_first:
        needed, written_end = needed[1:], written_end[:-1]
    # Without a later step the two may lie anyhow, as far as this kernel is concerned.
    distance = int(np.max(written_end - needed, initial=-int(lowest_read[-1]) - 1))
    return Overlap(input=0, distance=distance)
