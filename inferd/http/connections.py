"""One connection of a client: aiohttp's HTTP/1.1 protocol, with limits on what it receives."""

import asyncio
import ssl
from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from inferd.http.closing import ClosingConnection
from inferd.http.errors import BodyError, LastResponse, status_and_text
from inferd.http.limits import Incoming
from inferd.http.open_connections import OpenConnections
from inferd.http.tls import Peer, limit_tls_reads

#: Bytes beyond the body that its encoding in chunks may take, in addition to once more the size of the body.
_MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024
#: Bytes of one read, and of a body that waits to be read: asyncio's 256 KiB would be a gigabyte for all connections.
READ_BYTES = 64 * 1024
#: The same over TLS, where asyncio keeps that much for each connection.
_TLS_READ_BYTES = 32 * 1024
#: The same once the body is being read.
_BODY_READ_BYTES = 256 * 1024

#: Larger bodies that the handler has not read are not waited for, to use the connection again.
_MAX_SKIPPED_BYTES = 1024 * 1024


class Connection(ClosingConnection):
    """One connection. Only used in the thread of its loop, except the ``auth_context`` of its ``peer``.

    It is *idle* until the head of a request is complete, and *busy* until its answer is written and its body has been
    read. While a request is served, at most one read of the bytes behind it is accepted.
    """

    __slots__ = ("_connections", "_holds", "_incoming", "peer")

    def __init__(
        self,
        connections: OpenConnections,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        handshake: asyncio.Task[None] | None,
        **options: Any,  # noqa: ANN401  (those of aiohttp)
    ) -> None:
        super().__init__(connections.limits, server, loop, handshake, **options)
        self._connections = connections
        self.peer = Peer(None)
        self._incoming = Incoming()
        #: Reading is paused, not by aiohttp.
        self._holds = False

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
        self._read_at_once(READ_BYTES)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request, if there is one."""
        super().connection_lost(exc)
        self._connections.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent."""
        if self._lingering is not None:
            self._pause_for_more()
            return
        body = self.body
        if not data:
            # aiohttp parses what it has kept, as there is room for it now.
            super().data_received(data)
            if body is not None:
                self._fail_tiny_chunks(body)
                self._fail_malformed(body)
        elif body is None:
            self._count_head(len(data))
            self._parse_head(data)
            if self._incoming.received > self._limits.max_head_bytes:
                # Once aiohttp has taken a complete head, which was in these bytes.
                self._loop.call_soon(self._check_head)
        else:
            self._count_body(body, len(data))
            super().data_received(data)
            self._fail_malformed(body)
        self._pause_for_more()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, as the handler has read a body that filled its buffer."""
        self._read_at_once(_BODY_READ_BYTES)
        super().resume_reading(resume_parser)

    def _parse_head(self, data: bytes) -> None:
        super().data_received(data)

    def begin(self, body: StreamReader) -> None:
        """Start a request, whose head is complete."""
        self.body = body
        self.began_at = self._loop.time()
        self._incoming.before, self._incoming.received = self._incoming.received, 0
        self._incoming.may_hold_part = True
        self._is_answered = False
        self._incoming.progress.reset()
        self._writing.reset()
        self._connections.became_busy(self)
        self._fail_malformed(body)

    def log_access(self, *_: object) -> None:
        """End a request whose answer has been written; aiohttp calls this for each."""
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
        """An upper bound of the size of this request's head."""
        return self._incoming.before + self._incoming.received

    @property
    def is_ending(self) -> bool:
        """True if the next answer is the last one: in a drain, at the maximum age, or without keep-alive."""
        return self._connections.is_draining or not self._limits.keep_alive_s or self._loop.time() >= self.ends_at

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  (of the class, as the next but one)
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Return the answer to a request that cannot be parsed, or whose handler failed. The connection is closed.

        Raises ConnectionError if a part of another answer has been sent.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has been sent")
        known = status_and_text(exc, self._limits.max_line_bytes)
        if known is None:
            self.log_exception("failed to answer a request", exc_info=exc)
            known = 500, "failed, see the log"
        return self.closing_answer(*known)

    def closing_answer(self, status: int, text: str) -> web.Response:
        """Return an error after which the connection is closed, once the client has had time to read it."""
        answer = LastResponse(self.send_last, self._connections.refusal(status, text))
        answer.force_close()
        return answer

    def must_close(self, request: web.BaseRequest) -> bool:
        """Return True if the connection cannot be used after ``request``: what follows may be taken for its body.

        A body that the client was not asked to send, and a large one that was not read, may follow or not. After
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
        """Enforce the time limits on answers, heads and bodies; called periodically."""
        super().check(now)
        if self.transport is None or self._lingering is not None:
            return
        if self.body is not None:
            self._check_body(self.body, now)
        elif now - self.began_at > self._limits.header_timeout_s and (self._incoming.received or self._holds_part()):
            self.close_with(408, "the head of the request did not arrive in time")

    def close_with(self, status: int, text: str) -> None:
        """Answer an incomplete request with an error, and close the connection."""
        self.send_last(self._connections.refusal(status, text)).add_done_callback(lambda _: self.hang_up())

    def _check_body(self, body: StreamReader, now: float) -> None:
        limits, transport = self._limits, self.transport
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
        if self.body is None and self._incoming.received > self._limits.max_head_bytes:
            self.close_with(431, "the head of the request is too large")

    def _holds_part(self) -> bool:
        """Return True if part of a head came with the end of the last request.

        The parser reveals it only if that head is ended here. It is useless then, and the connection is closed.
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
        self._fail_tiny_chunks(body)

    def _fail_tiny_chunks(self, body: StreamReader) -> None:
        if self._incoming.received - 2 * body.total_bytes > _MAX_CHUNK_OVERHEAD_BYTES + _BODY_READ_BYTES:
            body.set_exception(BodyError(400, "the chunks of the body are too small, or their extensions too large"))

    def _fail_malformed(self, body: StreamReader) -> None:
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
        self._connections.became_idle(self)
        if self._holds:
            # Unless the next request is there already.
            self._loop.call_soon(self._resume_if_idle)

    def _resume_if_idle(self) -> None:
        if self.body is None and self.transport is not None and self._holds:
            self._holds = False
            super().resume_reading(resume_parser=False)

    def _pause_for_more(self) -> None:
        """Read again a little later, because each read costs as much as a whole request."""
        gather_s, transport = self._limits.gather_s, self.transport
        if gather_s and transport is not None and not transport.is_closing():
            self._holds = True
            transport.pause_reading()
            self._loop.call_later(gather_s, self._read_more)

    def _read_more(self) -> None:
        if self.transport is not None:
            self._holds = False
            super().resume_reading(resume_parser=False)
