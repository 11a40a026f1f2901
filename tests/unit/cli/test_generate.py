"""``inferd generate`` against a fake server."""

import io
import json
import sys
import threading

import grpc
import pytest

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import DIGITS, STORYTELLER, FakeService, overload_status, refuse, spelled

COLD = inference_pb2.Model(name="cold", version="1", state=inference_pb2.Model.STATE_ON_DEMAND)


@pytest.fixture
def service():
    """The fake server, with a model that generates and one that does not."""
    plain = inference_pb2.Model()
    plain.CopyFrom(STORYTELLER)
    plain.name, plain.generation.has_chat_template = "plain", False
    return FakeService(STORYTELLER, plain, DIGITS, COLD)


@pytest.fixture
def generate(inferd, server):
    """Run the command against the fake server."""
    return lambda *arguments: inferd("generate", *arguments, "-a", server.address)


@pytest.fixture
def stdin(monkeypatch):
    """Give bytes to the command's stdin."""

    def give(content, *, terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", stream)

    return give


def test_prints_the_answer(generate):
    """With a line end, and nothing else."""
    result = generate("storyteller", "Paris")
    assert (result.exit_code, result.out, result.err) == (0, "Paris\n", "")


def test_text_is_printed_as_it_comes(generate, service, monkeypatch):
    """Each delta is flushed before the next one is waited for."""
    flushed = threading.Event()
    written = []
    monkeypatch.setattr("sys.stdout.write", written.append)
    monkeypatch.setattr("sys.stdout.flush", lambda: written[-1:] == ["o"] and flushed.set())

    def answer(request, context):
        first, *others = spelled(request)
        yield first
        assert flushed.wait(PATIENCE_S)
        yield from others

    service.on_generate = answer
    assert generate("storyteller", "on").exit_code == 0
    assert "".join(written) == "on\n"


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["storyteller"], [("user", "hi")]),
        (["storyteller", "--system", "be brief"], [("system", "be brief"), ("user", "hi")]),
        (["storyteller", "--no-chat"], None),
        (["plain"], None),
        (["plain", "--chat"], [("user", "hi")]),
        (["plain", "--system", "be brief"], [("system", "be brief"), ("user", "hi")]),
    ],
    ids=str,
)
def test_chat_or_text(generate, service, arguments, messages):
    """A chat by default if the model has a template, and with a message of the system."""
    model, *options = arguments
    assert generate(model, "hi", *options).out == "hi\n"
    (request,) = service.generate_requests
    if messages is None:
        assert request.prompt.text == "hi"
    else:
        assert [(each.role, each.content) for each in request.prompt.chat.messages] == messages


def test_options_are_sent(generate, service):
    """Each in its field; without them, all fields stay unset."""
    line = (
        "--max-tokens 7 --min-tokens 2 --stop END --stop . --ignore-end-tokens --temperature 0.5 --top-k 50 "
        "--top-p 0.9 --min-p 0.1 --seed 3 --repetition-penalty 1.1 --frequency-penalty -1 --presence-penalty 0.5 "
        "--model-version 2 --priority 1 --logprobs 4 --no-chat"
    )
    generate("storyteller", "on", *line.split())
    generate("storyteller", "on", "--no-chat")
    sent, bare = service.generate_requests
    assert sent == pb.GenerateRequest(
        model="storyteller", version="2", prompt=pb.Prompt(text="on"), max_tokens=7, logprobs=4, priority=1,
        sampling=pb.Sampling(
            temperature=0.5, top_k=50, top_p=0.9, min_p=0.1, seed=3, repetition_penalty=1.1, frequency_penalty=-1,
            presence_penalty=0.5,
        ),
        stop=pb.StopConditions(texts=["END", "."], ignore_end_tokens=True, min_tokens=2),
    )  # fmt: skip
    assert bare == pb.GenerateRequest(
        model="storyteller", prompt=pb.Prompt(text="on"), sampling=pb.Sampling(), stop=pb.StopConditions()
    )


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=str)
def test_prompt_from_stdin(generate, service, stdin, arguments):
    """Without its last line end."""
    stdin("Grüße\n\n".encode())
    generate("plain", *arguments)
    assert service.generate_requests[0].prompt.text == "Grüße\n"


def test_no_prompt(generate, stdin):
    """On a terminal nothing is waited for."""
    stdin(b"", terminal=True)
    result = generate("plain")
    assert (result.exit_code, result.err) == (2, "inferd: PROMPT: expected a text, or one on stdin\n")


def test_stdin_that_is_no_text(generate, stdin):
    """The byte is named."""
    stdin(b"a\xff")
    result = generate("plain")
    assert (result.exit_code, result.err) == (2, "inferd: stdin: expected UTF-8, got byte 0xff at 1\n")


