"""Messages to load, unload and index models, and to route requests to their versions. Pure."""

import json
from collections.abc import Mapping

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import checked_flag, checked_text
from inferd.client.messages import state_of
from inferd.client.results import IndexEntry, Routing, Shadow

#: A model's configuration in the fields of Triton's ModelConfig: as JSON, or what becomes JSON.
ModelConfig = str | Mapping[str, object]

#: Default timeout of calls that end when a model is loaded or unloaded.
CONTROL_TIMEOUT_S = 600.0


def load_request(
    name: str, version: str, config: ModelConfig | None, files: Mapping[str, bytes] | None
) -> pb.LoadModelRequest:
    """Return the request. Raises `TypeError` or `ValueError` naming the argument."""
    return pb.LoadModelRequest(
        model=checked_text("name", name),
        version=checked_text("version", version),
        config="" if config is None else _config_text(config),
        files={} if files is None else _checked_files(files),
    )


def unload_request(name: str, version: str) -> pb.UnloadModelRequest:
    """Return the request. Raises `TypeError` or `ValueError` naming the argument."""
    return pb.UnloadModelRequest(model=checked_text("name", name), version=checked_text("version", version))


def index_request(ready: bool) -> pb.IndexModelsRequest:
    """Return the request. Raises `TypeError` naming the argument."""
    return pb.IndexModelsRequest(ready=checked_flag("ready", ready))


def index_entries(response: pb.IndexModelsResponse) -> list[IndexEntry]:
    """Convert an index."""
    return [
        IndexEntry(name=each.name, version=each.version, state=state_of(each.state), reason=each.reason)
        for each in response.models
    ]


def routing_request(name: str) -> pb.GetRoutingRequest:
    """Return the request. Raises `TypeError` or `ValueError` naming the argument."""
    return pb.GetRoutingRequest(model=checked_text("name", name))


def set_routing_request(name: str, routing: Routing) -> pb.SetRoutingRequest:
    """Return the request. Raises `TypeError` or `ValueError` naming the argument."""
    if not isinstance(routing, Routing):
        raise TypeError(f"routing: expected a Routing, got {type(routing).__name__}")
    shadow = routing.shadow
    try:
        message = pb.Routing(
            labels={str(label): str(version) for label, version in routing.labels.items()},
            weights={str(name): weight for name, weight in routing.weights.items()},
            shadow=None
            if shadow is None
            else pb.Shadow(version=str(shadow.version), share=shadow.share, tolerance=shadow.tolerance),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"routing: expected labels, weights and a shadow of their types: {error}") from None
    return pb.SetRoutingRequest(model=checked_text("name", name), routing=message)


def routing_of(routing: pb.Routing) -> Routing:
    """Convert the routing of a model; a message has its labels and weights in no order."""
    shadow = routing.shadow
    return Routing(
        labels=dict(sorted(routing.labels.items())),
        weights=dict(sorted(routing.weights.items())),
        shadow=Shadow(version=shadow.version, share=shadow.share, tolerance=shadow.tolerance)
        if routing.HasField("shadow")
        else None,
    )


def _config_text(config: object) -> str:
    if isinstance(config, str):
        return checked_text("config", config)
    if not isinstance(config, Mapping):
        raise TypeError(f"config: expected a str or a mapping, got {type(config).__name__}")
    try:
        return json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"config: expected what can be written as JSON: {error}") from None


def _checked_files(files: object) -> dict[str, bytes]:
    if not isinstance(files, Mapping):
        raise TypeError(f"files: expected a mapping of bytes by VERSION/NAME, got {type(files).__name__}")
    for path, content in files.items():
        if not isinstance(path, str):
            raise TypeError(f"files: expected a str as path, got {type(path).__name__}")
        if not isinstance(content, bytes):
            raise TypeError(f'files: expected bytes for "{path}", got {type(content).__name__}')
    return dict(files)
