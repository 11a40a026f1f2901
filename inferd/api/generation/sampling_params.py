"""Read sampling parameters by the names of vLLM, which OpenAI's API and Triton's conventions share."""

from collections.abc import Callable, Mapping
from typing import Any

from inferd.api.json_text import shown
from inferd.errors import InvalidInputError
from inferd.plain_text import clipped, listed

#: Numbers: the attribute of `GenerationParams`, and the type.
_NUMBERS: Mapping[str, tuple[str, type[int] | type[float]]] = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "top_k": ("top_k", int),
    "seed": ("seed", int),
    "repetition_penalty": ("repetition_penalty", float),
    "frequency_penalty": ("frequency_penalty", float),
    "presence_penalty": ("presence_penalty", float),
    "max_tokens": ("max_tokens", int),
    "min_tokens": ("min_tokens", int),
    "logprobs": ("logprobs", int),
}
_OTHERS: Mapping[str, str] = {
    "stop": "stop_strings",
    "stop_token_ids": "stop_token_ids",
    "ignore_eos": "ignore_end_tokens",
}
_MOST_INTEGER = 2**64 - 1
#: The attribute of `GenerationParams` of each supported parameter.
ATTRIBUTES: Mapping[str, str] = {**{name: ours for name, (ours, _) in _NUMBERS.items()}, **_OTHERS}

#: Unsupported parameters, with the values that have no effect and are accepted.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(("n", "best_of", "length_penalty"), (1,)),
    **dict.fromkeys(("use_beam_search", "early_stopping", "include_stop_str_in_output"), (False,)),
    **dict.fromkeys(("detokenize", "skip_special_tokens", "spaces_between_special_tokens"), (True,)),
    **dict.fromkeys(("logit_bias", "bad_words", "allowed_token_ids"), ({}, [])),
    **dict.fromkeys(("prompt_logprobs", "truncate_prompt_tokens", "lora_name", "guided_decoding"), ()),
    "structured_outputs": (),
}


def read_sampling(given: Mapping[str, Any], path: Callable[[str], str]) -> dict[str, Any]:
    """Return the attributes of `GenerationParams` that ``given`` sets; null counts as absent.

    ``path`` returns the path of a parameter in the request, for errors. Strings may hold numbers. Raises
    `InvalidInputError`.
    """
    attributes: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _NUMBERS:
            ours, kind = _NUMBERS[name]
            attributes[ours] = _number(path(name), value, kind)
        elif name == "stop":
            attributes["stop_strings"] = _texts(path(name), value)
        elif name == "stop_token_ids":
            attributes["stop_token_ids"] = _tokens(path(name), value)
        elif name == "ignore_eos":
            attributes["ignore_end_tokens"] = _boolean(path(name), value)
        elif name in _NEUTRAL:
            _require_neutral(path(name), value, _NEUTRAL[name])
        else:
            known = listed(ATTRIBUTES, most=len(ATTRIBUTES))
            text = f"{path(clipped(name))}: no such parameter, expected one of {known}"
            raise InvalidInputError(text, field=path(clipped(name)))
    if attributes.get("top_k") == -1:
        # All tokens, in vLLM.
        attributes["top_k"] = 0
    return attributes


def _number(path: str, value: object, kind: type[int] | type[float]) -> float | int:
    expected = "an integer of 64 bits" if kind is int else "a number"
    number = value
    if isinstance(value, str):
        try:
            number = kind(value)
        except ValueError:
            raise _invalid(path, expected, value) from None
    if isinstance(number, bool) or not isinstance(number, int if kind is int else int | float):
        raise _invalid(path, expected, value)
    if kind is int and abs(number) > _MOST_INTEGER:
        raise _invalid(path, expected, value)
    return number


def _boolean(path: str, value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise _invalid(path, "a boolean", value)
    return value


def _texts(path: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise _invalid(path, "a text or an array of them", value)
    for index, each in enumerate(value):
        if not isinstance(each, str):
            raise _invalid(f"{path}[{index}]", "a text", each)
    return tuple(value)


def _tokens(path: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _invalid(path, "an array of integers", value)
    for index, each in enumerate(value):
        if type(each) is not int:
            raise _invalid(f"{path}[{index}]", "an integer", each)
    return tuple(value)


def _require_neutral(path: str, value: object, neutral: tuple[object, ...]) -> None:
    if value not in neutral:
        raise InvalidInputError(f"{path}: not supported, got {shown(value)}", field=path)


def _invalid(path: str, expected: str, value: object) -> InvalidInputError:
    return InvalidInputError(f"{path}: expected {expected}, got {shown(value)}", field=path)
