"""Tokens of prompts and answers, for callers who ask for them as in vLLM."""

import pytest

from tests.unit.api.openai.test_service import Endpoint

PROMPT = list(b"once")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_completion(endpoint: Endpoint, echo: bool) -> None:
    """In each choice, with those of its prompt."""
    call = endpoint.complete(prompt=["once", "a"], return_token_ids=True, echo=echo)
    endpoint.engine.generate(" up", 0)
    endpoint.engine.finish("on", 0)
    endpoint.engine.finish("b", 1)
    first, second = call.answer["choices"]
    assert (first["prompt_token_ids"], first["token_ids"]) == (PROMPT, list(b" upon"))
    assert (second["prompt_token_ids"], second["token_ids"]) == ([97], [98])


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_completion_in_events(endpoint: Endpoint, echo: bool) -> None:
    """Those of each piece, also where there is no text yet; those of the prompt in the first event only."""
    call = endpoint.complete(stream=True, return_token_ids=True, echo=echo)
    endpoint.engine.generate(" up")
    endpoint.engine.keep([1, 2])
    endpoint.engine.finish("on")
    choices = [event["choices"][0] for event in call.events[:-1]]
    expected = [list(b" up"), [1, 2], list(b"on")]
    assert [choice["token_ids"] for choice in choices] == ([[], *expected] if echo else expected)
    assert [choice.get("prompt_token_ids") for choice in choices] == [PROMPT] + [None] * (len(choices) - 1)


def test_chat(endpoint: Endpoint) -> None:
    """Those of the prompt once, beside all choices."""
    call = endpoint.chat(n=2, return_token_ids=True)
    endpoint.engine.finish("you", 0)
    endpoint.engine.finish("me", 1)
    answer = call.answer
    assert answer["prompt_token_ids"] == list(b"<user>Hello")
    assert [choice["token_ids"] for choice in answer["choices"]] == [list(b"you"), list(b"me")]
    assert not any("prompt_token_ids" in choice for choice in answer["choices"])


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "usage"])
def test_chat_in_events(endpoint: Endpoint, options: dict) -> None:
    """Those of the prompt beside the first choice."""
    call = endpoint.chat(stream=True, return_token_ids=True, **options)
    endpoint.engine.finish("you")
    role, piece, *_ = call.events
    assert role["prompt_token_ids"] == list(b"<user>Hello")
    assert "prompt_token_ids" not in role["choices"][0]
    assert "prompt_token_ids" not in piece
    assert piece["choices"][0]["token_ids"] == list(b"you")
    assert ("usage" in role) is bool(options)


def test_slow_reader(endpoint: Endpoint) -> None:
    """Gets all tokens later, together."""
    call = endpoint.complete(stream=True, return_token_ids=True)
    endpoint.engine.generate("a")
    call.is_backed_up = True
    endpoint.engine.keep([1])
    endpoint.engine.keep([2])
    call.catch_up()
    assert call.events[-1]["choices"][0]["token_ids"] == [1, 2]


def test_not_asked_for(endpoint: Endpoint) -> None:
    """Are not given."""
    for value in (None, False):
        call = endpoint.complete(return_token_ids=value)
        endpoint.engine.finish("on")
        assert not {"token_ids", "prompt_token_ids"} & call.answer["choices"][0].keys()
    assert endpoint.complete(return_token_ids=1).error["error"]["param"] == "return_token_ids"
