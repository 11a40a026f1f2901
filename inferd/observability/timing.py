"""Durations of the stages of one request, measured only on demand: for trailers, traces and the debug log."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from inferd.call_context import BatchTiming

#: The annotation of a call with the stages of its request, if they are measured.
KEY = "stages"

#: In the order of processing.
STAGES = ("decode", "queue", "stack", "run", "encode")
#: What comes first for the few requests that wait for their model.
LOAD = "load"


@dataclass(slots=True)
class Stages:
    """Times of the stages that a request has reached; seconds on the monotonic clock."""

    decoding_at: float | None = None
    decoded_at: float | None = None
    queue_s: float | None = None
    batch: BatchTiming | None = None
    encoding_at: float | None = None
    encoded_at: float | None = None
    load_s: float | None = None

    def durations_s(self) -> list[tuple[str, float]]:
        """Return name and duration of each completed stage, `LOAD` first and then in the order of `STAGES`."""
        durations: list[tuple[str, float]] = []
        if self.load_s is not None:
            durations.append((LOAD, self.load_s))
        if self.decoding_at is not None and self.decoded_at is not None:
            durations.append(("decode", self.decoded_at - self.decoding_at))
        if self.queue_s is not None:
            durations.append(("queue", self.queue_s))
        if self.batch is not None:
            durations += [("stack", self.batch.stack_s), ("run", self.batch.run_s)]
        if self.encoding_at is not None and self.encoded_at is not None:
            durations.append(("encode", self.encoded_at - self.encoding_at))
        return durations


def measure(annotations: MutableMapping[str, object]) -> Stages:
    """Measure the stages of a call's request, and return them; only while the call starts."""
    stages = annotations.setdefault(KEY, Stages())
    assert isinstance(stages, Stages)
    return stages


def of(annotations: Mapping[str, object]) -> Stages:
    """Return the stages of a call's request; only if its annotations have a `KEY`."""
    stages = annotations[KEY]
    assert isinstance(stages, Stages)
    return stages


class StageTotals:
    """Sums of the stages of all requests of a stream. Not thread-safe."""

    def __init__(self) -> None:
        self._totals_s: dict[str, float] = {}

    def add(self, stages: Stages) -> None:
        """Add the stages of one request."""
        for name, duration_s in stages.durations_s():
            self._totals_s[name] = self._totals_s.get(name, 0.0) + duration_s

    def durations_s(self) -> list[tuple[str, float]]:
        """Return the sums, in the order of `Stages.durations_s`."""
        return [(name, self._totals_s[name]) for name in (LOAD, *STAGES) if name in self._totals_s]


def server_timing(durations_s: Iterable[tuple[str, float]]) -> str:
    """Format durations as in HTTP's Server-Timing header, in milliseconds."""
    return ", ".join(f"{name};dur={duration_s * 1000:.3f}" for name, duration_s in durations_s)
