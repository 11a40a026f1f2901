"""Inference over HTTP: the server on ``server.http_port``, whose requests become calls beside those of gRPC."""

import ssl
from collections.abc import Callable, Iterable, Mapping

import orjson
from aiohttp import web

from inferd.addresses import is_loopback
from inferd.api.openai import routes as openai_routes
from inferd.api.openai.errors import openai_form
from inferd.api.rest.routes import ABSENT
from inferd.config.server import ServerSettings
from inferd.http.cors import CrossOrigin
from inferd.http.handling import HttpCalls
from inferd.http.limits import ConnectionLimits
from inferd.http.messages import Operation
from inferd.http.router import OperationRouter
from inferd.http.server import HttpServer
from inferd.rpc import Server


class HttpInference:
    """Serves ``operations``, each with the template of its path, on ``host``; ``authenticates``: to callers it knows.

    The main thread calls each method once, in the order of their definition; `start` before that of the gRPC server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        host: str,
        server: Server,
        operations: Iterable[tuple[str, Operation]],
        tls: Callable[[], ssl.SSLContext] | None,
        *,
        authenticates: bool,
    ) -> None:
        assert settings.http_port is not None, "HTTP is on"
        self._host = host
        absent = {**ABSENT, **openai_routes.ABSENT}
        self._calls = HttpCalls(server, OperationRouter(operations, absent, {openai_routes.PREFIX: openai_form}))
        is_private = is_loopback(host) and tls is None and not authenticates
        self._server = HttpServer(
            "inferd-http",
            host,
            settings.http_port,
            self._calls.handle,
            tls=tls,
            limits=connection_limits(settings),
            error=_json_error,
            cors=CrossOrigin(settings.http.cors_origins, is_private=is_private, error=_json_error),
            direct=self._calls.serve_directly,
            turns=server.entrance.turns,
        )

    def start(self) -> None:
        """Listen and serve, or raise `OSError` naming the address."""
        self._server.start()

    @property
    def address(self) -> str:
        """The address, with the actual port."""
        return f"{self._host}:{self._server.port}"

    def refused(self) -> Mapping[int, int]:
        """Return the numbers of requests that were refused before they were calls, by status. Any thread."""
        return self._server.refused

    def drain(self) -> None:
        """Accept no more connections, and close each after its answer."""
        self._server.drain()

    def wait_drained(self, timeout_s: float) -> None:
        """Wait for the last connection, at most for ``timeout_s``; requests that come after that are refused."""
        self._server.wait_drained(timeout_s)
        self._calls.end()

    def stop(self) -> None:
        """Close what is left, when the gRPC server has stopped."""
        self._server.stop()


def connection_limits(settings: ServerSettings) -> ConnectionLimits:
    """Return the limits that ``settings`` give connections."""
    return ConnectionLimits(
        max_connections=settings.http.max_connections,
        keep_alive_s=settings.http.keep_alive_s,
        max_age_s=settings.connections.max_age_s,
        header_timeout_s=settings.http.header_timeout_s,
        body_timeout_s=settings.message_timeout_s,
    )


def _json_error(status: int, text: str) -> web.Response:
    """Return the answer to what is not well-formed HTTP, or may not be served, in the form of all others."""
    return web.Response(status=status, body=orjson.dumps({"error": text}), content_type="application/json")
