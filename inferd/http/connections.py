"""One connection of a client: aiohttp's HTTP/1.1 protocol, with the limits that it lacks."""

import asyncio
import math
import random
import ssl
from typing import Any, Protocol

from aiohttp import ClientConnectionError, StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from inferd.http.errors import BodyError, LastResponse, encoded, status_and_text
from inferd.http.limits import ConnectionLimits
from inferd.http.peer import Peer
from inferd.http.progress import Incoming, Progress
from inferd.http.tls_reads import limit_tls_reads

#: Bytes beyond the body that its encoding in chunks may take, in addition to once more the size of the body.
_MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024
#: What the system is asked for at a time, and what waits of a body until it is read: asyncio's 256 KiB would be a
#: gigabyte for all connections.
READ_BYTES = 64 * 1024
#: The same over TLS, where asyncio keeps that much for each connection.
_TLS_READ_BYTES = 32 * 1024
#: The same once the body is being read.
_BODY_READ_BYTES = 256 * 1024

#: Larger bodies that the handler has not read are not waited for, to use the connection again.
_MAX_SKIPPED_BYTES = 1024 * 1024

#: Time to read the last answer over TLS.
_TLS_LINGER_S = 0.25

#: Part of the age by which connections vary, so that they do not end together.
_JITTER = 0.1


class Registry(Protocol):
    """What connections tell the server that they belong to."""

    limits: ConnectionLimits
    is_draining: bool

    def refuse(self, status: int, text: str) -> web.Response:
        """Count what is refused before it is a request for the handler, and return the answer."""

    def opened(self, connection: "Connection") -> None:
        """Count a connection, which is idle."""

    def became_busy(self, connection: "Connection") -> None:
        """Take note of a request."""

    def became_idle(self, connection: "Connection") -> None:
        """Take note that the request has ended."""

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""


