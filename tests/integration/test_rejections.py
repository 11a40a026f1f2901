"""Calls that the server rejects before a handler get the same form of status as other rejections."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from inferd.api.status import StatusTable
from inferd.config.server import ServerSettings
from inferd.rpc import MemoryMeter, blocking
from inferd.rpc.channel_options import channel_options
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, Running, wait_for, wait_idle
from tests.raw_uploads import RawUpload

MIB = 1024 * 1024


@contextmanager
def running(handlers: dict[str, Any] | None = None, **settings: Any) -> Iterator[Running]:
    """Run a server with the status table."""
    table = StatusTable(grpc.StatusCode.UNAVAILABLE)
    with closing(Running(handlers, status_of=table.rejection, **settings).start()) as server:
        yield server


def check_overload(error: Any, reason: str, retry_after_ms: int) -> None:
    """Check the configured code, the reason, and the retry hint in both forms."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    metadata = dict(error.trailing_metadata())
    assert metadata["grpc-retry-pushback-ms"] == str(retry_after_ms)
    info, retry = ErrorInfo(), RetryInfo()
    status = Status.FromString(metadata["grpc-status-details-bin"])
    assert (status.code, status.message) == (grpc.StatusCode.UNAVAILABLE.value[0], error.details())
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert info.reason == reason
    assert retry.retry_delay.ToMilliseconds() == retry_after_ms


def test_rejects_too_many_calls() -> None:
    """Over the limit of open calls; rejected calls leave nothing behind."""
    with running(max_inflight_unary=1) as server:
        first = server.unary("Held").future(b"", timeout=TIMEOUT_S)
        held = server.held.next()
        for _ in range(3):
            check_overload(server.fail("Held"), "TOO_MANY_CALLS", 100)
        assert server.server.usage.rejected["TOO_MANY_CALLS"] == 3
        held.reply(b"answer")
        assert first.result() == b"answer"
        assert wait_idle(server.server)
        assert server.call("CallbackUnaryUnary") == b"hello"


def test_rejects_too_many_calls_that_wait_for_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of a service are busy, and the queue for them is full."""
    monkeypatch.setattr(blocking, "_MAX_WAITING", 1)
    release, begun = threading.Event(), threading.Event()

    def wait(request: bytes, _: object) -> bytes:
        begun.set()
        release.wait(TIMEOUT_S)
        return request

    handler = {"Wait": grpc.unary_unary_rpc_method_handler(wait)}
    with running(handler, blocking_threads=1) as server:
        calls = [server.unary("Wait").future(b"1", timeout=TIMEOUT_S)]
        assert begun.wait(TIMEOUT_S)
        calls.append(server.unary("Wait").future(b"2", timeout=TIMEOUT_S))
        assert wait_for(server.server, lambda: server.server.usage.held_bytes == 2)
        check_overload(server.fail("Wait"), "NO_THREAD", 100)
        release.set()
        assert [call.result() for call in calls] == [b"1", b"2"]


def test_rejects_calls_while_memory_is_short() -> None:
    """Before their message is read, except calls of express methods."""
    resident = [100 * MIB]
    with running(express_methods=[f"/{SERVICE}/CallbackUnaryUnary"]) as server:
        server.server.limit_memory(100 * MIB, MemoryMeter(resident=lambda: resident[0], give_back=lambda: None))
        held = server.unary("Held").future(b"", timeout=TIMEOUT_S)
        call = server.held.next()
        resident[0] += 80 * MIB
        assert wait_for(server.server, lambda: server.server.usage.taken_bytes == 80 * MIB)
        check_overload(server.fail("BlockingUnaryUnary"), "MEMORY_BUDGET", 1000)
        check_overload(server.fail("Held"), "MEMORY_BUDGET", 1000)
        assert server.call("CallbackUnaryUnary") == b"hello"
        resident[0] -= 80 * MIB
        assert wait_for(server.server, lambda: server.server.usage.taken_bytes == 0)
        assert server.call("BlockingUnaryUnary") == b"hello"
        call.reply(b"")
        held.result()


@pytest.mark.parametrize("method", ["CallbackUnaryUnary", "BlockingUnaryUnary", "BlockingUnaryStream"])
def test_ends_upload_that_takes_too_long(method: str) -> None:
    """Whatever the handler: it occupies no thread meanwhile, and no other call waits."""
    with (
        running(message_timeout_s=0.3, blocking_threads=1) as server,
        RawUpload(server.address, f"/{SERVICE}/{method}", MIB) as upload,
    ):
        upload.send(1000)
        assert server.call("BlockingUnaryUnary") == b"hello"
        assert upload.wait_ended(TIMEOUT_S)
        assert b"expected the whole request within 0.3 s" in upload.headers
        assert b"grpc-status-details-bin" in upload.headers
        assert server.server.usage.rejected["MESSAGE_TIMEOUT"] == 1
        assert wait_idle(server.server)


class SmallMessages:
    """Expects small messages only, as from unauthenticated callers."""

    finished = None

    def started(self, call: Any) -> None:
        call.expect_small_message()


@pytest.mark.parametrize("method", ["CallbackUnaryUnary", "BlockingUnaryUnary", "CallbackStreamStream"])
def test_rejects_large_message_of_unauthenticated_client(method: str) -> None:
    """The handler does not get it."""
    with running(interceptors=[SmallMessages()]) as server:
        call: Any = server.channel.stream_stream(f"/{SERVICE}/{method}")
        assert list(call(iter([bytes(4096)]), timeout=TIMEOUT_S)) == [bytes(4096)]
        with pytest.raises(grpc.RpcError) as error:
            list(call(iter([bytes(4097)]), timeout=TIMEOUT_S))
        refused: Any = error.value
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details() == "expected a message of at most 4096 bytes, got 4097"
        assert server.server.usage.rejected["MESSAGE_TOO_LARGE"] == 1


def test_response_may_exceed_request_limit() -> None:
    """A request of exactly the limit gets a larger response."""
    options = channel_options(ServerSettings(max_message_bytes=65536))
    double = {"Double": grpc.unary_unary_rpc_method_handler(lambda request, _: request + request)}
    with running(double, options=options) as server:
        assert server.call("Double", b"x" * 65536) == b"x" * 2 * 65536
        assert server.fail("Double", b"x" * 65537).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_streams_occupy_threads_of_their_service_only() -> None:
    """Idle clients hold all threads of their service, and no others."""
    with running(blocking_threads=2) as server:
        other = {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
        server.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Other", other)])
        idle = Requests()
        stream: Any = server.channel.stream_stream(f"/{SERVICE}/BlockingStreamStream")
        calls = [stream(iter(idle), timeout=TIMEOUT_S) for _ in range(8)]
        assert wait_for(server.server, lambda: server.server.live_calls == 8)
        echo: Any = server.channel.unary_unary("/test.Other/Echo")
        assert echo(b"hello", timeout=TIMEOUT_S) == b"hello"
        for call in calls:
            call.cancel()
        for _ in calls:
            idle.put(None)
