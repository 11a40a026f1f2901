"""Callers that go away at random moments, over gRPC and HTTP, and what is left of them."""

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import grpc

from benchmarks.bounded.target import MIB, Target, ask_for_events, request, settled, some_request
from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub

if TYPE_CHECKING:
    from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceAsyncStub

_AT_ONCE = 48
_WARM_UP = 500
#: How often memory is looked at meanwhile.
_PARTS = 4
_NOTHING_LEFT = (
    "inferd_sequences_running",
    "inferd_sequences_waiting",
    "inferd_waiting_tokens",
    "inferd_kv_cache_used_bytes",
    "inferd_message_bytes",
    "inferd_inflight_requests",
)
#: Prompts of several chunks, so that some go away while theirs is read.
_LONGEST_PROMPT = 220

Figures = dict[str, object]


async def measure(target: Target, *, count: int) -> Figures:
    """Return the figures."""
    draw = random.Random(3)
    async with target.channel() as channel:
        callers = _Callers(target, GenerationServiceStub(channel), draw)
        await callers.learn()
        await callers.run(_WARM_UP)
        before = await _held(target)
        began = time.monotonic()
        callers.moments.clear()
        rss = [before["rss"]]
        for _ in range(_PARTS):
            await callers.run(count // _PARTS)
            rss.append(target.rss_bytes())
        seconds = time.monotonic() - began
        after = await _held(target)
        left = await settled(target, _NOTHING_LEFT)
        # The answers of others are as before.
        whole = [response async for response in callers.stub.Generate(request([5, 6, 7], 8))]
    return {
        "cancels": count,
        "seconds": round(seconds, 1),
        "moments": dict(callers.moments.most_common()),
        "left": left,
        "threads": f"{before['threads']:g} to {after['threads']:g}",
        "descriptors": f"{before['descriptors']:g} to {after['descriptors']:g}",
        "resident MiB": [round(value / MIB, 1) for value in (*rss, after["rss"])],
        "a request afterwards": "complete" if sum(len(each.token_ids) for each in whole) == 8 else "incomplete",
    }


async def _held(target: Target) -> dict[str, float]:
    await settled(target, _NOTHING_LEFT)
    process = target.process
    return {"threads": process.num_threads(), "descriptors": process.num_fds(), "rss": target.rss_bytes()}


class _Callers:
    """Calls that are cancelled; ``moments`` counts the states that they were in then, as far as callers know."""

    def __init__(self, target: Target, stub: "GenerationServiceAsyncStub", draw: random.Random) -> None:
        self.stub = stub
        self.moments: Counter[str] = Counter()
        self._target = target
        self._draw = draw
        self._typical_s = 0.0

    async def learn(self) -> None:
        """Find out how long a call takes beside as many others."""
        began = time.monotonic()
        await asyncio.gather(*(self._read(self.stub.Generate(self._request())) for _ in range(4 * _AT_ONCE)))
        self._typical_s = (time.monotonic() - began) / 4

    async def run(self, count: int) -> None:
        """Make and cancel ``count`` calls, some at a time."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await (self._over_http() if number % 2 else self._over_grpc())

        await asyncio.gather(*(one(number) for number in range(count)))

    async def _over_grpc(self) -> None:
        call = self.stub.Generate(self._request())
        reading = asyncio.create_task(self._read(call))
        await asyncio.sleep(self._moment_s())
        state = "gRPC, after the end" if call.done() else "gRPC, before it"
        call.cancel()
        tokens = await reading
        self.moments[f"{state}, {'some' if tokens else 'no'} tokens"] += 1

    async def _read(self, call: "grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]") -> int:
        tokens = 0
        try:
            async for response in call:
                tokens += len(response.token_ids)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        return tokens

    async def _over_http(self) -> None:
        events = await ask_for_events(self._target, self._request())
        tokens, state = 0, "HTTP, before it"
        try:
            async with asyncio.timeout(self._moment_s()):
                async for _ in events.tokens():
                    tokens += 1
                state = "HTTP, after the end"
        except (TimeoutError, ConnectionError):
            pass
        await events.close()
        self.moments[f"{state}, {'some' if tokens else 'no'} tokens"] += 1

    def _request(self) -> pb.GenerateRequest:
        if self._draw.random() < 0.5:
            return some_request(self._draw)
        return request([7] * self._draw.randint(64, _LONGEST_PROMPT), self._draw.randint(1, 32))

    def _moment_s(self) -> float:
        """Return when to cancel: at once, or up to a little after the end."""
        return 0.0 if self._draw.random() < 0.1 else self._draw.uniform(0.0, 1.3 * self._typical_s)
