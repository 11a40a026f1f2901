"""Answers of OpenAI's API: whole, in events, and errors."""

import json

import grpc
import pytest

from inferd.api.generation.generations import Generations
from inferd.api.openai import routes
from inferd.api.openai.errors import openai_form
from inferd.api.openai.service import OpenAiService
from inferd.errors import (
    ColdModelError,
    DeadlineExceededError,
    InferenceFailedError,
    InvalidInputError,
    OverloadedError,
)
from inferd.generation.request import Candidate, Delta, FinishReason, TokenLogprobs, Usage
from inferd.http.messages import HttpMessage
from tests.unit.api.generation.fakes import CONTEXT, Bench, FakeLanguageModel
from tests.unit.api.http_call import FakeHttpCall, message

CHAT = {"model": "story", "messages": [{"role": "user", "content": "Hello"}]}
COMPLETION = {"model": "story", "prompt": "once"}


class Endpoint:
    """The endpoints on a language model whose engine does what the test says."""

    def __init__(self) -> None:
        self.bench = Bench(FakeLanguageModel())
        self.engine = self.bench.engine
        self.bench.registry.versions = lambda name: (self.bench.model,) if name == "story" else ()
        service = OpenAiService(self.bench.resources, Generations(self.bench.resources))
        self.operations = {operation.method: operation for _, operation in service.operations(2**20)}

    def ask(self, method: str, content: object) -> FakeHttpCall:
        call = FakeHttpCall(openai_form)
        self.operations[method].handler(call, message(content))
        return call

    def chat(self, **fields) -> FakeHttpCall:
        return self.ask(routes.CHAT_COMPLETIONS, {**CHAT, **fields})

    def complete(self, **fields) -> FakeHttpCall:
        return self.ask(routes.COMPLETIONS, {**COMPLETION, **fields})


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_chat_as_one_body(endpoint: Endpoint) -> None:
    """The answer is sent when it is complete."""
    call = endpoint.chat()
    endpoint.engine.generate("Hi ")
    assert not call.sent
    endpoint.engine.finish("you")
    answer = call.answer
    assert answer.pop("id") == f"chatcmpl-{call.context.request_id}"
    assert answer.pop("created") > 1_600_000_000
    message = {"role": "assistant", "content": "Hi you", "refusal": None}
    prompt_tokens = len("<user>Hello")
    assert answer == {
        "object": "chat.completion",
        "model": "story",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 7, "total_tokens": prompt_tokens + 7},
    }


def test_chat_in_events(endpoint: Endpoint) -> None:
    """The role, the deltas as they come, the finish reason, and [DONE]."""
    call = endpoint.chat(stream=True)
    assert call.headers is None, "an error would still have its own status"
    endpoint.engine.generate("Hi ")
    assert call.headers is not None
    assert call.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert call.headers["X-Request-Id"] == call.context.request_id
    assert len(call.sent) == 2
    endpoint.engine.generate("")
    assert len(call.sent) == 2, "nothing of it is complete"
    endpoint.engine.finish("you", reason=FinishReason.LENGTH)
    *events, done = call.events
    assert done == "[DONE]"
    assert {(event["id"], event["object"], event["model"]) for event in events} == {
        (f"chatcmpl-{call.context.request_id}", "chat.completion.chunk", "story")
    }
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi "},
        {"content": "you"},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "length"]
    assert not any("usage" in event for event in events)


def test_usage_in_events(endpoint: Endpoint) -> None:
    """Usage has an event of its own after the others, in which it is null."""
    call = endpoint.chat(stream=True, stream_options={"include_usage": True})
    endpoint.engine.finish("Hi")
    *events, usage, done = call.events
    assert done == "[DONE]"
    assert [event["usage"] for event in events] == [None, None]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 7


