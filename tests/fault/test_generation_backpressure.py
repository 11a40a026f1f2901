"""A language model that is busy: what waits, what is refused or shed, in which order it is served, and a stop signal.

While one answer that takes very long is generated in the only slot, other requests wait for as long as a test needs.
"""

import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import yaml

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.decoder_models import write_tiny_decoder
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

CODES = grpc.StatusCode
POLICIES = ("reject", "shed_oldest", "block")
#: Filling it takes minutes.
CONTEXT = 65_536
#: Nothing is refused for how long it would take.
PATIENT = {"max_sequences": 1, "max_context_tokens": CONTEXT, "max_delay_s": 0, "default_timeout_s": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serve a model for each policy, with one slot and one place in the queue."""
    folder = tmp_path_factory.mktemp("models")
    for policy in POLICIES:
        write_tiny_decoder(folder / policy / "1", context=CONTEXT)
        settings = {"generation": {**PATIENT, "max_waiting_requests": 1}, "queue": {"policy": policy}}
        (folder / policy / "model.yaml").write_text(yaml.safe_dump(settings))
    write_tiny_decoder(folder / "line" / "1", context=CONTEXT)
    (folder / "line" / "model.yaml").write_text(yaml.safe_dump({"generation": PATIENT}))
    with serving(folder, "--set", f"server.drain_grace_s={PATIENCE_S:g}") as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[GenerationServiceStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield GenerationServiceStub(channel)


def _request(model: str, max_tokens: int = 4, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model=model,
        prompt=pb.Prompt(text="The capital of France"),
        max_tokens=max_tokens,
        stop=pb.StopConditions(ignore_end_tokens=True),
        **fields,
    )


@contextmanager
def _occupied(server: ServerProcess, stub: GenerationServiceStub, model: str) -> Iterator[grpc.Future]:
    """Keep the only slot busy until the block ends."""
    call = _endless(stub, model)
    try:
        yield call
    finally:
        call.cancel()
        eventually(lambda: metric(server, "inferd_kv_cache_used_bytes", model=model) == 0, "the cache is free")


def _endless(stub: GenerationServiceStub, model: str) -> grpc.Future:
    # With a deadline, it would be refused.
    call = stub.Generate(_request(model, CONTEXT - 100))
    next(call)
    return call


def _waits(server: ServerProcess, model: str, count: int) -> None:
    eventually(lambda: metric(server, "inferd_sequences_waiting", model=model) == count, f"{count} wait")


def _tokens(call: Any) -> int:
    return sum(len(response.token_ids) for response in call)


def test_reject(server: ServerProcess, stub: GenerationServiceStub) -> None:
    """A request that finds the queue full is rejected with a retry hint."""
    with _occupied(server, stub, "reject") as running:
        waiting = stub.Generate(_request("reject"), timeout=PATIENCE_S)
        _waits(server, "reject", 1)
        with pytest.raises(grpc.RpcError, match="1 of 1 requests") as caught:
            _tokens(stub.Generate(_request("reject"), timeout=PATIENCE_S))
        assert caught.value.code() is CODES.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        running.cancel()
        assert _tokens(waiting) == 4


def test_shed_oldest(server: ServerProcess, stub: GenerationServiceStub) -> None:
    """A new request evicts the waiting one."""
    with _occupied(server, stub, "shed_oldest") as running:
        oldest = stub.Generate(_request("shed_oldest"), timeout=PATIENCE_S)
        _waits(server, "shed_oldest", 1)
        newest = stub.Generate(_request("shed_oldest"), timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError, match="another request took the place"):
            _tokens(oldest)
        running.cancel()
        assert _tokens(newest) == 4


def test_block(server: ServerProcess, stub: GenerationServiceStub) -> None:
    """All requests are served in order of arrival."""
    with _occupied(server, stub, "block") as running:
        calls = [stub.Generate(_request("block"), timeout=PATIENCE_S) for _ in range(3)]
        _waits(server, "block", 3)
        running.cancel()
        assert [_tokens(call) for call in calls] == [4, 4, 4]


def test_priorities(server: ServerProcess, stub: GenerationServiceStub) -> None:
    """A later request of a higher priority is served first, over both protocols; else it would wait for minutes."""
    with _occupied(server, stub, "line") as running, ThreadPoolExecutor(1) as pool:
        low = stub.Generate(_request("line", CONTEXT - 100, priority=2))
        _waits(server, "line", 1)
        high = pool.submit(_complete, server, {"priority": 1, "max_tokens": 4})
        _waits(server, "line", 2)
        running.cancel()
        assert high.result()["usage"]["completion_tokens"] == 4
        low.cancel()


def _complete(server: ServerProcess, fields: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(str(server.rest), timeout=PATIENCE_S)
    body = {"model": "line", "prompt": "The capital of France", "ignore_eos": True, **fields}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return dict(answer)


def test_deadlines(server: ServerProcess, stub: GenerationServiceStub) -> None:
    """A running and a waiting request fail at their deadline, and leave nothing in cache and queue."""
    running = _endless(stub, "line")
    waiting = stub.Generate(_request("line"), timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        _tokens(waiting)
    assert caught.value.code() in (CODES.DEADLINE_EXCEEDED, CODES.RESOURCE_EXHAUSTED)
    _waits(server, "line", 0)
    running.cancel()
    eventually(lambda: metric(server, "inferd_sequences_running") == 0, "the slot is free")
    with pytest.raises(grpc.RpcError) as caught:
        _tokens(stub.Generate(_request("line", CONTEXT - 100), timeout=0.3))
    assert caught.value.code() in (CODES.DEADLINE_EXCEEDED, CODES.RESOURCE_EXHAUSTED)
    eventually(lambda: metric(server, "inferd_kv_cache_used_bytes") == 0, "the cache is free")


def _triton_messages(max_tokens: int) -> Iterator[oip.ModelInferRequest]:
    message = oip.ModelInferRequest(model_name="line")
    parameters = json.dumps({"max_tokens": max_tokens, "ignore_eos": True}).encode()
    for name, content in (("text_input", b"The capital of France"), ("sampling_parameters", parameters)):
        message.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(content)
    message.inputs.add(name="stream", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
    message.inputs.add(name="return_num_output_tokens", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
    yield message


def _as_triton(channel: grpc.Channel, max_tokens: int) -> int:
    tokens = 0
    call = GRPCInferenceServiceStub(channel).ModelStreamInfer(_triton_messages(max_tokens), timeout=PATIENCE_S)
    for response in call:
        assert not response.error_message
        names = [output.name for output in response.infer_response.outputs]
        if "num_output_tokens" in names:
            raw = response.infer_response.raw_output_contents[names.index("num_output_tokens")]
            tokens += int.from_bytes(raw, "little")
    return tokens


def _events(server: ServerProcess, max_tokens: int) -> int:
    connection = http.client.HTTPConnection(str(server.rest), timeout=PATIENCE_S)
    body = {"model": "line", "prompt": "The capital of France", "ignore_eos": True, "max_tokens": max_tokens}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    *events, done = connection.getresponse().read().decode().split("\n\n")[:-1]
    connection.close()
    assert done == "data: [DONE]"
    return int(json.loads(events[-1].removeprefix("data: "))["usage"]["completion_tokens"])


def test_stop_signal_loses_nothing(server: ServerProcess) -> None:
    """Running and waiting requests complete, over gRPC, server-sent events and Triton's stream. The last test."""
    with ThreadPoolExecutor(9) as pool, grpc.insecure_channel(server.grpc) as channel:
        stub = GenerationServiceStub(channel)
        running = _endless(stub, "line")
        answers = [
            pool.submit(ask)
            for number in range(3)
            for ask in (
                lambda tokens=40 + number: _tokens(stub.Generate(_request("line", tokens), timeout=PATIENCE_S)),
                lambda tokens=40 + number: _events(server, tokens),
                lambda tokens=40 + number: _as_triton(channel, tokens),
            )
        ]
        _waits(server, "line", 9)
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        running.cancel()
        assert [answer.result() for answer in answers] == [40 + number for number in range(3) for _ in range(3)]
        assert server.wait() == 0, server.text
