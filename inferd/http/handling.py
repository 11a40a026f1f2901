"""Serve the requests of an HTTP server as calls, beside those of gRPC."""

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from inferd.http.calls import HttpCall, begin_call, on_deadline, on_disconnect, release_call, serve_call
from inferd.http.direct import DirectConnection
from inferd.http.direct_exchange import DirectExchange
from inferd.http.errors import BodyError
from inferd.http.exchange import BodyNotWantedError, Exchange
from inferd.http.hand_over import HandOver
from inferd.http.large_bodies import LargeBodyConnection
from inferd.http.messages import HttpMessage, Router
from inferd.http.refusals import DRAINING, GONE, Refusal, too_large, unreadable
from inferd.http.requests import head_of, head_of_message
from inferd.http.responses import ExchangeResponse, StreamedResponse
from inferd.rpc import Server

#: Larger bodies are read only when the interceptors have accepted the call, so that unauthenticated callers cannot make
#: us hold them.
_SMALL_BODY_BYTES = 64 * 1024


class _TooLargeError(Exception):
    """A body in chunks is larger than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class HttpCalls:
    """Makes a call of each request, hands it to the poll thread of ``server``, and sends the answer.

    ``handle`` and ``serve_directly`` are for an `HttpServer`. Calls count among those of gRPC: for
    ``max_inflight_unary``, for the memory budget, and when the server stops, which waits for them within its grace
    period. See `CallSource`.

    The server does not stop before `end`, as open connections may bring more requests.

    Threads: ``handle`` and ``serve_directly`` the http thread; ``cancel_all`` and ``close`` the poll thread; ``end``
    any.
    """

    def __init__(self, server: Server, router: Router) -> None:
        self._router = router
        self._entrance = server.entrance
        self._poll_loop = server.poll_loop
        self._hand_over = HandOver(server.poll_loop, server.entrance.turns, self._refuse_all)
        #: Requests that wait for the poll thread or for their body; on the http thread.
        self._waiting: set[Exchange] = set()
        self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        server.add_source(self)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer ``request``."""
        connection = request.protocol
        assert isinstance(connection, LargeBodyConnection), "made by HttpServer"
        head = head_of(request, self._router, time.monotonic())
        exchange = Exchange(head, connection, self._hand_over)
        submit = self._hand_over.submit
        if head.deadline != math.inf:
            exchange.timer = asyncio.get_running_loop().call_at(head.deadline, submit, partial(on_deadline, exchange))
        self._waiting.add(exchange)
        has_begun = False
        try:
            if head.refusal is None and head.length is not None and head.length <= _SMALL_BODY_BYTES:
                await _read(exchange, connection, request)
            has_begun = True
            await self._step(exchange, partial(begin_call, exchange, self._entrance))
            if exchange.answer is None and exchange.stream is None:
                await _read(exchange, connection, request)
                if exchange.answer is None:
                    await self._step(exchange, partial(serve_call, exchange))
        except asyncio.CancelledError:
            if not has_begun:
                # So that interceptors count and log it.
                head.refusal = GONE
                submit(partial(begin_call, exchange, self._entrance))
            submit(partial(on_disconnect, exchange))
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
        head = known.at(now)
        exchange = DirectExchange(head, connection, self._hand_over, self._waiting.discard)
        if head.refusal is None:
            body = content.read_nowait() if head.length else b""
            exchange.message = HttpMessage(body, head.path, head.json_length, head.query)
        submit = self._hand_over.submit
        if head.deadline != math.inf:
            exchange.timer = asyncio.get_running_loop().call_at(head.deadline, submit, partial(on_deadline, exchange))
        self._waiting.add(exchange)
        submit(partial(begin_call, exchange, self._entrance))
        return exchange

    def end(self) -> None:
        """Let the server stop when its calls have ended."""
        self._has_ended = True
        # One more step, after which the poll loop checks if it may end.
        self._poll_loop.call_soon(lambda: None)

    def cancel_all(self) -> None:
        """See `CallSource.cancel_all`."""
        self._has_ended = True
        for call in list(self._entrance.live.calls):
            if isinstance(call, HttpCall):
                call.stop()

    def close(self) -> bool:
        """See `CallSource.close`."""
        return self._has_ended and self._hand_over.close()

    def _step(self, exchange: Exchange, step: Callable[[], None]) -> asyncio.Future[None]:
        """Submit ``step`` to the poll thread; done when ``exchange`` has an answer or needs its body."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        exchange.waiter = waiter = loop.create_future()
        self._hand_over.submit(step)
        return waiter

    def _written(self, exchange: Exchange) -> None:
        self._hand_over.submit_late(partial(release_call, exchange))

    def _stream_ended(self, exchange: Exchange) -> None:
        """Release the call; it is cancelled if its answer is incomplete."""
        exchange.stop_timer()
        self._hand_over.submit(partial(on_disconnect, exchange))

    def _refuse_all(self) -> None:
        """Refuse the requests that wait for the poll thread, which has ended."""
        for exchange in list(self._waiting):
            exchange.answer_without_call(DRAINING)


async def _read(exchange: Exchange, connection: LargeBodyConnection, request: web.BaseRequest) -> None:
    """Read the body of ``request``, or set the refusal of its head."""
    head = exchange.head
    assert head.operation is not None, "found"
    try:
        body: bytes | bytearray = b""
        if head.length != 0:
            exchange.reading = request.content
            if head.length is not None and head.length > _SMALL_BODY_BYTES:
                body = await connection.read_large(exchange.reading, head.length)
            else:
                body = await _read_chunks(exchange.reading, head.operation.max_body_bytes)
    except (BodyError, web.RequestPayloadError, BodyNotWantedError, _TooLargeError) as error:
        # The stream keeps the error, whose traceback would keep what was read.
        error.with_traceback(None)
        head.refusal = _refusal_for(error)
    else:
        exchange.message = HttpMessage(body, head.path, head.json_length, head.query)
    finally:
        exchange.reading = None


def _refusal_for(error: Exception) -> Refusal | None:
    """Return the refusal of a request whose body cannot be read; None if its call has ended with an answer."""
    match error:
        case BodyError():
            return unreadable(error.status, str(error))
        case _TooLargeError():
            return too_large(error.limit, None)
        case BodyNotWantedError():
            return None
    return unreadable(400, "the body of the request is malformed")


async def _read_chunks(content: StreamReader, limit: int) -> bytes | bytearray:
    """Return a small body or one in chunks. Raises `_TooLargeError` above ``limit`` bytes."""
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
