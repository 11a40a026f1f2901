"""Language models over gRPC: ``GenerationService``, and Triton's conventions on the Open Inference Protocol."""

import json
import queue
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import BIN, ServerProcess, serving

CODES = grpc.StatusCode

#: A context that takes seconds to fill.
CONTEXT = 4096

PROMPT = "The capital of France"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A language model, one without a tokenizer, and an ordinary model."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_decoder(folder / "story" / "1", context=CONTEXT)
    write_tiny_decoder(folder / "tokens" / "1", tokenizer=False)
    onnx_models.save(onnx_models.linear(), folder / "linear" / "1" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(models) -> Iterator[ServerProcess]:
    with serving(models) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as made:
        yield made


@pytest.fixture(scope="module")
def stub(channel):
    return GenerationServiceStub(channel)


def _request(text: str = PROMPT, max_tokens: int = 12, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        **{"model": "story", "prompt": pb.Prompt(text=text), "max_tokens": max_tokens, **fields},
    )


def _whole(stub: GenerationServiceStub, request: pb.GenerateRequest, **options: Any) -> tuple[list[int], str]:
    responses = list(stub.Generate(request, timeout=PATIENCE_S, **options))
    tokens = [token for response in responses for token in response.token_ids]
    return tokens, "".join(response.text for response in responses)


def _failure(stub: GenerationServiceStub, request: pb.GenerateRequest, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(request, timeout=PATIENCE_S, **options))
    return caught.value


def test_streams_an_answer(stub):
    """Model and version first, then tokens with their text, then the finish reason and the usage."""
    first, *_, last = stub.Generate(_request(request_id="mine"), timeout=PATIENCE_S)
    assert (first.model, first.version, first.request_id) == ("story", "1", "mine")
    assert last.finish_reason == pb.FinishReason.FINISH_REASON_LENGTH
    assert (last.usage.prompt_tokens, last.usage.generated_tokens) == (len(_tokens(stub, PROMPT)), 12)
    assert last.usage.first_token_time.ToNanoseconds() >= last.usage.queue_time.ToNanoseconds() > 0


def _tokens(stub: GenerationServiceStub, text: str) -> Sequence[int]:
    return stub.Tokenize(pb.TokenizeRequest(model="story", prompt=pb.Prompt(text=text)), timeout=PATIENCE_S).token_ids


def test_all_forms_of_a_prompt_have_the_same_answer(stub):
    """A chat is the text that the template renders, and a text its token ids."""
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Hello")])
    rendered = stub.Tokenize(pb.TokenizeRequest(model="story", prompt=pb.Prompt(chat=chat)), timeout=PATIENCE_S)
    assert rendered.text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    ids = pb.Prompt(token_ids=pb.TokenIds(ids=rendered.token_ids))
    answers = {str(_whole(stub, _request(prompt=prompt))) for prompt in (pb.Prompt(chat=chat), ids)}
    assert len(answers) == 1
    ids = pb.Prompt(token_ids=pb.TokenIds(ids=_tokens(stub, PROMPT)))
    assert _whole(stub, _request(prompt=ids)) == _whole(stub, _request())


def test_long_prompts_are_tokenized_like_short_ones(stub):
    """Also if another thread tokenizes them."""
    text = PROMPT * 150
    assert len(text) > 2048
    tokens = _tokens(stub, text)
    ids = pb.Prompt(token_ids=pb.TokenIds(ids=tokens))
    assert _whole(stub, _request(text)) == _whole(stub, _request(prompt=ids))


def test_answers_do_not_depend_on_each_other(stub):
    """Greedy and sampled answers are the same all at once and each alone."""
    requests = [
        _request(f"{PROMPT} {number}", 20 + number, sampling=pb.Sampling(temperature=number % 2, seed=number))
        for number in range(12)
    ]
    alone = [_whole(stub, request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda request: _whole(stub, request), requests))
    assert together == alone
    assert len({text for _, text in alone}) > 6


def test_log_probabilities_come_with_each_token(stub):
    """The chosen token of a greedy answer is the most likely one."""
    for response in stub.Generate(_request(logprobs=2), timeout=PATIENCE_S):
        assert len(response.logprobs) == len(response.token_ids)
        for token, logprobs in zip(response.token_ids, response.logprobs, strict=True):
            assert logprobs.chosen.token_id == token == logprobs.top[0].token_id
            assert logprobs.chosen.logprob == logprobs.top[0].logprob >= logprobs.top[1].logprob


def test_stop_string_ends_the_answer(stub):
    """The answer does not contain the stop string."""
    _, text = _whole(stub, _request(max_tokens=40))
    stop = text[len(text) // 2 :][:3]
    *_, last = stub.Generate(_request(max_tokens=40, stop=pb.StopConditions(texts=[stop])), timeout=PATIENCE_S)
    assert last.finish_reason == pb.FinishReason.FINISH_REASON_STOP
    _, stopped = _whole(stub, _request(max_tokens=40, stop=pb.StopConditions(texts=[stop])))
    assert stopped == text[: text.index(stop)]


def test_model_without_tokenizer(stub):
    """It takes and returns token ids."""
    ids = pb.Prompt(token_ids=pb.TokenIds(ids=[5, 6, 7]))
    tokens, text = _whole(stub, _request(model="tokens", prompt=ids))
    assert (len(tokens), text) == (12, "")
    error = _failure(stub, _request(model="tokens"))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert 'prompt.text: expected token ids, as model "tokens" has no tokenizer' in error.details()


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"max_tokens": CONTEXT}, "max_tokens", "as the context has 4096 tokens"),
        ({"sampling": pb.Sampling(top_p=2)}, "sampling.top_p", "expected more than 0 and at most 1, got 2"),
        ({"prompt": pb.Prompt()}, "prompt", "expected text, token_ids or chat, got none"),
        ({"model": "linear"}, "model", 'model "linear" is no language model'),
    ],
)
def test_errors_have_the_field(stub, fields, field, text):
    """The details of the status have it in a form for programs."""
    error = _failure(stub, _request(**fields))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert text in error.details()
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    bad_request = BadRequest()
    for detail in Status.FromString(details).details:
        detail.Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == [field]


