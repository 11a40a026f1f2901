"""Clients that generate, for the load of ``benchmarks/generation.py``.

Those over gRPC share one thread, as threads of gRPC's Python client take several times the processor time, on the same
cores as the server; those over HTTP have one for each request.
"""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from benchmarks.peers.generation_load import Record, Start
from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1 import generation_pb2_grpc

#: The name of the model.
MODEL = "smollm2"
_DEADLINE_S = 300.0
_SAMPLED = pb.Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=1)


def check(port: int) -> None:
    """Raise an error unless a server of inferd generates on ``port``."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        list(stub.Generate(_request([1, 2, 3], 2, None), timeout=_DEADLINE_S))


def over_grpc(port: int, _: int) -> Start:
    """Return how to generate greedily through inferd's own service."""
    return _over_grpc(port, None)


def over_grpc_sampled(port: int, _: int) -> Start:
    """Return the same with tokens drawn at random."""
    return _over_grpc(port, _SAMPLED)


def _over_grpc(port: int, sampling: pb.Sampling | None) -> Start:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    stub = asyncio.run_coroutine_threadsafe(_stub(port), loop).result()

    async def generate(prompt: Sequence[int], new: int, record: Record) -> None:
        try:
            async for response in stub.Generate(_request(prompt, new, sampling), timeout=_DEADLINE_S):
                record.tokens(len(response.token_ids))
        finally:
            record.done()

    def start(prompt: Sequence[int], new: int, record: Record) -> None:
        asyncio.run_coroutine_threadsafe(generate(prompt, new, record), loop)

    return start


async def _stub(port: int) -> "generation_pb2_grpc.GenerationServiceAsyncStub":
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    return generation_pb2_grpc.GenerationServiceStub(channel)


def _request(prompt: Sequence[int], new: int, sampling: pb.Sampling | None) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model=MODEL,
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=prompt)),
        sampling=sampling,
        max_tokens=new,
        stop=pb.StopConditions(ignore_end_tokens=True),
    )


def over_openai(_: int, port: int) -> Start:
    """Return how to generate through inferd's OpenAI endpoint."""

    def generate(prompt: Sequence[int], new: int, record: Record) -> None:
        body = {"model": MODEL, "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True}
        _read_events(port, "/v1/completions", body | {"stream": True, "return_token_ids": True}, record, _openai_tokens)

    return _threaded(generate)


def over_llama_cpp(port: int) -> Start:
    """Return how to generate through llama.cpp's server."""

    def generate(prompt: Sequence[int], new: int, record: Record) -> None:
        body = {"prompt": prompt, "n_predict": new, "temperature": 0, "samplers": ["temperature"]}
        _read_events(
            port, "/completion", body | {"cache_prompt": False, "ignore_eos": True, "stream": True}, record, _one_token
        )

    return _threaded(generate)


def _read_events(
    port: int, path: str, body: Mapping[str, object], record: Record, count: Callable[[dict[str, Any]], int]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_DEADLINE_S)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise RuntimeError(f"{path}: {response.status} {response.read()!r}")
    for line in response:
        if line.startswith(b"data: {"):
            record.tokens(count(json.loads(line[6:])))
    connection.close()


def _openai_tokens(event: dict[str, Any]) -> int:
    """Return how many tokens an event brings: those are counted that are named, as text may lag behind."""
    return sum(len(choice.get("token_ids") or ()) for choice in event["choices"])


def _one_token(event: dict[str, Any]) -> int:
    return 0 if event.get("stop") else 1


def _threaded(generate: Callable[[Sequence[int], int, Record], None]) -> Start:
    def start(prompt: Sequence[int], new: int, record: Record) -> None:
        def run() -> None:
            try:
                generate(prompt, new, record)
            finally:
                record.done()

        threading.Thread(target=run, daemon=True).start()

    return start
