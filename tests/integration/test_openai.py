"""OpenAI's API, and Triton's generate, on a real server with a tiny language model."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.integration.security.conftest import token_entry
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

#: Alice may use both models, Bob may see the language model, and Carol the other one; the limited one may ask once.
POLICY = """
rules:
  - {principals: ["*:alice"], models: [tiny, linear], methods: [infer, metadata]}
  - {principals: ["*:bob"], models: [tiny], methods: [metadata]}
  - {principals: ["*:carol"], models: [linear], methods: [infer, metadata]}
  - {principals: ["*:limited"], models: [tiny], methods: [infer], quota: {requests_per_s: 0.001}}
"""
NAMES = ("alice", "bob", "carol", "limited")

#: Answers of this length take seconds.
CONTEXT = 4096

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 12}
COMPLETION = {"model": "tiny", "prompt": "The capital of France is", "max_tokens": 12}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("openai")
    write_tiny_decoder(folder / "models" / "tiny" / "1", end_ids=(), context=CONTEXT)
    onnx_models.save(onnx_models.linear(), folder / "models" / "linear" / "1" / "model.onnx")
    (folder / "tokens.yaml").write_text("".join(token_entry(name, f"inferd_{name}") for name in NAMES))
    (folder / "policy.yaml").write_text(POLICY)
    files = {f"security.{name}_file": folder / f"{name}.yaml" for name in ("tokens", "policy")}
    settings = {**files, "server.http.cors_origins": '["http://page"]', "server.drain_grace_s": PATIENCE_S}
    arguments = [f"--set={name}={value}" for name, value in settings.items()]
    with serving(folder / "models", *arguments) as running:
        yield running


class Client:
    """Asks over one connection."""

    def __init__(self, server: ServerProcess) -> None:
        self._connection = http.client.HTTPConnection(str(server.rest), timeout=PATIENCE_S)

    def ask(
        self, path: str, content: object = None, *, token: str | None = "inferd_alice", verb: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        body = content if content is None or isinstance(content, bytes) else json.dumps(content)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._connection.request(verb or ("GET" if body is None else "POST"), path, body, headers)
        return self._connection.getresponse()

    def get(self, path: str, content: object = None, **options: Any) -> Any:
        """Return the JSON of a good answer."""
        answer = self.ask(path, content, **options)
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)

    def fail(self, path: str, content: object = None, **options: Any) -> tuple[int, dict]:
        """Return the status and the JSON of an error."""
        answer = self.ask(path, content, **options)
        return answer.status, json.loads(answer.read())

    def events(self, path: str, content: object, **options: Any) -> list[Any]:
        """Return the events of a good answer: JSON, but for OpenAI's last one."""
        answer = self.ask(path, content, **options)
        text = answer.read().decode()
        assert answer.status == 200, text
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        *events, end = text.split("\n\n")
        assert end == ""
        events = [event.removeprefix("data: ") for event in events]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    made = Client(server)
    yield made
    made.close()


