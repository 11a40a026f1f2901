"""``/metrics``, ``/livez`` and ``/readyz`` over HTTP."""

import functools
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from aiohttp import web
from prometheus_client import CollectorRegistry

from inferd.http.connections import Connection
from inferd.http.limits import ConnectionLimits
from inferd.http.pace import Pace
from inferd.http.server import HttpServer
from inferd.observability.metrics.exposition import render, requested_format
from inferd.observability.scrapes import ScrapeCoalescer
from inferd.plain_text import escaped

#: So many that thousands of slow clients may wait: closing them for others costs more, as they come again.
MOST_CONNECTIONS = 2500

#: Share of a core for this thread under a flood of requests, and its burst,
#: within which ordinary scrapes and probes never wait.
_SHARE = 0.2
_BURST_S = 0.1
_LONGEST_WAIT_S = 0.5
#: Interval of reading requests that arrive in pieces.
_GATHER_S = 0.02
#: Used length of a query or of an Accept header. Real clients need a quarter of that;
#: parsing a header of the maximum size would take ten milliseconds.
_MAX_HEADER_CHARACTERS = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether the server is healthy, the reason if not, and details for ``?verbose``, a line each."""

    ok: bool
    reason: str = "ok"
    details: Iterable[str] = ()


def _alive() -> Health:
    return Health(ok=True)


def monitoring_server(
    *,
    host: str,
    port: int,
    registry: CollectorRegistry,
    readiness: Callable[[], Health],
    liveness: Callable[[], Health] = _alive,
    tls: Callable[[], ssl.SSLContext] | None = None,
    timeout_s: float = 5.0,
    max_connections: int = MOST_CONNECTIONS,
) -> HttpServer:
    """Return a server for metrics and probes; one request per connection, which has ``timeout_s`` for each part.

    ``readiness`` and ``liveness`` are called in the server's thread and must not block. If the contexts of ``tls``
    request client certificates, ``/metrics`` requires one. Probes need none, because Kubernetes' have none. Work is
    limited: connections are accepted, and metrics rendered, so that the thread stays within its share of a core.
    """
    limits = ConnectionLimits(
        max_connections=max_connections,
        keep_alive_s=timeout_s,
        header_timeout_s=timeout_s,
        body_timeout_s=timeout_s,
        stall_s=timeout_s,
        linger_s=min(timeout_s, 2.0),
        gather_s=_GATHER_S,
    )
    pace = functools.partial(Pace, _SHARE, burst_s=_BURST_S, longest_s=_LONGEST_WAIT_S)
    handler = Monitoring(registry, readiness, liveness)
    return HttpServer("monitoring", host, port, handler, tls=tls, limits=limits, pace=pace)


class Monitoring:
    """Answers requests for metrics and probes. In the thread of its server only."""

    def __init__(
        self, registry: CollectorRegistry, readiness: Callable[[], Health], liveness: Callable[[], Health]
    ) -> None:
        self._renderings = ScrapeCoalescer(functools.partial(render, registry), share=_SHARE)
        self._health = {"/readyz": readiness, "/livez": liveness}

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to ``request``."""
        try:
            response = await self._route(request)
        except Exception:
            log.exception("failed to answer %s", escaped(request.path))
            response = web.Response(status=500, text="failed, see the log\n")
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _route(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if path != "/metrics" and path not in self._health:
            return web.Response(status=404, text="try /metrics, /livez or /readyz\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        if path == "/metrics":
            return await self._metrics(request)
        health = self._health[path]()
        lines = [health.reason, *(health.details if _is_verbose(request) else ())]
        text = "".join(f"{escaped(line)}\n" for line in lines)
        return web.Response(status=200 if health.ok else 503, text=text)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        if not _is_trusted(request):
            return web.Response(status=403, text="expected a client certificate\n")
        form = requested_format(_header(request, "Accept"), _header(request, "Accept-Encoding"))
        body = await self._renderings.get(form)
        return web.Response(body=body, headers={"Content-Type": form.content_type, **dict(form.headers)})


def _header(request: web.BaseRequest, header: str) -> str:
    return ",".join(request.headers.getall(header, ()))[:_MAX_HEADER_CHARACTERS]


def _is_verbose(request: web.BaseRequest) -> bool:
    return "verbose" in parse_qs(request.query_string[:_MAX_HEADER_CHARACTERS], keep_blank_values=True)


def _is_trusted(request: web.BaseRequest) -> bool:
    """Whether the client has presented a valid certificate, or none is requested."""
    connection = request.protocol
    context = connection.ssl_context
    if context is None or context.verify_mode is ssl.CERT_NONE:
        return True
    return isinstance(connection, Connection) and connection.peer.has_certificate
