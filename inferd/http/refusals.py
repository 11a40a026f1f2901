"""Refusals of requests for their path, headers or body: the status that their call ends with."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from inferd.http.messages import ErrorForm, NotFound, own_form
from inferd.http.status import CALLER_GONE, Answer, json_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a request is not served; ``reason`` is a constant in UPPER_SNAKE_CASE, ``field`` the name of a header."""

    status: int
    code: grpc.StatusCode
    reason: str
    text: str
    field: str = ""
    headers: Sequence[tuple[str, str]] = ()

    def answer(self, form: ErrorForm = own_form) -> Answer:
        """Return the answer."""
        error: dict[str, object] = {"error": self.text, "reason": self.reason}
        if self.field:
            error["field"] = self.field
        return json_answer(self.status, form(self.status, error), self.headers)


def not_found(found: NotFound) -> Refusal:
    """Refuse a request for which there is no operation."""
    if found.allowed:
        allow = (("Allow", ", ".join(found.allowed)),)
        code = grpc.StatusCode.UNIMPLEMENTED
        return Refusal(status=405, code=code, reason="METHOD_NOT_ALLOWED", text=found.text, headers=allow)
    return Refusal(status=404, code=grpc.StatusCode.NOT_FOUND, reason="UNKNOWN_PATH", text=found.text)


def too_large(limit: int, size: int | None) -> Refusal:
    """Refuse a body; its ``size`` is not known if it comes in chunks."""
    text = f"expected a body of at most {limit} bytes, got {'more' if size is None else size}"
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(status=413, code=code, reason="MESSAGE_TOO_LARGE", text=text)


def unknown_encoding(encoding: str) -> Refusal:
    """Refuse a body in an encoding that is never accepted."""
    text = f'expected none, gzip or deflate as Content-Encoding, got "{encoding}"'
    return _encoding_refused(415, "UNKNOWN_ENCODING", text)


def compressed(encoding: str) -> Refusal:
    """Refuse a compressed body, because the server accepts none."""
    text = f'expected no Content-Encoding, got "{encoding}", which needs the setting server.compressed_requests'
    return _encoding_refused(415, "UNKNOWN_ENCODING", text)


def not_inflatable(expected: str) -> Refusal:
    """Refuse a body that is not compressed as it says, or inflates to more than it may."""
    return _encoding_refused(400, "COMPRESSED_MESSAGE", f"expected {expected}")


def _encoding_refused(status: int, reason: str, text: str) -> Refusal:
    code = grpc.StatusCode.INVALID_ARGUMENT
    return Refusal(status=status, code=code, reason=reason, text=text, field="Content-Encoding")


def invalid_header(field: str, text: str) -> Refusal:
    """Refuse a request for the value of a header."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    return Refusal(status=400, code=code, reason="INVALID_INPUT", text=text, field=field)


def unreadable(status: int, text: str) -> Refusal:
    """Refuse a request whose body could not be read to its end."""
    if status == DRAINING.status:
        return DRAINING
    code = grpc.StatusCode.DEADLINE_EXCEEDED if status == 408 else grpc.StatusCode.INVALID_ARGUMENT
    reason = "MESSAGE_TIMEOUT" if status == 408 else "INVALID_BODY"
    return Refusal(status=status, code=code, reason=reason, text=text)


#: The poll thread has ended, so nothing is served.
DRAINING = Refusal(status=503, code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING", text="the server is draining")

#: The caller was gone before its body was complete.
GONE = Refusal(
    status=CALLER_GONE,
    code=grpc.StatusCode.CANCELLED,
    reason="CANCELLED",
    text="the connection was lost before the request was complete",
)
