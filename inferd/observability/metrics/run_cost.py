"""Predicted durations of runs of a model version, for Prometheus and for GetModel."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictedRun:
    """The prediction for a run of ``rows``: its duration, and one that 95 % of such runs do not exceed."""

    rows: int
    seconds: float
    p95_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCost:
    """The predictions at one moment.

    ``sizes`` are the powers of two below the largest batch, and the largest batch. ``error`` is the typical relative
    error of recent predictions, None before the second run. The predictions come from ``runs``, or, as long as there
    are none, from warm-up.
    """

    sizes: tuple[PredictedRun, ...]
    error: float | None
    runs: int
