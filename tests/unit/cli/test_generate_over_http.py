"""``inferd generate`` over OpenAI's API, against a fake server."""

import json

import pytest

from tests.unit.cli.http_service import serving_http

EVENTS = [
    {"model": "storyteller", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"model": "storyteller", "choices": [{"index": 0, "delta": {"content": "Par"}, "finish_reason": None}]},
    {"model": "storyteller", "choices": [{"index": 0, "delta": {"content": "ïs"}, "finish_reason": None}]},
    {"model": "storyteller", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
    {"model": "storyteller", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]
TEXT_EVENTS = [
    {"choices": [{"text": "on", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
]
DETAILS = {"models": [{"name": "storyteller", "version": "1", "state": "STATE_READY", "generation": {}}]}


@pytest.fixture
def service():
    """The fake server, which gives the answer of a chat."""
    with serving_http() as running:
        running.answers = [_stream(EVENTS)]
        yield running


@pytest.fixture
def generate(inferd, service):
    """Run the command against the fake server."""
    return lambda *arguments: inferd("generate", "storyteller", "hi", *arguments, "-a", service.address)


def _stream(events, end="data: [DONE]\n\n"):
    lines = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return 200, {"Content-Type": "text/event-stream", "x-request-id": "r1"}, (lines + end).encode()


def test_chat(generate, service):
    """Its messages and options, and the answer as it comes."""
    result = generate("--chat", "--system", "brief", "--max-tokens", "2", "--stats")
    assert (result.exit_code, result.out) == (0, "Parïs\n")
    assert result.err.startswith("storyteller: 3 tokens in, 2 out (length), ")
    (request,) = service.requests
    assert request.path == "/v1/chat/completions"
    assert json.loads(request.body) == {
        "model": "storyteller",
        "messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "hi"}],
        "max_tokens": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_empty_message(inferd, service):
    """It is a message, as over gRPC."""
    assert inferd("generate", "storyteller", "", "--chat", "-a", service.address).exit_code == 0
    assert json.loads(service.requests[0].body)["messages"] == [{"role": "user", "content": ""}]


def test_text(generate, service):
    """With everything that a request may have, by OpenAI's names and those that other servers use beside them."""
    service.answers = [_stream(TEXT_EVENTS, end="")]
    line = (
        "--max-tokens 7 --min-tokens 2 --stop END --ignore-end-tokens --temperature 0 --top-k 50 --top-p 0.5 "
        "--min-p 0.25 --seed 18446744073709551615 --repetition-penalty 1.5 --frequency-penalty -1 "
        "--presence-penalty 0.5 --no-chat"
    )
    assert generate("--model-version", "2", *line.split()).out == "on\n"
    (request,) = service.requests
    assert request.path == "/v1/completions"
    sent = json.loads(request.body)
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == {
        "model": "storyteller:2", "prompt": "hi", "stream": True, "max_tokens": 7, "min_tokens": 2, "stop": ["END"],
        "ignore_eos": True, "temperature": 0, "top_k": 50, "top_p": 0.5, "min_p": 0.25, "seed": 2**64 - 1,
        "repetition_penalty": 1.5, "frequency_penalty": -1, "presence_penalty": 0.5,
    }  # fmt: skip


def test_form_by_the_models_description(generate, service):
    """Of a server that describes its models."""
    service.answers = [(200, {}, b"{}"), (200, {}, json.dumps(DETAILS).encode()), _stream(TEXT_EVENTS)]
    assert generate().out == "on\n"
    assert [request.path for request in service.requests] == [
        "/v2/models/storyteller",
        "/v2/models?details=true&model=storyteller&version=",
        "/v1/completions",
    ]


def test_rejected_requests_are_repeated(generate, service):
    """By the server's hint."""
    rejection = {"error": {"message": "the queue is full", "code": "queue_full", "retry_after_ms": 1}}
    service.answers = [(429, {}, json.dumps(rejection).encode()), _stream(EVENTS)]
    assert generate("--chat").out == "Parïs\n"
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {}, b'{"error": {"message": "no such model", "type": "x"}}'), "NOT_FOUND: no such model"),
        (
            _stream([{"error": {"message": "draining", "code": "model_unavailable"}}]),
            "MODEL_UNAVAILABLE: draining (request r1)",
        ),
        (_stream(EVENTS[:-1]), "INTERNAL: the stream ended before the answer did"),
        (_stream([], end="data: {]\n\n"), "INTERNAL: expected an event of OpenAI's API, got  {]"),
    ],
    ids=["status", "event", "end", "nonsense"],
)
def test_errors(generate, service, answer, error):
    """In one line, behind what came before."""
    service.answers = [answer]
    result = generate("--chat")
    assert (result.exit_code, result.err) == (1, f"inferd: {error}\n")


def test_log_probabilities(generate, service):
    """What the other form lacks is refused before anything is sent."""
    result = generate("--chat", "--logprobs", "3")
    assert result.exit_code == 2
    assert result.err.startswith("inferd: log probabilities are given over gRPC only")
    assert not service.requests
