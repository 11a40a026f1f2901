"""Prompts that do not fit, stop strings, bytes that are no text: over each protocol a clear error or the right text."""

import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

PROMPT = "The capital of France"
CONTEXT = 256
#: `{% for` without an end.
BROKEN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}"
STRICT_TEMPLATE = "{{ raise_exception('roles must alternate') }}"


class RefusedError(Exception):
    """The status and the message of an error."""

    def __init__(self, status: object, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Connections:
    """To the server, over both ports."""

    server: ServerProcess
    channel: grpc.Channel

    def post(self, path: str, body: bytes) -> str:
        """Return the body of a good answer."""
        connection = http.client.HTTPConnection(str(self.server.rest), timeout=PATIENCE_S)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            error = json.loads(text)["error"]
            raise RefusedError(answer.status, error if isinstance(error, str) else error["message"])
        return text


Ask = Callable[..., str]


def _generate(to: Connections, prompt: str, max_tokens: int, stop: str = "") -> str:
    asked = pb.GenerateRequest(
        model="story",
        prompt=pb.Prompt(text=prompt),
        max_tokens=max_tokens,
        stop=pb.StopConditions(ignore_end_tokens=True, texts=[stop] if stop else []),
    )
    try:
        return "".join(each.text for each in GenerationServiceStub(to.channel).Generate(asked, timeout=PATIENCE_S))
    except grpc.RpcError as error:
        raise RefusedError(error.code(), error.details()) from None


def _parameters(max_tokens: int, stop: str) -> dict[str, Any]:
    return {"max_tokens": max_tokens, "ignore_eos": True} | ({"stop": [stop]} if stop else {})


def _triton_message(prompt: bytes, parameters: dict[str, Any], *, streams: bool) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(model_name="story")
    for name, content in (("text_input", prompt), ("sampling_parameters", json.dumps(parameters).encode())):
        message.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(content)
    for name, value in (("stream", streams), ("exclude_input_in_output", True)):
        message.inputs.add(name=name, datatype="BOOL", shape=[1]).contents.bool_contents.append(value)
    return message


def _text_output(response: oip.ModelInferResponse) -> str:
    names = [output.name for output in response.outputs]
    raw = response.raw_output_contents
    return raw[names.index("text_output")][4:].decode() if "text_output" in names else ""


def _model_infer(to: Connections, prompt: str | bytes, max_tokens: int, stop: str = "") -> str:
    prompt = prompt.encode() if isinstance(prompt, str) else prompt
    message = _triton_message(prompt, _parameters(max_tokens, stop), streams=False)
    try:
        return _text_output(GRPCInferenceServiceStub(to.channel).ModelInfer(message, timeout=PATIENCE_S))
    except grpc.RpcError as error:
        raise RefusedError(error.code(), error.details()) from None


def _model_stream_infer(to: Connections, prompt: str | bytes, max_tokens: int, stop: str = "") -> str:
    prompt = prompt.encode() if isinstance(prompt, str) else prompt
    message = _triton_message(prompt, _parameters(max_tokens, stop), streams=True)
    text = ""
    for response in GRPCInferenceServiceStub(to.channel).ModelStreamInfer(iter([message]), timeout=PATIENCE_S):
        if response.error_message:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, response.error_message)
        text += _text_output(response.infer_response)
    return text


def _completion(to: Connections, prompt: str, max_tokens: int, stop: str = "") -> str:
    body = {"model": "story", "prompt": prompt, **_parameters(max_tokens, stop)}
    return str(json.loads(to.post("/v1/completions", json.dumps(body).encode()))["choices"][0]["text"])


def _events(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def _streamed_completion(to: Connections, prompt: str, max_tokens: int, stop: str = "") -> str:
    body = {"model": "story", "prompt": prompt, "stream": True, **_parameters(max_tokens, stop)}
    answer = to.post("/v1/completions", json.dumps(body).encode())
    return "".join(event["choices"][0]["text"] for event in _events(answer))


def _triton_body(prompt: str, max_tokens: int, stop: str) -> bytes:
    return json.dumps(
        {
            "text_input": prompt,
            "exclude_input_in_output": True,
            "sampling_parameters": json.dumps(_parameters(max_tokens, stop)),
        }
    ).encode()


def _triton_generate(to: Connections, prompt: str, max_tokens: int, stop: str = "") -> str:
    return str(json.loads(to.post("/v2/models/story/generate", _triton_body(prompt, max_tokens, stop)))["text_output"])


def _triton_generate_stream(to: Connections, prompt: str, max_tokens: int, stop: str = "") -> str:
    answer = to.post("/v2/models/story/generate_stream", _triton_body(prompt, max_tokens, stop))
    return "".join(event["text_output"] for event in _events(answer))


ASKS = [
    _generate,
    _model_infer,
    _model_stream_infer,
    _completion,
    _streamed_completion,
    _triton_generate,
    _triton_generate_stream,
]
each_protocol = pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__.strip("_"))