def test_completion_as_one_body(endpoint: Endpoint) -> None:
    """Text, finish reason and usage."""
    call = endpoint.complete()
    endpoint.engine.finish(" upon")
    assert call.answer["object"] == "text_completion"
    assert call.answer["choices"] == [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": "stop"}]


def test_echo(endpoint: Endpoint) -> None:
    """The prompt comes before the answer, in one body and in events."""
    call = endpoint.complete(echo=True)
    endpoint.engine.finish(" upon")
    assert call.answer["choices"][0]["text"] == "once upon"
    call = endpoint.complete(echo=True, stream=True)
    endpoint.engine.finish(" upon")
    assert [event["choices"][0]["text"] for event in call.events[:-1]] == ["once", " upon"]


def test_choices_of_several_prompts(endpoint: Endpoint) -> None:
    """In the order of the prompts, whichever ends first; the tokens of a prompt count once."""
    call = endpoint.complete(prompt=["ab", "c"], n=2, seed=3)
    assert [request.sampling.seed for request in endpoint.engine.submitted] == [3, 4, 3, 4]
    for position in (3, 0, 1, 2):
        assert not call.sent
        endpoint.engine.finish(f" {position}", position)
    choices = call.answer["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, " 0"), (1, " 1"), (2, " 2"), (3, " 3")]
    assert call.answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 28, "total_tokens": 31}


def test_too_many_choices_for_the_queue(endpoint: Endpoint) -> None:
    """The queue knows how many come together; its error names n."""
    call = endpoint.chat(n=3)
    assert [request.choices for request in endpoint.engine.submitted] == [3, 3, 3]
    endpoint.engine.fail(InvalidInputError("n: expected at most 2", at="choices"))
    error = call.error["error"]
    assert (call.status, error["code"], error["param"]) == (400, "invalid_value", "n")


def test_many_prompts_are_submitted_in_several_rounds(endpoint: Endpoint) -> None:
    """The poll thread serves other calls in between; once the call has ended, the rest is not submitted."""
    call = endpoint.complete(prompt=["a"] * 10)
    begun = [len(endpoint.engine.submitted)]
    while endpoint.bench.soon.waiting:
        endpoint.bench.soon.run()
        begun.append(len(endpoint.engine.submitted))
    assert begun == [4, 8, 10]
    for position in range(10):
        endpoint.engine.finish(str(position), position)
    assert [choice["text"] for choice in call.answer["choices"]] == [str(position) for position in range(10)]
    call = endpoint.complete(prompt=["a"] * 10)
    endpoint.engine.fail(InferenceFailedError())
    endpoint.bench.soon.run()
    assert len(endpoint.engine.submitted) == 14


def test_choices_in_events(endpoint: Endpoint) -> None:
    """Events of choices are mixed, each with its index; [DONE] comes when all have ended."""
    call = endpoint.complete(n=2, stream=True)
    endpoint.engine.generate("a", 0)
    endpoint.engine.generate("b", 1)
    endpoint.engine.finish("c", 0)
    assert call.ended is None
    endpoint.engine.finish("d", 1)
    *events, _ = call.events
    assert [(event["choices"][0]["index"], event["choices"][0]["text"]) for event in events] == [
        (0, "a"),
        (1, "b"),
        (0, "c"),
        (1, "d"),
    ]


def test_caller_that_does_not_read_gets_joined_events(endpoint: Endpoint) -> None:
    """When it reads again, each choice has one event with its output since, also one that has ended."""
    call = endpoint.complete(n=2, stream=True)
    endpoint.engine.generate("a", 0)
    call.is_backed_up = True
    for letter in "bcd":
        endpoint.engine.generate(letter, 0)
    endpoint.engine.finish("x", 1)
    assert len(call.sent) == 1
    call.catch_up()
    endpoint.engine.generate("e", 0)
    call.is_backed_up = True
    endpoint.engine.generate("f", 0)
    endpoint.engine.finish("g", 0)
    *events, _ = call.events
    texts = [(event["choices"][0]["index"], event["choices"][0]["text"]) for event in events]
    assert texts == [(0, "a"), (0, "bcd"), (1, "x"), (0, "e"), (0, "fg")]


def test_log_probabilities(endpoint: Endpoint) -> None:
    """In both forms; a token need not be text on its own."""

    def finish() -> None:
        request = endpoint.engine.submitted[-1]
        chosen, other = Candidate(7, b"\xc3", -0.5), Candidate(8, b"b", -1.5)
        last = Candidate(9, b"\xbc", -0.25)
        scores = [TokenLogprobs(other, [chosen]), TokenLogprobs(chosen, [chosen, other]), TokenLogprobs(last, [])]
        request.receiver.on_delta(Delta(token_ids=[8, 7, 9], text="bü", logprobs=scores))
        endpoint.engine.finish()

    call = endpoint.chat(logprobs=True, top_logprobs=2)
    finish()
    second = call.answer["choices"][0]["logprobs"]["content"][1]
    assert second == {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [0xC3],
        "top_logprobs": [
            {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]},
            {"token": "b", "logprob": -1.5, "bytes": [98]},
        ],
    }
    call = endpoint.complete(logprobs=2)
    finish()
    assert call.answer["choices"][0]["logprobs"] == {
        "tokens": ["b", "bytes:\\xc3", "bytes:\\xbc"],
        "token_logprobs": [-1.5, -0.5, -0.25],
        "top_logprobs": [
            {"bytes:\\xc3": -0.5, "b": -1.5},
            {"bytes:\\xc3": -0.5, "b": -1.5},
            {"bytes:\\xbc": -0.25},
        ],
        "text_offset": [0, 1, 2],
    }


