"""How RPCs ended and how long they took."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from prometheus_client.samples import Exemplar

from inferd.observability.calls import Status
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, Histogram
from inferd.observability.recorder import CallRecorder, EndedCall

UNKNOWN = "unknown"

#: Model, version and method as a call has them, before it is decided what may become a label, and the status by its
#: identity: statuses are constants, and enumerations are slow to hash.
_Said = tuple[str | None, str | None, str, int]


class RequestLabels(NamedTuple):
    """The labels of the request metrics, in their order."""

    model: str
    version: str
    method: str
    code: str


class RequestMetrics:
    """Durations of finished RPCs by model, version, method and status; their number is the number of requests.

    Invariants: the series change under the one lock, which no call ever waits for. There are only series for the
    methods given and for models that were announced, so that callers cannot make up new ones; the rest is counted as
    "unknown". Threads: ``add_model`` the loader, ``read`` the scrape, and ``count`` the recorder's.
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
        # From what calls say to their series, only for what is known and so bounded. Holds on to the status that the
        # identity is of.
        self._known: dict[_Said, tuple[Status, Histogram]] = {}
        recorder.add(self.count)

    def add_model(self, model: str, version: str) -> None:
        """Let calls be counted under this model version."""
        with self._lock:
            self._models.add((model, version))

    def count(self, calls: Sequence[EndedCall]) -> None:
        """Count finished calls; one with a trace that can be looked at is the example of its bucket.

        Those that end together are mostly alike, so they are counted in runs of the same series.
        """
        now = self._wall_clock()
        durations_s: list[float] = []
        series, last_said = Histogram(()), None
        with self._lock:
            for ended_at, started_at, method, _, code, _, facts, annotations in calls:
                said = (facts.model, facts.version, method, id(code))
                if said != last_said:
                    series.observe_all(durations_s)
                    series, last_said, durations_s = self._find(said, code), said, []
                durations_s.append(ended_at - started_at)
                # Of calls that are sampled only: what is told as an example must be there when someone looks for it.
                if annotations is not None and "trace_id" in annotations:
                    series.exemplify(Exemplar({"trace_id": annotations["trace_id"]}, ended_at - started_at, now))
            series.observe_all(durations_s)

    def read(self) -> dict[RequestLabels, Histogram]:
        """Return all series, with every call that has ended by now."""
        self._recorder.flush()
        with self._lock:
            return {labels: durations.copy() for labels, durations in self._series.items()}

    def _find(self, said: _Said, code: Status) -> Histogram:
        known = self._known.get(said)
        if known is not None:
            return known[1]
        model, version, method, _ = said
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
            self._known[said] = (code, series)
        return series
