"""Write the progress of a job to a file, for the textfile collector of Prometheus' node exporter."""

import logging
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.batch.errors import BatchError
from inferd.batch.progress import ProgressSnapshot

_log = logging.getLogger(__name__)

_GAUGES: tuple[tuple[str, str, Callable[[ProgressSnapshot], float | None]], ...] = (
    ("rows_done", "Rows of the inputs that are processed, of this process' share.", lambda seen: seen.rows),
    ("rows_planned", "Rows of the inputs, of this process' share.", lambda seen: seen.total_rows),
    ("error_rows", "Rows without an answer.", lambda seen: seen.errors),
    ("parts_done", "Parts that are written.", lambda seen: seen.parts),
    ("parts_planned", "Parts of this process' share.", lambda seen: seen.total_parts),
    ("rows_per_second", "Rows per second in the last half minute.", lambda seen: seen.rows_per_s),
    ("elapsed_seconds", "Time since the process began the job.", lambda seen: seen.elapsed_s),
    ("left_seconds", "Estimated time until the share is done.", lambda seen: seen.left_s),
)


class MetricsFile(Collector):
    """The metrics of one process of a job, in the file ``path``. Threads: one at a time."""

    def __init__(self, path: str, index: int, snapshot: Callable[[], ProgressSnapshot]) -> None:
        self._path = path
        self._index = str(index)
        self._snapshot = snapshot
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def write(self) -> None:
        """Replace the file in one step. Raises `BatchError`."""
        try:
            write_to_textfile(self._path, self._registry)
        except OSError as error:
            raise BatchError(f"--metrics-file {self._path}: {error.strerror or error}") from error

    def refresh(self) -> None:
        """Replace the file; log an error as a warning, as it must neither end the job nor hide another error."""
        try:
            self.write()
        except BatchError as error:
            _log.warning("%s", error)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as of now."""
        seen = self._snapshot()
        for name, text, value_of in _GAUGES:
            value = value_of(seen)
            if value is not None:
                family = GaugeMetricFamily(f"inferd_batch_{name}", text, labels=["index"])
                family.add_metric([self._index], value)
                yield family
        phase = GaugeMetricFamily(
            "inferd_batch_phase", "1 for the current phase of the process.", labels=["index", "phase"]
        )
        phase.add_metric([self._index, seen.phase], 1)
        yield phase
