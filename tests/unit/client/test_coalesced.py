"""Coalesced calls of many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import Cancelled, Client, DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from inferd.client.stream import MESSAGE_BYTES
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import echoed, overload_status


@pytest.fixture
def client(server):
    """A client with coalescing."""
    with Client(server.address, coalesce=True) as connected:
        yield connected


def _requests(messages):
    for message in messages:
        yield from message.requests


def _reply(*results: pb.InferResult) -> pb.StreamInferResponse:
    return pb.StreamInferResponse(results=results)


def _in_pairs_backwards(messages, context):
    requests = _requests(messages)
    for first in requests:
        yield _reply(echoed(next(requests)), echoed(first))


def test_each_call_gets_its_own_answer(client, service):
    """Calls of many threads share one stream."""

    def call(number: int) -> int:
        return client.infer("m", {"x": np.int64(number)})["x"].item()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(400))) == list(range(400))
    assert len(service.metadata) == 1


def test_sends_every_parameter(client, service):
    """With the request, including the timeout and the caller's id, which is returned."""
    result = client.infer("m", {"x": 1}, outputs=["x"], version="2", priority=3, timeout_s=5, request_id="r")
    (request,) = service.requests
    assert (request.model, request.version, list(request.outputs)) == ("m", "2", ["x"])
    assert (request.priority, request.request_id, request.timeout.ToMilliseconds()) == (3, "r", 5000)
    assert (result.request_id, result.version) == ("r", "2")
    assert client.infer("m", {"x": 1}).request_id == ""


def test_callers_may_use_the_same_id(client, service):
    """Two concurrent calls with one id each get their own answer, with their id."""
    service.on_stream = _in_pairs_backwards

    def call(number: int):
        return client.infer("m", {"x": np.int64(number)}, request_id="same")

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(call, range(2)))
    assert [(result["x"].item(), result.request_id) for result in results] == [(0, "same"), (1, "same")]


def test_calls_fail_alone(client, service):
    """A rejection is raised by its call, with the retry delay, and is not retried."""

    def refuse_twos(messages, context):
        for request in _requests(messages):
            result = echoed(request)
            if request.request_id == "2":
                result = pb.InferResult(request_id="2", error=overload_status(retry_s=0.2))
            yield _reply(result)

    service.on_stream = refuse_twos
    with pytest.raises(Overloaded) as caught:
        client.infer("m", {"x": 1}, request_id="2")
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 0.2)
    assert client.infer("m", {"x": 1}, request_id="1")["x"] == 1
    assert len(service.metadata) == 1


def test_rejects_unsupported_types(client, service):
    """Without affecting the stream."""
    with pytest.raises(InvalidInput, match="complex128"):
        client.infer("m", {"x": np.array([1j])})
    assert service.metadata == []


def test_late_answer_is_dropped(client, service):
    """It is not given to a later call with the same id."""

    def answer_the_first_late(messages, context):
        requests = _requests(messages)
        first, second = next(requests), next(requests)
        yield _reply(echoed(first), pb.InferResult(request_id="nobody"), echoed(second))
        yield from service._echo_stream(messages, context)

    service.on_stream = answer_the_first_late
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.01 s"):
        client.infer("m", {"x": 1}, request_id="a", timeout_s=0.01)
    assert client.infer("m", {"x": 2}, request_id="a")["x"] == 2
    assert client.infer("m", {"x": 3}, request_id="a")["x"] == 3


def test_expired_timeout(client, service):
    """The call ends as timed out."""
    service.on_stream = lambda messages, context: iter(list(messages)[:0])
    with pytest.raises(DeadlineExceeded):
        client.infer("m", {"x": 1}, timeout_s=0)


def test_broken_stream_fails_open_calls(client, service):
    """With its status, and the next call opens another."""
    working = service.on_stream

    def break_down(messages, context):
        requests = _requests(messages)
        next(requests), next(requests)
        yield pb.StreamInferResponse()  # Before the first answer, gRPC would retry the stream itself.
        service.on_stream = working
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_stream = break_down

    def call(_: int):
        with pytest.raises(Unavailable, match="draining") as caught:
            client.infer("m", {"x": 1})
        return caught.value

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(call, range(2))
    assert first is not second
    assert isinstance(first.__context__, grpc.RpcError)
    assert client.infer("m", {"x": 1})["x"] == 1


def test_stream_ended_by_server_is_unavailable(client, service):
    """Even with OK, because its calls are not answered."""

    def end_at_once(messages, context):
        next(messages)
        return
        yield

    service.on_stream = end_at_once
    with pytest.raises(Unavailable, match="the server ended the stream"):
        client.infer("m", {"x": 1})


def test_closing_cancels_waiting_calls(server, service):
    """They end with Cancelled, and the client's threads end."""
    begun = threading.Event()

    def hang(messages, context):
        next(messages)
        begun.set()
        yield from (_reply() for _ in messages)

    service.on_stream = hang
    client = Client(server.address, coalesce=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.infer, "m", {"x": 1})
        assert begun.wait(PATIENCE_S)
        client.close()
        with pytest.raises(Cancelled):
            waiting.result(10)
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.infer("m", {"x": 1})
    for thread in threading.enumerate():
        if thread.name.startswith("inferd-client"):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_large_requests_are_separate_calls(client, service):
    """If a request would fill a message alone, so that others do not wait behind it."""
    big = np.zeros(MESSAGE_BYTES + 1, np.uint8)
    np.testing.assert_array_equal(client.infer("m", {"x": big}, timeout_s=5)["x"], big)
    assert not service.requests[0].HasField("timeout")
