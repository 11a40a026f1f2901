"""Deadlines, cancels and lost connections."""

import math
import socket
import threading
import time
from contextlib import suppress

import grpc
import pytest

from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, wait_idle
from tests.patience import eventually

CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


def test_no_deadline(running):
    """It is infinity."""
    future = running.unary("Held").future(b"")
    call = running.held.next()
    assert call.deadline == math.inf
    call.reply(b"")
    future.result(TIMEOUT_S)


def test_deadline_on_the_monotonic_clock(running):
    """Converted once, on accept; clients round it up by at most 1 % on the wire."""
    future = running.unary("Held").future(b"", timeout=5000.0)
    call = running.held.next()
    assert 4000.0 < call.deadline - time.monotonic() < 5051.0
    assert call.started_at <= time.monotonic()
    call.reply(b"")
    future.result(TIMEOUT_S)


def _expiring(running):
    """Return a call whose handler has it, and that nobody answers before its deadline."""
    for timeout_s in (0.5, 4.0, 32.0):  # As long as this machine needs to come to it.
        future = running.unary("Held").future(b"", timeout=timeout_s)
        eventually(lambda future=future: future.done() or not running.held.calls.empty(), "it arrives, or expires")
        if not future.done():
            break
    return future, running.held.next()


def test_expired_deadline(running):
    """The handler is notified; the caller and the interceptors get DEADLINE_EXCEEDED."""
    running.call("CallbackUnaryUnary")  # So that the connection exists when the time starts.
    running.recorder.next_code()
    future, call = _expiring(running)
    gone = threading.Event()
    call.on_terminated(gone.set)
    assert gone.wait(TIMEOUT_S)
    assert future.code() is DEADLINE_EXCEEDED
    assert running.recorder.next_code() is DEADLINE_EXCEEDED
    assert not call.reply(b"too late")


def test_cancel_while_the_request_waits(running):
    """The handler is notified once, on the poll thread; reported as CANCELLED."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    threads = []
    gone = threading.Event()
    call.on_terminated(lambda: (threads.append(threading.current_thread().name), gone.set()))
    future.cancel()
    assert gone.wait(TIMEOUT_S)
    assert threads == ["inferd-rpc-poll"]
    assert running.recorder.next_code() is CANCELLED
    assert wait_idle(running.server)


def test_cancel_before_the_message(running):
    """Reported as a cancel, not as a missing message."""
    requests = Requests()
    future = running.channel.stream_unary(f"/{SERVICE}/Held").future(iter(requests), timeout=TIMEOUT_S)
    while not any(call.method.endswith("Held") for call in running.recorder.calls):
        running.call("CallbackUnaryUnary")
        assert running.recorder.next_code() is grpc.StatusCode.OK
    future.cancel()
    assert running.recorder.next_code() is CANCELLED
    requests.put(None)


def test_cancelled_stream(running):
    """The listener is notified, and later sends return False."""
    requests = Requests()
    call = running.channel.stream_stream(f"/{SERVICE}/CallbackStreamStream")(iter(requests), timeout=TIMEOUT_S)
    requests.put(b"a")
    assert next(call) == b"a"
    call.cancel()
    (stream,) = running.opened
    assert stream.terminated.wait(TIMEOUT_S)
    assert not stream.call.send(b"late")
    assert not stream.call.finish()
    assert running.recorder.next_code() is CANCELLED
    requests.put(None)


def test_lost_connection(running):
    """Like a cancel. A proxy cuts the connection."""
    with CutOffProxy(running.port) as proxy:
        channel = grpc.insecure_channel(f"127.0.0.1:{proxy.port}")
        future = channel.unary_unary(f"/{SERVICE}/Held").future(b"", timeout=TIMEOUT_S)
        call = running.held.next()
        gone = threading.Event()
        call.on_terminated(gone.set)
        proxy.cut()
        assert gone.wait(TIMEOUT_S)
        assert future.code() is grpc.StatusCode.UNAVAILABLE
        channel.close()
    assert running.recorder.next_code() is CANCELLED


def test_peer_is_known_after_the_end(running):
    """The log needs it when the core has dropped it."""
    running.call("CallbackUnaryUnary")  # So that the connection exists when the time starts.
    future, call = _expiring(running)
    gone = threading.Event()
    call.on_terminated(gone.set)
    assert gone.wait(TIMEOUT_S)
    assert call.peer.startswith("ipv4:127.0.0.1:")
    with pytest.raises(grpc.RpcError):
        future.result()


class CutOffProxy:
    """Forwards bytes between one client and the server until it is cut."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []
        self._threads = []

    def __enter__(self):
        self._run(self._accept)
        return self

    def __exit__(self, *_):
        self.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def cut(self):
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):  # the other side was faster
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _run(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        self._sockets += [client, server]
        self._run(self._copy, client, server)
        self._run(self._copy, server, client)

    @staticmethod
    def _copy(source, target):
        with suppress(OSError):  # cut
            while data := source.recv(65536):
                target.sendall(data)
