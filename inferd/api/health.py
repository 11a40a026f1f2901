"""The standard health service, whose watchers hold nothing up."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from inferd.api.codec import parse_query
from inferd.errors import InvalidInputError
from inferd.health_check import HealthStatus, listing
from inferd.plain_text import clipped, escaped, listed
from inferd.rpc import UnaryCall, callback_unary

#: Sends a status to a watcher, or ends its stream if given None.
_Send = Callable[[health_pb2.HealthCheckResponse | None], Any]

#: Names for an orchestrator's three questions, beside "" and those of the services.
LIVENESS, READINESS, STARTUP = "liveness", "readiness", "startup"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthService(health.HealthServicer):
    """`grpc.health.v1.Health`, as grpcio has it, with an end for ``Watch``, and with ``List``.

    | name | SERVING |
    |---|---|
    | "", "readiness", each of ``services`` | from `open` until `drain`, but not while ``is_late`` |
    | "startup" | from `open` on |
    | "liveness" | always, but not while ``is_stuck`` |

    Both are called for each ``Check`` and must be quick; `update` sends watchers what has changed.

    Watchers stay for as long as the server does: without `end_watches` each of them would make its stop take the whole
    grace. Invariant: a watch that is open when `end_watches` is called, or begins later, ends with OK. Any thread.
    """

    def __init__(
        self,
        services: Iterable[str] = (),
        *,
        is_late: Callable[[], bool] = lambda: False,
        is_stuck: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(experimental_non_blocking=True)
        self._is_late = is_late
        self._is_stuck = is_stuck
        self._open = False
        self._draining = False
        self._watches_lock = threading.Lock()
        self._watches: set[_Send] = set()
        self._watches_ended = False
        #: Names that are always in the same state, which of these groups each name is in, and whether each group was
        #: told to be serving.
        self._groups = ((STARTUP,), ("", READINESS, *services), (LIVENESS,))
        self._group_of = {name: number for number, names in enumerate(self._groups) for name in names}
        self._told = (False, False, True)
        self._telling = threading.Lock()
        for names, is_serving in zip(self._groups, self._told, strict=True):
            self._tell(names, is_serving)

    def open(self) -> None:
        """Say that everything has been loaded, and that calls may come."""
        self._open = True
        self.update()

    def drain(self) -> None:
        """Say that further calls should go elsewhere."""
        self._draining = True
        self.update()

    def update(self) -> None:
        """Tell watchers what is another way than they were told last."""
        if self._found() == self._told:
            return
        with self._telling:
            # Computed again with the lock held, so that the last update sends the present state.
            before, self._told = self._told, self._found()
            for names, was_serving, is_serving in zip(self._groups, before, self._told, strict=True):
                if is_serving is not was_serving:
                    self._tell(names, is_serving)

    def _tell(self, names: Iterable[str], is_serving: bool) -> None:
        for name in names:
            self.set(name, _SERVING if is_serving else _NOT_SERVING)

    def _found(self) -> tuple[bool, bool, bool]:
        """Return whether each group is serving."""
        return self._open, self._open and not self._draining and not self._is_late(), not self._is_stuck()

    def Watch(  # noqa: N802  the name in the contract
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: _Send | None = None,
    ) -> None:
        """Send the status that there is, and each that follows."""
        send = send_response_callback
        assert send is not None, "our server gives one to handlers that do not block"
        with self._watches_lock:
            self._watches.add(send)
            ended = self._watches_ended
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)
            return
        if request.service in self._group_of:
            super().Watch(request, context, send)
        else:
            # It will never be known, and grpcio's service would remember for ever that it was asked for.
            send(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN))
        if ended:
            send(None)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return handlers of the methods that answer on the poll thread, by name: a probe must not wait for a thread.

        ``List`` is among them because grpcio's service lacks it.
        """
        return {"Check": callback_unary(self._check), "List": callback_unary(self._list)}

    def _check(self, call: UnaryCall, message: bytes) -> None:
        try:
            service = parse_query(health_pb2.HealthCheckRequest, message).service
        except InvalidInputError as error:
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            return
        self.update()
        group = self._group_of.get(service)
        if group is None:
            known = listed(name for name in self._group_of if name)
            text = f'service: expected one of {known}, or none for the whole server, got "{escaped(clipped(service))}"'
            call.abort(grpc.StatusCode.NOT_FOUND, text)
        else:
            status = _SERVING if self._found()[group] else _NOT_SERVING
            call.reply(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def _list(self, call: UnaryCall, _message: bytes) -> None:
        """Answer whatever came: the request has no fields."""
        self.update()
        found = self._found()
        statuses = {
            name: HealthStatus.SERVING if found[group] else HealthStatus.NOT_SERVING
            for name, group in self._group_of.items()
        }
        call.reply(listing(statuses))

    def end_watches(self) -> None:
        """Let every watcher go, those that are still to come as well."""
        with self._watches_lock:
            self._watches_ended = True
            watches = list(self._watches)
        for send in watches:
            send(None)

    def _forget(self, send: _Send) -> None:
        with self._watches_lock:
            self._watches.discard(send)
