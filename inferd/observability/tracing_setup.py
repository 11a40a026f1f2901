"""Puts together what traces, if anything is to be traced."""

import logging
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import inferd
from inferd.config.tracing import TracingSettings
from inferd.config.yaml_text import YamlError, read_yaml
from inferd.observability.tracing import TracingInterceptor
from inferd.observability.tracing_records import SpanQueue
from inferd.small_files import read_text

if TYPE_CHECKING:
    from inferd.observability.tracing_export import SpanSender


class Tracing:
    """The tracing of one server, but for ``untraced`` methods; without an endpoint it has no interceptor.

    Threads: the main one.
    """

    def __init__(self, settings: TracingSettings, *, untraced: Collection[str] = ()) -> None:
        self._settings = settings
        self._queue = SpanQueue()
        self._sender: SpanSender | None = None
        #: What has to see every call.
        self.interceptors: tuple[TracingInterceptor, ...] = ()
        if settings.endpoint is not None:
            self.interceptors = (TracingInterceptor(settings.sampling_ratio, self._queue, untraced=untraced),)

    @property
    def dropped(self) -> int:
        """Spans that were lost; any thread."""
        return self._queue.dropped

    def start(self) -> None:
        """Begin to send spans.

        Raises RuntimeError if a package for it is not installed, and OSError or RuntimeError if the headers cannot be
        read.
        """
        if self._settings.endpoint is not None:
            self._sender = _sender(self._settings, self._queue)
            self._sender.start()

    def stop(self) -> None:
        """Send what is left, for two seconds at most."""
        if self._sender is not None:
            self._sender.stop()


def _sender(settings: TracingSettings, queue: SpanQueue) -> "SpanSender":
    try:
        # Only here, so that nothing of OpenTelemetry need be installed where nothing is traced.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

        from inferd.observability.tracing_export import SpanSender  # noqa: PLC0415
        from inferd.observability.tracing_spans import SpanMaker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"tracing.endpoint is set, but {error.name} is not installed: pip install 'inferd[otel]', or unset it"
        ) from error
    logging.getLogger("opentelemetry.util.re").addFilter(_without_header)
    # It warns of each tracestate that is none: a caller's mistake, and one that any caller can make all the time.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
    # What the environment says stands between what we know and what the settings say.
    resource = Resource.create(
        {
            "service.name": "inferd",
            "service.version": inferd.__version__,
            "service.instance.id": secrets.token_hex(8),
            "host.name": socket.gethostname(),
            "process.pid": str(os.getpid()),
            **OTELResourceDetector().detect().attributes,
            **({"service.name": settings.service_name} if settings.service_name else {}),
            **settings.resource,
        }
    )
    headers = _headers(settings.headers_file) if settings.headers_file else None
    exporter = OTLPSpanExporter(settings.endpoint, headers=headers)
    return SpanSender(queue, SpanMaker(resource, inferd.__version__), exporter)


def _without_header(record: logging.LogRecord) -> bool:
    """Keep a bad header of the environment, which may be a credential, out of what OpenTelemetry says of it."""
    record.msg, record.args = "OTEL_EXPORTER_OTLP_HEADERS has what is no header", ()
    return True


def _headers(file: Path) -> Mapping[str, str]:
    try:
        _, headers = read_yaml(read_text(file))
    except OSError as error:
        raise RuntimeError(f"tracing.headers_file: {file}: cannot be read: {error.strerror}") from None
    except (YamlError, UnicodeDecodeError):
        headers = None
    if not isinstance(headers, dict) or not all(_is_header_text(part) for pair in headers.items() for part in pair):
        # Nothing of what is in it: it holds credentials.
        raise RuntimeError(f"tracing.headers_file: expected lines of NAME: VALUE in {file}")
    return headers


def _is_header_text(part: object) -> bool:
    return isinstance(part, str) and part.isascii() and part.isprintable()
