"""Serves the requests of an HTTP server as calls, beside those of gRPC."""

import asyncio
import math
import time
from collections.abc import Callable

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from inferd.http.calls import HttpCall
from inferd.http.direct import DirectConnection
from inferd.http.direct_exchange import DirectExchange
from inferd.http.errors import BodyError
from inferd.http.exchange import BodyNotWantedError, Exchange
from inferd.http.hand_over import HandOver
from inferd.http.large_bodies import LargeBodyConnection
from inferd.http.messages import HttpMessage, Router
from inferd.http.refusals import DRAINING, GONE, Refusal, too_large, unreadable
from inferd.http.requests import head_of, head_of_message
from inferd.http.responses import ExchangeResponse
from inferd.http.streamed_response import StreamedResponse
from inferd.rpc import Server

#: Larger bodies are read only when the interceptors have accepted the call, so that unauthenticated callers cannot make
#: us hold them.
_SMALL_BODY_BYTES = 64 * 1024


class _TooLargeError(Exception):
    """A body that comes in chunks is larger than it may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class HttpCalls:
    """Makes a call of each request and hands it to the poll thread of ``server``; sends the answer.

    ``handle`` and ``serve_directly`` are for an `HttpServer`. Calls count among those of gRPC: for
    ``max_inflight_unary``, for the memory budget, and when the server stops, which waits for them within its grace
    period. See `CallSource`.

    The server does not stop before `end`, as connections that are open may bring more requests.

    Threads: ``handle`` and ``serve_directly`` the http thread; ``cancel_all`` and ``close`` the poll thread; ``end``
    any.
    """

    def __init__(self, server: Server, router: Router) -> None:
        self._router = router
        self._entrance = server.entrance
        self._poll_loop = server.poll_loop
        self._hand_over = HandOver(server.poll_loop, self._refuse_all)
        #: Those that wait for the poll thread or for their body; on the http thread.
        self._waiting: set[Exchange] = set()
        self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        server.add_source(self)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer ``request``."""
        connection = request.protocol
        assert isinstance(connection, LargeBodyConnection), "made by HttpServer"
        head = head_of(request, self._router, time.monotonic())
        exchange = Exchange(head, connection, self._hand_over, self._entrance)
        submit = self._hand_over.submit
        if head.deadline != math.inf:
            exchange.timer = asyncio.get_running_loop().call_at(head.deadline, submit, exchange.expire)
        self._waiting.add(exchange)
        has_begun = False
        try:
            if head.refusal is None and head.length is not None and head.length <= _SMALL_BODY_BYTES:
                await _read(exchange, connection, request)
            has_begun = True
            await self._reach(exchange, exchange.begin)
            if exchange.answer is None and exchange.stream is None:
                await _read(exchange, connection, request)
                if exchange.answer is None:
                    await self._reach(exchange, exchange.serve)
        except asyncio.CancelledError:
            if not has_begun:
                # The interceptors see it all the same.
                head.refusal = GONE
                submit(exchange.begin)
            submit(exchange.lose_caller)
            raise
        finally:
            self._waiting.discard(exchange)
            if exchange.stream is None:
                exchange.stop_timer()
        if exchange.answer is not None:
            return ExchangeResponse(exchange, exchange.answer, self._written)
        assert exchange.stream is not None, "the call ends by an answer once it is served"
        return StreamedResponse(exchange, exchange.stream, request, self._stream_ended, submit)

    def serve_directly(
        self, connection: DirectConnection, message: RawRequestMessage, content: StreamReader
    ) -> DirectExchange:
        """See `ServeDirectly`."""
        now = time.monotonic()
        known = connection.known_head
        if known is None:
            known = connection.known_head = head_of_message(message, connection.peername, self._router, now)
        head = known.again(now)
        exchange = DirectExchange(head, connection, self._hand_over, self._entrance, self._waiting.discard)
        if head.refusal is None:
            body = content.read_nowait() if head.length else b""
            exchange.message = HttpMessage(body, head.path, head.json_length, head.query)
        submit = self._hand_over.submit
        if head.deadline != math.inf:
            exchange.timer = asyncio.get_running_loop().call_at(head.deadline, submit, exchange.expire)
        self._waiting.add(exchange)
        submit(exchange.begin)
        return exchange

    def end(self) -> None:
        """Let the server stop when the calls that live have ended."""
        self._has_ended = True
        self._poll_loop.call_soon(_look_again)

    def cancel_all(self) -> None:
        """See `CallSource.cancel_all`."""
        self._has_ended = True
        for call in list(self._entrance.live.calls):
            if isinstance(call, HttpCall):
                call.stop()

    def close(self) -> bool:
        """See `CallSource.close`."""
        return self._has_ended and self._hand_over.close()

    def _reach(self, exchange: Exchange, step: Callable[[], None]) -> asyncio.Future[None]:
        """Let the poll thread do a ``step`` of ``exchange``; done when that has an answer, or wants its body."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        exchange.waiter = waiter = loop.create_future()
        self._hand_over.submit(step)
        return waiter

    def _written(self, exchange: Exchange) -> None:
        self._hand_over.submit_late(exchange.release)

    def _stream_ended(self, exchange: Exchange) -> None:
        """Let the call end; one whose answer is not complete has lost its caller."""
        exchange.stop_timer()
        self._hand_over.submit(exchange.lose_caller)

    def _refuse_all(self) -> None:
        """Answer all that wait for the poll thread, which has ended."""
        for exchange in list(self._waiting):
            exchange.answer_without_call(DRAINING)


def _look_again() -> None:
    """Let the poll loop find that it may end."""


async def _read(exchange: Exchange, connection: LargeBodyConnection, request: web.BaseRequest) -> None:
    """Read the body of ``request``, or set why it must be refused."""
    head = exchange.head
    assert head.operation is not None, "found"
    try:
        body: bytes | bytearray = b""
        if head.length != 0:
            exchange.reading = request.content
            if head.length is not None and head.length > _SMALL_BODY_BYTES:
                body = await connection.read_large(exchange.reading, head.length)
            else:
                body = await _body(exchange.reading, head.operation.max_body_bytes)
    except (BodyError, web.RequestPayloadError, BodyNotWantedError, _TooLargeError) as error:
        # The stream keeps it, and with its traceback what was read.
        error.with_traceback(None)
        head.refusal = _refusal_for(error)
    else:
        exchange.message = HttpMessage(body, head.path, head.json_length, head.query)
    finally:
        exchange.reading = None


def _refusal_for(error: Exception) -> Refusal | None:
    """Return the refusal of a request whose body cannot be read; None if its call has ended, and has an answer."""
    match error:
        case BodyError():
            return unreadable(error.status, str(error))
        case _TooLargeError():
            return too_large(error.limit, None)
        case BodyNotWantedError():
            return None
    return unreadable(400, "the body of the request is malformed")


async def _body(content: StreamReader, limit: int) -> bytes | bytearray:
    """Return a body; raise if it has more than ``limit`` bytes, which is known only as it comes in chunks."""
    if content.is_eof():
        whole = content.read_nowait()
        if len(whole) > limit:
            raise _TooLargeError(limit)
        return whole
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > limit:
            raise _TooLargeError(limit)
    return body
