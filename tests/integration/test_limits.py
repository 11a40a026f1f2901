"""Limits of connections, tested through real sockets with misbehaving clients."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Self

import grpc
import pytest

from inferd.config.server import ServerSettings
from inferd.rpc import upkeep
from inferd.rpc.call_ends import TOO_OLD
from inferd.rpc.channel_options import channel_options
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, Running
from tests.patience import eventually

_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY = 0, 1, 4, 6, 7
_ACK = 1
_END_HEADERS = 4
_ENHANCE_YOUR_CALM = 11


class RawConnection:
    """An HTTP/2 client that sends only what it is told to."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def open(self) -> None:
        """Send the preface and settings, and wait for the server's."""
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(_SETTINGS)
        self.wait_for(_SETTINGS)

    def send(self, kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        self._socket.sendall(struct.pack(">IBBI", len(payload), kind, flags, stream)[1:] + payload)

    def call(self, method: str) -> None:
        """Start a call on stream 1, without a message."""
        headers = {":method": "POST", ":scheme": "http", ":path": f"/{SERVICE}/{method}", ":authority": "x"}
        headers |= {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(
            bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in headers.items()
        )
        self.send(_HEADERS, block, _END_HEADERS, stream=1)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield kind and payload of each frame until the server closes the connection."""
        while len(head := self._read(9)) == 9:
            yield head[3], self._read(int.from_bytes(head[:3]))

    def wait_for(self, kind: int) -> bytes:
        for found, payload in self.frames():
            if found == kind:
                return payload
        raise AssertionError(f"the server closed the connection without a frame {kind}")

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except ConnectionResetError:
            return b""


@pytest.fixture
def limited() -> Iterator[Any]:
    """Start servers with their own limits."""
    started: list[Running] = []

    def start(max_metadata_bytes: int = 16384, **connections: float) -> Running:
        settings = ServerSettings.model_validate(
            {"max_metadata_bytes": max_metadata_bytes, "connections": connections, "max_message_bytes": 4096}
        )
        started.append(Running(options=channel_options(settings)).start())
        return started[-1]

    yield start
    for running in started:
        running.close()


def test_message_size(limited):
    """A message above the limit is rejected by its size alone, and the next one is served."""
    running = limited()
    assert running.fail("CallbackUnaryUnary", b"x" * 5000).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.call("CallbackUnaryUnary", b"x" * 4000) == b"x" * 4000


class Hurrying:
    """Expects small messages soon, as from unauthenticated callers."""

    def started(self, call: Any) -> None:
        call.expect_small_message()

    def finished(self, call: Any, code: grpc.StatusCode, details: str) -> None:
        pass


@pytest.mark.parametrize("method", ["CallbackUnaryUnary", "BlockingUnaryStream"])
def test_incomplete_message_of_unauthenticated_caller(monkeypatch, method):
    """It is discarded, and complete messages are served."""
    monkeypatch.setattr(upkeep, "SMALL_MESSAGE_S", 0.3)
    with closing(Running(interceptors=[Hurrying()]).start()) as running, RawConnection(running.port) as connection:
        connection.open()
        connection.call(method)
        connection.send(_DATA, b"\0" + struct.pack(">I", 100_000) + bytes(1000), stream=1)
        connection.wait_for(_HEADERS)
        assert running.recorder.next_code() is grpc.StatusCode.DEADLINE_EXCEEDED
        monkeypatch.undo()
        assert running.call("CallbackUnaryUnary") == b"hello"


def test_metadata_size(limited):
    """Metadata above the limit is always rejected, unlike the random choice of gRPC's default."""
    running = limited(max_metadata_bytes=4096)
    for _ in range(5):
        error = running.fail("CallbackUnaryUnary", metadata=(("large", "x" * 4096),))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert running.call("CallbackUnaryUnary", metadata=(("large", "x" * 3000),)) == b"hello"


def test_number_of_connections(limited):
    """One above the limit is closed; when another closes, there is room again."""
    running = limited(max_open=2)
    with RawConnection(running.port) as first:
        first.open()
        with RawConnection(running.port) as second:
            second.open()
            with RawConnection(running.port) as third:
                assert list(third.frames()) == []
        eventually(lambda: _answers(running.port), "there is room again")


def _answers(port: int) -> bool:
    with RawConnection(port) as connection:
        try:
            connection.open()
        except (AssertionError, OSError):
            return False
        return True


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_incomplete_handshake(limited, sent):
    """Connections that send nothing, or no SETTINGS, are closed and delay no other."""
    running = limited(handshake_timeout_s=1.0)
    assert running.call("CallbackUnaryUnary") == b"hello"
    with socket.create_connection(("127.0.0.1", running.port), timeout=TIMEOUT_S) as silent:
        silent.sendall(sent)
        assert running.call("CallbackUnaryUnary") == b"hello"
        while silent.recv(4096):
            pass


def test_too_many_pings(limited):
    """The second ping above the limit ends the connection, with a reason for operators."""
    running = limited(max_ping_strikes=1, min_ping_interval_s=TIMEOUT_S)
    with RawConnection(running.port) as connection:
        connection.open()
        for _ in range(4):
            connection.send(_PING, bytes(8))
        goaway = connection.wait_for(_GOAWAY)
    assert (int.from_bytes(goaway[4:8]), goaway[8:]) == (_ENHANCE_YOUR_CALM, b"too_many_pings")


@pytest.mark.parametrize("with_call", [True, False])
def test_pings_within_interval(limited, with_call):
    """They are answered, however many, on a connection with a silent call and on one without calls."""
    running = limited(max_ping_strikes=1, min_ping_interval_s=0.05)
    with RawConnection(running.port) as connection:
        connection.open()
        if with_call:
            connection.call("CallbackStreamStream")
        for number in range(6):
            connection.send(_PING, bytes([number] * 8))
            # The server has read the ping before it answers, so the next one is not earlier than that.
            assert connection.wait_for(_PING) == bytes([number] * 8)
            time.sleep(0.06)


def test_pings_of_common_clients_are_allowed():
    """Triton's and others ping every 10 s, also without calls; after a delayed one, the interval may be 5 s."""
    options = dict(channel_options(ServerSettings()))
    assert options["grpc.http2.min_ping_interval_without_data_ms"] <= 5_000
    assert options["grpc.keepalive_permit_without_calls"] == 1


def test_idle_connection_is_closed(limited):
    """After the limit."""
    running = limited(max_idle_s=0.3)
    with RawConnection(running.port) as connection:
        connection.open()
        assert connection.wait_for(_GOAWAY)[8:] == b"connection idle"


def test_dead_client_is_detected(limited):
    """An idle client is pinged; the system reports if nobody receives it."""
    running = limited(keepalive_s=1)
    with RawConnection(running.port) as connection:
        connection.open()
        connection.wait_for(_PING)


def test_old_connections_fail_no_call(limited):
    """Clients under load reconnect again and again, without errors."""
    running = limited(max_age_s=0.2, max_age_grace_s=TIMEOUT_S)
    enough = threading.Event()

    def work() -> int:
        done = 0
        while not enough.is_set():
            assert running.call("CallbackUnaryUnary") == b"hello"
            done += 1
            if len({call.peer for call in running.recorder.calls.copy()}) >= 5:
                enough.set()
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(each.result(timeout=4 * TIMEOUT_S) for each in [pool.submit(work) for _ in range(4)]) > 0


def _open_stream(running: Running) -> tuple[Requests, Any]:
    """Return the requests and the answers of an open stream."""
    requests = Requests()
    answers = running.channel.stream_stream(f"/{SERVICE}/CallbackStreamStream")(iter(requests), timeout=TIMEOUT_S)
    requests.put(b"1")
    assert next(answers) == b"1"
    return requests, answers


def test_stream_on_old_connection(limited):
    """It continues for the grace period."""
    running = limited(max_age_s=0.2, max_age_grace_s=TIMEOUT_S)
    requests, answers = _open_stream(running)
    with RawConnection(running.port) as connection:
        connection.open()
        connection.wait_for(_GOAWAY)
    # The stream's connection is older than this one, so it has had its GOAWAY too.
    requests.put(b"2")
    assert next(answers) == b"2"
    requests.put(None)
    assert list(answers) == []


def test_stream_on_connection_after_grace(limited):
    """It is terminated, and not counted as the caller's cancel."""
    running = limited(max_age_s=1.0, max_age_grace_s=0.1)
    requests, answers = _open_stream(running)
    with pytest.raises(grpc.RpcError) as error:
        next(answers)
    requests.put(None)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    _, code, details = running.recorder.ends.get(timeout=TIMEOUT_S)
    assert (code, details) == TOO_OLD
