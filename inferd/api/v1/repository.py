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
from inferd.rpc import callback_unary

_load_reader = LoadReader(
    pb.LoadModelRequest, pb.LoadModelRequest.DESCRIPTOR, "inferd.v1.LoadModelRequest.FilesEntry.value"
)


def repository_handlers(
    control: RepositoryControl, registry: ModelRegistry, describe: Callable[[ModelVersion], pb.Model]
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of the methods, by name."""

    def loaded(name: str) -> bytes:
        models = [describe(version) for version in registry.versions(name)]
        return pb.LoadModelResponse(models=models).SerializeToString()

    unloaded = pb.UnloadModelResponse().SerializeToString()
    load = CommandMethod(action="load", read=_read_load, respond=loaded)
    unload = CommandMethod(action="unload", read=_read_unload, respond=lambda _: unloaded)
    return {
        "LoadModel": callback_unary(control.command_handler(load)),
        "UnloadModel": callback_unary(control.command_handler(unload)),
        "IndexModels": callback_unary(control.index_handler(_only_ready, _index)),
    }


def _only_ready(message: bytes) -> bool:
    return parse_query(pb.IndexModelsRequest, message).ready


def _index(entries: list[IndexEntry]) -> bytes:
    response = pb.IndexModelsResponse(
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
    return response.SerializeToString()


def _read_load(message: bytes) -> Command:
    request: pb.LoadModelRequest = _load_reader.read(message)
    override = override_of(request.config, request.files, field=lambda path: f'files["{path}"]')
    return checked_command(Command(model=request.model, version=request.version, override=override), name_field="model")


def _read_unload(message: bytes) -> Command:
    request = parse_query(pb.UnloadModelRequest, message)
    return checked_command(Command(model=request.model, version=request.version), name_field="model")