@pytest.fixture(scope="module")
def to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connections]:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_decoder(folder / "story" / "1", context=CONTEXT)
    for name, template in (("broken", BROKEN_TEMPLATE), ("strict", STRICT_TEMPLATE)):
        shutil.copytree(folder / "story" / "1", folder / name / "1")
        (folder / name / "1" / "chat_template.jinja").write_text(template)
    with serving(folder) as server, grpc.insecure_channel(server.grpc) as channel:
        yield Connections(server, channel)


@each_protocol
def test_prompt_longer_than_the_context(to: Connections, ask: Ask) -> None:
    """Too many tokens, and so many characters that they must be too many tokens."""
    for prompt, got in (("word " * 300, ""), ("word " * 20_000, "got 100000 characters")):
        with pytest.raises(RefusedError, match=r"expected at most 255 tokens.*got \d+") as caught:
            ask(to, prompt, 5)
        assert got in str(caught.value)
        assert caught.value.status in (400, grpc.StatusCode.INVALID_ARGUMENT)


def _pieces(to: Connections, max_tokens: int) -> list[str]:
    """Return the text of each token."""
    asked = pb.GenerateRequest(
        model="story",
        prompt=pb.Prompt(text=PROMPT),
        max_tokens=max_tokens,
        stop=pb.StopConditions(ignore_end_tokens=True),
    )
    return [each.text for each in GenerationServiceStub(to.channel).Generate(asked, timeout=PATIENCE_S)]


@each_protocol
def test_stop_string_across_tokens(to: Connections, ask: Ask) -> None:
    """The first characters of the stop string are the end of the token before."""
    pieces = _pieces(to, 60)
    text = "".join(pieces)
    at = next(
        at
        for at in range(10, 50)
        if pieces[at] and pieces[at + 1] and len("".join(pieces[:at])) < text.index(pieces[at] + pieces[at + 1]) + 1
    )
    stop = pieces[at] + pieces[at + 1][:1]
    assert ask(to, PROMPT, 60, stop) == text[: text.index(stop)]


@each_protocol
def test_answer_that_ends_within_a_character(to: Connections, ask: Ask) -> None:
    """The incomplete character is one U+FFFD."""
    pieces = _pieces(to, 60)
    whole = "".join(pieces)
    tokens = next(count for count in range(5, 60) if pieces[count - 1] == "")
    text = ask(to, PROMPT, tokens)
    assert text.endswith("\N{REPLACEMENT CHARACTER}")
    assert whole.startswith(text[:-1])


@pytest.mark.parametrize("ask", [_model_infer, _model_stream_infer], ids=["model_infer", "model_stream_infer"])
def test_prompt_in_bytes_that_are_no_text(to: Connections, ask: Ask) -> None:
    """Triton's strings are bytes, which must be UTF-8 here."""
    with pytest.raises(RefusedError, match=r"text_input: expected .*UTF-8"):
        ask(to, b"caf\xe9", 5)


def test_message_that_is_no_text(to: Connections) -> None:
    """Protobuf rejects it; neither the call nor the server hangs."""
    raw = pb.GenerateRequest(model="story", prompt=pb.Prompt(text="cafe"), max_tokens=5).SerializeToString()
    call = to.channel.unary_stream("/inferd.v1.GenerationService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(raw.replace(b"cafe", b"caf\xe9"), timeout=PATIENCE_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _generate(to, PROMPT, 5)


@pytest.mark.parametrize("path", ["/v1/completions", "/v2/models/story/generate_stream"])
@pytest.mark.parametrize(
    ("text", "message"), [(b"caf\xe9", "UTF-8|JSON"), (b"\\ud83d", "half of a surrogate pair|surrogate")]
)
def test_body_that_is_no_text(to: Connections, path: str, text: bytes, message: str) -> None:
    """Bytes that are not UTF-8, and half a surrogate pair, which JSON can have."""
    name = b"prompt" if path.startswith("/v1") else b"text_input"
    with pytest.raises(RefusedError, match=message) as caught:
        to.post(path, b'{"model":"story","%b":"%b","max_tokens":5}' % (name, text))
    assert caught.value.status == 400


@pytest.mark.parametrize(("model", "message"), [("broken", "chat template"), ("strict", "roles must alternate")])
def test_template_that_makes_no_prompt(to: Connections, model: str, message: str) -> None:
    """Chats are rejected over both protocols; texts are completed as before."""
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Hello")])
    asked = pb.GenerateRequest(model=model, prompt=pb.Prompt(chat=chat), max_tokens=5)
    with pytest.raises(grpc.RpcError) as caught:
        list(GenerationServiceStub(to.channel).Generate(asked, timeout=PATIENCE_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    with pytest.raises(RefusedError, match=message) as refused:
        to.post("/v1/chat/completions", json.dumps(body).encode())
    assert refused.value.status == 400
    assert to.post("/v1/completions", json.dumps({"model": model, "prompt": PROMPT, "max_tokens": 5}).encode())
