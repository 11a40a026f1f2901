"""Requests that generate over HTTP, whatever their JSON holds: they are read, or refused by a path."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.api.generation.triton import SIGNATURE
from inferd.api.json_text import read_object
from inferd.api.openai.requests import read_chat, read_completion
from inferd.api.openai.schemas import TEXT_SCHEMAS
from inferd.api.openai.unsupported import OF_CHATS, OF_COMPLETIONS
from inferd.api.rest.generate import _read
from inferd.errors import InvalidInputError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("role", "content", "name", "tool_calls"), VALUES)), max_size=3
)


def _optional(schema, refused):
    names = {*TEXT_SCHEMAS[schema]["properties"], *refused} - {"model", "messages", "prompt"}
    return dict.fromkeys(sorted(names), VALUES)


CHATS = _optional("ChatCompletionRequest", OF_CHATS)
COMPLETIONS = _optional("CompletionRequest", OF_COMPLETIONS)
INPUTS = dict.fromkeys(TEXT_SCHEMAS["GenerateRequest"]["properties"], VALUES)


def _refused(read, content) -> None:
    """Read ``content``; what is refused names what is wrong."""
    try:
        parsed = read_object(json.dumps(content).encode())
    except InvalidInputError:
        return
    refused = []
    try:
        read(parsed)
    except InvalidInputError as error:
        refused.append(error)
    assert all(error.field and error.message for error in refused)


def _split(model: str) -> tuple[str, str]:
    return model, ""


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({"model": st.just("m"), "messages": MESSAGES | VALUES}, optional=CHATS))
def test_any_chat_is_request_or_error(content) -> None:
    """Any JSON raises nothing but InvalidInputError."""
    _refused(lambda parsed: read_chat(parsed, _split), content)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({"model": st.just("m"), "prompt": VALUES}, optional=COMPLETIONS))
def test_any_completion_is_request_or_error(content) -> None:
    """Any JSON raises nothing but InvalidInputError."""
    _refused(lambda parsed: read_completion(parsed, _split), content)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({}, optional=INPUTS), st.booleans())
def test_any_inputs_of_triton_are_request_or_error(content, streams) -> None:
    """Any JSON raises nothing but InvalidInputError."""
    _refused(lambda parsed: _read({"model": "m"}, streams, parsed), content)


def test_inputs_are_generated_by_all_names() -> None:
    """The generated JSON has all inputs of Triton's conventions."""
    assert {spec.name for spec in SIGNATURE.inputs} <= INPUTS.keys()