def test_models(client: Client) -> None:
    """Only language models that the caller may see are listed; a version may follow the name."""
    listed = client.get("/v1/models")
    (model,) = listed["data"]
    assert listed["object"] == "list"
    assert model.pop("created") > 1_600_000_000
    assert model == {"id": "tiny", "object": "model", "owned_by": "inferd", "max_model_len": CONTEXT}
    assert client.get("/v1/models", token="inferd_bob")["data"][0]["id"] == "tiny"
    assert client.get("/v1/models", token="inferd_carol")["data"] == []
    assert client.get("/v1/models/tiny")["id"] == "tiny"
    assert client.get("/v1/models/tiny:1")["id"] == "tiny:1"
    for name in ("nobody", "tiny:7", "linear"):
        status, content = client.fail(f"/v1/models/{name}")
        assert (status, content["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "request_", "text_of"),
    [
        ("/v1/completions", COMPLETION, lambda choice: choice["text"]),
        (
            "/v1/chat/completions",
            CHAT,
            lambda choice: choice.get("message", choice.get("delta", {})).get("content", ""),
        ),
    ],
    ids=["completions", "chats"],
)
def test_same_text_whole_and_in_events(client: Client, path: str, request_: dict, text_of: Any) -> None:
    """Also with several choices, for web pages, and without keep-alive; usage is as in OpenAI's API."""
    whole = client.get(path, request_)
    usage = whole["usage"]
    assert (usage["completion_tokens"], whole["choices"][0]["finish_reason"]) == (12, "length")
    text = text_of(whole["choices"][0])
    assert text
    for options in ({}, {"Origin": "http://page"}, {"Connection": "close"}):
        made = client.events(path, {**request_, "stream": True, "stream_options": {"include_usage": True}}, **options)
        *events, last, done = made
        assert done == "[DONE]"
        assert last["usage"] == usage
        assert "".join(text_of(event["choices"][0]) for event in events) == text
    several = client.events(path, {**request_, "stream": True, "n": 3, "model": "tiny:1"})[:-1]
    for index in range(3):
        choices = [event["choices"][0] for event in several if event["choices"][0]["index"] == index]
        assert "".join(map(text_of, choices)) == text
        assert [choice["finish_reason"] for choice in choices].count("length") == 1


def test_seeds(client: Client) -> None:
    """The same seed has the same answer; choices differ."""
    request = {**COMPLETION, "temperature": 1.5, "n": 2}
    first, again, other = (
        [choice["text"] for choice in client.get("/v1/completions", {**request, "seed": seed})["choices"]]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0] != first[1]
    assert other[1] != first[1]


def test_token_ids_and_stop_strings(client: Client) -> None:
    """Prompts may be token ids; an answer does not contain its stop string."""
    text = client.get("/v1/completions", {**COMPLETION, "prompt": [5, 6, 7]})["choices"][0]["text"]
    echoed = client.get("/v1/completions", {**COMPLETION, "prompt": [5, 6, 7], "echo": True})["choices"][0]["text"]
    assert echoed.endswith(text)
    assert len(echoed) > len(text)
    stop = text[3:5]
    choice = client.get("/v1/completions", {**COMPLETION, "prompt": [5, 6, 7], "stop": stop})["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")


def test_log_probabilities_of_prompts(client: Client) -> None:
    """With echo, those of a text are the same as when it was generated, except for rounding."""
    request = {**COMPLETION, "prompt": [5, 6, 7], "logprobs": 1, "return_token_ids": True}
    answer = client.get("/v1/completions", request)["choices"][0]
    whole = {**request, "prompt": [5, 6, 7, *answer["token_ids"]], "echo": True, "max_tokens": 0}
    echoed = client.get("/v1/completions", whole)["choices"][0]
    assert echoed["text"].endswith(answer["text"])
    assert echoed["logprobs"]["tokens"][3:] == answer["logprobs"]["tokens"]
    first, *others = echoed["logprobs"]["token_logprobs"]
    assert first is None
    assert others[2:] == pytest.approx(answer["logprobs"]["token_logprobs"], abs=1e-3)


def test_log_probabilities(client: Client) -> None:
    """Each token has them, and the texts of the tokens are the answer."""
    content = client.get("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2})
    (choice,) = content["choices"]
    tokens = choice["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace") == choice["message"]["content"]
    assert {len(token["top_logprobs"]) for token in tokens} == {2}
    assert all(token["logprob"] <= token["top_logprobs"][0]["logprob"] for token in tokens)


def test_generate(client: Client) -> None:
    """Triton's operations have the same answers as OpenAI's."""
    text = client.get("/v1/completions", COMPLETION)["choices"][0]["text"]
    request = {"text_input": COMPLETION["prompt"], "parameters": {"max_tokens": 12}, "id": "7"}
    for version in ("", "/versions/1"):
        content = client.get(f"/v2/models/tiny{version}/generate", request)
        names = {"model_name": "tiny", "model_version": "1", "id": "7"}
        assert content == {**names, "text_output": f"{COMPLETION['prompt']}{text}"}
        events = client.events(f"/v2/models/tiny{version}/generate_stream", {**request, "stream": True})
        assert "".join(event["text_output"] for event in events) == text
        assert events[0].items() >= names.items()
    status, content = client.fail("/v2/models/linear/generate", request)
    assert (status, content["reason"]) == (400, "INVALID_INPUT")
    assert client.fail("/v2/models/nobody/generate", request)[0] == 404


@pytest.mark.parametrize(
    ("path", "options", "status", "error"),
    [
        ("/v1/chat/completions", {"token": None}, 401, {"type": "authentication_error", "code": "invalid_api_key"}),
        ("/v1/chat/completions", {"token": "wrong"}, 401, {"type": "authentication_error", "code": "invalid_api_key"}),
        ("/v1/chat/completions", {"token": "inferd_bob"}, 403, {"type": "permission_error"}),
        ("/v1/chat/completions", {"token": "inferd_carol"}, 404, {"code": "model_not_found"}),
        ("/v1/embeddings", {}, 404, {"code": "unknown_path"}),
        ("/v1/models", {}, 405, {"code": "method_not_allowed", "type": "invalid_request_error"}),
        ("/v1/chat/completions", {"X_Request_Timeout_Ms": "x"}, 400, {"param": "x-request-timeout-ms"}),
        ("/v1/chat/completions", {"Content_Encoding": "br"}, 415, {"param": "Content-Encoding"}),
    ],
)
def test_errors(client: Client, path: str, options: dict, status: int, error: dict) -> None:
    """All errors have OpenAI's form, also those of HTTP and authentication."""
    found, content = client.fail(path, CHAT, **options)
    assert found == status
    assert error.items() <= content["error"].items(), content
    assert {"message", "type", "param", "code"} <= content["error"].keys()


def test_body_that_is_too_large(client: Client) -> None:
    """It is rejected before it is read."""
    status, content = client.fail("/v1/completions", b" " * (3 << 20))
    assert (status, content["error"]["code"]) == (413, "message_too_large")


def test_long_prompts(client: Client) -> None:
    """They are read by another thread; one that is longer than the context has its own error code."""
    status, content = client.fail(
        "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": "a" * 30_000}]}
    )
    error = content["error"]
    assert (status, error["param"], error["code"]) == (400, "messages", "context_length_exceeded")


