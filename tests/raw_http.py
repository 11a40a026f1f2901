"""HTTP by hand over a socket, for tests: what a client sends byte by byte, and all that comes back."""

import socket
from dataclasses import dataclass, field

from tests.patience import PATIENCE_S


@dataclass(frozen=True)
class RawAnswer:
    """One answer of a server."""

    status: int
    headers: dict[str, str]
    body: bytes = field(default=b"")


def connect(port: int) -> socket.socket:
    """Return a connection to ``port`` on this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def until_closed(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        # Closed without reading all that was sent.
        pass
    return bytes(received)


def answers(received: bytes, *, to_head: bool = False) -> list[RawAnswer]:
    """Return the answers in ``received``, without interim ones; fail if that is not a sequence of whole answers."""
    found = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, f"expected a whole head, got {head!r}"
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, line
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        length = 0 if to_head or status == "100" else int(headers.get("content-length", 0))
        assert len(received) >= length, "expected a whole body"
        if status != "100":
            found.append(RawAnswer(int(status), headers, received[:length]))
        received = received[length:]
    return found


def read_answer(connection: socket.socket) -> RawAnswer:
    """Return the next answer, which has a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, f"the connection was closed after {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    (answer,) = answers(head + b"\r\n\r\n", to_head=True)
    while len(body) < int(answer.headers.get("content-length", 0)):
        piece = connection.recv(65536)
        assert piece, "the connection was closed in a body"
        body += piece
    return RawAnswer(answer.status, answer.headers, body)
