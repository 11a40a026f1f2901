"""The last minutes of the server's counters, as intervals between readings. Pure: knows neither clock nor thread."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS

ModelLabels = tuple[str, str]

#: Counters of a model version: answered, failed, rejected, rows, runs, answered calls by duration, batches by rows.
Counters = tuple[int, ...]

#: Changes of the counters in an interval, followed by the rows that wait at its end.
Figures = NDArray[np.float32]

ANSWERED, FAILED, REJECTED, ROWS, RUNS = range(5)
LATENCY = slice(RUNS + 1, RUNS + 2 + len(DURATION_BOUNDS_S))
BATCHES = slice(LATENCY.stop, LATENCY.stop + len(ROWS_BOUNDS) + 1)
WAITING = BATCHES.stop

NOTHING: Figures = np.zeros(WAITING + 1, np.float32)
NOTHING.flags.writeable = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """The server's gauges at one moment; ``cpu_s`` is the CPU time of its process so far."""

    cpu_s: float
    resident_bytes: int
    model_bytes: int
    request_bytes: int
    open_calls: int
    gpus: Sequence[GpuSample] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All counters at one moment: ``at`` on the monotonic clock, ``time`` since the epoch, both in seconds.

    ``waiting_rows`` are by model; models without waiting rows may be missing.
    """

    at: float
    time: float
    counters: Mapping[ModelLabels, Counters]
    waiting_rows: Mapping[str, int]
    gauges: Gauges


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """The changes between two readings. ``models`` are those that had requests or waiting rows."""

    number: int
    time: float
    seconds: float
    cores: float
    gauges: Gauges
    total: Figures
    models: Mapping[str, Figures]

    def figures(self, visible: Callable[[str], bool] | None) -> Figures:
        """Return the sum over the ``visible`` models; None is all of them."""
        if visible is None:
            return self.total
        seen = [figures for model, figures in self.models.items() if visible(model)]
        return np.sum(seen, axis=0) if seen else NOTHING


class History:
    """The intervals between the last readings, at most ``length`` of them.

    Threads: one adds readings; any calls `since`, whose intervals do not change.
    """

    def __init__(self, length: int) -> None:
        self._intervals: deque[Interval] = deque(maxlen=length)
        self._last: Reading | None = None
        self._number = 0

    def add(self, reading: Reading) -> None:
        """Append the interval since the previous reading. A version that was not in that one began with zeros."""
        before, self._last = self._last, reading
        if before is None:
            return
        self._number += 1
        models = _models(before, reading)
        seconds = max(reading.at - before.at, 1e-3)
        self._intervals.append(
            Interval(
                number=self._number,
                time=reading.time,
                seconds=seconds,
                cores=max(reading.gauges.cpu_s - before.gauges.cpu_s, 0.0) / seconds,
                gauges=reading.gauges,
                total=np.sum(list(models.values()), axis=0) if models else NOTHING,
                models=models,
            )
        )

    def since(self, number: int) -> list[Interval]:
        """Return the intervals after ``number``, the oldest first; all that are kept if it is unknown."""
        # A copy: iterating over a deque fails when another thread appends to it.
        intervals = list(self._intervals.copy())
        if not intervals or number > intervals[-1].number:
            return intervals
        return [each for each in intervals if each.number > number]


def _models(before: Reading, after: Reading) -> dict[str, Figures]:
    """Return the figures of the models that had requests or waiting rows."""
    models: dict[str, Figures] = {}
    for (model, _), change in _changes(before.counters, after.counters):
        figures = models.setdefault(model, NOTHING.copy())
        figures[:WAITING] += change
    for model, rows in after.waiting_rows.items():
        if rows:
            models.setdefault(model, NOTHING.copy())[WAITING] = rows
    return models


def _changes(
    before: Mapping[ModelLabels, Counters], after: Mapping[ModelLabels, Counters]
) -> Iterator[tuple[ModelLabels, NDArray[np.float64]]]:
    for labels, counters in after.items():
        earlier = before.get(labels)
        # Most models of many have no requests, and comparing tuples is fast.
        if counters == earlier or not any(counters):
            continue
        change = np.array(counters, np.float64)
        # Counters of a version that was unloaded restart.
        yield labels, change if earlier is None else np.maximum(change - np.array(earlier, np.float64), 0)
