"""aiohttp's server, set up with the limits of connections, and the kinds of requests that it makes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from inferd.http.connections import READ_BYTES, Connection
from inferd.http.direct import DirectConnection, ServeDirectly
from inferd.http.open_connections import OpenConnections
from inferd.http.strictness import Violation, violation_of

#: Answers a request; cancelled when the client is gone. Exceptions are answered with 500, a `BodyError` with its own
#: status.
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = logging.getLogger(__name__)


class RejectedRequest(web.BaseRequest):
    """A request that must not reach the handler."""

    violation: Violation


class ExpectingRequest(web.BaseRequest):
    """A request with ``Expect: 100-continue``: its client sends the body when the handler begins to read it."""

    has_continued = False

    @property
    def content(self) -> StreamReader:
        """The body, which the client is asked to send."""
        if not self.has_continued:
            self.has_continued = True
            if self.transport is not None:
                self.transport.write(_CONTINUE)
        return super().content

    async def read(self) -> bytes:
        """Return the body, which the client is asked to send."""
        self.content  # noqa: B018  (asks the client)
        return await super().read()


class AiohttpServer(web.Server):
    """Makes a `Connection` of each accepted socket, and a request of each head."""

    def __init__(self, connections: OpenConnections, handler: Handler, direct: ServeDirectly | None = None) -> None:
        super().__init__(handler, request_factory=self._begin_request, handler_cancellation=True)
        self._open = connections
        self._make = Connection if direct is None else partial(DirectConnection, direct)
        self._in_loop = asyncio.get_running_loop()
        limits = connections.limits
        self._options = {
            # Also the time for the first request.
            "keepalive_timeout": limits.keep_alive_s or limits.header_timeout_s,
            "max_line_size": limits.max_line_bytes,
            "max_field_size": limits.max_head_bytes,
            "max_headers": limits.max_headers,
            "lingering_time": limits.linger_s,
            "read_bufsize": READ_BYTES // 2,
            "auto_decompress": False,
            "access_log": None,
            "logger": log,
        }

    def protocol(self, handshake: asyncio.Task[None] | None) -> Connection:
        """Return the protocol of a new connection; ``handshake`` is the task that makes it."""
        return self._make(self._open, self, self._in_loop, handshake, **self._options)

    def _begin_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Make a request; aiohttp calls this for each."""
        assert isinstance(protocol, Connection), "made here"
        violation = violation_of(message, protocol.head_bytes, self._open.limits.max_head_bytes)
        protocol.begin(payload)
        if violation is not None:
            rejected = RejectedRequest(message, payload, protocol, writer, task, self._in_loop)
            rejected.violation = violation
            return rejected
        make = ExpectingRequest if hdrs.EXPECT in message.headers else web.BaseRequest
        return make(message, payload, protocol, writer, task, self._in_loop)
