"""Refuse unsupported parameters unless their value has no effect; ignore those that never have one here."""

from collections.abc import Callable, Mapping
from typing import Any

from inferd.api.openai.members import Members

_TOOLS = "expected none: inferd does not call tools"
_FORMAT = 'expected {"type": "text"}: inferd does not constrain the form of answers'
_SPECIAL = "expected true: special tokens are left out of the text"
_TEXT_ONLY = "expected text only"
_NO_SEARCH = "expected none: inferd does not search the web"


def _is_empty(value: object) -> bool:
    return value in ([], {}, "", False)


def _is(*values: object) -> Callable[[Any], bool]:
    return lambda value: value in values


_Refused = Mapping[str, tuple[str, Callable[[Any], bool]]]

#: By name: the text for errors, and a predicate for values without effect.
_COMMON: _Refused = {
    "logit_bias": ("expected none: inferd does not bias single tokens", _is_empty),
    "store": ("expected false: inferd keeps no answers", _is_empty),
    "use_beam_search": ("expected false: inferd samples", _is_empty),
    "length_penalty": ("expected 1: it is for beam search", _is(1)),
    "prompt_logprobs": ("expected none: log probabilities are those of the answer", _is(False)),
    "bad_words": ("expected none", _is_empty),
    "allowed_token_ids": ("expected none", _is_empty),
    "truncate_prompt_tokens": ("expected none: prompts are not cut", lambda _: False),
    "skip_special_tokens": (_SPECIAL, _is(True)),
    "spaces_between_special_tokens": (_SPECIAL, _is(True)),
    "include_stop_str_in_output": ("expected false: answers end before the stop text", _is_empty),
    "structured_outputs": (_FORMAT, _is_empty),
    "guided_json": (_FORMAT, _is_empty),
    "guided_regex": (_FORMAT, _is_empty),
    "guided_choice": (_FORMAT, _is_empty),
    "guided_grammar": (_FORMAT, _is_empty),
    "response_format": (_FORMAT, _is({"type": "text"})),
    "return_tokens_as_token_ids": ("expected false: see return_token_ids", _is_empty),
    "logits_processors": ("expected none", _is_empty),
    "vllm_xargs": ("expected none", _is_empty),
}

OF_COMPLETIONS: _Refused = {
    **_COMMON,
    "suffix": ("expected none: the answer follows the prompt", _is_empty),
}

OF_CHATS: _Refused = {
    **_COMMON,
    "tools": (_TOOLS, _is_empty),
    "tool_choice": (_TOOLS, _is("none")),
    "functions": (_TOOLS, _is_empty),
    "function_call": (_TOOLS, _is("none")),
    "modalities": (_TEXT_ONLY, _is(["text"])),
    "audio": (_TEXT_ONLY, _is_empty),
    "prediction": ("expected none", _is_empty),
    "reasoning_effort": ("expected none: what a model thinks is part of its answer", _is("none")),
    "verbosity": ("expected medium, as it has no effect", _is("medium")),
    "web_search_options": (_NO_SEARCH, lambda _: False),
    "add_generation_prompt": ("expected true: the answer is that of the assistant", _is(True)),
    "continue_final_message": ("expected false: the answer is a message of its own", _is_empty),
    "add_special_tokens": ("expected false: the chat template adds them", _is_empty),
    "chat_template": ("expected none: the template is the model's", lambda _: False),
    "chat_template_kwargs": ("expected none", _is_empty),
    "documents": ("expected none", _is_empty),
    "include_reasoning": ("expected true: what a model thinks is part of its answer", _is(True)),
    "mm_processor_kwargs": (_TEXT_ONLY, _is_empty),
}

#: Parameters for OpenAI's accounting, billing and caching; ignored here.
_WITHOUT_EFFECT = (
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)


def refuse_unsupported(members: Members, refused: _Refused) -> None:
    """Read the members in ``refused`` and those without effect. Raises `InvalidInputError` for unsupported values."""
    for name, (text, has_no_effect) in refused.items():
        members.refuse(name, text, unless=has_no_effect)
    for name in _WITHOUT_EFFECT:
        members.value(name)
