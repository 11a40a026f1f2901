"""What requests over HTTP held is free when they have ended, without a collection of garbage, which is rare."""

import gc
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from inferd.http.messages import HttpBody
from tests.http_calls import MIB, Running, running
from tests.patience import PATIENCE_S, eventually
from tests.raw_http import until_closed

HEAD = b"POST /held HTTP/1.1\r\nHost: a\r\n"
SIZE = 4 * MIB
LENGTH = HEAD + b"Content-Length: %d\r\n" % SIZE
BODY = bytes(SIZE)
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % SIZE + BODY + b"\r\n"

#: What is sent, by how the request ends.
ANSWERED = {
    "kept": LENGTH + b"\r\n" + BODY,
    "closed": LENGTH + b"Connection: close\r\n\r\n" + BODY,
    "in chunks": CHUNKS + b"0\r\n\r\n",
}
REFUSED = {
    "deadline": LENGTH + b"X-Request-Timeout-Ms: 50\r\nConnection: close\r\n\r\n" + BODY,
    "deadline in the body": LENGTH + b"X-Request-Timeout-Ms: 50\r\nConnection: close\r\n\r\n" + BODY[:-1],
    "malformed chunk": CHUNKS + b"no size\r\n",
    "large extensions": CHUNKS + b"1;%s\r\na\r\n" % (b"e" * 4000) * (2 * SIZE // 4000),
    "too large": CHUNKS + CHUNKS.partition(b"\r\n\r\n")[2] * 2 + b"0\r\n\r\n",
    "unknown encoding": LENGTH + b"Content-Encoding: br\r\nConnection: close\r\n\r\n" + BODY,
}
#: How the answers begin. What is malformed is refused when it is parsed, and not when the rest of it is late.
STATUSES = {
    "deadline": b"HTTP/1.1 504",
    "deadline in the body": b"HTTP/1.1 504",
    "malformed chunk": b"HTTP/1.1 400",
    "large extensions": b"HTTP/1.1 400",
    "too large": b"HTTP/1.1 413",
    "unknown encoding": b"HTTP/1.1 415",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def bounded(server: Running) -> Iterator[None]:
    """Fail if a test leaves as much as a body."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
        server.wait_idle()
        for calls in (server.calls, server.ends.ended):
            while not calls.empty():
                calls.get()
        eventually(lambda: tracemalloc.get_traced_memory()[0] < MIB, "the bodies are free")
    finally:
        tracemalloc.stop()
        gc.enable()


def send(server: Running, data: bytes) -> socket.socket:
    caller = socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S)
    with suppress(ConnectionError):
        # Refused before it was sent.
        caller.sendall(data)
    return caller


@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
def test_answered(server: Running, sent: bytes) -> None:
    with send(server, sent) as caller:
        call, _ = server.next()
        call.reply(HttpBody(b"{}"))
        assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server: Running, case: str) -> None:
    with send(server, REFUSED[case]) as caller:
        # The answer may be lost with what was still sent.
        assert until_closed(caller)[:12] in {STATUSES[case], b""}


@pytest.mark.parametrize("end", [SIZE, SIZE - 1])
def test_vanished(server: Running, end: int) -> None:
    with send(server, LENGTH + b"\r\n" + BODY[:end]):
        if end == SIZE:
            server.next()


def test_large_answer_that_is_not_read(server: Running) -> None:
    with send(server, LENGTH + b"\r\n" + BODY):
        call, _ = server.next()
        call.reply(HttpBody(bytes(4 * SIZE)))
