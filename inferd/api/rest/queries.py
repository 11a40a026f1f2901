"""Queries over HTTP: each reads its request, is answered as over gRPC, and writes the answer as JSON."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.admission import ModelView
from inferd.api.json_messages import as_json, json_answer
from inferd.api.oip import queries
from inferd.api.oip.queries import OpenInferenceQueries
from inferd.api.rest import routes
from inferd.api.v1.service import describe_model
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpBody, HttpMessage
from inferd.plain_text import quoted

_NOT_READY = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class RestQuery:
    """A query. ``respond`` may raise `ServingError`; ``waits`` loads models on demand for it."""

    operation: str
    respond: Callable[[HttpMessage, ModelView], HttpBody]
    waits: bool = False


def rest_queries(answers: OpenInferenceQueries) -> Iterator[RestQuery]:
    """Yield all queries; their answers are those of gRPC."""
    yield _query(routes.SERVER_LIVE, pb.ServerLiveRequest, queries.server_live, _readiness)
    yield _query(routes.SERVER_READY, pb.ServerReadyRequest, answers.server_ready, _readiness)
    yield _query(routes.SERVER_METADATA, pb.ServerMetadataRequest, queries.server_metadata, _write)
    yield RestQuery(operation=routes.MODELS, respond=_models)
    yield _query(routes.ALL_STATISTICS, pb.ModelStatisticsRequest, answers.model_statistics, _write)
    yield _query(routes.MODEL_STATISTICS, pb.ModelStatisticsRequest, answers.model_statistics, _write)
    yield RestQuery(operation=routes.MODEL_READY, respond=_model_ready)
    yield _query(routes.MODEL_METADATA, pb.ModelMetadataRequest, queries.model_metadata, _write, waits=True)
    yield _query(routes.MODEL_CONFIG, pb.ModelConfigRequest, queries.model_config, _write_config, waits=True)


def _query(
    operation: str,
    kind: type[Message],
    respond: Callable[[Any, ModelView], Message],
    write: Callable[[Any], HttpBody],
    *,
    waits: bool = False,
) -> RestQuery:
    """Return a query that ``respond`` answers, as it answers messages of ``kind`` over gRPC."""

    def answer(message: HttpMessage, models: ModelView) -> HttpBody:
        return write(respond(_read(kind, message), models))

    return RestQuery(operation=operation, respond=answer, waits=waits)


def _read(kind: type[Message], message: HttpMessage) -> Message:
    """Return the message of ``kind``, with the model and version of the path if it has one."""
    path = message.path
    if "model" not in path:
        return kind()
    return kind(name=path["model"], version=path.get("version", ""))


def _write(response: Message) -> HttpBody:
    return json_answer(as_json(response))


def _write_config(response: pb.ModelConfigResponse) -> HttpBody:
    # As Triton, without the message around it that gRPC has.
    return _write(response.config)


def _readiness(response: Message) -> HttpBody:
    """Write readiness as the status, for Triton's clients, and as the body, for KServe's."""
    content = as_json(response)
    return json_answer(content, status=200 if all(content.values()) else _NOT_READY)


def _model_ready(message: HttpMessage, models: ModelView) -> HttpBody:
    query = pb.ModelReadyRequest(name=message.path["model"], version=message.path.get("version", ""))
    ready = queries.model_ready(query, models).ready
    return json_answer({"name": query.name, "ready": ready}, status=200 if ready else _NOT_READY)


def _models(message: HttpMessage, models: ModelView) -> HttpBody:
    """Return the names of all models, as KServe does; with details, their versions as ListModels describes them."""
    query = message.query
    details = query.get("details", "false")
    if details not in ("true", "false"):
        raise InvalidInputError(f"details: expected true or false, got {quoted(details)}", field="details")
    if details == "false":
        return json_answer({"models": list(dict.fromkeys(version.name for version in models.all()))})
    name = query.get("model")
    found = models.all() if name is None else [models.find(name, query.get("version", ""))]
    return json_answer({"models": [as_json(describe_model(version)) for version in found]})
