"""The description of all operations over HTTP in OpenAPI 3.1, from their tables."""

import re
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

import inferd
from inferd._generated.inferd.v1 import inference_pb2 as v1_pb
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference import model_config_pb2 as config_pb
from inferd.api.json_messages import json_answer
from inferd.api.json_schema import Schema, message_schemas, reference
from inferd.api.openai import routes as openai_routes
from inferd.api.openai.schemas import TEXT_SCHEMAS
from inferd.api.rest import routes
from inferd.api.rest.schemas import REST_SCHEMAS
from inferd.http.messages import JSON_LENGTH_HEADER, HttpMessage, Operation
from inferd.rpc import UnaryCall

_JSON = "application/json"
_BINARY = "application/octet-stream"
_EVENTS = "text/event-stream"

#: The answers that an operation may have besides the good one, by status.
_ERRORS = {
    "400": "The request is invalid.",
    "401": "A valid credential is needed.",
    "403": "No rule allows it.",
    "404": "There is no such model or version.",
    "413": "The body is too large.",
    "429": "Too many requests; try again after Retry-After.",
    "500": "The model, or the server, has failed.",
    "503": "The server or the model is not available.",
    "504": "The deadline has passed.",
}

_PARAMETERS: dict[str, Schema] = {
    "model": {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
    },
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "A version's number, or a label.",
        "schema": {"type": "string"},
    },
    "details": {
        "name": "details",
        "in": "query",
        "description": "Describe each version instead of naming the models.",
        "schema": {"type": "boolean", "default": False},
    },
    "described_model": {
        "name": "model",
        "in": "query",
        "description": "With details: describe one version of this model.",
        "schema": {"type": "string"},
    },
    "described_version": {
        "name": "version",
        "in": "query",
        "description": "With details and model: a version's number, or a label; by default the one that requests get.",
        "schema": {"type": "string"},
    },
    "request_id": {
        "name": "x-request-id",
        "in": "header",
        "description": "Identifies the request in logs and traces; the answer has it too.",
        "schema": {"type": "string"},
    },
    "timeout": {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "Time after which the answer is of no use any more: the request is given up then.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    "header_length": {
        "name": JSON_LENGTH_HEADER,
        "in": "header",
        "description": "Length of the JSON that the body begins with; tensors follow. Without it, all is JSON.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


@dataclass(frozen=True, slots=True)
class _Described:
    """The description of an operation: a summary, and the schemas of its answer and of its body, by name or message.

    With ``not_ready``, there is a status for what is not ready, with the same schema; with ``needs_body``, the body may
    not be absent. ``answers`` are the forms of the answer.
    """

    summary: str
    answer: str | type[Message]
    body: str = ""
    not_ready: bool = False
    needs_body: bool = False
    answers: tuple[str, ...] = (_JSON,)


_OPERATIONS = {
    routes.SERVER_METADATA: _Described("Name, version and extensions of the server", pb.ServerMetadataResponse),
    routes.SERVER_LIVE: _Described("Whether the server is alive", pb.ServerLiveResponse, not_ready=True),
    routes.SERVER_READY: _Described("Whether the server is ready", pb.ServerReadyResponse, not_ready=True),
    routes.MODELS: _Described("Names of the models, or what is known of their versions", "Models"),
    routes.ALL_STATISTICS: _Described("Statistics of all models", pb.ModelStatisticsResponse),
    routes.MODEL_METADATA: _Described("Inputs, outputs and versions of a model", pb.ModelMetadataResponse),
    routes.MODEL_READY: _Described("Whether a model accepts requests", "ModelReady", not_ready=True),
    routes.MODEL_CONFIG: _Described("Configuration of a model, in Triton's terms", config_pb.ModelConfig),
    routes.MODEL_STATISTICS: _Described("Statistics of a model", pb.ModelStatisticsResponse),
    routes.INFER: _Described("Run a model", "InferenceResponse", "InferenceRequest", needs_body=True),
    routes.GENERATE: _Described("Generate text", "GenerateResponse", "GenerateRequest", needs_body=True),
    routes.GENERATE_STREAM: _Described(
        *("Generate text, in events", "GenerateResponse", "GenerateRequest"), needs_body=True, answers=(_EVENTS,)
    ),
    routes.INDEX: _Described("Models in the repositories, with their states", "Index", "IndexRequest"),
    routes.LOAD: _Described("Load a model, or load it again", "Done", "LoadRequest"),
    routes.UNLOAD: _Described("Unload a model", "Done", "UnloadRequest"),
    routes.OPENAPI: _Described("This description", "OpenApi"),
    openai_routes.MODELS: _Described("Language models", "LanguageModels"),
    openai_routes.MODEL: _Described("A language model", "LanguageModel"),
    openai_routes.COMPLETIONS: _Described(
        *("Continue a text", "Completion", "CompletionRequest"), needs_body=True, answers=(_JSON, _EVENTS)
    ),
    openai_routes.CHAT_COMPLETIONS: _Described(
        *("Answer in a chat", "ChatCompletion", "ChatCompletionRequest"), needs_body=True, answers=(_JSON, _EVENTS)
    ),
}
#: Schemas of errors, by the first segment of the path.
_ERROR_SCHEMAS = {"v2": "Error", openai_routes.PREFIX: "OpenAiError"}


def openapi_operation(max_body_bytes: int) -> tuple[str, Operation]:
    """Return the operation that answers with the description, which is written once, with the template of its path."""
    answer = json_answer(description())

    def handle(call: UnaryCall, _: HttpMessage) -> None:
        call.reply(answer)

    (path,) = routes.PATHS[routes.OPENAPI]
    return path, Operation(method=routes.OPENAPI, handler=handle, max_body_bytes=max_body_bytes)


def description() -> dict[str, Any]:
    """Return the description of all operations."""
    schemas: dict[str, Schema] = {**REST_SCHEMAS, **TEXT_SCHEMAS, "OpenApi": {"type": "object"}}
    paths: dict[str, dict[str, Any]] = {}
    openai_paths = {operation: (path,) for operation, path in openai_routes.PATHS.items()}
    for operation, templates in {**routes.PATHS, **openai_paths}.items():
        verb = operation.partition(" ")[0].lower()
        for path in templates:
            paths.setdefault(path, {})[verb] = _operation(operation, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "inferd",
            "version": inferd.__version__,
            "summary": "The Open Inference Protocol over HTTP, with extensions of Triton, and OpenAI's API for text",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": _PARAMETERS,
            "responses": {
                f"{prefix}-{status}": _error(text, schema)
                for prefix, schema in _ERROR_SCHEMAS.items()
                for status, text in _ERRORS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        # What the settings of the server demand.
        "security": [{}, {"bearer": []}, {"certificate": []}],
    }


def _operation(operation: str, path: str, schemas: dict[str, Schema]) -> Schema:
    described = _OPERATIONS[operation]
    answer = described.answer
    name = answer if isinstance(answer, str) else message_schemas(cast("Descriptor", answer.DESCRIPTOR), schemas)
    parameters = [name for name in ("model", "version") if f"{{{name}}}" in path]
    if operation == routes.MODELS:
        parameters += ["details", "described_model", "described_version"]
        message_schemas(v1_pb.Model.DESCRIPTOR, schemas)
    is_inference = operation == routes.INFER
    if is_inference:
        parameters.append("header_length")
    if described.needs_body:
        parameters.append("timeout")
    parameters.append("request_id")
    prefix = path.split("/")[1] if path.split("/")[1] in _ERROR_SCHEMAS else "v2"
    contents = {form: {"schema": reference(name)} for form in described.answers}
    responses = {"200": _response("The answer.", _content(name, binary=True) if is_inference else contents)}
    responses |= {status: {"$ref": f"#/components/responses/{prefix}-{status}"} for status in _ERRORS}
    if described.not_ready:
        responses["400"] = _response("Not now.", _content(name))
    content: Schema = {
        "operationId": _id_of(operation, path),
        "summary": described.summary,
        "parameters": [{"$ref": f"#/components/parameters/{each}"} for each in parameters],
        "responses": responses,
    }
    if described.body:
        body = _content(described.body, binary=is_inference)
        content["requestBody"] = {"required": described.needs_body, "content": body}
    return content


def _content(schema: str, *, binary: bool = False) -> Schema:
    content: Schema = {_JSON: {"schema": reference(schema)}}
    if binary:
        content[_BINARY] = {"schema": {"description": "JSON as above, of the length in the header, and then tensors."}}
    return content


def _response(text: str, content: Schema) -> Schema:
    response: Schema = {"description": text, "content": content}
    if _BINARY in content:
        header = {"description": _PARAMETERS["header_length"]["description"], "schema": {"type": "integer"}}
        response["headers"] = {JSON_LENGTH_HEADER: header}
    return response


def _error(text: str, schema: str) -> Schema:
    return {"description": text, "content": _content(schema)}


def _id_of(operation: str, path: str) -> str:
    """Return a name that is unique among the operations: ``post_v2_models_model_infer``."""
    verb = operation.partition(" ")[0].lower()
    return "_".join((verb, *re.findall(r"\w+", path)))
