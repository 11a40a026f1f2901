"""Read requests of OpenAI's API: the parameters of each choice, and the options of the answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferd.api.generation.params import Chat, GenerationParams, Prompt
from inferd.api.generation.sampling_params import ATTRIBUTES, read_sampling
from inferd.api.json_text import kind_of, shown
from inferd.api.openai.errors import invalid, unsupported
from inferd.api.openai.members import Members, integer_of
from inferd.api.openai.unsupported import OF_CHATS, OF_COMPLETIONS, refuse_unsupported

#: Choices of one request, all prompts together.
MAX_CHOICES = 128
#: OpenAI's default of max_tokens for completions.
_COMPLETION_TOKENS = 16
_SEEDS = 2**63
#: Attributes by the names of sampling parameters, and the reverse for errors; without the two that completions and
#: chats have in different forms.
_SAMPLING = {name: ours for name, ours in ATTRIBUTES.items() if name not in ("max_tokens", "logprobs")}
_FIELDS = {"choices": "n", **{ours: name for name, ours in _SAMPLING.items()}}

#: Roles of messages, and their names in chat templates.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
#: Members of answers' messages, which clients send back with the chat.
_MEMBERS_OF_ANSWERS = ("refusal", "tool_calls", "function_call", "audio", "annotations")
#: Types of the parts of a content, and the member of each with the text.
_TEXT_PARTS = {"text": "text", "refusal": "refusal"}

#: Splits the model of a request into name and version, which may be empty.
SplitName = Callable[[str], tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """A completion or chat completion; ``params`` has an entry for each choice, those of the first prompt first.

    ``model`` is the name as requested, ``choices`` their number for each prompt. ``token_ids`` asks for the token ids
    of prompt and answer, ``echo`` for the prompt before the answer.
    """

    model: str
    params: Sequence[GenerationParams]
    choices: int
    stream: bool
    include_usage: bool
    token_ids: bool = False
    echo: bool = False


Reader = Callable[[dict[str, Any], SplitName], TextRequest]


def read_completion(content: dict[str, Any], split_name: SplitName) -> TextRequest:
    """Read the body of a completion. Raises `InvalidInputError`."""
    members = Members(content)
    prompts = list(_prompts(members.value("prompt")))
    max_tokens = members.integer("max_tokens")
    logprobs = members.integer("logprobs")
    echo = members.boolean("echo")
    many = len(prompts) > 1
    texts = [
        GenerationParams(
            prompt=prompt,
            max_tokens=_COMPLETION_TOKENS if max_tokens is None else max_tokens,
            logprobs=logprobs,
            scores_prompt=echo and logprobs is not None,
            fields={**_FIELDS, "prompt": f"prompt[{index}]" if many else "prompt"},
        )
        for index, prompt in enumerate(prompts)
    ]
    return _request(members, split_name, texts, OF_COMPLETIONS, echo=echo)


def read_chat(content: dict[str, Any], split_name: SplitName) -> TextRequest:
    """Read the body of a chat completion. Raises `InvalidInputError`."""
    members = Members(content)
    limits = {name: members.integer(name) for name in ("max_completion_tokens", "max_tokens")}
    given = [name for name, value in limits.items() if value is not None]
    if len({limits[name] for name in given}) > 1:
        most, older = limits.values()
        raise invalid("max_tokens", f"expected none, or the same as max_completion_tokens, {most}, got {older}")
    max_tokens = next(iter(given), "max_completion_tokens")
    params = GenerationParams(
        prompt=Chat(_messages(members)),
        max_tokens=limits[max_tokens],
        logprobs=_chat_logprobs(members),
        fields={**_FIELDS, "prompt": "messages", "max_tokens": max_tokens, "logprobs": "top_logprobs"},
    )
    return _request(members, split_name, [params], OF_CHATS)


def _chat_logprobs(members: Members) -> int | None:
    is_wanted, most_likely = members.boolean("logprobs"), members.integer("top_logprobs")
    if most_likely and not is_wanted:
        raise invalid("top_logprobs", f"expected none, as logprobs is not true, got {most_likely}")
    return (most_likely or 0) if is_wanted else None


def _request(
    members: Members,
    split_name: SplitName,
    prompts: Sequence[GenerationParams],
    refused: Mapping[str, Any],
    *,
    echo: bool = False,
) -> TextRequest:
    """Add the common parameters to ``prompts``, and repeat each prompt for all its choices."""
    model = members.text("model")
    if not model:
        raise invalid("model", "expected the name of a model, got none")
    choices = _choices(members, len(prompts))
    name, version = split_name(model)
    sampling = read_sampling(members.values(_SAMPLING), members.path_of)
    priority = members.integer("priority") or 0
    stream, include_usage = _stream(members)
    token_ids = members.boolean("return_token_ids")
    refuse_unsupported(members, refused)
    members.end()
    common = {"model": name, "version": version, "priority": priority, "choices": choices, **sampling}
    each = [replace(prompt, **common) for prompt in prompts]
    return TextRequest(
        model=model,
        params=[_with_seed(prompt, index) for prompt in each for index in range(choices)],
        choices=choices,
        stream=stream,
        include_usage=include_usage,
        token_ids=token_ids,
        echo=echo,
    )


def _with_seed(params: GenerationParams, index: int) -> GenerationParams:
    """Derive the seed of choice ``index``, so that the choices of a prompt differ."""
    return params if params.seed is None or not index else replace(params, seed=(params.seed + index) % _SEEDS)


def _choices(members: Members, prompts: int) -> int:
    choices, best_of = members.integer("n"), members.integer("best_of")
    choices = 1 if choices is None else choices
    if choices < 1 or choices * prompts > MAX_CHOICES:
        each = "" if prompts == 1 else f", {prompts} prompts together"
        raise invalid("n", f"expected 1 to {MAX_CHOICES} choices{each}, got {choices * prompts}")
    if best_of is not None and best_of != choices:
        raise unsupported("best_of", f"expected {choices}, as n: all choices are returned; got {best_of}")
    return choices


def _stream(members: Members) -> tuple[bool, bool]:
    stream = members.boolean("stream")
    options = members.members("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise invalid("stream_options", "expected none, as stream is not true, got an object")
    include_usage = options.boolean("include_usage")
    # Ignored: optional padding that hides the length of tokens from eavesdroppers.
    options.boolean("include_obfuscation")
    options.refuse(
        "continuous_usage_stats", "expected false: usage comes at the end", unless=lambda value: value is False
    )
    options.end()
    return stream, include_usage


def _prompts(value: object) -> Iterator[Prompt]:
    """Yield the prompts of a completion: one text or several, or the token ids of one or several."""
    if isinstance(value, str):
        yield value
        return
    if not isinstance(value, list):
        raise invalid("prompt", f"expected a string or an array, got {kind_of(value)}")
    if not value:
        raise invalid("prompt", "expected at least one prompt, got none")
    if isinstance(value[0], str | list):
        if len(value) > MAX_CHOICES:
            raise invalid("prompt", f"expected at most {MAX_CHOICES} prompts, got {len(value)}")
        for index, each in enumerate(value):
            yield _prompt(each, f"prompt[{index}]")
    else:
        yield _prompt(value, "prompt")


def _prompt(value: object, path: str) -> Prompt:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid(path, f"expected a string or an array of token ids, got {kind_of(value)}")
    return [integer_of(each, f"{path}[{index}]") for index, each in enumerate(value)]


def _messages(members: Members) -> Sequence[Mapping[str, str]]:
    """Return the messages of a chat as chat templates take them."""
    value, path = members.value("messages"), members.path_of("messages")
    if not isinstance(value, list):
        raise invalid(path, f"expected an array of messages, got {kind_of(value)}")
    return [_message(each, f"{path}[{index}]") for index, each in enumerate(value)]


def _message(value: object, path: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise invalid(path, f"expected an object, got {kind_of(value)}")
    members = Members(value, path)
    given = members.text("role")
    if given in ("tool", "function"):
        raise unsupported(members.path_of("role"), f'expected no role "{given}": inferd does not call tools')
    role = _ROLES.get(given or "")
    if role is None:
        got = "none" if given is None else shown(given)
        raise invalid(members.path_of("role"), f"expected one of {', '.join(_ROLES)}, got {got}")
    for each in _MEMBERS_OF_ANSWERS:
        members.refuse(each, "expected none: messages are text", unless=lambda value: value == [])
    message = {"role": role, "content": _content(members)}
    name = members.text("name")
    if name is not None:
        message["name"] = name
    members.end()
    return message


def _content(members: Members) -> str:
    value, path = members.value("content"), members.path_of("content")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid(path, f"expected a string or an array of parts, got {kind_of(value)}")
    return "\n".join(_part(each, f"{path}[{index}]") for index, each in enumerate(value))


def _part(value: object, path: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise invalid(path, f"expected an object, got {kind_of(value)}")
    members = Members(value, path)
    given = members.text("type")
    name = _TEXT_PARTS.get(given or "")
    if name is None:
        got = "none" if given is None else shown(given)
        raise unsupported(members.path_of("type"), f"expected text: inferd takes no images, audio or files; got {got}")
    text = members.text(name)
    if text is None:
        raise invalid(members.path_of(name), "expected a string, got none")
    members.end()
    return text
