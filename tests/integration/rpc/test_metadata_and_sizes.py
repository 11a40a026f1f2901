"""Metadata both ways, and message size limits."""

import grpc
import pytest

from inferd.config.server import ServerSettings
from inferd.rpc import callback_unary
from inferd.rpc.channel_options import channel_options
from tests.integration.rpc.support import TIMEOUT_S, wait_idle

OK = grpc.StatusCode.OK
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_both_ways(running):
    """Text and binary, in the request and with the status."""
    sent = (("text", "value"), ("data-bin", b"\x00\xff"))
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S, metadata=sent)
    call = running.held.next()
    assert set(sent) <= {tuple(pair) for pair in call.metadata}
    call.reply(b"", (("answer", "yes"), ("more-bin", b"\xfe")))
    assert {("answer", "yes"), ("more-bin", b"\xfe")} <= {tuple(pair) for pair in future.trailing_metadata()}


def test_metadata_with_an_abort(running):
    """Errors carry details in trailing metadata."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next().abort(grpc.StatusCode.FAILED_PRECONDITION, "näh", (("why", "so"),))
    assert (future.code(), future.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "näh")
    assert ("why", "so") in future.trailing_metadata()


def test_illegal_metadata_does_not_hang_the_call(running):
    """The sender gets an exception, the caller a status."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    with pytest.raises(ValueError, match="'Upper'"):
        running.held.next().reply(b"", (("Upper", "x"),))
    assert future.code() is grpc.StatusCode.INTERNAL


def test_request_above_the_limit(serve):
    """The core answers RESOURCE_EXHAUSTED; it is reported as that, and the handler is not called."""
    running = serve(options=[("grpc.max_receive_message_length", 1000)])
    error = running.fail("CallbackUnaryUnary", bytes(1001))
    assert error.code() is RESOURCE_EXHAUSTED
    assert running.recorder.next_code() is RESOURCE_EXHAUSTED
    assert running.call("CallbackUnaryUnary", bytes(1000)) == bytes(1000)


@pytest.mark.parametrize("kind", ["Callback", "Blocking"])
def test_answer_above_the_limit(serve, kind):
    """The core rejects it; the call ends nevertheless."""
    running = serve(options=[("grpc.max_send_message_length", 1000)])
    error = running.fail(f"{kind}UnaryUnary", bytes(1001))
    assert error.code() is RESOURCE_EXHAUSTED
    assert wait_idle(running.server)
    assert running.call(f"{kind}UnaryUnary", bytes(1000)) == bytes(1000)


def test_large_messages_with_larger_frames(serve):
    """Frame size and read chunk are options; a message is one bytes object."""
    kinds = []
    handlers = {"Size": callback_unary(lambda call, message: (kinds.append(type(message)), call.reply(message)))}
    running = serve(
        handlers,
        options=[
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.http2.max_frame_size", 1 << 20),
            ("grpc.experimental.tcp_read_chunk_size", 1 << 20),
        ],
    )
    payload = bytes(range(256)) * (16 << 12)
    assert running.call("Size", payload) == payload
    assert kinds == [bytes]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", ["CallbackUnaryUnary", "BlockingUnaryUnary"])
def test_compressed_requests_without_the_setting(serve, method, compression):
    """Caller, metrics and log see the same status, and its text names the setting; nothing is inflated."""
    running = serve(options=channel_options(ServerSettings()))
    error = running.fail(method, bytes(10_000), compression=compression)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    text = f"got one with {compression.name.lower()}, which needs the setting server.compressed_requests"
    assert text in error.details()
    assert running.recorder.next_code() is grpc.StatusCode.UNIMPLEMENTED
    assert running.server.usage.rejected["COMPRESSED_MESSAGE"] == 1
    assert running.call(method, bytes(10_000)) == bytes(10_000)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_inflates_compressed_requests(serve, compression):
    """If the setting is on."""
    running = serve(options=channel_options(ServerSettings()), inflate_up_to_bytes=10_000)
    message = b"x" * 10_000
    assert running.call("CallbackUnaryUnary", message, compression=compression) == message
    assert running.recorder.next_code() is OK
