"""Close connections: at once, after a last answer that the client can still read, or because it does not read."""

import asyncio
import math
import random
from typing import Any

from aiohttp import ClientConnectionError, StreamReader, web

from inferd.http.errors import BodyError, last_answer_bytes
from inferd.http.limits import ConnectionLimits, Progress

#: Time to read the last answer over TLS.
_TLS_LINGER_S = 0.25

#: Part of the age by which connections vary, so that they do not end together.
_JITTER = 0.1


class ClosingConnection(web.RequestHandler):
    """aiohttp's connection, with an age, a bound on unread answers, and last answers that arrive.

    A client may lose an answer if the connection is closed while it still sends: the system then resets it. So a last
    answer *lingers*: what still comes is dropped until the client has closed its side, or for ``linger_s``.

    Only used in the thread of its loop.
    """

    __slots__ = (
        "_is_answered",
        "_limits",
        "_lingering",
        "_open_transport",
        "_writing",
        "began_at",
        "body",
        "ends_at",
        "handshake",
        "written_bytes",
    )

    def __init__(
        self,
        limits: ConnectionLimits,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        handshake: asyncio.Task[None] | None,
        **options: Any,  # noqa: ANN401  (those of aiohttp)
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.handshake = handshake
        self._limits = limits
        self._is_answered = False
        self._lingering: asyncio.Future[None] | None = None
        self._writing = Progress()
        #: Bytes of answers that are written in parts.
        self.written_bytes = 0
        #: The transport until the connection is lost; aiohttp forgets its own as soon as it starts to close.
        self._open_transport: asyncio.Transport | None = None
        #: Start of the idle time; if the connection is busy or part of a head has come, start of the request.
        self.began_at = loop.time()
        #: Body of the request that is served.
        self.body: StreamReader | None = None
        max_age_s = limits.max_age_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret
        #: When to close the connection, once it has no request.
        self.ends_at = self.began_at + max_age_s if max_age_s else math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._open_transport = self.transport

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request, if there is one."""
        super().connection_lost(exc)
        self._open_transport = None
        self._end_lingering()

    def eof_received(self) -> None:
        """Close the connection: a client that has shut down its side is gone."""
        self._end_lingering()

    async def drain(self) -> None:
        """Wait until the client has read most of what was written. Raises ConnectionError if it is gone."""
        try:
            await self._drain_helper()
        except ClientConnectionError as error:
            raise ConnectionResetError("the client is gone") from error

    @property
    def is_receiving(self) -> bool:
        """True while the body of a request is incomplete."""
        return self.body is not None and not self.body.is_eof()

    def check(self, now: float) -> None:
        """Close the connection if its client reads answers too slowly; called periodically."""
        limits, transport = self._limits, self._open_transport
        unsent = 0 if transport is None else transport.get_write_buffer_size()
        if not unsent:
            self._writing.reset()
        elif self._writing.is_stalled(self.written_bytes - unsent, now, limits.min_bytes_per_s, limits.stall_s):
            self.hang_up()

    def send_last(self, answer: web.Response, *, head_only: bool = False) -> asyncio.Future[None]:
        """Send ``answer`` and drop what the client still sends. The future is done when the connection may end.

        Written here, because aiohttp answers in the version of the request, which it may not have understood.
        """
        if self._lingering is not None:
            return self._lingering
        self._lingering = self._loop.create_future()
        transport = self.transport
        if transport is None or transport.is_closing():
            self._lingering.set_result(None)
            return self._lingering
        transport.write(last_answer_bytes(answer, head_only=head_only))
        linger_s = self._limits.linger_s
        if transport.can_write_eof():
            transport.write_eof()
        else:
            # TLS cannot close one direction only, so a client that waits for the end does not end by itself.
            linger_s = min(linger_s, _TLS_LINGER_S)
        timer = self._loop.call_later(linger_s, self._end_lingering)
        self._lingering.add_done_callback(lambda _: timer.cancel())
        return self._lingering

    def give_up_body(self) -> None:
        """Stop waiting for the rest of a body, as the server stops."""
        body = self.body
        if body is not None and not self._is_answered and not body.is_eof() and body.exception() is None:
            body.set_exception(BodyError(503, "the server stopped before the request was complete"))

    def hang_up(self) -> None:
        """Close the connection at once, whatever is in progress."""
        self.force_close()
        if self._open_transport is not None:
            self._open_transport.abort()

    def _end_lingering(self) -> None:
        if self._lingering is not None and not self._lingering.done():
            self._lingering.set_result(None)
