"""What requests of OpenAI's API ask for, and what is refused of them."""

import pytest

from inferd.api.generation.params import Chat
from inferd.api.openai.errors import UNSUPPORTED
from inferd.api.openai.requests import read_chat, read_completion
from inferd.errors import InvalidInputError

HELLO = [{"role": "user", "content": "Hello"}]


def split(model: str) -> tuple[str, str]:
    name, _, version = model.partition(":")
    return name, version


def completion(**fields):
    return read_completion({"model": "m", "prompt": "once", **fields}, split)


def chat(**fields):
    return read_chat({"model": "m", "messages": HELLO, **fields}, split)


def test_fields_that_completions_and_chats_share() -> None:
    """Sampling parameters reach the params, and OpenAI's accounting has no effect."""
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 7,
        "repetition_penalty": 1.5,
        "frequency_penalty": -1,
        "presence_penalty": 2,
        "min_tokens": 3,
        "stop_token_ids": [4, 5],
        "priority": 2,
    }
    for request in (completion, chat):
        (params,) = request(**fields, stop=["a", "b"], ignore_eos=True, user="me", metadata={"a": "b"}).params
        assert {name: getattr(params, name) for name in fields} == {**fields, "stop_token_ids": (4, 5)}
        assert (params.stop_strings, params.ignore_end_tokens) == (("a", "b"), True)
        assert (params.model, params.version) == ("m", "")
        assert request(stop="a").params[0].stop_strings == ("a",)
        assert request(top_k=-1).params[0].top_k == 0, "vLLM's way to say all"


def test_absent_fields_are_the_models_defaults() -> None:
    """Except max_tokens of completions, which has a default in the API. Null counts as absent."""
    (params,) = completion(temperature=None, stop=None, max_tokens=None).params
    assert (params.temperature, params.stop_strings, params.max_tokens, params.logprobs) == (None, (), 16, None)
    assert chat().params[0].max_tokens is None


def test_model_may_have_a_version_after_a_colon() -> None:
    """The answer has the name as it was requested."""
    request = chat(model="m:stable")
    assert (request.params[0].model, request.params[0].version, request.model) == ("m", "stable", "m:stable")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[1], "a"], [[1], "a"]),
    ],
)
def test_prompts(prompt: object, prompts: list) -> None:
    """One or several, as text or token ids, each with all its choices, whose seeds differ."""
    request = completion(prompt=prompt, n=2, seed=10)
    assert [each.prompt for each in request.params] == [prompt for prompt in prompts for _ in range(2)]
    assert [each.seed for each in request.params] == [10, 11] * len(prompts)
    assert request.choices == 2


def test_paths_of_prompts() -> None:
    """Errors name the prompt by its index if there are several."""
    assert [each.field_of("prompt") for each in completion(prompt=["a", "b"]).params] == ["prompt[0]", "prompt[1]"]
    assert completion().params[0].field_of("prompt") == "prompt"
    assert chat().params[0].field_of("prompt") == "messages"
    assert chat().params[0].field_of("stop_strings") == "stop"


def test_lengths_of_chats() -> None:
    """max_tokens has two names, and errors have the one that was used."""
    for name in ("max_tokens", "max_completion_tokens"):
        (params,) = chat(**{name: 5}).params
        assert (params.max_tokens, params.field_of("max_tokens")) == (5, name)
    assert chat(max_tokens=5, max_completion_tokens=5).params[0].max_tokens == 5


def test_log_probabilities() -> None:
    """Completions have a number, chats a switch and a number."""
    assert completion(logprobs=0).params[0].logprobs == 0
    assert chat(logprobs=True).params[0].logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).params[0].logprobs == 3
    assert chat(logprobs=False, top_logprobs=0).params[0].logprobs is None


def test_streams() -> None:
    """By default there are no events, and events have no usage; padding may be asked for and has no effect."""
    request = chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert (request.stream, request.include_usage) == (True, True)
    assert (chat().stream, chat(stream=True).include_usage) == (False, False)


