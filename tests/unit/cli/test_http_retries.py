"""Retries of the command line over HTTP, with a clock of its own."""

import json

import pytest

from inferd.cli.rest.address import HttpAddress
from inferd.cli.rest.client import RestClient
from inferd.cli.rest.errors import RestError
from inferd.client import RetryPolicy
from tests.unit.cli.http_service import serving_http


@pytest.fixture
def http():
    """A fake server."""
    with serving_http() as service:
        yield service


def _failure(status, **content):
    return status, {"x-request-id": "abc"}, json.dumps(content).encode()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(http, clock):
    retry = RetryPolicy(max_attempts=4, initial_backoff_s=0.1, multiplier=2, max_backoff_s=0.3)
    with RestClient(HttpAddress(url=http.address), timeout_s=10, retry=retry, clock=clock, sleep=clock.sleep) as client:
        yield client


INDEX = (200, {}, b"[]")


def test_retries_wait_as_the_server_says(http, client, clock):
    """Its milliseconds, or else the seconds of Retry-After, that proxies have too."""
    http.answers = [_failure(429, error="full", retry_after_ms=250), (503, {"Retry-After": "2"}, b"busy"), INDEX]
    assert client.repository_index(ready=False) == []
    assert clock.slept_s == [0.25, 2.0]
    left_ms = [int(request.headers["x-request-timeout-ms"]) for request in http.requests]
    assert left_ms == [10_000, 9_750, 7_750]


def test_retries_back_off_without_a_hint(http, client, clock):
    """Each wait is about twice the last, up to the longest; then the error is the answer."""
    http.answers = [_failure(503, error="loading")]
    with pytest.raises(RestError, match="loading"):
        client.repository_index(ready=False)
    assert len(http.requests) == 4
    for slept_s, expected_s in zip(clock.slept_s, (0.1, 0.2, 0.3), strict=True):
        assert 0.8 * expected_s <= slept_s <= 1.2 * expected_s


@pytest.mark.parametrize(
    "answer",
    [
        _failure(503, error="models are not loaded by calls", reason="MODEL_CONTROL_DISABLED"),
        _failure(429, error="out of memory", reason="OUT_OF_MEMORY"),
        _failure(400, error="wrong"),
        _failure(500, error="failed"),
        _failure(429, error="full", retry_after_ms=10_000),
    ],
)
def test_does_not_retry_what_would_not_help(http, client, clock, answer):
    """Nor waits beyond the time limit."""
    http.answers = [answer]
    with pytest.raises(RestError):
        client.repository_index(ready=False)
    assert (len(http.requests), clock.slept_s) == (1, [])


def test_retries_without_a_connection(clock):
    """The server was not reached: it may be restarting."""
    client = RestClient(HttpAddress(url="http://127.0.0.1:1"), timeout_s=10, clock=clock, sleep=clock.sleep)
    with client, pytest.raises(RestError, match="no connection to"):
        client.repository_index(ready=False)
    assert len(clock.slept_s) == 4
