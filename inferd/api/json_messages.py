"""Answers and queries in JSON: protobuf messages as Triton writes them, and bodies as callers send them."""

import base64
from collections.abc import Mapping
from typing import Any, cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from inferd.api.json_text import read_object
from inferd.http.messages import HttpBody, HttpMessage

#: Of every answer in JSON. Without a charset, as JSON has only one: some clients compare the whole text.
JSON_HEADERS = (("Content-Type", "application/json"),)


def json_answer(content: object, *, status: int = 200) -> HttpBody:
    """Return ``content`` as the body of an answer."""
    return HttpBody(orjson.dumps(content), JSON_HEADERS, status)


def as_json(message: Message) -> dict[str, Any]:
    """Return ``message`` as Triton writes it.

    Names are those of the contract, 64-bit integers are numbers, and enums have their names. Fields that cannot be
    absent are always there; messages, and members of a oneof, if they are set.
    """
    content = {}
    descriptor = cast("Descriptor", message.DESCRIPTOR)
    for field in descriptor.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        content[field.name] = _value(field, getattr(message, field.name))
    return content


def read_body(message: HttpMessage) -> dict[str, Any]:
    """Return the JSON object in a short body; one without a body is empty. Raises `InvalidInputError`."""
    return read_object(memoryview(message.body)) if message.body else {}


def _value(field: FieldDescriptor, value: Any) -> object:  # noqa: ANN401  (of the field's type)
    if not field.is_repeated:
        return _single(field, value)
    if isinstance(value, Mapping):
        assert field.message_type is not None, "a map is a repeated message"
        of_values = field.message_type.fields_by_name["value"]
        return {_key(key): _single(of_values, each) for key, each in value.items()}
    return [_single(field, each) for each in value]


def _single(field: FieldDescriptor, value: Any) -> object:  # noqa: ANN401  (of the field's type)
    if field.message_type is not None:
        return as_json(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
