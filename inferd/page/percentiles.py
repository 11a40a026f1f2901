"""Percentiles from the counts of a histogram. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def percentile(counts: ArrayLike, bounds: Sequence[float], share: float) -> float | None:
    """Return the value that ``share`` of the counted values do not exceed; None if there are none.

    ``counts`` are by bucket, with one more for values above the last of ``bounds``, which are taken for that bound.
    Values are assumed to be spread evenly within their bucket.
    """
    cumulative = np.cumsum(np.asarray(counts, np.float64))
    if not cumulative[-1]:
        return None
    wanted = share * cumulative[-1]
    index = int(np.searchsorted(cumulative, wanted))
    if index >= len(bounds):
        return bounds[-1]
    low = bounds[index - 1] if index else 0.0
    before = float(cumulative[index - 1]) if index else 0.0
    within = (wanted - before) / (float(cumulative[index]) - before)
    return float(low + within * (bounds[index] - low))
