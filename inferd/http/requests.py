"""Read the head of a request: find its operation, and refuse it if it is invalid."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDictProxy

from inferd.http.messages import JSON_LENGTH_HEADER, ErrorForm, NotFound, Operation, Router, own_form
from inferd.http.refusals import Refusal, invalid_header, not_found, too_large, unknown_encoding
from inferd.plain_text import clipped, escaped
from inferd.rpc.core import Metadata
from inferd.rpc.corks import written_peer
from inferd.rpc.inflating import WINDOWS

#: The time that the caller waits for the answer, in milliseconds.
TIMEOUT_HEADER = "x-request-timeout-ms"

_MAX_TIMEOUT_MS = 24 * 3600 * 1000
#: No length has more digits; more would take long to read.
_MAX_DIGITS = 18
_MAX_LENGTH = 10**_MAX_DIGITS - 1
#: Fields of a query string.
_MAX_QUERY_FIELDS = 64

#: Method of requests without an operation, in metrics and logs.
_UNKNOWN = "unknown"
_NOTHING: Mapping[str, str] = MappingProxyType({})
#: Scheme and host before the path, which clients of proxies send.
_ORIGIN = re.compile(r"\Ahttps?://[^/?#]*(?=/)", re.IGNORECASE)


class _InvalidHeaderError(Exception):
    """A header has an invalid value."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(name, f'header {name}: expected {expected}, got "{_quoted(got)}"')
        self.refusal = invalid_header(*self.args)


@dataclass(slots=True, eq=False)
class Head:
    """The parsed head of a request; ``length`` in bytes is None for a body in chunks.

    ``refusal`` is set if the request must not be served. ``operation`` is None only then. Times are those of calls, see
    `interfaces.Call`.
    """

    method: str
    operation: Operation | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    metadata: Metadata
    raw_peer: bytes
    started_at: float
    deadline: float = math.inf
    length: int | None = 0
    json_length: int | None = None
    #: How the body is compressed, one of the server's algorithms; empty if it is not.
    encoding: str = ""
    refusal: Refusal | None = None
    error_form: ErrorForm = own_form

    def at(self, now: float) -> "Head":
        """Return the head of an equal request that came at ``now``."""
        return Head(
            self.method,
            self.operation,
            self.path,
            self.query,
            self.metadata,
            self.raw_peer,
            now,
            self.deadline - self.started_at + now,
            self.length,
            self.json_length,
            self.encoding,
            self.refusal,
            self.error_form,
        )


def head_of(request: web.BaseRequest, router: Router, now: float) -> Head:
    """Read the head of ``request``, which came at ``now``."""
    return _head(request.method, request.raw_path, request.headers, request.protocol.peername, router, now)


def head_of_message(message: RawRequestMessage, peername: object, router: Router, now: float) -> Head:
    """Read the head ``message``, which came at ``now``."""
    return _head(message.method, message.path, message.headers, peername, router, now)


def _head(
    verb: str, raw_path: str, headers: CIMultiDictProxy[str], peername: object, router: Router, now: float
) -> Head:
    path, _, query = _ORIGIN.sub("", raw_path, count=1).partition("?")
    found = router.find(verb, path)
    # Bytes above 127 stay as aiohttp decodes them: inferd reads no such header.
    metadata = tuple((name.lower(), value) for name, value in headers.items())
    raw_peer = _peer(peername)
    if isinstance(found, NotFound):
        refusal = not_found(found)
        form = found.error_form
        return Head(_UNKNOWN, None, _NOTHING, _NOTHING, metadata, raw_peer, now, refusal=refusal, error_form=form)
    operation = found.operation
    head = Head(operation.method, operation, found.path, _NOTHING, metadata, raw_peer, now)
    head.error_form = operation.error_form
    try:
        if query:
            head.query = _fields(query)
        _read_headers(head, headers)
    except _InvalidHeaderError as error:
        head.refusal = error.refusal
        return head
    length = head.length
    if length is not None and length > operation.max_body_bytes:
        head.refusal = too_large(operation.max_body_bytes, length)
    return head


def _fields(query: str) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        raise _InvalidHeaderError("?", f"at most {_MAX_QUERY_FIELDS} fields after the question mark", query) from None


def _read_headers(head: Head, headers: CIMultiDictProxy[str]) -> None:
    if hdrs.TRANSFER_ENCODING in headers:
        head.length = None
    else:
        head.length = int(headers.get(hdrs.CONTENT_LENGTH, "0"))
    if TIMEOUT_HEADER in headers:
        timeout_ms = _integer(headers, TIMEOUT_HEADER, 1, _MAX_TIMEOUT_MS)
        head.deadline = head.started_at + timeout_ms / 1000
    if JSON_LENGTH_HEADER in headers:
        head.json_length = _integer(headers, JSON_LENGTH_HEADER, 0, _MAX_LENGTH)
    encoding = ", ".join(headers.getall(hdrs.CONTENT_ENCODING, ("identity",)))
    if encoding.lower() in WINDOWS:
        head.encoding = encoding.lower()
    elif encoding.lower() != "identity":
        head.refusal = unknown_encoding(_quoted(encoding))


def _integer(headers: CIMultiDictProxy[str], name: str, least: int, most: int) -> int:
    """Return the integer of a header. Raises `_InvalidHeaderError` unless it is one from ``least`` to ``most``."""
    values = headers.getall(name)
    text = values[0]
    expected = f"an integer from {least} to {most}"
    if len(values) > 1:
        raise _InvalidHeaderError(name, f"{expected}, once", ", ".join(values))
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise _InvalidHeaderError(name, expected, text)
    value = int(text)
    if not least <= value <= most:
        raise _InvalidHeaderError(name, expected, text)
    return value


def _quoted(text: str) -> str:
    """Quote the value of a header, which may be no text, for an answer."""
    return escaped(clipped(text))


@lru_cache(maxsize=1024)
def _peer(address: object) -> bytes:
    """Return an address as gRPC's core writes it; cached, as a connection has many requests."""
    if not isinstance(address, tuple) or len(address) < 2:
        return b"unix:"
    return written_peer(str(address[0]), int(address[1]))
