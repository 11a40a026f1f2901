"""How RPCs ended and how long they took."""

import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from prometheus_client.samples import Exemplar

from inferd.observability.calls import Call, Status
from inferd.observability.histogram import DURATION_BOUNDS_S, Histogram

UNKNOWN = "unknown"

#: Model, version and method as a call has them, before it is decided what may become a label, and the status by its
#: identity: statuses are constants, and enumerations are slow to hash.
_Said = tuple[object, object, str, int]


class RequestLabels(NamedTuple):
    """The labels of the request metrics, in their order."""

    model: str
    version: str
    method: str
    code: str


class RequestMetrics:
    """Durations of finished RPCs by model, version, method and status; their number is the number of requests.

    Invariants: a series' numbers change under the one lock. There are only series for the methods given and for
    models that were announced, so that callers cannot make up new ones; the rest is counted as "unknown".
    Threads: ``add_model`` the loader, ``observe`` any that ends a call, ``read`` the scrape.
    """

    def __init__(self, methods: Collection[str], wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._methods = frozenset(methods)
        self._models: set[tuple[str, str]] = set()
        self._series: dict[RequestLabels, Histogram] = {}
        self._lock = threading.Lock()
        # From what calls say to their series, only for what is known and so bounded. Holds on to the status that the
        # identity is of.
        self._known: dict[_Said, tuple[Status, Histogram]] = {}

    def add_model(self, model: str, version: str) -> None:
        """Let calls be counted under this model version."""
        with self._lock:
            self._models.add((model, version))

    def observe(self, call: Call, code: Status, duration_s: float, *, trace_id: object = None) -> None:
        """Count one finished call, as an example of its bucket if it has a trace that can be looked at."""
        annotations = call.annotations
        said = (annotations.get("model"), annotations.get("version"), call.method, id(code))
        with self._lock:
            known = self._known.get(said)
            series = known[1] if known is not None else self._find(said, code)
            series.observe(duration_s)
            if trace_id is not None:
                series.exemplify(Exemplar({"trace_id": str(trace_id)}, duration_s, self._wall_clock()))

    def read(self) -> dict[RequestLabels, Histogram]:
        """Return all series, each as it is at one moment."""
        with self._lock:
            series = dict(self._series)
        copies = {}
        for labels, durations in series.items():
            # One by one, so that no call waits at its end until all have been copied.
            with self._lock:
                copies[labels] = durations.copy()
        return copies

    def _find(self, said: _Said, code: Status) -> Histogram:
        model, version, method, _ = said
        no_model = not model and not version
        served = (model, version) in self._models
        known_method = method in self._methods
        labels = RequestLabels(
            model=str(model) if served else "" if no_model else UNKNOWN,
            version=str(version) if served else "",
            method=method.removeprefix("/") if known_method else UNKNOWN,
            code=code.name,
        )
        series = self._series.setdefault(labels, Histogram(DURATION_BOUNDS_S))
        if (no_model or served) and known_method:
            self._known[said] = (code, series)
        return series


class MetricsInterceptor:
    """Tells `RequestMetrics` of each RPC that ends."""

    def __init__(self, requests: RequestMetrics) -> None:
        self._requests = requests

    def started(self, call: Call) -> None:
        """Let every call go on."""

    def finished(self, call: Call, code: Status, details: str) -> None:  # noqa: ARG002 (the interceptors' contract)
        """Count the call."""
        # Of calls that are sampled only: what is told as an example must be there when someone looks for it.
        self._requests.observe(call, code, call.ended_at - call.started_at, trace_id=call.annotations.get("trace_id"))
