"""Parsing requests and building responses."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.observability.http.messages import BadRequestError, Request, Response, parse_request


def test_parses_request() -> None:
    """Method, path and query; header names in any case; several Accept headers are one list."""
    head = (
        b"GET /readyz?verbose&x=1 HTTP/1.1\r\nHost: a\r\nACCEPT: text/plain\r\naccept: */*\r\nAccept-encoding: gzip\r\n"
    )
    request = parse_request(head)
    assert request == Request(
        method="GET", path="/readyz", query="verbose&x=1", accept="text/plain,*/*", accept_encoding="gzip"
    )
    assert (request.has_query("verbose"), request.has_query("x"), request.has_query("y")) == (True, True, False)


def test_absolute_target() -> None:
    """Proxies send the whole URL."""
    assert parse_request(b"HEAD http://host:8002/livez HTTP/1.0\r\n\r\n").path == "/livez"


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET http://[x HTTP/1.1\r\n\r\n",
    ],
)
def test_rejects_invalid_request(head: bytes) -> None:
    """TLS, HTTP/2 and malformed headers."""
    with pytest.raises(BadRequestError):
        parse_request(head)


@given(st.binary() | st.binary().map(lambda noise: b"GET /" + noise + b" HTTP/1.1\r\n" + noise + b"\r\n\r\n"))
def test_any_bytes_are_request_or_bad_request(head: bytes) -> None:
    """No other exception."""
    with contextlib.suppress(BadRequestError):
        assert parse_request(head).method.isupper()


def test_builds_response() -> None:
    """With length and type; the connection ends with it."""
    assert Response(503, "no\n").encode(head_only=False) == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\nno\n"
    )


def test_builds_response_to_head() -> None:
    """The same without the body, including its length."""
    response = Response(200, "body", headers=(("Allow", "GET"),))
    whole = response.encode(head_only=False)
    assert response.encode(head_only=True) == whole.removesuffix(b"body")


def test_accept_header_is_limited() -> None:
    """The first entries count; parsing all would delay calls."""
    head = f"GET /readyz?verbose{'&x' * 5000}&late HTTP/1.1\r\nAccept: text/plain{',' * 5000}\r\n"
    request = parse_request(head.encode())
    assert request.has_query("verbose")
    assert not request.has_query("late")
    assert request.accept == "text/plain".ljust(1024, ",")