def test_messages() -> None:
    """Parts of text become lines, and developers are the system role of templates."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts, "name": "me"},
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": []},
            {"role": "user", "content": []},
        ]
    )
    assert request.params[0].prompt == Chat(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "name": "me"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": ""},
        ]
    )


#: Values that ask for nothing, so that clients that always send them work.
NEUTRAL = {
    "logit_bias": {},
    "response_format": {"type": "text"},
    "store": False,
    "best_of": 1,
    "use_beam_search": False,
    "skip_special_tokens": True,
    "service_tier": "auto",
}
NEUTRAL_IN_CHATS = {
    "tools": [],
    "tool_choice": "none",
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "function_call": "none",
    "add_generation_prompt": True,
}


def test_neutral_values_are_accepted() -> None:
    """Unsupported parameters may have values without effect."""
    completion(**NEUTRAL, suffix="")
    chat(**NEUTRAL, **NEUTRAL_IN_CHATS)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"store": True}, "store"),
        ({"best_of": 3}, "best_of"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"guided_json": {"a": 1}}, "guided_json"),
        ({"invented": 1}, "invented"),
        ({"stream": True, "stream_options": {"invented": 1}}, "stream_options.invented"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "a", "extra": 1}]}, "messages[0].extra"),
    ],
)
def test_unsupported_values(fields: dict, param: str) -> None:
    """Any other value of an unsupported parameter is an error with its name."""
    with pytest.raises(InvalidInputError) as error:
        chat(**fields)
    assert (error.value.field, error.value.reason) == (param, UNSUPPORTED)
    assert error.value.message.startswith(f"{param}: expected ")


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({"tool_choice": "auto"}, '"auto"'),
        ({"store": True}, "true"),
        ({"tools": [{"type": "function"}]}, "an array"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, '"image_url"'),
        ({"messages": [{"role": "user", "content": [{}]}]}, "none"),
        ({"messages": [{"role": "assistant", "content": "a", "refusal": "I will not"}]}, "a string"),
    ],
)
def test_unsupported_values_are_named(fields: dict, got: str) -> None:
    """Except texts of several words, which may be of a conversation, and nested ones."""
    with pytest.raises(InvalidInputError) as error:
        chat(**fields)
    assert error.value.message.endswith(f"; got {got}")


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"model": None}, "model", "expected the name of a model, got none"),
        ({"model": 5}, "model", "expected a string, got a number"),
        ({"messages": None}, "messages", "expected an array of messages, got null"),
        ({"messages": [5]}, "messages[0]", "expected an object, got a number"),
        ({"messages": [{"content": "a"}]}, "messages[0].role", "expected one of system, developer, user, assistant"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", 'assistant, got "robot"'),
        ({"messages": [{"role": "r" * 99}]}, "messages[0].role", f'got "{"r" * 80}…"'),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "expected a string or an array of parts, got null"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]", "expected an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "got none"),
        ({"temperature": "hot"}, "temperature", 'expected a number, got "hot"'),
        ({"seed": 1.5}, "seed", "expected an integer"),
        ({"stop": 1}, "stop", "expected a text or an array of them"),
        ({"stop": ["a", 1]}, "stop[1]", "expected a text, got 1"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids[0]", 'expected an integer, got "a"'),
        ({"max_tokens": 2.0**70}, "max_tokens", "expected an integer, got a number beyond 64 bits"),
        ({"stream": 1}, "stream", "expected a boolean, got a number"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream is not true, got an object"),
        ({"stream": True, "stream_options": 5}, "stream_options", "expected an object, got a number"),
        ({"n": 0}, "n", "expected 1 to 128 choices, got 0"),
        ({"n": 129}, "n", "expected 1 to 128 choices, got 129"),
        ({"n": True}, "n", "expected an integer, got a boolean"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "the same as max_completion_tokens, 6, got 5"),
        ({"max_tokens": 2**64 - 1}, "max_tokens", "expected at most"),
        ({"top_logprobs": 3}, "top_logprobs", "expected none, as logprobs is not true, got 3"),
        ({"logprobs": 3}, "logprobs", "expected a boolean, got a number"),
    ],
)
def test_invalid_values(fields: dict, param: str, text: str) -> None:
    """The error has the field, what was expected and what came."""
    with pytest.raises(InvalidInputError) as error:
        chat(**fields)
    assert error.value.field == param
    assert error.value.message.startswith(f"{param}: ")
    assert text in error.value.message


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"prompt": None}, "prompt", "expected a string or an array, got null"),
        ({"prompt": []}, "prompt", "expected at least one prompt, got none"),
        ({"prompt": [1, "a"]}, "prompt[1]", "expected an integer, got a string"),
        ({"prompt": ["a", 1]}, "prompt[1]", "expected a string or an array of token ids, got a number"),
        ({"prompt": [[1], [1.5]]}, "prompt[1][0]", "expected an integer, got a number"),
        ({"prompt": ["a"] * 129}, "prompt", "expected at most 128 prompts, got 129"),
        ({"prompt": ["a"] * 65, "n": 2}, "n", "expected 1 to 128 choices, 65 prompts together, got 130"),
        ({"suffix": "the end"}, "suffix", "expected none: the answer follows the prompt; got a string"),
        ({"messages": HELLO}, "messages", "expected only parameters that are known here"),
    ],
)
def test_invalid_completions(fields: dict, param: str, text: str) -> None:
    """Errors of prompts have their index."""
    with pytest.raises(InvalidInputError) as error:
        completion(**fields)
    assert error.value.field == param
    assert text in error.value.message


@pytest.mark.parametrize(
    ("fields", "scores"), [({"echo": True, "logprobs": 0}, True), ({"echo": True}, False), ({"logprobs": 1}, False)]
)
def test_echo_with_logprobs_scores_the_prompt(fields: dict, scores: bool) -> None:
    """Neither of the two alone does."""
    [params] = completion(**fields).params
    assert params.scores_prompt is scores
