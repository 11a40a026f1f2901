"""JSON schemas of the requests and answers that only the REST form has."""

from inferd import dtypes
from inferd.api.json_schema import Schema, reference


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
