"""Requests that aiohttp's parser accepts, and that a server must not: others on the way might read them differently."""

import re
from dataclasses import dataclass

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http import RawRequestMessage

#: A host name, an IPv4 address or an IPv6 address in brackets, with or without a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
#: What must not follow a request on its connection, or may be read in two ways.
_CONTINUE = "100-continue"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status of a request that is not served, and a text for the caller. Its connection is closed."""

    status: int
    text: str


def refusal_of(message: RawRequestMessage, head_bytes: int, max_head_bytes: int) -> Refusal | None:
    """Return why a request must be refused; None if it is fine. ``head_bytes`` is what its head has at most."""
    version = message.version
    if version != HttpVersion11 and version != HttpVersion10:
        return Refusal(505, "expected HTTP/1.1")
    if message.method == hdrs.METH_CONNECT:
        return Refusal(501, "expected no CONNECT: this is not a proxy")
    if not message.path.isascii():
        return Refusal(400, "expected a path in percent-encoding")
    headers = message.headers
    if _HOST.fullmatch(headers.get(hdrs.HOST, "")) is None:
        return Refusal(400, "expected a host name or an address in the header Host")
    if head_bytes > max_head_bytes and _size_of(message) > max_head_bytes:
        return Refusal(431, "the head of the request is too large")
    if message.chunked:
        coding = headers.get(hdrs.TRANSFER_ENCODING, "")
        if coding.lower() != "chunked":
            return Refusal(501, "expected no other Transfer-Encoding than chunked")
        if version == HttpVersion10:
            return Refusal(400, "expected no Transfer-Encoding in HTTP/1.0")
    if hdrs.EXPECT in headers and headers[hdrs.EXPECT].lower() != _CONTINUE:
        return Refusal(417, f"expected nothing but {_CONTINUE} in the header Expect")
    return None


def _size_of(message: RawRequestMessage) -> int:
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
