"""Statistics of repeated measurements: few samples, sometimes all equal, sometimes with an outlier.

The median and the median absolute deviation, because one interrupted repeat must not move a result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def median(samples: Sequence[float]) -> float:
    """Middle of the sorted samples; the mean of the two middle ones when their number is even."""
    return float(np.median(_checked(samples)))


def percentile(samples: Sequence[float], percent: float) -> float:
    """Value below which `percent` (0..100) of the samples lie, interpolated linearly."""
    return float(np.percentile(_checked(samples), percent))


def mad(samples: Sequence[float]) -> float:
    """Median absolute deviation from the median; 0 for equal samples."""
    values = _checked(samples)
    return float(np.median(np.abs(values - np.median(values))))


def _checked(samples: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if len(samples) == 0:
        raise ValueError("statistics need at least one sample")
    return np.asarray(samples, dtype=np.float64)
