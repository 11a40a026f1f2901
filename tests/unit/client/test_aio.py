"""The asyncio client over a real socket: its own behaviour, and that it equals the blocking one."""

import asyncio
import inspect
import threading

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    RetryPolicy,
    Unavailable,
)
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import echo, echoed, overload_status, refuse


def _hang_until_gone(begun: threading.Event, gone: threading.Event):
    def hang(request, context):
        context.add_callback(gone.set)
        begun.set()
        gone.wait(PATIENCE_S)
        return pb.InferResponse()

    return hang


def _numbers(count: int):
    return ({"x": np.int64(n)} for n in range(count))


def test_both_clients_have_the_same_methods():
    """Constructor and methods take the same parameters with the same defaults."""
    for name in ("__init__", "infer", "stream", "models", "model", "is_ready", "wait_until_ready", "close"):
        ours = inspect.signature(getattr(AsyncClient, name)).parameters
        theirs = inspect.signature(getattr(Client, name)).parameters
        assert [(p.name, p.kind, p.default) for p in ours.values()] == [
            (p.name, p.kind, p.default) for p in theirs.values()
        ]


def test_infer_returns_outputs(server):
    """Concurrent calls each get their own answer."""

    async def run():
        async with AsyncClient(server.address) as client:
            return await asyncio.gather(*(client.infer("m", {"x": n}, request_id=str(n)) for n in range(20)))

    results = asyncio.run(run())
    assert [(r["x"], r.request_id) for r in results] == [(n, str(n)) for n in range(20)]


def test_models_and_readiness(server):
    """Descriptions, readiness and errors equal those of the blocking client."""

    async def run():
        async with AsyncClient(server.address, token="t", metadata={"x-team": "a"}) as client:
            with pytest.raises(NotFound):
                await client.model("nope")
            assert await client.is_ready()
            assert await client.is_ready("digits")
            assert not await client.is_ready("nope")
            server.drain()
            assert not await client.is_ready()
            return await client.models(), await client.model("digits")

    listed, digits = asyncio.run(run())
    with Client(server.address) as client:
        assert client.models() == listed == [digits]


def test_retries_rejected_calls_with_pushback(server, service):
    """With the token on every attempt."""

    def answer(request, context):
        return refuse(context, pushback_ms="10") if len(service.requests) <= 2 else echo(request)

    async def run():
        policy = RetryPolicy(initial_backoff_s=600, max_backoff_s=600)
        async with AsyncClient(server.address, token="t", retry=policy) as client:
            return await client.infer("m", {"x": 1})

    service.on_infer = answer
    assert asyncio.run(run())["x"] == 1
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer t"] * 3


def test_rejections_have_retry_delay(server, service):
    """Details and trailing metadata of asyncio's errors are parsed as well."""
    details = overload_status(retry_s=0.5).SerializeToString()
    service.on_infer = lambda _, context: refuse(context, pushback_ms=None, details=details)

    async def run():
        async with AsyncClient(server.address, retry=None) as client:
            await client.infer("m", {})

    with pytest.raises(Overloaded) as caught:
        asyncio.run(run())
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 0.5)
    assert caught.value.__suppress_context__


def test_timeouts_end_calls(server, service):
    """A call has its own timeout, or the client's."""
    gone = threading.Event()
    service.on_infer = _hang_until_gone(threading.Event(), gone)

    async def run():
        async with AsyncClient(server.address, timeout_s=0.05) as client:
            await client.infer("m", {})

    with pytest.raises(DeadlineExceeded):
        asyncio.run(run())
    assert gone.wait(PATIENCE_S)


def test_cancelling_a_task_cancels_its_call(server, service):
    """The task ends with CancelledError, and the server is notified."""
    begun, gone = threading.Event(), threading.Event()
    service.on_infer = _hang_until_gone(begun, gone)

    async def run():
        async with AsyncClient(server.address) as client:
            task = asyncio.create_task(client.infer("m", {}))
            assert await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gone.wait, 10)

    asyncio.run(run())


def test_closing_cancels_open_calls(server, service):
    """They end with Cancelled, and their tasks are not cancelled."""
    begun, gone = threading.Event(), threading.Event()
    service.on_infer = _hang_until_gone(begun, gone)

    async def run():
        client = AsyncClient(server.address)
        task = asyncio.create_task(client.infer("m", {}))
        assert await asyncio.to_thread(begun.wait, 10)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await task
        with pytest.raises(RuntimeError, match="the client is closed"):
            await client.models()

    asyncio.run(run())


@pytest.mark.parametrize("ordered", [False, True])
def test_streams_accept_asynchronous_inputs(server, service, ordered):
    """An asynchronous iterable is read as slots become free, and each element gets its own result."""

    def in_pairs_backwards(messages, context):
        requests = (request for message in messages for request in message.requests)
        for first in requests:
            yield pb.StreamInferResponse(results=[echoed(next(requests)), echoed(first)])

    service.on_stream = in_pairs_backwards

    async def numbers():
        for n in range(6):
            yield f"id-{n}", {"x": np.int64(n)}

    async def run():
        async with AsyncClient(server.address) as client:
            return [item async for item in client.stream("m", numbers(), max_in_flight=2, ordered=ordered)]

    items = asyncio.run(run())
    assert [item.index for item in items] == ([0, 1, 2, 3, 4, 5] if ordered else [1, 0, 3, 2, 5, 4])
    assert all((item.request_id, item.result()["x"]) == (f"id-{item.index}", item.index) for item in items)


def test_inputs_are_read_lazily(server):
    """Of an endless iterable, no more elements are read than were yielded and may be in flight."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield {"x": 0}

    async def run():
        taken = 0
        async with AsyncClient(server.address) as client:
            stream = client.stream("m", endless(), max_in_flight=3)
            async for _ in stream:
                taken += 1
                assert read <= taken + 3
                if taken == 50:
                    break
            await stream.aclose()

    asyncio.run(run())


def test_exception_of_iterable_is_raised_after_results(server):
    """Earlier requests are still answered."""

    async def failing():
        yield {"x": 1}
        raise OSError("disk")

    async def run():
        async with AsyncClient(server.address) as client:
            stream = client.stream("m", failing())
            assert (await anext(stream)).result()["x"] == 1
            with pytest.raises(OSError, match="disk"):
                await anext(stream)

    asyncio.run(run())


def test_broken_stream_raises_while_inputs_wait(server, service):
    """Even if the iterable yields nothing."""

    def break_down(messages, context):
        request = next(messages).requests[0]
        yield pb.StreamInferResponse(results=[echoed(request)])
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_stream = break_down

    async def run():
        queue: asyncio.Queue[dict[str, int]] = asyncio.Queue()
        queue.put_nowait({"x": 1})

        async def source():
            while True:
                yield await queue.get()

        async with AsyncClient(server.address) as client:
            stream = client.stream("m", source())
            assert (await anext(stream)).result()["x"] == 1
            with pytest.raises(Unavailable, match="draining"):
                await anext(stream)

    asyncio.run(run())


def test_leaving_the_loop_cancels_the_stream(server, service):
    """Closing the generator cancels the call in the server."""
    cancelled = threading.Event()
    echo_stream = service.on_stream

    def watched(messages, context):
        context.add_callback(cancelled.set)
        yield from echo_stream(messages, context)

    service.on_stream = watched

    async def run():
        async with AsyncClient(server.address) as client:
            stream = client.stream("m", ({"x": 0} for _ in iter(int, 1)), max_in_flight=2)
            await anext(stream)
            await stream.aclose()
            assert await asyncio.to_thread(cancelled.wait, 10)

    asyncio.run(run())
