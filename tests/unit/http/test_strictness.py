"""Why requests are rejected that aiohttp's parser accepts."""

import pytest
from aiohttp import HttpVersion
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from inferd.http.strictness import Violation, violation_of


def _message(headers: dict[str, str], version: tuple[int, int], path: str) -> RawRequestMessage:
    given = CIMultiDictProxy(CIMultiDict(headers))
    chunked = "Transfer-Encoding" in headers
    return RawRequestMessage("POST", path, HttpVersion(*version), given, (), False, None, False, chunked, URL("/"))


@pytest.mark.parametrize(
    ("headers", "violation"),
    [
        ({}, None),
        ({"Host": "a/b"}, Violation(400, 'expected a host name or an address in the header Host, got "a/b"')),
        (
            {"Content-Length": "0" * 20},
            Violation(400, "expected at most 18 digits in the header Content-Length, got 20"),
        ),
        (
            {"Transfer-Encoding": "gzip, chunked"},
            Violation(501, 'expected no other Transfer-Encoding than chunked, got "gzip, chunked"'),
        ),
        (
            {"Expect": "x" * 99},
            Violation(417, f'expected nothing but 100-continue in the header Expect, got "{"x" * 80}…"'),
        ),
    ],
)
def test_headers(headers: dict[str, str], violation: Violation | None) -> None:
    """The text has what was expected and what came."""
    assert violation_of(_message(headers, (1, 1), "/"), 0, 1) == violation


@pytest.mark.parametrize(
    ("version", "path", "violation"),
    [
        ((1, 2), "/", Violation(505, "expected HTTP/1.1, got HTTP/1.2")),
        ((1, 1), "/ü\x1b", Violation(400, 'expected a path in percent-encoding, got "/ü\\x1b"')),
    ],
)
def test_request_lines(version: tuple[int, int], path: str, violation: Violation) -> None:
    """Versions and paths of other forms."""
    assert violation_of(_message({}, version, path), 0, 1) == violation
