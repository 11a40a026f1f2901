"""Tokens of prompts and answers, for callers who ask for them as in vLLM."""

import pytest

from inferd.api.openai.answers import completion_logprobs
from inferd.generation.request import Candidate, TokenLogprobs
from tests.unit.api.openai.test_service import Endpoint

PROMPT = list(b"once")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_completion_has_token_ids(endpoint: Endpoint, echo: bool) -> None:
    """Each choice has its own and those of its prompt."""
    call = endpoint.complete(prompt=["once", "a"], return_token_ids=True, echo=echo)
    endpoint.engine.generate(" up", 0)
    endpoint.engine.finish("on", 0)
    endpoint.engine.finish("b", 1)
    first, second = call.answer["choices"]
    assert (first["prompt_token_ids"], first["token_ids"]) == (PROMPT, list(b" upon"))
    assert (second["prompt_token_ids"], second["token_ids"]) == ([97], [98])


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_events_of_completions_have_token_ids(endpoint: Endpoint, echo: bool) -> None:
    """Each event has those of its delta, also without text; the first one has those of the prompt."""
    call = endpoint.complete(stream=True, return_token_ids=True, echo=echo)
    endpoint.engine.generate(" up")
    endpoint.engine.keep([1, 2])
    endpoint.engine.finish("on")
    choices = [event["choices"][0] for event in call.events[:-1]]
    expected = [list(b" up"), [1, 2], list(b"on")]
    assert [choice["token_ids"] for choice in choices] == ([[], *expected] if echo else expected)
    assert [choice.get("prompt_token_ids") for choice in choices] == [PROMPT] + [None] * (len(choices) - 1)


def test_chat_has_token_ids(endpoint: Endpoint) -> None:
    """Those of the prompt come once, beside all choices."""
    call = endpoint.chat(n=2, return_token_ids=True)
    endpoint.engine.finish("you", 0)
    endpoint.engine.finish("me", 1)
    answer = call.answer
    assert answer["prompt_token_ids"] == list(b"<user>Hello")
    assert [choice["token_ids"] for choice in answer["choices"]] == [list(b"you"), list(b"me")]
    assert not any("prompt_token_ids" in choice for choice in answer["choices"])


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "usage"])
def test_events_of_chats_have_token_ids(endpoint: Endpoint, options: dict) -> None:
    """Those of the prompt come beside the first choice."""
    call = endpoint.chat(stream=True, return_token_ids=True, **options)
    endpoint.engine.finish("you")
    role, piece, *_ = call.events
    assert role["prompt_token_ids"] == list(b"<user>Hello")
    assert "prompt_token_ids" not in role["choices"][0]
    assert "prompt_token_ids" not in piece
    assert piece["choices"][0]["token_ids"] == list(b"you")
    assert ("usage" in role) is bool(options)


def test_slow_reader_gets_all_token_ids(endpoint: Endpoint) -> None:
    """Later, in one event."""
    call = endpoint.complete(stream=True, return_token_ids=True)
    endpoint.engine.generate("a")
    call.is_backed_up = True
    endpoint.engine.keep([1])
    endpoint.engine.keep([2])
    call.catch_up()
    assert call.events[-1]["choices"][0]["token_ids"] == [1, 2]


def test_without_the_parameter_there_are_no_token_ids(endpoint: Endpoint) -> None:
    """Also if it is false; a value of another type is an error."""
    for value in (None, False):
        call = endpoint.complete(return_token_ids=value)
        endpoint.engine.finish("on")
        assert not {"token_ids", "prompt_token_ids"} & call.answer["choices"][0].keys()
    assert endpoint.complete(return_token_ids=1).error["error"]["param"] == "return_token_ids"


def test_log_probabilities_without_a_tokenizer() -> None:
    """Tokens without text have distinct names."""
    first, second = Candidate(7, b"", -0.5), Candidate(9, b"", -1.5)
    form, _ = completion_logprobs([TokenLogprobs(first, [first, second])], 0)
    assert form["tokens"] == ["token_id:7"]
    assert form["top_logprobs"] == [{"token_id:7": -0.5, "token_id:9": -1.5}]


@pytest.mark.parametrize(
    "options",
    [
        {"stream_options": {"continuous_usage_stats": False}, "stream": True},
        {"return_tokens_as_token_ids": False, "logits_processors": [], "vllm_xargs": {}},
        {"include_reasoning": True, "mm_processor_kwargs": {}},
    ],
    ids=["stream options", "tokens", "reasoning"],
)
def test_accepts_vllms_defaults(endpoint: Endpoint, options: dict) -> None:
    """Parameters of vLLM with their default values have no effect."""
    assert endpoint.chat(**options).error == {}
    assert len(endpoint.engine.submitted) == 1


def test_refuses_unsupported_parameters_of_vllm(endpoint: Endpoint) -> None:
    """The error has the name of the parameter."""
    call = endpoint.chat(stream=True, stream_options={"continuous_usage_stats": True})
    assert call.error["error"]["param"] == "stream_options.continuous_usage_stats"
    assert endpoint.chat(return_tokens_as_token_ids=True).error["error"]["param"] == "return_tokens_as_token_ids"
