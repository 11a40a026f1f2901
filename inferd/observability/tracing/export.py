"""Build and export spans in a background thread. Needs the extra ``otel``."""

import logging
import threading
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import export as sdk

from inferd.observability.tracing.interceptor import SpanQueue
from inferd.observability.tracing.spans import SpanBuilder

_log = logging.getLogger(__name__)

#: Where OpenTelemetry logs each failed export.
_SDK_LOG = logging.getLogger("opentelemetry.exporter")


class SpanSender:
    """Exports the records in ``queue`` every ``period_s``, at most ``max_export`` at a time.

    The exporter retries until its timeout. Spans that it gives up, or raises an error for, are counted as dropped.
    Meanwhile records wait in ``queue``, whose bound limits them all. Threads: ``start`` and ``stop`` the main one.
    """

    def __init__(
        self,
        queue: SpanQueue,
        builder: SpanBuilder,
        exporter: sdk.SpanExporter,
        *,
        period_s: float = 1.0,
        max_export: int = 512,
    ) -> None:
        self._queue = queue
        self._builder = builder
        self._exporter = exporter
        self._period_s = period_s
        self._max_export = max_export
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._errors = _ExportErrors(self._failed)

    def start(self) -> None:
        """Start the thread. Until `stop`, failures are logged once by this class, not each time by OpenTelemetry."""
        _SDK_LOG.addHandler(self._errors)
        _SDK_LOG.propagate = False
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Export queued records, waiting no longer than the timeout for the receiver."""
        self._stopping.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()
        _SDK_LOG.removeHandler(self._errors)
        _SDK_LOG.propagate = True

    def send(self) -> None:
        """Export queued records. Called by the thread, or by a test instead of it."""
        while True:
            records = self._queue.take(self._max_export)
            try:
                spans = self._builder.build(records)
            except Exception:  # noqa: BLE001  one bad record must not end the thread
                _log.exception("building spans failed")
                self._queue.drop(len(records))
            else:
                self._export(spans)
            if not len(self._queue):
                return

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.send()
        # Twice, because the span of a batch is built one time after those of its requests.
        self.send()
        self.send()

    def _export(self, spans: Sequence[ReadableSpan]) -> None:
        if not spans:
            return
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  a fault of the exporter must not end the thread
            # Not its text, which may quote headers.
            self._failed(type(error).__name__)
            result = sdk.SpanExportResult.FAILURE
        if result is not sdk.SpanExportResult.SUCCESS:
            self._queue.drop(len(spans))
        elif self._failing:
            self._failing = False
            _log.info("span export recovered")

    def _failed(self, reason: str) -> None:
        """Log the first failure."""
        if not self._failing:
            self._failing = True
            _log.warning("span export failed", extra={"reason": reason})


class _ExportErrors(logging.Handler):
    """Receives what OpenTelemetry logs about exports."""

    def __init__(self, on_error: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_error = on_error

    def emit(self, record: logging.LogRecord) -> None:
        """Report the message; of a ValueError only its type, because its text may quote headers."""
        if isinstance(record.args, tuple):
            record.args = tuple(type(arg).__name__ if isinstance(arg, ValueError) else arg for arg in record.args)
        self._on_error(record.getMessage())
