"""Set up tracing, if the settings or the environment ask for it."""

import logging
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import inferd
from inferd.config.tracing import TracingSettings
from inferd.config.yaml_text import YamlError, read_yaml
from inferd.observability.tracing.interceptor import SpanQueue, TracingInterceptor
from inferd.observability.tracing.plan import TracingPlan, plan_tracing
from inferd.small_files import read_text

if TYPE_CHECKING:
    from inferd.observability.tracing.export import SpanSender


_log = logging.getLogger(__name__)

#: Installed by the extra ``otel`` only.
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


class Tracing:
    """Tracing of one server except its ``untraced`` methods; without an interceptor if tracing is off.

    Threads: the main one.
    """

    def __init__(self, settings: TracingSettings, *, untraced: Collection[str] = ()) -> None:
        self._settings = settings
        self._plan = plan = _available(plan_tracing(settings, os.environ))
        self._queue = SpanQueue(plan.max_queued)
        self._sender: SpanSender | None = None
        #: Interceptors that must see all calls.
        self.interceptors: tuple[TracingInterceptor, ...] = ()
        if plan.is_on:
            self.interceptors = (TracingInterceptor(plan.sampling, self._queue, untraced=untraced),)

    @property
    def dropped(self) -> int:
        """Number of dropped spans; any thread."""
        return self._queue.dropped

    def start(self) -> None:
        """Start exporting spans, and log which variables of the environment are ignored.

        Raises RuntimeError if a package for it is not installed, and OSError or RuntimeError if the headers cannot be
        read.
        """
        for warning in self._plan.warnings:
            _log.warning(warning)
        if self._plan.is_on:
            self._sender = _sender(self._settings, self._plan, self._queue)
            self._sender.start()

    def stop(self) -> None:
        """Export what is queued, for two seconds at most."""
        if self._sender is not None:
            self._sender.stop()


def _available(plan: TracingPlan) -> TracingPlan:
    """Return ``plan``, or one that is off if only the environment asks for tracing and the exporter is missing."""
    if not plan.is_on or plan.endpoint is not None or _is_installed(_EXPORTER):
        return plan
    missing = f"tracing is off although {plan.requested_by} is set: install OpenTelemetry, pip install 'inferd[otel]'"
    return replace(plan, is_on=False, warnings=(missing,))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _sender(settings: TracingSettings, plan: TracingPlan, queue: SpanQueue) -> "SpanSender":
    try:
        # Imported here, so that OpenTelemetry is needed for tracing only.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

        from inferd.observability.tracing.export import SpanSender  # noqa: PLC0415
        from inferd.observability.tracing.spans import SpanBuilder  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"tracing.endpoint is set, but {error.name} is not installed: pip install 'inferd[otel]', or unset it"
        ) from error
    logging.getLogger("opentelemetry.util.re").addFilter(_without_header)
    # It warns about each invalid tracestate, which callers could use to flood the log.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
    # Precedence: settings, then the environment, then our defaults.
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
    exporter = OTLPSpanExporter(plan.endpoint, headers=headers)
    builder = SpanBuilder(resource, inferd.__version__)
    return SpanSender(queue, builder, exporter, period_s=plan.period_s, max_export=plan.max_export)


def _without_header(record: logging.LogRecord) -> bool:
    """Keep an invalid header of the environment, which may be a credential, out of OpenTelemetry's message."""
    record.msg, record.args = "OTEL_EXPORTER_OTLP_HEADERS has an invalid header", ()
    return True


def _headers(file: Path) -> Mapping[str, str]:
    try:
        _, headers = read_yaml(read_text(file))
    except OSError as error:
        raise RuntimeError(f"tracing.headers_file: {file}: cannot be read: {error.strerror}") from None
    except (YamlError, UnicodeDecodeError):
        headers = None
    if not isinstance(headers, dict) or not all(_is_header_text(part) for pair in headers.items() for part in pair):
        # Does not quote the file: it holds credentials.
        raise RuntimeError(f"tracing.headers_file: expected lines of NAME: VALUE in {file}")
    return headers


def _is_header_text(part: object) -> bool:
    return isinstance(part, str) and part.isascii() and part.isprintable()
