"""Convert a gRPC status to an answer of HTTP: status, JSON and headers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

import grpc
import orjson
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from inferd.http.messages import ErrorForm, Parts, own_form

Code = grpc.StatusCode

#: nginx's status for clients that are gone; it only appears in logs.
CALLER_GONE = 499

#: Status of answers that are sent in parts.
STREAM_STATUS = 200

_STATUSES = {
    Code.OK: 200,
    Code.CANCELLED: CALLER_GONE,
    Code.INVALID_ARGUMENT: 400,
    Code.OUT_OF_RANGE: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

#: Reasons of the server's own rejections for which HTTP has a status of its own.
_STATUSES_BY_REASON = {"MESSAGE_TOO_LARGE": 413, "MESSAGE_TIMEOUT": 408}

#: Reasons of statuses that calls may end with without details, as when their deadline passes.
_REASONS = {Code.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED"}

#: Metadata that answers express in their body and in headers of HTTP instead.
_DETAILS = b"grpc-status-details-bin"
_NOT_COPIED = frozenset({_DETAILS, b"grpc-retry-pushback-ms"})

#: Encoded metadata, a key of the cache of errors.
Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without the headers that depend on the connection, the time or the request. ``head`` ends a line.

    ``rest`` follows ``body``, see `HttpBody`.
    """

    status: int
    head: bytes
    body: bytes
    rest: Parts = ()


def answer_of(status: int, body: bytes, headers: Sequence[tuple[str, str]], rest: Parts = ()) -> Answer:
    """Return an answer with ``body`` and ``rest``. Raises ValueError for headers that are not one line of Latin-1."""
    length = len(body) + sum(map(len, rest)) if rest else len(body)
    return Answer(status, _head(status, length, tuple(headers)), body, rest)


@lru_cache(maxsize=1024)
def error_answer(code: grpc.StatusCode, details: str, trailing: Pairs, form: ErrorForm = own_form) -> Answer:
    """Return the answer for a call that has ended with ``code``; cached, because refused calls end alike."""
    error = _described(details, dict(trailing).get(_DETAILS))
    if code in _REASONS:
        error.setdefault("reason", _REASONS[code])
    status = _STATUSES_BY_REASON.get(str(error.get("reason"))) or _STATUSES.get(code, 500)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in trailing if name not in _NOT_COPIED]
    retry_after_ms = error.get("retry_after_ms")
    if isinstance(retry_after_ms, int):
        headers.append(("Retry-After", str(math.ceil(retry_after_ms / 1000))))
        # OpenAI's clients look at it first.
        headers.append(("Retry-After-Ms", str(retry_after_ms)))
    return json_answer(status, form(status, error), headers)


def json_answer(status: int, error: dict[str, object], headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """Return an answer whose body is the JSON of ``error``."""
    return answer_of(status, orjson.dumps(error), (("Content-Type", "application/json"), *headers))


def _described(text: str, details: bytes | None) -> dict[str, object]:
    """Return the members of an error, from its text and details (`google.rpc.Status`)."""
    error: dict[str, object] = {"error": text}
    if details is None:
        return error
    info, retry, request = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in RpcStatus.FromString(details).details:
        if detail.Unpack(info):
            error["reason"] = info.reason
        elif detail.Unpack(request):
            error["field"] = request.field_violations[0].field
        elif detail.Unpack(retry):
            error["retry_after_ms"] = retry.retry_delay.ToMilliseconds()
    return error


def head_of_stream(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the head of an answer in parts, without its Transfer-Encoding. Raises as `answer_of`."""
    return _lines_of(f"HTTP/1.1 {STREAM_STATUS} OK", *map(": ".join, headers))


@lru_cache(maxsize=1024)
def _head(status: int, length: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    # The length of an answer that has none by its status would be taken for that of what is unchanged.
    lengths = () if status == HTTPStatus.NOT_MODIFIED else (f"Content-Length: {length}",)
    return _lines_of(f"HTTP/1.1 {status} {_phrase(status)}", *map(": ".join, headers), *lengths)


def _lines_of(*lines: str) -> bytes:
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("expected headers in one line")
    return "\r\n".join((*lines, "")).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