def test_tensors_are_refused(channel):
    """The error names the method to call instead."""
    with pytest.raises(grpc.RpcError, match=r"GenerationService\.Generate"):
        InferenceServiceStub(channel).Infer(v1.InferRequest(model="story"), timeout=PATIENCE_S)


def test_cancelled_call_leaves_nothing(server, stub):
    """Its slot and cache are free, and the log has the tokens until then."""
    request = _request(max_tokens=CONTEXT - 100, stop=pb.StopConditions(ignore_end_tokens=True))
    call = stub.Generate(request, timeout=PATIENCE_S, metadata=[("x-request-id", "gone")])
    next(call)
    call.cancel()
    assert 1 <= server.wait_event("access", request_id="gone")["generated_tokens"] <= CONTEXT - 100
    eventually(lambda: metric(server, "inferd_sequences_running") == 0, "no sequence runs")
    eventually(lambda: metric(server, "inferd_kv_cache_used_bytes") == 0, "the cache is free")


def test_caller_that_does_not_read_gets_everything_later(server):
    """It gets fewer messages than tokens, long after the server has finished."""
    request = _request(max_tokens=2000, logprobs=20, stop=pb.StopConditions(ignore_end_tokens=True))
    narrow = [("grpc.http2.lookahead_bytes", 65_535), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(server.grpc, narrow) as channel:
        stub = GenerationServiceStub(channel)
        call = stub.Generate(request, timeout=PATIENCE_S, metadata=[("x-request-id", "slow")])
        quick = _whole(stub, _request())
        assert len(quick[0]) == 12, "others go on"
        server.wait_event("access", request_id="slow")
        responses = list(call)
    tokens = [token for response in responses for token in response.token_ids]
    assert len(tokens) == 2000
    assert len(responses) < 1000
    assert sum(len(response.logprobs) for response in responses) == 2000
    assert responses[-1].usage.generated_tokens == 2000


def _oip_request(name: str, text: str = PROMPT, *, model: str = "story", **inputs: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=model, id=name)
    for tensor, value in {"text_input": text, **inputs}.items():
        if isinstance(value, bool):
            request.inputs.add(name=tensor, datatype="BOOL", shape=[1]).contents.bool_contents.append(value)
        else:
            content = value if isinstance(value, str) else json.dumps(value)
            request.inputs.add(name=tensor, datatype="BYTES", shape=[1]).contents.bytes_contents.append(
                content.encode()
            )
    return request


def _outputs(response: oip.ModelInferResponse) -> dict[str, str]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: raw[4:].decode() for output, raw in pairs if output.datatype == "BYTES"}


def test_stream_of_the_open_inference_protocol(channel, stub):
    """Two answers and an ordinary model share a stream, and the last response of each is marked."""
    sampling = {"max_tokens": 30, "temperature": "0"}
    messages: queue.SimpleQueue[oip.ModelInferRequest | None] = queue.SimpleQueue()
    for name in ("a", "b"):
        messages.put(_oip_request(name, PROMPT + name, stream=True, sampling_parameters=sampling))
    linear = oip.ModelInferRequest(model_name="linear", id="c")
    linear.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    linear.raw_input_contents.append(bytes(12))
    messages.put(linear)
    messages.put(_oip_request("d", "x", sampling_parameters={"top_k": -2}))
    messages.put(None)
    texts: dict[str, str] = {}
    last: list[str] = []
    for message in GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(messages.get, None), timeout=PATIENCE_S):
        response = message.infer_response
        texts[response.id] = texts.get(response.id, "") + (
            message.error_message or _outputs(response).get("text_output", "")
        )
        if response.parameters["triton_final_response"].bool_param:
            last.append(response.id)
    assert texts["a"] == _whole(stub, _request(PROMPT + "a", 30))[1]
    assert texts["b"] == _whole(stub, _request(PROMPT + "b", 30))[1]
    assert "sampling_parameters.top_k: expected 0 or more" in texts["d"]
    assert sorted(last) == ["a", "b", "c"]


