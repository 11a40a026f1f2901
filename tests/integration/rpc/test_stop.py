"""Stopping a server: with and without calls, from any thread, repeatedly."""

import gc
import queue
import socket
import threading
import time
import weakref

import grpc
import pytest

from inferd.rpc import Server, callback_unary
from inferd.rpc.call_ends import STOPPED
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, Running

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CANCELLED = grpc.StatusCode.CANCELLED


def assert_left_nothing(server):
    """Assert that there are no live calls, and no threads once those that are ending have ended."""
    assert server.live_calls == 0
    for thread in threading.enumerate():
        if thread.name.startswith("inferd-rpc"):
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


def test_open_calls_may_finish_within_the_grace(running):
    """Admitted calls are answered; later ones are not accepted."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    stopped = running.server.stop(TIMEOUT_S)
    with grpc.insecure_channel(running.address) as other:
        late = other.unary_unary(f"/{SERVICE}/Held").future(b"", timeout=TIMEOUT_S)
        assert late.code() in (CANCELLED, UNAVAILABLE)
    assert not stopped.is_set()
    assert call.reply(b"answer")
    assert future.result() == b"answer"
    assert stopped.wait(TIMEOUT_S)
    assert_left_nothing(running.server)


def test_cancels_open_calls_after_the_grace(running):
    """Unary calls and streams, callback and blocking; each is notified and reported once."""
    requests = [Requests(), Requests()]
    held = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    gone = threading.Event()
    call.on_terminated(gone.set)
    streams = []
    for kind, fed in zip(("Callback", "Blocking"), requests, strict=True):
        fed.put(b"x")
        stream = running.channel.stream_stream(f"/{SERVICE}/{kind}StreamStream")(iter(fed), timeout=TIMEOUT_S)
        assert next(stream) == b"x"
        streams.append(stream)
    assert running.server.stop(0.05).wait(TIMEOUT_S)
    assert gone.is_set()
    assert held.code() in (CANCELLED, UNAVAILABLE)
    for stream in streams:
        assert stream.code() in (CANCELLED, UNAVAILABLE)
    ends = [running.recorder.ends.get(timeout=TIMEOUT_S) for _ in range(3)]
    assert [(code, details) for _, code, details in ends] == [STOPPED] * 3
    assert not call.reply(b"late")
    assert_left_nothing(running.server)
    for fed in requests:
        fed.put(None)


def test_stop_without_a_grace_cancels_at_once_and_waits(running):
    """As in grpcio's server."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next()
    assert running.server.stop(None).is_set()
    assert future.code() in (CANCELLED, UNAVAILABLE)
    assert_left_nothing(running.server)


def test_stop_may_be_repeated(running):
    """A shorter grace takes effect, a longer one does not, and after the end a stop returns at once."""
    held = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next()
    first = running.server.stop(60.0)
    second = running.server.stop(0.05)
    assert running.server.stop(60.0) is first
    assert second.wait(TIMEOUT_S)
    assert first.is_set()
    assert running.server.stop(None).is_set()
    assert running.server.stop(5.0).is_set()
    assert held.code() in (CANCELLED, UNAVAILABLE)


