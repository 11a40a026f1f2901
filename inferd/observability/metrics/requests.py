"""Number and duration of finished RPCs."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from operator import add
from typing import NamedTuple

import grpc
from prometheus_client.samples import Exemplar

from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, Histogram
from inferd.observability.recorder import CallRecorder, FinishedCall

UNKNOWN = "unknown"
_OK = grpc.StatusCode.OK.name

#: Model, version and method of a call, not yet checked against the known ones, and the id() of the status: statuses are
#: constants, and enums are slow to hash.
_CallKey = tuple[str | None, str | None, str, int]


class RequestLabels(NamedTuple):
    """The labels of the request metrics, in their order."""

    model: str
    version: str
    method: str
    code: str


class RequestMetrics:
    """Durations of finished RPCs by model, version, method and status; their counts are the numbers of requests.

    Invariants: the series change under the one lock, which no call ever waits for. Only known methods and added models
    have series, so that callers cannot create new ones; the rest is counted as "unknown". Threads: ``add_model`` a
    loader's, ``read`` and ``remove_model`` the scrape's, ``count`` the recorder's.
    """

    def __init__(
        self, recorder: CallRecorder, methods: Collection[str], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._recorder = recorder
        self._wall_clock = wall_clock
        self._methods = frozenset(methods)
        self._models: set[tuple[str, str]] = set()
        self._series: dict[RequestLabels, Histogram] = {}
        self._lock = threading.Lock()
        # Series by key, of known labels only and therefore bounded. Keeps the status alive whose id() is in the key.
        self._known: dict[_CallKey, tuple[grpc.StatusCode, Histogram]] = {}
        recorder.add(self.count)

    def add_model(self, model: str, version: str) -> None:
        """Create series for the calls of this model version."""
        with self._lock:
            self._models.add((model, version))

    def remove_model(self, model: str, version: str) -> None:
        """Drop the series of this model version; calls that name it are counted as unknown from now on."""
        with self._lock:
            self._models.discard((model, version))
            self._series = {key: each for key, each in self._series.items() if key[:2] != (model, version)}
            self._known = {key: each for key, each in self._known.items() if key[:2] != (model, version)}

    def count(self, calls: Sequence[FinishedCall]) -> None:
        """Count finished calls; a traced one becomes the exemplar of its bucket.

        Calls that end together mostly share a series, so consecutive ones are added at once.
        """
        now = self._wall_clock()
        durations_s: list[float] = []
        series, last_key = Histogram(()), None
        with self._lock:
            for call in calls:
                key = (call.context.model, call.context.version, call.method, id(call.status))
                if key != last_key:
                    series.observe_all(durations_s)
                    series, last_key, durations_s = self._find(key, call.status), key, []
                duration_s = call.ended_at - call.started_at
                durations_s.append(duration_s)
                # Sampled calls only: the trace of an exemplar must exist.
                if call.annotations is not None and "trace_id" in call.annotations:
                    series.exemplify(Exemplar({"trace_id": call.annotations["trace_id"]}, duration_s, now))
            series.observe_all(durations_s)

    def read(self) -> dict[RequestLabels, Histogram]:
        """Return all series, including every call that has ended by now."""
        self._recorder.flush()
        with self._lock:
            return {labels: durations.copy() for labels, durations in self._series.items()}

    def answered(self, methods: Collection[str]) -> dict[tuple[str, str], tuple[int, ...]]:
        """Return how many calls of ``methods`` were answered with OK, by model version and bucket of their duration.

        Methods are named as in `RequestLabels`.
        """
        self._recorder.flush()
        found: dict[tuple[str, str], tuple[int, ...]] = {}
        with self._lock:
            for labels, durations in self._series.items():
                if labels.code == _OK and labels.method in methods:
                    counts, others = durations.counts(), found.get(labels[:2])
                    found[labels[:2]] = counts if others is None else tuple(map(add, counts, others))
        return found

    def _find(self, key: _CallKey, code: grpc.StatusCode) -> Histogram:
        known = self._known.get(key)
        if known is not None:
            return known[1]
        model, version, method, _ = key
        no_model = not model and not version
        served = (model, version) in self._models
        known_method = method in self._methods
        labels = RequestLabels(
            model=UNKNOWN if not (served or no_model) else model or "",
            version=(version or "") if served else "",
            method=method.removeprefix("/") if known_method else UNKNOWN,
            code=code.name,
        )
        series = self._series.setdefault(labels, Histogram(DURATION_BOUNDS_S))
        if (no_model or served) and known_method:
            self._known[key] = (code, series)
        return series
