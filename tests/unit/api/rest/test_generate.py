"""Triton's generate and generate_stream."""

import json

import pytest

from inferd.api.generation.generations import Generations
from inferd.api.rest.generate import Generate
from inferd.errors import InferenceFailedError
from inferd.generation.request import FinishReason
from tests.unit.api.generation.fakes import Bench, FakeLanguageModel
from tests.unit.api.http_call import FakeHttpCall, message

ATTRIBUTES = {"model_name": "story", "model_version": "3"}


class Endpoint:
    """Both operations on a language model whose engine does what the test says."""

    def __init__(self) -> None:
        self.bench = Bench(FakeLanguageModel())
        self.engine = self.bench.engine
        self._generate = Generate(self.bench.resources, Generations(self.bench.resources))

    def ask(self, content: object, *, streams: bool = False, version: str | None = None) -> FakeHttpCall:
        call = FakeHttpCall()
        path = {"model": "story"} if version is None else {"model": "story", "version": version}
        self._generate.handler(streams=streams)(call, message(content, path))
        return call


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_generate(endpoint: Endpoint) -> None:
    """One object with id and requested outputs, whose text begins with the prompt as in Triton."""
    call = endpoint.ask(
        {
            "id": "7",
            "text_input": "once",
            "parameters": {"max_tokens": 5, "temperature": 0.5, "return_finish_reason": True},
            "return_num_input_tokens": True,
            "stop": ["."],
        },
        version="3",
    )
    (request,) = endpoint.engine.submitted
    assert (request.max_tokens, request.sampling.temperature, request.stops.strings) == (5, 0.5, (".",))
    endpoint.engine.generate(" upon")
    endpoint.engine.finish(" a")
    assert call.answer == {
        **ATTRIBUTES,
        "id": "7",
        "text_output": "once upon a",
        "finish_reason": "stop",
        "num_input_tokens": 4,
    }


def test_generate_without_the_prompt(endpoint: Endpoint) -> None:
    """Empty bad_words, which clients send, are accepted."""
    call = endpoint.ask({"text_input": "once", "exclude_input_in_output": True, "stream": False, "bad_words": ""})
    endpoint.engine.finish(" upon")
    assert call.answer == {**ATTRIBUTES, "text_output": " upon"}


def test_generate_stream(endpoint: Endpoint) -> None:
    """An event for each delta, without the prompt."""
    text = json.dumps({"max_tokens": 5})
    call = endpoint.ask({"text_input": "once", "stream": True, "sampling_parameters": text}, streams=True)
    assert endpoint.engine.submitted[0].max_tokens == 5
    endpoint.engine.generate(" upon")
    assert call.events == [{**ATTRIBUTES, "text_output": " upon"}]
    endpoint.engine.finish(" a", reason=FinishReason.LENGTH)
    assert call.events == [{**ATTRIBUTES, "text_output": " upon"}, {**ATTRIBUTES, "text_output": " a"}]
    assert call.headers is not None
    assert call.headers["Content-Type"].startswith("text/event-stream")


def test_generate_stream_without_a_stream(endpoint: Endpoint) -> None:
    """One event with the whole, as in Triton; errors have their status to the end."""
    call = endpoint.ask({"text_input": "once", "stream": False}, streams=True)
    endpoint.engine.generate(" upon")
    endpoint.engine.finish(" a")
    assert call.events == [{**ATTRIBUTES, "text_output": "once upon a"}]
    assert call.headers is None, "it was sent whole"


def test_token_ids(endpoint: Endpoint) -> None:
    """Input and output are arrays, also of one token."""
    call = endpoint.ask({"input_ids": [5, 6]})
    assert endpoint.engine.submitted[0].prompt.tolist() == [5, 6]
    endpoint.engine.finish("a")
    assert call.answer == {**ATTRIBUTES, "text_output": "a", "output_ids": [97]}


def test_error_after_the_first_token(endpoint: Endpoint) -> None:
    """The error is an event in Triton's form."""
    call = endpoint.ask({"text_input": "once"}, streams=True)
    endpoint.engine.generate(" upon")
    endpoint.engine.fail(InferenceFailedError())
    error = {"error": "the model failed to run this request", "reason": "INFERENCE_FAILED"}
    assert call.events == [{**ATTRIBUTES, "text_output": " upon"}, error]


@pytest.mark.parametrize(
    ("content", "field", "text"),
    [
        ({}, "inputs", "expected either text_input or input_ids, got neither"),
        ({"text_input": 5}, "text_input", "expected a string, got a number"),
        ({"input_ids": [1, True]}, "input_ids", "expected an array of integers, got a boolean in it"),
        ({"input_ids": "1"}, "input_ids", "expected an array of integers, got a string"),
        ({"text_input": "a", "stream": True}, "stream", "expected false, or the operation generate_stream, got true"),
        ({"text_input": "a", "stream": "yes"}, "stream", "expected a boolean, got a string"),
        ({"text_input": "a", "id": 5}, "id", "expected a string, got a number"),
        ({"text_input": "a", "parameters": []}, "parameters", "expected an object, got an array"),
        ({"text_input": "a", "invented": 1}, "invented", "no such input or parameter"),
        ({"text_input": "a", "bad_words": "b"}, "bad_words", "no such input or parameter"),
        ({"text_input": "a", "seed": 1, "parameters": {"seed": 2}}, "seed", "expected once"),
        ({"text_input": "a", "max_tokens": 0}, "max_tokens", "expected 1 or more"),
        ({"text_input": "a", "parameters": {"max_tokens": 0}}, 'parameters["max_tokens"]', "expected 1 or more"),
    ],
)
def test_invalid_values(endpoint: Endpoint, content: dict, field: str, text: str) -> None:
    """The error names the field, what was expected and what came."""
    call = endpoint.ask(content)
    assert (call.status, call.error["field"]) == (400, field)
    assert text in call.error["error"]


def test_tokens_are_sent_as_they_come(endpoint: Endpoint) -> None:
    """Also while they are no complete text, or never will be without a tokenizer."""
    call = endpoint.ask({"input_ids": [1, 2]}, streams=True)
    endpoint.engine.keep([3])
    endpoint.engine.keep([4])
    assert [event["output_ids"] for event in call.events] == [[3], [4]]
