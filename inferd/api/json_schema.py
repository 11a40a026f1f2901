"""JSON schemas of protobuf messages, by their descriptors."""

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

_INTEGERS = frozenset(
    {
        *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
        *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
    }
)
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


def reference(name: str) -> Schema:
    """Return a reference to a schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def message_schemas(message: Descriptor, into: dict[str, Schema]) -> str:
    """Add the schema of ``message``, as `json_messages.as_json` writes it, and of those in it; return its name."""
    name = message.full_name.partition(".")[2]
    if name not in into:
        schema: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
        into[name] = schema
        schema["properties"] = {field.name: _field_schema(field, into) for field in message.fields}
        schema["required"] = [field.name for field in message.fields if not field.has_presence]
    return name


def _field_schema(field: FieldDescriptor, into: dict[str, Schema]) -> Schema:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _field_schema(message.fields_by_name["value"], into)}
    single = _single_schema(field, into)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single_schema(field: FieldDescriptor, into: dict[str, Schema]) -> Schema:
    if field.message_type is not None:
        return reference(message_schemas(field.message_type, into))
    if field.enum_type is not None:
        return _enum_schema(field.enum_type)
    if field.cpp_type in _INTEGERS:
        return {"type": "integer"}
    if field.cpp_type in _FLOATS:
        return {"type": "number"}
    return {"type": "boolean" if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else "string"}


def _enum_schema(enum: EnumDescriptor) -> Schema:
    return {"type": "string", "enum": [value.name for value in enum.values]}
