"""Clients that generate, for the load of ``benchmarks/generation.py``: one thread a request."""

import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from benchmarks.peers.generation_load import Record, Start
from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1 import generation_pb2_grpc

_DEADLINE_S = 300.0
_SAMPLED = pb.Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=1)


def check(port: int) -> None:
    """Raise an error unless a server of inferd generates on ``port``."""
    _read_grpc(_stub(port), _request([1, 2, 3], 2, None), lambda _: None)


def over_grpc(port: int, _: int) -> Start:
    """Return how to generate greedily through inferd's own service."""
    return _over_grpc(port, None)


def over_grpc_sampled(port: int, _: int) -> Start:
    """Return the same with tokens drawn at random."""
    return _over_grpc(port, _SAMPLED)


def _over_grpc(port: int, sampling: pb.Sampling | None) -> Start:
    stub = _stub(port)

    def generate(prompt: Sequence[int], new: int, record: Record) -> None:
        _read_grpc(stub, _request(prompt, new, sampling), record.tokens)

    return _threaded(generate)


def _stub(port: int) -> generation_pb2_grpc.GenerationServiceStub:
    return generation_pb2_grpc.GenerationServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def _request(prompt: Sequence[int], new: int, sampling: pb.Sampling | None) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=prompt)),
        sampling=sampling,
        max_tokens=new,
        stop=pb.StopConditions(ignore_end_tokens=True),
    )


def _read_grpc(
    stub: generation_pb2_grpc.GenerationServiceStub, request: pb.GenerateRequest, tokens: Callable[[int], None]
) -> None:
    for response in stub.Generate(request, timeout=_DEADLINE_S):
        if response.token_ids:
            tokens(len(response.token_ids))


def over_openai(_: int, port: int) -> Start:
    """Return how to generate through inferd's OpenAI endpoint."""

    def generate(prompt: Sequence[int], new: int, record: Record) -> None:
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True}
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