def test_quota(client: Client) -> None:
    """The error has a retry hint."""
    assert client.ask("/v1/completions", COMPLETION, token="inferd_limited").read()
    answer = client.ask("/v1/completions", COMPLETION, token="inferd_limited")
    error = json.loads(answer.read())["error"]
    assert (answer.status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert int(answer.headers["Retry-After"]) > 0


def test_request_id(client: Client) -> None:
    """It is in the header of a stream, in the id of the answer, and in the access log."""
    answer = client.ask("/v1/completions", {**COMPLETION, "stream": True}, X_Request_Id="mine")
    assert answer.headers["X-Request-Id"] == "mine"
    assert json.loads(answer.read().decode().split("\n\n")[0].removeprefix("data: "))["id"] == "cmpl-mine"


def test_access_log(client: Client, server: ServerProcess) -> None:
    """It has the status and the sent bytes."""
    answer = client.ask("/v1/completions", {**COMPLETION, "stream": True}, X_Request_Id="logged")
    size = len(answer.read())
    line = server.wait_event("access", request_id="logged")
    assert (line["method"], line["status"], line["http_status"]) == ("POST /v1/completions", "OK", 200)
    assert (line["bytes_out"], line["generated_tokens"]) == (size, 12)


def test_disconnected_client_cancels_its_generations(client: Client, server: ServerProcess) -> None:
    """However long they would have been."""
    host, port = str(server.rest).rsplit(":", 1)
    body = json.dumps({**COMPLETION, "max_tokens": 4000, "n": 8, "stream": True}).encode()
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = (
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer inferd_alice\r\nX-Request-Id: gone\r\n"
        )
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(100)
    assert server.wait_event("access", request_id="gone")["method"] == "POST /v1/completions"
    ended = "inferd_generation_requests_total"
    eventually(lambda: metric(server, ended, model="tiny", finish_reason="cancelled") == 8, "they are cancelled")
    eventually(lambda: metric(server, "inferd_sequences_running", model="tiny") == 0, "no sequence runs")


def test_description(client: Client) -> None:
    """Answers are valid by the schemas of /openapi.json."""
    described = client.get("/openapi.json")

    def check(method: str, path: str, status: int, content: object) -> None:
        response = described["paths"][path][method]["responses"][str(status)]
        if "$ref" in response:
            response = described["components"]["responses"][response["$ref"].rpartition("/")[2]]
        schema = response["content"]["application/json"]["schema"]
        Draft202012Validator({"components": described["components"], **schema}).validate(content)

    check("get", "/v1/models", 200, client.get("/v1/models"))
    check("get", "/v1/models/{model}", 200, client.get("/v1/models/tiny"))
    for path, request in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        check("post", path, 200, client.get(path, request))
        check("post", path, *client.fail(path, {**request, "n": 0}))
        requests = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator({"components": described["components"], **requests}).validate(request)
    generate = "/v2/models/{model}/generate"
    check("post", generate, 200, client.get("/v2/models/tiny/generate", {"text_input": "a", "max_tokens": 1}))
    check("post", generate, *client.fail("/v2/models/tiny/generate", {}))


def test_drain_lets_answers_finish(client: Client, server: ServerProcess) -> None:
    """Answers that have begun are complete. The last test, because it stops the server."""
    answer = client.ask("/v1/completions", {**COMPLETION, "max_tokens": 240, "stream": True})
    assert answer.status == 200
    server.process.send_signal(signal.SIGTERM)
    text = answer.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    assert json.loads(text.split("\n\n")[-3].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    client.close()
    assert server.wait() == 0
