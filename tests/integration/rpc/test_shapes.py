"""Callback and blocking handlers of all four shapes, with grpcio's clients."""

import asyncio

import grpc
import pytest

from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests

KINDS = pytest.mark.parametrize("kind", ["Callback", "Blocking"])
PARTS = [b"a", b"", b"c" * 100_000]


@KINDS
def test_unary_unary(running, kind):
    """One request, one answer."""
    assert running.call(f"{kind}UnaryUnary", b"ping") == b"ping"
    assert running.recorder.next_code() is grpc.StatusCode.OK


@KINDS
def test_unary_stream(running, kind):
    """One request, answers in order."""
    answers = running.channel.unary_stream(f"/{SERVICE}/{kind}UnaryStream")(b"ping", timeout=TIMEOUT_S)
    assert list(answers) == [b"ping"] * 3


@KINDS
def test_stream_unary(running, kind):
    """Requests in order, one answer."""
    joined = running.channel.stream_unary(f"/{SERVICE}/{kind}StreamUnary")(iter(PARTS), timeout=TIMEOUT_S)
    assert joined == b"".join(PARTS)


@KINDS
def test_stream_stream(running, kind):
    """Both ways in order, with trailing metadata at the end."""
    call = running.channel.stream_stream(f"/{SERVICE}/{kind}StreamStream")(iter(PARTS * 100), timeout=TIMEOUT_S)
    assert list(call) == PARTS * 100
    assert ("echoed", "300") in call.trailing_metadata()


@KINDS
def test_all_shapes_with_the_asyncio_client(running, kind):
    """With the same results."""

    async def calls():
        async with grpc.aio.insecure_channel(running.address) as channel:
            path = f"/{SERVICE}/{kind}"
            unary = await channel.unary_unary(path + "UnaryUnary")(b"ping", timeout=TIMEOUT_S)
            repeated = [m async for m in channel.unary_stream(path + "UnaryStream")(b"ping", timeout=TIMEOUT_S)]
            joined = await channel.stream_unary(path + "StreamUnary")(iter(PARTS), timeout=TIMEOUT_S)
            echoed = [m async for m in channel.stream_stream(path + "StreamStream")(iter(PARTS), timeout=TIMEOUT_S)]
            return unary, repeated, joined, echoed

    assert asyncio.run(calls()) == (b"ping", [b"ping"] * 3, b"".join(PARTS), PARTS)


@KINDS
def test_half_close_without_a_message_is_unimplemented(running, kind):
    """Without an answer the caller would wait in vain."""
    with pytest.raises(grpc.RpcError) as error:
        running.channel.stream_unary(f"/{SERVICE}/{kind}UnaryUnary")(iter(()), timeout=TIMEOUT_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.value.details() == "expected one request message, got none"


def test_unknown_method(running):
    """The error names it and the known methods of the service."""
    error = running.fail("NoSuchMethod")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details().startswith(
        f'unknown method "NoSuchMethod" of service "{SERVICE}", which has BlockingRaises, '
    )
    assert running.recorder.next_code() is grpc.StatusCode.UNIMPLEMENTED
    assert running.server.usage.rejected["UNKNOWN_METHOD"] == 1


def test_unknown_service(running):
    """The error names it and the known services."""
    with pytest.raises(grpc.RpcError) as error:
        running.channel.unary_unary("/no.Such/Method")(b"", timeout=TIMEOUT_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.value.details() == (
        f'unknown service "no.Such", asked for method "Method"; known services are {SERVICE}'
    )


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("CallbackRaises", grpc.StatusCode.INTERNAL, "internal error"),
        ("BlockingRaises", grpc.StatusCode.UNKNOWN, "the handler failed"),
    ],
)
def test_exception_of_a_handler(running, caplog, method, code, details):
    """The caller gets a fixed text, the log the cause, and the server serves on."""
    error = running.fail(method)
    assert (error.code(), error.details()) == (code, details)
    assert "secret" in caplog.text
    assert running.call("CallbackUnaryUnary", b"next") == b"next"


def test_answers_from_other_threads_and_out_of_order(running):
    """Any thread may answer at any time."""
    futures = [running.unary("Held").future(str(i).encode(), timeout=TIMEOUT_S) for i in range(8)]
    calls = [running.held.next() for _ in futures]
    for call in reversed(calls):
        assert call.reply(b"done")
    assert [future.result() for future in futures] == [b"done"] * 8


def test_late_answer_returns_false(running):
    """After an abort."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    assert call.abort(grpc.StatusCode.ABORTED, "no")
    assert not call.reply(b"too late")
    assert future.code() is grpc.StatusCode.ABORTED


@KINDS
def test_stream_is_bidirectional(running, kind):
    """Each request depends on the answer before."""
    requests = Requests()
    answers = running.channel.stream_stream(f"/{SERVICE}/{kind}StreamStream")(iter(requests), timeout=TIMEOUT_S)
    message = b"1"
    for _ in range(5):
        requests.put(message)
        assert next(answers) == message
        message += b"1"
    requests.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK
