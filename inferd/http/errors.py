"""Answers to requests that are malformed, too slow, or not for this server."""

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader, InvalidURLError, LineTooLong

#: Makes the answer to a request that is refused or has failed, from its status and a text for the caller.
ErrorAnswer = Callable[[int, str], web.Response]


class BodyError(Exception):
    """Raised by reading a body that cannot be read. ``status`` and the text are for the caller."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def plain_error(status: int, text: str) -> web.Response:
    """Return an error as plain text."""
    return web.Response(status=status, text=f"{text}\n")


def status_and_text(error: BaseException | None, max_line_bytes: int) -> tuple[int, str] | None:
    """Return the status and the text for an error of the client; None for any other.

    The text quotes nothing of the request, which may hold credentials.
    """
    match error:
        case LineTooLong():
            status = 414 if error.args[1] == max_line_bytes else 431
            return status, "the first line of the request, or one of its headers, is too long"
        case InvalidHeader() | InvalidURLError():
            return 400, "a header or the address of the request is malformed"
        case HttpProcessingError():
            reason = error.message.partition("\n")[0].rstrip(":")
            return 431 if "Too many headers" in reason else 400, f"expected a request of HTTP/1.1, got: {reason}"
        case web.RequestPayloadError():
            return 400, "the body of the request is malformed"
        case BodyError():
            return error.status, str(error)
    return None


def last_answer_bytes(answer: web.Response, *, head_only: bool = False) -> bytes:
    """Encode an answer that ends its connection."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    added = {"Content-Length": str(len(body)), "Date": formatdate(usegmt=True), "Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in (*answer.headers.items(), *added.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body)


class LastResponse(web.Response):
    """An answer after which the connection is closed; ``send`` sends it."""

    def __init__(self, send: Callable[..., Awaitable[None]], answer: web.Response) -> None:
        super().__init__(body=answer.body, status=answer.status, headers=answer.headers)
        self._send = send
        self._head_only = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Remember if the request wants the head only."""
        self._head_only = request.method == hdrs.METH_HEAD

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002  (of the class)
        """Send the answer, and wait until the client has had time to read it."""
        await self._send(self, head_only=self._head_only)
