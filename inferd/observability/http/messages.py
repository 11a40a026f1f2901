"""The part of HTTP/1.1 that monitoring needs. Pure: bytes in, bytes out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) HTTP/1\.[01]")

#: Used length of a query or of an Accept header. Real clients need a quarter of that;
#: parsing a header of the maximum size would take ten milliseconds.
_LONGEST_WISH = 1024


class BadRequestError(Exception):
    """Bytes that are not an HTTP request; the text is for the caller."""


class HeadTooLargeError(Exception):
    """The headers are longer than any real request's; the text is for the caller."""

    def __init__(self) -> None:
        super().__init__("the request's head is too large")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The request line and headers of a request."""

    method: str
    path: str
    query: str = ""
    accept: str = ""
    accept_encoding: str = ""

    def has_query(self, name: str) -> bool:
        """Whether the query contains ``name``, with or without a value."""
        return name in parse_qs(self.query, keep_blank_values=True)


def parse_request(head: bytes) -> Request:
    """Parse the request line and headers, or raise `BadRequestError`."""
    first, *headers = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequestError("expected an HTTP/1.1 request line")
    wishes: dict[str, list[str]] = {"accept": [], "accept-encoding": []}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or name != name.strip():
            raise BadRequestError("expected every header as 'Name: value'")
        if name.lower() in wishes:
            wishes[name.lower()].append(value.strip())
    try:
        target = urlsplit(line[2])
    except ValueError:
        raise BadRequestError("expected a path") from None
    accept, accept_encoding = (",".join(values)[:_LONGEST_WISH] for values in wishes.values())
    return Request(
        method=line[1],
        path=target.path,
        query=target.query[:_LONGEST_WISH],
        accept=accept,
        accept_encoding=accept_encoding,
    )


@dataclass(frozen=True, slots=True)
class Response:
    """A response."""

    status: int
    body: str | bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()

    def encode(self, *, head_only: bool) -> bytes:
        """Return the response as bytes; to a HEAD request the same without its body."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        headers = (
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            *self.headers,
        )
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *(f"{k}: {v}" for k, v in headers)]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head if head_only else head + body
