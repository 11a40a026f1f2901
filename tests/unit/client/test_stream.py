"""Streams of the blocking client."""

import threading

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import Cancelled, Client, Internal, InvalidInput, Overloaded, Unavailable
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import echoed, overload_status


def _numbers(count: int):
    return ({"x": np.int64(n)} for n in range(count))


def _requests(messages):
    for message in messages:
        yield from message.requests


def _reply(*results: pb.InferResult) -> pb.StreamInferResponse:
    return pb.StreamInferResponse(results=results)


def test_every_element_gets_its_result(client, service):
    """With its index and id; parameters are sent with every request."""
    items = list(client.stream("m", _numbers(200), version="2", outputs=["x"], priority=1, timeout_s=1.5))
    assert [(i.index, i.request_id, i.result()["x"]) for i in items] == [(n, str(n), n) for n in range(200)]
    for request in service.requests:
        assert (request.model, request.version, list(request.outputs), request.priority) == ("m", "2", ["x"], 1)
        assert request.timeout.ToMilliseconds() == 1500


def _answer_backwards(messages, context):
    yield _reply(*reversed([echoed(request) for request in _requests(messages)]))


def test_yields_results_as_they_finish(client, service):
    """In the order of arrival, several of one message one by one."""
    service.on_stream = _answer_backwards
    assert [item.index for item in client.stream("m", _numbers(5))] == [4, 3, 2, 1, 0]


def test_yields_results_in_order(client, service):
    """With ``ordered``."""
    service.on_stream = _answer_backwards
    items = list(client.stream("m", _numbers(5), ordered=True))
    assert [(item.index, item.result()["x"]) for item in items] == [(n, n) for n in range(5)]


def test_own_request_ids(client):
    """In pairs with the inputs."""
    items = list(client.stream("m", [("a", {"x": 1}), ("b", {"x": 2})]))
    assert {item.request_id: item.result()["x"].item() for item in items} == {"a": 1, "b": 2}


def test_requests_fail_alone(client, service):
    """The item has the error; the stream continues."""

    def refuse_second(messages, context):
        for request in _requests(messages):
            if request.request_id == "1":
                yield _reply(pb.InferResult(request_id="1", error=overload_status(retry_s=0.2)))
            else:
                yield _reply(echoed(request))

    service.on_stream = refuse_second
    first, second, third = client.stream("m", _numbers(3))
    assert first.error is None
    assert (first.result()["x"], third.result()["x"]) == (0, 2)
    assert isinstance(second.error, Overloaded)
    assert (second.error.reason, second.error.retry_after_s) == ("QUEUE_FULL", 0.2)
    with pytest.raises(Overloaded):
        second.result()


@pytest.mark.parametrize("ordered", [False, True])
def test_inputs_are_read_lazily(client, ordered):
    """Of an endless iterable, no more elements are read than were yielded and may be in flight."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield {"x": 0}

    stream = client.stream("m", endless(), max_in_flight=3, ordered=ordered)
    for taken, _ in enumerate(stream, start=1):
        assert read <= taken + 3
        if taken == 50:
            break
    stream.close()


def test_results_arrive_while_the_inputs_wait(client):
    """An iterable that waits for the result of its last element does not deadlock."""
    seen = threading.Event()

    def source():
        yield {"x": 1}
        assert seen.wait(PATIENCE_S)
        yield {"x": 2}

    values = []
    for item in client.stream("m", source()):
        values.append(item.result()["x"].item())
        seen.set()
    assert values == [1, 2]


def test_leaving_the_loop_cancels_the_stream(client, service):
    """The server is notified at once, and the iterable is not read any more."""
    cancelled = threading.Event()
    echo_stream = service.on_stream

    def watched(messages, context):
        context.add_callback(cancelled.set)
        yield from echo_stream(messages, context)

    service.on_stream = watched
    stream = client.stream("m", ({"x": 0} for _ in iter(int, 1)), max_in_flight=2)
    next(stream)
    stream.close()
    assert cancelled.wait(PATIENCE_S)


def test_exception_of_iterable_is_raised_after_results(client):
    """Earlier requests are still answered."""

    def failing():
        yield {"x": 1}
        yield {"x": 2}
        raise OSError("disk")

    stream = client.stream("m", failing())
    assert [next(stream).result()["x"], next(stream).result()["x"]] == [1, 2]
    with pytest.raises(OSError, match="disk"):
        next(stream)


def test_base_exceptions_of_iterable_are_raised(client):
    """They do not end the stream silently."""

    def leaving():
        yield {"x": 1}
        raise SystemExit(3)

    stream = client.stream("m", leaving())
    assert next(stream).result()["x"] == 1
    with pytest.raises(SystemExit):
        next(stream)


def test_requests_share_messages_of_a_limited_size(client, service):
    """Large elements are split over messages of a size that servers accept."""
    sizes: list[int] = []

    def watched(messages, context):
        for message in messages:
            sizes.append(message.ByteSize())
            yield _reply(*map(echoed, message.requests))

    service.on_stream = watched
    big = np.zeros(300_000, np.uint8)
    items = list(client.stream("m", ({"x": big} for _ in range(40)), ordered=True))
    assert [item.result()["x"].size for item in items] == [300_000] * 40
    assert max(sizes) < 1.1 * 1024 * 1024


def test_unsupported_type_ends_inputs(client):
    """The error names the input, after the results of earlier requests."""
    stream = client.stream("m", [{"x": 1}, {"x": np.array([1j])}, {"x": 3}])
    assert next(stream).result()["x"] == 1
    with pytest.raises(InvalidInput, match="complex128") as caught:
        next(stream)
    assert caught.value.request_id == "1"


def test_broken_stream_raises(client, service):
    """Its status, after a result."""

    def break_down(messages, context):
        yield _reply(echoed(next(_requests(messages))))
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_stream = break_down
    stream = client.stream("m", _numbers(100), max_in_flight=2)
    assert next(stream).result()["x"] == 0
    with pytest.raises(Unavailable, match="draining"):
        list(stream)


def test_missing_results_are_detected(client, service):
    """If a server ends the stream with OK too early."""

    def answer_the_first(messages, context):
        first, *_ = _requests(messages)
        yield _reply(echoed(first))

    service.on_stream = answer_the_first
    with pytest.raises(Internal, match="2 requests unanswered"):
        list(client.stream("m", _numbers(3)))


def test_closing_the_client_ends_its_streams(server):
    """With Cancelled."""
    client = Client(server.address)
    stream = client.stream("m", ({"x": 0} for _ in iter(int, 1)), max_in_flight=1)
    next(stream)
    client.close()
    with pytest.raises(Cancelled):
        list(stream)


def test_rejects_window_of_zero(client):
    """It would wait forever."""
    with pytest.raises(ValueError, match="max_in_flight is 0, expected at least 1"):
        client.stream("m", [], max_in_flight=0)
