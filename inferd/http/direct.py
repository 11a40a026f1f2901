"""Serve requests that arrive whole without aiohttp's coroutines, which cost more than inference.

aiohttp starts a task for each request, and wakes it and the connection's own task by futures. A small request needs
neither: all of it has been parsed, and its answer is written in one step.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from aiohttp import HttpVersion11, StreamReader, hdrs
from aiohttp.http import RawRequestMessage

from inferd.http.large_bodies import LargeBodyConnection
from inferd.http.messages import Parts
from inferd.http.requests import Head
from inferd.http.responses import send_parts
from inferd.http.strictness import violation_of


class InProgress(Protocol):
    """A request that is served directly."""

    def written(self) -> None:
        """End it, as its answer is written."""

    def lost(self) -> None:
        """Cancel it, as the client is gone."""


#: Starts to serve a request whose body is complete. Must not raise, nor answer before it returns.
ServeDirectly = Callable[["DirectConnection", RawRequestMessage, StreamReader], InProgress]


class DirectConnection(LargeBodyConnection):
    """A connection whose small requests are served directly, one at a time; the others by aiohttp.

    Meanwhile aiohttp's task for the connection stays asleep, as ``_aside`` keeps the future that it waits for.
    """

    __slots__ = ("_aside", "_current", "_sending", "_serve", "_simple", "known_head")

    def __init__(self, serve: ServeDirectly, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  (of the class)
        super().__init__(*arguments, **options)
        self._serve = serve
        self._current: InProgress | None = None
        #: The last simple head; most clients send the same again.
        self._simple: RawRequestMessage | None = None
        #: The parsed form of that head, if it has been parsed.
        self.known_head: Head | None = None
        self._sending: asyncio.Task[None] | None = None
        self._aside: asyncio.Future[None] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request that is served directly."""
        super().connection_lost(exc)
        current, self._current = self._current, None
        if current is not None:
            current.lost()

    def answer(self, data: bytes, rest: Parts = (), *, is_last: bool) -> None:
        """Write the answer to the request that is served directly; no effect if the client is gone."""
        transport = self.transport
        if self._current is None or transport is None:
            return
        transport.write(data)
        if rest:
            self._sending = self._loop.create_task(self._send(rest, is_last=is_last))
        else:
            self.end_request(is_last=is_last)

    async def _send(self, rest: Parts, *, is_last: bool) -> None:
        # `connection_lost` has cancelled the request of a client that is gone.
        with suppress(ConnectionError):
            await send_parts(self, rest)
            self.end_request(is_last=is_last)

    def end_request(self, *, is_last: bool) -> None:
        """End the request, whose answer is written; close the connection if that ``is_last``."""
        current, self._current = self._current, None
        if current is None:
            return
        current.written()
        waiter = self._waiter = self._aside
        self.log_access()
        if is_last or self._close:
            self.force_close()
            return
        # As aiohttp does it after its own answers.
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if self._messages and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _parse_head(self, data: bytes) -> None:
        """Parse ``data``, and serve the request that it completes directly if it is simple."""
        waiter, self._waiter = self._waiter, None
        super()._parse_head(data)
        self._waiter = waiter
        if waiter is None or waiter.done() or not self._messages:
            return
        if len(self._messages) == 1 and self._is_simple(*self._messages[0]):
            self._serve_message(waiter)
        else:
            waiter.set_result(None)

    def _is_simple(self, message: object, body: StreamReader) -> bool:
        """Return True if a request is complete and well-formed, and needs no other reply than its answer."""
        if type(message) is not RawRequestMessage or not body.is_eof() or body.exception() is not None:
            return False
        if self.writing_paused:
            # The client does not read: aiohttp waits for it.
            return False
        last = self._simple
        if (
            last is not None
            and message.raw_headers == last.raw_headers
            and message.path == last.path
            and message.method == last.method
            and message.version == last.version
        ):
            return True
        if not self._has_simple_head(message):
            return False
        self._simple, self.known_head = message, None
        return True

    def _has_simple_head(self, message: RawRequestMessage) -> bool:
        headers = message.headers
        if (
            message.method != hdrs.METH_POST
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or message.chunked
            or hdrs.EXPECT in headers
            or hdrs.UPGRADE in headers
            or hdrs.ORIGIN in headers
        ):
            return False
        return violation_of(message, self.head_bytes, self._limits.max_head_bytes) is None

    def _serve_message(self, waiter: asyncio.Future[None]) -> None:
        message, body = self._messages.popleft()
        assert isinstance(message, RawRequestMessage), "simple"
        assert self._parser is not None, "it has parsed the message"
        self._parser.message_consumed()
        self._aside, self._waiter = waiter, None
        self.begin(body)
        self._current = self._serve(self, message, body)
