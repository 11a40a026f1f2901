"""What a call brings along and what comes back beside its answer, with either client."""

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
    ("method", "arguments"), [("infer", ["m", X]), ("stream", ["m", []]), ("models", []), ("model", ["digits"])]
)
def test_metadata_of_a_call_goes_with_it(call, server, service, method, arguments):
    """It comes beside what the client sends, in place of what has the same key, and with this call only."""
    settings = {"token": "t", "metadata": {"x-team": "a", "x-trace": "old"}}
    call(server.address, method, *arguments, settings=settings, metadata={"X-Trace": "new", "data-bin": b"\xff"})
    call(server.address, method, *arguments, settings=settings)
    first, second = service.metadata
    assert (first["authorization"], first["x-team"], first["x-trace"]) == ("Bearer t", "a", "new")
    assert first["data-bin"] == b"\xff"
    assert second["x-trace"] == "old"
    assert "data-bin" not in second


def test_readiness_takes_metadata_too(call, server, service):
    """A model's readiness is asked with it."""
    assert call(server.address, "is_ready", "digits", metadata={"x-team": "a"})
    call(server.address, "wait_until_ready", "digits", metadata={"x-team": "b"})
    assert [metadata["x-team"] for metadata in service.metadata] == ["a", "b"]


def test_a_call_with_metadata_does_not_share_a_stream(call, server, service):
    """A shared stream has the client's metadata, so such a call goes by itself; others share it still."""
    call(server.address, "infer", "m", X, settings={"coalesce": True}, metadata={"x-trace": "1"})
    call(server.address, "infer", "m", X, settings={"coalesce": True, "metadata": {"x-trace": "2"}})
    assert [metadata["x-trace"] for metadata in service.metadata] == ["1", "2"]
    call(server.address, "infer", "m", X, settings={"coalesce": True}, wait_for_ready=False)
    call(server.address, "infer", "m", X, settings={"coalesce": True}, wait_for_ready=True)
    assert [request.HasField("timeout") for request in service.requests] == [False, True, True, False]


def test_what_comes_with_the_answer(call, server, service):
    """A call with metadata of its own has the answer's; without, nobody asks for it."""

    def timed(request, context):
        context.set_trailing_metadata((("inferd-timing", "run;dur=1"), ("grpc-own", "no"), ("load-bin", b"\1")))
        return pb.InferResponse()

    service.on_infer = timed
    result = call(server.address, "infer", "m", X, metadata={"inferd-timing": "1"})
    assert result.metadata == {"inferd-timing": "run;dur=1", "load-bin": b"\1"}
    assert call(server.address, "infer", "m", X).metadata == {}


def test_errors_know_their_request(call, server, service):
    """By the id that the caller gave, or else the one that the server gave the call."""
    service.on_infer = _abort(grpc.StatusCode.INTERNAL, ("x-request-id", "server-7"), ("inferd-timing", "total;dur=1"))
    for given, known in (("mine", "mine"), ("", "server-7")):
        with pytest.raises(InferdError) as caught:
            call(server.address, "infer", "m", X, request_id=given)
        assert caught.value.request_id == known
        assert caught.value.metadata == {"x-request-id": "server-7", "inferd-timing": "total;dur=1"}


def test_errors_without_an_answer_know_their_request(call):
    """The caller's own id is there too if nobody has answered; without one there is none."""
    for given in ("mine", ""):
        with pytest.raises(InferdError) as caught:
            call("127.0.0.1:1", "infer", "m", X, settings={"retry": None}, request_id=given)
        assert (caught.value.request_id, caught.value.metadata) == (given, {})


def test_errors_of_a_stream_know_their_request(call, server, service):
    """An item's by the id of its element; the stream's own by the server's."""

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


def test_errors_on_a_shared_stream_know_their_request(call, server, service):
    """By the caller's id, or the one that the request had on the stream, which the server logs."""

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
def test_no_deadline(call, server, service, settings):
    """Infinity takes the client's timeout away from a call."""
    remaining: list[float | None] = []

    def note(request, context):
        remaining.append(context.time_remaining())
        return pb.InferResponse()

    service.on_infer = note
    call(server.address, "infer", "m", X, settings=settings, timeout_s=float("inf"))
    assert all(left_s is None or left_s > 10**6 for left_s in remaining)
    assert not any(request.HasField("timeout") for request in service.requests)


def test_no_time_for_the_requests_of_a_stream(call, server, service):
    """Servers take a timeout of 0 to be a mistake, so the shortest one is sent."""
    call(server.address, "stream", "m", [X], timeout_s=0)
    call(server.address, "stream", "m", [X], timeout_s=float("inf"))
    assert [request.timeout.ToNanoseconds() for request in service.requests] == [1, 0]


@pytest.mark.parametrize("settings", [{}, {"coalesce": True}], ids=["alone", "coalesced"])
def test_no_time_for_a_call(call, server, settings):
    """A call without any time ends as one whose time has passed, and nobody is ready within none."""
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        call(server.address, "infer", "m", X, settings=settings, timeout_s=0)
    assert not call(server.address, "is_ready", timeout_s=0)
    with pytest.raises(DeadlineExceeded, match="not ready within 0 s: no answer"):
        call(server.address, "wait_until_ready", timeout_s=0)


def test_own_options_reach_the_channel(call, server):
    """One that is seen from outside: a limit on what is received."""
    with pytest.raises(Overloaded, match="larger than max"):
        call(
            server.address,
            "infer",
            "m",
            {"x": np.zeros(1000)},
            settings={"options": {"grpc.max_receive_message_length": 100}, "retry": None},
        )


def test_compressed_requests_arrive(call, server, service):
    """GRPC's compression is the caller's to switch on."""
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
    """Unary calls, streams and calls that share one pass through the caller's own interceptors."""
    both = [_Adding()] if call.__name__ == "blocking" else [_AddingUnary(), _AddingStream()]
    for settings in ({}, {"coalesce": True}):
        result = call(server.address, "infer", "m", X, settings={"interceptors": both, **settings})
        assert result["x"] == 1
    assert call(server.address, "infer", "m", X, settings={"interceptors": both}, metadata={"a": "b"})["x"] == 1
    (item,) = call(server.address, "stream", "m", [X], settings={"interceptors": both})
    assert item.result()["x"] == 1
    assert [metadata.get("x-marked") for metadata in service.metadata] == ["yes"] * 4


def test_errors_come_through_interceptors(call, server, service):
    """A refused call is the same error with interceptors."""
    service.on_infer = _abort(grpc.StatusCode.UNIMPLEMENTED, ("x-request-id", "server-9"))
    both = [_Adding()] if call.__name__ == "blocking" else [_AddingUnary(), _AddingStream()]
    for metadata in (None, {"a": "b"}):
        with pytest.raises(Unimplemented) as caught:
            call(server.address, "infer", "m", X, settings={"interceptors": both}, metadata=metadata)
        assert caught.value.request_id == "server-9"


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_unix_sockets(call, tmp_path, form):
    """Both ways to write the path of a socket are understood; it counts as this machine, so a token may go there."""
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
    """A connection belongs to who made it; the message says what to do."""
    with pytest.raises(TypeError, match=f"^{kind.__name__}: .* cannot be pickled or copied, make another one instead"):
        copied(kind("127.0.0.1:1"))


def test_results_and_errors_are_copied(client, service):
    """What calls come to may go to another process."""
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
def test_forks_are_told(client):
    """A client from before the fork says what to do instead, also in a stream begun before; leaving it does no harm."""
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