@pytest.mark.parametrize("stream", [True, False])
def test_error_before_the_first_token(endpoint: Endpoint, stream: bool) -> None:
    """The answer has the status of the error, and the other choices are cancelled."""
    call = endpoint.complete(n=2, stream=stream)
    endpoint.engine.fail(OverloadedError("shed", retry_after_s=2.0, reason="SHED"))
    assert call.ended == (grpc.StatusCode.RESOURCE_EXHAUSTED, "shed")
    error = {"message": "shed", "type": "rate_limit_error", "param": None, "code": "shed", "retry_after_ms": 2000}
    assert (call.status, call.error) == (429, {"error": error})
    assert endpoint.engine.cancelled == [endpoint.engine.submitted[0]]


def test_error_after_the_first_token(endpoint: Endpoint) -> None:
    """The error is an event, after which no choice has others."""
    call = endpoint.chat(n=2, stream=True)
    endpoint.engine.generate("Hi", 0)
    endpoint.engine.fail(DeadlineExceededError("too late"), 0)
    endpoint.engine.generate("late", 1)
    *_, error, done = call.events
    assert done == "[DONE]"
    assert error == {
        "error": {"message": "too late", "type": "server_error", "param": None, "code": "deadline_exceeded"}
    }
    assert endpoint.engine.cancelled == [endpoint.engine.submitted[1]]


def test_rejection_of_the_first_choice(endpoint: Endpoint) -> None:
    """The other choices are not submitted."""
    endpoint.engine.rejection = InferenceFailedError()
    call = endpoint.complete(n=3)
    assert (call.status, len(endpoint.engine.submitted)) == (500, 1)


@pytest.mark.parametrize("stream", [True, False])
def test_disconnected_caller_cancels_all_choices(endpoint: Endpoint, stream: bool) -> None:
    """With one body and with events."""
    call = endpoint.complete(n=2, stream=stream)
    endpoint.engine.generate("a", 0)
    assert call.terminated is not None
    call.terminated()
    assert endpoint.engine.cancelled == endpoint.engine.submitted


