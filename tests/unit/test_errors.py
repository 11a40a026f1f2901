"""Messages of errors."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api.status import StatusTable
from inferd.errors import InvalidInputError, OverloadedError, ServingError

#: Characters that gRPC does not encode in ``grpc-message``.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
#: Limit of proxies.
_MAX_BYTES = 2048


def _encoded_bytes(error: ServingError) -> int:
    """Return the size of the status as HTTP/2 counts: each header with its name and 32 bytes."""
    status = StatusTable().status_of(error)
    headers = {"grpc-status": "8", "grpc-message": quote(status.message, safe=_PLAIN)}
    for name, value in status.trailing_metadata():
        headers[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    headers["x-request-id"] = "x" * 128
    return sum(32 + len(name) + len(value) for name, value in headers.items())


@pytest.mark.parametrize("character", ["x", "%", "é", "東", "🙂", "\x00", "\u202e", "\U000e0001", "\ud800", '"'])
def test_status_fits_for_any_quoted_text(character: str) -> None:
    """Header, details and request id together; truncation is marked."""
    for length in (1, 79, 80, 81, 300, 599, 600, 601, 5_000):
        message = f'there is no model "{character * length}"'
        assert _encoded_bytes(OverloadedError(message, retry_after_s=1e6)) <= _MAX_BYTES
        assert _encoded_bytes(InvalidInputError(message, field=character * length)) <= _MAX_BYTES
    error = InvalidInputError(f"input {character * 10_000}")
    assert error.message.startswith("input ")
    assert error.message.endswith("…")
    assert str(error) == error.message


@given(st.text(max_size=2000))
def test_any_message_fits_and_is_printable(message: str) -> None:
    """For any mixture of characters; messages that fit are not truncated."""
    sent = InvalidInputError(message).message
    assert _encoded_bytes(OverloadedError(message, retry_after_s=1e6)) <= _MAX_BYTES
    assert _encoded_bytes(InvalidInputError(message, field=message)) <= _MAX_BYTES
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in sent)
    assert len(sent) >= min(len(message), 75)


def test_messages_that_fit_are_unchanged() -> None:
    """They are not escaped twice."""
    assert InvalidInputError("x" * 600).message == "x" * 600
    assert InvalidInputError("x" * 601).message == "x" * 594 + "…"
    assert InvalidInputError(r"a\x1b").message == r"a\x1b"
