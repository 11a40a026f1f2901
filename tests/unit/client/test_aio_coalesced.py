"""Coalesced calls of many tasks: asyncio's own behaviour, and that it equals that of threads."""

import asyncio
import threading

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import AsyncClient, Cancelled, DeadlineExceeded, Overloaded, Unavailable
from inferd.client.stream import MESSAGE_BYTES
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import echoed, overload_status


def _requests(messages):
    for message in messages:
        yield from message.requests


def _gathering(begun: threading.Event):
    """Record that a request has arrived, without answering it."""

    def hang(messages, context):
        for _ in messages:
            begun.set()
        yield from ()

    return hang


def test_each_call_gets_its_own_answer(server, service):
    """Concurrent calls share a stream and its messages."""
    arrived: list[int] = []

    def count(messages, context):
        for message in messages:
            arrived.append(len(message.requests))
            yield pb.StreamInferResponse(results=reversed([echoed(request) for request in message.requests]))

    service.on_stream = count

    async def run():
        async with AsyncClient(server.address, coalesce=True) as client:
            calls = (client.infer("m", {"x": n}, request_id="same", timeout_s=5) for n in range(200))
            return await asyncio.gather(*calls)

    results = asyncio.run(run())
    assert [(result["x"], result.request_id) for result in results] == [(n, "same") for n in range(200)]
    assert sum(arrived) == 200
    assert len(arrived) < 200
    assert len(service.metadata) == 1


def test_calls_fail_alone(server, service):
    """A rejection and a timeout each end their own call, and the stream continues."""

    def answer(messages, context):
        for request in _requests(messages):
            if request.request_id == "refused":
                error = overload_status(retry_s=0.2)
                yield pb.StreamInferResponse(results=[pb.InferResult(request_id="refused", error=error)])
            elif request.request_id != "late":
                yield pb.StreamInferResponse(results=[echoed(request)])

    service.on_stream = answer

    async def run():
        async with AsyncClient(server.address, coalesce=True) as client:
            return await asyncio.gather(
                client.infer("m", {"x": 1}, request_id="refused"),
                client.infer("m", {"x": 1}, request_id="late", timeout_s=0.01),
                client.infer("m", {"x": 1}, request_id="fine"),
                return_exceptions=True,
            )

    refused, late, fine = asyncio.run(run())
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_s == 0.2
    assert isinstance(late, DeadlineExceeded)
    assert fine["x"] == 1


def test_cancelling_a_task_does_not_affect_others(server, service):
    """The answer to a cancelled call is dropped, even if another call has the same id."""
    begun = threading.Event()

    def answer_both(messages, context):
        requests = _requests(messages)
        first = next(requests)
        begun.set()
        yield pb.StreamInferResponse(results=[echoed(first), echoed(next(requests))])

    service.on_stream = answer_both

    async def run():
        async with AsyncClient(server.address, coalesce=True) as client:
            task = asyncio.create_task(client.infer("m", {"x": 1}, request_id="a"))
            assert await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.infer("m", {"x": 2}, request_id="a"))["x"] == 2

    asyncio.run(run())


def test_broken_stream_fails_open_calls(server, service):
    """With its status, and the next call opens another."""
    working = service.on_stream

    def break_down(messages, context):
        requests = _requests(messages)
        next(requests), next(requests)
        yield pb.StreamInferResponse()  # Before the first answer, gRPC would retry the stream itself.
        service.on_stream = working
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_stream = break_down

    async def run():
        async with AsyncClient(server.address, coalesce=True) as client:
            calls = (client.infer("m", {"x": 1}) for _ in range(2))
            broken = await asyncio.gather(*calls, return_exceptions=True)
            return broken, await client.infer("m", {"x": 1})

    (first, second), after = asyncio.run(run())
    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert first.message == second.message == "draining"
    assert after["x"] == 1


def test_closing_cancels_waiting_calls(server, service):
    """They end with Cancelled; their tasks are not cancelled."""
    begun = threading.Event()
    service.on_stream = _gathering(begun)

    async def run():
        client = AsyncClient(server.address, coalesce=True)
        task = asyncio.create_task(client.infer("m", {"x": 1}))
        assert await asyncio.to_thread(begun.wait, 10)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await task
        with pytest.raises(RuntimeError, match="the client is closed"):
            await client.infer("m", {"x": 1})
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run())


def test_closing_right_after_opening(server):
    """A stream that is cancelled before it has started does not block closing."""

    async def run():
        client = AsyncClient(server.address, coalesce=True)
        task = asyncio.create_task(client.infer("m", {"x": 1}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(client.close(), PATIENCE_S)

    asyncio.run(run())


def test_large_requests_are_separate_calls(server, service):
    """If a request would fill a message alone."""
    big = np.zeros(MESSAGE_BYTES + 1, np.uint8)

    async def run():
        async with AsyncClient(server.address, coalesce=True) as client:
            return await client.infer("m", {"x": big}, timeout_s=5)

    np.testing.assert_array_equal(asyncio.run(run())["x"], big)
    assert not service.requests[0].HasField("timeout")
