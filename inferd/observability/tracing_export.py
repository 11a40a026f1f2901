"""Sends spans to their receiver, in a thread of its own, so that no request waits for it."""

import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from inferd.observability.tracing_records import SpanQueue, SpanRecord
from inferd.observability.tracing_spans import SpanMaker

_log = logging.getLogger(__name__)

#: Statuses after which OTLP has the sender try again.
_TRY_AGAIN = frozenset((429, 502, 503, 504))

_RECORDS_PER_REQUEST = 512


class RefusedError(Exception):
    """The receiver does not want these spans, now or later."""


class OtlpHttpSender:
    """Posts requests of OTLP. Raises `RefusedError`, or `OSError` if it may be tried again."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float = 5.0) -> None:
        self._url = url
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._timeout_s = timeout_s

    def __call__(self, body: bytes) -> None:
        """Post ``body``; blocks until the receiver has answered."""
        request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310  (http or https, by the settings)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310  see above
                response.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _TRY_AGAIN:
                    raise RefusedError(f"HTTP {error.code}") from error
                raise OSError(f"HTTP {error.code}") from error
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error


class SpanExporter:
    """Makes spans of the records in ``queue`` every ``period_s``, and sends them.

    Spans that the receiver does not take are tried again each time for ``patience_s``. Meanwhile records wait in their
    queue, whose bound is the bound of it all.

    Threads: ``start`` and ``stop`` the main one.
    """

    def __init__(
        self,
        queue: SpanQueue,
        maker: SpanMaker,
        send: Callable[[bytes], None],
        *,
        period_s: float = 1.0,
        patience_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._maker = maker
        self._send = send
        self._period_s = period_s
        self._patience_s = patience_s
        self._clock = clock
        self._stopping = threading.Event()
        self._failing_since: float | None = None
        self._unsent: tuple[bytes, int] | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what there is, but wait no longer than the timeout for a receiver that does not take it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def export(self) -> bool:
        """Send what is due. Returns whether more may be sent at once. In the thread, or in a test instead of it."""
        if self._unsent is None:
            request = self._make(self._queue.take(_RECORDS_PER_REQUEST))
            if request is None:
                return False
            spans = sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans)
            self._unsent = (request.SerializeToString(), spans)
        return self._try_to_send(*self._unsent)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._export_all()
        # Twice, because batches come one time after their requests.
        self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self.export() and len(self._queue):
            pass

    def _make(self, records: Sequence[SpanRecord]) -> ExportTraceServiceRequest | None:
        try:
            return self._maker.make(records)
        except Exception:  # noqa: BLE001  the thread must go on, whatever is wrong with one record
            _log.exception("making spans failed")
            self._queue.lose(len(records))
            return None

    def _try_to_send(self, body: bytes, spans: int) -> bool:
        try:
            self._send(body)
        except RefusedError as error:
            self._unsent = None
            self._queue.lose(spans)
            self._failed(error)
            return True
        except OSError as error:
            self._failed(error)
            assert self._failing_since is not None
            if self._stopping.is_set() or self._clock() - self._failing_since >= self._patience_s:
                self._unsent = None
                self._queue.lose(spans)
            return False
        self._unsent = None
        if self._failing_since is not None:
            self._failing_since = None
            _log.info("spans are taken again")
        return True

    def _failed(self, error: Exception) -> None:
        """Say so once, not each time."""
        if self._failing_since is None:
            self._failing_since = self._clock()
            _log.warning("spans are not taken", extra={"reason": str(error)})
