"""Convert intervals to the series of the charts: one list of equal length for each line. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from inferd.observability.metrics.histogram import DURATION_BOUNDS_S
from inferd.page.history import (
    ANSWERED,
    FAILED,
    LATENCY,
    NOTHING,
    REJECTED,
    ROWS,
    RUNS,
    WAITING,
    Figures,
    Interval,
)

#: Models that the caller may see; None for all.
Visible = Callable[[str], bool] | None

_PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
_PER_SECOND = {"answered": ANSWERED, "rejected": REJECTED}


def server_series(intervals: Sequence[Interval], visible: Visible) -> dict[str, Any]:
    """Return the series of the server: of the models that are ``visible``, and of its process and devices."""
    gauges = [each.gauges for each in intervals]
    return {
        **_series([each.figures(visible) for each in intervals], intervals),
        "cores": [_short(each.cores) for each in intervals],
        "resident_bytes": [each.resident_bytes for each in gauges],
        "model_bytes": [each.model_bytes for each in gauges],
        "request_bytes": [each.request_bytes for each in gauges],
        "open_calls": [each.open_calls for each in gauges],
        "gpus": _gpus(intervals),
    }


def model_series(intervals: Sequence[Interval], model: str) -> dict[str, Any]:
    """Return the series of one model."""
    only = model.__eq__
    return _series([each.figures(only) for each in intervals], intervals)


def recent_figures(intervals: Sequence[Interval], visible: Visible) -> dict[str, Mapping[str, float | None]]:
    """Return the averages of the models that had requests, by name."""
    seconds = sum(each.seconds for each in intervals)
    sums: dict[str, Figures] = {}
    for interval in intervals:
        for model, figures in interval.models.items():
            if visible is None or visible(model):
                sums[model] = sums[model] + figures if model in sums else figures
    return {model: _averages(figures, seconds, len(intervals)) for model, figures in sums.items()}


def _series(figures: Sequence[Figures], intervals: Sequence[Interval]) -> dict[str, Any]:
    averages = [_averages(each, interval.seconds, 1) for each, interval in zip(figures, intervals, strict=True)]
    names = _averages(NOTHING, seconds=1.0, readings=1)
    return {
        "times": [round(each.time, 3) for each in intervals],
        **{name: [each[name] for each in averages] for name in names},
    }


def _averages(figures: Figures, seconds: float, readings: int) -> dict[str, float | None]:
    """Return rates per second, durations in ms, and mean rows."""
    # Whole numbers of numpy become floats of Python, which divide faster.
    failed, rejected = float(figures[FAILED]), float(figures[REJECTED])
    runs = float(figures[RUNS])
    latency = figures[LATENCY]
    percentiles = {name: percentile(latency, DURATION_BOUNDS_S, share) for name, share in _PERCENTILES.items()}
    return {
        **{name: _short(float(figures[column]) / seconds) for name, column in _PER_SECOND.items()},
        "failed": _short(max(failed - rejected, 0.0) / seconds),
        **{name: None if value is None else _short(1000 * value) for name, value in percentiles.items()},
        "batch_rows": _short(float(figures[ROWS]) / runs) if runs else None,
        "waiting_rows": _short(float(figures[WAITING]) / readings),
    }


def _gpus(intervals: Sequence[Interval]) -> list[dict[str, Any]]:
    """Return the series of each GPU that the last interval has; None where one is missing."""
    if not intervals:
        return []
    series = []
    for last in intervals[-1].gauges.gpus:
        samples = [next((gpu for gpu in each.gauges.gpus if gpu.index == last.index), None) for each in intervals]
        series.append(
            {
                "index": last.index,
                "total_bytes": last.total_bytes,
                "utilization": [None if gpu is None else gpu.utilization for gpu in samples],
                "used_bytes": [None if gpu is None else gpu.used_bytes for gpu in samples],
            }
        )
    return series


def _short(value: float) -> float:
    """Return ``value`` with four significant digits, which are enough for a chart."""
    return float(f"{value:.4g}")


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