def test_call_that_another_thread_has_ended(endpoint: Endpoint) -> None:
    """The next delta cancels the generations, for example after a credential was revoked."""
    call = endpoint.complete(n=2, stream=True)
    endpoint.engine.generate("a", 0)
    call.finish(grpc.StatusCode.UNAUTHENTICATED, "revoked")
    endpoint.engine.generate("b", 0)
    assert len(call.sent) == 1
    assert endpoint.engine.cancelled == endpoint.engine.submitted


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        ({**CHAT, "model": "nobody"}, 404, "model_not_found", None),
        ({**CHAT, "model": "story:7"}, 404, "model_not_found", None),
        ({**CHAT, "max_tokens": 1000}, 400, "context_length_exceeded", "max_tokens"),
        ({**CHAT, "messages": []}, 400, "invalid_value", "messages"),
        ({**CHAT, "messages": [{"role": "user", "content": "a" * 100}]}, 400, "context_length_exceeded", "messages"),
        ({**CHAT, "temperature": 3}, 400, "invalid_value", "temperature"),
        ({**CHAT, "top_logprobs": 21, "logprobs": True}, 400, "invalid_value", "top_logprobs"),
        ({**CHAT, "tools": [{}]}, 400, "unsupported_parameter", "tools"),
        (b"{", 400, "invalid_value", None),
        (b"[]", 400, "invalid_value", None),
        (b'{"model":"a","model":"b"}', 400, "invalid_value", None),
        (b'{"a":[' + b"1," * 70_000 + b"1]}", 400, "invalid_value", None),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:40],
)
def test_invalid_requests(endpoint: Endpoint, content: object, status: int, code: str, param: str | None) -> None:
    """Status, code and parameter are those of OpenAI's API."""
    call = endpoint.ask(routes.CHAT_COMPLETIONS, content)
    endpoint.bench.large.work.run()
    error = call.error["error"]
    assert (call.status, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert not endpoint.engine.submitted


def test_model_may_have_a_version_after_a_colon(endpoint: Endpoint) -> None:
    """That version generates."""
    endpoint.complete(model="story:3")
    assert len(endpoint.engine.submitted) == 1


def test_description_of_a_model_waits_for_its_load(endpoint: Endpoint) -> None:
    """As other queries about on-demand models do."""
    model = endpoint.bench.model
    model.is_loaded = False
    model.generation_limits = model.language.limits
    model.unavailable = lambda: ColdModelError("cold", model="story", version="3")
    call = FakeHttpCall(openai_form)
    endpoint.operations[routes.MODEL].handler(call, HttpMessage(b"", {"model": "story"}))
    (waiting,) = endpoint.bench.waits.waiting
    assert call.ended is None
    model.is_loaded = True
    waiting["go_on"](waiting["waited"]())
    assert (call.answer["id"], call.answer["max_model_len"]) == ("story", CONTEXT)


def test_long_body_is_read_by_another_thread(endpoint: Endpoint) -> None:
    """The poll thread submits it afterwards, unless the call has ended; with too many such bodies the status is 429."""
    padded = json.dumps(COMPLETION).encode() + b" " * 20_000
    endpoint.ask(routes.COMPLETIONS, padded)
    endpoint.bench.large.work.run()
    assert not endpoint.engine.submitted
    endpoint.bench.soon.run()
    assert len(endpoint.engine.submitted) == 1
    gone = endpoint.ask(routes.COMPLETIONS, padded)
    gone.finish()
    endpoint.bench.large.work.run()
    assert not endpoint.bench.soon.waiting
    endpoint.bench.large.full = True
    assert endpoint.ask(routes.COMPLETIONS, padded).status == 429


def _scored(token: int, logprob: float) -> TokenLogprobs:
    candidate = Candidate(token, bytes([token]), logprob)
    return TokenLogprobs(candidate, [candidate])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "events"])
def test_echo_with_log_probabilities(endpoint: Endpoint, stream: bool) -> None:
    """The echo has the log probabilities of the prompt, except of its first token, which has none."""
    call = endpoint.complete(prompt="ab", echo=True, logprobs=1, max_tokens=2, stream=stream)
    request = endpoint.engine.submitted[0]
    assert request.scores_prompt
    usage = Usage(prompt_tokens=2, generated_tokens=2, queue_s=0.0, first_token_s=0.0)
    for text, more in (("c", {"prompt_logprobs": [_scored(98, -0.5)]}), ("d", {"finish_reason": FinishReason.LENGTH})):
        delta = Delta(token_ids=[ord(text)], text=text, logprobs=[_scored(ord(text), -0.25)], **more)
        delta.usage = usage if delta.finish_reason else None
        request.receiver.on_delta(delta)
    choices = [event["choices"][0] for event in call.events[:-1]] if stream else call.answer["choices"]
    assert [choice["text"] for choice in choices] == (["abc", "d"] if stream else ["abcd"])
    found = {name: [each for choice in choices for each in choice["logprobs"][name]] for name in choices[0]["logprobs"]}
    assert found == {
        "tokens": ["a", "b", "c", "d"],
        "token_logprobs": [None, -0.5, -0.25, -0.25],
        "top_logprobs": [None, {"b": -0.5}, {"c": -0.25}, {"d": -0.25}],
        "text_offset": [0, 1, 2, 3],
    }


def test_echo_with_log_probabilities_and_no_tokens(endpoint: Endpoint) -> None:
    """max_tokens may be 0, for callers that compare texts."""
    call = endpoint.complete(prompt="ab", echo=True, logprobs=1, max_tokens=0)
    usage = Usage(prompt_tokens=2, generated_tokens=0, queue_s=0.0, first_token_s=0.0)
    delta = Delta(token_ids=[], prompt_logprobs=[_scored(98, -0.5)], finish_reason=FinishReason.LENGTH, usage=usage)
    endpoint.engine.submitted[0].receiver.on_delta(delta)
    [choice] = call.answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("ab", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5]
    assert call.answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}
