"""Count loads and unloads of models, by outcome and duration."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from inferd.observability.metrics.histogram import Histogram

#: How a load may end; label values of ``inferd_model_loads_total``.
LOAD_OUTCOMES = ("ready", "failed", "cancelled")

#: The outcome of a load by the state that ends it.
_ENDS = {"ready": "ready", "failed": "failed", "unavailable": "cancelled"}

#: Bucket bounds of the durations of loads, which may include a download from a slow disk and a compilation for a GPU.
_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(slots=True)
class LoadCounts:
    """The loads of one model that have ended, by outcome; how long those took that became ready; unloaded versions."""

    # All outcomes from the start, because `rate()` misses the first increase of a new series.
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOAD_OUTCOMES, 0))
    duration_s: Histogram = field(default_factory=lambda: Histogram(_BOUNDS_S))
    unloads: int = 0


class ModelLoads:
    """Counts the loads of each model from the changes of its versions' states.

    Kept for as long as the process runs: there are a few series for each model, whatever its versions. Any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started_at: dict[Hashable, float] = {}
        self._counts: dict[str, LoadCounts] = {}

    def changed(self, load: Hashable, model: str, state: str) -> None:
        """Count a change of state: ``load``, one load of one version of ``model``, has entered ``state``.

        Threads that change a version one after the other may come in another order; then an end is seen twice.
        """
        with self._lock:
            counts = self._counts.setdefault(model, LoadCounts())
            if state == "loading":
                self._started_at[load] = self._clock()
            elif state in _ENDS:
                started_at = self._started_at.pop(load, None)
                if started_at is not None:
                    counts.outcomes[_ENDS[state]] += 1
                    if state == "ready":
                        counts.duration_s.observe_all([self._clock() - started_at])
                elif state == "unavailable":
                    counts.unloads += 1

    def read(self) -> Mapping[str, LoadCounts]:
        """Return the present numbers by model."""
        with self._lock:
            return {
                model: LoadCounts(dict(counts.outcomes), counts.duration_s.copy(), counts.unloads)
                for model, counts in self._counts.items()
            }
