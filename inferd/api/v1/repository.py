"""LoadModel, UnloadModel and IndexModels of ``inferd.v1``."""

from collections.abc import Callable
from typing import Any

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.codec import parse_query
from inferd.api.repository import (
    Command,
    CommandMethod,
    LoadReader,
    RepositoryControl,
    checked_command,
    override_of,
)
from inferd.models.manager import IndexEntry
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion

_load_reader = LoadReader(
    pb.LoadModelRequest, pb.LoadModelRequest.DESCRIPTOR, "inferd.v1.LoadModelRequest.FilesEntry.value"
)


def repository_handlers(
    control: RepositoryControl, registry: ModelRegistry, describe: Callable[[ModelVersion], pb.Model]
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of the methods, by name."""

    def loaded(name: str) -> pb.LoadModelResponse:
        return pb.LoadModelResponse(models=[describe(version) for version in registry.versions(name)])

    load = CommandMethod(action="load", read=_read_load, respond=loaded)
    unload = CommandMethod(action="unload", read=_read_unload, respond=lambda _: pb.UnloadModelResponse())
    return {
        "LoadModel": control.command_handler(load),
        "UnloadModel": control.command_handler(unload),
        "IndexModels": control.index_handler(pb.IndexModelsRequest, _only_ready, _index),
    }


def _only_ready(query: pb.IndexModelsRequest) -> bool:
    return query.ready


def _index(entries: list[IndexEntry]) -> pb.IndexModelsResponse:
    return pb.IndexModelsResponse(
        models=[
            pb.ModelIndex(
                name=entry.name,
                version=entry.version,
                state=pb.Model.State.Value(f"STATE_{entry.state.name}"),
                reason=entry.reason,
            )
            for entry in entries
        ]
    )


def _read_load(message: bytes) -> Command:
    request: pb.LoadModelRequest = _load_reader.read(message)
    override = override_of(request.config, request.files, field=lambda path: f'files["{path}"]')
    return checked_command(Command(model=request.model, version=request.version, override=override), name_field="model")


def _read_unload(message: bytes) -> Command:
    request = parse_query(pb.UnloadModelRequest, message)
    return checked_command(Command(model=request.model, version=request.version), name_field="model")
