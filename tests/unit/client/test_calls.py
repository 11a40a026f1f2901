"""Metadata, ids, timeouts and options of calls, with either client."""

import copy
import os
import pickle

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import AsyncClient, Client, DeadlineExceeded, InferdError, Overloaded, Unimplemented
from tests.unit.client.fake_service import FakeService, overload_status, serving

X = {"x": 1}


def _reply(*results: pb.InferResult) -> pb.StreamInferResponse:
    return pb.StreamInferResponse(results=results)


def _abort(code: grpc.StatusCode, *trailing: tuple[str, str | bytes]):
    def abort(request, context):
        context.set_trailing_metadata(trailing)
        context.abort(code, "no")

    return abort


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("infer", ["m", X]),
        ("stream", ["m", []]),
        ("models", []),
        ("model", ["digits"]),
        ("generate", ["m", "on"]),
        ("chat", ["m", "on"]),
    ],
)
def test_sends_metadata_of_call(call, server, service, method, arguments):
    """It is added to the client's, replaces entries with the same key, and applies to this call only."""
    settings = {"token": "t", "metadata": {"x-team": "a", "x-trace": "old"}}
    call(server.address, method, *arguments, settings=settings, metadata={"X-Trace": "new", "data-bin": b"\xff"})
    call(server.address, method, *arguments, settings=settings)
    first, second = service.metadata
    assert (first["authorization"], first["x-team"], first["x-trace"]) == ("Bearer t", "a", "new")
    assert first["data-bin"] == b"\xff"
    assert second["x-trace"] == "old"
    assert "data-bin" not in second


def test_readiness_accepts_metadata(call, server, service):
    """For the server and for a model."""
    assert call(server.address, "is_ready", "digits", metadata={"x-team": "a"})
    call(server.address, "wait_until_ready", "digits", metadata={"x-team": "b"})
    assert [metadata["x-team"] for metadata in service.metadata] == ["a", "b"]


def test_call_with_metadata_is_not_coalesced(call, server, service):
    """A shared stream has the client's metadata; other calls still share it."""
    call(server.address, "infer", "m", X, settings={"coalesce": True}, metadata={"x-trace": "1"})
    call(server.address, "infer", "m", X, settings={"coalesce": True, "metadata": {"x-trace": "2"}})
    assert [metadata["x-trace"] for metadata in service.metadata] == ["1", "2"]
    call(server.address, "infer", "m", X, settings={"coalesce": True}, wait_for_ready=False)
    call(server.address, "infer", "m", X, settings={"coalesce": True}, wait_for_ready=True)
    assert [request.HasField("timeout") for request in service.requests] == [False, True, True, False]


def test_metadata_of_answer(call, server, service):
    """Of calls with their own metadata; others do not request it."""

    def timed(request, context):
        context.set_trailing_metadata((("inferd-timing", "run;dur=1"), ("grpc-own", "no"), ("load-bin", b"\1")))
        return pb.InferResponse()

    service.on_infer = timed
    result = call(server.address, "infer", "m", X, metadata={"inferd-timing": "1"})
    assert result.metadata == {"inferd-timing": "run;dur=1", "load-bin": b"\1"}
    assert call(server.address, "infer", "m", X).metadata == {}


def test_errors_have_request_id(call, server, service):
    """The caller's id, or the one that the server assigned."""
    service.on_infer = _abort(grpc.StatusCode.INTERNAL, ("x-request-id", "server-7"), ("inferd-timing", "total;dur=1"))
    for given, known in (("mine", "mine"), ("", "server-7")):
        with pytest.raises(InferdError) as caught:
            call(server.address, "infer", "m", X, request_id=given)
        assert caught.value.request_id == known
        assert caught.value.metadata == {"x-request-id": "server-7", "inferd-timing": "total;dur=1"}


def test_errors_without_answer_have_request_id(call):
    """The caller's id, if there is one."""
    for given in ("mine", ""):
        with pytest.raises(InferdError) as caught:
            call("127.0.0.1:1", "infer", "m", X, settings={"retry": None}, request_id=given)
        assert (caught.value.request_id, caught.value.metadata) == (given, {})


