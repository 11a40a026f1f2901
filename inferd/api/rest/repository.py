"""The repository extension over HTTP: convert JSON bodies to messages of the contract, and answers back."""

import binascii
from collections.abc import Mapping
from typing import Any

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.json_messages import json_answer, read_body
from inferd.api.json_text import kind_of
from inferd.api.oip.repository import (
    index_response,
    load_command,
    load_method,
    only_ready,
    unload_command,
    unload_method,
)
from inferd.api.repository import Command, RepositoryControl
from inferd.api.rest import routes
from inferd.api.rest.long_texts import LongTexts, read_with_long_texts
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpBody, HttpHandler, HttpMessage
from inferd.models.manager import IndexEntry
from inferd.plain_text import clipped, escaped

_FILE = "file:"

#: Characters that are decoded at once: decoding holds the interpreter lock. A multiple of four.
_BASE64_SLICE = 1 << 20


def repository_handlers(control: RepositoryControl) -> dict[str, HttpHandler]:
    """Return the handlers of the extension's operations, by their name."""
    done = json_answer({})
    return {
        routes.INDEX: control.index_handler(_read_index, _write_index),
        routes.LOAD: control.command_handler(load_method(_read_load, done)),
        routes.UNLOAD: control.command_handler(unload_method(_read_unload, done)),
    }


def _read_index(message: HttpMessage) -> bool:
    ready = read_body(message).get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidInputError(f"ready: expected a boolean, got {kind_of(ready)}", field="ready")
    return only_ready(pb.RepositoryIndexRequest(ready=ready))


def _write_index(entries: list[IndexEntry]) -> HttpBody:
    # As Triton: an array, without unknown members.
    return json_answer(
        [{field.name: value for field, value in model.ListFields()} for model in index_response(entries).models]
    )


def _read_load(message: HttpMessage) -> Command:
    content, texts = read_with_long_texts(message.body) if message.body else ({}, LongTexts())
    parameters = {
        name: _file(name, value, texts.get(value)) if name.startswith(_FILE) else _parameter(name, value, texts)
        for name, value in _parameters(content).items()
    }
    return load_command(pb.RepositoryModelLoadRequest(model_name=message.path["model"], parameters=parameters))


def _read_unload(message: HttpMessage) -> Command:
    texts = LongTexts()
    parameters = {name: _parameter(name, value, texts) for name, value in _parameters(read_body(message)).items()}
    return unload_command(pb.RepositoryModelUnloadRequest(model_name=message.path["model"], parameters=parameters))


def _parameters(content: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict):
        text = f"parameters: expected an object, got {kind_of(parameters)}"
        raise InvalidInputError(text, field="parameters")
    return parameters


def _parameter(name: str, value: object, texts: LongTexts) -> pb.ModelRepositoryParameter:
    if texts.get(value) is not None:
        raise _invalid(name, "JSON, or a short text", value)
    if isinstance(value, bool):
        return pb.ModelRepositoryParameter(bool_param=value)
    if isinstance(value, str):
        return pb.ModelRepositoryParameter(string_param=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return pb.ModelRepositoryParameter(int64_param=value)
    raise _invalid(name, "a string, a boolean or an integer of 64 bits", value)


def _file(name: str, value: object, text: memoryview | None) -> pb.ModelRepositoryParameter:
    if not isinstance(value, str):
        raise _invalid(name, "the file in base64", value)
    if text is None:
        text = memoryview(value.encode())
    try:
        parts = (text[at : at + _BASE64_SLICE] for at in range(0, len(text), _BASE64_SLICE))
        content = b"".join(binascii.a2b_base64(part, strict_mode=True) for part in parts)
    except (binascii.Error, ValueError) as error:
        field = f'parameters["{name}"]'
        msg = f"{escaped(clipped(field))}: expected the file in base64: {error}"
        raise InvalidInputError(msg, field=field) from None
    return pb.ModelRepositoryParameter(bytes_param=content)


def _invalid(name: str, expected: str, value: object) -> InvalidInputError:
    field = f'parameters["{name}"]'
    return InvalidInputError(f"{escaped(clipped(field))}: expected {expected}, got {kind_of(value)}", field=field)
