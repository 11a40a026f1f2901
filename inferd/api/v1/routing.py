"""GetRouting and SetRouting of ``inferd.v1``."""

import logging
from collections.abc import Mapping
from typing import Any

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.admission import ModelView
from inferd.config.routing import RoutingSettings
from inferd.config.validation import SettingsError, validate
from inferd.errors import InvalidInputError
from inferd.models.router import Router
from inferd.security.authorization.methods import MethodKind

_log = logging.getLogger(__name__)


class RoutingMethods:
    """Answers the calls; on the poll thread."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def get(self, query: pb.GetRoutingRequest, models: ModelView) -> pb.GetRoutingResponse:
        """Return the routing of a model."""
        name = models.find(query.model, "").name
        return pb.GetRoutingResponse(routing=_message(self._router.routing(name)))

    def set(self, query: pb.SetRoutingRequest, models: ModelView) -> pb.SetRoutingResponse:
        """Change the routing of a model. Raises `InvalidInputError`."""
        name = models.visible(query.model)
        models.require(MethodKind.ADMIN, name)
        settings = _settings(query.routing)
        change_routing(self._router, name, settings, principal=models.principal)
        return pb.SetRoutingResponse(routing=_message(settings))


def change_routing(router: Router, name: str, settings: RoutingSettings, *, principal: str) -> None:
    """Route as ``principal`` asks, and log it. Raises as `Router.change`."""
    router.change(name, settings)
    _log.info(
        "routing changed",
        extra={"model": name, "principal": principal, "routing": settings.model_dump(exclude_none=True)},
    )


def routing_settings(content: Mapping[str, Any]) -> RoutingSettings:
    """Return the settings that a caller asks for. Raises `InvalidInputError` naming the field."""
    try:
        return validate(RoutingSettings, content, origin_of=lambda _: "")
    except SettingsError as error:
        first = error.problems[0]
        field = f"routing.{first.name}" if first.name else "routing"
        raise InvalidInputError(f"{field}: {first.text}", field=field) from None


def _message(settings: RoutingSettings) -> pb.Routing:
    shadow = settings.shadow
    return pb.Routing(
        labels=settings.labels,
        weights=settings.weights,
        shadow=None
        if shadow is None
        else pb.Shadow(version=shadow.version, share=shadow.share, tolerance=shadow.tolerance),
    )


def _settings(routing: pb.Routing) -> RoutingSettings:
    """Return what a caller asks for. Raises `InvalidInputError` naming the field."""
    content: dict[str, Any] = {"labels": dict(routing.labels), "weights": dict(routing.weights)}
    if routing.HasField("shadow"):
        shadow = routing.shadow
        content["shadow"] = {"version": shadow.version, "share": shadow.share or 1.0}
        if shadow.HasField("tolerance"):
            content["shadow"]["tolerance"] = shadow.tolerance
    return routing_settings(content)
