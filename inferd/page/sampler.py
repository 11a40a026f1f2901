"""Read the server's counters every few seconds."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from inferd.observability.metrics.families import ModelSample, ServerUsage
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S
from inferd.observability.metrics.models import Activity
from inferd.page.history import Counters, Gauges, History, ModelLabels, Reading
from inferd.periodic_thread import PeriodicThread

#: Seconds between two readings, and how long they are kept.
INTERVAL_S = 2.0
KEPT_S = 300.0

_NO_CALLS = (0,) * (len(DURATION_BOUNDS_S) + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CounterSources:
    """Functions that return the present counters and gauges; none may block."""

    activity: Callable[[], Mapping[ModelLabels, Activity]]
    answered: Callable[[], Mapping[ModelLabels, Counters]]
    """Unary inference calls that were answered, by bucket of their duration."""
    models: Callable[[], Iterable[ModelSample]]
    cpu_s: Callable[[], float]
    resident_bytes: Callable[[], int]
    usage: Callable[[], ServerUsage]
    open_calls: Callable[[], int]
    gpus: Callable[[], Iterable[GpuSample]]


def read_counters(sources: CounterSources, at: float, wall_time: float) -> Reading:
    """Return a reading of all sources."""
    answered = sources.answered()
    waiting: dict[str, int] = {}
    model_bytes = 0
    for sample in sources.models():
        model_bytes += sample.memory_bytes
        # A row of a language model is a sequence; its queue is measured in tokens.
        rows = sample.queue_rows if sample.generation is None else sample.generation.waiting
        if rows:
            waiting[sample.model] = waiting.get(sample.model, 0) + rows
    return Reading(
        at=at,
        time=wall_time,
        counters={
            labels: (*activity[:-1], *answered.get(labels, _NO_CALLS), *activity.batches)
            for labels, activity in sources.activity().items()
        },
        waiting_rows=waiting,
        gauges=Gauges(
            cpu_s=sources.cpu_s(),
            resident_bytes=sources.resident_bytes(),
            model_bytes=model_bytes,
            request_bytes=sources.usage().held_bytes,
            open_calls=sources.open_calls(),
            gpus=tuple(sources.gpus()),
        ),
    )


class Sampler:
    """Adds a reading to ``history`` every `INTERVAL_S`, in a thread of its own; for the main thread."""

    def __init__(self, sources: CounterSources) -> None:
        self.history = History(round(KEPT_S / INTERVAL_S))
        self._sources = sources
        self._thread = PeriodicThread("page-sampler", period_s=INTERVAL_S, action=self.sample)

    def start(self) -> None:
        """Start reading, at once."""
        self._thread.wake()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; a reading in progress is not waited for."""
        self._thread.stop(timeout_s=0)

    def sample(self) -> None:
        """Add one reading; on the thread, or before it starts."""
        self.history.add(read_counters(self._sources, time.monotonic(), time.time()))
