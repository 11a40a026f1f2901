"""Requests over HTTP as calls of a real server, whose handler the test answers when it likes."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from inferd.http.messages import HttpBody
from inferd.rpc import MemoryMeter
from tests.http_calls import JSON, METHOD, MIB, Running, running
from tests.patience import PATIENCE_S, eventually


@pytest.fixture(scope="module")
def unlimited() -> Iterator[Running]:
    """A server without limits."""
    with running() as server:
        yield server


@pytest.fixture
def shared(unlimited: Running) -> Running:
    """The same, idle: each test reads the ends of its own calls."""
    unlimited.wait_idle()
    while not unlimited.ends.ended.empty():
        unlimited.ends.ended.get()
    return unlimited


def answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, str], Any]:
    response = connection.getresponse()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(response.read())


def test_answer_comes_from_any_thread(shared: Running) -> None:
    """The call has what its request says; the answer has the headers of the handler and of interceptors."""
    connection = shared.ask(b"0123", "/held?a=1&b=%20", Inference_Header_Content_Length="2", X_Request_Id="id-1")
    call, message = shared.next()
    assert (call.method, message.body, message.json_length, message.query) == (METHOD, b"0123", 2, {"a": "1", "b": " "})
    assert ("x-request-id", "id-1") in call.metadata
    assert call.peer == f"ipv4:127.0.0.1:{connection.sock.getsockname()[1]}"
    assert call.reply(HttpBody(b"[1]", (("Content-Type", "application/json"), ("X-Own", "1")), 202))
    assert not call.reply(HttpBody(b"[2]")), "only the first answer counts"
    status, headers, content = answer(connection)
    assert (status, content, headers["x-own"], headers["x-seen"], headers["x-raw-bin"]) == (
        202,
        [1],
        "1",
        "yes",
        "/w==",
    )
    assert "date" in headers
    assert shared.ends.next() == (grpc.StatusCode.OK, 202)
    shared.wait_idle()
    assert shared.server.usage.held_bytes == 0


def test_connection_serves_many_requests(shared: Running) -> None:
    """One after another, also in HTTP/1.0 if it is asked to."""
    connection = shared.connect()
    for number in range(3):
        connection.request("POST", "/held", b"{}")
        shared.next()[0].reply(HttpBody(b"%d" % number, JSON))
        status, headers, content = answer(connection)
        assert (status, content) == (200, number)
        assert "connection" not in headers
        shared.ends.next()
    with socket.create_connection(("127.0.0.1", shared.http.port), timeout=PATIENCE_S) as old:
        old.sendall(b"POST /held HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        shared.next()[0].reply(HttpBody(b"{}", JSON))
        assert b"Connection: keep-alive\r\n" in old.recv(4096)
    shared.ends.next()


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "expected"),
    [
        ("/none", {}, 404, "NOT_FOUND", {"reason": "UNKNOWN_PATH"}),
        ("/held", {"X_Request_Timeout_Ms": "0"}, 400, "INVALID_ARGUMENT", {"field": "x-request-timeout-ms"}),
        ("/held", {"X_Request_Timeout_Ms": "1e3"}, 400, "INVALID_ARGUMENT", {"reason": "INVALID_INPUT"}),
        (
            "/held",
            {"Inference_Header_Content_Length": "-1"},
            400,
            "INVALID_ARGUMENT",
            {"field": "Inference-Header-Content-Length"},
        ),
        (
            "/held",
            {"X_Request_Timeout_Ms": "\xb2"},
            400,
            "INVALID_ARGUMENT",
            {"error": 'header x-request-timeout-ms: expected an integer from 1 to 86400000, got "\\udcb2"'},
        ),
        ("/held", {"Content_Encoding": "gzip"}, 415, "INVALID_ARGUMENT", {"field": "Content-Encoding"}),
        (
            "/held",
            {"Content_Encoding": "\xff" * 90},
            415,
            "INVALID_ARGUMENT",
            {"error": 'expected none, gzip or deflate as Content-Encoding, got "' + r"\udcff" * 80 + '…"'},
        ),
        ("/held", {"CONTENT_ENCODING": "identity", "Content_Encoding": "gzip"}, 415, "INVALID_ARGUMENT", {}),
        ("/held", {"X_Reject": "1"}, 401, "UNAUTHENTICATED", {"error": "who"}),
        ("/broken", {}, 413, "RESOURCE_EXHAUSTED", {"reason": "MESSAGE_TOO_LARGE"}),
        ("/held", {"X_Small": "1"}, 413, "RESOURCE_EXHAUSTED", {"reason": "MESSAGE_TOO_LARGE"}),
    ],
)
def test_refused(
    shared: Running, path: str, headers: dict[str, str], status: int, code: str, expected: dict[str, str]
) -> None:
    """Before the handler; interceptors see it, and the connection goes on."""
    connection = shared.ask(b"x" * 5000, path, **headers)
    found, sent, content = answer(connection)
    assert (found, expected.items() <= content.items()) == (status, True), content
    assert shared.ends.next() == (grpc.StatusCode[code], status)
    if status == 401:
        assert sent["www-authenticate"] == "Bearer"
    connection.request("GET", "/held")
    assert answer(connection)[1]["allow"] == "POST"
    assert shared.ends.next() == (grpc.StatusCode.UNIMPLEMENTED, 405)


@pytest.mark.parametrize("origin", ["http://other:1", "HTTPS://a"])
def test_addresses_with_an_origin(shared: Running, origin: str) -> None:
    """Are those of their path."""
    connection = shared.connect()
    connection.putrequest("POST", f"{origin}/held?a=1", skip_host=True)
    connection.putheader("Host", "a")
    connection.endheaders()
    call, message = shared.next()
    assert (call.method, message.query) == (METHOD, {"a": "1"})
    call.reply(HttpBody(b"{}", JSON))
    assert answer(connection)[0] == 200
    assert shared.ends.next()[1] == 200


def test_handler_that_fails(shared: Running) -> None:
    """Says nothing of the cause."""
    assert answer(shared.ask(b"{}", "/broken"))[::2] == (500, {"error": "internal error"})
    assert shared.ends.next() == (grpc.StatusCode.INTERNAL, 500)


@pytest.mark.parametrize("size", [0, 100, 64 * 1024, 64 * 1024 + 1, 3 * MIB])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_bodies(shared: Running, size: int, in_chunks: bool) -> None:
    """Come whole, whether they are read before the call is accepted or after."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    connection = shared.connect()
    pieces = (body[start : start + 50_000] for start in range(0, size, 50_000))
    connection.request("POST", "/held", pieces if in_chunks else body, encode_chunked=in_chunks)
    call, message = shared.next()
    assert message.body == body
    assert shared.server.usage.held_bytes == size
    call.reply(HttpBody(b"{}", JSON))
    assert answer(connection)[0] == 200
    shared.ends.next()
    shared.wait_idle()


