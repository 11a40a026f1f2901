"""The standard health service, with watches that do not delay the stop."""

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

#: Names for the probes of an orchestrator, besides "" and the names of the services.
LIVENESS, READINESS, STARTUP = "liveness", "readiness", "startup"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthService(health.HealthServicer):
    """`grpc.health.v1.Health`: grpcio's service with ``List``, and with an end for ``Watch``.

    | name | SERVING |
    |---|---|
    | "", "readiness", each of ``services`` | from `open` until `drain`, except while ``is_late()`` |
    | "startup" | from `open` on |
    | "liveness" | always, except while ``is_stuck()`` |

    Both functions are called for each ``Check`` and must be quick. `update` sends changes to watchers.

    Clients keep watches open; without `end_watches` each would delay the stop by the whole drain grace. Invariant: a
    watch that is open when `end_watches` is called, or begins later, ends with OK. Any thread.
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
        #: Names that always share a state, the group of each name, and the state last sent to watchers of each group.
        self._groups = ((STARTUP,), ("", READINESS, *services), (LIVENESS,))
        self._group_of = {name: number for number, names in enumerate(self._groups) for name in names}
        self._sent = (False, False, True)
        self._sending = threading.Lock()
        for names, is_serving in zip(self._groups, self._sent, strict=True):
            self._set(names, is_serving)

    def open(self) -> None:
        """Report ready and started: everything has been loaded."""
        self._open = True
        self.update()

    def drain(self) -> None:
        """Report not ready, so that clients send further calls elsewhere."""
        self._draining = True
        self.update()

    def update(self) -> None:
        """Send watchers the states that have changed since the last update."""
        if self._states() == self._sent:
            return
        with self._sending:
            # Computed again under the lock, so that the last update sends the current state.
            before, self._sent = self._sent, self._states()
            for names, was_serving, is_serving in zip(self._groups, before, self._sent, strict=True):
                if is_serving is not was_serving:
                    self._set(names, is_serving)

    def _set(self, names: Iterable[str], is_serving: bool) -> None:
        for name in names:
            self.set(name, _SERVING if is_serving else _NOT_SERVING)

    def _states(self) -> tuple[bool, bool, bool]:
        """Return whether each group is serving now."""
        return self._open, self._open and not self._draining and not self._is_late(), not self._is_stuck()

    def Watch(  # noqa: N802  the name in the contract
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: _Send | None = None,
    ) -> None:
        """Send the current status and each later one."""
        send = send_response_callback
        assert send is not None, "the server passes one to handlers that do not block"
        with self._watches_lock:
            self._watches.add(send)
            ended = self._watches_ended
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)
            return
        if request.service in self._group_of:
            super().Watch(request, context, send)
        else:
            # The names never change, and grpcio's service would keep the unknown name forever.
            send(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN))
        if ended:
            send(None)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return handlers that run on the poll thread, by method name: a probe must not wait for a thread.

        grpcio's service lacks ``List``.
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
            status = _SERVING if self._states()[group] else _NOT_SERVING
            call.reply(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def _list(self, call: UnaryCall, _message: bytes) -> None:
        """Answer without parsing the request, which has no fields."""
        self.update()
        serving = self._states()
        statuses = {
            name: HealthStatus.SERVING if serving[group] else HealthStatus.NOT_SERVING
            for name, group in self._group_of.items()
        }
        call.reply(listing(statuses))

    def end_watches(self) -> None:
        """End every watch with OK, those that begin later as well."""
        with self._watches_lock:
            self._watches_ended = True
            watches = list(self._watches)
        for send in watches:
            send(None)

    def _forget(self, send: _Send) -> None:
        with self._watches_lock:
            self._watches.discard(send)
