"""The standard health service: of the server, its services, an orchestrator's probes, and each model by its name."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2

from inferd.api.codec import parse_query
from inferd.call_context import ANONYMOUS, CallContext
from inferd.errors import InvalidInputError, ModelNotFoundError, ModelUnavailableError
from inferd.health_check import HealthStatus, encode_list
from inferd.models.registry import ModelRegistry, Visible
from inferd.models.version import ModelVersion
from inferd.plain_text import listed, quoted
from inferd.rpc import UnaryCall, callback_unary
from inferd.security.authorization.policy import Permissions

#: Sends a status to a watcher, or ends its stream if given None.
_Send = Callable[[health_pb2.HealthCheckResponse | None], Any]

#: Names for the probes of an orchestrator, besides "" and the names of the services.
LIVENESS, READINESS, STARTUP = "liveness", "readiness", "startup"


class WatchContext(Protocol):
    """The part of a call that a watch needs."""

    @property
    def call_context(self) -> CallContext:
        """The caller."""
        ...

    def add_callback(self, callback: Callable[[], None], /) -> bool:
        """Call ``callback`` when the call has ended. Returns False if it has ended already."""
        ...


@dataclass(slots=True)
class _Watch:
    """One stream: the name it asks for, the models that its caller sees, and the status it was sent last."""

    name: str
    visible: Visible
    sent: HealthStatus | None = None


class HealthService:
    """`grpc.health.v1.Health`.

    | name | SERVING |
    |---|---|
    | "", "readiness", each of ``services`` | from `open` until `drain`, except while ``is_late()`` |
    | "startup" | from `start` on |
    | "liveness" | always, except while ``is_stuck()`` |
    | MODEL, MODEL/VERSION | while a version, or that version, accepts requests, until `drain`, except while
    ``is_late()`` |

    The names above come first where a model has the same name. Models that a caller may not see are unknown to it, and
    all are to callers that need no credential for this service while others do, unless ``anonymous_sees_models``.

    Both functions are called for each ``Check`` and must be quick. `update` and `update_models` send changes to
    watchers; a name that is not known yet is SERVICE_UNKNOWN until it is.

    Clients keep watches open; without `end_watches` each would delay the stop by the whole drain grace. Invariant: a
    watch that is open when `end_watches` is called, or begins later, ends with OK. Any thread.
    """

    def __init__(
        self,
        services: Iterable[str] = (),
        *,
        models: ModelRegistry | None = None,
        anonymous_sees_models: bool = True,
        is_late: Callable[[], bool] = lambda: False,
        is_stuck: Callable[[], bool] = lambda: False,
    ) -> None:
        self._models = ModelRegistry() if models is None else models
        self._anonymous_sees_models = anonymous_sees_models
        self._is_late = is_late
        self._is_stuck = is_stuck
        self._started = False
        self._open = False
        self._draining = False
        #: Names that always share a state, by the number of their group.
        groups = ((STARTUP,), ("", READINESS, *services), (LIVENESS,))
        self._group_of = {name: number for number, names in enumerate(groups) for name in names}
        #: Held while watchers are sent something, so that each gets changes in their order.
        self._lock = threading.Lock()
        self._watches: dict[_Send, _Watch] = {}
        self._watches_ended = False
        self._sent = (False, False, True)

    def start(self) -> None:
        """Report started: every model has been loaded or has failed."""
        self._started = True
        self.update()

    def open(self) -> None:
        """Report ready, and started."""
        self._started = self._open = True
        self.update()

    def drain(self) -> None:
        """Report not ready, so that clients send further calls elsewhere."""
        self._draining = True
        self.update()

    def update(self) -> None:
        """Send watchers what has changed, if the state of the server has."""
        if self._states() != self._sent:
            self.update_models()

    def update_models(self) -> None:
        """Send watchers what has changed, in the server or its models."""
        with self._lock:
            self._sent = self._states()
            for send, watch in self._watches.items():
                self._send_change(send, watch)

    def end_watches(self) -> None:
        """End every watch with OK, those that begin later as well."""
        with self._lock:
            self._watches_ended = True
            for send in self._watches:
                send(None)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handlers by method name.

        Those of unary methods run on the poll thread: a probe must not wait for a thread. That of ``Watch`` takes a
        thread for the first answer only.
        """
        return {
            "Check": callback_unary(self._check),
            "List": callback_unary(self._list),
            "Watch": grpc.unary_stream_rpc_method_handler(
                _NonBlocking(self.watch),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }

    def watch(self, request: health_pb2.HealthCheckRequest, context: WatchContext, send: _Send) -> None:
        """Send the current status and each later one."""
        watch = _Watch(request.service, self._visible_to(context.call_context))
        with self._lock:
            self._watches[send] = watch
        if not context.add_callback(partial(self._forget, send)):
            self._forget(send)
            return
        with self._lock:
            self._send_change(send, watch)
            if self._watches_ended:
                send(None)

    def _forget(self, send: _Send) -> None:
        with self._lock:
            self._watches.pop(send, None)

    def _send_change(self, send: _Send, watch: _Watch) -> None:
        """Send the status of a watch if it is another one than before; with the lock."""
        status = self._status(watch.name, watch.visible)
        if status is not watch.sent:
            watch.sent = status
            send(_response(status))

    def _states(self) -> tuple[bool, bool, bool]:
        """Return whether each group is serving now."""
        return self._started, self._open and not self._draining and not self._is_late(), not self._is_stuck()

    def _status(self, name: str, visible: Visible) -> HealthStatus:
        group = self._group_of.get(name)
        if group is not None:
            return _status_of(self._states()[group])
        version = self._find(name, visible)
        if version is None:
            return HealthStatus.SERVICE_UNKNOWN
        return _status_of(version.accepts_requests and self._serves_models())

    def _serves_models(self) -> bool:
        return not self._draining and not self._is_late()

    def _find(self, name: str, visible: Visible) -> ModelVersion | None:
        """Return the model called ``name``, in a ready version if it has one, or the version MODEL/VERSION."""
        model, _, version = name.rpartition("/")
        # The registry takes an empty name for that of the only model.
        candidates = [(name, ""), (model, version)] if model and version else [(name, "")]
        for candidate in candidates:
            with suppress(ModelNotFoundError, ModelUnavailableError):
                return self._models.find(*candidate, visible)
        return None

    def _visible_to(self, caller: CallContext) -> Visible:
        """Return which models ``caller`` sees."""
        if isinstance(caller.permissions, Permissions):
            return caller.permissions.sees
        sees_models = self._anonymous_sees_models or caller.principal != ANONYMOUS
        return lambda _: sees_models

    def _check(self, call: UnaryCall, message: bytes) -> None:
        try:
            service = parse_query(health_pb2.HealthCheckRequest, message).service
        except InvalidInputError as error:
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            return
        self.update()
        status = self._status(service, self._visible_to(call.context))
        if status is HealthStatus.SERVICE_UNKNOWN:
            known = listed([*(name for name in self._group_of if name), "a model"])
            text = f"service: expected one of {known}, or none for the whole server, got {quoted(service)}"
            call.abort(grpc.StatusCode.NOT_FOUND, text)
        else:
            call.reply(_response(status).SerializeToString())

    def _list(self, call: UnaryCall, _message: bytes) -> None:
        """Answer without parsing the request, which has no fields."""
        self.update()
        visible = self._visible_to(call.context)
        models = {version.name for version in self._models.all() if visible(version.name)}
        names = dict.fromkeys((*self._group_of, *sorted(models)))
        call.reply(encode_list({name: self._status(name, visible) for name in names}))


class _NonBlocking:
    """Marks a handler as one that gets a function to send responses with, as grpcio's health service does."""

    experimental_non_blocking = True

    def __init__(self, handler: Callable[[health_pb2.HealthCheckRequest, WatchContext, _Send], None]) -> None:
        self._handler = handler

    def __call__(self, request: health_pb2.HealthCheckRequest, context: WatchContext, send: _Send) -> None:
        """Answer ``request`` through ``send``, now and later."""
        self._handler(request, context, send)


def _response(status: HealthStatus) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def _status_of(is_serving: bool) -> HealthStatus:
    return HealthStatus.SERVING if is_serving else HealthStatus.NOT_SERVING
