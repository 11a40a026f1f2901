"""What a real server shows of generations: access log, traces and metrics."""

import json
import urllib.request

import grpc
import pytest

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.decoder_models import write_tiny_decoder
from tests.load import metric
from tests.otlp import Receiver, attributes
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

GENERATE = "inferd.v1.GenerationService/Generate"

#: Tokens that take seconds: their caller leaves long before the last one.
CONTEXT = 8192
LONG = 8000


@pytest.fixture(scope="module")
def receiver():
    """Accepts all spans."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(receiver, tmp_path_factory):
    """A language model, whose calls are all traced."""
    models = tmp_path_factory.mktemp("models")
    write_tiny_decoder(models / "language" / "1", end_ids=(), context=CONTEXT)
    settings = (f"tracing.endpoint={receiver.endpoint}", "tracing.sampling_ratio=1", "log.level=debug")
    with serving(models, *(f"--set={setting}" for setting in settings)) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    """One connection for all calls."""
    with grpc.insecure_channel(server.grpc) as made:
        yield made


def generate(channel, request_id, max_tokens, **prompt):
    """Begin a call, named in the log by this id."""
    message = pb.GenerateRequest(model="language", prompt=pb.Prompt(**prompt), max_tokens=max_tokens)
    metadata = (("x-request-id", request_id),)
    return GenerationServiceStub(channel).Generate(message, timeout=PATIENCE_S, metadata=metadata)


def test_generate(server, channel, receiver):
    """The access log has tokens, the time to the first one, and the finish reason; the span has the same."""
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Hello")])
    *_, last = generate(channel, "whole", 5, chat=chat)
    line = server.wait_event("access", request_id="whole")
    assert line["method"] == f"/{GENERATE}"
    assert (line["model"], line["version"], line["finish_reason"]) == ("language", "1", "length")
    assert (line["prompt_tokens"], line["generated_tokens"]) == (last.usage.prompt_tokens, 5)
    assert 0 <= line["queue_ms"] <= line["ttft_ms"] <= line["total_ms"]
    span = _span(receiver, "whole")
    assert span.name == GENERATE
    found = attributes(span)
    assert (found["gen_ai.operation.name"], found["gen_ai.request.model"]) == ("chat", "language")
    assert found["gen_ai.usage.input_tokens"] == last.usage.prompt_tokens
    assert found["gen_ai.usage.output_tokens"] == 5
    assert [event.name for event in span.events] == ["decode", "first_token"]


def test_streamed_over_http(server, receiver):
    """The same of an answer in events, with the HTTP status."""
    body = {"model": "language", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "stream": True}
    asked = urllib.request.Request(
        f"http://{server.rest}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-Request-Id": "events"},
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as response:
        assert b"[DONE]" in response.read()
    line = server.wait_event("access", request_id="events")
    assert (line["method"], line["http_status"]) == ("POST /v1/chat/completions", 200)
    assert (line["model"], line["generated_tokens"], line["finish_reason"]) == ("language", 6, "length")
    assert 0 < line["ttft_ms"] <= line["total_ms"]
    found = attributes(_span(receiver, "events"))
    assert (found["gen_ai.operation.name"], found["gen_ai.usage.output_tokens"]) == ("chat", 6)
    assert metric(server, "inferd_requests_total", method="POST /v1/chat/completions", model="language", code="OK") == 1


def test_cancelled_call(server, channel):
    """Log and metrics have the tokens until the cancel."""
    labels = {"model": "language", "version": "1", "finish_reason": "cancelled"}
    call = generate(channel, "cancelled", LONG, token_ids=pb.TokenIds(ids=[5, 6, 7]))
    next(call)
    call.cancel()
    line = server.wait_event("access", request_id="cancelled")
    assert (line["status"], line["prompt_tokens"]) == ("CANCELLED", 3)
    assert 1 <= line["generated_tokens"] < LONG
    assert line["ttft_ms"] > 0
    assert "finish_reason" not in line
    eventually(lambda: metric(server, "inferd_generation_requests_total", **labels) == 1, "the cancel is counted")


def test_stream_of_requests(server, channel, receiver):
    """Each request has a line at debug level and a span; those of the stream have the sums."""
    messages = [_triton("one", 3), _triton("two", 4)]
    metadata = (("x-request-id", "stream"),)
    list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(messages), timeout=PATIENCE_S, metadata=metadata))
    line = server.wait_event("access", request_id="stream")
    results = {each["id"]: each for each in server.events("stream_result")}
    assert [results[name]["generated_tokens"] for name in ("one", "two")] == [3, 4]
    assert line["generated_tokens"] == 7
    assert line["prompt_tokens"] == sum(each["prompt_tokens"] for each in results.values())
    found = [attributes(_span(receiver, name)) for name in ("one", "two")]
    assert [span["gen_ai.usage.output_tokens"] for span in found] == [3, 4]


def test_statistics(server, channel):
    """Statistics of Triton's protocol count answered requests and runs."""
    before = _statistics(channel)
    list(generate(channel, "counted", 4, text="Hello"))
    after = _statistics(channel)
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.execution_count == before.execution_count + 4
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


def _span(receiver, request_id):
    """Wait for the span of this request."""
    while True:
        for span in receiver.spans:
            if attributes(span).get("inferd.request_id") == request_id:
                return span
        receiver.posted.get(timeout=PATIENCE_S)


def _triton(request_id, max_tokens):
    inputs = [
        oip.ModelInferRequest.InferInputTensor(
            name=name,
            datatype="BYTES",
            shape=[1],
            contents=oip.InferTensorContents(bytes_contents=[value]),
        )
        for name, value in (("text_input", b"Hello"), ("sampling_parameters", b'{"max_tokens": %d}' % max_tokens))
    ]
    return oip.ModelInferRequest(model_name="language", id=request_id, inputs=inputs)


def _statistics(channel):
    request = oip.ModelStatisticsRequest(name="language")
    (found,) = GRPCInferenceServiceStub(channel).ModelStatistics(request, timeout=PATIENCE_S).model_stats
    return found
