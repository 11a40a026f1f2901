"""Clients of the HTTP ports that take places and give nothing: probes, gRPC and memory do not notice."""

import gzip
import http.client
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import demo
from tests.patience import PATIENCE_S, eventually
from tests.raw_http import answers, until_closed
from tests.server import ServerProcess, serving

MIB = 2**20
#: On each port; `benchmarks` has the times with as many.
LORIS = 2000
BOMB = gzip.compress(bytes(20 * MIB))
INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with serving(demo.repository(), "--set", "server.http.max_connections=1000") as server:
        yield server


def connect(address: str | None) -> socket.socket:
    assert address is not None, "HTTP is on"
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=PATIENCE_S)


def get(address: str | None, path: str) -> tuple[int, bytes]:
    assert address is not None, "HTTP is on"
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_serving(server: ServerProcess) -> bool:
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    return health.status == health_pb2.HealthCheckResponse.SERVING


def test_slow_loris(server: ServerProcess) -> None:
    """Thousands of connections with a part of a request leave room for probes, health and other clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loris = min(LORIS, (hard - 200) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * loris + 200)), hard))
    before = server.resident_bytes()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for n in range(loris):
            for address in (server.rest, server.http):
                with suppress(ConnectionError):
                    slow = stack.enter_context(connect(address))
                    slow.sendall(b"GET /v2/health/live HTTP/1.1\r\nX-A: ")
            if n % (loris // 20) == 0:
                assert get(server.http, "/readyz") == (200, b"ok\n")
                assert get(server.rest, "/v2/health/ready")[0] == 200
                assert is_serving(server)
        assert server.resident_bytes() - before < 64 * MIB


@pytest.mark.parametrize(
    ("head", "piece", "status"),
    [
        (INFER + b"Content-Length: 99999999999\r\n\r\n", b"", 413),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + bytes(MIB) + b"\r\n", 413),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"a" * MIB, 400),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 100_000, 400),
        (INFER + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (200 * len(BOMB)), BOMB, 415),
    ],
    ids=["length", "chunks", "chunk extensions", "small chunks", "zip"],
)
def test_bombs(server: ServerProcess, head: bytes, piece: bytes, status: int) -> None:
    """Bodies without end get their status, and the memory stays as it is."""
    before = server.resident_bytes()
    with connect(server.rest) as connection:
        with suppress(ConnectionError):
            connection.sendall(head)
            for _ in range(200 if piece else 0):
                connection.sendall(piece)
        found = answers(until_closed(connection))
    # The answer may be lost with what the client still sent.
    assert [answer.status for answer in found] in ([status], [])
    eventually(lambda: server.resident_bytes() - before < 160 * MIB, "the memory is free")
    assert is_serving(server)


def test_answers_that_are_not_read(server: ServerProcess) -> None:
    """Clients that ask and never read take nothing that grows."""
    body = json.dumps({"inputs": []}).encode()
    request = INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body
    before = server.resident_bytes()
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(server.rest))
            connection.settimeout(0.2)
            with suppress(TimeoutError, ConnectionError):
                for _ in range(200):
                    connection.sendall(request * 100)
        assert get(server.http, "/livez")[0] == 200
        assert is_serving(server)
    assert server.resident_bytes() - before < 64 * MIB
