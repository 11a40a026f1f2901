"""ORCA load reports, for load balancers that weight servers by utilization."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from inferd import wire
from inferd.observability.metrics.families import ModelSample
from inferd.observability.metrics.histogram import Histogram
from inferd.observability.metrics.requests import RequestLabels

#: Statuses of calls that failed through no fault of their callers, rejections for overload included.
_FAILURES = frozenset(("DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"))

#: Tags of `xds.data.orca.v3.OrcaLoadReport` and of its map entries; there is no generated code for it.
_CPU, _MEMORY, _RPS, _EPS, _APPLICATION = (wire.double_tag(number) for number in (1, 2, 6, 7, 9))
_UTILIZATION = wire.length_tag(5)
_NAME, _VALUE = wire.length_tag(1), wire.double_tag(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The content of a report.

    ``cpu`` and ``memory`` are fractions of what the process may use. ``application`` is the busy fraction of the
    busiest model's instances, of all that it is likely to have under load, or ``cpu`` if that is higher, plus the fill
    level of its queue, so from 0 to 2; in place of the busy fraction, a language model has the used part of its cache.
    ``queue`` is the fill level of the fullest queue, from 0 to 1. Calls per second: ``served_per_s`` were answered,
    ``failed_per_s`` failed through no fault of their callers, rejections included.
    """

    cpu: float
    memory: float
    application: float
    queue: float
    served_per_s: float
    failed_per_s: float

    def to_bytes(self) -> bytes:
        """Return the `OrcaLoadReport`."""
        entry = wire.field(_NAME, b"queue") + wire.double(_VALUE, self.queue)
        doubles = (
            (_CPU, self.cpu),
            (_MEMORY, self.memory),
            (_RPS, self.served_per_s),
            (_EPS, self.failed_per_s),
            (_APPLICATION, self.application),
        )
        return b"".join(wire.double(tag, value) for tag, value in doubles) + wire.field(_UTILIZATION, entry)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSources:
    """Inputs of the reports. None of the functions may block.

    ``busy_s`` is the run time of each model version so far, by name and version; ``cpu_s`` the CPU time of the process;
    ``memory_bytes`` its memory. ``cores`` and ``memory_limit_bytes`` are what it may use.
    """

    models: Callable[[], Iterable[ModelSample]]
    busy_s: Callable[[], Mapping[tuple[str, str], float]]
    calls: Callable[[], Mapping[RequestLabels, Histogram]]
    cpu_s: Callable[[], float]
    memory_bytes: Callable[[], int]
    cores: int
    memory_limit_bytes: int


class _Sample(NamedTuple):
    at: float
    cpu_s: float
    busy_s: Mapping[tuple[str, str], float]
    served: int
    failed: int


class LoadReporter:
    """Builds reports over the last ``window_s``, at most one every ``period_s``.

    Threads: ``report`` any. None waits for another: while one builds a report, the others return the previous one.
    """

    def __init__(
        self,
        sources: LoadSources,
        *,
        period_s: float = 0.1,
        window_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._period_s = period_s
        self._window_s = window_s
        self._clock = clock
        self._making = threading.Lock()
        self._samples = deque([self._sample()])
        self._next_at = 0.0
        self._report = Load(
            cpu=0.0, memory=0.0, application=0.0, queue=0.0, served_per_s=0.0, failed_per_s=0.0
        ).to_bytes()

    def report(self) -> bytes:
        """Return the current `OrcaLoadReport`."""
        if self._clock() >= self._next_at and self._making.acquire(blocking=False):
            try:
                self._report = self.measure().to_bytes()
                self._next_at = self._samples[-1].at + self._period_s
            finally:
                self._making.release()
        return self._report

    def measure(self) -> Load:
        """Return the load over the window; one thread at a time."""
        samples, now = self._samples, self._sample()
        samples.append(now)
        while len(samples) > 2 and samples[1].at <= now.at - self._window_s:
            samples.popleft()
        before = samples[0]
        passed_s = max(now.at - before.at, 1e-3)
        cpu = (now.cpu_s - before.cpu_s) / passed_s / self._sources.cores
        fullest, application = 0.0, cpu
        for model in self._sources.models():
            key = (model.model, model.version)
            busy_s = now.busy_s.get(key, 0.0) - before.busy_s.get(key, 0.0)
            taken, filled = _utilization(model, busy_s / passed_s)
            fullest = max(fullest, filled)
            application = max(application, taken + filled)
        return Load(
            cpu=cpu,
            memory=min(self._sources.memory_bytes() / self._sources.memory_limit_bytes, 1.0),
            application=application,
            queue=fullest,
            # Negative when the counts of an unloaded version were dropped.
            served_per_s=max(now.served - before.served, 0) / passed_s,
            failed_per_s=max(now.failed - before.failed, 0) / passed_s,
        )

    def _sample(self) -> _Sample:
        sources = self._sources
        served = failed = 0
        for labels, durations in sources.calls().items():
            if labels.code in _FAILURES:
                failed += durations.count
            else:
                served += durations.count
        return _Sample(self._clock(), sources.cpu_s(), sources.busy_s(), served, failed)


def _utilization(model: ModelSample, busy: float) -> tuple[float, float]:
    """Return how much of a version is taken, and the fill level of its queue, both from 0 to 1.

    One sequence keeps a language model busy, which has room for many more: what counts is its cache.
    """
    generation = model.generation
    if generation is not None:
        return generation.in_use, min(generation.waiting / generation.max_running, 1.0)
    instances = model.instances_under_load
    filled = min(model.queue_rows / model.queue_limit_rows, 1.0) if model.queue_limit_rows else 0.0
    return min(busy / instances, 1.0) if instances else 0.0, filled
