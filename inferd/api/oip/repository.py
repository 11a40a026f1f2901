"""The repository extension of the Open Inference Protocol: index, load and unload, in Triton's terms."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.codec import parse_query
from inferd.api.repository import (
    Command,
    CommandMethod,
    Incoming,
    LoadReader,
    RepositoryControl,
    checked_command,
    override_of,
)
from inferd.errors import InvalidInputError
from inferd.models.manager import IndexEntry
from inferd.models.states import ModelState
from inferd.plain_text import clipped
from inferd.rpc import callback_unary

_CONFIG, _FILE = "config", "file:"
_UNLOAD_DEPENDENTS = "unload_dependents"

#: Triton's names of the states. A version that failed is unavailable, with a reason, and so is one on demand.
_STATES = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.VERIFYING: "LOADING",
    ModelState.WARMING: "LOADING",
    ModelState.UNLOADING: "UNLOADING",
    ModelState.UNAVAILABLE: "UNAVAILABLE",
    ModelState.ON_DEMAND: "UNAVAILABLE",
    ModelState.FAILED: "UNAVAILABLE",
}

_ON_DEMAND = "the next request loads it"

_load_reader = LoadReader(
    pb.RepositoryModelLoadRequest,
    pb.RepositoryModelLoadRequest.DESCRIPTOR,
    "inference.ModelRepositoryParameter.bytes_param",
)


def repository_handlers(control: RepositoryControl) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of the extension's methods, by name."""
    load = load_method(_read_load, pb.RepositoryModelLoadResponse().SerializeToString())
    unload = unload_method(_read_unload, pb.RepositoryModelUnloadResponse().SerializeToString())
    index = control.index_handler(_read_index, lambda entries: index_response(entries).SerializeToString())
    return {
        "RepositoryIndex": callback_unary(index),
        "RepositoryModelLoad": callback_unary(control.command_handler(load)),
        "RepositoryModelUnload": callback_unary(control.command_handler(unload)),
    }


def load_method(read: Callable[[Incoming], Command], done: bytes) -> CommandMethod[Incoming]:
    """Return the method that loads a model, and answers ``done``."""
    return CommandMethod(action="load", read=read, respond=lambda _: done)


def unload_method(read: Callable[[Incoming], Command], done: bytes) -> CommandMethod[Incoming]:
    """Return the method that unloads a model; as for Triton, having nothing to unload is no error."""
    return CommandMethod(action="unload", read=read, respond=lambda _: done, may_be_absent=True)


def _read_index(message: bytes) -> bool:
    return only_ready(parse_query(pb.RepositoryIndexRequest, message))


def only_ready(query: pb.RepositoryIndexRequest) -> bool:
    """Return whether ``query`` asks for ready versions only. Raises `InvalidInputError`."""
    _require_no_repository(query.repository_name)
    return query.ready


def index_response(entries: list[IndexEntry]) -> pb.RepositoryIndexResponse:
    """Return the entries in Triton's terms."""
    return pb.RepositoryIndexResponse(models=[_model_index(entry) for entry in entries])


def _model_index(entry: IndexEntry) -> pb.RepositoryIndexResponse.ModelIndex:
    if not entry.version:
        # As Triton: a model that was never loaded has only a name.
        return pb.RepositoryIndexResponse.ModelIndex(name=entry.name)
    reason = _ON_DEMAND if entry.state is ModelState.ON_DEMAND else entry.reason
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.name, version=entry.version, state=_STATES[entry.state], reason=reason
    )


def _read_load(message: bytes) -> Command:
    return load_command(_load_reader.read(message))


def load_command(request: pb.RepositoryModelLoadRequest) -> Command:
    """Return what ``request`` asks for. Raises `InvalidInputError`."""
    _require_no_repository(request.repository_name)
    config, files = "", {}
    for name, parameter in request.parameters.items():
        if name == _CONFIG:
            config = _typed(name, parameter, "string_param")
        elif name.startswith(_FILE):
            files[name.removeprefix(_FILE)] = _typed(name, parameter, "bytes_param")
        else:
            raise InvalidInputError(f"unrecognized load parameter '{clipped(name)}'.", field=_field(name))
    override = override_of(config, files, prefix=_FILE, field=lambda path: _field(f"{_FILE}{path}"))
    return checked_command(Command(model=request.model_name, override=override), name_field="model_name")


def _typed(name: str, parameter: pb.ModelRepositoryParameter, choice: str) -> Any:  # noqa: ANN401  (by the choice)
    """Return the value of a load parameter. Raises `InvalidInputError`, with Triton's text, for another type."""
    if parameter.WhichOneof("parameter_choice") != choice:
        msg = f"invalid value type for load parameter '{clipped(name)}', expected {choice}."
        raise InvalidInputError(msg, field=_field(name))
    return getattr(parameter, choice)


def _read_unload(message: bytes) -> Command:
    return unload_command(parse_query(pb.RepositoryModelUnloadRequest, message))


def unload_command(request: pb.RepositoryModelUnloadRequest) -> Command:
    """Return what ``request`` asks for. Raises `InvalidInputError`."""
    _require_no_repository(request.repository_name)
    _check_unload(request.parameters)
    return checked_command(Command(model=request.model_name), name_field="model_name")


def _check_unload(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> None:
    for name, parameter in parameters.items():
        if name != _UNLOAD_DEPENDENTS:
            raise InvalidInputError(f"unrecognized unload parameter '{clipped(name)}'.", field=_field(name))
        if parameter.WhichOneof("parameter_choice") != "bool_param":
            msg = f"invalid value type for '{_UNLOAD_DEPENDENTS}' parameter, expected bool_param."
            raise InvalidInputError(msg, field=_field(name))


def _require_no_repository(name: str) -> None:
    if name:
        raise InvalidInputError("'repository_name' specification is not supported", field="repository_name")


def _field(parameter: str) -> str:
    return f'parameters["{parameter}"]'
