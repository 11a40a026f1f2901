"""Memory of the models and its budget; which models were loaded and evicted, why, and how often they were missing."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Why a version may be loaded; label values of ``inferd_model_load_causes_total``.
LOAD_CAUSES = ("start", "change", "call", "demand")


@dataclass(slots=True)
class ResidencyCounts:
    """The loads of the versions of one model that have begun, by cause, and its evictions, by whether it was in use."""

    # All from the start, because `rate()` misses the first increase of a new series.
    loads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOAD_CAUSES, 0))
    evictions: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})

    def copy(self) -> "ResidencyCounts":
        """Return the same numbers, which do not change."""
        return ResidencyCounts(dict(self.loads), dict(self.evictions))


class ResidencyCounter:
    """Counts loads and evictions of each model, for as long as the process runs. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, ResidencyCounts] = {}

    def load_begins(self, model: str, cause: str) -> None:
        """Count a load of a version."""
        with self._lock:
            self._counts.setdefault(model, ResidencyCounts()).loads[cause] += 1

    def evicted(self, model: str, *, in_use: bool) -> None:
        """Count an eviction of a model."""
        with self._lock:
            self._counts.setdefault(model, ResidencyCounts()).evictions[in_use] += 1

    def read(self) -> Mapping[str, ResidencyCounts]:
        """Return the present numbers by model."""
        with self._lock:
            return {model: counts.copy() for model, counts in self._counts.items()}

    def of(self, model: str) -> ResidencyCounts:
        """Return the present numbers of one model."""
        with self._lock:
            counts = self._counts.get(model)
            return ResidencyCounts() if counts is None else counts.copy()


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySample:
    """Bytes of models of one ``kind``, "host" or "device": loaded, reserved for loads, and the budget, if any."""

    kind: str
    used: int
    reserved: int
    budget: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidencySample:
    """``waiting_loads`` wait for memory; ``cold_requests`` are those that have found their model not loaded."""

    memory: tuple[MemorySample, ...] = ()
    waiting_loads: int = 0
    counts: Mapping[str, ResidencyCounts] = field(default_factory=dict)
    cold_requests: Mapping[str, int] = field(default_factory=dict)


def residency_families(sample: ResidencySample) -> Iterator[Metric]:
    """Yield memory of the models, loads by cause, evictions and cold requests."""
    yield from _memory_families(sample.memory)
    yield GaugeMetricFamily("inferd_model_loads_waiting", "Loads that wait for memory", value=sample.waiting_loads)
    loads = CounterMetricFamily("inferd_model_load_causes", "Begun loads of versions", labels=("model", "cause"))
    evictions = CounterMetricFamily("inferd_model_evictions", "Evictions of models", labels=("model", "in_use"))
    for model, counts in sample.counts.items():
        for cause, number in counts.loads.items():
            loads.add_metric((model, cause), number)
        for in_use, number in counts.evictions.items():
            evictions.add_metric((model, str(in_use).lower()), number)
    yield loads
    yield evictions
    cold = CounterMetricFamily(
        "inferd_cold_requests", "Requests that have found their model not loaded", labels=("model",)
    )
    for model, number in sample.cold_requests.items():
        cold.add_metric((model,), number)
    yield cold


def _memory_families(memory: tuple[MemorySample, ...]) -> Iterator[Metric]:
    used = GaugeMetricFamily("inferd_models_memory_bytes", "Memory of all loaded models", labels=("kind",))
    reserved = GaugeMetricFamily("inferd_models_memory_reserved_bytes", "Reserved for loads", labels=("kind",))
    budget = GaugeMetricFamily("inferd_models_memory_budget_bytes", "Budget of all models", labels=("kind",))
    for each in memory:
        used.add_metric((each.kind,), each.used)
        reserved.add_metric((each.kind,), each.reserved)
        if each.budget is not None:
            budget.add_metric((each.kind,), each.budget)
    yield used
    yield reserved
    yield budget