def test_errors_of_stream_have_request_id(call, server, service):
    """An item has the id of its element; the stream has the server's."""

    def fail(messages, context):
        (request,) = next(messages).requests
        yield _reply(pb.InferResult(request_id=request.request_id, error=overload_status(retry_s=1)))
        if request.request_id == "last":
            context.set_trailing_metadata((("x-request-id", "server-8"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_stream = fail
    (item,) = call(server.address, "stream", "m", [("mine", X)])
    assert item.error.request_id == "mine"
    with pytest.raises(InferdError) as caught:
        call(server.address, "stream", "m", [("last", X)])
    assert caught.value.request_id == "server-8"


def test_errors_of_coalesced_calls_have_request_id(call, server, service):
    """The caller's id, or the one on the stream, which the server logs."""

    def refuse(messages, context):
        for message in messages:
            for request in message.requests:
                yield _reply(pb.InferResult(request_id=request.request_id, error=overload_status(retry_s=1)))

    service.on_stream = refuse
    for given, known in (("mine", "mine"), ("", "#0")):
        with pytest.raises(Overloaded) as caught:
            call(server.address, "infer", "m", X, settings={"coalesce": True}, request_id=given)
        assert caught.value.request_id == known
    service.on_stream = lambda messages, context: iter([])
    with pytest.raises(InferdError) as caught:
        call(server.address, "infer", "m", X, settings={"coalesce": True}, request_id="mine", timeout_s=0)
    assert caught.value.request_id == "mine"


@pytest.mark.parametrize("settings", [{}, {"coalesce": True}], ids=["alone", "coalesced"])
def test_infinite_timeout(call, server, service, settings):
    """It overrides the client's timeout."""
    remaining: list[float | None] = []

    def note(request, context):
        remaining.append(context.time_remaining())
        return pb.InferResponse()

    service.on_infer = note
    call(server.address, "infer", "m", X, settings=settings, timeout_s=float("inf"))
    assert all(left_s is None or left_s > 10**6 for left_s in remaining)
    assert not any(request.HasField("timeout") for request in service.requests)


def test_zero_timeout_of_stream(call, server, service):
    """Servers reject a timeout of 0, so the shortest one is sent."""
    call(server.address, "stream", "m", [X], timeout_s=0)
    call(server.address, "stream", "m", [X], timeout_s=float("inf"))
    assert [request.timeout.ToNanoseconds() for request in service.requests] == [1, 0]


@pytest.mark.parametrize("settings", [{}, {"coalesce": True}], ids=["alone", "coalesced"])
def test_zero_timeout_of_call(call, server, settings):
    """The call ends as timed out, and nothing is ready."""
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        call(server.address, "infer", "m", X, settings=settings, timeout_s=0)
    assert not call(server.address, "is_ready", timeout_s=0)
    with pytest.raises(DeadlineExceeded, match="not ready within 0 s: no answer"):
        call(server.address, "wait_until_ready", timeout_s=0)


def test_own_options_reach_the_channel(call, server):
    """For example a limit of received messages."""
    with pytest.raises(Overloaded, match="larger than max"):
        call(
            server.address,
            "infer",
            "m",
            {"x": np.zeros(1000)},
            settings={"options": {"grpc.max_receive_message_length": 100}, "retry": None},
        )


def test_compression(call, server, service):
    """Off by default."""
    call(server.address, "infer", "m", {"x": np.zeros(1000)}, settings={"compression": grpc.Compression.Gzip})
    assert service.requests[0].inputs[0].raw == bytes(8000)


class _Adding(
    grpc.UnaryUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds metadata to calls."""

    def intercept_unary_unary(self, continuation, client_call_details, request):
        return continuation(_marked(client_call_details), request)

    def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        return continuation(_marked(client_call_details), request_iterator)


class _AddingUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):
        return await continuation(_marked(client_call_details), request)


class _AddingStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        return await continuation(_marked(client_call_details), request_iterator)


def _marked(details):
    return details._replace(metadata=(*details.metadata, ("x-marked", "yes")))


def test_interceptors_see_all_calls(call, server, service):
    """Unary calls, streams and coalesced calls."""
    both = [_Adding()] if call.__name__ == "blocking" else [_AddingUnary(), _AddingStream()]
    for settings in ({}, {"coalesce": True}):
        result = call(server.address, "infer", "m", X, settings={"interceptors": both, **settings})
        assert result["x"] == 1
    assert call(server.address, "infer", "m", X, settings={"interceptors": both}, metadata={"a": "b"})["x"] == 1
    (item,) = call(server.address, "stream", "m", [X], settings={"interceptors": both})
    assert item.result()["x"] == 1
    assert [metadata.get("x-marked") for metadata in service.metadata] == ["yes"] * 4


def test_errors_with_interceptors(call, server, service):
    """A rejected call raises the same error."""
    service.on_infer = _abort(grpc.StatusCode.UNIMPLEMENTED, ("x-request-id", "server-9"))
    both = [_Adding()] if call.__name__ == "blocking" else [_AddingUnary(), _AddingStream()]
    for metadata in (None, {"a": "b"}):
        with pytest.raises(Unimplemented) as caught:
            call(server.address, "infer", "m", X, settings={"interceptors": both}, metadata=metadata)
        assert caught.value.request_id == "server-9"


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_unix_sockets(call, tmp_path, form):
    """Both forms of the path are accepted; it counts as this machine, so tokens are sent."""
    service = FakeService()
    path = tmp_path / "a server.sock"
    with serving(service, address=f"unix:{path}"):
        address = form.format(path)
        assert call(address, "is_ready", settings={"token": "t"})
        assert call(address, "infer", "m", X, settings={"token": "t"})["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_clients_are_not_copied(kind, copied):
    """A connection cannot be copied; the error says what to do."""
    with pytest.raises(TypeError, match=f"^{kind.__name__}: .* cannot be pickled or copied, make another one instead"):
        copied(kind("127.0.0.1:1"))


def test_results_and_errors_can_be_copied(client, service):
    """For other processes."""
    result = pickle.loads(pickle.dumps(client.infer("m", X, request_id="r")))
    assert (result["x"], result.request_id, dict(result)) == (1, "r", {"x": 1})
    service.on_infer = _abort(grpc.StatusCode.NOT_FOUND, ("x-request-id", "server-1"))
    with pytest.raises(InferdError) as caught:
        client.infer("m", X)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (type(error), str(error), error.request_id, error.status) == (
        type(caught.value),
        "no",
        "server-1",
        grpc.StatusCode.NOT_FOUND,
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_client_from_before_fork_raises(client):
    """The error says what to do, also in an open stream; leaving it does no harm."""
    asynchronous = AsyncClient("127.0.0.1:1")
    stream = client.stream("m", [X, X], max_in_flight=1)
    next(stream)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _told_after_fork(client, asynchronous, stream)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.infer("m", X)["x"] == 1


def _told_after_fork(client, asynchronous, stream) -> int:
    attempts = [
        client.models,
        lambda: client.infer("m", X),
        client.wait_until_ready,
        lambda: next(stream),
        asynchronous.infer("m", X).send,
    ]
    for attempt in attempts:
        try:
            attempt(None) if attempt is attempts[-1] else attempt()
        except RuntimeError as error:
            if "make one in each process" not in str(error):
                return 2
        else:
            return 3
    client.close()
    return 0
