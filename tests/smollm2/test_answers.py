"""The capital of France, by every way to ask."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator

import grpc
import pytest

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd.client import AsyncClient, Client, FinishReason
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT
from tests.smollm2.conftest import MODELS

QUESTION = "What is the capital of France?"
#: What both say, over all protocols.
ANSWER = "The capital of France is Paris."
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(params=MODELS)
def model(request) -> str:
    """Each of the models."""
    return request.param


@pytest.fixture
def prompt(server, model) -> str:
    """What the template makes of the question, for protocols that take text."""
    messages = [pb.ChatMessage(**message) for message in MESSAGES]
    with grpc.insecure_channel(server.grpc) as channel:
        request = pb.TokenizeRequest(model=model, prompt=pb.Prompt(chat=pb.Chat(messages=messages)))
        return GenerationServiceStub(channel).Tokenize(request, timeout=PATIENCE_S).text


def _run(*command: object) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_command_line(server, model, protocol):
    """A chat by default, as the model has a template."""
    address = server.grpc if protocol == "grpc" else f"http://{server.rest}"
    line = (QUESTION, "--temperature", 0, "--address", address)
    assert _run("inferd", "generate", model, *line) == f"{ANSWER}\n"


def test_text_to_continue(server, model):
    """Without the template."""
    line = ("--no-chat", "--max-tokens", 8, "--temperature", 0, "--address", server.grpc)
    assert "Paris" in _run("inferd", "generate", model, "The capital of France is", *line)


def test_client(server, model):
    """Delta by delta, with usage."""
    with Client(server.grpc) as client:
        *pieces, last = client.chat(model, MESSAGES, temperature=0)
    assert "".join(piece.text for piece in pieces) + last.text == ANSWER
    assert len(pieces) > 3
    assert last.finish_reason is FinishReason.STOP
    assert last.usage.generated_tokens == sum(len(delta.token_ids) for delta in (*pieces, last))


def test_asyncio_client(server, model):
    """Several at once."""

    async def ask():
        async with AsyncClient(server.grpc) as client:
            answers = [client.chat(model, MESSAGES, temperature=0).result() for _ in range(4)]
            return [answer.text for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [ANSWER] * 4


def test_grpcurl(server, model):
    """By reflection, without any file of inferd's."""
    request = {
        "model": model,
        "prompt": {"chat": {"messages": MESSAGES}},
        "sampling": {"temperature": 0},
    }
    output = _run(
        "grpcurl", "-plaintext", "-d", json.dumps(request), server.grpc, "inferd.v1.GenerationService/Generate"
    )
    *pieces, last = _objects(output)
    assert "".join(piece.get("text", "") for piece in pieces) + last.get("text", "") == ANSWER
    assert last["finish_reason"] == "FINISH_REASON_STOP"


def _objects(text: str) -> Iterator[dict]:
    """Yield JSON objects that follow each other."""
    decoder = json.JSONDecoder()
    while text := text.strip():
        found, end = decoder.raw_decode(text)
        yield found
        text = text[end:]


def test_curl(server, model):
    """Server-sent events of OpenAI's API."""
    request = {"model": model, "messages": MESSAGES, "temperature": 0, "stream": True}
    url = f"http://{server.rest}/v1/chat/completions"
    output = _run("curl", "-sS", "-N", url, "-H", "Content-Type: application/json", "-d", json.dumps(request))
    lines = [line.removeprefix("data: ") for line in output.splitlines() if line]
    assert lines[-1] == "[DONE]"
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == ANSWER


def test_curl_with_tritons_form(server, model, prompt):
    """Server-sent events of Triton's generate extension."""
    request = {"text_input": prompt, "stream": True, "exclude_input_in_output": True, "parameters": {"temperature": 0}}
    url = f"http://{server.rest}/v2/models/{model}/generate_stream"
    output = _run("curl", "-sS", "-N", url, "-d", json.dumps(request))
    events = [json.loads(line.removeprefix("data: ")) for line in output.splitlines() if line.startswith("data: ")]
    assert "".join(event.get("text_output", "") for event in events) == ANSWER


def test_openai_client(server, model):
    """Unmodified: blocking, asyncio, streams, and a clear error for tools; see the script."""
    _run(
        ROOT / ".venv/openai/bin/python",
        ROOT / "tests/smollm2/openai_script.py",
        server.rest,
        model,
        json.dumps(MESSAGES),
    )


def test_triton_client(server, model, prompt):
    """Unmodified, over its stream; see the script."""
    script = ROOT / "tests/smollm2/triton_script.py"
    assert _run(ROOT / ".venv/tritonclient/bin/python", script, server.grpc, model, prompt) == f"{ANSWER}\n"
