"""A server that stops before all requests over HTTP are complete."""

import socket

from inferd import demo
from tests.patience import PATIENCE_S
from tests.server import serving

#: Bodies of the first size are read before their call begins, the others as part of it.
SIZES = (2_000, 200_000)


def test_answers_at_the_end_of_the_grace_period() -> None:
    """Who is still sending hears why the connection ends."""
    with serving(demo.repository(), "--set", "server.drain_grace_s=0") as server:
        assert server.rest is not None, "HTTP is on"
        host, _, port = server.rest.rpartition(":")
        connections = [socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in SIZES]
        for connection, size in zip(connections, SIZES, strict=True):
            head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n"
            connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"{")
        server.stop()
        for connection in connections:
            with connection:
                answer = _until_closed(connection)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nConnection: close\r\n" in answer


def _until_closed(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))
