"""The answers of HTTP to calls that end with a status of gRPC."""

import grpc
import orjson
import pytest

from inferd.api.status import StatusTable
from inferd.errors import InvalidInputError, OverloadedError, RunTooLongError
from inferd.http.status import answer_of, error_answer


def test_error_says_what_is_known() -> None:
    """The field, the reason and the retry hint, in whole seconds rounded up in the header."""
    error = OverloadedError("full", retry_after_s=1.2)
    status = StatusTable().status_of(error)
    answer = error_answer(status.code, status.message, status.trailers())
    assert answer.status == 429
    assert orjson.loads(answer.body) == {"error": "full", "reason": "QUEUE_FULL", "retry_after_ms": 1200}
    assert b"Retry-After: 2\r\nRetry-After-Ms: 1200\r\n" in answer.head
    assert b"grpc" not in answer.head
    assert error_answer(status.code, status.message, status.trailers()) is answer, "refusals are encoded once"


def test_field() -> None:
    """The path to what is wrong."""
    error = InvalidInputError("wrong")
    error.field = "inputs[0].shape"
    status = StatusTable().status_of(error)
    answer = error_answer(status.code, status.message, status.trailers())
    assert answer.status == 400
    assert orjson.loads(answer.body)["field"] == "inputs[0].shape"


def test_deadlines_have_a_reason() -> None:
    """That of the error, or else the status, as calls end without an error when their deadline passes."""
    known = StatusTable().status_of(RunTooLongError("long"))
    reasons = [
        orjson.loads(error_answer(grpc.StatusCode.DEADLINE_EXCEEDED, "late", trailers).body)["reason"]
        for trailers in ((), known.trailers())
    ]
    assert reasons == ["DEADLINE_EXCEEDED", "RUN_TOO_LONG"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("UNAVAILABLE", 503), ("DEADLINE_EXCEEDED", 504), ("NOT_FOUND", 404), ("INTERNAL", 500), ("CANCELLED", 499)],
)
def test_codes(code: str, status: int) -> None:
    """As of the table."""
    assert error_answer(grpc.StatusCode[code], "text", ()).status == status


def test_headers_are_one_line_each() -> None:
    """A header cannot begin another one."""
    with pytest.raises(ValueError, match="one line"):
        answer_of(200, b"", (("X-A", "1\r\nX-B: 2"),))


def test_form_of_errors() -> None:
    """That of the operation; the headers are the same."""
    status = StatusTable().status_of(OverloadedError("full", retry_after_s=1.0))
    answer = error_answer(status.code, status.message, status.trailers(), lambda status, error: {"is": status, **error})
    assert orjson.loads(answer.body) == {"is": 429, "error": "full", "reason": "QUEUE_FULL", "retry_after_ms": 1000}
    assert b"Retry-After: 1\r\n" in answer.head


def test_unchanged_answers_have_no_length() -> None:
    """It would be that of the whole, and theirs is 0."""
    assert b"Content-Length" not in answer_of(304, b"", (("ETag", '"a"'),)).head
    assert b"Content-Length: 0\r\n" in answer_of(200, b"", ()).head
