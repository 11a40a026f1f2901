"""Reject requests that aiohttp's parser accepts although other servers may read them differently. Pure."""

import re
from dataclasses import dataclass

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http import RawRequestMessage

from inferd.plain_text import quoted

#: A host name, an IPv4 address or an IPv6 address in brackets, with or without a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_VERSIONS = (HttpVersion11, HttpVersion10)
_CONTINUE = "100-continue"
#: The parser reads the largest 64-bit number as "no body", and Python refuses to read thousands of digits.
_MAX_LENGTH_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a request is rejected: its status, and a text for the caller. The connection is closed."""

    status: int
    text: str


def violation_of(message: RawRequestMessage, head_bytes: int, max_head_bytes: int) -> Violation | None:
    """Return why a request must be rejected, or None. ``head_bytes`` is an upper bound of the size of its head."""
    if message.version not in _VERSIONS:
        return Violation(505, f"expected HTTP/1.1, got HTTP/{message.version.major}.{message.version.minor}")
    if message.method == hdrs.METH_CONNECT:
        return Violation(501, "expected no CONNECT: this is not a proxy")
    if not message.path.isascii():
        return Violation(400, f"expected a path in percent-encoding, got {quoted(message.path)}")
    if head_bytes > max_head_bytes and _size_of(message) > max_head_bytes:
        return Violation(431, "the head of the request is too large")
    return _header_violation(message)


def _header_violation(message: RawRequestMessage) -> Violation | None:
    headers = message.headers
    host = headers.get(hdrs.HOST, "")
    if _HOST.fullmatch(host) is None:
        return Violation(400, f"expected a host name or an address in the header Host, got {quoted(host)}")
    digits = len(headers.get(hdrs.CONTENT_LENGTH, ""))
    if digits > _MAX_LENGTH_DIGITS:
        return Violation(
            400, f"expected at most {_MAX_LENGTH_DIGITS} digits in the header Content-Length, got {digits}"
        )
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None:
        if not message.chunked or message.version == HttpVersion10:
            return Violation(400, f"expected Transfer-Encoding to be chunked, in HTTP/1.1, got {quoted(coding)}")
        if coding.lower() != "chunked":
            return Violation(501, f"expected no other Transfer-Encoding than chunked, got {quoted(coding)}")
    expected = headers.get(hdrs.EXPECT)
    if expected is not None and expected.lower() != _CONTINUE:
        return Violation(417, f"expected nothing but {_CONTINUE} in the header Expect, got {quoted(expected)}")
    return None


def _size_of(message: RawRequestMessage) -> int:
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
