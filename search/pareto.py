"""Fronts and hypervolume, all objectives to be minimised. Not here: tables (hil/report.py)."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points are on the front; of equal points all are.

    Args:
        points: (n, objectives).

    Returns:
        (n,), True for a point that no other is at least as good as in every objective and better in
        one.
    """
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=bool)


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume between the reference point and the points that beat it in every objective.

    Args:
        points: (n, objectives).
        reference: (objectives,), the worst values of interest.
    """
    inside = points[(points < reference).all(axis=1)] if len(points) else points
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(inside, ref=reference))