def test_large_body_of_unauthenticated_caller_is_not_read(shared: Running) -> None:
    """A rejected caller hears of it before it has sent the body."""
    with socket.create_connection(("127.0.0.1", shared.http.port), timeout=PATIENCE_S) as caller:
        caller.sendall(b"POST /held HTTP/1.1\r\nHost: x\r\nX-Reject: 1\r\nContent-Length: 1000000\r\n\r\n")
        assert caller.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert shared.ends.next() == (grpc.StatusCode.UNAUTHENTICATED, 401)


def test_chunks_beyond_the_limit(shared: Running) -> None:
    """Are refused when they have come."""
    connection = shared.connect()
    connection.request("POST", "/broken", iter([b"x" * 8, b"y" * 8]), encode_chunked=True)
    assert answer(connection)[0] == 413
    assert shared.ends.next() == (grpc.StatusCode.RESOURCE_EXHAUSTED, 413)


@pytest.mark.parametrize("is_complete", [True, False])
def test_vanished_caller_frees_its_place(shared: Running, is_complete: bool) -> None:
    """The call ends as CANCELLED, with 499 in the log, and what waits for its end hears of it."""
    terminated = threading.Event()
    with socket.create_connection(("127.0.0.1", shared.http.port), timeout=PATIENCE_S) as caller:
        caller.sendall(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n" + b"{}"[: 1 + is_complete])
        if is_complete:
            call, _ = shared.next()
            call.on_terminated(terminated.set)
    assert shared.ends.next() == (grpc.StatusCode.CANCELLED, 499)
    if is_complete:
        assert terminated.wait(PATIENCE_S)
        assert not call.reply(HttpBody(b"{}"))
    shared.wait_idle()


def test_deadline(shared: Running) -> None:
    """The caller gets 504 when it has passed, and the call has ended."""
    for timeout_ms in (20, 500, 10_000):  # As long as this machine needs to come to it.
        connection = shared.ask(X_Request_Timeout_Ms=str(timeout_ms))
        eventually(lambda: not (shared.calls.empty() and shared.ends.ended.empty()), "it is there, or has ended")
        if not shared.calls.empty():
            break
        assert answer(connection)[0] == 504
        assert shared.ends.next() == (grpc.StatusCode.DEADLINE_EXCEEDED, 504)
    terminated = threading.Event()
    call, _ = shared.next()
    call.on_terminated(terminated.set)
    assert call.deadline - call.started_at == pytest.approx(timeout_ms / 1000)
    assert answer(connection)[0] == 504
    assert terminated.wait(PATIENCE_S)
    assert shared.ends.next() == (grpc.StatusCode.DEADLINE_EXCEEDED, 504)


def test_calls_in_flight_are_limited_together_with_those_of_grpc() -> None:
    """Beyond the limit: 503 by the setting, with when to come again."""
    with running(max_inflight_unary=1) as server:
        first = server.ask()
        call, _ = server.next()
        status, headers, content = answer(server.ask())
        assert (status, content["reason"], content["retry_after_ms"]) == (503, "TOO_MANY_CALLS", 100)
        assert headers["retry-after"] == "1"
        assert server.server.usage.rejected["TOO_MANY_CALLS"] == 1
        assert server.ends.next() == (grpc.StatusCode.UNAVAILABLE, 503)
        call.reply(HttpBody(b"{}", JSON))
        assert answer(first)[0] == 200
        server.ask()
        server.next()[0].reply(HttpBody(b"{}", JSON))


def test_memory_is_limited_together_with_grpc() -> None:
    """While it is short, large bodies are not read; uploads that are under way are ended."""
    resident = 0
    meter = MemoryMeter(resident=lambda: resident, give_back=lambda: None)
    with running() as server:
        server.server.limit_memory(16 * MIB, meter)
        with socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S) as caller:
            caller.sendall(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            resident = 15 * MIB
            assert caller.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert server.ends.next() == (grpc.StatusCode.UNAVAILABLE, 503)
        status, _, content = answer(server.ask())
        assert (status, content["reason"]) == (503, "MEMORY_BUDGET")


def test_late_body_ends_the_call() -> None:
    """As the message of a call over gRPC."""
    with running(message_timeout_s=0.1) as server:
        with socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S) as caller:
            caller.sendall(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin")
            assert caller.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert server.ends.next() == (grpc.StatusCode.DEADLINE_EXCEEDED, 408)


def test_stop_waits_for_calls_and_connections() -> None:
    """Calls end by their answers, which close their connections; requests that come meanwhile are served."""
    with running() as server:
        first, other = server.ask(), server.ask()
        call, _ = server.next()
        server.next()[0].reply(HttpBody(b"{}", JSON))
        assert answer(other)[0] == 200
        stopped = server.server.stop(PATIENCE_S)
        server.http.drain()
        other.request("POST", "/held", b"{}")
        server.next()[0].reply(HttpBody(b"{}", JSON))
        assert answer(other)[1]["connection"] == "close"
        assert not stopped.is_set()
        call.reply(HttpBody(b"{}", JSON))
        assert answer(first)[1]["connection"] == "close"
        assert server.http.wait_drained(PATIENCE_S)
        server.handling.end()
        assert stopped.wait(PATIENCE_S)


def test_calls_are_cancelled_after_the_grace_period() -> None:
    """The caller hears of it, and the server does not wait for connections."""
    with running() as server:
        connection = server.ask()
        call, _ = server.next()
        terminated = threading.Event()
        call.on_terminated(terminated.set)
        assert server.server.stop(0).wait(PATIENCE_S)
        assert terminated.is_set()
        assert answer(connection)[0] == 503
        assert server.ends.next() == (grpc.StatusCode.UNAVAILABLE, 503)
        late = server.ask()
        assert answer(late)[::2] == (503, {"error": "the server is draining", "reason": "DRAINING"})


def test_first_request_wakes_the_poll_thread(shared: Running) -> None:
    """There was no call of gRPC that could wake it, but one of the server to itself."""
    assert shared.server.poll_loop._wake_ups.call is not None
    assert shared.server.live_calls == 0


def test_self_call_leaves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a directory nor a finished call."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running() as server:
        assert not list(tmp_path.iterdir())
        assert server.ends.ended.empty()