class Connection(web.RequestHandler):
    """One connection. In the thread of its loop only, but for the ``auth_context`` of its ``peer``.

    It is *idle* until the head of a request is complete, and *busy* until its answer is written and its body has been
    read. While a request is served, at most one read of what comes behind it is taken in.
    """

    __slots__ = (
        "_holds",
        "_incoming",
        "_is_answered",
        "_lingering",
        "_registry",
        "_wire",
        "_writing",
        "began_at",
        "body",
        "ends_at",
        "handshake",
        "peer",
        "written_bytes",
    )

    def __init__(
        self,
        registry: Registry,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        handshake: asyncio.Task[None] | None,
        **options: Any,  # noqa: ANN401  (those of aiohttp)
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.handshake = handshake
        self._registry = registry
        self.peer = Peer(None)
        self._incoming = Incoming()
        self._holds = False
        self._is_answered = False
        self._lingering: asyncio.Future[None] | None = None
        self._writing = Progress()
        #: Those of answers that are written bit by bit.
        self.written_bytes = 0
        #: The transport until the connection is lost; aiohttp forgets its own when it closes that, which may take time.
        self._wire: asyncio.Transport | None = None
        #: Since when it is idle or, if it is busy or part of a head has come, when that began.
        self.began_at = loop.time()
        #: That of the request that is served.
        self.body: StreamReader | None = None
        max_age_s = registry.limits.max_age_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret
        #: When it is to be closed, once it has no request.
        self.ends_at = self.began_at + max_age_s if max_age_s else math.inf

    # -- events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a connection, whose TLS handshake is complete."""
        encryption: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if encryption is not None:
            self.peer = Peer(encryption)
            limit_tls_reads(transport, _TLS_READ_BYTES)
            self.ends_at = min(self.ends_at, self._loop.time() + self.peer.valid_for_s)
            if self.peer.valid_for_s <= 0 and encryption.context.verify_mode is ssl.CERT_REQUIRED:
                transport.abort()  # type: ignore[attr-defined]  # of asyncio.Transport
        super().connection_made(transport)
        self._wire = self.transport
        self._read_at_once(READ_BYTES)
        self._registry.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request, if there is one."""
        super().connection_lost(exc)
        self._wire = None
        self._registry.closed(self)
        self._end_lingering()

    def eof_received(self) -> None:
        """Close the connection: a client that has shut down its side is gone."""
        self._end_lingering()

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent."""
        if self._lingering is not None:
            self._pause_for_more()
            return
        body = self.body
        if not data:
            # aiohttp parses what it still has, as there is room for it now.
            super().data_received(data)
            if body is not None:
                self._note_tiny_chunks(body)
                self._note_malformed(body)
        elif body is None:
            self._count_head(len(data))
            self._parse_head(data)
            if self._incoming.received > self._registry.limits.max_head_bytes:
                # Once aiohttp has taken a complete head, which was in these bytes.
                self._loop.call_soon(self._check_head)
        else:
            self._count_body(body, len(data))
            super().data_received(data)
            self._note_malformed(body)
        self._pause_for_more()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on, as a body has been read that was larger than what may wait."""
        self._read_at_once(_BODY_READ_BYTES)
        super().resume_reading(resume_parser)

    async def drain(self) -> None:
        """Wait until the client has read most of what was written. Raises ConnectionError if it is gone."""
        try:
            await self._drain_helper()
        except ClientConnectionError as error:
            raise ConnectionResetError("the client is gone") from error

    def _parse_head(self, data: bytes) -> None:
        super().data_received(data)

    def begin(self, body: StreamReader) -> None:
        """Take note that the head of a request is complete."""
        self.body = body
        self.began_at = self._loop.time()
        self._incoming.before, self._incoming.received = self._incoming.received, 0
        self._incoming.may_hold_part = True
        self._is_answered = False
        self._incoming.progress.reset()
        self._writing.reset()
        self._registry.became_busy(self)
        self._note_malformed(body)

    def log_access(self, *_: object) -> None:
        """Take note that the answer has been written; aiohttp calls this for each."""
        body = self.body
        if body is None:
            return
        if body.exception() is not None:
            # Otherwise aiohttp would wait for the rest, and log the error.
            body.feed_eof()
        self._is_answered = True
        body.on_eof(self._become_idle)

    @property
    def head_bytes(self) -> int:
        """What the head of this request has at most."""
        return self._incoming.before + self._incoming.received

    @property
    def is_ending(self) -> bool:
        """Whether it is to be closed after the next answer, whatever the request: in a drain, or for its age."""
        registry = self._registry
        return registry.is_draining or not registry.limits.keep_alive_s or self._loop.time() >= self.ends_at

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  (of the class, as the next but one)
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Return the answer to what cannot be parsed, or whose handler has failed; the connection is closed after it.

        Raises ConnectionError if a part of another answer has been sent.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has been sent")
        known = status_and_text(exc, self._registry.limits.max_line_bytes)
        if known is None:
            self.log_exception("failed to answer a request", exc_info=exc)
            known = 500, "failed, see the log"
        return self.closing_answer(*known)

    def closing_answer(self, status: int, text: str) -> web.Response:
        """Return an answer after which the connection is closed, once the client has had time to read it."""
        answer = LastResponse(self.send_last, self._registry.refuse(status, text))
        answer.force_close()
        return answer

    def must_close(self, request: web.BaseRequest) -> bool:
        """Whether the connection cannot be used after ``request``, because what follows may be taken for its body.

        The body that a client has not been told to send, and a large one that was not read, may follow or not. After
        requests for another protocol, and in chunked bodies, aiohttp's parser loses bytes, or adds to the next request.
        """
        headers, body = request.headers, self.body
        if hdrs.UPGRADE in headers or hdrs.TRANSFER_ENCODING in headers:
            return True
        if body is None or body.is_eof():
            return False
        if body.exception() is not None:
            return True
        return hdrs.EXPECT in headers or (request.content_length or 0) > _MAX_SKIPPED_BYTES

    # -- limits

    def check(self, now: float) -> None:
        """Enforce the limits of time; called every now and then."""
        limits, wire = self._registry.limits, self._wire
        unsent = 0 if wire is None else wire.get_write_buffer_size()
        if not unsent:
            self._writing.reset()
        elif self._writing.is_stalled(self.written_bytes - unsent, now, limits.min_bytes_per_s, limits.stall_s):
            self.hang_up()
            return
        if self.body is not None:
            self._check_body(self.body, now)
        elif now - self.began_at > limits.header_timeout_s and (self._incoming.received or self._holds_part()):
            self.close_with(408, "the head of the request did not arrive in time")

    def close_with(self, status: int, text: str) -> None:
        """Answer with an error although there is no complete request, and close the connection."""
        self.send_last(self._registry.refuse(status, text)).add_done_callback(lambda _: self.hang_up())

    def send_last(self, answer: web.Response, *, head_only: bool = False) -> asyncio.Future[None]:
        """Send ``answer``, and drop what the client still sends: to close at once could lose it. Done when it may end.

        Written here, because aiohttp answers in the version of the request, which it may not have understood.
        """
        if self._lingering is not None:
            return self._lingering
        self._lingering = self._loop.create_future()
        transport = self.transport
        if transport is None or transport.is_closing():
            self._lingering.set_result(None)
            return self._lingering
        transport.write(encoded(answer, head_only=head_only))
        linger_s = self._registry.limits.linger_s
        if transport.can_write_eof():
            transport.write_eof()
        else:
            # TLS cannot close one direction only, so a client that waits for the end does not end by itself.
            linger_s = min(linger_s, _TLS_LINGER_S)
        timer = self._loop.call_later(linger_s, self._end_lingering)
        self._lingering.add_done_callback(lambda _: timer.cancel())
        return self._lingering

    def give_up_body(self) -> None:
        """Wait no longer for the rest of a request, as the server stops."""
        body = self.body
        if body is not None and not self._is_answered and not body.is_eof() and body.exception() is None:
            body.set_exception(BodyError(503, "the server stopped before the request was complete"))

    def hang_up(self) -> None:
        """Close the connection at once, whatever is in progress."""
        self.force_close()
        if self._wire is not None:
            self._wire.abort()

    def _end_lingering(self) -> None:
        if self._lingering is not None and not self._lingering.done():
            self._lingering.set_result(None)

    def _check_body(self, body: StreamReader, now: float) -> None:
        limits, transport = self._registry.limits, self.transport
        if transport is None or self._is_answered or body.is_eof() or body.exception() is not None:
            return
        late = now - self.began_at > limits.body_timeout_s
        # A full buffer is not the client's fault.
        slow = transport.is_reading() and self._incoming.progress.is_stalled(
            self._incoming.received, now, limits.min_bytes_per_s, limits.stall_s
        )
        if late or slow:
            body.set_exception(BodyError(408, "the body of the request did not arrive in time"))

    def _read_at_once(self, size: int) -> None:
        if self.transport is not None:
            self.transport.max_size = size  # type: ignore[attr-defined]  # of asyncio's, which reads that much

    def _count_head(self, size: int) -> None:
        if not self._incoming.received:
            self.began_at = self._loop.time()
        self._incoming.received += size

    def _check_head(self) -> None:
        if self.body is None and self._incoming.received > self._registry.limits.max_head_bytes:
            self.close_with(431, "the head of the request is too large")

    def _holds_part(self) -> bool:
        """Whether part of a head came with the end of the last request.

        The parser tells only if that head is ended, after which it is of no use any more, and what it says is dropped.
        """
        if not self._incoming.may_hold_part or self._parser is None or self._messages:
            return False
        self._incoming.may_hold_part = False
        try:
            return bool(self._parser.feed_data(b"\r\n\r\n")[0])
        except HttpProcessingError:
            return True

    def _count_body(self, body: StreamReader, size: int) -> None:
        self._incoming.received += size
        if body.is_eof():
            # The client sends the next request before it has the answer.
            self._incoming.before += size
            self._hold()
            return
        self._incoming.before = size
        self._note_tiny_chunks(body)

    def _note_tiny_chunks(self, body: StreamReader) -> None:
        if self._incoming.received - 2 * body.total_bytes > _MAX_CHUNK_OVERHEAD_BYTES + _BODY_READ_BYTES:
            body.set_exception(BodyError(400, "the chunks of the body are too small, or their extensions too large"))

    def _note_malformed(self, body: StreamReader) -> None:
        """Fail reading a body whose chunks are malformed: aiohttp only queues an error, behind the request itself."""
        if self._messages and not body.is_eof() and body.exception() is None:
            body.set_exception(BodyError(400, "the body of the request is malformed"))

    def _hold(self) -> None:
        if not self._holds and self.transport is not None:
            self._holds = True
            self.transport.pause_reading()

    def _become_idle(self) -> None:
        self.body = None
        self._incoming.received = 0
        self.began_at = self._loop.time()
        self._read_at_once(READ_BYTES)
        self._registry.became_idle(self)
        if self._holds:
            # Unless the next request is there already.
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.body is None and self.transport is not None and self._holds:
            self._holds = False
            super().resume_reading(resume_parser=False)

    def _pause_for_more(self) -> None:
        """Read again a little later, because each read costs as much as a whole request."""
        gather_s, transport = self._registry.limits.gather_s, self.transport
        if gather_s and transport is not None and not transport.is_closing():
            self._holds = True
            transport.pause_reading()
            self._loop.call_later(gather_s, self._read_more)

    def _read_more(self) -> None:
        if self.transport is not None:
            self._holds = False
            super().resume_reading(resume_parser=False)
