"""JSON schemas of requests and answers: of messages by their descriptors, and of what only the REST form has."""

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from inferd import dtypes

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
    """Add the schema of ``message``, as `messages.as_json` writes it, and of those in it; return its name."""
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


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_STRING: Schema = {"type": "string"}
_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
    "description": "timeout (microseconds), priority, binary_data_output",
}
_DATA: Schema = {
    "type": "array",
    "description": "Elements in row-major order, flat or nested as the shape. Not in the binary form.",
}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}


def _parameters(text: str) -> Schema:
    return {**_PARAMETERS, "description": text}


#: Of what only the REST form has, by name.
REST_SCHEMAS: dict[str, Schema] = {
    "Datatype": {"type": "string", "enum": sorted(dtypes.BY_NAME)},
    "RequestInput": _object(
        ("name", "shape", "datatype"),
        name=_STRING,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        datatype=reference("Datatype"),
        parameters=_parameters("binary_data_size: the tensor's bytes after the JSON"),
        data=_DATA,
    ),
    "RequestOutput": _object(
        ("name",), name=_STRING, parameters=_parameters("binary_data; classification: number of the largest elements")
    ),
    "InferenceRequest": _object(
        ("inputs",),
        id=_STRING,
        parameters=_PARAMETERS,
        inputs={"type": "array", "items": reference("RequestInput")},
        outputs={"type": "array", "items": reference("RequestOutput")},
    ),
    "ResponseOutput": _object(
        ("name", "shape", "datatype"),
        name=_STRING,
        shape=_SHAPE,
        datatype=reference("Datatype"),
        parameters=_parameters("binary_data_size: the tensor's bytes after the JSON"),
        data=_DATA,
    ),
    "InferenceResponse": _object(
        ("model_name", "model_version", "outputs"),
        model_name=_STRING,
        model_version=_STRING,
        id=_STRING,
        parameters={"type": "object"},
        outputs={"type": "array", "items": reference("ResponseOutput")},
    ),
    "ModelReady": _object(("name", "ready"), name=_STRING, ready={"type": "boolean"}),
    "Models": _object(("models",), models={"type": "array", "items": {"anyOf": [_STRING, reference("v1.Model")]}}),
    "IndexRequest": _object((), ready={"type": "boolean", "description": "List versions that answer requests only."}),
    "Index": {
        "type": "array",
        "items": _object(("name",), name=_STRING, version=_STRING, state=_STRING, reason=_STRING),
    },
    "LoadRequest": _object(
        (),
        parameters={
            "type": "object",
            "description": "config: a model configuration in JSON; file:VERSION/NAME: a file in base64",
            "additionalProperties": _STRING,
        },
    ),
    "UnloadRequest": _object(
        (),
        parameters={
            "type": "object",
            "properties": {"unload_dependents": {"type": "boolean"}},
            "additionalProperties": False,
        },
    ),
    "Done": {"type": "object", "additionalProperties": False},
    "Error": _object(
        ("error",),
        error={"type": "string", "description": "What is wrong, for people."},
        reason={"type": "string", "description": "Why, for programs: QUEUE_FULL, …"},
        field={"type": "string", "description": "The path of the invalid field."},
        retry_after_ms={"type": "integer", "minimum": 0, "description": "When to try again."},
    ),
}