def test_unary_call_of_the_open_inference_protocol(channel, stub):
    """It gets the whole answer after the prompt."""
    request = _oip_request("x", sampling_parameters={"max_tokens": 12}, return_finish_reason=True)
    response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_S)
    assert _outputs(response) == {"text_output": PROMPT + _whole(stub, _request())[1], "finish_reason": "length"}


def test_unary_call_with_tokens(channel, stub):
    """A call with token ids gets token ids."""
    request = oip.ModelInferRequest(model_name="tokens", parameters={"max_tokens": oip.InferParameter(int64_param=5)})
    request.inputs.add(name="input_ids", datatype="INT64", shape=[2]).contents.int64_contents.extend([5, 6])
    response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_S)
    assert [output.name for output in response.outputs] == ["text_output", "output_ids"]
    ids = pb.Prompt(token_ids=pb.TokenIds(ids=[5, 6]))
    expected, _ = _whole(stub, _request(model="tokens", prompt=ids, max_tokens=5))
    assert np.frombuffer(response.raw_output_contents[1], np.int64).tolist() == expected


def test_grpcurl(server):
    """It finds the service by reflection."""
    command = [BIN / "grpcurl", "-plaintext"]
    request = {"model": "story", "prompt": {"text": PROMPT}, "maxTokens": 3}
    listed = subprocess.run([*command, server.grpc, "list"], capture_output=True, text=True, check=True).stdout
    assert "inferd.v1.GenerationService" in listed.splitlines()
    done = subprocess.run(
        [*command, "-d", json.dumps(request), server.grpc, "inferd.v1.GenerationService/Generate"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "FINISH_REASON_LENGTH" in done.stdout


@pytest.fixture(scope="module")
def secured(models, tmp_path_factory):
    """A server whose callers may do different things."""
    folder = tmp_path_factory.mktemp("secured")
    names = ("reader", "small", "free")
    tokens = [format_entry(StoredToken(name=name, sha256=hash_token(f"inferd_{name}"), expires=None)) for name in names]
    (folder / "tokens.yaml").write_text("".join(tokens))
    (folder / "policy.yaml").write_text(
        "rules:\n"
        '  - {principals: ["*:reader"], methods: [metadata]}\n'
        '  - {principals: ["*:small"], quota: {tokens_per_s: 0.1}}\n'
        '  - {principals: ["*:free"]}\n'
    )
    files = (f"--set=security.{name}_file={folder / name}.yaml" for name in ("tokens", "policy"))
    with serving(models, *files, f"--set=server.drain_grace_s={PATIENCE_S:g}") as running:
        yield running


def _as(name: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer inferd_{name}")]


def test_rules_and_quotas(secured):
    """Generation needs the permission of inference; a quota of tokens counts prompts and answers."""
    with grpc.insecure_channel(secured.grpc) as channel:
        stub = GenerationServiceStub(channel)
        assert _failure(stub, _request(), metadata=_as("reader")).code() is CODES.PERMISSION_DENIED
        assert _failure(stub, _request()).code() is CODES.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            stub.Tokenize(pb.TokenizeRequest(model="story"), timeout=PATIENCE_S, metadata=_as("reader"))
        assert len(_whole(stub, _request(max_tokens=3), metadata=_as("small"))[0]) == 3
        error = _failure(stub, _request(max_tokens=3), metadata=_as("small"))
        assert error.code() is CODES.RESOURCE_EXHAUSTED
        assert "the quota of 0.1 tokens a second is used up" in error.details()
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        assert metric(secured, "inferd_quota_rejected_total", reason="tokens_per_s") == 1


def test_drain_finishes_running_generations(secured):
    """Then the server ends. The last test, because it stops the server."""
    with grpc.insecure_channel(secured.grpc) as channel:
        request = _request(max_tokens=800, stop=pb.StopConditions(ignore_end_tokens=True))
        call = GenerationServiceStub(channel).Generate(request, timeout=PATIENCE_S, metadata=_as("free"))
        tokens = list(next(call).token_ids)
        secured.process.send_signal(signal.SIGTERM)
        secured.wait_event("draining")
        tokens += [token for response in call for token in response.token_ids]
    assert len(tokens) == 800
    assert secured.wait() == 0
