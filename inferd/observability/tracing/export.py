"""Has spans made and sent in a thread of its own, so that no request waits for it. Needs the extra ``otel``."""

import logging
import threading
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import export as sdk

from inferd.observability.tracing.interceptor import SpanQueue
from inferd.observability.tracing.spans import SpanMaker

_log = logging.getLogger(__name__)

#: Where OpenTelemetry says what goes wrong with sending, each time.
_SDK_LOG = logging.getLogger("opentelemetry.exporter")


class SpanSender:
    """Makes spans of the records in ``queue`` every ``period_s``, and has ``exporter`` send ``max_export`` at a time.

    The exporter tries again what is not taken, for as long as it is set to; what it gives up is counted as lost.
    Meanwhile records wait in their queue, whose bound is the bound of it all.

    Threads: ``start`` and ``stop`` the main one.
    """

    def __init__(
        self,
        queue: SpanQueue,
        maker: SpanMaker,
        exporter: sdk.SpanExporter,
        *,
        period_s: float = 1.0,
        max_export: int = 512,
    ) -> None:
        self._queue = queue
        self._maker = maker
        self._exporter = exporter
        self._period_s = period_s
        self._max_export = max_export
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._troubles = _Troubles(self._failed)

    def start(self) -> None:
        """Start the thread. Until the end, that spans are not taken is said once, and not by OpenTelemetry."""
        _SDK_LOG.addHandler(self._troubles)
        _SDK_LOG.propagate = False
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what there is, but wait no longer than the timeout for a receiver that does not take it."""
        self._stopping.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()
        _SDK_LOG.removeHandler(self._troubles)
        _SDK_LOG.propagate = True

    def send(self) -> None:
        """Send what waits. In the thread, or in a test instead of it."""
        while True:
            records = self._queue.take(self._max_export)
            try:
                spans = self._maker.make(records)
            except Exception:  # noqa: BLE001  the thread must go on, whatever is wrong with one record
                _log.exception("making spans failed")
                self._queue.lose(len(records))
            else:
                self._export(spans)
            if not len(self._queue):
                return

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.send()
        # Twice, because batches come one time after their requests.
        self.send()
        self.send()

    def _export(self, spans: Sequence[ReadableSpan]) -> None:
        if not spans:
            return
        if self._exporter.export(spans) is not sdk.SpanExportResult.SUCCESS:
            self._queue.lose(len(spans))
        elif self._failing:
            self._failing = False
            _log.info("spans are taken again")

    def _failed(self, reason: str) -> None:
        """Say so once, not each time."""
        if not self._failing:
            self._failing = True
            _log.warning("spans are not taken", extra={"reason": reason})


class _Troubles(logging.Handler):
    """Takes what OpenTelemetry would write to the log."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on; of errors about values no more than their kind, because they quote headers."""
        if isinstance(record.args, tuple):
            record.args = tuple(type(arg).__name__ if isinstance(arg, ValueError) else arg for arg in record.args)
        self._tell(record.getMessage())
