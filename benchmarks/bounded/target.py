"""A server with one language model, and callers of it."""

import asyncio
import json
import random
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import grpc
import grpc.aio
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.models import ROOT
from benchmarks.process import Server, free_port
from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip

if TYPE_CHECKING:
    from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceAsyncStub
    from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

#: The name of the model.
MODEL = "m"
_CHECK_TIMEOUT_S = 5.0
#: Longer than any wait takes on any machine.
PATIENCE_S = 120.0
MIB = 2**20
_NARROW_BYTES = 4096
_REST_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running server."""

    server: Server
    grpc_port: int
    http_port: int
    metrics_port: int

    @property
    def process(self) -> psutil.Process:
        """The server's process, without the one that tries models."""
        return psutil.Process(self.server.pid)

    def rss_bytes(self) -> int:
        """Return its resident set."""
        return int(self.process.memory_info().rss)

    def metrics(self) -> dict[str, float]:
        """Return the sums of all metrics; of those with a reason or status also by it, as ``name/value``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        sums: dict[str, float] = {}
        for family in families:
            for sample in family.samples:
                reason = sample.labels.get("finish_reason") or sample.labels.get("reason")
                for name in (sample.name, f"{sample.name}/{reason}") if reason else (sample.name,):
                    sums[name] = sums.get(name, 0.0) + sample.value
        return sums

    def channel(self, *options: tuple[str, int]) -> grpc.aio.Channel:
        """Open a connection that no other channel shares."""
        return grpc.aio.insecure_channel(
            f"127.0.0.1:{self.grpc_port}", [("grpc.use_local_subchannel_pool", 1), *options]
        )


@contextmanager
def serving(model: Path, *settings: str) -> Iterator[Target]:
    """Serve ``model``, the folder of a version."""
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-m", "inferd", "serve", f"{MODEL}={model}"]
    for kind, port in zip(("grpc", "http", "metrics"), ports, strict=True):
        command += [f"--{kind}-port", str(port)]
    command += [f"--set={setting}" for setting in settings]
    with TemporaryDirectory() as folder, Server(command, {"PYTHONPATH": str(ROOT)}, Path(folder)) as server:
        target = Target(server, *ports)
        server.wait_ready(lambda: _check(target))
        yield target


def _check(target: Target) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        list(GenerationServiceStub(channel).Generate(request([1, 2, 3], 2), timeout=_CHECK_TIMEOUT_S))


def request(prompt: list[int], max_tokens: int, **fields: object) -> pb.GenerateRequest:
    """Return a request that ends after ``max_tokens`` and no earlier."""
    return pb.GenerateRequest(
        model=MODEL,
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=prompt)),
        max_tokens=max_tokens,
        stop=pb.StopConditions(ignore_end_tokens=True),
        **fields,  # type: ignore[arg-type]
    )


def some_request(draw: random.Random) -> pb.GenerateRequest:
    """Return a request of a random length, as in the case mix16 of ``benchmarks/generation.py``."""
    return request(_ids(draw, draw.randint(8, 120)), draw.randint(8, 128))


def _ids(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(2, 300) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: ``tokens`` that came, and the error; ``hint_s`` is when to try again."""

    asked: pb.GenerateRequest
    tokens: int
    code: grpc.StatusCode = grpc.StatusCode.OK
    hint_s: float | None = None
    ended_at: float = 0.0


async def whole(
    stub: "GRPCInferenceServiceAsyncStub", asked: pb.GenerateRequest, timeout_s: float = PATIENCE_S
) -> Outcome:
    """Call for the same answer in one message, which takes little of a client's time."""
    try:
        response = await stub.ModelInfer(triton_request(asked), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return _failed(asked, 0, error)
    return Outcome(asked, triton_tokens(response), ended_at=time.monotonic())


def triton_request(asked: pb.GenerateRequest, *, streams: bool = False) -> oip.ModelInferRequest:
    """Return the same request by Triton's conventions."""
    message = oip.ModelInferRequest(model_name=MODEL)
    ids = message.inputs.add(name="input_ids", datatype="INT64", shape=[len(asked.prompt.token_ids.ids)])
    ids.contents.int64_contents.extend(asked.prompt.token_ids.ids)
    parameters = json.dumps({"max_tokens": asked.max_tokens, "ignore_eos": True}).encode()
    message.inputs.add(name="sampling_parameters", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        parameters
    )
    message.inputs.add(name="stream", datatype="BOOL", shape=[1]).contents.bool_contents.append(streams)
    return message


def triton_tokens(response: oip.ModelInferResponse) -> int:
    """Return how many tokens a response brings."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return sum(len(raw) // 8 for output, raw in pairs if output.name == "output_ids")


async def generate(
    stub: "GenerationServiceAsyncStub", asked: pb.GenerateRequest, timeout_s: float = PATIENCE_S
) -> Outcome:
    """Call and read everything."""
    tokens = 0
    try:
        async for response in stub.Generate(asked, timeout=timeout_s):
            tokens += len(response.token_ids)
    except grpc.aio.AioRpcError as error:
        return _failed(asked, tokens, error)
    return Outcome(asked, tokens, ended_at=time.monotonic())


def _failed(asked: pb.GenerateRequest, tokens: int, error: grpc.aio.AioRpcError) -> Outcome:
    trailing = cast("Iterable[tuple[str, str]]", error.trailing_metadata())
    hint = dict(trailing).get("grpc-retry-pushback-ms")
    return Outcome(asked, tokens, error.code(), None if hint is None else int(hint) / 1000, time.monotonic())


@dataclass(frozen=True, slots=True)
class Events:
    """An open streamed answer over HTTP."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def tokens(self) -> AsyncIterator[int]:
        """Yield how many tokens there are at the end, and 0 with each event before it; fail if that does not come."""
        status = await self.reader.readline()
        if b" 200 " not in status:
            raise ConnectionError(f"status {status!r}")
        async for line in self.reader:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise ConnectionError(str(event["error"]))
                yield (event.get("usage") or {}).get("completion_tokens", 0)
            elif line.startswith(b"data: [DONE]"):
                return
        raise ConnectionError("the answer was cut off")

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def ask_for_events(
    target: Target, asked: pb.GenerateRequest, *, narrow: bool = False, **fields: object
) -> Events:
    """Send the same request to OpenAI's completions; a ``narrow`` connection keeps little of what is not read."""
    body = {
        "model": MODEL,
        "prompt": list(asked.prompt.token_ids.ids),
        "max_tokens": asked.max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    text = json.dumps(body).encode()
    sock = socket.socket()
    sock.setblocking(False)
    if narrow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", target.http_port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=_NARROW_BYTES if narrow else 2**16)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    writer.write(head.encode() + b"\r\n\r\n" + text)
    return Events(reader, writer)


async def settled(target: Target, names: tuple[str, ...]) -> dict[str, float]:
    """Return what is left of these metrics when they are all 0, or no longer change for seconds."""
    left: dict[str, float] = {}
    for _ in range(100):
        metrics = await asyncio.to_thread(target.metrics)
        left = {name: metrics[name] for name in names if metrics[name]}
        if not left:
            break
        await asyncio.sleep(0.1)
    return left


async def resident_at_rest(target: Target) -> int:
    """Return the server's resident set when nothing runs: while something does, the cache comes and goes with it."""
    await settled(target, ("inferd_sequences_running", "inferd_sequences_waiting"))
    await asyncio.sleep(_REST_S)
    return target.rss_bytes()