def test_json_lines(generate, service):
    """One for each delta; the last has reason and usage."""

    def answer(request, context):
        chosen = pb.TokenLogprob(token_id=9, token=b"\xe2a", logprob=-0.5)
        yield pb.GenerateResponse(token_ids=[9], text="\x1b", logprobs=[pb.TokenLogprobs(chosen=chosen, top=[chosen])])
        usage = pb.GenerationUsage(prompt_tokens=3, generated_tokens=1)
        yield pb.GenerateResponse(finish_reason=pb.FINISH_REASON_LENGTH, usage=usage)

    service.on_generate = answer
    first, last = map(json.loads, generate("storyteller", "on", "--json").out.splitlines())
    told = {"token_id": 9, "token": "\\xe2a", "logprob": -0.5}
    assert first == {"text": "\x1b", "token_ids": [9], "logprobs": [{**told, "top": [told]}]}
    assert last == {
        "text": "",
        "token_ids": [],
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "generated_tokens": 1, "queue_s": 0.0, "first_token_s": 0.0},
    }


def test_control_characters_on_a_terminal(generate, service, monkeypatch):
    """They are escaped there, except for line ends and tabs; a file gets the text as it is."""
    text = "\x1b[31m\tred\n"
    assert generate("storyteller", text).out == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert generate("storyteller", text).out == "\\x1b[31m\tred\n"


def test_stats(generate):
    """On stderr, so that the answer can be piped."""
    result = generate("storyteller", "Paris", "--stats")
    assert result.out == "Paris\n"
    assert result.err.startswith("storyteller version 2: 3 tokens in, 5 out (stop), the first after 0.")


def test_interrupt_cancels(generate, service, monkeypatch):
    """The server is told, the line is ended, and the exit code is that of shells."""
    cancelled = threading.Event()

    def answer(request, context):
        context.add_callback(cancelled.set)
        while True:
            yield pb.GenerateResponse(token_ids=[1], text="a")

    service.on_generate = answer
    monkeypatch.setattr("sys.stdout.flush", _interrupting(after=3))
    result = generate("storyteller", "on")
    assert (result.exit_code, result.out) == (130, "aaa\n")
    assert cancelled.wait(PATIENCE_S)


def _interrupting(after):
    calls = 0

    def flush():
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    return flush


def test_error_after_text(generate, service):
    """The text stays, on a line of its own."""

    def answer(request, context):
        yield next(iter(spelled(request)))
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")

    service.on_generate = answer
    result = generate("storyteller", "on")
    assert (result.exit_code, result.out, result.err) == (1, "o\n", "inferd: DEADLINE_EXCEEDED: too late\n")


def test_rejection(generate, service):
    """With the server's hint."""

    def answer(request, context):
        refuse(context, pushback_ms="-1", details=overload_status(retry_s=2).SerializeToString())
        yield

    service.on_generate = answer
    result = generate("storyteller", "on")
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == "inferd: RESOURCE_EXHAUSTED: the queue is full (retry after 2 s)\n"


def test_model_that_does_not_generate(generate):
    """Before anything is sent to it."""
    result = generate("digits", "on")
    assert result.exit_code == 1
    assert result.err == 'inferd: model "digits" is not known to generate text, its state is READY\n'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--system", "brief", "--no-chat"], "--system: expected no --no-chat beside it"),
        (["--max-tokens", "0"], "--max-tokens: expected 1 or more, got 0"),
        (["--max-tokens", "-1"], "--max-tokens: expected 1 or more, got -1"),
        (["--min-tokens", "-1"], "--min-tokens: expected 0 or more, got -1"),
        (["--temperature", "nan"], "--temperature: expected 0 to 2, got nan"),
        (["--top-k", "-1"], "--top-k: expected 0 or more, got -1"),
        (["--top-p", "0"], "--top-p: expected more than 0 and at most 1, got 0"),
        (["--min-p", "1.5"], "--min-p: expected 0 to 1, got 1.5"),
        (["--repetition-penalty", "inf"], "--repetition-penalty: expected more than 0 and at most 1000000, got inf"),
        (["--frequency-penalty", "-3"], "--frequency-penalty: expected -2 to 2, got -3"),
        (["--presence-penalty", "3"], "--presence-penalty: expected -2 to 2, got 3"),
        (["--logprobs", "21"], "--logprobs: expected 0 to 20, got 21"),
        (["--stop", ""], "--stop: expected texts of 1 to 1024 bytes, got 0"),
    ],
    ids=str,
)
def test_invalid_options(generate, service, arguments, text):
    """They are named, and nothing is sent."""
    result = generate("storyteller", "on", *arguments)
    assert (result.exit_code, result.err) == (2, f"inferd: {text}\n")
    assert not service.generate_requests