def test_stop_from_many_threads(running):
    """All return when the server has stopped."""
    held = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next()
    threads = [threading.Thread(target=running.server.stop, args=(grace,)) for grace in (None, 0.0, 0.1, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert held.code() in (CANCELLED, UNAVAILABLE)
    assert_left_nothing(running.server)


def test_stop_from_the_poll_thread_does_not_wait(serve):
    """A handler may stop its server and continue."""
    stopped = queue.Queue()
    running = serve({"Stop": callback_unary(lambda call, message: stopped.put(running.server.stop(None)))})
    future = running.unary("Stop").future(b"", timeout=TIMEOUT_S)
    assert stopped.get(timeout=TIMEOUT_S).wait(TIMEOUT_S)
    assert future.code() in (CANCELLED, UNAVAILABLE)


def test_stop_from_a_blocking_handler(serve, monkeypatch):
    """Its call is cancelled, and its thread does not delay the stop."""
    monkeypatch.setattr("inferd.rpc.server._HANDLERS_END_S", 0.05)
    stopped = queue.Queue()
    running = serve(
        {"Stop": grpc.unary_unary_rpc_method_handler(lambda request, _: stopped.put(running.server.stop(None)))}
    )
    future = running.unary("Stop").future(b"", timeout=TIMEOUT_S)
    assert stopped.get(timeout=TIMEOUT_S).is_set()
    assert future.code() in (CANCELLED, UNAVAILABLE)


def test_referenced_call_does_not_delay_the_stop(running):
    """Logs and tests may hold references to calls."""
    running.call("CallbackUnaryUnary")
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    running.server.stop(None)
    assert len(running.recorder.calls) == 2
    assert not call.reply(b"late")
    future.cancel()


def test_frees_ended_calls(running):
    """No cycle keeps a call, its listener or its message alive."""
    gc.collect()
    gc.disable()
    try:
        call = running.channel.stream_stream(f"/{SERVICE}/CallbackStreamStream")(iter([b"x"]), timeout=TIMEOUT_S)
        assert list(call) == [b"x"]
        (listener,) = running.opened
        reference = weakref.ref(listener)
        running.opened.clear()
        running.server.stop(None)
        running.recorder.calls.clear()
        running.recorder.ends.get_nowait()
        listener.call = None
        del listener
        assert reference() is None
    finally:
        gc.enable()


def test_stuck_handler_does_not_prevent_the_stop(serve, caplog, monkeypatch):
    """Its thread is abandoned and logged."""
    monkeypatch.setattr("inferd.rpc.server._HANDLERS_END_S", 0.05)
    begun, release = threading.Event(), threading.Event()

    def stuck(request, context):
        begun.set()
        release.wait(TIMEOUT_S)
        return b""

    running = serve({"Stuck": grpc.unary_unary_rpc_method_handler(stuck)})
    future = running.unary("Stuck").future(b"", timeout=TIMEOUT_S)
    assert begun.wait(TIMEOUT_S)
    assert running.server.stop(0.0).wait(TIMEOUT_S)
    assert future.code() in (CANCELLED, UNAVAILABLE)
    assert "still running" in caplog.text
    release.set()
    assert_left_nothing(running.server)


def test_stop_without_a_start_releases_the_port():
    """Without a start the core would keep it."""
    server = Server()
    port = server.add_insecure_port("127.0.0.1:0")
    assert server.stop(None).is_set()
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert_left_nothing(server)
    with pytest.raises(ValueError, match="started once only"):
        server.start()


def test_server_that_never_started_can_be_collected():
    """With or without a port, garbage collection does not hang."""
    for bind in (False, True):
        server = Server()
        if bind:
            server.add_insecure_port("127.0.0.1:0")
        del server
        gc.collect()


def test_wait_for_termination(running):
    """True for a timeout, False for the end, as in grpcio's server."""
    assert running.server.wait_for_termination(0.01) is True
    running.server.stop(0.0)
    assert running.server.wait_for_termination(TIMEOUT_S) is False
    assert running.server.wait_for_termination() is False


def test_several_servers_in_a_process():
    """One after another and side by side."""
    side_by_side = [Running().start() for _ in range(3)]
    for running in side_by_side:
        assert running.call("CallbackUnaryUnary", b"x") == b"x"
    for running in side_by_side:
        running.close()
    for running in side_by_side:
        assert_left_nothing(running.server)


def test_timers_of_a_server_without_calls(running):
    """``call_at`` works before and after anything can wake the poll thread."""
    for _ in range(2):
        done = threading.Event()
        threads = []
        started = time.monotonic()
        running.server.poll_loop.call_at(
            started + 0.02,
            lambda threads=threads, done=done: (threads.append(threading.current_thread().name), done.set()),
        )
        assert done.wait(TIMEOUT_S)
        assert time.monotonic() - started >= 0.02
        assert threads == ["inferd-rpc-poll"]
        running.call("CallbackUnaryUnary")


def test_poll_lag_shows_a_blocking_handler(serve):
    """While it blocks the poll thread."""
    begun, release = threading.Event(), threading.Event()

    def block(call, message):
        begun.set()
        release.wait(TIMEOUT_S)
        call.reply(b"")

    running = serve({"Block": callback_unary(block)})
    assert running.server.poll_lag_s < 1.0
    future = running.unary("Block").future(b"", timeout=TIMEOUT_S)
    assert begun.wait(TIMEOUT_S)
    running.server._lag._due_at -= 100.0
    assert running.server.poll_lag_s > 99.0
    release.set()
    future.result()
    running.server.stop(None)
    assert running.server.poll_lag_s == 0.0
