"""A stop signal while answers are streamed over all protocols."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc

from benchmarks.bounded.target import (
    PATIENCE_S,
    Outcome,
    Target,
    ask_for_events,
    generate,
    some_request,
    triton_request,
    triton_tokens,
)
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceAsyncStub
    from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

Figures = dict[str, object]

#: What ends a call that the server never accepted.
_NOT_ACCEPTED = (grpc.StatusCode.UNAVAILABLE,)


async def measure(target: Target, *, callers: int) -> Figures:
    """Return the figures. A call that is cut off after it was admitted counts as lost."""
    draw, outcomes = random.Random(5), Counter[str]()
    async with target.channel() as channel, target.channel() as triton_channel:
        stub, triton = GenerationServiceStub(channel), GRPCInferenceServiceStub(triton_channel)
        tasks = [
            asyncio.create_task(one)
            for _ in range(callers)
            for one in (_over_grpc(stub, draw), _over_http(target, draw), _as_triton(triton, draw))
        ]
        while (await asyncio.to_thread(target.metrics))["inferd_generation_tokens_total"] < 100:
            await asyncio.sleep(0.02)
        admitted = (await asyncio.to_thread(target.metrics))["inferd_inflight_requests"]
        target.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            outcomes[outcome if isinstance(outcome, str) else repr(outcome)[:120]] += 1
        answered_s = time.monotonic() - began
    while target.server.ended_with is None and time.monotonic() < began + PATIENCE_S:
        await asyncio.sleep(0.05)
    return {
        "streams": 3 * callers,
        "open at the signal": int(admitted),
        "outcomes": dict(outcomes.most_common()),
        "answers complete after, s": round(answered_s, 2),
        "ended after, s": round(time.monotonic() - began, 2),
        "exit status": target.server.ended_with,
    }


async def _over_grpc(stub: "GenerationServiceAsyncStub", draw: random.Random) -> str:
    asked = some_request(draw)
    outcome: Outcome = await generate(stub, asked)
    if outcome.code in _NOT_ACCEPTED and not outcome.tokens:
        return "gRPC: not accepted"
    return "gRPC: complete" if outcome.tokens == asked.max_tokens else f"gRPC: lost ({outcome.code.name})"


async def _over_http(target: Target, draw: random.Random) -> str:
    asked = some_request(draw)
    try:
        events = await ask_for_events(target, asked)
    except ConnectionError:
        return "HTTP: not accepted"
    tokens, count = 0, 0
    try:
        async for number in events.tokens():
            tokens, count = tokens + number, count + 1
    except ConnectionError as error:
        return f"HTTP: lost ({error})" if count else f"HTTP: not accepted ({error})"
    finally:
        await events.close()
    return "HTTP: complete" if tokens == asked.max_tokens else "HTTP: lost"


async def _as_triton(stub: "GRPCInferenceServiceAsyncStub", draw: random.Random) -> str:
    asked, answered = some_request(draw), asyncio.Event()

    async def messages() -> AsyncIterator[oip.ModelInferRequest]:
        yield triton_request(asked, streams=True)
        # Triton's client keeps its stream open.
        await answered.wait()

    tokens = 0
    try:
        async for response in stub.ModelStreamInfer(messages()):
            if response.error_message:
                return f"Triton: lost ({response.error_message})" if tokens else "Triton: not accepted"
            tokens += triton_tokens(response.infer_response)
            if response.infer_response.parameters["triton_final_response"].bool_param:
                answered.set()
    except grpc.aio.AioRpcError as error:
        if not answered.is_set():
            return f"Triton: lost ({error.code().name})" if tokens else "Triton: not accepted"
    return "Triton: complete" if tokens == asked.max_tokens else f"Triton: lost ({tokens} of {asked.max_tokens})"
